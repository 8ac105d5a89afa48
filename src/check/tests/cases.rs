//! What the rules leave alone, and how they differ by MetalLB's version.

use super::*;

#[test]
fn the_lease_is_found_under_any_name() {
    let mut snapshot = healthy();
    edit(&mut snapshot, "Lease", "", |l| {
        l["metadata"]["name"] = json!("edge-l2lb-controller");
    });
    assert_eq!(check(&snapshot), []);
    // What an earlier release left behind is not held against this one.
    let stale = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": LEASE, "namespace": "old"},
        "spec": {"holderIdentity": "x", "renewTime": "2025-01-01T00:00:00.000000Z"}});
    snapshot.add(stale).unwrap();
    assert_eq!(check(&snapshot), []);
}

#[test]
fn a_missing_lease_is_called_by_its_name() {
    let mut snapshot = healthy();
    remove(&mut snapshot, "Lease", "");
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "edge-l2lb-controller", "namespace": "edge"},
        "spec": {"template": {"spec": {"containers": [
            {"args": ["--listen=:8080", "--lease-name=edge-l2lb-controller"]}]}}}});
    snapshot.add(deployment).unwrap();
    let found = of(&snapshot, "controller-never-ran");
    assert_eq!(found[0].1, "Lease edge/edge-l2lb-controller");
}

#[test]
fn without_memberlist_old_speakers_announce_nothing() {
    for (version, severity) in [
        ("0.16.2", Severity::Warning),
        ("0.15.0", Severity::Warning),
        ("0.14.9", Severity::Error),
    ] {
        let mut snapshot = at_version(version);
        trap(&mut snapshot, "memberlist-off");
        assert_eq!(of(&snapshot, "memberlist-off")[0].0, severity, "{version}");
    }
}

#[test]
fn an_excluded_node_is_missed_only_where_it_was_meant() {
    let rule = "node-excluded";
    let label = crate::api::names::EXCLUDE_NODE;
    let severities = |snapshot: &Snapshot| -> Vec<(String, Severity)> {
        let found = of(snapshot, rule).into_iter();
        found
            .map(|(severity, object, _)| (object, severity))
            .collect()
    };
    let exclude = |snapshot: &mut Snapshot, node: &str| {
        edit(snapshot, "Node", node, |n| {
            n["metadata"]["labels"][label] = json!("")
        });
    };
    // node-4 is selected by nobody.
    let mut snapshot = healthy();
    exclude(&mut snapshot, "node-4");
    assert_eq!(severities(&snapshot), []);
    // Then by a load balancer that selects every node, as a control plane is.
    let plain = load_balancer("plain", json!({"addressPool": "spare"}));
    snapshot.add(plain).unwrap();
    let usual = ("Node node-4".to_owned(), Severity::Info);
    assert_eq!(severities(&snapshot), [usual]);
    // Then by one that means it.
    let mut meant = snapshot.clone();
    let worker =
        json!({"addressPool": "spare", "nodeSelector": {"matchLabels": {"role": "worker"}}});
    meant.add(load_balancer("meant", worker)).unwrap();
    let bad = |node: &str| (format!("Node {node}"), Severity::Warning);
    assert_eq!(severities(&meant), [bad("node-4")]);
    // node-1 is home to addresses, and nobody names it any more.
    let mut pool = json!(**snapshot.world.pools["edge"].valid().unwrap());
    pool["apiVersion"] = json!("l2lb.io/v1alpha1");
    pool["kind"] = json!("L2AddressPool");
    pool["spec"]["nodeSelector"] = json!({});
    snapshot.add(pool).unwrap();
    exclude(&mut snapshot, "node-1");
    let found = severities(&snapshot);
    assert_eq!(found[0], bad("node-1"), "{found:?}");
    assert_eq!(found[1].1, Severity::Info, "{found:?}");
    // All of them: nobody is left.
    exclude(&mut snapshot, "");
    let found = severities(&snapshot);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found.iter().all(|(_, s)| *s == Severity::Warning),
        "{found:?}"
    );
}

