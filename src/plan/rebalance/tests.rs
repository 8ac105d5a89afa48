use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::{LeftBecause, Rebalance, Scope, rebalance};
use crate::metallb::Capabilities;
use crate::plan::Planner;
use crate::simulate::Cluster;
use crate::world::{Key, Kind, ObjectRef};

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

/// What a pool's condition `Even` says, and whether it is True.
fn even(cluster: &Cluster) -> (bool, String) {
    let pool = cluster.world.pools["edge"].valid().unwrap();
    let conditions = &pool.status.as_ref().unwrap().conditions;
    let found = conditions.iter().find(|c| c.type_ == "Even").unwrap();
    (found.status == "True", found.message.clone())
}

/// Adds load balancers that have one slot each.
fn add_single(cluster: &mut Cluster, planner: &mut Planner, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let key = Key::new("shop", format!("lb-{n}"));
        cluster.add_load_balancer(&key, "edge", &json!({"maxNodes": 1}));
        cluster.settle(planner).unwrap();
    }
}

#[test]
fn what_is_bound_to_its_node_is_named_and_not_promised_to_move() {
    let version = |v| Capabilities::of_version(v).unwrap();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut cluster = Cluster::with_metallb(now, version("0.15.2"));
    let mut planner = Planner::default();
    cluster.add_pool("edge", &["203.0.113.0/24"]);
    cluster.add_node("node-0", &[]);
    add_single(&mut cluster, &mut planner, 0..3);
    cluster.add_node("node-1", &[]);
    cluster.settle(&mut planner).unwrap();
    let (holds, message) = even(&cluster);
    assert!(!holds && message.contains("none can move"), "{message}");
    assert!(!message.contains("rebalance"), "{message}");

    cluster.install_metallb(version("0.16.2"));
    cluster.settle(&mut planner).unwrap();
    let planned = rebalance(&cluster.world, &Scope::Everything);
    assert_eq!(planned.moves, vec![]);
    let left: Vec<(&str, LeftBecause)> = planned
        .left_alone
        .iter()
        .map(|l| (l.service.as_str(), l.why))
        .collect();
    let own = ["lb-0-0", "lb-1-0", "lb-2-0"].map(|service| (service, LeftBecause::OwnPool));
    assert_eq!(left, own);
    let other = rebalance(&cluster.world, &Scope::Pool("other".to_owned()));
    assert_eq!(other.left_alone, vec![]);
    let (holds, message) = even(&cluster);
    assert!(
        !holds && message.contains("3 have MetalLB pools of their own"),
        "{message}"
    );
    assert!(!message.contains("rebalance"), "{message}");

    // Of a mixture the others can move.
    cluster.remove_node("node-1");
    cluster.settle(&mut planner).unwrap();
    add_single(&mut cluster, &mut planner, 3..5);
    cluster.add_node("node-1", &[]);
    cluster.settle(&mut planner).unwrap();
    let (holds, message) = even(&cluster);
    assert!(
        !holds && message.contains("rebalance edge") && message.contains("but for 3 that"),
        "{message}"
    );
    let planned = rebalance(&cluster.world, &Scope::Everything);
    let moved: BTreeSet<&str> = planned.moves.iter().map(|m| m.service.as_str()).collect();
    assert_eq!(moved, BTreeSet::from(["lb-3-0", "lb-4-0"]));
    assert_eq!(planned.left_alone.len(), 3);
    make(&mut cluster, &mut planner, &planned);
    assert!(even(&cluster).0, "{}", even(&cluster).1);
    assert_eq!(rebalance(&cluster.world, &Scope::Everything).moves, vec![]);

    // A Service that is made anew is bound no more.
    cluster.advance(jiff::SignedDuration::from_secs(11));
    cluster.settle(&mut planner).unwrap();
    cluster.world.forget(&ObjectRef {
        kind: Kind::Service,
        key: Key::new("shop", "lb-0-0"),
    });
    cluster.settle(&mut planner).unwrap();
    let planned = rebalance(&cluster.world, &Scope::Everything);
    assert_eq!(planned.left_alone.len(), 2, "{planned:?}");
}

#[test]
fn a_slot_without_another_place_is_not_said_to_be_left_alone() {
    // Each node is home to one already, and one is away.
    let (mut cluster, mut planner) = history(2, &[2, 2]);
    cluster.settle(&mut planner).unwrap();
    cluster.set_node("node-0", false, false);
    cluster.settle(&mut planner).unwrap();
    let planned = rebalance(&cluster.world, &Scope::Everything);
    assert_eq!((planned.moves, planned.left_alone), (vec![], vec![]));
    // With a third node they could move, were they at home.
    cluster.add_node("node-2", &[]);
    cluster.settle(&mut planner).unwrap();
    let planned = rebalance(&cluster.world, &Scope::Everything);
    let away = |l: &super::LeftAlone| l.why == LeftBecause::Away;
    assert_eq!(planned.left_alone.len(), 2, "{planned:?}");
    assert!(planned.left_alone.iter().all(away), "{planned:?}");
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
