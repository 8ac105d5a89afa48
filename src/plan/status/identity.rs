//! Nodes that MetalLB cannot prefer, because it knows a node by its label
//! `kubernetes.io/hostname` alone.

use std::collections::{BTreeMap, BTreeSet};

use super::list;
use crate::api::names;
use crate::plan::environment::{CandidateSet, Environment};
use crate::plan::load_balancer::{Served, Slots};

/// The nodes that are selected and cannot be told apart, with the remedy.
pub(super) fn doubtful(environment: &Environment, set: &CandidateSet) -> Option<String> {
    sentence(environment, set.unidentifiable.iter())
}

/// Those of them that would get a slot and have none.
pub(super) fn left_out(
    environment: &Environment,
    served: &Served,
    slots: &Slots,
) -> Option<String> {
    let limit = served.object.spec.max_nodes;
    if limit.is_some_and(|most| slots.wanted >= most as usize) {
        return None;
    }
    let has_slot = |node: &str| {
        let value = names::node_value(node);
        slots.slots.iter().any(|s| s.home == value)
    };
    let all = served.set.unidentifiable.iter();
    sentence(environment, all.filter(|(node, _)| !has_slot(node)))
}

fn sentence<'a>(
    environment: &Environment,
    nodes: impl Iterator<Item = &'a (String, Option<String>)>,
) -> Option<String> {
    let mut without: BTreeSet<&str> = BTreeSet::new();
    let mut twins: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (node, hostname) in nodes {
        match hostname {
            None => drop(without.insert(node)),
            Some(hostname) => drop(twins.entry(hostname).or_default().insert(node)),
        }
    }
    // The other one may be selected by nobody, or keep the slot that it has.
    for node in &environment.nodes {
        let hostname = node.hostname.as_deref().unwrap_or_default();
        if let Some(twins) = twins.get_mut(hostname) {
            twins.insert(&node.name);
        }
    }
    let label = names::HOSTNAME;
    let mut sentences = Vec::new();
    if let Some(first) = without.first() {
        let (nodes, have, them) = match without.len() {
            1 => ("node", "has", "it"),
            _ => ("nodes", "have", "them"),
        };
        let named: Vec<&str> = without.iter().copied().collect();
        sentences.push(format!(
            "{nodes} {} {have} no label {label}, by which MetalLB could prefer {them}: kubectl \
             label node {first} {label}={first}",
            list(&named)
        ));
    }
    for (hostname, nodes) in &twins {
        let named: Vec<&str> = nodes.iter().copied().collect();
        sentences.push(format!(
            "nodes {} have the same label {label}={hostname}, so that MetalLB cannot prefer one \
             of them: give each its own",
            list(&named)
        ));
    }
    (!sentences.is_empty()).then(|| sentences.join("; "))
}
