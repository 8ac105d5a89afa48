use super::*;
use crate::plan::Planner;

#[test]
fn what_is_printed_can_be_read() {
    let text = "
- pool: {name: edge, spec: {addresses: [203.0.113.0/28]}}
- join: {node: node-1, labels: {role: edge}}
- {join: {node: node-2}}
- create: {loadBalancer: shop/web, spec: {maxNodes: 2}}
- cordon: node-1
- endpoints: {loadBalancer: shop/web, nodes: [node-1]}
- occupy: {service: legacy/web, addresses: [203.0.113.7]}
- occupy: {service: legacy/api, addresses: ['2001:db8::1'], asks: true}
- occupy: {service: legacy/in, addresses: [203.0.113.9], type: ClusterIP}
- vacate: legacy/web
- wait: 1h30m
- delete: shop/web
";
    let events = parse(text).unwrap();
    assert_eq!(events.len(), 12);
    assert_eq!(parse(&print(&events)).unwrap(), events);
    assert_eq!(parse(&print(&[])).unwrap(), []);
}

#[test]
fn what_is_wrong_is_named() {
    for (text, says) in [
        (
            "- wait: soon\n",
            "event 1 (soon pass): \"soon\" is not a duration",
        ),
        (
            "- lose: a\n- delete: web\n",
            "event 2 (web is deleted): \"web\" is not of the form",
        ),
        (
            "- occupy: {service: a/b, addresses: [203.0.113.0/28]}\n",
            "\"203.0.113.0/28\" is not an IP address",
        ),
        (
            "- endpoints: {loadBalancer: web, nodes: []}\n",
            "event 1 (no pod of web is ready): \"web\" is not of the form",
        ),
        ("- explode: node-1\n", "explode"),
        ("lose: a\n", ""),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

fn played(text: &str) -> Cluster {
    let mut cluster = Cluster::new("2026-01-01T00:00:00Z".parse().unwrap());
    let mut planner = Planner::default();
    for event in parse(text).unwrap() {
        cluster.happen(&event).unwrap();
        cluster.settle(&mut planner).unwrap();
    }
    cluster
}

#[test]
fn what_others_have_is_not_given_and_what_they_ask_for_is() {
    let before = "
- pool: {name: edge, spec: {addresses: [203.0.113.8/30]}}
- {join: {node: node-1}}
- {join: {node: node-2}}
- occupy: {service: legacy/web, addresses: [203.0.113.8]}
- occupy: {service: legacy/in, addresses: [203.0.113.9], type: ClusterIP}
- occupy: {service: legacy/api, addresses: [203.0.113.10, 203.0.113.11], asks: true}
- occupy: {service: legacy/any, addresses: [203.0.113.10], asks: true, type: NodePort}
- create: {loadBalancer: shop/web}
";
    let given = |cluster: &Cluster| -> Vec<String> {
        cluster.named().keys().map(ToString::to_string).collect()
    };
    let cluster = played(before);
    assert_eq!(given(&cluster), ["203.0.113.10", "203.0.113.11"]);
    assert_eq!(cluster.trespasses, []);
    // One that is ours is nobody else's, and what is gone is free.
    let after = "
- occupy: {service: shop/web-0, addresses: [203.0.113.10]}
- vacate: shop/web-0
- vacate: legacy/web
- {join: {node: node-3}}
";
    let cluster = played(&format!("{before}{after}"));
    let all = ["203.0.113.8", "203.0.113.10", "203.0.113.11"];
    assert_eq!(given(&cluster), all);
}

#[test]
fn a_pool_that_changes_keeps_its_finalizer() {
    let mut cluster = played("- pool: {name: edge, spec: {addresses: [203.0.113.0/28]}}\n");
    let change = "- pool: {name: edge, spec: {addresses: [203.0.113.0/27]}}\n";
    cluster.happen(&parse(change).unwrap()[0]).unwrap();
    let finalizers = &cluster.world.pools["edge"].metadata().finalizers;
    assert_eq!(finalizers.as_ref().unwrap(), &[names::POOL_FINALIZER]);
}

/// The events of the documentation can be read.
#[test]
fn the_documentation_lists_every_event() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/simulate.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let events = parse(block).unwrap();
    let kinds: std::collections::HashSet<_> = events.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 16);
}