#[test]
fn each_blanket_advertisement_is_named() {
    for version in ["0.16.2", "0.15.2"] {
        let mut snapshot = at_version(version);
        for name in ["a", "b"] {
            let object = metallb("L2Advertisement", name, json!({}));
            snapshot.add(object).unwrap();
        }
        let found = of(&snapshot, "advertisement-of-every-pool");
        let names: Vec<&str> = found.iter().map(|f| f.1.as_str()).collect();
        assert_eq!(names, ["L2Advertisement a", "L2Advertisement b"]);
    }
}

#[test]
fn ipv6_beside_bgp_depends_on_mode_and_version() {
    let with = |version: &str, pools: Value| {
        let mut snapshot = at_version(version);
        let six = metallb(
            "IPAddressPool",
            "six",
            json!({"addresses": ["2001:db8:6::/120"]}),
        );
        snapshot.add(six).unwrap();
        let bgp = metallb("BGPAdvertisement", "bgp", json!({"ipAddressPools": pools}));
        snapshot.add(bgp).unwrap();
        snapshot
    };
    let rule = "bgp-matches-ipv6";
    assert_eq!(of(&with("0.16.2", json!(["six"])), rule).len(), 1);
    assert_eq!(of(&with("0.16.2", json!(["other"])), rule), []);
    // Up to 0.14.8 whichever pools it is for; ours have IPv6 addresses too.
    let old = of(&with("0.14.8", json!(["other"])), rule);
    assert!(old.iter().any(|f| f.1 == "IPAddressPool six"), "{old:?}");
    assert!(old.iter().any(|f| f.1.contains("l2lb")), "{old:?}");
    assert!(old[0].2.contains("up to 0.14.8"), "{old:?}");
    let mut frr = with("0.16.2", json!(["six"]));
    let mut go_by_frr = |pod: &str| {
        edit(&mut frr, "Pod", pod, |p| {
            let env = p["spec"]["containers"][0]["env"].as_array_mut().unwrap();
            env.push(json!({"name": "METALLB_BGP_TYPE", "value": "frr-k8s"}));
        });
        of(&frr, rule).len()
    };
    // One that speaks BGP itself is enough.
    let left = ["speaker-1", "speaker-2", "speaker-3", "speaker-4"].map(&mut go_by_frr);
    assert_eq!(left, [1, 1, 1, 0]);
}

#[test]
fn a_set_of_namespaces_restricts_when_it_is_not_empty() {
    let with = |allocation: Value| {
        let mut snapshot = healthy();
        let shop = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {"team": "blue"}}});
        snapshot.add(shop).unwrap();
        let spec = json!({"addresses": ["198.18.5.0/30"], "serviceAllocation": allocation});
        snapshot
            .add(metallb("IPAddressPool", "other", spec))
            .unwrap();
        let advertised = json!({"ipAddressPools": ["other"]});
        snapshot
            .add(metallb("L2Advertisement", "other", advertised))
            .unwrap();
        check(&snapshot)
    };
    let team = |name: &str| json!([{"matchLabels": {"team": name}}]);
    assert_eq!(with(json!({})), []);
    assert_eq!(with(json!({"namespaceSelectors": team("blue")})), []);
    let listed = json!({"namespaces": ["absent"], "namespaceSelectors": team("red")});
    assert_eq!(with(listed), []);
    let found = with(json!({"namespaceSelectors": team("red"), "serviceSelectors": team("x")}));
    assert!(
        found[0]
            .message
            .contains("that its serviceSelectors select")
    );
    let found = with(json!({"namespaces": ["shop", "shop"]}));
    assert_eq!(found[0].rule, "metallb-pool-invalid");
    assert!(
        found[0]
            .message
            .contains("serviceAllocation.namespaces has shop twice")
    );
    let blue = json!({"matchLabels": {"team": "blue"}});
    let found = with(json!({"namespaceSelectors": [blue, blue]}));
    assert!(found[0].message.contains("a selector twice"), "{found:#?}");
}

