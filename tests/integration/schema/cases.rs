//! What is tried: objects that a rule is for, and near misses.

use serde_json::{Value, json};

/// Something that is changed in a good object, and what is said of it; `Ok`
/// where nothing may be said.
pub type Case = (&'static str, Value, Result<(), &'static str>);

/// Changes to a good L2LoadBalancer.
pub fn load_balancers() -> Vec<Case> {
    let name = "at most 58 characters long, begins with a letter";
    let reserved = "are set by the controllers alone";
    let period = "retirementPeriod is a duration between 0s and 8760h (a year), as in 24h or 1h30m";
    let family = "two ipFamilies need ipFamilyPolicy: RequireDualStack";
    let unusable = "addresses has no unspecified, loopback, multicast or broadcast addresses";
    let port = |p: Value| json!([p]);
    vec![
        ("/metadata/name", json!("a".repeat(58)), Ok(())),
        ("/metadata/name", json!("a".repeat(59)), Err(name)),
        ("/metadata/name", json!("web.shop"), Err(name)),
        ("/metadata/name", json!("1web"), Err(name)),
        ("/metadata/name", json!("web-1"), Ok(())),
        (
            "/spec/addressPool",
            Value::Null,
            Err("spec.addressPool: Required value"),
        ),
        ("/spec/addressPool", json!(""), Err("spec.addressPool")),
        (
            "/spec/addressPool",
            json!("p".repeat(59)),
            Err("spec.addressPool: Too long"),
        ),
        ("/spec/maxNodes", json!(0), Err("spec.maxNodes")),
        ("/spec/maxNodes", json!(1), Ok(())),
        ("/spec/maxNodes", json!(10_001), Err("spec.maxNodes")),
        (
            "/spec/addresses",
            json!(["203.0.113.1", "2001:db8::1"]),
            Ok(()),
        ),
        (
            "/spec/addresses",
            json!(["203.0.113.0/24"]),
            Err("each of addresses is a single IPv4 or IPv6 address"),
        ),
        (
            "/spec/addresses",
            json!(["203.0.113.1", "203.0.113.1"]),
            Err("Duplicate value"),
        ),
        ("/spec/addresses", json!(["127.0.0.1"]), Err(unusable)),
        ("/spec/addresses", json!(["0.0.0.0"]), Err(unusable)),
        ("/spec/addresses", json!(["::"]), Err(unusable)),
        ("/spec/addresses", json!(["224.0.0.7"]), Err(unusable)),
        ("/spec/addresses", json!(["ff02::1"]), Err(unusable)),
        ("/spec/addresses", json!(["fe80::1", "169.254.0.1"]), Ok(())),
        ("/spec/retirementPeriod", json!("1d"), Err(period)),
        ("/spec/retirementPeriod", json!("-1h"), Err(period)),
        ("/spec/retirementPeriod", json!(""), Err(period)),
        ("/spec/retirementPeriod", json!("8760h1s"), Err(period)),
        ("/spec/retirementPeriod", json!("1h-1h"), Err(period)),
        (
            "/spec/retirementPeriod",
            json!("99999999999999999h"),
            Err("spec.retirementPeriod"),
        ),
        ("/spec/retirementPeriod", json!("8760h"), Ok(())),
        ("/spec/retirementPeriod", json!("0s"), Ok(())),
        ("/spec/retirementPeriod", json!("1.5h30m"), Ok(())),
        (
            "/spec/service",
            Value::Null,
            Err("spec.service: Required value"),
        ),
        (
            "/spec/service/selector",
            Value::Null,
            Err("spec.service.selector: Required value"),
        ),
        (
            "/spec/service/selector",
            json!({}),
            Err("should have at least 1 properties"),
        ),
        (
            "/spec/service/ports",
            Value::Null,
            Err("spec.service.ports: Required value"),
        ),
        (
            "/spec/service/ports",
            json!([]),
            Err("should have at least 1 items"),
        ),
        (
            "/spec/service/ports",
            port(json!({"port": 0})),
            Err("spec.service.ports[0].port"),
        ),
        (
            "/spec/service/ports",
            port(json!({"port": 65_536})),
            Err("spec.service.ports[0].port"),
        ),
        ("/spec/service/ports", port(json!({"port": 65_535})), Ok(())),
        (
            "/spec/service/ports",
            port(json!({"port": 80, "protocol": "HTTP"})),
            Err("Unsupported value: \"HTTP\""),
        ),
        (
            "/spec/service/ports",
            port(json!({"port": 80, "targetPort": "web"})),
            Ok(()),
        ),
        (
            "/spec/service/ports",
            port(json!({"port": 80, "name": "Web"})),
            Err("ports[0].name"),
        ),
        (
            "/spec/service/ports",
            json!([{"port": 80}, {"port": 443}]),
            Err("with more than one port every port needs a name"),
        ),
        (
            "/spec/service/ports",
            json!([{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]),
            Ok(()),
        ),
        (
            "/spec/service/ports",
            json!([{"name": "a", "port": 53}, {"name": "b", "port": 53}]),
            Err("Duplicate value"),
        ),
        (
            "/spec/service/externalTrafficPolicy",
            json!("Locale"),
            Err("Unsupported value"),
        ),
        (
            "/spec/service/externalTrafficPolicy",
            json!("Local"),
            Ok(()),
        ),
        (
            "/spec/service/loadBalancerSourceRanges",
            json!(["198.51.100.1"]),
            Err("each of loadBalancerSourceRanges is a CIDR, as in 198.51.100.0/24"),
        ),
        (
            "/spec/service/loadBalancerSourceRanges",
            json!(["198.51.100.1/32", "::/0"]),
            Ok(()),
        ),
        (
            "/spec/service/sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 10}}),
            Err("sessionAffinityConfig needs sessionAffinity: ClientIP"),
        ),
        ("/spec/service/sessionAffinity", json!("ClientIP"), Ok(())),
        (
            "/spec/service/ipFamilies",
            json!(["IPv4", "IPv4"]),
            Err("ipFamilies names each family once"),
        ),
        (
            "/spec/service/ipFamilies",
            json!(["IPv4", "IPv6"]),
            Err(family),
        ),
        ("/spec/service/ipFamilies", json!(["IPv6"]), Ok(())),
        (
            "/spec/service/ipFamilies",
            json!(["IPv5"]),
            Err("Unsupported value"),
        ),
        (
            "/spec/service/ipFamilyPolicy",
            json!("PreferDualStack"),
            Err("Unsupported value"),
        ),
        (
            "/spec/service/ipFamilyPolicy",
            json!("RequireDualStack"),
            Ok(()),
        ),
        (
            "/spec/service/loadBalancerClass",
            json!(""),
            Err("spec.service.loadBalancerClass"),
        ),
        (
            "/spec/service/labels",
            json!({"l2lb.io/slot": "7"}),
            Err(reserved),
        ),
        (
            "/spec/service/labels",
            json!({"app.kubernetes.io/managed-by": "me"}),
            Err(reserved),
        ),
        (
            "/spec/service/labels",
            json!({"app.kubernetes.io/name": "web"}),
            Ok(()),
        ),
        (
            "/spec/service/annotations",
            json!({"metallb.io/loadBalancerIPs": "203.0.113.1"}),
            Err(reserved),
        ),
        (
            "/spec/service/annotations",
            json!({"metallb.universe.tf/allow-shared-ip": "x"}),
            Err(reserved),
        ),
        (
            "/spec/service/annotations",
            json!({"external-dns.alpha.kubernetes.io/hostname": "shop.example.org"}),
            Err("for a name use spec.dns"),
        ),
        (
            "/spec/service/annotations",
            json!({"external-dns.example.org/hostname": "shop.example.org"}),
            Err(reserved),
        ),
        (
            "/spec/service/annotations",
            json!({"my-metallb.io/note": "x"}),
            Ok(()),
        ),
        ("/spec/dns", json!({"hostname": "shop.example.org"}), Ok(())),
        (
            "/spec/dns",
            json!({"hostname": "*.shop.example.org", "ttl": 1}),
            Ok(()),
        ),
        (
            "/spec/dns",
            json!({"hostname": "localhost"}),
            Err("spec.dns.hostname"),
        ),
        (
            "/spec/dns",
            json!({"hostname": "Shop.example.org"}),
            Err("spec.dns.hostname"),
        ),
        (
            "/spec/dns",
            json!({"hostname": "shop.example.org", "ttl": 0}),
            Err("spec.dns.ttl"),
        ),
        (
            "/spec/dns",
            json!({"hostname": "shop.example.org", "ttl": 86_401}),
            Err("spec.dns.ttl"),
        ),
        (
            "/spec/dns",
            json!({"hostname": format!("{}.example.org", "a".repeat(64))}),
            Err("each part of hostname has at most 63 characters"),
        ),
    ]
    .into_iter()
    .chain(selectors("/spec/nodeSelector"))
    .collect()
}

/// Selectors that are none.
fn selectors(path: &'static str) -> Vec<Case> {
    let values = "In and NotIn take at least one value, Exists and DoesNotExist none";
    let one = |operator: &str, values: Value| {
        let mut expression = json!({"key": "role", "operator": operator});
        if !values.is_null() {
            expression["values"] = values;
        }
        json!({"matchExpressions": [expression]})
    };
    vec![
        (path, json!({"matchLabels": {"role": "edge"}}), Ok(())),
        (path, json!({"matchLabels": {"role": ""}}), Ok(())),
        (
            path,
            json!({"matchLabels": {"role": "no label"}}),
            Err("matchLabels.role"),
        ),
        (
            path,
            json!({"matchLabels": {"role": "e".repeat(64)}}),
            Err("Too long"),
        ),
        (path, one("In", json!(["edge", "core"])), Ok(())),
        (path, one("Exists", Value::Null), Ok(())),
        (path, one("DoesNotExist", json!([])), Ok(())),
        (path, one("In", Value::Null), Err(values)),
        (path, one("NotIn", json!([])), Err(values)),
        (path, one("Exists", json!(["edge"])), Err(values)),
        (
            path,
            one("Near", json!(["edge"])),
            Err("Unsupported value: \"Near\""),
        ),
        (
            path,
            one("In", json!(["-edge"])),
            Err("matchExpressions[0].values[0]"),
        ),
        (
            path,
            json!({"matchExpressions": [{"key": "a b", "operator": "Exists"}]}),
            Err("matchExpressions[0].key"),
        ),
    ]
}

/// Changes to a good L2AddressPool.
pub fn pools() -> Vec<Case> {
    let form = "each of addresses is a CIDR (203.0.113.0/28), a range (203.0.113.10-203.0.113.40) or a single address";
    let excluded = "each of excludedAddresses is a CIDR, a range or a single address";
    let bits = "a CIDR in addresses has bits set behind its prefix";
    let family = "both ends of a range in addresses are of one family";
    let unusable = "addresses has no unspecified, loopback, multicast or broadcast addresses";
    let excluded_bits = "a CIDR in excludedAddresses has bits set behind its prefix";
    let excluded_family = "both ends of a range in excludedAddresses are of one family";
    vec![
        ("/metadata/name", json!("p".repeat(58)), Ok(())),
        (
            "/metadata/name",
            json!("p".repeat(59)),
            Err("at most 58 characters long"),
        ),
        (
            "/spec/addresses",
            Value::Null,
            Err("spec.addresses: Required value"),
        ),
        (
            "/spec/addresses",
            json!([]),
            Err("should have at least 1 items"),
        ),
        ("/spec/addresses", json!(["203.0.113.5/24"]), Err(bits)),
        ("/spec/addresses", json!(["2001:db8::1/64"]), Err(bits)),
        (
            "/spec/addresses",
            json!(["203.0.113.5/32", "2001:db8::/64", "10.0.0.0/8"]),
            Ok(()),
        ),
        ("/spec/addresses", json!(["203.0.113.5"]), Ok(())),
        (
            "/spec/addresses",
            json!(["203.0.113.5 - 203.0.113.9"]),
            Ok(()),
        ),
        (
            "/spec/addresses",
            json!(["203.0.113.5-2001:db8::1"]),
            Err(family),
        ),
        ("/spec/addresses", json!(["203.0.113.5-9"]), Err(form)),
        (
            "/spec/addresses",
            json!(["203.0.113.5-203.0.113.6-203.0.113.7"]),
            Err(form),
        ),
        ("/spec/addresses", json!(["203.0.113.256"]), Err(form)),
        ("/spec/addresses", json!(["edge"]), Err(form)),
        ("/spec/addresses", json!(["203.0.113.0/33"]), Err(form)),
        ("/spec/addresses", json!(["127.0.0.0/8"]), Err(unusable)),
        ("/spec/addresses", json!(["127.0.0.1"]), Err(unusable)),
        ("/spec/addresses", json!(["126.0.0.0/7"]), Err(unusable)),
        ("/spec/addresses", json!(["0.0.0.0/0"]), Err(unusable)),
        ("/spec/addresses", json!(["0.0.0.0"]), Err(unusable)),
        ("/spec/addresses", json!(["239.0.0.0/8"]), Err(unusable)),
        ("/spec/addresses", json!(["192.0.0.0/2"]), Err(unusable)),
        ("/spec/addresses", json!(["::1"]), Err(unusable)),
        ("/spec/addresses", json!(["::/0"]), Err(unusable)),
        ("/spec/addresses", json!(["ff02::/16"]), Err(unusable)),
        ("/spec/addresses", json!(["f000::/4"]), Err(unusable)),
        (
            "/spec/addresses",
            json!(["fe80::/64", "169.254.7.0/24", "fd00::/8"]),
            Ok(()),
        ),
        ("/spec/excludedAddresses", json!(["gateway"]), Err(excluded)),
        (
            "/spec/excludedAddresses",
            json!(["203.0.113.1", "203.0.113.4/30"]),
            Ok(()),
        ),
        (
            "/spec/excludedAddresses",
            json!(["203.0.113.5/30"]),
            Err(excluded_bits),
        ),
        (
            "/spec/excludedAddresses",
            json!(["203.0.113.5-2001:db8::1"]),
            Err(excluded_family),
        ),
        (
            "/spec/excludedAddresses",
            json!(["127.0.0.1"]),
            Err("excludedAddresses has no unspecified"),
        ),
        (
            "/spec/interfaces",
            json!(["eth0", "eth0"]),
            Err("Duplicate value"),
        ),
        (
            "/spec/interfaces",
            json!(["a-name-too-long1"]),
            Err("spec.interfaces[0]: Too long"),
        ),
        ("/spec/interfaces", json!(["eth0", "bond0.100"]), Ok(())),
        (
            "/spec/onCordon",
            json!("Never"),
            Err("Unsupported value: \"Never\""),
        ),
        ("/spec/onCordon", json!("Ignore"), Ok(())),
        ("/spec/dnsDomains", json!([""]), Err("spec.dnsDomains[0]")),
    ]
    .into_iter()
    .chain(selectors("/spec/nodeSelector"))
    .chain(selectors("/spec/namespaceSelector"))
    .collect()
}

/// What cannot be changed in an L2LoadBalancer that is stored.
pub fn changes() -> Vec<Case> {
    let class = "loadBalancerClass cannot be changed, as on a Service";
    let families = "the first of ipFamilies cannot be changed, as on a Service";
    vec![
        (
            "/spec/addressPool",
            json!("other"),
            Err("addressPool cannot be changed: create another"),
        ),
        (
            "/spec/service/loadBalancerClass",
            json!("other"),
            Err(class),
        ),
        ("/spec/service/loadBalancerClass", Value::Null, Err(class)),
        ("/spec/service/ipFamilies", json!(["IPv6"]), Err(families)),
        (
            "/spec/service/ipFamilyPolicy",
            json!("RequireDualStack"),
            Ok(()),
        ),
        ("/spec/maxNodes", json!(3), Ok(())),
        ("/spec/addresses", json!(["203.0.113.9"]), Ok(())),
    ]
}
