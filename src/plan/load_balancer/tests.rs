mod local;
mod steering;

use super::*;
use crate::metallb::Capabilities;
use crate::plan::{Planner, plan};
use crate::simulate::Cluster;
use jiff::SignedDuration;
use serde_json::{Value, json};

/// A cluster of nodes `node-0`, `node-1`... with one load balancer, at rest.
struct Scene {
    cluster: Cluster,
    planner: Planner,
    key: Key,
}

impl Scene {
    fn new(version: &str, nodes: usize, spec: &Value) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let metallb = Capabilities::of_version(version).unwrap();
        let mut cluster = Cluster::with_metallb(now, metallb);
        for n in 0..nodes {
            cluster.add_node(&node(n), &[]);
        }
        cluster.add_pool("edge", &["203.0.113.0/26"]);
        let key = Key::new("shop", "web");
        cluster.add_load_balancer(&key, "edge", spec);
        let mut scene = Self {
            cluster,
            planner: Planner::default(),
            key,
        };
        scene.settle();
        scene
    }

    fn settle(&mut self) {
        self.cluster.settle(&mut self.planner).unwrap();
    }

    /// Eleven more load balancers, at rest.
    fn crowd(&mut self) {
        for n in 0..11 {
            let more = Key::new("shop", format!("more-{n}"));
            self.cluster.add_load_balancer(&more, "edge", &json!({}));
        }
        self.settle();
    }

    /// The addresses of a home, one of each load balancer, are pinned to whom
    /// MetalLB elects when nobody steers.
    fn goes_where_metallb_takes_it(&mut self, home: &str) {
        let planned = plan(&self.cluster.world);
        self.cluster.play_metallb();
        let mut seen = 0;
        for (key, plan) in &planned.load_balancers {
            for slot in plan.slots.iter().filter(|slot| slot.home == home) {
                let service = Key::new("shop", names::service_name(&key.name, slot.number));
                let announcer = self.cluster.announcer(&service);
                assert_eq!(announcer, Some(slot.pin.as_str()));
                seen += 1;
            }
        }
        assert_eq!(seen, 12);
    }

    fn after(&mut self, seconds: i64) {
        self.cluster.advance(SignedDuration::from_secs(seconds));
        self.settle();
    }

    /// Home, pin and addresses of each slot.
    fn slots(&self) -> BTreeMap<u32, (String, String, Vec<IpAddr>)> {
        let children = self.cluster.world.children[&self.key].values();
        children
            .map(|c| (c.slot, (c.home.clone(), c.pin.clone(), c.addresses.clone())))
            .collect()
    }

    fn slot_of(&self, home: &str) -> (u32, String, Vec<IpAddr>) {
        let slots = self.slots();
        let found = slots.iter().find(|(_, (h, _, _))| h == home).unwrap();
        (*found.0, found.1.1.clone(), found.1.2.clone())
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let lb = self.cluster.world.load_balancers[&self.key]
            .valid()
            .unwrap();
        let conditions = &lb.status.as_ref().unwrap().conditions;
        let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
        (
            found.status.clone(),
            found.reason.clone(),
            found.message.clone(),
        )
    }

    /// Where the pods of every slot are.
    fn pods_on(&mut self, nodes: &[&str]) {
        for number in self.slots().into_keys() {
            let service = names::service_name(&self.key.name, number);
            let endpoints: Vec<Value> = nodes
                .iter()
                .map(|n| json!({"addresses": ["192.0.2.1"], "nodeName": n}))
                .collect();
            let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"namespace": "shop", "name": format!("{service}-x"),
                    "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "endpoints": endpoints});
            self.cluster.put(Kind::EndpointSlice, slice).unwrap();
        }
    }

    /// The manifest of a slot's Service.
    fn service(&self, number: u32) -> Value {
        serde_json::to_value(&self.cluster.world.children[&self.key][&number].service).unwrap()
    }
}

fn node(n: usize) -> String {
    format!("node-{n}")
}

#[test]
fn what_was_held_stays_held_while_it_is_repaired() {
    let mut scene = Scene::new("0.16.2", 5, &json!({"retirementPeriod": "20s"}));
    for n in 0..3 {
        scene.cluster.remove_node(&node(n));
    }
    scene.after(30);
    assert_eq!(scene.condition("Pinned").1, "RetirementHeld");
    // One is back; two of five are no more than half.
    scene.cluster.add_node("node-0", &[]);
    scene.after(1);
    scene.after(120);
    assert_eq!(scene.slots().len(), 5);
    assert_eq!(scene.condition("Pinned").1, "RetirementHeld");
    scene.cluster.add_node("node-1", &[]);
    scene.cluster.add_node("node-2", &[]);
    scene.after(20);
    assert_eq!(scene.condition("Pinned").1, "Ok");
    // From then on what leaves retires.
    scene.cluster.remove_node("node-2");
    scene.after(1);
    scene.after(30);
    assert_eq!(scene.slots().len(), 4);
}

