//! `kubectl l2lb check --probe` on a host of the segment: it finds the host
//! that has an address of ours, without rights.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{NAMESPACE, PATIENCE, Stage};
use l2lb_lab::{Lab, Spec};
use serde_json::Value;

use super::usual;

/// A host of the segment, the control plane, by the bridge. It is a host like
/// any other once its Node is gone.
const SQUATTER: &str = "lab0";

/// Adds an address to the squatter, or takes it off.
async fn squat(stage: &Stage, verb: &str, address: &str) -> Result<()> {
    let address = format!("{address}/32");
    let args = ["address", verb, &address, "dev", SQUATTER];
    let mut ip = stage.lab.start(Spec::new("squatter", "ip").args(args))?;
    ip.ended().await;
    Ok(())
}

/// The findings of the family, and what was not looked at.
async fn probe(stage: &Stage) -> Result<(Vec<Value>, String)> {
    let program = env!("CARGO_BIN_EXE_kubectl-l2lb");
    // Its code is 1: the lab has no webhook, and other things to be found.
    let script = format!("{program} check --probe --probe-limit=20 -o json; test $? -le 1");
    let text = stage.lab.exec(None, &["sh", "-c", &script]).await?;
    let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let of_probe = [
        "address-of-another-host",
        "address-of-another-node",
        "address-silent",
        "free-address-taken",
    ];
    let found = findings
        .into_iter()
        .filter(|f| of_probe.iter().any(|rule| f["rule"] == *rule))
        .collect();
    Ok((found, report["notLookedAt"].to_string()))
}

/// An address that another host answers for, taken and free.
pub(crate) async fn another_host(lab: Lab) -> Result<()> {
    let stage = usual(lab).await?;
    let kubectl = stage.lab.kubectl();
    kubectl.run(["delete", "node", "control-plane"]).await?;
    let (found, open) = probe(&stage).await?;
    ensure!(found.is_empty(), "{found:#?}");
    ensure!(!open.contains("who answers for"), "{open}");

    // A free one.
    squat(&stage, "add", "192.0.2.115").await?;
    let (found, _) = probe(&stage).await?;
    let [taken] = found.as_slice() else {
        anyhow::bail!("{found:#?}")
    };
    ensure!(
        taken["rule"] == "free-address-taken"
            && taken["severity"] == "error"
            && taken["object"] == "L2AddressPool edge"
            && taken["message"].to_string().contains("192.0.2.115"),
        "{taken:#}"
    );
    eprintln!("{}", taken["message"]);
    squat(&stage, "del", "192.0.2.115").await?;

    // One of ours. Both answer, and the client keeps the first: the squatter's
    // kernel is faster than a speaker, but that is not certain.
    let slot = stage.slot("web", "node-2").await?;
    let address = slot.addresses.first().context("an address")?.to_string();
    squat(&stage, "add", &address).await?;
    let mut seen = None;
    for _ in 0..5 {
        stage
            .lab
            .exec(None, &["ip", "neigh", "flush", "to", &address])
            .await?;
        let (found, _) = probe(&stage).await?;
        seen = found
            .into_iter()
            .find(|f| f["rule"] == "address-of-another-host");
        if seen.is_some() {
            break;
        }
    }
    let stolen = seen.context("the squatter is never seen")?;
    ensure!(
        stolen["object"] == format!("Service {NAMESPACE}/{}", slot.service)
            && stolen["message"].to_string().contains("node node-2"),
        "{stolen:#}"
    );
    eprintln!("{}", stolen["message"]);
    squat(&stage, "del", &address).await?;

    // What is gone is not held against anybody for longer than the kernel
    // believes its table.
    let start = Instant::now();
    loop {
        let (found, _) = probe(&stage).await?;
        if found.is_empty() {
            break;
        }
        ensure!(start.elapsed() < PATIENCE * 2, "{found:#?}");
    }

    // On a node it says so.
    let program = env!("CARGO_BIN_EXE_kubectl-l2lb");
    let script = format!("{program} check --probe 2>&1; test $? = 2");
    let said = stage
        .lab
        .exec(Some("node-1"), &["sh", "-c", &script])
        .await?;
    ensure!(said.contains("this machine is node node-1"), "{said}");
    Ok(())
}
