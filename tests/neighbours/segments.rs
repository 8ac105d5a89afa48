//! Two segments, and interfaces that some nodes lack.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{NAMESPACE, PATIENCE, PORT, Slot, Stage};
use l2lb_lab::Lab;
use serde_json::json;

use crate::{delete, end_speaker, foreign, pinned_with, remove, stage};

/// Two pools on two segments; the second one's interface is missing on one node.
pub(super) async fn segments_and_interfaces(lab: Lab) -> Result<()> {
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
        let first = stage.slot("web", home).await?;
        stage.answers(&first, home).await?;
        for slot in [&slot, &first] {
            ensure_silent_elsewhere(&stage, slot).await?;
        }
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
    end_speaker(&stage, "node-3").await?;
    stage.at_home("far", 3).await?;
    stage.reason("l2lb", "far", "Pinned", "Ok").await?;
    stage.at_home("web", 3).await?;
    lifted_interfaces(&stage).await?;
    misspelt_interface(&stage).await
}

/// Somebody's advertisement selects the pool of `web` by its label, and names no
/// interfaces: its addresses are announced by every interface then.
async fn lifted_interfaces(stage: &Stage) -> Result<()> {
    let before = stage.slots("web").await?;
    for slot in &before {
        ensure_silent_elsewhere(stage, slot).await?;
    }
    let selector = json!({"matchLabels": {"l2lb.io/pool": "first"}});
    let lifting = json!({"ipAddressPoolSelectors": [selector]});
    foreign(stage, "L2Advertisement", "lifting", lifting).await?;
    let said = "L2Advertisement lifting matches this pool and lifts the pool's interfaces";
    let message = pinned_with(stage, "web", |m| m.contains(said)).await?;
    eprintln!("{message}");
    for slot in &before {
        for address in &slot.addresses {
            let start = Instant::now();
            loop {
                let found = stage.lab.who_answers_elsewhere(*address).await;
                if matches!(&found, Ok(Some(node)) if *node == slot.home) {
                    break;
                }
                ensure!(
                    start.elapsed() < PATIENCE,
                    "{} does not answer for {address} on the other segment: {found:?}",
                    slot.home
                );
            }
        }
    }
    let slots = stage.at_home("web", 3).await?;
    ensure!(slots == before, "{before:?} became {slots:?}");
    // It is for that pool alone.
    let other = stage.condition("l2lb", "far", "Pinned").await?;
    ensure!(
        other.status == "True" && !other.message.contains("lifting"),
        "{other:?}"
    );
    for slot in stage.slots("far").await? {
        ensure_silent_elsewhere(stage, &slot).await?;
    }

    delete(stage, "l2advertisement", "lifting").await?;
    pinned_with(stage, "web", |m| !m.contains("lifting")).await?;
    for address in before.iter().flat_map(|slot| &slot.addresses) {
        let start = Instant::now();
        loop {
            let found = stage.lab.who_answers_elsewhere(*address).await;
            if matches!(found, Ok(None)) {
                break;
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{address} is still answered on the other segment: {found:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    stage.at_home("web", 3).await?;
    Ok(())
}

/// No node has an interface of a misspelt name; corrected, each announces.
async fn misspelt_interface(stage: &Stage) -> Result<()> {
    let spec = |interface: &str| json!({"addresses": ["192.0.2.130-192.0.2.139"], "interfaces": [interface]});
    stage.pool("typo", spec("eht0")).await?;
    stage
        .load_balancer("typo", "typo", json!({}), json!({}))
        .await?;
    let message = stage
        .reason("l2lb", "typo", "Pinned", "InterfaceMissing")
        .await?;
    ensure!(message.contains("has no interface eht0"), "{message}");
    let start = Instant::now();
    loop {
        let pool = stage.get(&["l2pool", "typo"]).await?;
        let missing = &pool["status"]["missingInterfaces"];
        if missing.as_array().is_some_and(|nodes| nodes.len() == 3) {
            break;
        }
        ensure!(start.elapsed() < PATIENCE, "not all lack it: {missing}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let slots = stage
        .until("typo", "every slot to be dark", |slots| {
            slots.len() == 3
                && slots
                    .iter()
                    .all(|s| s.phase == "Pending" && s.message.contains("has no interface eht0"))
        })
        .await?;
    let dark = stage
        .reason("l2lb", "typo", "Ready", "NotAnnounced")
        .await?;
    stage
        .reason("l2lb", "typo", "Pinned", "InterfaceMissing")
        .await?;
    eprintln!("{dark}");
    for address in slots.iter().flat_map(|s| &s.addresses) {
        let by = stage.lab.who_answers(*address).await?;
        ensure!(by.is_none(), "{by:?} answers for {address}");
    }
    // The other pools have nothing to do with it.
    stage.at_home("web", 3).await?;
    stage.at_home("far", 3).await?;

    stage.pool("typo", spec("eth0")).await?;
    stage.at_home("typo", 3).await?;
    stage.reason("l2lb", "typo", "Pinned", "Ok").await?;
    stage.reason("l2lb", "typo", "Ready", "Ok").await?;
    remove(stage, "typo", "typo").await
}

/// Nobody answers for a slot's addresses on the segment that they are not of.
async fn ensure_silent_elsewhere(stage: &Stage, slot: &Slot) -> Result<()> {
    for address in &slot.addresses {
        // As long as anybody who answers gets.
        let patience = Duration::from_millis(500);
        let found = stage.lab.answers_elsewhere(*address, patience).await?;
        ensure!(
            found.is_empty(),
            "{address} is answered on the other segment: {found:?}"
        );
    }
    Ok(())
}
