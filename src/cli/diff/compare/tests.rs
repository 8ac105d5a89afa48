use super::*;
use crate::manifest;
use crate::plan::Planner;
use crate::simulate::{Cluster, event};

const HISTORY: &str = "- join: {node: a, labels: {role: edge}}\n- join: {node: b, labels: {role: edge}}\n\
    - join: {node: c}\n- create: {loadBalancer: shop/web, spec: {nodeSelector: {matchLabels: {role: edge}}}}\n";

fn world() -> World {
    let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
    let mut cluster = Cluster::new(start);
    let mut planner = Planner::default();
    cluster.add_pool("edge", &["203.0.113.0/29"]);
    for event in event::parse(HISTORY).unwrap() {
        cluster.happen(&event).unwrap();
        cluster.settle(&mut planner).unwrap();
    }
    cluster.world
}

/// Objects as they are in the world, changed.
fn diff(kind: &str, change: impl Fn(&mut Value)) -> Diff {
    let world = world();
    let mut value = match kind {
        "L2AddressPool" => json!(**world.pools["edge"].valid().unwrap()),
        "Node" => {
            json!({"apiVersion": "v1", "metadata": {"name": "c", "labels": {"kubernetes.io/hostname": "c"}}})
        }
        _ => json!(
            **world.load_balancers[&Key::new("shop", "web")]
                .valid()
                .unwrap()
        ),
    };
    value["kind"] = json!(kind);
    if kind != "Node" {
        value["apiVersion"] = json!("l2lb.io/v1alpha1");
    }
    change(&mut value);
    let text = manifest::to_yaml([&value]).unwrap();
    Diff::of(&world, manifest::parse("test", &text).unwrap(), "default").unwrap()
}

fn changes(diff: &Diff) -> Vec<(&str, &str)> {
    let rows = diff.addresses.iter();
    rows.map(|r| (r.change.as_str(), r.node.as_str())).collect()
}

#[test]
fn what_is_there_already_is_no_difference() {
    for kind in ["L2LoadBalancer", "L2AddressPool"] {
        let same = diff(kind, |_| {});
        assert!(!same.differs() && same.denied.is_empty(), "{same:#?}");
        assert_eq!(changes(&same), [("unchanged", "a"), ("unchanged", "b")]);
    }
}

#[test]
fn nodes_that_come_add_and_nodes_that_go_free() {
    let wider = diff("L2LoadBalancer", |lb| {
        lb["spec"]["nodeSelector"] = Value::Null
    });
    assert_eq!(
        changes(&wider),
        [("added", "c"), ("unchanged", "a"), ("unchanged", "b")]
    );
    assert_eq!(
        wider.objects,
        ["L2LoadBalancer shop/web: spec.nodeSelector"]
    );
    let labelled = diff("Node", |n| n["metadata"]["labels"]["role"] = json!("edge"));
    assert_eq!(changes(&labelled)[0], ("added", "c"));
    let fewer = diff("L2LoadBalancer", |lb| lb["spec"]["maxNodes"] = json!(1));
    assert_eq!(changes(&fewer)[0].0, "freed");
    assert!(fewer.addresses[0].note.contains("unless"), "{fewer:#?}");
}

#[test]
fn another_port_updates_and_moves_nothing() {
    let ports = diff("L2LoadBalancer", |lb| {
        lb["spec"]["service"]["ports"][0]["port"] = json!(8443)
    });
    assert_eq!(changes(&ports), [("updated", "a"), ("updated", "b")]);
    let silent = diff("L2LoadBalancer", |lb| {
        lb["spec"]["retirementPeriod"] = json!("1h")
    });
    assert!(silent.differs(), "the object differs");
    assert_eq!(changes(&silent), [("unchanged", "a"), ("unchanged", "b")]);
}

#[test]
fn what_admission_denies_is_said_and_left_out() {
    let small = diff("L2AddressPool", |p| {
        p["spec"]["addresses"] = json!(["198.51.100.0/29"])
    });
    assert_eq!(small.denied.len(), 1, "{small:#?}");
    assert!(changes(&small).iter().all(|(c, _)| *c == "unchanged"));
    let grown = diff("L2AddressPool", |p| {
        p["spec"]["addresses"] = json!(["203.0.113.0/28"])
    });
    assert_eq!(
        (
            grown.pools[0].capacity_before.ipv4,
            grown.pools[0].capacity.ipv4
        ),
        (8, 16)
    );
}
