//! What the planner chooses: homes, addresses and their heirs; and that it does
//! so alike for worlds that are.

use std::collections::BTreeSet;

use l2lb::metallb::Capabilities;
use l2lb::plan::{Planner, plan};
use l2lb::simulate::Cluster;
use l2lb::world::Key;
use proptest::prelude::*;
use serde_json::json;

use crate::events::{bare, node, version};
use crate::settle;

const RANGE: &str = "203.0.113.0-203.0.113.200";
const RANGE6: &str = "2001:db8::/64";

/// A cluster with a pool of 201 IPv4 addresses.
pub fn start(metallb: Capabilities) -> Cluster {
    let mut cluster = bare(metallb);
    cluster.add_pool("edge", &[RANGE, RANGE6]);
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Promise 2 with maxNodes: a new choice takes the nodes with the fewest homes.
    #[test]
    fn new_choices_go_where_homes_are_fewest(
        metallb in 4u8..6, nodes in 2u8..7, limits in prop::collection::vec(1u8..7, 1..12)
    ) {
        let mut cluster = start(version(metallb));
        for n in 0..nodes {
            cluster.add_node(&node(n), &[]);
        }
        let mut planner = Planner::default();
        for (index, limit) in limits.iter().enumerate() {
            let before = cluster.homes();
            let key = Key::new("shop", format!("lb-{index}"));
            cluster.add_load_balancer(&key, "edge", &json!({"maxNodes": limit}));
            settle(&mut cluster, &mut planner)?;
            let chosen: BTreeSet<&str> =
                cluster.world.children[&key].values().map(|c| c.home.as_str()).collect();
            let most = chosen.iter().map(|n| before[*n]).max().unwrap();
            let passed_over = before.iter().filter(|(n, _)| !chosen.contains(n.as_str()));
            for (name, homes) in passed_over {
                prop_assert!(*homes >= most, "{name} has {homes}, chosen were {chosen:?}");
            }
            let homes = cluster.homes();
            let spread = homes.values().max().unwrap() - homes.values().min().unwrap();
            prop_assert!(spread <= 1, "{homes:?}");
        }
    }

    /// Evenness without the controller: when a node dies, MetalLB's own order
    /// spreads its addresses over the survivors.
    #[test]
    fn heirs_are_spread_evenly(metallb in 0u8..6, nodes in 3u8..7, load_balancers in 4u8..30) {
        let mut cluster = start(version(metallb));
        for n in 0..nodes {
            cluster.add_node(&node(n), &[]);
        }
        let mut planner = Planner::default();
        let key = |n: u8| Key::new("shop", format!("many-{n}"));
        for n in 0..load_balancers.min(100 / nodes) {
            cluster.add_load_balancer(&key(n), "edge", &json!({}));
            settle(&mut cluster, &mut planner)?;
        }
        for dead in 0..nodes {
            let mut after = cluster.clone();
            let before = after.announced();
            after.set_node(&node(dead), false, false);
            // No plan is made: only MetalLB acts.
            after.play_metallb();
            let gains: Vec<usize> = after
                .announced()
                .iter()
                .filter(|(n, _)| **n != node(dead))
                .map(|(n, count)| count - before[n])
                .collect();
            let spread = gains.iter().max().unwrap() - gains.iter().min().unwrap();
            prop_assert!(spread <= 2, "{gains:?}");
        }
    }

    /// Equal worlds in any order give equal plans.
    #[test]
    fn the_order_of_observation_does_not_matter(
        order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle()
    ) {
        let mut manifests = vec![json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge"}, "spec": {"addresses": [RANGE, RANGE6]}})];
        for n in 0..6 {
            manifests.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                "name": node(n), "labels": {"kubernetes.io/hostname": node(n)}}}));
        }
        for n in 0..5 {
            manifests.push(json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
                "metadata": {"name": format!("lb-{n}"), "namespace": "shop"},
                "spec": {"addressPool": "edge", "maxNodes": n + 1, "service": {
                    "selector": {"app": "x"}, "ports": [{"port": 80}]}}}));
        }
        let build = |order: &mut dyn Iterator<Item = usize>| {
            let mut world = start(Capabilities::CURRENT).world;
            for index in order {
                let observed = l2lb::world::observe_manifest(manifests[index].clone());
                world.observe(observed.unwrap().unwrap());
            }
            plan(&world).changes
        };
        prop_assert_eq!(build(&mut order.into_iter()), build(&mut (0..12)));
    }
}
