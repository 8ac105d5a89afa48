//! Pools in a cluster that lives.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::names;
use crate::plan::Planner;
use crate::simulate::Cluster;
use crate::world::{Key, Kind, Observed};

/// Two nodes and these pools, at rest.
struct Scene {
    cluster: Cluster,
    planner: Planner,
}

impl Scene {
    fn new(pools: &[Value]) -> Self {
        let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
        for node in ["a", "b"] {
            cluster.add_node(node, &[]);
        }
        for pool in pools {
            cluster.put(Kind::AddressPool, pool.clone()).unwrap();
        }
        let mut scene = Self {
            cluster,
            planner: Planner::default(),
        };
        scene.settle();
        scene
    }

    fn settle(&mut self) {
        self.cluster.advance(SignedDuration::from_secs(1));
        self.cluster.settle(&mut self.planner).unwrap();
    }

    fn edit(&mut self, pool: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = json!(**self.cluster.world.pools[pool].valid().unwrap());
        edit(&mut object);
        self.cluster.put(Kind::AddressPool, object).unwrap();
        self.settle();
    }

    /// Reason and message of a pool's condition.
    fn condition(&self, pool: &str, kind: &str) -> (String, String) {
        let pool = self.cluster.world.pools[pool].valid().unwrap();
        let conditions = &pool.status.as_ref().unwrap().conditions;
        let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
        (found.reason.clone(), found.message.clone())
    }

    fn accepted(&self, pool: &str) -> String {
        self.condition(pool, "Accepted").0
    }

    /// The namespaces that MetalLB's pool names.
    fn namespaces(&self, pool: &str) -> Vec<String> {
        let name = names::ip_address_pool_name(pool);
        let pool = self.cluster.world.ip_address_pools[&name].valid().unwrap();
        let allocation = pool.spec.service_allocation.as_ref().unwrap();
        allocation.namespaces.clone()
    }
}

fn pool(name: &str, created: &str, spec: &Value) -> Value {
    json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
        "metadata": {"name": name, "uid": name, "creationTimestamp": created}, "spec": spec})
}

#[test]
fn an_older_pool_does_not_grow_over_a_younger_one() {
    let of = |range: &str| json!({"addresses": [range]});
    let mut scene = Scene::new(&[
        pool(
            "older",
            "2026-01-01T00:00:00Z",
            &of("192.0.2.10-192.0.2.20"),
        ),
        pool(
            "younger",
            "2026-01-02T00:00:00Z",
            &of("192.0.2.30-192.0.2.40"),
        ),
    ]);
    for pool in ["older", "younger"] {
        let key = Key::new("shop", pool);
        scene.cluster.add_load_balancer(&key, pool, &json!({}));
    }
    scene.settle();
    scene.edit("older", |pool| {
        pool["spec"]["addresses"] = json!(["192.0.2.10-192.0.2.35"]);
    });
    // Both go on, and what was not in use elsewhere is there.
    let (reason, message) = scene.condition("older", "Configured");
    assert_eq!(reason, "AddressOverlap");
    assert!(
        message.contains("192.0.2.30-192.0.2.40 was in L2AddressPool younger first"),
        "{message}"
    );
    let name = names::ip_address_pool_name("older");
    let given = scene.cluster.world.ip_address_pools[&name].valid().unwrap();
    assert_eq!(given.spec.addresses, ["192.0.2.10-192.0.2.29"]);
    scene.cluster.set_node("a", false, false);
    scene.settle();
    for pool in ["older", "younger"] {
        assert_eq!(scene.accepted(pool), "Ok");
        let children = &scene.cluster.world.children[&Key::new("shop", pool)];
        assert!(children.values().all(|child| child.pin == "b"), "{pool}");
    }
    assert_eq!(scene.cluster.rejected, Vec::<String>::new());
    scene.edit("older", |pool| {
        pool["spec"]["addresses"] = json!(["192.0.2.10-192.0.2.29"]);
    });
    assert_eq!(scene.condition("older", "Configured").0, "Ok");
    // The younger one does not grow over the older one either.
    scene.edit("younger", |pool| {
        pool["spec"]["addresses"] = json!(["192.0.2.29-192.0.2.40"]);
    });
    assert_eq!(scene.accepted("younger"), "AddressOverlap");
    assert_eq!(scene.accepted("older"), "Ok");
    // One that MetalLB has nothing of waits.
    let eldest = of("192.0.2.8-192.0.2.10");
    let eldest = pool("eldest", "2025-01-01T00:00:00Z", &eldest);
    scene.cluster.put(Kind::AddressPool, eldest).unwrap();
    scene.settle();
    assert_eq!(scene.accepted("eldest"), "AddressOverlap");
    assert_eq!(scene.accepted("older"), "Ok");
}

/// Written by a newer release, for instance.
#[test]
fn a_pool_that_cannot_be_read_may_be_deleted() {
    let spec = json!({"addresses": ["192.0.2.0/28"]});
    let mut scene = Scene::new(&[pool("edge", "2026-01-01T00:00:00Z", &spec)]);
    let mut broken = json!(**scene.cluster.world.pools["edge"].valid().unwrap());
    assert!(
        !broken["metadata"]["finalizers"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    broken["spec"]["onCordon"] = json!("Tomorrow");
    broken["metadata"]["deletionTimestamp"] = json!(scene.cluster.world.now);
    broken["apiVersion"] = json!("l2lb.io/v1alpha1");
    broken["kind"] = json!("L2AddressPool");
    let observed = Observed::read(Kind::AddressPool, broken).unwrap();
    scene.cluster.world.observe(observed);
    assert!(scene.cluster.world.pools["edge"].valid().is_none());
    // Which the simulator cannot write.
    let release = scene.cluster.settle(&mut scene.planner).unwrap_err();
    assert_eq!(release.pending, ["apply L2AddressPool edge (finalizer)"]);
    assert!(scene.cluster.world.ip_address_pools.is_empty());
}

/// Each change of a pool has MetalLB read its whole configuration again.
#[test]
fn a_namespace_stays_listed_while_it_may_use_the_pool() {
    let spec = json!({"addresses": ["192.0.2.0/28"],
        "namespaceSelector": {"matchLabels": {"edge": "ok"}}});
    let mut scene = Scene::new(&[pool("edge", "2026-01-01T00:00:00Z", &spec)]);
    let namespace = |labels: Value| {
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": labels}})
    };
    let labelled = namespace(json!({"edge": "ok"}));
    scene.cluster.put(Kind::Namespace, labelled).unwrap();
    let web = Key::new("shop", "web");
    scene.cluster.add_load_balancer(&web, "edge", &json!({}));
    scene.settle();
    assert_eq!(scene.namespaces("edge"), ["metallb-system", "shop"]);
    let written = |scene: &Scene| scene.cluster.writes[&Kind::IpAddressPool];
    let before = written(&scene);
    scene.cluster.delete_load_balancer(&web);
    scene.settle();
    scene.cluster.add_load_balancer(&web, "edge", &json!({}));
    scene.settle();
    scene.cluster.delete_load_balancer(&web);
    scene.settle();
    assert_eq!(written(&scene), before);
    // One that may not is taken out.
    let bare = namespace(json!({}));
    scene.cluster.put(Kind::Namespace, bare).unwrap();
    scene.settle();
    assert_eq!(scene.namespaces("edge"), ["metallb-system"]);
}
