//! Nodes that leave for good, alone, together and in turn.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{NAMESPACE, PATIENCE, Stage};
use l2lb_lab::Lab;
use serde_json::json;

use crate::{EXCLUDE, RETIREMENT, ensure_kept, order, serves, usual};

/// Labelled away, deleted, replaced: the slot retires.
pub(super) async fn nodes_that_leave(lab: Lab) -> Result<()> {
    let stage = usual(lab, 4).await?;
    let before = stage.slots("web").await?;
    let lab = &stage.lab;
    let exclude =
        async |node: &str, value: Option<&str>| lab.label_node(node, EXCLUDE, value).await;

    // Return within the retirement period.
    exclude("node-4", Some("")).await?;
    let slot = stage.away("web", "node-4", "Retiring").await?;
    serves(&stage, &slot).await?;
    stage.reason("l2lb", "web", "Pinned", "Retiring").await?;
    exclude("node-4", None).await?;
    let after = stage.at_home("web", 4).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    eprintln!("labelled away and back: kept");

    // And not.
    let start = Instant::now();
    exclude("node-4", Some("")).await?;
    stage
        .until("web", "the slot to go", |slots| slots.len() == 3)
        .await?;
    let took = start.elapsed();
    ensure!(
        took + Duration::from_secs(1) > RETIREMENT,
        "it went after {took:?}"
    );
    for address in &slot.addresses {
        until_silent(lab, *address).await?;
    }
    eprintln!(
        "labelled away for good: gone after {:.1} s",
        took.as_secs_f64()
    );
    exclude("node-4", None).await?;
    stage.at_home("web", 4).await?;

    // A node is replaced: the new one takes the slot over.
    let old = stage.slot("web", "node-4").await?;
    lab.remove_node("node-4").await?;
    let retiring = stage.away("web", "node-4", "Retiring").await?;
    serves(&stage, &retiring).await?;
    let joined = lab.add_node().await?;
    let slots = stage.at_home("web", 4).await?;
    let new = slots
        .iter()
        .find(|s| s.home == joined)
        .context("it has no slot")?;
    ensure!(
        (&new.service, &new.addresses) == (&old.service, &old.addresses),
        "{old:?} became {new:?}"
    );
    serves(&stage, new).await?;
    eprintln!("{joined} has taken over {} of node-4", new.service);

    // Three of four at once look like a mistake.
    lab.label_node(&joined, "keep", Some("yes")).await?;
    let select = json!({"nodeSelector": {"matchLabels": {"keep": "yes"}}});
    let patch = json!({"spec": select}).to_string();
    lab.kubectl()
        .run([
            "patch",
            "l2lb",
            "-n",
            NAMESPACE,
            "web",
            "--type=merge",
            "-p",
            &patch,
        ])
        .await?;
    let message = stage
        .reason("l2lb", "web", "Pinned", "RetirementHeld")
        .await?;
    eprintln!("{message}");
    tokio::time::sleep(RETIREMENT + Duration::from_secs(3)).await;
    let slots = stage.slots("web").await?;
    ensure!(slots.len() == 4, "not held: {slots:?}");
    for slot in &slots {
        stage.answers(slot, &joined).await?;
        serves(&stage, slot).await?;
    }
    stage.ensure_ready("web").await?;
    let confirm = [
        "annotate",
        "l2lb",
        "-n",
        NAMESPACE,
        "web",
        "l2lb.io/confirm-retirement=true",
    ];
    lab.kubectl().run(confirm).await?;
    let slots = stage.at_home("web", 1).await?;
    ensure!(slots[0].home == joined, "{slots:?}");
    eprintln!("confirmed: three slots have retired");

    // The last one never does.
    exclude(&joined, Some("")).await?;
    tokio::time::sleep(RETIREMENT + Duration::from_secs(3)).await;
    let slots = stage.slots("web").await?;
    ensure!(
        slots.len() == 1 && slots[0].addresses == new.addresses,
        "{slots:?}"
    );
    exclude(&joined, None).await?;
    stage.at_home("web", 1).await?;
    Ok(())
}

/// Waits until nobody answers for an address: not one, and not two.
async fn until_silent(lab: &Lab, address: IpAddr) -> Result<()> {
    let start = Instant::now();
    loop {
        match lab.who_answers(address).await {
            Ok(None) => return Ok(()),
            found => ensure!(
                start.elapsed() < PATIENCE,
                "{address} is still answered: {found:?}"
            ),
        }
    }
}

/// A person takes a label from one node after the other. Those that have begun
/// to retire when it comes to be more than half are taken back.
pub(super) async fn one_after_the_other(lab: Lab) -> Result<()> {
    let all = lab.nodes();
    for node in &all {
        lab.label_node(node, "keep", Some("yes")).await?;
    }
    let program = env!("CARGO_BIN_EXE_l2lb-controller").into();
    let stage = Stage::set(lab, program, &["--hold-down=1s"]).await?;
    let lab = &stage.lab;
    let select = json!({"nodeSelector": {"matchLabels": {"keep": "yes"}}});
    let before = order(&stage, "web", all.len(), json!({}), select).await?;
    let (stays, leave) = all.split_last().context("there is no node")?;

    for node in leave {
        lab.kubectl().run(["label", "node", node, "keep-"]).await?;
        // Each is a plan of its own.
        stage
            .until("web", "the node's leave to be seen", |slots| {
                slots
                    .iter()
                    .any(|s| s.home == *node && s.phase != "Announced")
            })
            .await?;
    }
    let message = stage
        .reason("l2lb", "web", "Pinned", "RetirementHeld")
        .await?;
    ensure!(
        leave.iter().all(|node| message.contains(node.as_str())),
        "{message}"
    );
    eprintln!("{message}");
    tokio::time::sleep(RETIREMENT + Duration::from_secs(3)).await;
    let held = stage.slots("web").await?;
    ensure!(held.len() == all.len(), "not held: {held:?}");
    ensure_kept(&before, &held)?;
    for slot in &held {
        stage.answers(slot, stays).await?;
        serves(&stage, slot).await?;
    }
    stage.ensure_ready("web").await?;

    for node in leave {
        lab.kubectl()
            .run(["label", "node", node, "keep=yes"])
            .await?;
    }
    let after = stage.at_home("web", all.len()).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    Ok(())
}
