//! IPAddressPools that other people made, and who may use ours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{NAMESPACE, Slot, Stage};
use serde_json::json;

use crate::{delete, ensure_valid, foreign, remove, remove_pool};

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

/// A namespace that its pool selects no more keeps what it has: MetalLB looks at
/// the labels, too.
pub(super) async fn namespace_loses_its_label(stage: &Stage) -> Result<()> {
    let kubectl = stage.lab.kubectl();
    let label = |text: &'static str| kubectl.run(["label", "namespace", NAMESPACE, text]);
    label("edge=ok").await?;
    let spec = json!({"addresses": ["192.0.2.170-192.0.2.179"],
        "namespaceSelector": {"matchLabels": {"edge": "ok"}}});
    stage.pool("chosen", spec).await?;
    let order = stage.load_balancer("chosen", "chosen", json!({}), json!({}));
    order.await?;
    let before = stage.at_home("chosen", 3).await?;

    label("edge-").await?;
    let not_allowed = stage.reason("l2lb", "chosen", "Accepted", "NamespaceNotAllowed");
    eprintln!("without the label: {}", not_allowed.await?);
    // MetalLB has heard of it by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let addresses = |slots: &[Slot]| -> Vec<_> {
        let all = slots.iter().map(|slot| slot.addresses.clone());
        all.collect()
    };
    let after = stage.slots("chosen").await?;
    ensure!(addresses(&after) == addresses(&before), "{after:?}");
    for slot in &before {
        stage.answers(slot, &slot.home).await?;
    }
    ensure_valid(stage).await?;

    label("edge=ok").await?;
    stage.reason("l2lb", "chosen", "Accepted", "Ok").await?;
    remove(stage, "chosen", "chosen").await?;
    label("edge-").await.map(drop)
}
