//! Two segments, and interfaces that some nodes lack.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{NAMESPACE, PATIENCE, PORT, Slot, Stage};
use l2lb_lab::Lab;
use serde_json::json;

use crate::{end_speaker, stage};

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
    Ok(())
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
