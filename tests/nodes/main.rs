//! Each state that a node can be in, on a real cluster: who answers ARP for
//! its address, what is said, and that it comes back. `tests/demo.rs` has
//! cordoning and the loss of power under traffic. `L2LB_TEST_METALLB` names the
//! versions of MetalLB; the newest and one older one are the usual, the newest
//! alone for what rests less on MetalLB.

mod cordoned;
mod leaving;
mod local;
mod ready;
mod staying;
mod twins;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use l2lb_demo::stage::{PATIENCE, PORT, Slot, Stage};
use l2lb_lab::{Lab, LabConfig, METALLB, harness};
use serde_json::{Value, json};

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const DRAIN: &str = "l2lb.io/drain";
const RETIREMENT: Duration = Duration::from_secs(15);
/// Announces nothing from a cordoned node.
const SILENT_WHEN_CORDONED: &str = "0.14.9";

fn main() -> ExitCode {
    let on = |version: &str, nodes| LabConfig {
        metallb: Some(version.to_owned()),
        nodes,
        ..LabConfig::default()
    };
    // By NDP as by ARP.
    let both = |version: &str, nodes| LabConfig {
        dual_stack: true,
        ..on(version, nodes)
    };
    let mut trials = Vec::new();
    for version in harness::metallb_versions(&["0.15.2", METALLB]) {
        let name = harness::on_version("nodes_that_stay_on", &version);
        trials.push(harness::trial(
            name,
            both(&version, 3),
            staying::nodes_that_stay,
        ));
        let name = harness::on_version("nodes_that_leave_on", &version);
        trials.push(harness::trial(
            name,
            both(&version, 4),
            leaving::nodes_that_leave,
        ));
        let name = harness::on_version("pods_on_some_nodes_on", &version);
        trials.push(harness::trial(
            name,
            on(&version, 3),
            local::pods_on_some_nodes,
        ));
    }
    for version in harness::metallb_versions(&[METALLB]) {
        let name = harness::on_version("nodes_that_leave_in_turn_on", &version);
        trials.push(harness::trial(
            name,
            both(&version, 4),
            leaving::one_after_the_other,
        ));
        let name = harness::on_version("two_of_one_hostname_on", &version);
        trials.push(harness::trial(
            name,
            both(&version, 3),
            twins::two_of_one_hostname,
        ));
        let name = harness::on_version("ready_does_not_flicker_on", &version);
        trials.push(harness::trial(
            name,
            on(&version, 3),
            ready::ready_does_not_flicker,
        ));
        if version == SILENT_WHEN_CORDONED {
            continue;
        }
        let name = harness::on_version("cordoned_nodes_on", &version);
        trials.push(harness::trial(
            name,
            both(&version, 3),
            cordoned::cordoned_nodes,
        ));
    }
    harness::run(trials)
}

/// A load balancer `web` that is at home on so many nodes.
async fn usual(lab: Lab, nodes: usize) -> Result<Stage> {
    let program = env!("CARGO_BIN_EXE_l2lb-controller").into();
    let stage = Stage::set(lab, program, &["--hold-down=1s"]).await?;
    let slots = order(&stage, "web", nodes, json!({}), json!({})).await?;
    let families = 1 + usize::from(stage.lab.config().dual_stack);
    ensure!(
        slots.iter().all(|s| s.addresses.len() == families),
        "{slots:?}"
    );
    Ok(stage)
}

/// A load balancer from pool `edge`, with more in the specs of either, in as
/// many families as the lab has, once it is at home on so many nodes.
async fn order(
    stage: &Stage,
    name: &str,
    nodes: usize,
    pool: Value,
    load_balancer: Value,
) -> Result<Vec<Slot>> {
    let mut addresses = vec!["192.0.2.100-192.0.2.119"];
    let mut service = json!({});
    if stage.lab.config().dual_stack {
        addresses.push("2001:db8::100-2001:db8::13f");
        service = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
    }
    let mut edge = pool;
    edge["addresses"] = json!(addresses);
    stage.pool("edge", edge).await?;
    let mut spec = load_balancer;
    spec["retirementPeriod"] = json!(format!("{}s", RETIREMENT.as_secs()));
    stage.load_balancer(name, "edge", spec, service).await?;
    stage.at_home(name, nodes).await
}

/// HTTP through each address of a slot.
async fn serves(stage: &Stage, slot: &Slot) -> Result<()> {
    for address in &slot.addresses {
        stage.lab.wait_for_http(*address, PORT, PATIENCE).await?;
    }
    Ok(())
}

/// What a slot keeps for life.
fn identity(slot: &Slot) -> (&str, &str, &[std::net::IpAddr]) {
    (&slot.service, &slot.home, &slot.addresses)
}

/// Fails if one of some slots is not among others, with its home and addresses.
fn ensure_kept(before: &[Slot], after: &[Slot]) -> Result<()> {
    for slot in before {
        ensure!(
            after.iter().any(|s| identity(s) == identity(slot)),
            "{slot:?} is not among {after:?}"
        );
    }
    Ok(())
}
