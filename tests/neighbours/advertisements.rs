//! L2Advertisements that other people made.

use std::time::Duration;

use anyhow::{Result, ensure};
use l2lb_lab::Lab;
use serde_json::json;

use crate::{delete, foreign, usual};

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
    delete(&stage, "l2advertisement", "all").await
}
