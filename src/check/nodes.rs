//! Balancer nodes that cannot announce, and load balancers that hang by one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Findings, Severity};
use crate::api::{SlotPhase, names};
use crate::plan::outlook::NodeState;

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "node-not-ready",
        "a balancer node is not ready, or has no network",
    ),
    (
        "speaker-missing",
        "no MetalLB speaker runs on a balancer node",
    ),
    (
        "interface-missing",
        "a balancer node lacks a pool's interfaces",
    ),
    (
        "node-excluded",
        "a selected node carries the label against load balancers",
    ),
    (
        "node-not-identifiable",
        "a selected node has no label kubernetes.io/hostname of its own",
    ),
    ("node-drained", "a balancer node is cordoned or drained"),
    (
        "node-name-long",
        "a node's name is too long for MetalLB to report what it announces",
    ),
    (
        "no-node-serves",
        "every balancer node of an L2LoadBalancer is in trouble, cordoned or drained",
    ),
    ("no-standby", "an L2LoadBalancer has one balancer node"),
    ("address-dark", "an address has no live announcer"),
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let mut of_node: BTreeMap<String, BTreeMap<&str, NodeState>> = BTreeMap::new();
    let mut missed: BTreeSet<String> = BTreeSet::new();
    for (key, planned) in &facts.plan.load_balancers {
        let candidates = facts.outlook.candidates(key);
        let able: Vec<&(String, NodeState)> = candidates
            .iter()
            .filter(|(_, s)| !matches!(s, NodeState::Excluded | NodeState::NotIdentifiable))
            .collect();
        let about = format!("L2LoadBalancer {key}");
        if !able.is_empty() && able.iter().all(|(_, s)| *s != NodeState::Serving) {
            nobody(facts, found, &about, &able);
        } else if let [(only, _)] = able.as_slice() {
            found.add(
                Severity::Warning,
                "no-standby",
                &about,
                format!("node {only} is its only balancer node: its addresses go dark with it"),
                "select more nodes by the nodeSelector of the pool and of the L2LoadBalancer",
            );
        }
        // Where every node is selected, one that is excluded is not missed: kubeadm
        // labels each control plane so. Unless nobody else is there.
        let is_missed = facts.outlook.names_nodes(key) || able.is_empty();
        for (node, state) in candidates {
            if is_missed {
                missed.insert(node.clone());
            }
            of_node
                .entry(node)
                .or_default()
                .insert(planned.pool.as_deref().unwrap_or_default(), state);
        }
        dark(facts, found, key, planned);
    }
    for (node, states) in &of_node {
        // One of the pools may know more than the others.
        let pools: BTreeSet<&str> = states.keys().copied().collect();
        for state in states.values().copied().collect::<Vec<_>>() {
            say(facts, found, node, state, &pools, missed.contains(node));
        }
        let silent = node.len() > 63 && facts.world.capabilities.l2_status;
        if silent {
            found.add(
                Severity::Warning,
                "node-name-long",
                format!("Node {node}"),
                "its name has more than 63 characters, and MetalLB reports nothing of what it announces",
                "announcedBy stays empty for it; use shorter names for balancer nodes",
            );
        }
    }
}

/// No candidate serves. That is an error where none is able to; one that is but
/// cordoned or drained keeps its addresses while nobody can take them over.
fn nobody(facts: &Facts<'_>, found: &mut Findings, about: &str, able: &[&(String, NodeState)]) {
    let silences = facts.world.capabilities.cordon_silences();
    let is_cordoned = |name: &str| facts.world.nodes.get(name).is_some_and(|n| n.cordoned);
    let is_well = |(name, state): &&&(String, NodeState)| {
        matches!(state, NodeState::Cordoned | NodeState::Drained)
            && !(silences && is_cordoned(name))
    };
    let each: Vec<String> = able
        .iter()
        .map(|(n, s)| format!("{n} is {}", s.as_str()))
        .collect();
    let each = each.join(", ");
    let (severity, message) = match able.iter().filter(is_well).count() {
        0 => (
            Severity::Error,
            format!("none of its balancer nodes serves: {each}"),
        ),
        _ => (
            Severity::Warning,
            format!(
                "none of its balancer nodes serves: {each}; those that are but cordoned or drained \
                 go on announcing, and no other stands by"
            ),
        ),
    };
    found.add(
        severity,
        "no-node-serves",
        about,
        message,
        "repair, uncordon or undrain one (kubectl l2lb undrain NODE)",
    );
}

