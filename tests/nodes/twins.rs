//! Two nodes with one `kubernetes.io/hostname`, as a machine cloned from
//! another has it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use l2lb_demo::stage::{PATIENCE, Stage};
use l2lb_lab::Lab;

use crate::{RETIREMENT, ensure_kept, serves, usual};

/// The one that was there first keeps its slot, and its address answers; the
/// other gets none until it can be told apart.
pub(super) async fn two_of_one_hostname(lab: Lab) -> Result<()> {
    let stage = usual(lab, 3).await?;
    let before = stage.slots("web").await?;
    let twin = stage.lab.add_node_with_hostname("node-1").await?;
    let message = stage
        .reason("l2lb", "web", "Pinned", "NodeNotIdentifiable")
        .await?;
    ensure!(message.contains("kubernetes.io/hostname"), "{message}");
    eprintln!("{message}");
    ensure_untouched(&stage, &twin).await?;

    // Not even when a slot that retires would be gone.
    tokio::time::sleep(RETIREMENT + Duration::from_secs(3)).await;
    let slots = stage.slots("web").await?;
    ensure!(slots.len() == before.len(), "{slots:?}");
    ensure_kept(&before, &slots)?;
    ensure_untouched(&stage, &twin).await?;
    stage.ensure_ready("web").await?;
    stage
        .reason("l2lb", "web", "Pinned", "NodeNotIdentifiable")
        .await?;

    // The remedy.
    let label = format!("kubernetes.io/hostname={twin}");
    stage
        .lab
        .kubectl()
        .run(["label", "node", &twin, "--overwrite", &label])
        .await?;
    let after = stage.at_home("web", 4).await?;
    ensure_kept(&before, &after)?;
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    Ok(())
}

/// Every slot serves, none retires, and none is the twin's. MetalLB prefers
/// both of one name, so either may announce; the others are at home.
async fn ensure_untouched(stage: &Stage, twin: &str) -> Result<()> {
    for slot in stage.slots("web").await? {
        ensure!(
            slot.home != twin && slot.phase != "Retiring" && slot.phase != "Pending",
            "{slot:?}"
        );
        if slot.home != "node-1" {
            stage.answers(&slot, &slot.home).await?;
        }
        for address in &slot.addresses {
            let start = Instant::now();
            // Two answer while a speaker that has just started is alone.
            while !matches!(stage.lab.who_answers(*address).await, Ok(Some(_))) {
                ensure!(
                    start.elapsed() < PATIENCE,
                    "not one node answers for {address}"
                );
            }
        }
        serves(stage, &slot).await?;
    }
    Ok(())
}