#[test]
fn those_that_leave_one_by_one_are_counted_however_short_the_period() {
    let mut scene = Scene::new("0.16.2", 5, &json!({"retirementPeriod": "0s"}));
    for n in 0..4 {
        scene.cluster.remove_node(&node(n));
        scene.after(1);
    }
    scene.after(60);
    assert_eq!(scene.slots().len(), 5);
    assert_eq!(scene.condition("Pinned").1, "RetirementHeld");
}

#[test]
fn a_service_that_is_being_deleted_keeps_its_slot() {
    let mut scene = Scene::new("0.16.2", 3, &json!({}));
    let before = scene.slots();
    let mut going = scene.service(1);
    going["metadata"]["deletionTimestamp"] = json!(scene.cluster.world.now);
    going["metadata"]["finalizers"] = json!(["example.org/cleanup"]);
    let object = scene.cluster.put(Kind::Service, going).unwrap();
    let writes = scene.cluster.writes.get(&Kind::Service).copied();
    scene.after(60);
    assert_eq!(scene.slots(), before);
    assert_eq!(scene.cluster.writes.get(&Kind::Service).copied(), writes);
    // When it is gone it comes back as it was.
    scene.cluster.world.forget(&object);
    scene.after(1);
    assert_eq!(scene.slots(), before);
}

#[test]
fn a_retired_service_that_lingers_is_deleted_once() {
    let mut scene = Scene::new("0.16.2", 3, &json!({"retirementPeriod": "20s"}));
    let (number, _, _) = scene.slot_of("node-2");
    scene.cluster.remove_node("node-2");
    scene.after(1);
    let mut going = scene.service(number);
    going["metadata"]["deletionTimestamp"] = json!(scene.cluster.world.now);
    scene.cluster.put(Kind::Service, going).unwrap();
    scene.cluster.advance(SignedDuration::from_secs(60));
    let plan = plan(&scene.cluster.world);
    let deleted = plan
        .changes
        .iter()
        .filter(|c| c.object.kind == Kind::Service);
    assert_eq!(deleted.count(), 0);
    assert_eq!(plan.load_balancers[&scene.key].slots.len(), 2);
}

#[test]
fn with_max_nodes_a_deleted_service_comes_back_on_its_node() {
    let mut scene = Scene::new("0.16.2", 3, &json!({"maxNodes": 1}));
    let before = scene.slots();
    let home = before[&0].0.clone();
    // Its node has more than the others.
    for n in 0..2 {
        let select = json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": home}}});
        let more = Key::new("shop", format!("more-{n}"));
        scene.cluster.add_load_balancer(&more, "edge", &select);
    }
    scene.settle();
    scene.cluster.world.forget(&ObjectRef {
        kind: Kind::Service,
        key: Key::new("shop", "web-0"),
    });
    scene.after(1);
    assert_eq!(scene.slots(), before);
}

#[test]
fn a_node_that_comes_with_the_hostname_of_another_takes_nothing_from_it() {
    for version in ["0.16.2", "0.15.2"] {
        let mut scene = Scene::new(version, 3, &json!({"retirementPeriod": "20s"}));
        let before = scene.slots();
        let twin = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "node-9", "labels": {"kubernetes.io/hostname": "node-1"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        scene.cluster.put(Kind::Node, twin).unwrap();
        scene.after(60);
        assert_eq!(scene.slots(), before, "{version}");
        let (_, reason, message) = scene.condition("Pinned");
        assert_eq!(reason, "NodeNotIdentifiable", "{version}");
        assert!(
            message.contains("node-1") && message.contains("node-9"),
            "{message}"
        );
    }
}

/// MetalLB elects another the moment that a node is gone, before anybody can steer.
#[test]
fn what_a_node_leaves_goes_where_metallb_takes_it_first() {
    let mut scene = Scene::new("0.16.2", 5, &json!({}));
    scene.crowd();
    scene.cluster.remove_node("node-2");
    scene.goes_where_metallb_takes_it("node-2");
}

#[test]
fn a_handover_is_no_moment_without_an_announcer() {
    let mut scene = Scene::new("0.16.2", 3, &json!({}));
    let service = Key::new("shop", "web-0");
    let statuses = &scene.cluster.world.announcers[&service];
    let name = statuses.keys().next().unwrap().clone();
    let status = ObjectRef {
        kind: Kind::ServiceL2Status,
        key: Key::new("metallb-system", name),
    };
    scene.cluster.world.forget(&status);
    let ready = |world: &World| {
        let plan = plan(world);
        let planned = &plan.load_balancers[&Key::new("shop", "web")];
        let conditions = &planned.status.conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
        (ready.status == "True", planned.deadline)
    };
    let (is_ready, again) = ready(&scene.cluster.world);
    assert!(is_ready);
    let end = scene.cluster.world.now + SignedDuration::from_secs(5);
    assert_eq!(again, Some(end));
    scene.cluster.world.set_now(end);
    assert!(!ready(&scene.cluster.world).0);
}

/// Calico says so at each of its restarts, and MetalLB acts upon it at once.
#[test]
fn what_a_node_without_network_has_goes_where_metallb_takes_it_first() {
    let mut scene = Scene::new("0.16.2", 5, &json!({}));
    scene.crowd();
    let broken = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-2", "labels": {"kubernetes.io/hostname": "node-2"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"},
            {"type": "NetworkUnavailable", "status": "True"}]}});
    scene.cluster.put(Kind::Node, broken).unwrap();
    scene.goes_where_metallb_takes_it("node-2");
}

