//! What is shown where little may be read.

use super::*;
use crate::metallb::Capabilities;
use crate::plan::Planner;
use crate::simulate::{Cluster, event};

/// Two load balancers on two nodes, one of which is drained.
fn world() -> World {
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    let mut cluster = Cluster::new(start);
    let mut planner = Planner::default();
    cluster.add_pool("edge", &["203.0.113.0/28"]);
    let history = "- join: {node: a}\n- join: {node: b}\n- create: {loadBalancer: shop/web}\n\
                   - create: {loadBalancer: other/web}\n- drain: a\n";
    for event in event::parse(history).unwrap() {
        cluster.happen(&event).unwrap();
        cluster.settle(&mut planner).unwrap();
    }
    cluster.world
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
