//! Each state that a node can be in, on a real cluster: who answers ARP for
//! its address, what is said, and that it comes back. `tests/demo.rs` has
//! cordoning and the loss of power under traffic. `L2LB_TEST_METALLB` names the
//! versions of MetalLB; the newest and one older one are the usual.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_demo::stage::{NAMESPACE, PATIENCE, PORT, Slot, Stage};
use l2lb_lab::{Lab, LabConfig, METALLB, harness};
use serde_json::{Value, json};

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const DRAIN: &str = "l2lb.io/drain";
const RETIREMENT: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for version in harness::metallb_versions(&["0.15.2", METALLB]) {
        let metallb = Some(version.clone());
        // By NDP as by ARP.
        let both = LabConfig {
            metallb: metallb.clone(),
            dual_stack: true,
            ..LabConfig::default()
        };
        let name = harness::on_version("nodes_that_stay_on", &version);
        trials.push(harness::trial(name, both, nodes_that_stay));
        let four = LabConfig {
            metallb,
            nodes: 4,
            ..LabConfig::default()
        };
        let name = harness::on_version("nodes_that_leave_on", &version);
        trials.push(harness::trial(name, four, nodes_that_leave));
    }
    harness::run(trials)
}

async fn usual(lab: Lab, nodes: usize) -> Result<Stage> {
    let program = env!("CARGO_BIN_EXE_l2lb-controller").into();
    let stage = Stage::set(lab, program, &["--hold-down=1s"]).await?;
    let mut addresses = vec!["192.0.2.100-192.0.2.119"];
    let mut service = json!({});
    if stage.lab.config().dual_stack {
        addresses.push("2001:db8::100-2001:db8::13f");
        service = json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
    }
    let families = addresses.len();
    stage.pool("edge", json!({"addresses": addresses})).await?;
    let retirement = json!({"retirementPeriod": format!("{}s", RETIREMENT.as_secs())});
    stage
        .load_balancer("web", "edge", retirement, service)
        .await?;
    let slots = stage.at_home("web", nodes).await?;
    ensure!(
        slots.iter().all(|s| s.addresses.len() == families),
        "{slots:?}"
    );
    Ok(stage)
}

async fn serves(stage: &Stage, slot: &Slot) -> Result<()> {
    for address in &slot.addresses {
        stage.lab.wait_for_http(*address, PORT, PATIENCE).await?;
    }
    Ok(())
}

/// Runs the plugin, which succeeds.
async fn plugin(stage: &Stage, args: &[&str]) -> Result<String> {
    let (code, text) = stage.lab.plugin(args).await?;
    ensure!(code == 0, "{args:?} ends with {code}: {text}");
    Ok(text)
}

/// The client outside, the speakers and the plugin's own election agree on
/// who announces a slot.
async fn explained(stage: &Stage, slot: &Slot, by: &str) -> Result<()> {
    stage.answers(slot, by).await?;
    for address in &slot.addresses {
        let text = plugin(stage, &["why", &address.to_string(), "-o", "json"]).await?;
        let why: Value = serde_json::from_str(&text)?;
        ensure!(
            why["shouldAnnounce"] == by && why["announcedBy"] == json!([by]),
            "{by} answers for {address}: {why:#}"
        );
    }
    Ok(())
}

/// Handed over, or taken over by a standby, and back: the slot is kept.
async fn nodes_that_stay(lab: Lab) -> Result<()> {
    let stage = usual(lab, 3).await?;
    let before = stage.slots("web").await?;
    let back = async |what: &str| {
        let after = stage.at_home("web", 3).await?;
        ensure!(after == before, "after {what}: {before:?} became {after:?}");
        stage.reason("l2lb", "web", "Pinned", "Ok").await?;
        eprintln!("{what}: and back");
        Ok(())
    };
    let lab = &stage.lab;

    lab.annotate_node("node-2", DRAIN, Some("maintenance"))
        .await?;
    let slot = stage.away("web", "node-2", "Draining").await?;
    serves(&stage, &slot).await?;
    stage.reason("l2lb", "web", "Pinned", "Draining").await?;
    stage.ensure_ready("web").await?;
    lab.annotate_node("node-2", DRAIN, None).await?;
    back("a drain by annotation").await?;

    // By the plugin, which returns when the client outside sees it, too.
    plugin(&stage, &["drain", "node-3"]).await?;
    let slot = stage.slot("web", "node-3").await?;
    for address in &slot.addresses {
        let by = lab.who_answers(*address).await?;
        let by = by.with_context(|| format!("nobody answers for {address}"))?;
        ensure!(by != "node-3", "{by} still answers for {address}");
        explained(&stage, &slot, &by).await?;
    }
    plugin(&stage, &["undrain", "node-3"]).await?;
    ensure!(stage.slots("web").await? == before, "undrain was too early");
    for slot in &before {
        explained(&stage, slot, &slot.home).await?;
    }
    back("a drain by the plugin").await?;

    // MetalLB does not look at Ready: the speaker is alive, the pin moves.
    lab.silence_kubelet("node-1", true).await?;
    let slot = stage.away("web", "node-1", "FailedOver").await?;
    ensure!(slot.message.contains("node-1 is not ready"), "{slot:?}");
    serves(&stage, &slot).await?;
    stage.ensure_ready("web").await?;
    lab.silence_kubelet("node-1", false).await?;
    back("a kubelet that stopped").await?;

    lab.set_network_unavailable("node-3", true).await?;
    let slot = stage.away("web", "node-3", "FailedOver").await?;
    ensure!(slot.message.contains("NetworkUnavailable"), "{slot:?}");
    serves(&stage, &slot).await?;
    stage.ensure_ready("web").await?;
    lab.set_network_unavailable("node-3", false).await?;
    back("a node without a network").await?;

    // One node after the other, until one is left.
    lab.kill_node("node-1").await?;
    let first = stage.away("web", "node-1", "FailedOver").await?;
    let heir = first.announced_by.clone().context("nobody took it over")?;
    explained(&stage, &first, &heir).await?;
    lab.kill_node(&heir).await?;
    let last = ["node-2", "node-3"].into_iter().find(|n| *n != heir);
    let last = last.context("nobody is left")?;
    for slot in &before {
        stage.answers(slot, last).await?;
    }
    stage
        .until("web", "both to be reported", |slots| {
            slots
                .iter()
                .filter(|s| s.phase == "FailedOver" && s.announced_by.as_deref() == Some(last))
                .count()
                == 2
        })
        .await?;
    stage.ensure_ready("web").await?;
    lab.revive_node("node-1").await?;
    lab.revive_node(&heir).await?;
    back("two nodes without power").await
}

/// Labelled away, deleted, replaced: the slot retires.
async fn nodes_that_leave(lab: Lab) -> Result<()> {
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
        let start = Instant::now();
        while let Some(by) = lab.who_answers(*address).await.unwrap_or_default() {
            ensure!(
                start.elapsed() < PATIENCE,
                "{by} still answers for {address}"
            );
        }
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
    eprintln!("{joined} has taken over {} of node-4", new.service);

    // Three of four at once look like a mistake.
    lab.label_node(&joined, "keep", Some("yes")).await?;
    let select = json!({"nodeSelector": {"matchLabels": {"keep": "yes"}},
        "retirementPeriod": format!("{}s", RETIREMENT.as_secs())});
    stage
        .load_balancer("web", "edge", select, json!({}))
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
