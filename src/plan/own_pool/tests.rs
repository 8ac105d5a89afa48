use super::*;
use crate::plan::{Planner, plan};
use crate::simulate::Cluster;
use crate::world::ObjectRef;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A cluster of three nodes with one load balancer, at rest.
fn cluster(version: &str, addresses: &str) -> (Cluster, Planner, Key) {
    let metallb = crate::metallb::Capabilities::of_version(version).unwrap();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut cluster = Cluster::with_metallb(now, metallb);
    for node in NODES {
        cluster.add_node(node, &[]);
    }
    cluster.add_pool("edge", &[addresses]);
    let key = Key::new("shop", "web");
    cluster.add_load_balancer(&key, "edge", &json!({}));
    let mut planner = Planner::default();
    cluster.settle(&mut planner).unwrap();
    (cluster, planner, key)
}

fn condition(cluster: &Cluster, key: &Key, kind: &str) -> (String, String) {
    let lb = cluster.world.load_balancers[key].valid().unwrap();
    let conditions = &lb.status.as_ref().unwrap().conditions;
    let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
    (found.reason.clone(), found.message.clone())
}

fn named(cluster: &Cluster, key: &Key) -> Vec<(Vec<IpAddr>, String)> {
    let children = cluster.world.children[key].values();
    children
        .map(|c| (c.addresses.clone(), c.address_pool.clone().unwrap()))
        .collect()
}

/// With .100, .101 and .102 the orders are 1-3-2, 2-1-3 and 3-1-2.
#[test]
fn the_pin_and_those_after_it_are_listed() {
    let (cluster, _, key) = cluster("0.15.2", "192.0.2.100-192.0.2.102");
    for child in cluster.world.children[&key].values() {
        let advertisement = &cluster.world.l2_advertisements[child.address_pool.as_ref().unwrap()];
        let spec = &advertisement.valid().unwrap().spec;
        let listed = spec.node_selectors[0].match_expressions.as_ref().unwrap()[0]
            .values
            .clone();
        assert_eq!(listed.unwrap(), NODES);
        assert_eq!(cluster.announcer(&child.key), Some(&*child.home));
    }
    assert_eq!(condition(&cluster, &key, "Pinned").0, "Ok");
}

#[test]
fn a_pool_without_a_choice_leaves_an_address_without_a_standby() {
    // The last in its order gets it: 2-1-3 for .101 and 1-3-2 for .100.
    let (mut cluster, mut planner, key) = cluster("0.15.2", "192.0.2.100-192.0.2.102");
    cluster.delete_load_balancer(&key);
    cluster.settle(&mut planner).unwrap();
    cluster.advance(SignedDuration::from_hours(2));
    let other = Key::new("shop", "other");
    for node in ["node-1", "node-3"] {
        cluster.remove_node(node);
    }
    cluster.add_load_balancer(&other, "edge", &json!({"addresses": ["192.0.2.100"]}));
    cluster.settle(&mut planner).unwrap();
    assert_eq!(
        condition(&cluster, &other, "Pinned").0,
        "Ok",
        "nobody could"
    );
    for node in ["node-1", "node-3"] {
        cluster.add_node(node, &[]);
    }
    cluster.settle(&mut planner).unwrap();
    let (reason, message) = condition(&cluster, &other, "Pinned");
    assert_eq!(reason, "NoStandby");
    assert!(
        message.contains("192.0.2.100") && message.contains("node-2"),
        "{message}"
    );
    // The home is lost: the controller moves the pin.
    cluster.set_node("node-2", false, false);
    cluster.settle(&mut planner).unwrap();
    assert!(cluster.announcer(&Key::new("shop", "other-0")).is_some());
}

#[test]
fn announcers_are_inferred_where_nobody_reports_them() {
    let (mut cluster, mut planner, key) = cluster("0.13.12", "192.0.2.100-192.0.2.140");
    let (reason, message) = condition(&cluster, &key, "Ready");
    assert_eq!(reason, "Ok");
    assert!(message.contains("inferred"), "{message}");
    cluster.set_node("node-1", false, false);
    cluster.settle(&mut planner).unwrap();
    assert_eq!(condition(&cluster, &key, "Ready").0, "Ok");
    assert_eq!(condition(&cluster, &key, "Pinned").0, "FailedOver");
    let planned = &plan(&cluster.world).load_balancers[&key];
    for slot in &planned.slots {
        let service = Key::new("shop", format!("web-{}", slot.number));
        assert_eq!(slot.announced_by.as_deref(), cluster.announcer(&service));
    }
}

