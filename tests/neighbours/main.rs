//! What works beside what: other advertisements, other classes, speakers that
//! are missing, old or without the interface, pods on some nodes only. Each
//! either works, or is refused before it harms, or is reported with the
//! remedy. Who announces is seen by ARP from the client. `L2LB_TEST_METALLB`
//! brings trials of what was so in the versions that it names.

mod advertisements;
mod bgp;
mod pools;
mod probe;
mod segments;
mod speakers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb::metallb::Capabilities;
use l2lb_demo::stage::{NAMESPACE, PATIENCE, Stage};
use l2lb_lab::{Lab, LabConfig, harness};
use serde_json::json;

fn main() -> ExitCode {
    let usual = LabConfig::default;
    let mut trials = vec![
        harness::trial(
            "l2_advertisements",
            usual(),
            advertisements::l2_advertisements,
        ),
        harness::trial("bgp_advertisements", usual(), bgp::bgp_advertisements),
        harness::trial(
            "speakers_and_pods",
            LabConfig {
                metallb_values: Some("{speaker: {ignoreExcludeLB: true}}".into()),
                ..usual()
            },
            speakers::speakers_and_pods,
        ),
        harness::trial("another_host", usual(), probe::another_host),
        harness::trial(
            "segments_and_interfaces",
            LabConfig {
                second_segment: true,
                ..usual()
            },
            segments::segments_and_interfaces,
        ),
        harness::trial(
            "another_class_without_memberlist",
            LabConfig {
                metallb_values: Some(
                    "{loadBalancerClass: edge.example/l2, \
                     speaker: {memberlist: {enabled: false}, ignoreExcludeLB: true}}"
                        .into(),
                ),
                ..usual()
            },
            speakers::another_class_without_memberlist,
        ),
        harness::trial(
            "speakers_older_than_definitions",
            LabConfig {
                metallb: Some("0.16.1".into()),
                l2_advertisement_of: Some(l2lb_lab::METALLB.into()),
                ..usual()
            },
            speakers::speakers_older_than_definitions,
        ),
    ];
    let on = |version: &str| LabConfig {
        metallb: Some(version.to_owned()),
        ..usual()
    };
    // What is so before preferences.
    for version in harness::metallb_versions(&["0.15.2"]) {
        if Capabilities::of_version(&version).is_none_or(|c| !c.can_prefer()) {
            trials.push(harness::trial(
                harness::on_version("without_preferences_on", &version),
                on(&version),
                advertisements::without_preferences,
            ));
        }
    }
    // What was so once, where `L2LB_TEST_METALLB` asks for it.
    for version in harness::metallb_versions(&[]) {
        match version.as_str() {
            "0.14.9" => {
                let silent = LabConfig {
                    metallb_values: Some("{speaker: {memberlist: {enabled: false}}}".into()),
                    ..on(&version)
                };
                trials.push(harness::trial(
                    "old_without_memberlist",
                    silent,
                    speakers::old_without_memberlist,
                ));
            }
            "0.14.8" => trials.push(harness::trial(
                "ipv6_beside_any_bgp",
                on(&version),
                bgp::ipv6_beside_any_bgp,
            )),
            _ => {}
        }
    }
    harness::run(trials)
}

async fn stage(lab: Lab, args: &[&str]) -> Result<Stage> {
    Stage::set(lab, env!("CARGO_BIN_EXE_l2lb-controller").into(), args).await
}

/// A pool `edge` on the first segment, and a load balancer `web` from it.
async fn order(stage: &Stage) -> Result<()> {
    stage
        .pool("edge", json!({"addresses": ["192.0.2.100-192.0.2.119"]}))
        .await?;
    stage
        .load_balancer("web", "edge", json!({}), json!({}))
        .await
}

/// That, and all its slots are at home.
async fn usual(lab: Lab) -> Result<Stage> {
    let stage = stage(lab, &["--hold-down=1s"]).await?;
    order(&stage).await?;
    stage.at_home("web", 3).await?;
    Ok(stage)
}

async fn foreign(stage: &Stage, kind: &str, name: &str, spec: serde_json::Value) -> Result<()> {
    let object = json!({"apiVersion": "metallb.io/v1beta1", "kind": kind,
        "metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec});
    stage.lab.apply(&object.to_string()).await
}

async fn delete(stage: &Stage, kind: &str, name: &str) -> Result<()> {
    let args = ["delete", kind, "-n", "metallb-system", name];
    stage.lab.kubectl().run(args).await.map(drop)
}

/// Deletes a load balancer and its pool, which goes when its addresses are free.
async fn remove(stage: &Stage, load_balancer: &str, pool: &str) -> Result<()> {
    let kubectl = stage.lab.kubectl();
    let args = ["delete", "l2lb", "-n", NAMESPACE, load_balancer];
    kubectl.run(args).await?;
    remove_pool(stage, pool).await
}

/// Deletes a pool.
async fn remove_pool(stage: &Stage, pool: &str) -> Result<()> {
    let patience = format!("--timeout={}s", PATIENCE.as_secs());
    let args = ["delete", "l2pool", pool, &patience];
    stage.lab.kubectl().run(args).await.map(drop)
}

/// Waits until `Pinned` of a load balancer is True with a message as wanted,
/// and returns the message.
async fn pinned_with(stage: &Stage, name: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let start = Instant::now();
    loop {
        let found = stage.condition("l2lb", name, "Pinned").await;
        match found {
            Ok(found) if found.status == "True" && wanted(&found.message) => {
                return Ok(found.message);
            }
            found => ensure!(start.elapsed() < PATIENCE, "Pinned of {name} is {found:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the parts of MetalLB say that do not find their configuration valid,
/// or have said nothing yet.
async fn invalid_parts(stage: &Stage) -> Result<Vec<String>> {
    let states = stage
        .get(&["configurationstates", "-n", "metallb-system"])
        .await?;
    let items = states["items"].as_array().cloned().unwrap_or_default();
    let missing = 4_usize.saturating_sub(items.len());
    let bad = items.iter().filter(|s| s["status"]["result"] != "Valid");
    Ok(bad
        .map(ToString::to_string)
        .chain(vec!["a part is silent".to_owned(); missing])
        .collect())
}

/// Every part of MetalLB finds its configuration valid.
async fn ensure_valid(stage: &Stage) -> Result<()> {
    let start = Instant::now();
    loop {
        let bad = invalid_parts(stage).await?;
        if bad.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "not valid: {bad:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Ends the speaker of a node; its DaemonSet starts another where it may.
async fn end_speaker(stage: &Stage, node: &str) -> Result<()> {
    let field = format!("--field-selector=spec.nodeName={node}");
    let pods = stage.get(&["pods", "-n", "metallb-system", &field]).await?;
    let speaker = pods["items"][0]["metadata"]["name"]
        .as_str()
        .with_context(|| format!("no speaker is on {node}"))?;
    delete(stage, "pod", speaker).await
}
