//! Advertisements: whom MetalLB announces by them, and which it refuses.

use super::*;

/// An IPAddressPool `other` and advertisements, by kind, name and spec.
fn beside(version: &str, advertisements: &[(&str, &str, Value)]) -> Snapshot {
    let mut snapshot = at_version(version);
    let pool = json!({"addresses": ["198.18.4.0/25", "198.18.4.128/25"]});
    let mut pool = metallb("IPAddressPool", "other", pool);
    pool["metadata"]["labels"] = json!({"team": "blue"});
    snapshot.add(pool).unwrap();
    for (kind, name, spec) in advertisements {
        snapshot.add(metallb(kind, name, spec.clone())).unwrap();
    }
    snapshot
}

fn l2(name: &'static str, mut spec: Value) -> (&'static str, &'static str, Value) {
    spec["ipAddressPools"] = json!(["other"]);
    ("L2Advertisement", name, spec)
}

fn bgp(name: &'static str, mut spec: Value) -> (&'static str, &'static str, Value) {
    spec["ipAddressPools"] = json!(["other"]);
    ("BGPAdvertisement", name, spec)
}

fn label(key: &str, value: &str) -> Value {
    json!([{"matchLabels": {key: value}}])
}

#[test]
fn one_advertisement_with_selectors_is_enough_to_silence_a_shared_address() {
    let found = |version: &str, annotation: Value, advertisements: &[(&str, &str, Value)]| {
        let mut snapshot = beside(version, advertisements);
        let mut service = foreign(annotation, json!({"type": "LoadBalancer"}));
        service["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"] = json!("other");
        service["metadata"]["labels"] = json!({"app": "mail"});
        snapshot.add(service).unwrap();
        of(&snapshot, "shared-address-not-announced")
    };
    let shared = || json!({"metallb.io/allow-shared-ip": "key"});
    let all = l2("all", json!({}));
    let mail = l2("mail", json!({"serviceSelectors": label("app", "mail")}));
    let web = l2("web", json!({"serviceSelectors": label("app", "web")}));
    assert_eq!(found("0.16.2", shared(), &[all.clone(), web.clone()]), []);
    // As MetalLB's own test has it: mixed ones are denied.
    let mixed = [all, mail.clone(), web];
    let said = found("0.16.2", shared(), &mixed);
    assert!(said[0].2.contains("L2Advertisement mail for"), "{said:?}");
    assert_eq!(found("0.16.1", shared(), &mixed), []);
    assert_eq!(found("0.16.2", json!({}), &mixed), []);
    for (key, value) in [("metallb.io", ""), ("metallb.universe.tf", "key")] {
        let annotation = json!({format!("{key}/allow-shared-ip"): value});
        assert_eq!(found("0.16.2", annotation, &mixed).len(), 1, "{key}");
    }
    // What BGP announces is announced.
    let routed = [mail, bgp("routed", json!({}))];
    assert_eq!(found("0.16.2", shared(), &routed), []);
}

#[test]
fn a_shared_address_concerns_load_balancers_of_metallbs_alone() {
    let rule = "shared-address-not-announced";
    for spec in [
        json!({"type": "ClusterIP"}),
        json!({"type": "LoadBalancer", "loadBalancerClass": "example.org/other"}),
    ] {
        let mut snapshot = healthy();
        trap(&mut snapshot, rule);
        assert_eq!(of(&snapshot, rule).len(), 1);
        edit(&mut snapshot, "Service", "old", |s| {
            s["spec"] = spec.clone()
        });
        assert_eq!(of(&snapshot, rule), [], "{spec}");
    }
}