#[test]
fn an_upgrade_and_a_downgrade_leave_addresses_where_they_are() {
    let version = |v| crate::metallb::Capabilities::of_version(v).unwrap();
    let (mut cluster, mut planner, key) = cluster("0.14.8", "192.0.2.100-192.0.2.140");
    let old = named(&cluster, &key);
    cluster.install_metallb(version("0.16.2"));
    cluster.add_node("node-4", &[]);
    cluster.settle(&mut planner).unwrap();
    assert_eq!(named(&cluster, &key)[..3], old);
    assert_eq!(named(&cluster, &key)[3].1, "l2lb-edge");
    cluster.install_metallb(version("0.15.2"));
    cluster.add_node("node-5", &[]);
    cluster.settle(&mut planner).unwrap();
    assert_eq!(named(&cluster, &key)[..3], old);
    assert!(names::is_own_pool(&named(&cluster, &key)[4].1));
    let (reason, message) = condition(&cluster, &key, "Pinned");
    assert_eq!(reason, "MetalLBTooOld");
    assert!(
        message.contains("kubectl delete service -n shop web-3"),
        "{message}"
    );
    assert_eq!(cluster.rejected, Vec::<String>::new());
    assert_eq!(cluster.taken, vec![]);

    // The remedy.
    cluster.world.forget(&ObjectRef {
        kind: Kind::Service,
        key: Key::new("shop", "web-3"),
    });
    cluster.settle(&mut planner).unwrap();
    let pool = named(&cluster, &key)[3].1.clone();
    assert!(names::is_own_pool(&pool), "{pool}");
    assert_ne!(condition(&cluster, &key, "Pinned").0, "MetalLBTooOld");
    assert_eq!(cluster.rejected, Vec::<String>::new());

    // The way from an own pool to the shared one, after another upgrade.
    cluster.install_metallb(version("0.16.2"));
    cluster.settle(&mut planner).unwrap();
    let before = named(&cluster, &key)[0].0.clone();
    cluster.world.forget(&ObjectRef {
        kind: Kind::Service,
        key: Key::new("shop", "web-0"),
    });
    cluster.settle(&mut planner).unwrap();
    assert_eq!(named(&cluster, &key)[0], (before, "l2lb-edge".to_owned()));
    assert_eq!(cluster.rejected, Vec::<String>::new());
}

/// The definitions are newer than the controller that runs: without the old
/// prefix it would give a new Service an address of anybody's pool.
#[test]
fn both_prefixes_are_written_while_an_old_controller_runs() {
    let version = |v| crate::metallb::Capabilities::of_version(v).unwrap();
    let (mut cluster, mut planner, key) = cluster("0.14.8", "192.0.2.100-192.0.2.140");
    let everybodys = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "everybodys", "namespace": "metallb-system"},
        "spec": {"addresses": ["198.51.100.0/24"]}});
    cluster.put(Kind::IpAddressPool, everybodys).unwrap();
    cluster.delete_load_balancer(&key);
    cluster.settle(&mut planner).unwrap();
    cluster.install_definitions(version("0.16.2"));
    cluster.add_load_balancer(&key, "edge", &json!({}));
    cluster.settle(&mut planner).unwrap();
    let old_prefix = |cluster: &Cluster| {
        let mut children = cluster.world.children[&key].values();
        children.all(|c| {
            assert_eq!(c.allocated, c.addresses, "{}", c.key);
            let annotations = c.service.metadata.annotations.as_ref().unwrap();
            annotations.contains_key(names::METALLB_OLD_POOL)
        })
    };
    assert!(old_prefix(&cluster));
    // The new controller marks each Service that it sees.
    cluster.running = version("0.16.2");
    cluster.settle(&mut planner).unwrap();
    assert!(!old_prefix(&cluster));
}

#[test]
fn an_advertisement_for_every_pool_is_reported_when_its_node_wins() {
    let (mut cluster, mut planner, key) = cluster("0.15.2", "192.0.2.100-192.0.2.102");
    let blanket = json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
        "metadata": {"name": "all", "namespace": "metallb-system"}, "spec": {}});
    cluster.put(Kind::L2Advertisement, blanket).unwrap();
    cluster.settle(&mut planner).unwrap();
    assert_eq!(
        condition(&cluster, &key, "Pinned").0,
        "Ok",
        "every home is in front"
    );
    // A drained home is in front still.
    cluster.set_node("node-1", true, true);
    cluster.settle(&mut planner).unwrap();
    let (reason, message) = condition(&cluster, &key, "Pinned");
    assert_eq!(reason, "ConflictingAdvertisement");
    assert!(message.contains("L2Advertisement all"), "{message}");
}

/// 0.14.9 announces nothing from a cordoned node, whatever the pool says.
#[test]
fn a_cordon_silences_a_node_of_one_version() {
    let (mut cluster, mut planner, key) = cluster("0.14.9", "192.0.2.100-192.0.2.140");
    let ignoring = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
        "metadata": {"name": "edge"},
        "spec": {"addresses": ["192.0.2.100-192.0.2.140"], "onCordon": "Ignore"}});
    cluster.put(Kind::AddressPool, ignoring).unwrap();
    cluster.settle(&mut planner).unwrap();
    cluster.set_node("node-1", true, true);
    cluster.settle(&mut planner).unwrap();
    assert_eq!(condition(&cluster, &key, "Pinned").0, "Draining");
    assert_eq!(condition(&cluster, &key, "Ready").0, "Ok");
}
