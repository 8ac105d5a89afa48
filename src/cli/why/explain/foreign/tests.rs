use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::metallb::Capabilities;
use crate::world::{Options, observe_manifest};

const ADDRESS: &str = "198.51.100.7";

fn service(name: &str, more: Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "other", "labels": {"tier": "front"}},
        "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}});
    for (path, value) in more.as_object().unwrap() {
        let (parent, field) = path.rsplit_once('/').unwrap();
        service.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    service
}

/// Three nodes, of which the advertisements list two and prefer b, and Services.
fn explained(services: &[Value], endpoints: Endpoints, announcer: Option<&str>) -> Explanation {
    let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
    let mut world = World::new(now, Options::default(), Capabilities::CURRENT);
    let mut observe = |value: Value| world.observe(observe_manifest(value).unwrap().unwrap());
    for node in ["a", "b", "c"] {
        observe(json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    }
    let metallb = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "metallb.io/v1beta1", "kind": kind,
            "metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec})
    };
    let at = |node: &str| json!({"matchLabels": {"kubernetes.io/hostname": node}});
    let spec = json!({"addresses": ["198.51.100.0/28"]});
    observe(metallb("IPAddressPool", "office", spec));
    let spec = json!({"ipAddressPools": ["office"], "nodeSelectors": [at("a"), at("b")]});
    observe(metallb("L2Advertisement", "listed", spec));
    let spec = json!({"ipAddressPools": ["office"], "nodeSelectors": [at("b")],
        "serviceSelectors": [{"matchLabels": {"tier": "front"}}],
        "preferredNodeSelectors": [{"weight": 30, "preference": at("b")}]});
    observe(metallb("L2Advertisement", "preferred", spec));
    if let Some(node) = announcer {
        let mut status = metallb("ServiceL2Status", "l2-x", json!({}));
        status["metadata"]["labels"] = json!({"metallb.io/node": node,
            "metallb.io/service-name": "mail", "metallb.io/service-namespace": "other"});
        observe(status);
    }
    let mut known = Known {
        endpoints,
        foreign: Vec::new(),
    };
    for value in services {
        observe(value.clone());
        known
            .foreign
            .push(serde_json::from_value(value.clone()).unwrap());
    }
    Explanation::of(&world, ADDRESS.parse().unwrap(), &known)
}

fn pods(nodes: &[&str]) -> Endpoints {
    Some(
        nodes
            .iter()
            .map(|n| (*n).to_owned())
            .collect::<BTreeSet<_>>(),
    )
}

#[test]
fn metallb_elects_by_its_own_advertisements() {
    let mail = service("mail", json!({}));
    let all = explained(&[mail], pods(&["c"]), Some("b"));
    assert!(all.agrees, "{all:?}");
    assert_eq!(all.should_announce.as_deref(), Some("b"));
    let found = all.service.as_ref().unwrap();
    assert_eq!(found.ip_address_pool.as_deref(), Some("office"));
    let first = &all.candidates[0];
    assert_eq!(first.advertisements, ["listed", "preferred"]);
    assert_eq!((first.weight, first.weights["preferred"]), (30, 30));
    assert!(!first.weights.contains_key("listed"));
    assert!(first.hash.len() == 64 && first.hash != all.candidates[1].hash);
    assert_eq!(first.why, "may announce");
    assert_eq!(
        (all.candidates[2].node.as_str(), all.candidates[2].place),
        ("c", None)
    );
}

/// The weights that are shown for each advertisement are those of the election.
#[test]
fn weights_add_up() {
    let mail = service("mail", json!({}));
    for candidate in explained(&[mail], None, None).candidates {
        let sum: i64 = candidate.weights.values().sum();
        assert_eq!(candidate.weight, sum, "{candidate:?}");
    }
}

#[test]
fn under_local_only_nodes_with_pods_take_part() {
    let local = json!({"/spec/externalTrafficPolicy": "Local"});
    let mail = [service("mail", local)];
    let all = explained(&mail, pods(&["a"]), Some("a"));
    assert_eq!(all.should_announce.as_deref(), Some("a"), "{all:?}");
    assert!(all.agrees && all.notes.is_empty(), "{all:?}");
    // Where that is not known it is said.
    let all = explained(&mail, None, Some("b"));
    assert_eq!(all.should_announce.as_deref(), Some("b"));
    assert!(all.notes[0].contains("EndpointSlices"), "{all:?}");
    // Nobody has one.
    let all = explained(&mail, pods(&[]), None);
    assert!(all.remedies[0].contains("no pod of the Service serves"));
}

#[test]
fn who_should_and_who_does_are_compared() {
    let mail = [service("mail", json!({}))];
    let all = explained(&mail, None, Some("a"));
    assert!(
        all.remedies[0].contains("a announces it and b should"),
        "{all:?}"
    );
    let all = explained(&mail, None, None);
    assert!(all.remedies[0].contains("nobody says that it announces it"));
}

#[test]
fn services_may_share_an_address() {
    let shares =
        json!({"/metadata/annotations": {names::METALLB_SHARED[0]: "key"}, "/metadata/labels": {}});
    let two = [service("mail", shares.clone()), service("web", shares)];
    let all = explained(&two, None, None);
    assert!(all.notes[0].contains("share this address"), "{all:?}");
    assert!(!all.remedies.iter().any(|r| r.contains("take it out")));
    // Not by an advertisement that selects Services.
    let shares = json!({"/metadata/annotations": {names::METALLB_SHARED[0]: "key"}});
    let all = explained(&[service("mail", shares)], None, None);
    assert_eq!(all.should_announce, None);
    assert!(all.candidates.iter().all(|c| c.place.is_none()), "{all:?}");
    assert!(all.remedies[0].contains("(preferred)"), "{all:?}");
}

#[test]
fn without_the_address_there_is_no_election() {
    let asks = json!({"/status": {}, "/spec/loadBalancerIP": ADDRESS});
    let all = explained(&[service("mail", asks)], None, None);
    assert!(
        all.service.is_none() && all.candidates.is_empty(),
        "{all:?}"
    );
    assert!(all.notes[0].contains("has not got it"), "{all:?}");
    let elsewhere = json!([{"ip": ADDRESS}, {"ip": "192.0.2.1"}]);
    let elsewhere = json!({"/status/loadBalancer/ingress": elsewhere});
    let all = explained(&[service("mail", elsewhere)], None, None);
    assert!(all.notes[0].contains("no IPAddressPool"), "{all:?}");
    let class = json!({"/spec/loadBalancerClass": "x.org/lb"});
    let all = explained(&[service("mail", class)], None, Some("b"));
    assert!(all.notes[0].contains("--lb-class=x.org/lb"), "{all:?}");
}
