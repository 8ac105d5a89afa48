use super::*;
use crate::metallb::Capabilities;
use crate::plan::Planner;
use crate::simulate::{Cluster, METALLB, METALLB_VERSIONS, event};

fn after_with(metallb: &str, history: &str) -> World {
    let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
    let metallb = Capabilities::of_version(metallb).unwrap();
    let mut cluster = Cluster::with_metallb(start, metallb);
    let mut planner = Planner::default();
    cluster.add_pool("edge", &["203.0.113.0/24"]);
    for event in event::parse(history).unwrap() {
        cluster.happen(&event).unwrap();
        cluster.settle(&mut planner).unwrap();
    }
    cluster.world
}

fn after(history: &str) -> World {
    after_with(METALLB, history)
}

const TWO: &str = "- join: {node: a}\n- join: {node: b}\n- create: {loadBalancer: shop/web}\n";

#[test]
fn a_node_is_empty_when_pins_and_announcements_have_gone() {
    let before = Leaving::of(&after(TWO), "a");
    assert_eq!((before.going.len(), before.staying.len()), (1, 0));
    let drained = after(&format!("{TWO}- drain: a\n"));
    assert_eq!(Leaving::of(&drained, "a"), Leaving::default());
    let where_to = announcers(&drained, &before.going);
    assert_eq!(where_to, BTreeMap::from([("b".to_owned(), 1)]));
}

#[test]
fn what_nobody_can_take_over_stays() {
    let alone = after("- join: {node: a}\n- create: {loadBalancer: shop/web}\n- drain: a\n");
    let leaving = Leaving::of(&alone, "a");
    assert!(
        leaving.staying[0].1.contains("only balancer node"),
        "{leaving:?}"
    );
    let both = after(&format!("{TWO}- drain: a\n- drain: b\n"));
    let leaving = Leaving::of(&both, "b");
    assert!(leaving.going.is_empty(), "{leaving:?}");
    assert!(
        leaving
            .staying
            .iter()
            .all(|(_, why)| why.contains("a is Drained"))
    );
}

#[test]
fn homes_are_back_when_they_are_announced_there() {
    let count = |homes: &Homes| (homes.away.len(), homes.back.len(), homes.podless.len());
    let drained = after(&format!("{TWO}- drain: a\n"));
    assert_eq!(count(&Homes::of(&drained, "a")), (1, 0, 0));
    let again = after(&format!("{TWO}- drain: a\n- undrain: a\n- wait: 1m\n"));
    assert_eq!(count(&Homes::of(&again, "a")), (0, 1, 0));
    assert_eq!(unfit(&again, "a"), None);
    let cordoned = after(&format!("{TWO}- cordon: a\n"));
    assert!(
        unfit(&cordoned, "a")
            .unwrap()
            .contains("kubectl uncordon a")
    );
}

/// Like [`TWO`], but announced from nodes with a ready pod alone.
const LOCAL: &str = "- join: {node: a}\n- join: {node: b}\n- create: {loadBalancer: shop/web, \
    spec: {service: {externalTrafficPolicy: Local}}}\n";

/// The nodes with a ready pod are these from now on.
fn pods(nodes: &str) -> String {
    format!("- endpoints: {{loadBalancer: shop/web, nodes: [{nodes}]}}\n- wait: 1m\n")
}

#[test]
fn the_only_pod_keeps_addresses_where_it_is() {
    for version in METALLB_VERSIONS {
        let on_a = format!("{LOCAL}{}", pods("a"));
        let drained = format!("{on_a}- drain: a\n- wait: 1m\n");
        for history in [&on_a, &drained] {
            // Its own, and that of b, where b is the pin from 0.16.2 on.
            let leaving = Leaving::of(&after_with(version, history), "a");
            let counts = (leaving.going.len(), leaving.staying.len());
            assert_eq!(counts, (0, 2), "{version}: {leaving:?}");
            let why = "no other balancer node of L2LoadBalancer shop/web has a ready pod";
            assert!(
                leaving.staying.iter().all(|(_, w)| w.starts_with(why)),
                "{version}: {leaving:?}"
            );
        }
        // The pin alone does not make it an announcer.
        let leaving = Leaving::of(&after_with(version, &drained), "b");
        assert_eq!(leaving, Leaving::default(), "{version}");
        // All go as soon as they can.
        let both = after_with(version, &format!("{drained}{}", pods("a, b")));
        let leaving = Leaving::of(&both, "a");
        assert_eq!(leaving, Leaving::default(), "{version}");
    }
}

#[test]
fn addresses_go_where_another_pod_is() {
    let world = after(&format!("{LOCAL}- join: {{node: c}}\n{}", pods("a, b")));
    let by = world.announcers(&Key::new("shop", "web-2")).next().unwrap();
    assert_ne!(by, "c", "it has no pod");
    let leaving = Leaving::of(&world, by);
    let counts = (leaving.going.len(), leaving.staying.len());
    assert_eq!(counts, (2, 0), "{leaving:?}");

    // Unless that node is drained, too.
    let history = format!("{LOCAL}- join: {{node: c}}\n{}- drain: b\n", pods("a, b"));
    let leaving = Leaving::of(&after(&history), "a");
    let own = leaving
        .staying
        .iter()
        .find(|(slot, _)| slot.service.name == "web-0");
    let (_, why) = own.unwrap();
    assert!(
        why.contains("b is Drained") && why.contains("c is Serving without a ready pod"),
        "{why}"
    );
}

#[test]
fn homes_without_a_pod_are_not_waited_for() {
    for version in METALLB_VERSIONS {
        let count = |nodes: &str, home: &str| {
            let world = after_with(version, &format!("{LOCAL}{}", pods(nodes)));
            let homes = Homes::of(&world, home);
            (homes.away.len(), homes.back.len(), homes.podless.len())
        };
        assert_eq!(count("a", "a"), (0, 1, 0), "{version}");
        assert_eq!(count("a", "b"), (0, 0, 1), "{version}");
        assert_eq!(count("a, b", "b"), (0, 1, 0), "{version}");
    }
    let nobody = after(&format!("{LOCAL}{}", pods("")));
    assert_eq!(Homes::of(&nobody, "a").podless.len(), 1);
}
