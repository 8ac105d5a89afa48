//! Nodes that are cordoned: where that is to be ignored, and all of them.

use anyhow::{Result, ensure};
use l2lb_lab::Lab;
use serde_json::json;

use crate::{DRAIN, ensure_kept, order, serves, usual};

/// `onCordon: Ignore` leaves addresses where they are, and a drain hands them
/// over all the same. With all nodes cordoned they are at home.
pub(super) async fn cordoned_nodes(lab: Lab) -> Result<()> {
    let stage = usual(lab, 3).await?;
    let lab = &stage.lab;
    let nodes = ["node-1", "node-2", "node-3"];

    let before = stage.slots("web").await?;
    for node in nodes {
        lab.cordon(node, true).await?;
        // As long as there is another one, it stands in.
        if node != "node-3" {
            let slot = stage.away("web", node, "Draining").await?;
            serves(&stage, &slot).await?;
        }
    }
    let alone = "no other node can take over";
    let slots = stage
        .until("web", "every slot to be at its cordoned home", |slots| {
            slots
                .iter()
                .all(|s| s.announced_by.as_ref() == Some(&s.home) && s.message.contains(alone))
        })
        .await?;
    ensure_kept(&before, &slots)?;
    ensure!(slots.len() == before.len(), "{slots:?}");
    for slot in &slots {
        stage.answers(slot, &slot.home).await?;
        serves(&stage, slot).await?;
    }
    stage.ensure_ready("web").await?;
    for node in nodes {
        lab.cordon(node, false).await?;
    }
    let after = stage.at_home("web", 3).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    eprintln!("all nodes cordoned: at home");

    let before = order(&stage, "web", 3, json!({"onCordon": "Ignore"}), json!({})).await?;
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    lab.cordon("node-2", true).await?;
    // What happens to another node later has been seen later.
    lab.annotate_node("node-1", DRAIN, Some("maintenance"))
        .await?;
    let drained = stage.away("web", "node-1", "Draining").await?;
    serves(&stage, &drained).await?;
    let stays = stage.slot("web", "node-2").await?;
    ensure!(before.contains(&stays), "{stays:?} was one of {before:?}");
    stage.answers(&stays, "node-2").await?;
    serves(&stage, &stays).await?;
    lab.annotate_node("node-1", DRAIN, None).await?;
    let after = stage.at_home("web", 3).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    eprintln!("cordoned, which is to be ignored: at home");

    // Cordoned and drained.
    lab.annotate_node("node-2", DRAIN, Some("maintenance"))
        .await?;
    let slot = stage.away("web", "node-2", "Draining").await?;
    serves(&stage, &slot).await?;
    stage.ensure_ready("web").await?;
    lab.annotate_node("node-2", DRAIN, None).await?;
    let after = stage.at_home("web", 3).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    lab.cordon("node-2", false).await?;
    stage.at_home("web", 3).await?;
    Ok(())
}
