use super::*;
use crate::manifest;
use crate::plan::Planner;
use crate::simulate::{Cluster, event};
use crate::world::{Stored, observe_manifest};

const HISTORY: &str = "- join: {node: a, labels: {role: edge}}\n- join: {node: b, labels: {role: edge}}\n\
    - join: {node: c}\n- create: {loadBalancer: shop/web, spec: {nodeSelector: {matchLabels: {role: edge}}}}\n";

fn world() -> World {
    let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
    let mut cluster = Cluster::new(start);
    let mut planner = Planner::default();
    cluster.add_pool("edge", &["203.0.113.0/29"]);
    for event in event::parse(HISTORY).unwrap() {
        cluster.happen(&event).unwrap();
        cluster.settle(&mut planner).unwrap();
    }
    cluster.world
}

/// Node c as the API server has it.
fn node() -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "c", "uid": "c", "resourceVersion": "5",
            "labels": {"kubernetes.io/hostname": "c", "zone": "z"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

/// A Service of somebody else's as the API server has it.
fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "other", "namespace": "shop", "uid": "o"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}})
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop",
        "labels": {"kubernetes.io/metadata.name": "shop", "by": "somebody"}}})
}

fn metallb_pool() -> Value {
    json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "other", "namespace": "metallb-system", "generation": 3},
        "spec": {"addresses": ["192.0.2.0/24"], "autoAssign": true, "avoidBuggyIPs": false}})
}

fn service_cidr() -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.0.0.0/16"]}})
}

/// Others' objects.
fn others() -> Vec<Value> {
    vec![
        node(),
        service(),
        namespace(),
        metallb_pool(),
        service_cidr(),
    ]
}

/// The world with them.
fn with_others() -> World {
    let mut world = world();
    for other in others() {
        world.observe(observe_manifest(other).unwrap().unwrap());
    }
    world
}

/// An object as it is in a world.
fn object(world: &World, kind: &str) -> Value {
    let mut value = match kind {
        "L2AddressPool" => json!(**world.pools["edge"].valid().unwrap()),
        "Node" => node(),
        _ => {
            let key = Key::new("shop", "web");
            json!(**world.load_balancers[&key].valid().unwrap())
        }
    };
    if kind != "Node" {
        value["apiVersion"] = json!("l2lb.io/v1alpha1");
    }
    value["kind"] = json!(kind);
    value
}

/// What files with these objects would do.
fn compare(world: &World, files: &[Value]) -> Diff {
    let text = manifest::to_yaml(files).unwrap();
    let manifests = manifest::parse("test", &text).unwrap();
    Diff::of(world, &others(), manifests, "default").unwrap()
}

/// Objects as they are in the world, changed.
fn diff(kind: &str, change: impl Fn(&mut Value)) -> Diff {
    let world = with_others();
    let mut value = object(&world, kind);
    change(&mut value);
    compare(&world, &[value])
}

fn changes(diff: &Diff) -> Vec<(&str, &str)> {
    let rows = diff.addresses.iter();
    rows.map(|r| (r.change.as_str(), r.node.as_str())).collect()
}

#[test]
fn what_is_there_already_is_no_difference() {
    for kind in ["L2LoadBalancer", "L2AddressPool"] {
        let same = diff(kind, |_| {});
        assert!(!same.differs() && same.denied.is_empty(), "{same:#?}");
        assert_eq!(changes(&same), [("unchanged", "a"), ("unchanged", "b")]);
    }
}

#[test]
fn nodes_that_come_add_and_nodes_that_go_free() {
    let wider = diff("L2LoadBalancer", |lb| {
        lb["spec"]["nodeSelector"] = Value::Null
    });
    assert_eq!(
        changes(&wider),
        [("added", "c"), ("unchanged", "a"), ("unchanged", "b")]
    );
    assert_eq!(
        wider.objects,
        ["L2LoadBalancer shop/web: spec.nodeSelector"]
    );
    let labelled = diff("Node", |n| n["metadata"]["labels"]["role"] = json!("edge"));
    assert_eq!(changes(&labelled)[0], ("added", "c"));
    let fewer = diff("L2LoadBalancer", |lb| lb["spec"]["maxNodes"] = json!(1));
    assert_eq!(changes(&fewer)[0].0, "freed");
    assert!(fewer.addresses[0].note.contains("unless"), "{fewer:#?}");
}

#[test]
fn another_port_updates_and_moves_nothing() {
    let ports = diff("L2LoadBalancer", |lb| {
        lb["spec"]["service"]["ports"][0]["port"] = json!(8443)
    });
    assert_eq!(changes(&ports), [("updated", "a"), ("updated", "b")]);
    let silent = diff("L2LoadBalancer", |lb| {
        lb["spec"]["retirementPeriod"] = json!("1h")
    });
    assert!(silent.differs(), "the object differs");
    assert_eq!(changes(&silent), [("unchanged", "a"), ("unchanged", "b")]);
}

