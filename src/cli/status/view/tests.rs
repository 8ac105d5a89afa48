//! What is shown where little may be read.

use super::*;
use crate::metallb::Capabilities;
use crate::plan::Planner;
use crate::simulate::{Cluster, event};

fn after(history: &str) -> World {
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    let mut cluster = Cluster::new(start);
    let mut planner = Planner::default();
    cluster.add_pool("edge", &["203.0.113.0/28"]);
    for event in event::parse(history).unwrap() {
        cluster.happen(&event).unwrap();
        cluster.settle(&mut planner).unwrap();
    }
    cluster.world
}

/// Two load balancers on two nodes, one of which is drained.
fn world() -> World {
    after(
        "- join: {node: a}\n- join: {node: b}\n- create: {loadBalancer: shop/web}\n\
         - create: {loadBalancer: other/web}\n- drain: a\n",
    )
}

#[test]
fn reports_show_the_same_slots() {
    let world = world();
    let scope = Scope {
        namespace: Some("shop".to_owned()),
        name: None,
    };
    let all = View::of(&world, &scope);
    let mut bare = World::new(world.now, world.options.clone(), Capabilities::default());
    bare.load_balancers = world.load_balancers.clone();
    let unread = ["Node", "Service"].map(|kind| Unread {
        what: kind.to_owned(),
        why: "forbidden".to_owned(),
    });
    let reported = View::reported(&bare, &scope, unread.to_vec());
    assert_eq!(reported.load_balancers.len(), 1);
    let slots = |view: &View| {
        let slots = view.load_balancers.iter().flat_map(|lb| &lb.slots);
        slots
            .map(|s| {
                let (by, addresses) = (s.announced_by.clone(), s.addresses.clone());
                (s.service.clone(), s.home.clone(), by, addresses, s.phase)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(slots(&reported), slots(&all));
    assert_eq!(slots(&reported)[0].2, ["b"], "a is drained");
    assert!(reported.pools.is_empty() && reported.nodes.is_empty());
    let look = super::super::tables::Look {
        wide: false,
        colour: false,
        now: world.now,
    };
    let text = super::super::tables::text(&reported, look);
    assert!(
        text.contains("not looked at, as you may not read it: Node, Service"),
        "{text}"
    );
    assert!(!super::super::tables::text(&all, look).contains("not looked at"));
    let json = serde_json::json!(reported);
    assert_eq!(json["notLookedAt"][0]["what"], "Node");
    assert!(serde_json::json!(all).get("notLookedAt").is_none());
}

/// With the policy Local the slot of c is with a or b, and only they take over.
#[test]
fn only_nodes_with_a_pod_inherit() {
    let beginning = "- join: {node: a}\n- join: {node: b}\n- join: {node: c}\n\
        - create: {loadBalancer: shop/web, spec: {service: {externalTrafficPolicy: Local}}}\n";
    let view = |nodes: &str| {
        let pods = format!("- endpoints: {{loadBalancer: shop/web, nodes: [{nodes}]}}\n");
        let world = after(&format!("{beginning}{pods}- wait: 1m\n"));
        View::of(&world, &Scope::default())
    };
    let two = view("a, b");
    let slots = &two.load_balancers[0].slots;
    assert_eq!(slots.len(), 3);
    for slot in slots {
        let other = if slot.announced_by == ["a"] { "b" } else { "a" };
        assert_eq!(slot.heir.as_deref(), Some(other), "{slot:?}");
    }
    let inherits = |name: &str| {
        let node = two.nodes.iter().find(|n| n.name == name).unwrap();
        (node.inherits, node.inherits_from.keys().cloned().collect())
    };
    let from = |name: &str| vec![name.to_owned()];
    let (a, b): ((usize, Vec<String>), (usize, Vec<String>)) = (inherits("a"), inherits("b"));
    assert_eq!((a.0 + b.0, a.1, b.1), (3, from("b"), from("a")));
    assert_eq!(inherits("c"), (0, Vec::new()));

    let one = view("a");
    let mut slots = one.load_balancers[0].slots.iter();
    assert!(slots.all(|s| s.announced_by == ["a"] && s.heir.is_none()));
}
