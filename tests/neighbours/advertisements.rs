//! L2Advertisements that other people made.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use l2lb::metallb::election;
use l2lb_demo::stage::{PATIENCE, PORT, Stage};
use l2lb_lab::Lab;
use serde_json::{Value, json};

use crate::{delete, foreign, pinned_with, pools, remove, stage, usual};

/// Selects nodes by their names.
fn only(nodes: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]})
}

/// Other people's L2Advertisements.
pub(super) async fn l2_advertisements(lab: Lab) -> Result<()> {
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
    selected_by_label(&stage).await?;
    pools::overlapping(&stage).await?;
    pools::namespace_loses_its_label(&stage).await
}

/// One that selects our pool by its label adds a node that is no balancer node.
/// The pin holds; when no balancer node can announce, that node stands in.
async fn selected_by_label(stage: &Stage) -> Result<()> {
    // By MetalLB's order alone the stranger would have both addresses.
    let nodes = ["node-1", "node-2", "node-3"];
    let addresses: Vec<String> = (130..140)
        .map(|n| format!("192.0.2.{n}"))
        .filter(|a| election::winner(a, nodes) == Some("node-3"))
        .take(2)
        .collect();
    let pool = json!({"addresses": ["192.0.2.130-192.0.2.139"]});
    stage.pool("aside", pool).await?;
    let two = json!({"nodeSelector": only(&["node-1", "node-2"]), "addresses": addresses});
    stage.load_balancer("two", "aside", two, json!({})).await?;
    let before = stage.at_home("two", 2).await?;
    let named = |a: &IpAddr| addresses.contains(&a.to_string());
    ensure!(
        before.iter().flat_map(|s| &s.addresses).all(named),
        "{before:?} are not at {addresses:?}"
    );

    let labelled = json!({"ipAddressPoolSelectors": [{"matchLabels": {"l2lb.io/pool": "aside"}}],
        "nodeSelectors": [only(&["node-3"])]});
    foreign(stage, "L2Advertisement", "labelled", labelled).await?;
    let said = "L2Advertisement labelled matches this pool";
    let message = pinned_with(stage, "two", |m| m.contains(said)).await?;
    ensure!(message.contains("(node-3)"), "{message}");
    eprintln!("{message}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let slots = stage.at_home("two", 2).await?;
    ensure!(slots == before, "{before:?} became {slots:?}");

    for node in ["node-1", "node-2"] {
        stage.lab.set_network_unavailable(node, true).await?;
    }
    let slots = stage
        .until("two", "both slots to be announced by node-3", |slots| {
            slots.len() == 2
                && slots
                    .iter()
                    .all(|s| s.phase == "FailedOver" && s.announced_by.as_deref() == Some("node-3"))
        })
        .await?;
    for slot in &slots {
        stage.answers(slot, "node-3").await?;
        for address in &slot.addresses {
            stage.lab.wait_for_http(*address, PORT, PATIENCE).await?;
        }
    }
    stage.ensure_ready("two").await?;
    for node in ["node-1", "node-2"] {
        stage.lab.set_network_unavailable(node, false).await?;
    }
    let slots = stage.at_home("two", 2).await?;
    ensure!(slots == before, "{before:?} became {slots:?}");
    stage.at_home("web", 3).await?;

    delete(stage, "l2advertisement", "labelled").await?;
    pinned_with(stage, "two", |m| !m.contains("labelled")).await?;
    remove(stage, "two", "aside").await
}

/// Before 0.16.2 nothing comes before MetalLB's order: an advertisement for every
/// pool draws an address away when one of its nodes is before the pin, and no
/// other.
pub(super) async fn without_preferences(lab: Lab) -> Result<()> {
    let stage = stage(lab, &["--hold-down=1s"]).await?;
    // The first address is for node-2, then node-1, then node-3; the second one
    // for node-3, then node-1, then node-2.
    let pool = json!({"addresses": ["192.0.2.101-192.0.2.102"]});
    stage.pool("edge", pool).await?;
    let two = json!({"nodeSelector": only(&["node-1", "node-2"])});
    stage.load_balancer("web", "edge", two, json!({})).await?;
    let before = stage.at_home("web", 2).await?;
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;

    foreign(&stage, "L2Advertisement", "all", json!({})).await?;
    let message = stage
        .reason("l2lb", "web", "Pinned", "ConflictingAdvertisement")
        .await?;
    ensure!(
        message.contains("L2Advertisement all") && message.contains("over node node-1"),
        "{message}"
    );
    eprintln!("{message}");
    let drawn = stage.away("web", "node-1", "FailedOver").await?;
    ensure!(drawn.announced_by.as_deref() == Some("node-3"), "{drawn:?}");
    for address in &drawn.addresses {
        stage.lab.wait_for_http(*address, PORT, PATIENCE).await?;
    }
    stage.ensure_ready("web").await?;
    let stays = stage.slot("web", "node-2").await?;
    ensure!(before.contains(&stays), "{stays:?} was one of {before:?}");
    stage.answers(&stays, "node-2").await?;

    delete(&stage, "l2advertisement", "all").await?;
    let after = stage.at_home("web", 2).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    Ok(())
}
