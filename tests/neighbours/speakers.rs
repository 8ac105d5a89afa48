//! Speakers that are missing, old, of another class or without memberlist, and
//! pods on some nodes only.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use l2lb::world::SPEAKER_GRACE;
use l2lb_demo::stage::{NAMESPACE, PATIENCE, Stage};
use l2lb_lab::Lab;
use serde_json::json;

use crate::{end_speaker, order, stage, usual};

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A label that only the controller goes by, a node without a speaker, and pods
/// on some nodes only.
pub(super) async fn speakers_and_pods(lab: Lab) -> Result<()> {
    let stage = usual(lab).await?;
    let kubectl = stage.lab.kubectl();
    excluded_for_the_controller(&stage).await?;

    // Whoever tolerates nothing is not started on node-2 again.
    kubectl
        .run(["taint", "node", "node-2", "lab=closed:NoSchedule"])
        .await?;
    end_speaker(&stage, "node-2").await?;
    let start = Instant::now();
    let message = stage
        .reason("l2lb", "web", "Pinned", "SpeakerMissing")
        .await?;
    ensure!(
        message.contains("no MetalLB speaker runs on node node-2"),
        "{message}"
    );
    let slot = stage.away("web", "node-2", "FailedOver").await?;
    let service = stage
        .get(&["service", "-n", NAMESPACE, &slot.service])
        .await?;
    let pin = &service["metadata"]["labels"]["l2lb.io/pin"];
    ensure!(pin != "node-2", "it is still pinned to its home");
    stage.ensure_ready("web").await?;
    eprintln!("after {:.1} s: {message}", start.elapsed().as_secs_f64());
    ensure!(stage.writes_during("web", Duration::from_secs(3)).await? == 0);
    kubectl
        .run(["taint", "node", "node-2", "lab=closed:NoSchedule-"])
        .await?;
    stage.at_home("web", 3).await?;
    stage.reason("l2lb", "web", "Pinned", "Ok").await?;

    // A class that MetalLB does not serve.
    stage
        .load_balancer(
            "other",
            "edge",
            json!({}),
            json!({"loadBalancerClass": "example.org/other"}),
        )
        .await?;
    stage
        .reason("l2lb", "other", "AddressesAllocated", "Pending")
        .await?;
    let message = stage.reason("l2lb", "other", "Pinned", "Pending").await?;
    ensure!(
        message.contains("MetalLB serves Services without a loadBalancerClass")
            && message.contains("example.org/other"),
        "{message}"
    );
    eprintln!("{message}");

    // Pods on two of three nodes.
    kubectl
        .run(["taint", "node", "node-3", "lab=closed:NoExecute"])
        .await?;
    let patch = r#"{"spec":{"template":{"spec":{"tolerations":[{"operator":"Exists"}]}}}}"#;
    kubectl
        .run([
            "patch",
            "daemonset",
            "-n",
            "metallb-system",
            "metallb-speaker",
            "-p",
            patch,
        ])
        .await?;
    kubectl
        .run([
            "rollout",
            "status",
            "-n",
            "metallb-system",
            "--timeout=60s",
            "daemonset/metallb-speaker",
        ])
        .await?;
    stage
        .load_balancer(
            "local",
            "edge",
            json!({}),
            json!({"externalTrafficPolicy": "Local"}),
        )
        .await?;
    let message = stage
        .reason("l2lb", "local", "Pinned", "NoLocalEndpoint")
        .await?;
    ensure!(message.contains("node node-3 has none"), "{message}");
    eprintln!("{message}");
    let slot = stage.away("local", "node-3", "FailedOver").await?;
    stage.ensure_ready("local").await?;
    for home in ["node-1", "node-2"] {
        let slot = stage.slot("local", home).await?;
        stage.answers(&slot, home).await?;
    }
    let service = stage
        .get(&["service", "-n", NAMESPACE, &slot.service])
        .await?;
    ensure!(service["metadata"]["labels"]["l2lb.io/pin"] == "node-3");
    ensure!(stage.writes_during("local", Duration::from_secs(8)).await? == 0);
    kubectl
        .run(["taint", "node", "node-3", "lab=closed:NoExecute-"])
        .await?;
    stage.at_home("local", 3).await?;
    Ok(())
}

/// The speakers of `web` do not mind the label that excludes a node, and the
/// controller does: the slot retires, and another node announces.
async fn excluded_for_the_controller(stage: &Stage) -> Result<()> {
    let speakers = ["daemonset", "-n", "metallb-system", "metallb-speaker"];
    let speakers = stage.get(&speakers).await?;
    let containers = speakers["spec"]["template"]["spec"]["containers"].to_string();
    ensure!(containers.contains("--ignore-exclude-lb"), "{containers}");

    let before = stage.slots("web").await?;
    stage.lab.label_node("node-3", EXCLUDE, Some("")).await?;
    let slot = stage.away("web", "node-3", "Retiring").await?;
    stage.reason("l2lb", "web", "Pinned", "Retiring").await?;
    stage.ensure_ready("web").await?;
    for slot in before.iter().filter(|s| s.home != "node-3") {
        stage.answers(slot, &slot.home).await?;
    }
    eprintln!("{EXCLUDE}, for the controller alone: {}", slot.message);
    stage.lab.label_node("node-3", EXCLUDE, None).await?;
    let after = stage.at_home("web", 3).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    Ok(())
}