/// A load balancer of the same name, in another pool, while the Services of the
/// one before are still there.
#[test]
fn what_was_left_in_another_pool_stays_in_that() {
    for owned in [true, false] {
        let mut scene = Scene::new("0.16.2", 2, &json!({}));
        scene.cluster.add_pool("core", &["198.51.100.0/26"]);
        let before = scene.slots();
        for number in before.keys() {
            let mut service = scene.service(*number);
            let owners = &mut service["metadata"]["ownerReferences"];
            if owned {
                owners[0]["uid"] = json!("the-one-before");
            } else {
                *owners = json!([]);
            }
            scene.cluster.put(Kind::Service, service).unwrap();
        }
        let object = scene.cluster.world.load_balancers[&scene.key]
            .valid()
            .unwrap();
        let mut object = serde_json::to_value(&**object).unwrap();
        object["spec"]["addressPool"] = json!("core");
        scene.cluster.put(Kind::LoadBalancer, object).unwrap();
        scene.after(60);
        scene.after(60);
        assert_eq!(scene.cluster.rejected, Vec::<String>::new());
        let slots = scene.slots();
        let of_core =
            |slot: &(String, String, Vec<IpAddr>)| slot.2[0].to_string().starts_with("198.");
        assert_eq!(slots.values().filter(|slot| of_core(slot)).count(), 2);
        // What was left on purpose is left.
        let kept = slots
            .iter()
            .filter(|(number, slot)| before.get(number) == Some(slot));
        assert_eq!(kept.count(), if owned { 0 } else { 2 });
        for pool in ["edge", "core"] {
            let pool = scene.cluster.world.pools[pool].valid().unwrap();
            let conditions = &pool.status.as_ref().unwrap().conditions;
            let accepted = conditions.iter().find(|c| c.type_ == "Accepted").unwrap();
            assert_eq!(accepted.status, "True", "{accepted:?}");
        }
    }
}

/// MetalLB looks at the labels of namespaces, too.
#[test]
fn a_namespace_that_loses_its_label_keeps_its_addresses() {
    let mut scene = Scene::new("0.16.2", 2, &json!({}));
    let namespace = |labels: Value| {
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": labels}})
    };
    let pool = |addresses: &str| {
        json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "team", "uid": "uid-team"},
            "spec": {"addresses": [addresses],
                "namespaceSelector": {"matchLabels": {"edge": "ok"}}}})
    };
    let labelled = namespace(json!({"edge": "ok"}));
    scene.cluster.put(Kind::Namespace, labelled).unwrap();
    let first = pool("198.51.100.0-198.51.100.9");
    scene.cluster.put(Kind::AddressPool, first).unwrap();
    scene.key = Key::new("shop", "team");
    let key = scene.key.clone();
    scene.cluster.add_load_balancer(&key, "team", &json!({}));
    scene.settle();
    let before = scene.slots();
    assert_eq!(before.len(), 2);
    let bare = namespace(json!({}));
    scene.cluster.put(Kind::Namespace, bare).unwrap();
    scene.after(60);
    assert_eq!(scene.condition("Accepted").1, "NamespaceNotAllowed");
    // And when the pool loses the addresses that are in use.
    let second = pool("198.51.100.20-198.51.100.29");
    scene.cluster.put(Kind::AddressPool, second).unwrap();
    scene.after(60);
    assert_eq!(scene.slots(), before);
    assert_eq!(scene.cluster.taken, vec![]);
    assert_eq!(scene.cluster.rejected, Vec::<String>::new());
}
