use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::{Rebalance, Scope, rebalance};
use crate::plan::Planner;
use crate::simulate::Cluster;
use crate::world::{Key, Kind};

/// A cluster in which nodes joined one after the other, between load
/// balancers with maxNodes.
fn history(nodes: usize, limits: &[u32]) -> (Cluster, Planner) {
    let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
    let mut planner = Planner::default();
    cluster.add_pool("edge", &["203.0.113.0/24"]);
    cluster.add_node("node-0", &[("role", "edge")]);
    for (index, limit) in limits.iter().enumerate() {
        let key = Key::new("shop", format!("lb-{index}"));
        cluster.add_load_balancer(&key, "edge", &json!({"maxNodes": limit}));
        if index + 1 < nodes {
            cluster.add_node(&format!("node-{}", index + 1), &[("role", "worker")]);
        }
        cluster.settle(&mut planner).unwrap();
    }
    cluster.advance(SignedDuration::from_mins(1));
    cluster.settle(&mut planner).unwrap();
    (cluster, planner)
}

/// Makes the moves as the command does: the label of the home alone.
fn make(cluster: &mut Cluster, planner: &mut Planner, planned: &Rebalance) {
    for step in &planned.moves {
        let key = Key::new(step.namespace.clone(), step.service.clone());
        let child = cluster.world.child(&key).unwrap();
        let mut service = json!(child.service);
        service["metadata"]["labels"]["l2lb.io/home"] = json!(step.to);
        cluster.put(Kind::Service, service).unwrap();
        cluster.settle(planner).unwrap();
    }
}

fn width(homes: &BTreeMap<String, usize>) -> usize {
    homes.values().max().unwrap_or(&0) - homes.values().min().unwrap_or(&0)
}

#[test]
fn what_is_even_stays() {
    let (cluster, _) = history(1, &[1, 1]);
    assert_eq!(rebalance(&cluster.world, &Scope::Everything).moves, vec![]);
}

#[test]
fn only_what_is_in_scope_moves_and_selectors_hold() {
    let (mut cluster, mut planner) = history(1, &[1, 1, 1, 1]);
    cluster.add_node("node-1", &[]);
    cluster.settle(&mut planner).unwrap();
    let one = Scope::LoadBalancer(Key::new("shop", "lb-2"));
    let planned = rebalance(&cluster.world, &one);
    let moved: Vec<&str> = planned.moves.iter().map(|m| m.service.as_str()).collect();
    assert_eq!(moved, ["lb-2-0"]);
    assert_eq!(
        rebalance(&cluster.world, &Scope::Pool("other".to_owned())).moves,
        vec![]
    );
    assert_eq!(
        rebalance(&cluster.world, &Scope::Pool("edge".to_owned()))
            .moves
            .len(),
        2
    );
    // A node that is about to go gets nothing.
    cluster.set_node("node-1", true, true);
    assert_eq!(rebalance(&cluster.world, &Scope::Everything).moves, vec![]);
    // Those that only node-0 is selected for stay there.
    let selector = json!({"maxNodes": 1, "nodeSelector": {"matchLabels": {"role": "edge"}}});
    for n in 0..4 {
        cluster.add_load_balancer(&Key::new("shop", format!("lb-{n}")), "edge", &selector);
    }
    cluster.set_node("node-1", true, false);
    assert_eq!(rebalance(&cluster.world, &Scope::Everything).moves, vec![]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Homes come out even by the fewest moves, the planner leaves them where
    /// they were put, and no address changes.
    #[test]
    fn homes_are_evened_by_the_fewest_moves(
        nodes in 1usize..6, limits in prop::collection::vec(1u32..4, 1..14)
    ) {
        let (mut cluster, mut planner) = history(nodes, &limits);
        let before = cluster.homes();
        let addresses: BTreeSet<_> = cluster.named().into_iter().collect();
        let planned = rebalance(&cluster.world, &Scope::Everything);
        prop_assert_eq!(&planned.before, &before);
        let total: usize = before.values().sum();
        // As many nodes as there is a rest keep one more.
        let (floor, rest) = (total / before.len(), total % before.len());
        let mut loads: Vec<usize> = before.values().copied().collect();
        loads.sort_unstable_by(|a, b| b.cmp(a));
        let fewest: usize = loads
            .iter()
            .enumerate()
            .map(|(i, load)| load.saturating_sub(floor + usize::from(i < rest)))
            .sum();
        if width(&planned.after) <= 1 {
            prop_assert_eq!(planned.moves.len(), fewest);
        } else {
            // Two slots of one load balancer cannot share a node.
            let most = planned.after.iter().max_by_key(|(_, n)| **n).unwrap().0.clone();
            prop_assert!(limits.iter().any(|l| *l > 1), "{most} could give: {planned:?}");
        }
        make(&mut cluster, &mut planner, &planned);
        cluster.advance(SignedDuration::from_mins(1));
        cluster.settle(&mut planner).unwrap();
        prop_assert_eq!(cluster.homes(), planned.after);
        prop_assert_eq!(cluster.named().into_iter().collect::<BTreeSet<_>>(), addresses);
        for child in cluster.world.children.values().flat_map(|s| s.values()) {
            prop_assert_eq!(cluster.announcer(&child.key), Some(child.home.as_str()));
        }
        prop_assert_eq!(rebalance(&cluster.world, &Scope::Everything).moves, vec![]);
    }
}
