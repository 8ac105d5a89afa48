//! Promise 3: who announces, and who would.

use std::collections::BTreeSet;

use l2lb::simulate::Cluster;
use l2lb::world::{Key, Node};

use crate::slots::is_balancer_node;

/// A live announcer for every address while a candidate is alive.
pub fn somebody_announces(cluster: &Cluster) {
    for (key, slots) in &cluster.world.children {
        if !cluster.world.load_balancers.contains_key(key) {
            continue;
        }
        let alive = has_candidate(cluster, key);
        for child in slots.values().filter(|_| alive) {
            let announcer = cluster.announcer(&child.key);
            assert!(announcer.is_some(), "{} is dark", child.key);
            let node = &cluster.world.nodes[announcer.unwrap()];
            assert!(node.ready, "{} is announced by a dead node", child.key);
        }
    }
}

/// Whether a node is alive that can announce, as MetalLB sees it.
fn has_candidate(cluster: &Cluster, load_balancer: &Key) -> bool {
    let mut nodes = cluster.world.nodes.values();
    nodes.any(|node| is_candidate(cluster, load_balancer, node))
}

fn is_candidate(cluster: &Cluster, load_balancer: &Key, node: &Node) -> bool {
    let silenced = node.cordoned && cluster.running.cordon_silences();
    let selected = is_balancer_node(cluster, load_balancer, &node.name);
    let pods = pods(cluster, load_balancer);
    let has_pod = pods.is_none_or(|nodes| nodes.contains(&node.name));
    node.ready && selected && !silenced && has_pod
}

/// The nodes with a pod, where it matters and is known.
fn pods<'a>(cluster: &'a Cluster, load_balancer: &Key) -> Option<&'a BTreeSet<String>> {
    let lb = cluster.world.load_balancers.get(load_balancer)?;
    let is_local = lb.valid().unwrap().spec.service.is_local();
    cluster.pods.get(load_balancer).filter(|_| is_local)
}

/// Whichever node dies, and nobody steers, another one that is alive takes over,
/// or `Pinned` has said that none would.
pub fn standbys_stand_by(cluster: &Cluster) {
    // While definitions and speakers differ, nobody can know what they do.
    if cluster.running != cluster.world.capabilities {
        return;
    }
    for dead in cluster.world.nodes.keys() {
        let mut after = cluster.clone();
        after.set_node(dead, false, false);
        after.play_metallb();
        for (key, slots) in &after.world.children {
            let Some(lb) = after.world.load_balancers.get(key) else {
                continue;
            };
            if !has_candidate(&after, key) {
                continue;
            }
            let status = lb.valid().unwrap().status.as_ref().unwrap();
            let mut conditions = status.conditions.iter();
            let pinned = conditions.find(|c| c.type_ == "Pinned").unwrap();
            for child in slots.values().filter(|c| after.announcer(&c.key).is_none()) {
                let pods_decide = pods(&after, key).is_some();
                let (key, reason) = (&child.key, &pinned.reason);
                // A mistake in labels is said first, and where the pods are.
                let said = reason == "NoStandby"
                    || reason == "RetirementHeld"
                    || pods_decide && reason == "NoLocalEndpoint";
                assert!(said, "{key} is dark without {dead}: {pinned:?}");
            }
        }
    }
}
