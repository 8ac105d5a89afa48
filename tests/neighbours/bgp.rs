//! MetalLB in BGP mode for other pools.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{PATIENCE, PORT, Stage};
use l2lb_lab::Lab;
use serde_json::json;

use crate::{delete, ensure_valid, foreign, invalid_parts, order, stage, usual};

/// Other people's BGPAdvertisements.
pub(super) async fn bgp_advertisements(lab: Lab) -> Result<()> {
    let stage = usual(lab).await?;
    let before = stage.slots("web").await?;

    // BGP for a pool of its own.
    foreign(
        &stage,
        "IPAddressPool",
        "routed",
        json!({"addresses": ["203.0.113.0/24"]}),
    )
    .await?;
    let peer = json!({"apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer",
        "metadata": {"name": "router", "namespace": "metallb-system"},
        "spec": {"myASN": 64500, "peerASN": 64501, "peerAddress": "192.0.2.2"}});
    stage.lab.apply(&peer.to_string()).await?;
    foreign(
        &stage,
        "BGPAdvertisement",
        "routed",
        json!({"ipAddressPools": ["routed"], "aggregationLength": 24}),
    )
    .await?;
    ensure_valid(&stage).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let slots = stage.at_home("web", 3).await?;
    ensure!(slots == before, "{before:?} became {slots:?}");
    stage.reason("l2pool", "edge", "Configured", "Ok").await?;
    eprintln!("BGP for another pool: no effect");

    // A pool that a BGPAdvertisement would break is refused before it harms.
    foreign(&stage, "BGPAdvertisement", "routed",
        json!({"ipAddressPoolSelectors": [{"matchLabels": {"l2lb.io/pool": "late"}}], "aggregationLength": 24})).await?;
    stage
        .pool("late", json!({"addresses": ["192.0.2.200-192.0.2.203"]}))
        .await?;
    let message = stage
        .reason("l2pool", "late", "Accepted", "BGPAdvertisementConflict")
        .await?;
    ensure!(message.contains("BGPAdvertisement routed"), "{message}");
    ensure_valid(&stage).await?;
    eprintln!("refused: {message}");
    ipv6_beside_native_bgp(&stage).await?;

    // One that comes under a live pool: MetalLB's webhook denies it. Where that
    // is not asked, no address is dropped, and it is said.
    let breaking = json!({"aggregationLength": 24});
    let denied = foreign(&stage, "BGPAdvertisement", "routed", breaking.clone()).await;
    let denied = denied.err().context("MetalLB accepts what breaks it")?;
    ensure!(
        format!("{denied:#}").contains("aggregation length"),
        "{denied:#}"
    );
    ask_webhook(
        &stage,
        "bgpadvertisementvalidationwebhook.metallb.io",
        false,
    )
    .await?;
    foreign(&stage, "BGPAdvertisement", "routed", breaking).await?;
    let message = stage
        .reason("l2pool", "edge", "Accepted", "BGPAdvertisementConflict")
        .await?;
    eprintln!("under a live pool: {message}");
    stage
        .reason("l2lb", "web", "Accepted", "PoolNotAccepted")
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for slot in &before {
        stage.answers(slot, &slot.home).await?;
        for address in &slot.addresses {
            stage.lab.wait_for_http(*address, PORT, PATIENCE).await?;
        }
    }
    stage.ensure_ready("web").await?;
    delete(&stage, "bgpadvertisement", "routed").await?;
    ask_webhook(&stage, "bgpadvertisementvalidationwebhook.metallb.io", true).await?;
    let slots = stage.at_home("web", 3).await?;
    ensure!(slots == before, "{before:?} became {slots:?}");
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    ensure_valid(&stage).await
}

