//! Each rule, with a world that has it; the world that all of them begin
//! with, testdata/cli/healthy, has none.

mod advertisements;
mod cases;
mod nodes;
mod services;

use std::collections::BTreeSet;
use std::path::Path;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::cli::golden::Scene;
use crate::metallb::Capabilities;
use crate::world::{Key, Kind, ObjectRef};

fn healthy() -> Snapshot {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cli/healthy");
    Scene::of(&case).snapshot
}

/// Changes an object, or every object, of a kind.
fn edit(snapshot: &mut Snapshot, kind: &str, name: &str, change: impl Fn(&mut Value)) {
    let all = std::mem::take(&mut snapshot.objects);
    let mut edited = 0;
    for mut object in all {
        if object["kind"] == kind && (name.is_empty() || object["metadata"]["name"] == name) {
            change(&mut object);
            edited += 1;
        }
        snapshot.add(object).unwrap();
    }
    assert!(edited > 0, "there is no {kind} {name}");
}

/// Takes objects of a kind out.
fn remove(snapshot: &mut Snapshot, kind: &str, name: &str) {
    let matches =
        |o: &Value| o["kind"] == kind && (name.is_empty() || o["metadata"]["name"] == name);
    let before = snapshot.objects.len();
    for object in snapshot.objects.iter().filter(|o| matches(o)) {
        if kind == "Pod" {
            snapshot.world.forget(&ObjectRef {
                kind: Kind::Pod,
                key: Key::new("metallb-system", super::name(object)),
            });
        }
    }
    snapshot.objects.retain(|o| !matches(o));
    assert!(snapshot.objects.len() < before, "there is no {kind} {name}");
}

/// The findings of one rule, as severity, object and message.
fn of(snapshot: &Snapshot, rule: &str) -> Vec<(Severity, String, String)> {
    let found = check(snapshot).into_iter().filter(|f| f.rule == rule);
    found.map(|f| (f.severity, f.object, f.message)).collect()
}

fn at_version(version: &str) -> Snapshot {
    let mut snapshot = healthy();
    let capabilities = Capabilities::of_version(version).unwrap();
    snapshot.world.set_capabilities(capabilities);
    snapshot
}

fn metallb(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "metallb.io/v1beta1", "kind": kind,
        "metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec})
}

/// A child's Service as MetalLB has not seen it yet.
fn child(snapshot: &Snapshot, name: &str) -> Value {
    let child = snapshot.world.child(&Key::new("shop", name)).unwrap();
    let mut value = json!(child.service);
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Service");
    value
}

fn foreign(annotations: Value, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "old", "namespace": "other", "annotations": annotations}, "spec": spec})
}

/// A Service of somebody else that has an address of IPAddressPool `other`.
fn with_address(address: &str) -> Value {
    let mut service = foreign(
        json!({"metallb.io/ip-allocated-from-pool": "other"}),
        json!({}),
    );
    service["status"]["loadBalancer"]["ingress"] = json!([{"ip": address}]);
    service
}

fn load_balancer(name: &str, spec: Value) -> Value {
    let mut value = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
        "metadata": {"name": name, "namespace": "shop", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"addressPool": "edge", "service": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}});
    for (field, more) in spec.as_object().unwrap() {
        value["spec"][field] = more.clone();
    }
    value
}

/// An object of MetalLB's where MetalLB does not look.
fn elsewhere(kind: &str, name: &str, spec: Value) -> Value {
    let mut object = metallb(kind, name, spec);
    object["metadata"]["namespace"] = json!("shop");
    object
}

/// A node's word that it announces web-0.
fn announces(name: &str, node: &str, since: &str) -> Value {
    json!({"apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status",
        "metadata": {"name": name, "namespace": "metallb-system", "creationTimestamp": since,
            "labels": {"metallb.io/node": node, "metallb.io/service-name": "web-0",
                "metallb.io/service-namespace": "shop"}}})
}

