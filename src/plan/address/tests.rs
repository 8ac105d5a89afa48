use jiff::Timestamp;
use serde_json::{Value, json};

use crate::plan::Planner;
use crate::simulate::Cluster;
use crate::world::{Key, Kind};

const TAKEN: &str = "203.0.113.8";

/// One slot with one address, which MetalLB has taken from it for a moment, and
/// a Service of somebody else.
fn addresses_beside(metadata: &Value, spec: &Value, status: &Value) -> Vec<String> {
    let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
    cluster.add_node("a", &[]);
    cluster.add_pool("edge", &["203.0.113.8/29"]);
    let web = Key::new("shop", "web");
    cluster.add_load_balancer(&web, "edge", &json!({}));
    cluster.settle(&mut Planner::default()).unwrap();
    let mut child = json!(cluster.world.children[&web][&0].service);
    child["status"] = json!({"loadBalancer": {}});
    cluster.put(Kind::Service, child).unwrap();
    assert!(cluster.world.children[&web][&0].allocated.is_empty());
    let mut other = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": spec, "status": status});
    other["metadata"]["name"] = json!("other");
    other["metadata"]["namespace"] = json!("others");
    cluster.put(Kind::Service, other).unwrap();
    for change in &Planner::default().plan(&cluster.world).changes {
        cluster.apply(change);
    }
    let child = &cluster.world.children[&web][&0];
    child.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn a_stranger_that_asks_for_an_address_moves_no_slot() {
    let asks = json!({"annotations": {"metallb.io/loadBalancerIPs": TAKEN}});
    for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let spec = json!({"type": kind});
        assert_eq!(
            addresses_beside(&asks, &spec, &json!({})),
            [TAKEN],
            "{kind}"
        );
    }
    let spec = json!({"type": "LoadBalancer", "loadBalancerIP": TAKEN});
    assert_eq!(addresses_beside(&json!({}), &spec, &json!({})), [TAKEN]);
    let spec = json!({"type": "ClusterIP", "externalIPs": [TAKEN]});
    assert_eq!(addresses_beside(&json!({}), &spec, &json!({})), [TAKEN]);
}

#[test]
fn a_stranger_that_was_given_an_address_has_it() {
    let spec = json!({"type": "LoadBalancer"});
    let status = json!({"loadBalancer": {"ingress": [{"ip": TAKEN}]}});
    let moved = addresses_beside(&json!({}), &spec, &status);
    assert_ne!(moved, [TAKEN]);
    assert_eq!(moved.len(), 1);
}
