//! `externalTrafficPolicy: Local` with pods on some nodes only, while a node that
//! has one is cordoned or drained.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{NAMESPACE, PATIENCE, PORT, Slot, Stage};
use l2lb_lab::{BACKEND_IMAGE, Lab};
use serde_json::json;

use crate::ensure_kept;

/// The app whose pods are put on nodes one by one.
const APP: &str = "local";

async fn start_pod(lab: &Lab, node: &str) -> Result<()> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": NAMESPACE, "name": format!("{APP}-{node}"), "labels": {"app": APP}},
        "spec": {"nodeName": node, "containers": [{"name": "http", "image": BACKEND_IMAGE,
            "ports": [{"containerPort": 8080}]}]}});
    lab.apply(&pod.to_string()).await
}

async fn stop_pod(lab: &Lab, node: &str) -> Result<()> {
    let pod = format!("{APP}-{node}");
    let args = ["delete", "pod", "-n", NAMESPACE, &pod];
    lab.kubectl().run(args).await.map(drop)
}

/// Waits until the slot of a home is in a phase and announced by a node, which
/// answers for it and whose own pod serves it.
async fn announced(stage: &Stage, home: &str, phase: &str, by: &str) -> Result<Slot> {
    let is = |slot: &Slot| {
        slot.home == home && slot.phase == phase && slot.announced_by.as_deref() == Some(by)
    };
    let what = format!("the slot of {home} to be {phase}, announced by {by}");
    let slots = stage
        .until("web", &what, |slots| slots.iter().any(is))
        .await?;
    let slot = slots.into_iter().find(is).context("the slot is gone")?;
    stage.answers(&slot, by).await?;
    let own = format!("{by} ");
    for address in &slot.addresses {
        let start = Instant::now();
        // The client may believe its neighbour table for a moment.
        loop {
            let response = stage.lab.wait_for_http(*address, PORT, PATIENCE).await?;
            if response.body.starts_with(&own) {
                break;
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{address} of {by} is served by {}",
                response.body.trim()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(slot)
}

/// Runs the plugin, which ends with a code and says what is expected.
async fn plugin(lab: &Lab, args: &[&str], code: i32, says: &[&str]) -> Result<()> {
    let (ended, text) = lab.plugin(args).await?;
    ensure!(
        ended == code && says.iter().all(|part| text.contains(*part)),
        "{args:?} ends with {ended}: {text}"
    );
    Ok(())
}

/// What a node announces goes to a node with a pod, or stays where only it has one.
pub(super) async fn pods_on_some_nodes(lab: Lab) -> Result<()> {
    let program = env!("CARGO_BIN_EXE_l2lb-controller").into();
    let stage = Stage::set(lab, program, &["--hold-down=1s"]).await?;
    let lab = &stage.lab;
    for node in ["node-1", "node-2"] {
        start_pod(lab, node).await?;
    }
    let pool = json!({"addresses": ["192.0.2.100-192.0.2.119"]});
    stage.pool("edge", pool).await?;
    let service = json!({"selector": {"app": APP}, "externalTrafficPolicy": "Local"});
    stage
        .load_balancer("web", "edge", json!({}), service)
        .await?;
    for node in ["node-1", "node-2"] {
        announced(&stage, node, "Announced", node).await?;
    }
    stage.away("web", "node-3", "FailedOver").await?;
    stage
        .reason("l2lb", "web", "Pinned", "NoLocalEndpoint")
        .await?;
    let before = stage.slots("web").await?;
    ensure!(before.len() == 3, "{before:?}");

    // node-3 serves, and has no pod: there is one choice.
    lab.cordon("node-1", true).await?;
    announced(&stage, "node-1", "Draining", "node-2").await?;
    announced(&stage, "node-2", "Announced", "node-2").await?;
    stage.away("web", "node-3", "FailedOver").await?;
    stage.ensure_ready("web").await?;
    lab.cordon("node-1", false).await?;
    announced(&stage, "node-1", "Announced", "node-1").await?;
    eprintln!("cordoned with a pod elsewhere: handed over and back");

    // The only pod is on the node that is drained.
    stop_pod(lab, "node-2").await?;
    for home in ["node-2", "node-3"] {
        announced(&stage, home, "FailedOver", "node-1").await?;
    }
    let says = [
        "3 slots on node node-1 cannot leave",
        "no other balancer node of L2LoadBalancer default/web has a ready pod",
    ];
    plugin(lab, &["drain", "node-1"], 1, &says).await?;
    let stays = announced(&stage, "node-1", "Draining", "node-1").await?;
    ensure!(
        stays
            .message
            .contains("no other balancer node that is well has one"),
        "{stays:?}"
    );
    stage
        .reason("l2lb", "web", "Pinned", "NoLocalEndpoint")
        .await?;
    // Longer than any handover.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for address in &stays.addresses {
        let by = lab.who_answers(*address).await?;
        ensure!(by.as_deref() == Some("node-1"), "{by:?} has {address}");
    }
    for home in ["node-2", "node-3"] {
        announced(&stage, home, "FailedOver", "node-1").await?;
    }
    stage.ensure_ready("web").await?;
    eprintln!("{}", stays.message);
    let says = ["node node-1 announces 1 slot of its own again"];
    plugin(lab, &["undrain", "node-1"], 0, &says).await?;
    // Nothing comes back to a node without a pod, which is no reason to wait.
    let says = [
        "node node-3 announces 0 slots of its own again",
        "node node-3 has no ready pod",
    ];
    plugin(lab, &["undrain", "node-3"], 0, &says).await?;
    announced(&stage, "node-1", "Announced", "node-1").await?;

    for node in ["node-2", "node-3"] {
        start_pod(lab, node).await?;
    }
    let after = stage.at_home("web", 3).await?;
    ensure_kept(&before, &after)?;
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;
    Ok(())
}
