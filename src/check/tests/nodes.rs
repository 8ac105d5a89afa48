//! Nodes that do not serve, and where their addresses are meanwhile.

use super::*;

/// Changes of nodes, by their names.
type Changes = [(&'static str, fn(&mut Value))];

/// What is said of the load balancers and of nodes, with some nodes changed.
fn with(version: &str, change: &Changes) -> Snapshot {
    let mut snapshot = at_version(version);
    for (node, change) in change {
        edit(&mut snapshot, "Node", node, change);
    }
    snapshot
}

fn drained(node: &mut Value) {
    node["metadata"]["annotations"] = json!({"l2lb.io/drain": "true"});
}

fn cordoned(node: &mut Value) {
    node["spec"]["unschedulable"] = json!(true);
}

fn dead(node: &mut Value) {
    node["status"]["conditions"][0]["status"] = json!("False");
}

#[test]
fn nodes_that_are_all_cordoned_or_drained_are_no_error() {
    let rule = "no-node-serves";
    let worst = |snapshot: &Snapshot| -> Vec<Severity> {
        let found = of(snapshot, rule).into_iter();
        found.map(|f| f.0).collect()
    };
    let all = with(
        "0.16.2",
        &[
            ("node-1", drained),
            ("node-2", cordoned),
            ("node-3", cordoned),
        ],
    );
    let found = of(&all, rule);
    assert_eq!(worst(&all), [Severity::Warning; 2], "{found:?}");
    assert!(found[0].2.contains("node-1 is Drained"), "{found:?}");
    assert!(found[0].2.contains("no other stands by"), "{found:?}");
    let errors = check(&all);
    let errors = errors.iter().filter(|f| f.severity == Severity::Error);
    assert_eq!(errors.collect::<Vec<_>>(), Vec::<&Finding>::new());
    let one_left = with(
        "0.16.2",
        &[("node-1", dead), ("node-2", dead), ("node-3", cordoned)],
    );
    assert_eq!(worst(&one_left), [Severity::Warning; 2]);
    let none = with(
        "0.16.2",
        &[("node-1", dead), ("node-2", dead), ("node-3", dead)],
    );
    assert_eq!(worst(&none), [Severity::Error; 2]);
    // 0.14.9 announces nothing from a cordoned node.
    let silent: &Changes = &[
        ("node-1", cordoned),
        ("node-2", cordoned),
        ("node-3", cordoned),
    ];
    assert_eq!(worst(&with("0.14.9", silent)), [Severity::Error; 2]);
}

#[test]
fn where_the_addresses_of_a_node_are_is_counted() {
    let said = |snapshot: &Snapshot, node: &str| -> String {
        let found = of(snapshot, "node-drained").into_iter();
        let about = format!("Node {node}");
        found.filter(|f| f.1 == about).map(|f| f.2).collect()
    };
    // web has an address there, api, where it has one, two.
    let all: &Changes = &[
        ("node-1", drained),
        ("node-2", drained),
        ("node-3", drained),
    ];
    let stay = with("0.16.2", all);
    let homes = |node: &str| -> usize {
        let children = stay.world.children.values().flat_map(|s| s.values());
        let at = children.filter(|c| c.home == node);
        at.map(|c| c.addresses.len()).sum()
    };
    for node in ["node-1", "node-2", "node-3"] {
        let expected = match homes(node) {
            1 => "it is drained; the address whose home it is is still there".to_owned(),
            more => format!("it is drained; the {more} addresses whose home it is are still there"),
        };
        assert_eq!(said(&stay, node), expected);
    }
    assert!(["node-1", "node-2", "node-3"].iter().any(|n| homes(n) == 1));
    // Nobody's home.
    let mut idle = with("0.16.2", &[("node-4", drained)]);
    let spare = json!({"addressPool": "spare"});
    idle.add(load_balancer("idle", spare)).unwrap();
    let sentence = said(&idle, "node-4");
    assert_eq!(sentence, "it is drained; it is home to no address");
}