/// A speaker's word that it has none of the interfaces for Service `old`.
fn failure(node: &str, at: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "f", "namespace": "other"},
        "reason": "announceFailed", "lastTimestamp": at,
        "involvedObject": {"kind": "Service", "namespace": "other", "name": "old"},
        "message": format!("the interfaces specified by LB IP \"198.18.5.1\" doesn't exist in \
            assigned node \"{node}\" with protocol \"layer2\"")})
}

/// A probe that saw nodes 1 and 2, and this answer for an address.
fn answer(snapshot: &mut Snapshot, address: &str, mac: Option<&str>) {
    let mut probe = Probe::default();
    for (address, mac) in [
        ("192.0.2.11", Some("02:00:00:00:00:0b")),
        ("192.0.2.12", Some("02:00:00:00:00:0c")),
        (address, mac),
    ] {
        let neighbour = Neighbour {
            device: "eth0".to_owned(),
            mac: mac.map(str::to_owned),
        };
        let address = address.parse().unwrap();
        probe.asked.insert(address);
        probe.neighbours.insert(address, neighbour);
    }
    snapshot.probe = Some(probe);
}

/// What leads to each rule's finding, and the object that it is about.
#[rustfmt::skip]
fn trap(s: &mut Snapshot, rule: &str) -> &'static str {
    let ready = |status: &'static str| move |n: &mut Value| n["status"]["conditions"][0]["status"] = json!(status);
    match rule {
        "node-address-in-pool" => { edit(s, "Node", "node-2", |n| n["status"]["addresses"][0]["address"] = json!("203.0.113.15")); "L2AddressPool edge" }
        "pod-network-in-pool" => { edit(s, "Node", "node-2", |n| n["spec"]["podCIDRs"] = json!(["203.0.113.0/24"])); "L2AddressPool edge" }
        "api-server-in-pool" => { s.add(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}}, "endpoints": [{"addresses": ["203.0.113.15"]}]})).unwrap(); "L2AddressPool edge" }
        "advertisement-of-every-pool" => { s.add(metallb("L2Advertisement", "all", json!({}))).unwrap(); "L2Advertisement all" }
        "advertisement-outranks" => { s.add(metallb("L2Advertisement", "all", json!({"preferredNodeSelectors": [{"weight": 100, "preference": {"matchLabels": {"kubernetes.io/hostname": "node-2"}}}]}))).unwrap(); "L2Advertisement all" }
        "advertisement-of-no-pool" => { s.add(metallb("L2Advertisement", "typo", json!({"ipAddressPools": ["nope"]}))).unwrap(); "L2Advertisement typo" }
        "advertisement-without-failover" => { s.add(metallb("L2Advertisement", "one", json!({"ipAddressPools": ["x"], "nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": "node-4"}}]}))).unwrap(); "L2Advertisement one" }
        "advertisement-of-no-node" => { s.add(metallb("L2Advertisement", "nowhere", json!({"ipAddressPools": ["x"], "nodeSelectors": [{"matchLabels": {"role": "typo"}}]}))).unwrap(); "L2Advertisement nowhere" }
        "bgp-advertisements-conflict" => {
            s.add(metallb("IPAddressPool", "other", json!({"addresses": ["198.18.5.0/30"]}))).unwrap();
            for (name, preference) in [("a", 0), ("b", 100)] { s.add(metallb("BGPAdvertisement", name, json!({"ipAddressPools": ["other"], "localPref": preference}))).unwrap(); }
            "BGPAdvertisement b"
        }
        "bgp-breaks-pool" => { s.add(metallb("BGPAdvertisement", "all", json!({"aggregationLength": 24}))).unwrap(); "L2AddressPool edge" }
        "bgp-breaks-metallb" => {
            s.add(metallb("IPAddressPool", "other", json!({"addresses": ["198.18.5.0/30"]}))).unwrap();
            s.add(metallb("BGPAdvertisement", "short", json!({"aggregationLength": 24, "ipAddressPools": ["other"]}))).unwrap(); "BGPAdvertisement short"
        }
        "load-balancer-condition" => { s.add(load_balancer("lost", json!({"addressPool": "nope"}))).unwrap(); "L2LoadBalancer shop/lost" }
        "pool-condition" => { s.add(json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool", "metadata": {"name": "twin", "creationTimestamp": "2026-01-01T01:00:00Z"}, "spec": {"addresses": ["203.0.113.10"]}})).unwrap(); "L2AddressPool twin" }
        "controller-never-ran" => { remove(s, "Lease", ""); "Lease l2lb-controller" }
        "controller-stopped" => { edit(s, "Lease", "", |l| l["spec"]["renewTime"] = json!("2026-01-01T01:10:00.000000Z")); "Lease l2lb-system/l2lb-controller" }
        "controllers-compete" => { s.add(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "edge-l2lb-controller", "namespace": "edge"}, "spec": {"holderIdentity": "x", "renewTime": "2026-01-01T01:14:58.000000Z"}})).unwrap(); "Lease l2lb-system/l2lb-controller" }
        "metallb-advertisement-invalid" => { s.add(metallb("L2Advertisement", "twice", json!({"ipAddressPools": ["x", "x"]}))).unwrap(); "L2Advertisement twice" }
        "bgp-matches-ipv6" => {
            s.add(metallb("IPAddressPool", "six", json!({"addresses": ["2001:db8:6::/120"]}))).unwrap();
            s.add(metallb("BGPAdvertisement", "six", json!({"ipAddressPools": ["six"]}))).unwrap(); "IPAddressPool six"
        }
        "metallb-object-elsewhere" => { s.add(elsewhere("L2Advertisement", "lost", json!({}))).unwrap(); "L2Advertisement shop/lost" }
        "pool-restricts-nobody" => {
            s.add(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).unwrap();
            s.add(metallb("IPAddressPool", "other", json!({"addresses": ["198.18.5.0/30"], "serviceAllocation": {"namespaceSelectors": [{"matchLabels": {"team": "typo"}}]}}))).unwrap(); "IPAddressPool other"
        }
        "pool-of-many-entries" => { let many: Vec<String> = (0..2500).map(|n| format!("198.18.{}.{}/32", n / 250, n % 250)).collect(); s.add(metallb("IPAddressPool", "other", json!({"addresses": many}))).unwrap(); "IPAddressPool other" }
        "annotations-not-read" => { s.world.set_capabilities(Capabilities::of_version("0.14.8").unwrap()); s.add(foreign(json!({"metallb.io/address-pool": "a"}), json!({}))).unwrap(); "Service other/old" }
        "shared-address-not-announced" => {
            s.add(metallb("IPAddressPool", "other", json!({"addresses": ["198.18.5.0/30"]}))).unwrap();
            s.add(metallb("L2Advertisement", "some", json!({"ipAddressPools": ["other"], "serviceSelectors": [{}]}))).unwrap();
            s.add(foreign(json!({"metallb.io/allow-shared-ip": "key", "metallb.io/ip-allocated-from-pool": "other"}), json!({}))).unwrap(); "Service other/old"
        }
        "announced-twice" => { for (name, node) in [("l2-a", "node-1"), ("l2-b", "node-2")] { s.add(announces(name, node, "2026-01-01T01:00:00Z")).unwrap(); } "Service shop/web-0" }
        "announce-failed" => { s.add(foreign(json!({}), json!({}))).unwrap(); s.add(failure("node-4", "2026-01-01T01:14:00Z")).unwrap(); "Service other/old" }
        "hostname-on-child" => { let mut service = child(s, "web-0"); service["metadata"]["annotations"]["external-dns.alpha.kubernetes.io/hostname"] = json!("web.example.org"); s.add(service).unwrap(); "Service shop/web-0" }
        "cordon-not-ignored" => {
            s.world.set_capabilities(Capabilities::of_version("0.14.9").unwrap());
            s.add(json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool", "metadata": {"name": "still"}, "spec": {"addresses": ["198.18.6.0/30"], "onCordon": "Ignore"}})).unwrap(); "L2AddressPool still"
        }
        "address-of-another-host" => { answer(s, "203.0.113.10", Some("02:00:00:00:00:99")); "Service shop/web-0" }
        "address-of-another-node" => { answer(s, "203.0.113.10", Some("02:00:00:00:00:0c")); "Service shop/web-0" }
        "address-silent" => { answer(s, "203.0.113.10", None); "Service shop/web-0" }
        "free-address-taken" => { answer(s, "203.0.113.15", Some("02:00:00:00:00:99")); "L2AddressPool edge" }
        "alert-of-full-pools" => {
            let mut full = metallb("IPAddressPool", "l2lb.shop.web-0.x", json!({"addresses": ["203.0.113.10-203.0.113.10"]}));
            full["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "l2lb", "l2lb.io/pool": "edge"});
            s.add(full).unwrap();
            s.add(json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "metallb", "namespace": "metallb-system"}, "spec": {"groups": [{"rules": [{"alert": "MetalLBAddressPoolExhausted", "expr": "metallb_allocator_addresses_in_use_total >= on(pool) metallb_allocator_addresses_total"}]}]}})).unwrap(); "PrometheusRule metallb-system/metallb"
        }
        "status-behind" => {
            let mut behind = load_balancer("behind", json!({}));
            behind["metadata"]["generation"] = json!(2);
            behind["status"] = json!({"observedGeneration": 1});
            s.add(behind).unwrap(); "L2LoadBalancer shop/behind"
        }
        "definition-missing" => { remove(s, "CustomResourceDefinition", "l2addresspools.l2lb.io"); "CustomResourceDefinition l2addresspools.l2lb.io" }
        "definition-old" => { edit(s, "CustomResourceDefinition", "l2addresspools.l2lb.io", |d| drop(spec_of(d).remove("onCordon"))); "CustomResourceDefinition l2addresspools.l2lb.io" }
        "definition-new" => { edit(s, "CustomResourceDefinition", "l2addresspools.l2lb.io", |d| drop(spec_of(d).insert("future".into(), json!({})))); "CustomResourceDefinition l2addresspools.l2lb.io" }
        "metallb-missing" => { s.world.set_capabilities(Capabilities::default()); "MetalLB in namespace metallb-system" }
        "metallb-old" | "definitions-older-than-speakers" => { s.world.set_capabilities(Capabilities::of_version("0.15.2").unwrap()); "MetalLB in namespace metallb-system" }
        "ipvs-without-strict-arp" => { edit(s, "ConfigMap", "kube-proxy", |m| m["data"]["config.conf"] = json!("kind: KubeProxyConfiguration\nmode: ipvs\n")); "ConfigMap kube-system/kube-proxy" }
        "node-not-ready" => { edit(s, "Node", "node-1", ready("False")); "Node node-1" }
        "speaker-missing" => { remove(s, "Pod", "speaker-1"); let later = s.world.now + SignedDuration::from_mins(1); s.world.set_now(later); "Node node-1" }
        "interface-missing" => {
            let mut pool = json!(**s.world.pools["edge"].valid().unwrap());
            pool["apiVersion"] = json!("l2lb.io/v1alpha1");
            pool["kind"] = json!("L2AddressPool");
            pool["spec"]["interfaces"] = json!(["eth9"]);
            pool["status"]["missingInterfaces"] = json!([{"node": "node-1", "interfaces": ["eth9"], "since": "2026-01-01T01:14:00Z"}]);
            s.add(pool).unwrap(); "Node node-1"
        }
        "node-excluded" => { edit(s, "Node", "node-1", |n| n["metadata"]["labels"][crate::api::names::EXCLUDE_NODE] = json!("")); "Node node-1" }
        "node-not-identifiable" => { edit(s, "Node", "node-1", |n| n["metadata"]["labels"]["kubernetes.io/hostname"] = json!("node-2")); "Node node-1" }
        "node-drained" => { edit(s, "Node", "node-1", |n| n["metadata"]["annotations"] = json!({"l2lb.io/drain": "true"})); "Node node-1" }
        "node-name-long" => { s.add(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": LONG, "labels": {"role": "edge", "kubernetes.io/hostname": "long"}}})).unwrap(); LONG_NODE }
        "no-node-serves" => { edit(s, "Node", "", ready("False")); "L2LoadBalancer shop/web" }
        "no-standby" => { s.add(load_balancer("single", json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "node-1"}}}))).unwrap(); "L2LoadBalancer shop/single" }
        "address-dark" => { s.world.forget(&ObjectRef { kind: Kind::ServiceL2Status, key: Key::new("metallb-system", "l2-shop-web-0") }); "Service shop/web-0" }
        "metallb-pools-overlap" => { s.add(metallb("IPAddressPool", "other", json!({"addresses": ["203.0.113.15/32"]}))).unwrap(); "IPAddressPool other" }
        "metallb-pool-invalid" => { s.add(metallb("IPAddressPool", "other", json!({"addresses": []}))).unwrap(); "IPAddressPool other" }
        "metallb-pool-masked" => { s.add(metallb("IPAddressPool", "other", json!({"addresses": ["198.18.5.7/24"]}))).unwrap(); "IPAddressPool other" }
        "metallb-pool-holds-node" => { s.add(metallb("IPAddressPool", "other", json!({"addresses": ["192.0.2.0/28"]}))).unwrap(); "IPAddressPool other" }
        "pool-without-advertisement" => { s.add(metallb("IPAddressPool", "other", json!({"addresses": ["198.18.5.0/30"]}))).unwrap(); "IPAddressPool other" }
        "legacy-address-pool" => { s.add(metallb("AddressPool", "old", json!({}))).unwrap(); "AddressPool metallb-system/old" }
        "service-without-address" => { let service = child(s, "web-0"); s.add(service).unwrap(); "Service shop/web-0" }
        "allocation-failed" => {
            let service = child(s, "web-0");
            s.add(service).unwrap();
            s.add(json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "shop"}, "reason": "AllocationFailed", "message": "no", "involvedObject": {"kind": "Service", "namespace": "shop", "name": "web-0"}})).unwrap(); "Service shop/web-0"
        }
        "service-without-pod" => { edit(s, "EndpointSlice", "web-0-x", |e| e["endpoints"] = json!([])); "Service shop/web-0" }
        "home-without-pod" => { let mut service = child(s, "web-1"); service["spec"]["externalTrafficPolicy"] = json!("Local"); s.add(service).unwrap(); "Service shop/web-1" }
        "address-held-by-others" => { s.add(foreign(json!({}), json!({"externalIPs": ["203.0.113.25"]}))).unwrap(); "Service other/old" }
        "address-named-twice" => { s.add(foreign(json!({}), json!({"externalIPs": ["203.0.113.10"]}))).unwrap(); "Service other/old" }
        "annotation-prefixes" => { s.add(foreign(json!({"metallb.universe.tf/address-pool": "a", "metallb.io/address-pool": "a"}), json!({}))).unwrap(); "Service other/old" }
        "prefer-dual-stack" => { s.add(foreign(json!({"metallb.io/loadBalancerIPs": "198.18.9.9"}), json!({"ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["10.96.0.9", "fd00::9"]}))).unwrap(); "Service other/old" }
        "address-of-another-family" => { s.add(foreign(json!({"metallb.io/loadBalancerIPs": "2001:db8:9::9"}), json!({"clusterIPs": ["10.96.0.9"]}))).unwrap(); "Service other/old" }
        "address-named-in-two-ways" => { s.add(foreign(json!({"metallb.io/loadBalancerIPs": "198.18.9.9"}), json!({"loadBalancerIP": "198.18.9.9"}))).unwrap(); "Service other/old" }
        "address-outside-pool" => { s.add(with_address("198.18.5.9")).unwrap(); "Service other/old" }
        "no-speaker-seen" => { remove(s, "Pod", ""); "MetalLB in namespace metallb-system" }
        "metallb-controller-missing" => { remove(s, "Pod", "controller-0"); "MetalLB in namespace metallb-system" }
        "metallb-versions-differ" => { edit(s, "Pod", "controller-0", |p| p["spec"]["containers"][0]["image"] = json!("controller:v0.16.1")); "MetalLB in namespace metallb-system" }
        "speakers-split" | "speakers-older-than-definitions" => { edit(s, "Pod", "speaker-1", |p| p["spec"]["containers"][0]["image"] = json!("speaker:v0.16.1")); "MetalLB in namespace metallb-system" }
        "memberlist-off" => { edit(s, "Pod", "speaker-1", |p| p["spec"]["containers"][0]["env"] = json!([])); "MetalLB in namespace metallb-system" }
        "exclude-label-flag" => { edit(s, "Pod", "speaker-1", |p| p["spec"]["containers"][0]["args"] = json!(["--ignore-exclude-lb"])); "MetalLB in namespace metallb-system" }
        "metallb-configuration-stale" => { edit(s, "ConfigurationState", "", |c| c["status"] = json!({"result": "Invalid", "errorSummary": "overlap"})); "MetalLB's controller" }
        "webhook-missing" => { remove(s, "ValidatingWebhookConfiguration", "l2lb"); "ValidatingWebhookConfiguration l2lb" }
        "webhook-without-ca" => { edit(s, "ValidatingWebhookConfiguration", "l2lb", |w| w["webhooks"][0]["clientConfig"]["caBundle"] = json!("")); "ValidatingWebhookConfiguration l2lb" }
        "webhook-ignored" => { edit(s, "ValidatingWebhookConfiguration", "l2lb", |w| w["webhooks"][0]["failurePolicy"] = json!("Ignore")); "ValidatingWebhookConfiguration l2lb" }
        "webhook-down" => { remove(s, "EndpointSlice", "l2lb-webhook-x"); "ValidatingWebhookConfiguration l2lb" }
        "metallb-webhook-missing" => { remove(s, "ValidatingWebhookConfiguration", "metallb-webhook-configuration"); "MetalLB in namespace metallb-system" }
        other => panic!("no world has {other}"),
    }
}

const LONG: &str = "node-with-a-name-that-is-longer-than-the-sixty-three-characters-of-a-label";
const LONG_NODE: &str =
    "Node node-with-a-name-that-is-longer-than-the-sixty-three-characters-of-a-label";

fn spec_of(definition: &mut Value) -> &mut serde_json::Map<String, Value> {
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]
        .as_object_mut()
        .unwrap()
}

#[test]
fn nothing_is_found_where_all_is_well() {
    let found = check(&healthy());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_rule_finds_its_trap() {
    let mut names = BTreeSet::new();
    let healthy = healthy();
    for (_, rules) in RULES {
        for (rule, about) in *rules {
            assert!(names.insert(*rule), "{rule} is there twice");
            assert!(!about.is_empty());
            let mut snapshot = healthy.clone();
            let object = trap(&mut snapshot, rule);
            // It has been like that for a while.
            snapshot.world.handing_over.clear();
            let found = check(&snapshot);
            let hit = found.iter().find(|f| f.rule == *rule && f.object == object);
            let Some(hit) = hit else {
                panic!("{rule} of {object} is not among {found:#?}");
            };
            assert!(!hit.message.is_empty() && !hit.remedy.is_empty(), "{hit:?}");
            // No other rule by that name, and none without one.
            let all: BTreeSet<&str> = RULES
                .iter()
                .flat_map(|(_, r)| r.iter().map(|(n, _)| *n))
                .collect();
            assert!(found.iter().all(|f| all.contains(f.rule)), "{found:#?}");
        }
    }
    assert!(names.len() > 50, "{}", names.len());
}

#[test]
fn what_could_not_be_read_is_not_held_against_anybody() {
    let mut snapshot = healthy();
    for kind in [
        "EndpointSlice",
        "Lease",
        "ValidatingWebhookConfiguration",
        "CustomResourceDefinition",
        "Pod",
    ] {
        remove(&mut snapshot, kind, "");
        snapshot
            .unread
            .push((kind.to_owned(), "forbidden".to_owned()));
    }
    let found = check(&snapshot);
    assert!(found.is_empty(), "{found:#?}");
}
