//! Nodes that are drained, not ready, without a network or without power for a
//! while: their slots are kept.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{PATIENCE, Slot, Stage};
use l2lb_lab::Lab;
use serde_json::{Value, json};

use crate::{DRAIN, serves, usual};

/// Runs the plugin, which succeeds.
async fn plugin(stage: &Stage, args: &[&str]) -> Result<()> {
    let (code, text) = stage.lab.plugin(args).await?;
    ensure!(code == 0, "{args:?} ends with {code}: {text}");
    Ok(())
}

/// The client outside, the speakers and the plugin's own election agree on
/// who announces a slot.
async fn explained(stage: &Stage, slot: &Slot, by: &str) -> Result<()> {
    stage.answers(slot, by).await?;
    let start = Instant::now();
    for address in &slot.addresses {
        loop {
            let why = ["why", &address.to_string(), "-o", "json"];
            let (_, text) = stage.lab.plugin(why).await?;
            let why: Value = serde_json::from_str(&text)?;
            if why["shouldAnnounce"] == by && why["announcedBy"] == json!([by]) {
                break;
            }
            // That a node has died, Kubernetes knows later than MetalLB.
            ensure!(
                start.elapsed() < PATIENCE,
                "{by} answers for {address}: {why:#}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

/// Handed over, or taken over by a standby, and back: the slot is kept.
pub(super) async fn nodes_that_stay(lab: Lab) -> Result<()> {
    let stage = usual(lab, 3).await?;
    let before = stage.slots("web").await?;
    let back = async |what: &str| {
        let after = stage.at_home("web", 3).await?;
        ensure!(after == before, "after {what}: {before:?} became {after:?}");
        stage.reason("l2lb", "web", "Pinned", "Ok").await?;
        eprintln!("{what}: and back");
        Ok(())
    };
    let lab = &stage.lab;

    lab.annotate_node("node-2", DRAIN, Some("maintenance"))
        .await?;
    let slot = stage.away("web", "node-2", "Draining").await?;
    serves(&stage, &slot).await?;
    stage.reason("l2lb", "web", "Pinned", "Draining").await?;
    stage.ensure_ready("web").await?;
    lab.annotate_node("node-2", DRAIN, None).await?;
    back("a drain by annotation").await?;

    // By the plugin, which returns when the client outside sees it, too.
    plugin(&stage, &["drain", "node-3"]).await?;
    let slot = stage.slot("web", "node-3").await?;
    for address in &slot.addresses {
        let by = lab.who_answers(*address).await?;
        let by = by.with_context(|| format!("nobody answers for {address}"))?;
        ensure!(by != "node-3", "{by} still answers for {address}");
        explained(&stage, &slot, &by).await?;
    }
    plugin(&stage, &["undrain", "node-3"]).await?;
    ensure!(stage.slots("web").await? == before, "undrain was too early");
    for slot in &before {
        explained(&stage, slot, &slot.home).await?;
    }
    back("a drain by the plugin").await?;

    // MetalLB does not look at Ready: the speaker is alive, the pin moves.
    lab.silence_kubelet("node-1", true).await?;
    let slot = stage.away("web", "node-1", "FailedOver").await?;
    ensure!(slot.message.contains("node-1 is not ready"), "{slot:?}");
    serves(&stage, &slot).await?;
    stage.ensure_ready("web").await?;
    lab.silence_kubelet("node-1", false).await?;
    back("a kubelet that stopped").await?;

    lab.set_network_unavailable("node-3", true).await?;
    let slot = stage.away("web", "node-3", "FailedOver").await?;
    ensure!(slot.message.contains("NetworkUnavailable"), "{slot:?}");
    serves(&stage, &slot).await?;
    stage.ensure_ready("web").await?;
    lab.set_network_unavailable("node-3", false).await?;
    back("a node without a network").await?;

    // One node after the other, until one is left.
    lab.kill_node("node-1").await?;
    let first = stage.away("web", "node-1", "FailedOver").await?;
    let heir = first.announced_by.clone().context("nobody took it over")?;
    explained(&stage, &first, &heir).await?;
    lab.kill_node(&heir).await?;
    let last = ["node-2", "node-3"].into_iter().find(|n| *n != heir);
    let last = last.context("nobody is left")?;
    for slot in &before {
        stage.answers(slot, last).await?;
        serves(&stage, slot).await?;
    }
    stage
        .until("web", "both to be reported", |slots| {
            slots
                .iter()
                .filter(|s| s.phase == "FailedOver" && s.announced_by.as_deref() == Some(last))
                .count()
                == 2
        })
        .await?;
    stage.ensure_ready("web").await?;
    lab.revive_node("node-1").await?;
    lab.revive_node(&heir).await?;
    back("two nodes without power").await
}
