use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{FamilyCount, L2LoadBalancerStatus};
use crate::plan::{Planner, plan};
use crate::simulate::Cluster;
use crate::world::{Key, Kind, ObjectRef, Refusal};

fn web() -> Key {
    Key::new("shop", "web")
}

/// Nodes of these names, and a pool of ten addresses.
fn cluster(nodes: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
    for node in nodes {
        cluster.add_node(node, &[]);
    }
    cluster.add_pool("edge", &["203.0.113.10-203.0.113.19"]);
    cluster
}

fn node(cluster: &mut Cluster, name: &str, labels: &Value, addresses: &Value) {
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": addresses}});
    cluster.put(Kind::Node, node).unwrap();
}

fn settle(cluster: &mut Cluster) {
    cluster.settle(&mut Planner::default()).unwrap();
}

fn status(cluster: &Cluster) -> L2LoadBalancerStatus {
    plan(&cluster.world).load_balancers[&web()].status.clone()
}

fn condition(cluster: &Cluster, kind: &str) -> (String, String) {
    let conditions = status(cluster).conditions;
    let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
    (found.reason.clone(), found.message.clone())
}

#[test]
fn the_numbers_of_an_exhausted_pool_add_up() {
    let mut cluster = cluster(&["a", "b", "c", "d", "e", "f", "g"]);
    let hostname = json!({"kubernetes.io/hostname": "h"});
    let address = json!([{"type": "InternalIP", "address": "203.0.113.10"}]);
    node(&mut cluster, "h", &hostname, &address);
    cluster.add_load_balancer(
        &Key::new("shop", "other"),
        "edge",
        &json!({"addresses": ["203.0.113.17", "203.0.113.18", "203.0.113.19"],
            "nodeSelector": {"matchLabels": {"role": "none"}}}),
    );
    cluster.add_load_balancer(&web(), "edge", &json!({}));
    settle(&mut cluster);

    let (reason, message) = condition(&cluster, "AddressesAllocated");
    assert_eq!(reason, "AddressesExhausted");
    assert!(
        message.contains(
            "no free IPv4 address (10 in all, 6 in use, 3 reserved for other load balancers, \
             1 of nodes): shop/web needs 2 more, for nodes"
        ),
        "{message}"
    );
    let pool = plan(&cluster.world).pools["edge"].status.clone();
    let ipv4 = |ipv4| FamilyCount { ipv4, ipv6: 0 };
    assert_eq!(pool.capacity, ipv4(10));
    assert_eq!(pool.allocated, ipv4(6));
    assert_eq!(pool.reserved, ipv4(4));
    assert_eq!(pool.free, ipv4(0));
}

#[test]
fn what_a_load_balancer_reserves_and_has_is_in_use() {
    let mut cluster = cluster(&["a", "b"]);
    let reserves = json!({"addresses": ["203.0.113.17", "203.0.113.18", "203.0.113.19"]});
    cluster.add_load_balancer(&web(), "edge", &reserves);
    // The same before and after its Services exist.
    for _ in 0..2 {
        let pool = plan(&cluster.world).pools["edge"].status.clone();
        assert_eq!(
            (pool.allocated.ipv4, pool.reserved.ipv4, pool.free.ipv4),
            (2, 1, 7)
        );
        settle(&mut cluster);
    }
}

#[test]
fn nodes_that_get_no_address_are_all_named() {
    let mut cluster = cluster(&["a"]);
    let twin = json!({"kubernetes.io/hostname": "same", "role": "edge"});
    let stranger = json!({"kubernetes.io/hostname": "same"});
    let edge = json!({"role": "edge"});
    cluster.add_node("a", &[("role", "edge")]);
    node(&mut cluster, "b", &edge, &json!([]));
    node(&mut cluster, "c", &edge, &json!([]));
    node(&mut cluster, "d", &twin, &json!([]));
    node(&mut cluster, "e", &stranger, &json!([]));
    let selector = json!({"nodeSelector": {"matchLabels": edge}});
    cluster.add_load_balancer(&web(), "edge", &selector);
    settle(&mut cluster);
    for kind in ["AddressesAllocated", "Pinned"] {
        let (reason, message) = condition(&cluster, kind);
        assert_eq!(reason, "NodeNotIdentifiable");
        assert_eq!(
            message,
            "nodes b, c have no label kubernetes.io/hostname, by which MetalLB could prefer them: \
             kubectl label node b kubernetes.io/hostname=b; nodes d, e have the same label \
             kubernetes.io/hostname=same, so that MetalLB cannot prefer one of them: give each \
             its own"
        );
    }
    assert_eq!(condition(&cluster, "Ready").0, "Ok");

    // Who asks for one node has one.
    let one = json!({"nodeSelector": {"matchLabels": edge}, "maxNodes": 1});
    cluster.add_load_balancer(&web(), "edge", &one);
    settle(&mut cluster);
    assert_eq!(condition(&cluster, "AddressesAllocated").0, "Ok");
}

#[test]
fn nothing_is_dark_that_has_no_address() {
    let mut empty = cluster(&[]);
    empty.add_load_balancer(&web(), "edge", &json!({}));
    settle(&mut empty);
    assert_eq!(condition(&empty, "Ready").0, "NoNodes");

    // Services exist, and MetalLB has given them nothing yet.
    let mut young = cluster(&["a", "b"]);
    young.add_load_balancer(&web(), "edge", &json!({}));
    for change in plan(&young.world).changes {
        young.apply(&change);
    }
    let (reason, message) = condition(&young, "Ready");
    assert_eq!(reason, "Pending");
    assert!(
        message.starts_with("2 of 2 slots have no live announcer"),
        "{message}"
    );
    settle(&mut young);
    assert_eq!(condition(&young, "Ready").0, "Ok");

    young.set_node("a", false, false);
    young.set_node("b", false, false);
    assert_eq!(condition(&young, "Ready").0, "NotAnnounced");
}

#[test]
fn a_service_that_is_refused_is_not_dark() {
    let mut cluster = cluster(&["a", "b"]);
    cluster.add_load_balancer(&web(), "edge", &json!({}));
    let service = ObjectRef {
        kind: Kind::Service,
        key: Key::new("shop", "web-1"),
    };
    let refusal = Refusal {
        message: "exceeded quota".to_owned(),
        retry_at: cluster.world.now,
        attempts: 1,
        content: 0,
        reverted: false,
    };
    cluster.world.refuse(service, refusal);
    let (reason, message) = condition(&cluster, "Ready");
    assert_eq!(reason, "Refused");
    assert!(message.contains("exceeded quota"), "{message}");
}
