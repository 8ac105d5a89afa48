//! What works beside what: other advertisements, other classes, speakers that
//! are missing, old or without the interface, pods on some nodes only. Each
//! either works, or is refused before it harms, or is reported with the
//! remedy. Who announces is seen by ARP from the client. `L2LB_TEST_METALLB`
//! brings trials of what was so in the versions that it names.

#[path = "neighbours/probe.rs"]
mod probe;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{NAMESPACE, PATIENCE, PORT, Stage};
use l2lb_lab::{Lab, LabConfig, harness};
use serde_json::json;

fn main() -> ExitCode {
    let usual = LabConfig::default;
    let mut trials = vec![
        harness::trial("advertisements", usual(), advertisements),
        harness::trial("speakers_and_pods", usual(), speakers_and_pods),
        harness::trial("another_host", usual(), probe::another_host),
        harness::trial(
            "segments_and_interfaces",
            LabConfig {
                second_segment: true,
                ..usual()
            },
            segments_and_interfaces,
        ),
        harness::trial(
            "another_class_without_memberlist",
            LabConfig {
                metallb_values: Some(
                    "{loadBalancerClass: edge.example/l2, \
                     speaker: {memberlist: {enabled: false}, ignoreExcludeLB: true}}"
                        .into(),
                ),
                ..usual()
            },
            another_class_without_memberlist,
        ),
        harness::trial(
            "speakers_older_than_definitions",
            LabConfig {
                metallb: Some("0.16.1".into()),
                l2_advertisement_of: Some(l2lb_lab::METALLB.into()),
                ..usual()
            },
            speakers_older_than_definitions,
        ),
    ];
    // What was so once, where `L2LB_TEST_METALLB` asks for it.
    let on = |version: &str| LabConfig {
        metallb: Some(version.to_owned()),
        ..usual()
    };
    for version in harness::metallb_versions(&[]) {
        match version.as_str() {
            "0.14.9" => {
                let silent = LabConfig {
                    metallb_values: Some("{speaker: {memberlist: {enabled: false}}}".into()),
                    ..on(&version)
                };
                trials.push(harness::trial(
                    "old_without_memberlist",
                    silent,
                    old_without_memberlist,
                ));
            }
            "0.14.8" => trials.push(harness::trial(
                "ipv6_beside_any_bgp",
                on(&version),
                ipv6_beside_any_bgp,
            )),
            _ => {}
        }
    }
    harness::run(trials)
}

async fn stage(lab: Lab, args: &[&str]) -> Result<Stage> {
    Stage::set(lab, env!("CARGO_BIN_EXE_l2lb-controller").into(), args).await
}

/// A pool on the first segment and a load balancer `web` from it, at home.
async fn usual(lab: Lab) -> Result<Stage> {
    let stage = stage(lab, &["--hold-down=1s"]).await?;
    stage
        .pool("edge", json!({"addresses": ["192.0.2.100-192.0.2.119"]}))
        .await?;
    stage
        .load_balancer("web", "edge", json!({}), json!({}))
        .await?;
    stage.at_home("web", 3).await?;
    Ok(stage)
}

/// What the parts of MetalLB say that do not find their configuration valid,
/// or have said nothing yet.
async fn invalid_parts(stage: &Stage) -> Result<Vec<String>> {
    let states = stage
        .get(&["configurationstates", "-n", "metallb-system"])
        .await?;
    let items = states["items"].as_array().cloned().unwrap_or_default();
    let missing = 4_usize.saturating_sub(items.len());
    let bad = items.iter().filter(|s| s["status"]["result"] != "Valid");
    Ok(bad
        .map(ToString::to_string)
        .chain(vec!["a part is silent".to_owned(); missing])
        .collect())
}

