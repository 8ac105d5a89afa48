use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::plan::{Planner, plan};
use crate::simulate::Cluster;
use crate::world::{Key, Kind, ObjectRef};

/// All addresses of pool `edge`.
const ALL: [&str; 4] = ["203.0.113.8", "203.0.113.9", "203.0.113.10", "203.0.113.11"];
const NAME: &str = "shop.example.org";

struct Stage {
    cluster: Cluster,
    planner: Planner,
}

fn web() -> Key {
    Key::new("shop", "web")
}

/// Whoever wants what is not theirs.
fn squatter() -> Key {
    Key::new("evil", "squat")
}

impl Stage {
    /// Two nodes, and a pool of four addresses for namespace `shop`.
    fn new() -> Self {
        let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
        cluster.add_node("a", &[]);
        cluster.add_node("b", &[]);
        let mut stage = Self {
            cluster,
            planner: Planner::default(),
        };
        stage.namespace("shop", "ok");
        stage.namespace("evil", "no");
        stage.pool("edge", &["203.0.113.8/30"]);
        stage
    }

    fn namespace(&mut self, name: &str, edge: &str) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"edge": edge}}});
        self.cluster.put(Kind::Namespace, namespace).unwrap();
    }

    fn pool(&mut self, name: &str, addresses: &[&str]) {
        let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": name}, "spec": {"addresses": addresses,
                "dnsDomains": ["example.org"],
                "namespaceSelector": {"matchLabels": {"edge": "ok"}}}});
        self.cluster.put(Kind::AddressPool, pool).unwrap();
    }

    fn order(&mut self, key: &Key, pool: &str, spec: &Value) {
        self.cluster.add_load_balancer(key, pool, spec);
        self.cluster.advance(SignedDuration::from_secs(1));
    }

    fn settle(&mut self) {
        self.cluster.settle(&mut self.planner).unwrap();
    }

    fn given(&self, key: &Key) -> Vec<String> {
        let children = self.cluster.world.children.get(key);
        let children = children.into_iter().flat_map(|c| c.values());
        children
            .flat_map(|c| c.addresses.iter().map(ToString::to_string))
            .collect()
    }

    /// Who publishes names.
    fn published(&self) -> Vec<&Key> {
        self.cluster.world.dns_endpoints.keys().collect()
    }
}

#[test]
fn who_may_not_use_a_pool_reserves_nothing_of_it() {
    for pool in ["nope", "edge", "elsewhere"] {
        let mut stage = Stage::new();
        stage.pool("elsewhere", &["198.51.100.0/28"]);
        if pool == "elsewhere" {
            // It may use that one, which has other addresses.
            stage.namespace("evil", "ok");
        }
        let asks = json!({"addresses": ALL, "maxNodes": 1});
        stage.order(&squatter(), pool, &asks);
        stage.order(&web(), "edge", &json!({}));
        stage.settle();
        assert_eq!(stage.given(&web()).len(), 2, "{pool}");
        let status = plan(&stage.cluster.world).pools["edge"].status.clone();
        assert_eq!((status.reserved.ipv4, status.free.ipv4), (0, 2), "{pool}");
    }
}

#[test]
fn what_a_service_had_comes_before_what_another_asks_for() {
    let mut stage = Stage::new();
    // Both may use the pool, and the one that asks is older.
    let asks = json!({"nodeSelector": {"matchLabels": {"role": "none"}}});
    let greedy = Key::new("shop", "greedy");
    stage.order(&greedy, "edge", &asks);
    stage.order(&web(), "edge", &json!({}));
    stage.settle();
    let had = stage.given(&web());
    let mut asks = asks;
    asks["addresses"] = json!(had);
    stage.order(&greedy, "edge", &asks);
    stage.settle();
    let (kind, key) = (Kind::Service, Key::new("shop", "web-0"));
    stage.cluster.world.forget(&ObjectRef { kind, key });
    stage.settle();
    assert_eq!(stage.given(&web()), had);
}

#[test]
fn a_namespace_that_loses_its_label_keeps_what_it_has_and_no_more() {
    let mut stage = Stage::new();
    let lost = Key::new("lost", "web");
    stage.namespace("lost", "ok");
    let asks = json!({"addresses": ALL, "maxNodes": 1, "dns": {"hostname": NAME}});
    stage.order(&lost, "edge", &asks);
    stage.settle();
    let had = stage.given(&lost);
    stage.namespace("lost", "no");
    let wants = json!({"dns": {"hostname": NAME}});
    stage.order(&web(), "edge", &wants);
    stage.settle();
    assert_eq!(stage.given(&lost), had);
    assert_eq!(stage.given(&web()).len(), 2);
    // Its record stays, and is the only one of the name.
    assert_eq!(stage.published(), [&lost]);
}

#[test]
fn who_may_not_use_a_pool_claims_no_name() {
    for pool in ["nope", "edge"] {
        let mut stage = Stage::new();
        let wants = json!({"dns": {"hostname": NAME}, "maxNodes": 1});
        stage.order(&squatter(), pool, &wants);
        stage.order(&web(), "edge", &wants);
        stage.settle();
        assert_eq!(stage.published(), [&web()], "{pool}");
    }
}

#[test]
fn nobody_takes_a_name_that_is_published() {
    let mut stage = Stage::new();
    let wants = json!({"dns": {"hostname": NAME}, "maxNodes": 1});
    stage.order(&squatter(), "late", &wants);
    stage.order(&web(), "edge", &wants);
    stage.settle();
    assert_eq!(stage.published(), [&web()]);
    // The older one may be served by now.
    stage.namespace("evil", "ok");
    stage.pool("late", &["198.51.100.0/28"]);
    stage.settle();
    assert_eq!(stage.given(&squatter()).len(), 1);
    assert_eq!(stage.published(), [&web()]);
    stage.cluster.delete_load_balancer(&web());
    stage.settle();
    assert_eq!(stage.published(), [&squatter()]);
}
