//! The guard against a mistaken label: nodes that leave together, at once or
//! one after the other.

#![allow(clippy::unwrap_used, clippy::panic)]

use jiff::SignedDuration;
use l2lb::plan::Planner;
use l2lb::simulate::Cluster;
use l2lb::world::Key;
use proptest::prelude::*;
use serde_json::json;

fn node(n: usize) -> String {
    format!("node-{n}")
}

fn settle(cluster: &mut Cluster, planner: &mut Planner) -> Result<(), TestCaseError> {
    let settled = cluster.settle(planner);
    settled
        .map(|_| ())
        .map_err(|e| TestCaseError::fail(e.to_string()))
}

/// A load balancer on so many nodes, with one slot each.
fn cluster_of(nodes: usize, planner: &mut Planner) -> Result<(Cluster, Key), TestCaseError> {
    let mut cluster = Cluster::new("2026-01-01T00:00:00Z".parse().unwrap());
    cluster.add_pool("edge", &["203.0.113.0/24"]);
    for n in 0..nodes {
        cluster.add_node(&node(n), &[]);
    }
    let key = Key::new("shop", "web");
    cluster.add_load_balancer(&key, "edge", &json!({"retirementPeriod": "1h"}));
    settle(&mut cluster, planner)?;
    Ok((cluster, key))
}

fn retiring(cluster: &Cluster, key: &Key) -> usize {
    let slots = cluster.world.children[key].values();
    slots.filter(|c| c.retire_at.is_some()).count()
}

proptest! {
    #[test]
    fn more_than_half_within_a_minute_are_held(
        nodes in 3usize..8, share in 1usize..8, pause in 0i64..5
    ) {
        let gone = share.min(nodes - 1);
        let mut planner = Planner::default();
        let (mut cluster, key) = cluster_of(nodes, &mut planner)?;
        for n in 0..gone {
            cluster.remove_node(&node(n));
            settle(&mut cluster, &mut planner)?;
            cluster.advance(SignedDuration::from_secs(pause));
        }
        prop_assert_eq!(cluster.world.children[&key].len(), nodes);
        let expected = if gone * 2 > nodes { 0 } else { gone };
        prop_assert_eq!(retiring(&cluster, &key), expected);

        // It holds for as long as nobody says otherwise.
        cluster.advance(SignedDuration::from_hours(2));
        settle(&mut cluster, &mut planner)?;
        let left = if expected == 0 { nodes } else { nodes - gone };
        prop_assert_eq!(cluster.world.children[&key].len(), left);
    }

    #[test]
    fn nodes_that_leave_now_and_then_retire(nodes in 3usize..8) {
        let mut planner = Planner::default();
        let (mut cluster, key) = cluster_of(nodes, &mut planner)?;
        // Half of those that are there at most: more at once are always held.
        for n in 0..nodes - 1 {
            let before = nodes - n;
            cluster.remove_node(&node(n));
            settle(&mut cluster, &mut planner)?;
            prop_assert_eq!(retiring(&cluster, &key), n + 1, "{} of {}", n, before);
            cluster.advance(SignedDuration::from_secs(61));
        }
    }
}