/// Every part of MetalLB finds its configuration valid.
async fn ensure_valid(stage: &Stage) -> Result<()> {
    let start = Instant::now();
    loop {
        let bad = invalid_parts(stage).await?;
        if bad.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "not valid: {bad:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn foreign(stage: &Stage, kind: &str, name: &str, spec: serde_json::Value) -> Result<()> {
    let object = json!({"apiVersion": "metallb.io/v1beta1", "kind": kind,
        "metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec});
    stage.lab.apply(&object.to_string()).await
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

async fn delete(stage: &Stage, kind: &str, name: &str) -> Result<()> {
    let args = ["delete", kind, "-n", "metallb-system", name];
    stage.lab.kubectl().run(args).await.map(drop)
}

/// Other people's L2Advertisements and BGPAdvertisements.
async fn advertisements(lab: Lab) -> Result<()> {
    let stage = usual(lab).await?;
    let before = stage.slots("web").await?;

    // One that matches every pool adds candidates, and changes nothing.
    foreign(&stage, "L2Advertisement", "all", json!({})).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let slots = stage.at_home("web", 3).await?;
    ensure!(slots == before, "{before:?} became {slots:?}");
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    eprintln!("an L2Advertisement for every pool: still pinned");

    // With a weight of its own it ties; with two it outranks.
    let prefer = |weight: i32| json!({"weight": weight, "preference": {"matchLabels": {"kubernetes.io/hostname": "node-1"}}});
    foreign(
        &stage,
        "L2Advertisement",
        "all",
        json!({"preferredNodeSelectors": [prefer(60)]}),
    )
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.at_home("web", 3).await?;
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    foreign(
        &stage,
        "L2Advertisement",
        "all",
        json!({"preferredNodeSelectors": [prefer(60), prefer(60)]}),
    )
    .await?;
    let message = stage
        .reason("l2lb", "web", "Pinned", "ConflictingAdvertisement")
        .await?;
    ensure!(message.contains("L2Advertisement all"), "{message}");
    let drawn = stage.slot("web", "node-2").await?;
    stage.answers(&drawn, "node-1").await?;
    stage.ensure_ready("web").await?;
    eprintln!("weights of 60 and 60: {message}");
    foreign(
        &stage,
        "L2Advertisement",
        "all",
        json!({"preferredNodeSelectors": [prefer(100)],
        "serviceSelectors": [{"matchLabels": {"team": "other"}}]}),
    )
    .await?;
    stage.at_home("web", 3).await?;
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    delete(&stage, "l2advertisement", "all").await?;

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

/// A node without a speaker, and pods on some nodes only.
async fn speakers_and_pods(lab: Lab) -> Result<()> {
    let stage = usual(lab).await?;
    let kubectl = stage.lab.kubectl();

    // Whoever tolerates nothing is not started on node-2 again.
    kubectl
        .run(["taint", "node", "node-2", "lab=closed:NoSchedule"])
        .await?;
    let speaker = pod_on(&stage, "metallb-system", "node-2").await?;
    kubectl
        .run(["delete", "pod", "-n", "metallb-system", &speaker])
        .await?;
    let start = Instant::now();
    let message = stage
        .reason("l2lb", "web", "Pinned", "SpeakerMissing")
        .await?;
    ensure!(
        message.contains("no MetalLB speaker runs on node node-2"),
        "{message}"
    );
    let slot = stage.away("web", "node-2", "FailedOver").await?;
    let service = stage
        .get(&["service", "-n", NAMESPACE, &slot.service])
        .await?;
    let pin = &service["metadata"]["labels"]["l2lb.io/pin"];
    ensure!(pin != "node-2", "it is still pinned to its home");
    stage.ensure_ready("web").await?;
    eprintln!("after {:.1} s: {message}", start.elapsed().as_secs_f64());
    ensure!(stage.writes_during("web", Duration::from_secs(3)).await? == 0);
    kubectl
        .run(["taint", "node", "node-2", "lab=closed:NoSchedule-"])
        .await?;
    stage.at_home("web", 3).await?;
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;

    // A class that MetalLB does not serve.
    stage
        .load_balancer(
            "other",
            "edge",
            json!({}),
            json!({"loadBalancerClass": "example.org/other"}),
        )
        .await?;
    stage
        .reason("l2lb", "other", "AddressesAllocated", "Pending")
        .await?;
    let message = stage.reason("l2lb", "other", "Pinned", "Pending").await?;
    ensure!(
        message.contains("MetalLB serves Services without a loadBalancerClass")
            && message.contains("example.org/other"),
        "{message}"
    );
    eprintln!("{message}");

    // Pods on two of three nodes.
    kubectl
        .run(["taint", "node", "node-3", "lab=closed:NoExecute"])
        .await?;
    let patch = r#"{"spec":{"template":{"spec":{"tolerations":[{"operator":"Exists"}]}}}}"#;
    kubectl
        .run([
            "patch",
            "daemonset",
            "-n",
            "metallb-system",
            "metallb-speaker",
            "-p",
            patch,
        ])
        .await?;
    kubectl
        .run([
            "rollout",
            "status",
            "-n",
            "metallb-system",
            "--timeout=60s",
            "daemonset/metallb-speaker",
        ])
        .await?;
    stage
        .load_balancer(
            "local",
            "edge",
            json!({}),
            json!({"externalTrafficPolicy": "Local"}),
        )
        .await?;
    let message = stage
        .reason("l2lb", "local", "Pinned", "NoLocalEndpoint")
        .await?;
    ensure!(message.contains("node node-3 has none"), "{message}");
    eprintln!("{message}");
    let slot = stage.away("local", "node-3", "FailedOver").await?;
    stage.ensure_ready("local").await?;
    for home in ["node-1", "node-2"] {
        let slot = stage.slot("local", home).await?;
        stage.answers(&slot, home).await?;
    }
    let service = stage
        .get(&["service", "-n", NAMESPACE, &slot.service])
        .await?;
    ensure!(service["metadata"]["labels"]["l2lb.io/pin"] == "node-3");
    ensure!(stage.writes_during("local", Duration::from_secs(8)).await? == 0);
    kubectl
        .run(["taint", "node", "node-3", "lab=closed:NoExecute-"])
        .await?;
    stage.at_home("local", 3).await?;
    Ok(())
}

/// The pod of a DaemonSet in a namespace on a node.
async fn pod_on(stage: &Stage, namespace: &str, node: &str) -> Result<String> {
    let field = format!("--field-selector=spec.nodeName={node}");
    let pods = stage.get(&["pods", "-n", namespace, &field]).await?;
    pods["items"][0]["metadata"]["name"]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no pod of {namespace} is on {node}"))
}

/// Two pools on two segments; the second one's interface is missing on one node.
async fn segments_and_interfaces(lab: Lab) -> Result<()> {
    for node in ["node-1", "node-2"] {
        lab.plug_second(node)?;
    }
    // The speakers look for interfaces every 10 s.
    let plugged = Instant::now();
    let mut stage = stage(lab, &["--hold-down=1s"]).await?;
    stage
        .pool(
            "first",
            json!({"addresses": ["192.0.2.100-192.0.2.119"], "interfaces": ["eth0"]}),
        )
        .await?;
    stage
        .load_balancer("web", "first", json!({}), json!({}))
        .await?;
    stage.at_home("web", 3).await?;
    tokio::time::sleep(Duration::from_secs(11).saturating_sub(plugged.elapsed())).await;

    stage
        .pool(
            "second",
            json!({"addresses": ["198.51.100.100-198.51.100.119"], "interfaces": ["eth1"]}),
        )
        .await?;
    stage
        .load_balancer("far", "second", json!({}), json!({}))
        .await?;
    let message = stage
        .reason("l2lb", "far", "Pinned", "InterfaceMissing")
        .await?;
    ensure!(
        message.contains("node node-3 has no interface eth1"),
        "{message}"
    );
    eprintln!("{message}");
    let slot = stage.away("far", "node-3", "FailedOver").await?;
    stage.ensure_ready("far").await?;
    for home in ["node-1", "node-2"] {
        let slot = stage.slot("far", home).await?;
        stage.answers(&slot, home).await?;
        let address = *slot.addresses.first().context("no address")?;
        stage.lab.wait_for_http(address, PORT, PATIENCE).await?;
        // Not on the other segment: the client asks there by eth0.
        let first = stage.slot("web", home).await?;
        stage.answers(&first, home).await?;
    }
    let pool = stage.get(&["l2pool", "second"]).await?;
    ensure!(
        pool["status"]["missingInterfaces"][0]["node"] == "node-3",
        "{}",
        pool["status"]
    );

    // It does not swing, nor forget.
    ensure!(stage.writes_during("far", Duration::from_secs(3)).await? == 0);
    stage
        .lab
        .kubectl()
        .run(["delete", "events", "-n", NAMESPACE, "--all"])
        .await?;
    stage.restart_controller().await?;
    ensure!(stage.writes_during("far", Duration::from_secs(5)).await? == 0);
    let by = slot.announced_by.clone().unwrap_or_default();
    stage.answers(&slot, &by).await?;

    // The remedy.
    stage.lab.plug_second("node-3")?;
    let speaker = pod_on(&stage, "metallb-system", "node-3").await?;
    stage
        .lab
        .kubectl()
        .run(["delete", "pod", "-n", "metallb-system", &speaker])
        .await?;
    stage.at_home("far", 3).await?;
    stage.reason("l2lb", "far", "Pinned", "Ok").await?;
    stage.at_home("web", 3).await?;
    Ok(())
}

/// MetalLB with a class of its own, that finds no dead nodes by itself, and
/// that uses nodes which are labelled against load balancers.
async fn another_class_without_memberlist(lab: Lab) -> Result<()> {
    let exclude = "node.kubernetes.io/exclude-from-external-load-balancers";
    lab.label_node("node-3", exclude, Some("")).await?;
    // The control plane's node is labelled as well and is to stay out.
    for node in ["node-1", "node-2", "node-3"] {
        lab.label_node(node, "role", Some("edge")).await?;
    }
    let stage = stage(lab, &["--hold-down=1s", "--ignore-exclude-lb"]).await?;
    stage
        .pool(
            "edge",
            json!({"addresses": ["192.0.2.100-192.0.2.119"], "loadBalancerClass": "edge.example/l2",
                "nodeSelector": {"matchLabels": {"role": "edge"}}}),
        )
        .await?;
    stage
        .load_balancer("web", "edge", json!({}), json!({}))
        .await?;
    let slots = stage.at_home("web", 3).await?;
    ensure!(slots.iter().any(|s| s.home == "node-3"), "{slots:?}");
    eprintln!("the class of the pool, and a node labelled {exclude}: served");

    // A dead node keeps its addresses until the controller moves the pin.
    let lost = stage.slot("web", "node-2").await?;
    let start = Instant::now();
    stage.lab.kill_node("node-2").await?;
    let slot = stage.away("web", "node-2", "FailedOver").await?;
    ensure!(slot.addresses == lost.addresses);
    stage.ensure_ready("web").await?;
    eprintln!(
        "without memberlist: {:?} answers for {:?} {:.1} s after the power went",
        slot.announced_by,
        slot.addresses,
        start.elapsed().as_secs_f64()
    );
    stage.lab.revive_node("node-2").await?;
    stage.at_home("web", 3).await?;
    Ok(())
}

/// The definitions know preferences, the speakers do not.
async fn speakers_older_than_definitions(lab: Lab) -> Result<()> {
    let stage = stage(lab, &["--hold-down=1s"]).await?;
    stage
        .pool("edge", json!({"addresses": ["192.0.2.100-192.0.2.119"]}))
        .await?;
    // Enough that the hash disagrees with one home at least.
    for number in 0..4 {
        let name = format!("web{number}");
        stage
            .load_balancer(&name, "edge", json!({}), json!({}))
            .await?;
    }
    let start = Instant::now();
    loop {
        for number in 0..4 {
            let name = format!("web{number}");
            let pinned = stage.condition("l2lb", &name, "Pinned").await;
            if let Ok(pinned) = pinned
                && pinned.reason == "SpeakersTooOld"
            {
                ensure!(
                    pinned.message.contains("upgrade the speakers"),
                    "{pinned:?}"
                );
                ensure!(pinned.message.contains("0.16.1"), "{pinned:?}");
                ensure!(start.elapsed() > Duration::from_secs(60), "too early");
                stage.ensure_ready(&name).await?;
                eprintln!("{}", pinned.message);
                return Ok(());
            }
        }
        ensure!(
            start.elapsed() < PATIENCE * 2,
            "nobody says that the speakers are too old"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Up to MetalLB 0.14.9 speakers without memberlist announce nothing.
async fn old_without_memberlist(lab: Lab) -> Result<()> {
    let stage = stage(lab, &[]).await?;
    stage
        .pool("edge", json!({"addresses": ["192.0.2.100-192.0.2.119"]}))
        .await?;
    stage
        .load_balancer("web", "edge", json!({}), json!({}))
        .await?;
    let message = stage
        .reason("l2lb", "web", "Pinned", "MemberlistOff")
        .await?;
    ensure!(message.contains("speaker.memberlist.enabled"), "{message}");
    let dark = stage.reason("l2lb", "web", "Ready", "NotAnnounced").await?;
    ensure!(dark.contains("without memberlist"), "{dark}");
    eprintln!("{dark}");
    let slots = stage.slots("web").await?;
    ensure!(slots.len() == 3, "{slots:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for address in slots.iter().flat_map(|s| &s.addresses) {
        let by = stage.lab.who_answers(*address).await?;
        ensure!(by.is_none(), "{by:?} answers for {address}");
    }
    Ok(())
}

/// Up to MetalLB 0.14.8 an IPv6 pool and a BGPAdvertisement, whatever it
/// matches, make the whole configuration stale in native BGP mode.
async fn ipv6_beside_any_bgp(lab: Lab) -> Result<()> {
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
    stage
        .pool("edge", json!({"addresses": ["192.0.2.100-192.0.2.119"]}))
        .await?;
    stage
        .load_balancer("web", "edge", json!({}), json!({}))
        .await?;
    stage.at_home("web", 3).await?;

    delete(&stage, "bgpadvertisement", "routed").await?;
    stage.reason("l2pool", "six", "Configured", "Ok").await?;
    Ok(())
}