#[test]
fn every_list_of_a_bgp_advertisement_is_read() {
    let found = |version: &str, spec: Value| -> Vec<String> {
        let snapshot = beside(version, &[bgp("routed", spec)]);
        let found = of(&snapshot, "metallb-advertisement-invalid").into_iter();
        found.map(|f| f.2).collect()
    };
    let good = json!({"peers": ["a", "b"], "communities": ["65000:1", "alias"],
        "nodeSelectors": label("role", "edge"), "serviceSelectors": label("a", "b"),
        "aggregationLength": 32, "aggregationLengthV6": 128, "localPref": 100});
    assert_eq!(found("0.16.2", good), Vec::<String>::new());
    let two = |value: Value| json!([value, value]);
    let selector = json!({"matchLabels": {"a": "b"}});
    let odd = json!([{"matchExpressions": [{"key": "a", "operator": "Maybe"}]}]);
    for (field, value, says) in [
        ("peers", two(json!("a")), "spec.peers has a twice"),
        (
            "communities",
            two(json!("1:2")),
            "spec.communities has 1:2 twice",
        ),
        (
            "communities",
            json!(["65536:1"]),
            "65536:1 in spec.communities",
        ),
        (
            "communities",
            json!(["huge:1:2:3"]),
            "huge:1:2:3 in spec.communities",
        ),
        (
            "communities",
            json!(["large:1:2:3"]),
            "native BGP mode does not know",
        ),
        ("asPathPrepend", json!(2), "spec.asPathPrepend is 2"),
        (
            "nodeSelectors",
            two(selector.clone()),
            "spec.nodeSelectors has a selector twice",
        ),
        (
            "nodeSelectors",
            odd.clone(),
            "spec.nodeSelectors: \"Maybe\"",
        ),
        (
            "serviceSelectors",
            two(selector.clone()),
            "spec.serviceSelectors has a selector twice",
        ),
        ("serviceSelectors", odd, "spec.serviceSelectors: \"Maybe\""),
        (
            "aggregationLength",
            json!(33),
            "spec.aggregationLength is 33, and 32 is the most",
        ),
        (
            "aggregationLengthV6",
            json!(129),
            "spec.aggregationLengthV6 is 129",
        ),
    ] {
        for version in ["0.13.12", "0.16.2"] {
            let said = found(version, json!({field: value}));
            assert_eq!(said.len(), 1, "{field}: {said:?}");
            assert!(said[0].contains(says), "{said:?}");
        }
    }
    let both = json!({"serviceSelectors": [selector], "aggregationLength": 25});
    let said = found("0.16.2", both);
    assert!(said[0].contains("beside spec.serviceSelectors"), "{said:?}");
}

#[test]
fn what_native_bgp_refuses_may_be_so_through_frr() {
    let spec = json!({"communities": ["large:1:2:3"], "asPathPrepend": 2});
    let mut snapshot = beside("0.16.2", &[bgp("routed", spec)]);
    assert_eq!(of(&snapshot, "metallb-advertisement-invalid").len(), 1);
    edit(&mut snapshot, "Pod", "", |p| {
        if p["metadata"]["name"] != "controller-0" {
            let env = p["spec"]["containers"][0]["env"].as_array_mut().unwrap();
            env.push(json!({"name": "METALLB_BGP_TYPE", "value": "frr-k8s"}));
        }
    });
    assert_eq!(of(&snapshot, "metallb-advertisement-invalid"), []);
}

#[test]
fn a_prefix_is_that_of_each_entry() {
    let found = |length: i32| {
        let spec = json!({"aggregationLength": length});
        of(
            &beside("0.16.2", &[bgp("short", spec)]),
            "bgp-breaks-metallb",
        )
    };
    assert_eq!(found(25), []);
    // The two halves touch: together they would be a /24.
    let said = found(24);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].2.contains("/25 of 198.18.4.0/25"), "{said:?}");
}

#[test]
fn preferences_conflict_where_a_route_would_have_two() {
    let found = |version: &str, a: Value, b: Value| {
        let snapshot = beside(version, &[bgp("a", a), bgp("b", b)]);
        of(&snapshot, "bgp-advertisements-conflict").len()
    };
    let prefer = |preference: i32, more: Value| {
        let mut spec = json!({"localPref": preference});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec
    };
    let nothing = || json!({});
    assert_eq!(found("0.16.2", nothing(), prefer(0, nothing())), 0);
    let pairs = [
        (nothing(), nothing(), 1),
        (json!({"peers": ["x"]}), json!({"peers": ["y"]}), 0),
        (json!({"peers": ["x"]}), json!({"peers": ["y", "x"]}), 1),
        (json!({"peers": ["x"]}), nothing(), 1),
        (
            json!({"nodeSelectors": label("role", "edge")}),
            json!({"nodeSelectors": label("role", "worker")}),
            0,
        ),
        (
            json!({"nodeSelectors": label("role", "edge")}),
            nothing(),
            1,
        ),
        (json!({"serviceSelectors": label("a", "b")}), nothing(), 0),
    ];
    for (a, b, count) in pairs {
        assert_eq!(
            found("0.16.2", prefer(1, a.clone()), prefer(2, b.clone())),
            count,
            "{a} {b}"
        );
    }
    // The pool has no IPv6 addresses, which counts from 0.15 on alone.
    for (version, count) in [("0.16.2", 0), ("0.15.2", 0), ("0.14.9", 1)] {
        let shorter = prefer(1, json!({"aggregationLength": 26}));
        assert_eq!(
            found(version, shorter, prefer(2, nothing())),
            count,
            "{version}"
        );
    }
    let prepended = json!({"asPathPrepend": 3});
    assert_eq!(found("0.16.2", nothing(), prepended), 1);
}

