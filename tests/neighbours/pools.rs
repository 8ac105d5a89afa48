//! IPAddressPools that other people made.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::Stage;
use serde_json::json;

use crate::{delete, ensure_valid, foreign, remove_pool};

/// The names of MetalLB's pools.
async fn names(stage: &Stage) -> Result<Vec<String>> {
    let pools = stage
        .get(&["ipaddresspools", "-n", "metallb-system"])
        .await?;
    let items = pools["items"].as_array().into_iter().flatten();
    Ok(items
        .filter_map(|pool| pool["metadata"]["name"].as_str())
        .map(str::to_owned)
        .collect())
}

/// A pool of ours that overlaps one of theirs is not given to MetalLB. One of
/// theirs that comes later, MetalLB refuses.
pub(super) async fn overlapping(stage: &Stage) -> Result<()> {
    let theirs = json!({"addresses": ["192.0.2.150-192.0.2.159"], "autoAssign": false});
    foreign(stage, "IPAddressPool", "theirs", theirs).await?;
    let addresses = json!(["192.0.2.155-192.0.2.165"]);
    stage.pool("clash", json!({"addresses": addresses})).await?;
    let message = stage
        .reason("l2pool", "clash", "Accepted", "AddressOverlap")
        .await?;
    ensure!(message.contains("IPAddressPool theirs"), "{message}");
    eprintln!("refused: {message}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let found = names(stage).await?;
    let has = |name: &str| found.iter().any(|n| n == name);
    ensure!(has("l2lb-edge") && !has("l2lb-clash"), "{found:?}");
    ensure_valid(stage).await?;

    // The remedy.
    let less = json!({"addresses": addresses, "excludedAddresses": ["192.0.2.155-192.0.2.159"]});
    stage.pool("clash", less).await?;
    stage.reason("l2pool", "clash", "Configured", "Ok").await?;
    stage.reason("l2pool", "clash", "Accepted", "Ok").await?;
    let found = names(stage).await?;
    ensure!(found.iter().any(|n| n == "l2lb-clash"), "{found:?}");
    ensure_valid(stage).await?;

    let late = json!({"addresses": ["192.0.2.160-192.0.2.161"]});
    let denied = foreign(stage, "IPAddressPool", "late", late).await;
    let denied = denied.err().context("MetalLB takes what overlaps ours")?;
    ensure!(format!("{denied:#}").contains("overlaps"), "{denied:#}");

    remove_pool(stage, "clash").await?;
    delete(stage, "ipaddresspool", "theirs").await
}