/// MetalLB's native BGP mode knows no IPv6: a BGPAdvertisement that matches such
/// a pool makes the whole configuration stale.
async fn ipv6_beside_native_bgp(stage: &Stage) -> Result<()> {
    let selects = |key: &str| json!({"matchLabels": {key: "six"}});
    foreign(
        stage,
        "BGPAdvertisement",
        "six",
        json!({"ipAddressPoolSelectors": [selects("l2lb.io/pool"), selects("team")]}),
    )
    .await?;
    stage
        .pool(
            "six",
            json!({"addresses": ["2001:db8:1::100-2001:db8:1::10f"]}),
        )
        .await?;
    let message = stage
        .reason("l2pool", "six", "Accepted", "BGPAdvertisementConflict")
        .await?;
    ensure!(
        message.contains("BGPAdvertisement six") && message.contains("IPv6"),
        "{message}"
    );
    ensure_valid(stage).await?;
    eprintln!("refused: {message}");

    // What was spared: the same range in a pool made by hand. MetalLB's webhook
    // lets it in, and then no part of MetalLB takes any configuration.
    let by_hand = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "by-hand", "namespace": "metallb-system", "labels": {"team": "six"}},
        "spec": {"addresses": ["2001:db8:1::100-2001:db8:1::10f"]}});
    stage.lab.apply(&by_hand.to_string()).await?;
    let start = Instant::now();
    while !invalid_parts(stage)
        .await?
        .iter()
        .any(|part| part.contains("ipv6"))
    {
        ensure!(start.elapsed() < PATIENCE, "MetalLB takes it");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    delete(stage, "ipaddresspool", "by-hand").await?;
    ensure_valid(stage).await?;

    delete(stage, "bgpadvertisement", "six").await?;
    stage.reason("l2pool", "six", "Configured", "Ok").await?;
    ensure_valid(stage).await?;
    stage
        .lab
        .kubectl()
        .run(["delete", "l2pool", "six"])
        .await
        .map(drop)
}

/// Up to MetalLB 0.14.8 an IPv6 pool and a BGPAdvertisement, whatever it
/// matches, make the whole configuration stale in native BGP mode.
pub(super) async fn ipv6_beside_any_bgp(lab: Lab) -> Result<()> {
    let stage = stage(lab, &["--hold-down=1s"]).await?;
    let routed = json!({"addresses": ["203.0.113.0/24"]});
    foreign(&stage, "IPAddressPool", "routed", routed).await?;
    let own = json!({"ipAddressPools": ["routed"]});
    foreign(&stage, "BGPAdvertisement", "routed", own).await?;
    let six = json!({"addresses": ["2001:db8:1::100-2001:db8:1::10f"]});
    stage.pool("six", six).await?;
    let message = stage
        .reason("l2pool", "six", "Accepted", "BGPAdvertisementConflict")
        .await?;
    ensure!(message.contains("BGPAdvertisement (routed)"), "{message}");
    eprintln!("refused: {message}");

    // Everybody else is served, which a stale configuration would not.
    order(&stage).await?;
    stage.at_home("web", 3).await?;

    delete(&stage, "bgpadvertisement", "routed").await?;
    stage.reason("l2pool", "six", "Configured", "Ok").await?;
    Ok(())
}

/// Whether one of MetalLB's webhooks is asked.
async fn ask_webhook(stage: &Stage, name: &str, ask: bool) -> Result<()> {
    let configuration = "metallb-webhook-configuration";
    let kind = "validatingwebhookconfiguration";
    let found = stage.get(&[kind, configuration]).await?;
    let webhooks = found["webhooks"].as_array().cloned().unwrap_or_default();
    let index = webhooks
        .iter()
        .position(|w| w["name"] == name)
        .with_context(|| format!("there is no webhook {name}"))?;
    let labels = if ask {
        json!({})
    } else {
        json!({"matchLabels": {"no": "where"}})
    };
    let patch = json!([{"op": "add", "path": format!("/webhooks/{index}/namespaceSelector"),
        "value": labels}]);
    let args = [
        "patch",
        kind,
        configuration,
        "--type=json",
        "-p",
        &patch.to_string(),
    ];
    stage.lab.kubectl().run(args).await.map(drop)
}
