//! What Services ask for, alerts about their pools, and what the controller has
//! not judged yet.

use super::*;

#[test]
fn one_address_is_too_few_for_two_families() {
    let rule = "prefer-dual-stack";
    let dual = json!(["10.96.0.9", "fd00::9"]);
    let found = |annotations: Value, mut spec: Value| {
        spec["ipFamilyPolicy"] = json!("PreferDualStack");
        let mut snapshot = healthy();
        snapshot.add(foreign(annotations, spec)).unwrap();
        of(&snapshot, rule).len()
    };
    let annotated = || json!({"metallb.io/loadBalancerIPs": "198.18.9.9"});
    assert_eq!(found(annotated(), json!({"clusterIPs": dual})), 1);
    assert_eq!(
        found(
            json!({}),
            json!({"clusterIPs": dual, "loadBalancerIP": "198.18.9.9"})
        ),
        1
    );
    assert_eq!(
        found(annotated(), json!({"ipFamilies": ["IPv4", "IPv6"]})),
        1
    );
    // On a cluster of one family it is as SingleStack.
    assert_eq!(found(annotated(), json!({"clusterIPs": ["10.96.0.9"]})), 0);
    assert_eq!(found(annotated(), json!({"ipFamilies": ["IPv4"]})), 0);
    assert_eq!(found(annotated(), json!({})), 0);
    let both = json!({"metallb.io/loadBalancerIPs": "198.18.9.9, 2001:db8:9::9"});
    assert_eq!(found(both, json!({"clusterIPs": dual})), 0);
    let class = json!({"clusterIPs": dual, "loadBalancerIP": "198.18.9.9",
        "loadBalancerClass": "example.org/other"});
    assert_eq!(found(json!({}), class), 0);
}

#[test]
fn addresses_must_be_of_the_families_that_a_service_has() {
    let rule = "address-of-another-family";
    let found = |named: &str, spec: Value| {
        let mut snapshot = healthy();
        let annotations = json!({"metallb.io/loadBalancerIPs": named});
        snapshot.add(foreign(annotations, spec)).unwrap();
        let mut found = of(&snapshot, rule);
        found.pop().map(|f| f.2)
    };
    let four = json!({"clusterIPs": ["10.96.0.9"]});
    assert_eq!(found("198.18.9.9", four.clone()), None);
    let said = found("198.18.9.9,2001:db8:9::9", four).unwrap();
    assert!(said.contains("is of IPv4 and names"), "{said}");
    assert!(said.contains("which is IPv4 and IPv6"), "{said}");
    let dual =
        json!({"clusterIPs": ["fd00::9", "10.96.0.9"], "ipFamilyPolicy": "RequireDualStack"});
    assert!(found("198.18.9.9", dual.clone()).is_some());
    assert_eq!(found("198.18.9.9,2001:db8:9::9", dual), None);
}

#[test]
fn two_ways_count_where_the_annotation_is_read() {
    let found = |version: &str, prefix: &str, address: &str| {
        let mut snapshot = at_version(version);
        let annotations = json!({format!("{prefix}/loadBalancerIPs"): address});
        let spec = json!({"loadBalancerIP": "198.18.9.9"});
        snapshot.add(foreign(annotations, spec)).unwrap();
        of(&snapshot, "address-named-in-two-ways").len()
    };
    let (new, old) = ("metallb.io", "metallb.universe.tf");
    assert_eq!(found("0.16.2", new, "198.18.9.9"), 1);
    assert_eq!(found("0.16.2", old, "198.18.9.8"), 1);
    assert_eq!(found("0.14.8", old, "198.18.9.9"), 1);
    assert_eq!(found("0.14.8", new, "198.18.9.9"), 0);
    assert_eq!(found("0.16.2", new, ""), 0);
}

#[test]
fn an_address_is_outside_when_no_pool_has_it() {
    let found = |address: &str, more: Value| {
        let mut snapshot = healthy();
        let mut spec = json!({"addresses": ["198.18.5.0/24"]});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        snapshot.add(metallb("IPAddressPool", "new", spec)).unwrap();
        snapshot.add(with_address(address)).unwrap();
        of(&snapshot, "address-outside-pool").len()
    };
    // Whichever pool has it now.
    assert_eq!(found("198.18.5.9", json!({})), 0);
    assert_eq!(found("198.18.6.9", json!({})), 1);
    assert_eq!(found("198.18.5.0", json!({})), 0);
    assert_eq!(found("198.18.5.0", json!({"avoidBuggyIPs": true})), 1);
}

/// The alerts of MetalLB's chart from 0.15 on, and what each kind leaves out.
fn alerts(exhausted: &str, usage: &str) -> Value {
    let of = |alert: &str, excluded: &str| {
        json!({"alert": alert, "expr": format!(
        "metallb_allocator_addresses_in_use_total{{pool!~\"{excluded}\"}} > 1")})
    };
    json!([
        of("MetalLBAddressPoolExhausted", exhausted),
        of("MetalLBAddressPoolUsage75Percent", usage),
        of("MetalLBAddressPoolUsage95Percent", usage),
        of("MetalLBBGPSessionDown", ""),
    ])
}

#[test]
fn alerts_that_leave_our_pools_out_are_well() {
    let rule = "alert-of-full-pools";
    let found = |rules: Value| {
        let mut snapshot = healthy();
        trap(&mut snapshot, rule);
        edit(&mut snapshot, "PrometheusRule", "", |r| {
            r["spec"]["groups"][0]["rules"] = rules.clone();
        });
        let found = check(&snapshot).into_iter().find(|f| f.rule == rule);
        found.map(|f| (f.message, f.remedy))
    };
    assert_eq!(found(alerts("l2lb.*", "l2lb.*")), None);
    let (message, remedy) = found(alerts("", "l2lb.*")).unwrap();
    assert!(
        message.contains("its alert MetalLBAddressPoolExhausted fires"),
        "{message}"
    );
    assert!(
        remedy.contains("addressPoolExhausted.excludePools to"),
        "{remedy}"
    );
    assert!(!remedy.contains("addressPoolUsage"), "{remedy}");
    let (message, remedy) = found(alerts("l2lb.*", "")).unwrap();
    let usage = "alerts MetalLBAddressPoolUsage75Percent, MetalLBAddressPoolUsage95Percent fire";
    assert!(message.contains(usage), "{message}");
    assert!(!remedy.contains("addressPoolExhausted"), "{remedy}");
    let (_, remedy) = found(alerts("", "")).unwrap();
    assert!(
        remedy.contains("addressPoolExhausted.excludePools and"),
        "{remedy}"
    );
}

#[test]
fn the_controller_has_time_from_the_last_change_on() {
    let rule = "status-behind";
    let found = |entries: Value| {
        let mut snapshot = healthy();
        let mut behind = load_balancer("behind", json!({}));
        behind["metadata"]["generation"] = json!(2);
        behind["metadata"]["managedFields"] = entries;
        behind["status"] = json!({"observedGeneration": 1});
        snapshot.add(behind).unwrap();
        of(&snapshot, rule).len()
    };
    let at = |time: &str| json!({"manager": "kubectl", "operation": "Apply", "time": time});
    let old = at("2026-01-01T00:10:00Z");
    // It is 01:15 there.
    let new = at("2026-01-01T01:14:59Z");
    assert_eq!(found(json!([old, new])), 0);
    assert_eq!(found(json!([old])), 1);
    assert_eq!(found(json!([at("2026-01-01T01:14:00Z")])), 1);
    let mut status = new;
    status["subresource"] = json!("status");
    assert_eq!(found(json!([old, status])), 1);
    assert_eq!(found(Value::Null), 1);
}
