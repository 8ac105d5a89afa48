//! Promises 2 and 4: who is home to what, and keeps it.

use std::collections::{BTreeMap, BTreeSet};

use l2lb::simulate::Cluster;
use l2lb::world::Key;

/// Whether a load balancer selects a node.
pub fn is_balancer_node(cluster: &Cluster, load_balancer: &Key, node: &str) -> bool {
    let lb = cluster.world.load_balancers.get(load_balancer);
    let node = cluster.world.nodes.get(node);
    let (Some(lb), Some(node)) = (lb.and_then(|lb| lb.valid()), node) else {
        return false;
    };
    let is_edge = node.labels.get("role").map(String::as_str) == Some("edge");
    lb.spec.node_selector.is_none() || is_edge
}

/// Promise 2: each balancer node is home to one slot of each load balancer. The
/// pool is large enough for all of them. What is not so, if anything.
pub fn wrong_homes(cluster: &Cluster) -> Option<String> {
    let pool = |name: &str| cluster.world.pools.contains_key(name);
    let all = cluster.world.load_balancers.iter();
    for (key, lb) in all.filter(|(_, lb)| pool(&lb.valid().unwrap().spec.address_pool)) {
        let nodes = cluster.world.nodes.keys().map(String::as_str);
        let eligible: BTreeSet<&str> = nodes
            .filter(|node| is_balancer_node(cluster, key, node))
            .collect();
        let max_nodes = lb.valid().unwrap().spec.max_nodes;
        let wanted = eligible
            .len()
            .min(max_nodes.map_or(usize::MAX, |m| m as usize));
        let empty = BTreeMap::new();
        let slots = cluster.world.children.get(key).unwrap_or(&empty);
        let homes: Vec<&str> = slots
            .values()
            .filter(|c| c.retire_at.is_none() && eligible.contains(c.home.as_str()))
            .map(|c| c.home.as_str())
            .collect();
        let distinct: BTreeSet<&str> = homes.iter().copied().collect();
        if homes.len() != distinct.len() {
            return Some(format!("{key}: two slots with one home: {homes:?}"));
        }
        if distinct.len() != wanted {
            return Some(format!("{key}: homes {distinct:?} of {eligible:?}"));
        }
    }
    None
}

/// Promise 4: a slot whose home was a balancer node and still is one keeps home
/// and addresses, whatever happened to others, with `maxNodes` as without. Any
/// other slot may retire, or be inherited by a node that joins.
pub fn who_stays_keeps_its_own(before: &Cluster, after: &Cluster) {
    for (owner, slots) in &before.world.children {
        let stays = |home: &str| {
            is_balancer_node(before, owner, home) && is_balancer_node(after, owner, home)
        };
        for was in slots.values() {
            if was.retire_at.is_some() || !stays(&was.home) {
                continue;
            }
            let now = after.world.child(&was.key);
            let now = now.map(|c| (&c.home, &c.addresses, c.retire_at));
            let expected = Some((&was.home, &was.addresses, None));
            assert_eq!(now, expected, "{}", was.key);
        }
    }
}