/// Without memberlist nobody else moves the addresses of a speaker that goes:
/// the controller does not wait for others to do so.
async fn without_a_speaker(stage: &Stage) -> Result<()> {
    let pinned = stage.condition("l2lb", "web", "Pinned").await?;
    ensure!(
        pinned.status == "True" && pinned.message.contains("without memberlist"),
        "{pinned:?}"
    );
    let before = stage.slots("web").await?;
    let lost = stage.slot("web", "node-1").await?;
    let kubectl = stage.lab.kubectl();
    kubectl
        .run(["taint", "node", "node-1", "lab=closed:NoSchedule"])
        .await?;
    let start = Instant::now();
    end_speaker(stage, "node-1").await?;
    let took = loop {
        let service = ["service", "-n", NAMESPACE, &lost.service];
        let service = stage.get(&service).await?;
        if service["metadata"]["labels"]["l2lb.io/pin"] != "node-1" {
            break start.elapsed();
        }
        ensure!(start.elapsed() < PATIENCE, "it is still pinned to its home");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(
        took.as_secs() < SPEAKER_GRACE.as_secs().unsigned_abs(),
        "the pin moved after {took:?}, as with memberlist"
    );
    let slot = stage.away("web", "node-1", "FailedOver").await?;
    ensure!(slot.addresses == lost.addresses);
    stage
        .reason("l2lb", "web", "Pinned", "SpeakerMissing")
        .await?;
    stage.ensure_ready("web").await?;
    eprintln!(
        "without memberlist: pinned elsewhere {:.1} s after the speaker was told to end",
        took.as_secs_f64()
    );
    kubectl
        .run(["taint", "node", "node-1", "lab=closed:NoSchedule-"])
        .await?;
    let after = stage.at_home("web", 3).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    Ok(())
}

/// MetalLB with a class of its own, that finds no dead nodes by itself, and
/// that uses nodes which are labelled against load balancers.
pub(super) async fn another_class_without_memberlist(lab: Lab) -> Result<()> {
    lab.label_node("node-3", EXCLUDE, Some("")).await?;
    // The control plane's node is labelled as well and is to stay out.
    for node in ["node-1", "node-2", "node-3"] {
        lab.label_node(node, "role", Some("edge")).await?;
    }
    let stage = stage(lab, &["--hold-down=1s", "--ignore-exclude-lb"]).await?;
    stage
        .pool(
            "edge",
            json!({"addresses": ["192.0.2.100-192.0.2.119"], "loadBalancerClass": "edge.example/l2",
                "nodeSelector": {"matchLabels": {"role": "edge"}}}),
        )
        .await?;
    stage
        .load_balancer("web", "edge", json!({}), json!({}))
        .await?;
    let slots = stage.at_home("web", 3).await?;
    ensure!(slots.iter().any(|s| s.home == "node-3"), "{slots:?}");
    eprintln!("the class of the pool, and a node labelled {EXCLUDE}: served");
    without_a_speaker(&stage).await?;

    // A dead node keeps its addresses until the controller moves the pin.
    let lost = stage.slot("web", "node-2").await?;
    let start = Instant::now();
    stage.lab.kill_node("node-2").await?;
    let slot = stage.away("web", "node-2", "FailedOver").await?;
    ensure!(slot.addresses == lost.addresses);
    stage.ensure_ready("web").await?;
    eprintln!(
        "without memberlist: {:?} answers for {:?} {:.1} s after the power went",
        slot.announced_by,
        slot.addresses,
        start.elapsed().as_secs_f64()
    );
    stage.lab.revive_node("node-2").await?;
    stage.at_home("web", 3).await?;
    Ok(())
}

/// The definitions know preferences, the speakers do not.
pub(super) async fn speakers_older_than_definitions(lab: Lab) -> Result<()> {
    let stage = stage(lab, &["--hold-down=1s"]).await?;
    stage
        .pool("edge", json!({"addresses": ["192.0.2.100-192.0.2.119"]}))
        .await?;
    let start = Instant::now();
    // Enough that the hash disagrees with one home at least.
    for number in 0..4 {
        let name = format!("web{number}");
        stage
            .load_balancer(&name, "edge", json!({}), json!({}))
            .await?;
    }
    loop {
        for number in 0..4 {
            let name = format!("web{number}");
            let pinned = stage.condition("l2lb", &name, "Pinned").await;
            if let Ok(pinned) = pinned
                && pinned.reason == "SpeakersTooOld"
            {
                ensure!(
                    pinned.message.contains("upgrade the speakers"),
                    "{pinned:?}"
                );
                ensure!(pinned.message.contains("0.16.1"), "{pinned:?}");
                // A minute; Kubernetes keeps times to the second.
                ensure!(start.elapsed() > Duration::from_secs(59), "too early");
                stage.ensure_ready(&name).await?;
                eprintln!("{}", pinned.message);
                return Ok(());
            }
        }
        ensure!(
            start.elapsed() < PATIENCE * 2,
            "nobody says that the speakers are too old"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Up to MetalLB 0.14.9 speakers without memberlist announce nothing.
pub(super) async fn old_without_memberlist(lab: Lab) -> Result<()> {
    let stage = stage(lab, &[]).await?;
    order(&stage).await?;
    let message = stage
        .reason("l2lb", "web", "Pinned", "MemberlistOff")
        .await?;
    ensure!(message.contains("speaker.memberlist.enabled"), "{message}");
    let dark = stage.reason("l2lb", "web", "Ready", "NotAnnounced").await?;
    ensure!(dark.contains("without memberlist"), "{dark}");
    eprintln!("{dark}");
    let slots = stage.slots("web").await?;
    ensure!(slots.len() == 3, "{slots:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for address in slots.iter().flat_map(|s| &s.addresses) {
        let by = stage.lab.who_answers(*address).await?;
        ensure!(by.is_none(), "{by:?} answers for {address}");
    }
    Ok(())
}