/// Where the addresses are whose home a node is, as far as MetalLB gave them out.
fn whereabouts(facts: &Facts<'_>, node: &str) -> String {
    let value = names::node_value(node);
    let slots = facts.plan.load_balancers.values().flat_map(|p| &p.slots);
    let (mut away, mut there, mut nowhere) = (0, 0, 0);
    for slot in slots.filter(|s| s.home == value && s.allocated) {
        let count = match slot.announced_by.as_deref().filter(|_| slot.live) {
            None => &mut nowhere,
            Some(by) if by == node => &mut there,
            Some(_) => &mut away,
        };
        *count += slot.addresses.len();
    }
    let total = away + there + nowhere;
    let are = |count: usize, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("is {one}")),
        _ => Some(format!("are {many}")),
    };
    let parts = [
        (away, are(away, "with a standby", "with standbys")),
        (there, are(there, "still there", "still there")),
        (
            nowhere,
            are(nowhere, "announced by nobody", "announced by nobody"),
        ),
    ];
    let parts: Vec<(usize, String)> = parts
        .into_iter()
        .filter_map(|(count, are)| Some((count, are?)))
        .collect();
    match parts.as_slice() {
        [] => "it is home to no address".to_owned(),
        [(1, is)] => format!("the address whose home it is {is}"),
        [(_, are)] => format!("the {total} addresses whose home it is {are}"),
        some => {
            let each = some.iter().map(|(count, are)| format!("{count} {are}"));
            let each: Vec<String> = each.collect();
            format!(
                "of the {total} addresses whose home it is, {}",
                each.join(" and ")
            )
        }
    }
}

/// Addresses that nobody announces although a node serves.
fn dark(
    facts: &Facts<'_>,
    found: &mut Findings,
    key: &crate::world::Key,
    planned: &crate::plan::LoadBalancerPlan,
) {
    for slot in &planned.slots {
        let name = names::service_name(&key.name, slot.number);
        let service = crate::world::Key::new(key.namespace.clone(), name);
        let is_dark = slot.allocated && !slot.live && slot.phase == SlotPhase::Pending;
        if is_dark && facts.world.child(&service).is_some() {
            let addresses: Vec<String> = slot.addresses.iter().map(ToString::to_string).collect();
            found.add(
                Severity::Error,
                "address-dark",
                format!("Service {service}"),
                slot.message.clone().unwrap_or_default(),
                format!("kubectl l2lb why {}", addresses.join("; kubectl l2lb why ")),
            );
        }
    }
}

fn say(
    facts: &Facts<'_>,
    found: &mut Findings,
    node: &str,
    state: NodeState,
    pools: &BTreeSet<&str>,
    is_missed: bool,
) {
    let about = format!("Node {node}");
    let value = names::node_value(node);
    let children = facts.world.children.values().flat_map(|s| s.values());
    let homes = children.filter(|c| c.home == value).count();
    let namespace = &facts.world.options.metallb_namespace;
    let away = whereabouts(facts, node);
    let (severity, rule, message, remedy) = match state {
        NodeState::Serving => return,
        NodeState::NotReady => (
            Severity::Warning,
            "node-not-ready",
            format!("it is not ready; {away}"),
            format!("kubectl describe node {node}"),
        ),
        NodeState::NetworkUnavailable => (
            Severity::Warning,
            "node-not-ready",
            format!("its condition NetworkUnavailable is True; {away}"),
            "look at the network plugin on this node".to_owned(),
        ),
        NodeState::NoSpeaker => (
            Severity::Error,
            "speaker-missing",
            format!("no MetalLB speaker runs on it; {away}"),
            format!(
                "MetalLB's DaemonSet must select the node and tolerate its taints: kubectl get pods \
                 -n {namespace} -o wide"
            ),
        ),
        // Said once, of the speakers.
        NodeState::NoMemberlist => return,
        NodeState::NoInterface => {
            let lacking = pools.iter().find_map(|p| {
                let (nodes, interfaces) = facts.outlook.lacking(p)?;
                nodes.iter().any(|n| n == node).then_some((*p, interfaces))
            });
            let (pool, interfaces) = lacking.unwrap_or(("", Vec::new()));
            (
                Severity::Error,
                "interface-missing",
                format!(
                    "it has no interface {} of L2AddressPool {pool}; {away}",
                    interfaces.join(" or ")
                ),
                "correct spec.interfaces, or leave the node out of the pool's nodeSelector; when it \
                 has the interface, start its speaker anew"
                    .to_owned(),
            )
        }
        NodeState::Excluded => {
            let label = names::EXCLUDE_NODE;
            let command = format!(
                "kubectl label node {node} {label}- ; or run MetalLB's speakers and \
                 l2lb-controller with --ignore-exclude-lb"
            );
            if is_missed || homes > 0 {
                (
                    Severity::Warning,
                    "node-excluded",
                    format!(
                        "it is selected and gets no address, because it is labelled {label} or \
                         being deleted"
                    ),
                    command,
                )
            } else {
                (
                    Severity::Info,
                    "node-excluded",
                    format!(
                        "it gets no address, because it is labelled {label}, as kubeadm labels \
                         control planes, or being deleted"
                    ),
                    format!("nothing, unless it shall announce: {command}"),
                )
            }
        }
        NodeState::NotIdentifiable => (
            Severity::Error,
            "node-not-identifiable",
            format!(
                "it is selected and gets no address, because its label {} is missing or another \
                 node has the same",
                names::HOSTNAME
            ),
            format!(
                "kubectl label node {node} --overwrite {}={node}",
                names::HOSTNAME
            ),
        ),
        NodeState::Cordoned => (
            Severity::Info,
            "node-drained",
            format!("it is cordoned; {away}"),
            format!("kubectl uncordon {node}, when its maintenance is over"),
        ),
        NodeState::Drained => (
            Severity::Info,
            "node-drained",
            format!("it is drained; {away}"),
            format!("kubectl l2lb undrain {node}, when its maintenance is over"),
        ),
    };
    found.add(severity, rule, about, message, remedy);
}