#[test]
fn what_admission_denies_is_said_and_left_out() {
    let small = diff("L2AddressPool", |p| {
        p["spec"]["addresses"] = json!(["198.51.100.0/29"])
    });
    assert_eq!(small.denied.len(), 1, "{small:#?}");
    assert!(changes(&small).iter().all(|(c, _)| *c == "unchanged"));
    let grown = diff("L2AddressPool", |p| {
        p["spec"]["addresses"] = json!(["203.0.113.0/28"])
    });
    assert_eq!(
        (
            grown.pools[0].capacity_before.ipv4,
            grown.pools[0].capacity.ipv4
        ),
        (8, 16)
    );
}

#[test]
fn others_objects_that_are_there_already_are_no_difference() {
    let world = with_others();
    let same = compare(&world, &others());
    assert!(!same.differs(), "{same:#?}");
    // As they are in a repository: without what the cluster adds.
    let mut written = others();
    for value in &mut written {
        let fields = value.as_object_mut().unwrap();
        fields.remove("status");
        let meta = fields["metadata"].as_object_mut().unwrap();
        meta.retain(|key, _| key == "name" || key == "namespace");
    }
    written[1]["spec"] = json!({"type": "LoadBalancer"});
    written[3]["spec"] = json!({"addresses": ["192.0.2.0/24"]});
    let same = compare(&world, &written);
    assert!(!same.differs(), "{same:#?}");
}

#[test]
fn others_objects_that_differ_are_named() {
    let mut files = others();
    files[0]["metadata"]["labels"]
        .as_object_mut()
        .unwrap()
        .remove("zone");
    files[1]["spec"]["externalIPs"] = json!(["192.0.2.10"]);
    files[2]["metadata"]["labels"]["by"] = json!("another");
    files[3]["spec"]["autoAssign"] = json!(false);
    files[4]["spec"]["cidrs"] = json!(["10.0.0.0/15"]);
    let differs = compare(&with_others(), &files);
    let wanted = [
        "Node c",
        "Service shop/other",
        "Namespace shop",
        "IPAddressPool metallb-system/other",
        "ServiceCIDR kubernetes",
    ];
    assert_eq!(differs.objects, wanted);
    assert!(differs.differs());
}

#[test]
fn a_pool_that_is_being_deleted_stays_so() {
    let mut world = with_others();
    let mut pool = object(&world, "L2AddressPool");
    pool["metadata"]["deletionTimestamp"] = json!(world.now);
    pool["metadata"]["finalizers"] = json!(["l2lb.io/addresses-in-use"]);
    world.observe(observe_manifest(pool.clone()).unwrap().unwrap());
    let mut new = object(&world, "L2LoadBalancer");
    new["metadata"] = json!({"name": "new", "namespace": "shop"});
    let alone = compare(&world, std::slice::from_ref(&new));
    assert!(!alone.denied.is_empty(), "{alone:#?}");
    pool["metadata"] = json!({"name": "edge"});
    let both = compare(&world, &[pool, new]);
    assert_eq!(both.denied, alone.denied);
    assert!(changes(&both).iter().all(|(c, _)| *c == "unchanged"));
}

#[test]
fn an_annotation_that_the_file_does_not_have_stays() {
    let mut world = with_others();
    let key = Key::new("shop", "web");
    let mut web = object(&world, "L2LoadBalancer");
    web["metadata"]["annotations"] = json!({"l2lb.io/confirm-retirement": "true"});
    world.observe(observe_manifest(web.clone()).unwrap().unwrap());
    web["metadata"] = json!({"name": "web", "namespace": "shop", "annotations": {"a": "b"}});
    let manifests = manifest::parse("test", &manifest::to_yaml([&web]).unwrap()).unwrap();
    let applied = Applied::to(&world, &[], manifests, "default").unwrap();
    let annotations = applied.world.load_balancers[&key]
        .metadata()
        .annotations
        .clone();
    let wanted = json!({"a": "b", "l2lb.io/confirm-retirement": "true"});
    assert_eq!(json!(annotations), wanted);
    assert!(matches!(
        applied.world.load_balancers[&key],
        Stored::Valid(_)
    ));
}

#[test]
fn a_field_that_does_not_exist_is_denied() {
    let typo = diff("L2LoadBalancer", |lb| lb["spec"]["maxNode"] = json!(1));
    let wanted = ["L2LoadBalancer shop/web: spec.maxNode: there is no such field"];
    assert_eq!(typo.denied, wanted);
    assert!(changes(&typo).iter().all(|(c, _)| *c == "unchanged"));
}

#[test]
fn a_node_is_named_by_its_name() {
    let long = "a-name-of-more-than-sixty-three-characters.which-no-label.holds.example.org";
    let mut world = world();
    let mut value = node();
    value["metadata"]["name"] = json!(long);
    world.observe(observe_manifest(value).unwrap().unwrap());
    let key = Key::new("shop", "web");
    let mut slot = plan::plan(&world).load_balancers[&key].slots[0].clone();
    let mut moved = slot.clone();
    moved.pin = crate::api::names::node_value(long).into_owned();
    slot.home = "b".to_owned();
    moved.home = "b".to_owned();
    let place = |slot| Place {
        key: &key,
        slot,
        service: Value::Null,
    };
    let (change, note) = judge(&world, Some(&place(&slot)), Some(&place(&moved)));
    assert_eq!(change, Change::Moved);
    assert_eq!(note, format!("announced by {long}"));
}