#[test]
fn an_advertisement_of_no_node_darkens_what_it_alone_is_for() {
    let rule = "advertisement-of-no-node";
    let nowhere = || l2("nowhere", json!({"nodeSelectors": label("role", "typo")}));
    let said = of(&beside("0.16.2", &[nowhere()]), rule);
    assert_eq!(said[0].0, Severity::Error, "{said:?}");
    assert!(said[0].2.contains("IPAddressPool other"), "{said:?}");
    let elsewhere = l2("too", json!({"nodeSelectors": label("role", "nothing")}));
    let all = of(&beside("0.16.2", &[nowhere(), elsewhere]), rule);
    assert!(all.len() == 2 && all[0].0 == Severity::Error, "{all:?}");
    for other in [l2("good", json!({})), bgp("routed", json!({}))] {
        let said = of(&beside("0.16.2", &[nowhere(), other]), rule);
        assert_eq!(said[0].0, Severity::Warning, "{said:?}");
    }
    // One that cannot be read is not said to match nothing.
    let odd = json!([{"matchExpressions": [{"key": "a", "operator": "Maybe"}]}]);
    let odd = l2("odd", json!({"nodeSelectors": odd}));
    assert_eq!(of(&beside("0.16.2", &[odd]), rule), []);
}

#[test]
fn a_node_whose_label_is_not_its_name_is_named() {
    let said = |value: &str, of_label: Option<&str>| {
        let by_name = l2(
            "one",
            json!({"nodeSelectors": label("kubernetes.io/hostname", value)}),
        );
        let mut snapshot = beside("0.16.2", &[by_name]);
        edit(&mut snapshot, "Node", "node-4", |n| {
            let labels = n["metadata"]["labels"].as_object_mut().unwrap();
            match of_label {
                Some(value) => labels.insert("kubernetes.io/hostname".into(), json!(value)),
                None => labels.remove("kubernetes.io/hostname"),
            };
        });
        of(&snapshot, "advertisement-of-no-node")[0].2.clone()
    };
    let hint = "node node-4 has kubernetes.io/hostname: ip-192-0-2-14, not";
    assert!(said("node-4", Some("ip-192-0-2-14")).contains(hint));
    assert!(said("node-4.example.org", Some("ip-192-0-2-14")).contains(hint));
    let without = said("node-4", None);
    assert!(without.contains("node node-4 has no label"), "{without}");
    let other = said("node-44", Some("ip-192-0-2-14"));
    assert!(!other.contains("node-4 has"), "{other}");
}

#[test]
fn our_own_advertisements_are_not_said_to_match_nobody() {
    let mut snapshot = healthy();
    let ours = snapshot.world.l2_advertisements.len();
    assert!(ours > 0);
    for node in ["node-1", "node-2", "node-3"] {
        remove(&mut snapshot, "Node", node);
        snapshot.world.forget(&ObjectRef {
            kind: Kind::Node,
            key: Key::new("", node),
        });
    }
    assert_eq!(of(&snapshot, "advertisement-of-no-node"), []);
}

#[test]
fn selectors_and_names_of_no_pool_are_said_of_both_kinds() {
    let rule = "advertisement-of-no-pool";
    for kind in ["L2Advertisement", "BGPAdvertisement"] {
        let said = |spec: Value| -> Vec<String> {
            let found = of(&beside("0.16.2", &[(kind, "one", spec)]), rule);
            assert!(found.iter().all(|f| f.1 == format!("{kind} one")));
            found.into_iter().map(|f| f.2).collect()
        };
        let red = json!({"matchLabels": {"team": "red"}});
        let blue = json!({"matchLabels": {"team": "blue"}});
        assert!(said(json!({"ipAddressPools": ["nope"]}))[0].contains("IPAddressPool nope"));
        let none = said(json!({"ipAddressPoolSelectors": [red]}));
        assert!(none[0].contains("match no IPAddressPool"), "{none:?}");
        let either = said(json!({"ipAddressPoolSelectors": [red, blue]}));
        assert_eq!(either, Vec::<String>::new());
    }
}

#[test]
fn a_pool_needs_an_advertisement_where_speakers_run() {
    let rule = "pool-without-advertisement";
    assert_eq!(of(&beside("0.16.2", &[]), rule).len(), 1);
    for one in [
        l2("one", json!({})),
        bgp("one", json!({})),
        ("L2Advertisement", "all", json!({})),
    ] {
        assert_eq!(of(&beside("0.16.2", &[one]), rule), []);
    }
    // Others may announce what MetalLB's controller gives out.
    let mut snapshot = beside("0.16.2", &[]);
    remove(&mut snapshot, "Pod", "");
    assert_eq!(of(&snapshot, rule), []);
}
