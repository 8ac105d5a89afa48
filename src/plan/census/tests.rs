use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;
use crate::plan::{Planner, plan};
use crate::simulate::Cluster;
use crate::world::{Key, ObjectRef, Refusal};

const LATER: SignedDuration = SignedDuration::from_mins(1);

/// Three nodes, a pool with five addresses of which one is excluded, and one
/// load balancer.
fn cluster() -> (Cluster, Planner) {
    let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
    for node in ["a", "b", "c"] {
        cluster.add_node(node, &[]);
    }
    let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
        "metadata": {"name": "edge"}, "spec": {"addresses": ["203.0.113.10-203.0.113.14"],
            "excludedAddresses": ["203.0.113.12"]}});
    cluster.put(Kind::AddressPool, pool).unwrap();
    cluster.add_load_balancer(&Key::new("shop", "web"), "edge", &json!({}));
    let mut planner = Planner::default();
    settle(&mut cluster, &mut planner);
    (cluster, planner)
}

fn settle(cluster: &mut Cluster, planner: &mut Planner) {
    cluster.settle(planner).unwrap();
    cluster.advance(LATER);
    cluster.settle(planner).unwrap();
}

fn taken(cluster: &Cluster) -> Census {
    census(&cluster.world, &plan(&cluster.world))
}

fn phases(census: &Census) -> Phases {
    census.slots[&("shop".to_owned(), "edge".to_owned())]
}

fn ipv4(census: &Census) -> Shares {
    census.pools["edge"].addresses[&Family::IPv4]
}

#[test]
fn addresses_and_homes_of_a_quiet_cluster() {
    let (cluster, _) = cluster();
    let census = taken(&cluster);
    assert_eq!(
        ipv4(&census),
        Shares {
            free: 1,
            allocated: 3,
            excluded: 1,
            next_node: 1,
            ..Shares::default()
        }
    );
    // It has none of them.
    assert!(!census.pools["edge"].addresses.contains_key(&Family::IPv6));
    assert_eq!(census.pools["edge"].load_balancers, 1);
    assert_eq!(phases(&census), [0, 3, 0, 0, 0]);
    for node in ["a", "b", "c"] {
        let at_home = NodeCensus {
            homes: 1,
            pins: 1,
            announced: 1,
            away: 0,
            able: true,
        };
        assert_eq!(census.nodes[node], at_home);
    }
    let ready = ("Ready".to_owned(), "True".to_owned(), "Ok".to_owned());
    assert_eq!(census.load_balancers[&ready], 1);
    assert_eq!(census.failing, Vec::<[String; 4]>::new());
    assert!(census.refused.values().all(|count| *count == 0));
}

#[test]
fn a_lost_node_is_seen_in_phases_nodes_and_conditions() {
    let (mut cluster, mut planner) = cluster();
    cluster.set_node("b", false, false);
    settle(&mut cluster, &mut planner);
    let census = taken(&cluster);
    assert_eq!(phases(&census), [0, 2, 1, 0, 0]);
    let lost = census.nodes["b"];
    assert_eq!((lost.homes, lost.pins, lost.announced), (1, 0, 0));
    assert_eq!((lost.away, lost.able), (1, false));
    let announced: usize = census.nodes.values().map(|n| n.announced).sum();
    assert_eq!(announced, 3);
    assert_eq!(
        census.failing,
        [["shop", "web", "Pinned", "FailedOver"].map(str::to_owned)]
    );
}

#[test]
fn what_more_nodes_need_is_said_before_and_after_they_come() {
    let (mut cluster, mut planner) = cluster();
    cluster.add_load_balancer(&Key::new("shop", "small"), "edge", &json!({"maxNodes": 1}));
    settle(&mut cluster, &mut planner);
    let before = ipv4(&taken(&cluster));
    // The one with maxNodes would not grow.
    assert_eq!((before.free, before.next_node, before.missing), (0, 1, 0));
    cluster.add_node("d", &[]);
    settle(&mut cluster, &mut planner);
    let after = taken(&cluster);
    assert_eq!(ipv4(&after).missing, 1);
    let exhausted = ["shop", "web", "AddressesAllocated", "AddressesExhausted"];
    assert!(after.failing.contains(&exhausted.map(str::to_owned)));
}

#[test]
fn a_retiring_address_is_neither_free_nor_needed_by_the_next_node() {
    let (mut cluster, mut planner) = cluster();
    cluster.remove_node("c");
    settle(&mut cluster, &mut planner);
    let census = taken(&cluster);
    let shares = ipv4(&census);
    assert_eq!((shares.allocated, shares.retiring), (2, 1));
    assert_eq!((shares.free, shares.next_node), (1, 0));
    assert_eq!(phases(&census), [0, 2, 0, 0, 1]);
    assert!(!census.nodes.contains_key("c"), "{:?}", census.nodes);
}

#[test]
fn nothing_is_left_of_what_is_gone() {
    let (mut cluster, mut planner) = cluster();
    cluster.delete_load_balancer(&Key::new("shop", "web"));
    settle(&mut cluster, &mut planner);
    cluster.delete_pool("edge");
    settle(&mut cluster, &mut planner);
    let census = taken(&cluster);
    let nothing = Census {
        refused: census.refused.clone(),
        ..Census::default()
    };
    assert_eq!(census, nothing);
}

#[test]
fn refusals_are_counted_by_kind() {
    let (mut cluster, _) = cluster();
    let object = ObjectRef {
        kind: Kind::Service,
        key: Key::new("shop", "web-0"),
    };
    let refusal = Refusal {
        message: "exceeded quota".to_owned(),
        retry_at: cluster.world.now,
        attempts: 1,
        content: 0,
        reverted: false,
    };
    cluster.world.refuse(object, refusal);
    let census = taken(&cluster);
    assert_eq!(census.refused[&Kind::Service], 1);
    assert_eq!(census.refused[&Kind::IpAddressPool], 0);
}

#[test]
fn a_pool_of_many_addresses_does_not_overflow() {
    let (mut cluster, mut planner) = cluster();
    cluster.add_pool("wide", &["2001:db8::/32"]);
    settle(&mut cluster, &mut planner);
    let census = taken(&cluster);
    assert_eq!(
        census.pools["wide"].addresses[&Family::IPv6].free,
        1_u128 << 96
    );
}
