//! What MetalLB does with the Services of others, and what others do to ours.

mod alert;
mod shared;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Facts, Findings, Severity};
use crate::api::OnCordon;
use crate::metallb::{STATUS_NAMESPACE, STATUS_NODE, STATUS_SERVICE};
use crate::world::{InterfaceFailure, Key, SpeakerState};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "shared-address-not-announced",
        "a Service shares its address, and an L2Advertisement selects it by serviceSelectors",
    ),
    (
        "announced-twice",
        "two speakers have announced one Service for long",
    ),
    (
        "announce-failed",
        "a speaker was elected for a Service of somebody else, and lacks the interfaces",
    ),
    (
        "hostname-on-child",
        "a Service of l2lb has an annotation by which ExternalDNS publishes it",
    ),
    (
        "cordon-not-ignored",
        "onCordon: Ignore has no effect with MetalLB 0.14.9",
    ),
    (
        "alert-of-full-pools",
        "MetalLB's alerts of full pools fire for pools that l2lb fills by design",
    ),
];

/// How long two speakers may announce one Service: a hand-over takes less than
/// memberlist needs to agree, about 7 s.
const HANDOVER: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    for service in facts.of_kind("Service") {
        shared::check(facts, found, service);
    }
    twice(facts, found);
    for failure in facts.world.interface_failures.values() {
        failed(facts, found, failure);
    }
    hostnames(facts, found);
    cordon(facts, found);
    alert::check(facts, found);
}

/// Two speakers that do not see each other, which ServiceL2Status tells from
/// 0.16 on. What a dead node left there is not counted.
fn twice(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    if !world.reports_announcers() {
        return;
    }
    let alive = |node: &str| {
        world.nodes.get(node).is_some_and(|n| n.ready)
            && !matches!(world.speakers.on(node), SpeakerState::Away(_))
    };
    let mut announcers: BTreeMap<Key, BTreeSet<&str>> = BTreeMap::new();
    for status in facts.of_kind("ServiceL2Status") {
        let meta = &status["metadata"];
        let label = |key: &str| meta["labels"][key].as_str();
        let (Some(node), Some(service)) = (label(STATUS_NODE), label(STATUS_SERVICE)) else {
            continue;
        };
        let since: Option<Timestamp> = meta["creationTimestamp"]
            .as_str()
            .and_then(|t| t.parse().ok());
        let old = since.is_some_and(|t| facts.now().duration_since(t) > HANDOVER);
        if old && alive(node) {
            let namespace = label(STATUS_NAMESPACE).unwrap_or_default();
            let key = Key::new(namespace, service);
            announcers.entry(key).or_default().insert(node);
        }
    }
    for (service, nodes) in announcers.into_iter().filter(|(_, n)| n.len() > 1) {
        let nodes: Vec<&str> = nodes.into_iter().collect();
        found.add(
            Severity::Error,
            "announced-twice",
            format!("Service {service}"),
            format!(
                "the speakers of {} have announced it for more than {} s, each taking the others for \
                 dead: clients reach one or the other",
                nodes.join(" and "),
                HANDOVER.as_secs()
            ),
            "see that 7946/tcp and 7946/udp pass between the nodes, and that all speakers are of one \
             version",
        );
    }
}

/// Dark although MetalLB's metric says that it is announced. Ours are steered
/// elsewhere, and said of the node.
fn failed(facts: &Facts<'_>, found: &mut Findings, failure: &InterfaceFailure) {
    let world = facts.world;
    let (service, node) = (&failure.service, &failure.node);
    // Events are dated to the second.
    let announced_since = world
        .announced_since
        .get(service)
        .is_some_and(|t| t.duration_since(failure.at) > SignedDuration::from_secs(1));
    let restarted = match world.speakers.on(node) {
        SpeakerState::Running(speaker) => speaker.started.is_some_and(|s| s > failure.at),
        SpeakerState::Away(_) | SpeakerState::Unknown => false,
    };
    if !world.foreign_services.contains_key(service)
        || !world.nodes.contains_key(node)
        || announced_since
        || restarted
    {
        return;
    }
    found.add(
        Severity::Error,
        "announce-failed",
        format!("Service {service}"),
        format!(
            "node {node} was elected for it and has none of its L2Advertisements' interfaces: nobody \
             announces it, although metallb_speaker_announced says 1"
        ),
        "correct spec.interfaces of the L2Advertisement, or leave the node out by its nodeSelectors",
    );
}

/// l2lb publishes names by itself, and withdraws dead addresses.
fn hostnames(facts: &Facts<'_>, found: &mut Findings) {
    let children = facts.world.children.values().flat_map(|s| s.values());
    for child in children {
        let annotations = child.service.metadata.annotations.iter().flatten();
        for (key, value) in annotations {
            let is_name = key.starts_with("external-dns.")
                && (key.ends_with("/hostname") || key.ends_with("/internal-hostname"));
            if !is_name {
                continue;
            }
            found.add(
                Severity::Warning,
                "hostname-on-child",
                format!("Service {}", child.key),
                format!(
                    "its annotation {key} makes ExternalDNS publish {value} by itself, without regard \
                     to dead or drained nodes and to spec.dns"
                ),
                format!(
                    "kubectl annotate service -n {} {} {key}- ; use spec.dns of the L2LoadBalancer",
                    child.key.namespace, child.key.name
                ),
            );
        }
    }
}

fn cordon(facts: &Facts<'_>, found: &mut Findings) {
    if !facts.world.capabilities.cordon_silences() {
        return;
    }
    let pools = facts.world.pools.iter();
    for (name, pool) in pools.filter_map(|(name, stored)| Some((name, stored.valid()?))) {
        if pool.spec.on_cordon == OnCordon::Ignore {
            found.add(
                Severity::Warning,
                "cordon-not-ignored",
                format!("L2AddressPool {name}"),
                "onCordon is Ignore, and MetalLB 0.14.9 announces nothing from a cordoned node: its \
                 addresses go to standbys all the same",
                "upgrade MetalLB",
            );
        }
    }
}