#[test]
fn metallb_reads_no_single_addresses() {
    let with = |address: &str| {
        let mut snapshot = healthy();
        let spec = json!({"addresses": [address]});
        let pool = metallb("IPAddressPool", "other", spec);
        snapshot.add(pool).unwrap();
        of(&snapshot, "metallb-pool-invalid")
    };
    for good in ["198.18.5.1/32", "198.18.5.1-198.18.5.1", "2001:db8:5::/120"] {
        assert_eq!(with(good), [], "{good}");
    }
    for bad in ["198.18.5.1", "2001:db8:5::1", " 198.18.5.0/30"] {
        let found = with(bad);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].2.contains("neither a CIDR nor a range"),
            "{found:?}"
        );
    }
}

#[test]
fn a_pool_that_overlaps_itself_is_invalid() {
    let mut snapshot = healthy();
    let spec = json!({"addresses": ["198.18.5.0/30", "198.18.5.2-198.18.5.9"]});
    snapshot
        .add(metallb("IPAddressPool", "other", spec))
        .unwrap();
    let found = of(&snapshot, "metallb-pool-invalid");
    assert!(found[0].2.contains("overlap"), "{found:?}");
}

#[test]
fn an_object_elsewhere_counts_for_nothing_else() {
    let mut snapshot = healthy();
    let spec = json!({"addresses": ["203.0.113.10-203.0.113.12"]});
    snapshot
        .add(elsewhere("IPAddressPool", "typo", spec))
        .unwrap();
    let found = check(&snapshot);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].rule, "metallb-object-elsewhere");
}

#[test]
fn two_announcers_are_a_trap_only_for_long_and_alive() {
    let rule = "announced-twice";
    let with = |since: &str, change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = healthy();
        for (name, node) in [("l2-a", "node-1"), ("l2-b", "node-2")] {
            snapshot.add(announces(name, node, since)).unwrap();
        }
        change(&mut snapshot);
        of(&snapshot, rule).len()
    };
    assert_eq!(with("2026-01-01T01:00:00Z", &|_| ()), 1);
    assert_eq!(with("2026-01-01T01:14:30Z", &|_| ()), 0);
    let dies = |s: &mut Snapshot| {
        edit(s, "Node", "node-2", |n| {
            n["status"]["conditions"][0]["status"] = json!("False");
        });
    };
    assert_eq!(with("2026-01-01T01:00:00Z", &dies), 0);
    let old = |s: &mut Snapshot| {
        s.world
            .set_capabilities(Capabilities::of_version("0.15.2").unwrap());
    };
    assert_eq!(with("2026-01-01T01:00:00Z", &old), 0);
}

#[test]
fn a_failure_counts_until_the_speaker_is_started_anew() {
    let rule = "announce-failed";
    let with = |event: Value| {
        let mut snapshot = healthy();
        snapshot.add(foreign(json!({}), json!({}))).unwrap();
        snapshot.add(event).unwrap();
        of(&snapshot, rule).len()
    };
    assert_eq!(with(failure("node-4", "2026-01-01T01:14:00Z")), 1);
    // Before the speaker was started, and of a node that is gone.
    assert_eq!(with(failure("node-4", "2025-12-30T00:00:00Z")), 0);
    assert_eq!(with(failure("node-9", "2026-01-01T01:14:00Z")), 0);
}

#[test]
fn what_strict_arp_is_judged_by_may_be_elsewhere() {
    let mut snapshot = healthy();
    assert_eq!(snapshot.not_looked_at(), []);
    remove(&mut snapshot, "ConfigMap", "");
    let open = snapshot.not_looked_at();
    assert_eq!(open.len(), 1);
    assert!(open[0].1.contains("kube-system/kube-proxy"), "{open:?}");
    // It is said once.
    let forbidden = ("ConfigMap".to_owned(), "forbidden".to_owned());
    snapshot.unread.push(forbidden.clone());
    assert_eq!(snapshot.not_looked_at(), [forbidden]);
}
