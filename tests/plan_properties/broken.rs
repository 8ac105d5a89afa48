//! Promise 8: whatever is stored, nothing panics, and what is sound is served.

use l2lb::metallb::Capabilities;
use l2lb::plan::Planner;
use l2lb::world::Kind;
use proptest::prelude::*;
use serde_json::json;

use crate::choices::start;
use crate::events::{key, node};
use crate::no_harm_is_done;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn broken_objects_stop_nobody(
        texts in prop::collection::vec("[-a-z0-9./: ]{0,24}", 6),
        number in any::<i32>(),
        field in 0usize..13,
        // The broken load balancer is in the pool of the sound one.
        beside in any::<bool>(),
    ) {
        let mut cluster = start(Capabilities::CURRENT);
        for n in 0..3 {
            cluster.add_node(&node(n), &[]);
        }
        // Each is sound but for one field.
        let mut pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "bad"}, "spec": {"addresses": ["192.0.2.0/28"]}});
        let mut lb = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
            "metadata": {"name": "bad", "namespace": "shop"}, "spec": {
            "addressPool": if beside { "edge" } else { "bad" },
            "service": {"selector": {"app": "x"}, "ports": [{"port": 80}]}}});
        match field {
            0 => pool["spec"]["addresses"] = json!(texts),
            1 => pool["spec"] = json!(texts[1]),
            2 => pool["spec"]["nodeSelector"] = json!({"matchLabels": {texts[1].clone(): texts[2]}}),
            3 => pool["spec"]["interfaces"] = json!(number),
            4 => lb["spec"]["addresses"] = json!(texts),
            5 => lb["spec"]["retirementPeriod"] = json!(texts[3]),
            6 => lb["spec"]["maxNodes"] = json!(number),
            7 => lb["spec"]["service"] = json!({}),
            8 => lb["spec"]["nodeSelector"] = json!({"matchExpressions": [
                {"key": texts[1], "operator": texts[2], "values": [texts[3]]}]}),
            9 => lb["status"] = json!({"slots": texts}),
            10 => lb["spec"]["service"]["ports"] = json!([{"port": number}]),
            11 => pool["spec"]["addresses"] = json!([texts[0], "192.0.2.0/28"]),
            _ => lb["spec"]["addressPool"] = json!(texts[4]),
        }
        cluster.put(Kind::AddressPool, pool).unwrap();
        cluster.put(Kind::LoadBalancer, lb).unwrap();
        cluster.add_load_balancer(&key(0), "edge", &json!({}));
        let mut planner = Planner::default();
        // A broken status is written once with conditions and then compared
        // by them; either way the sound one is served.
        let _ = cluster.settle(&mut planner);
        prop_assert_eq!(cluster.world.children[&key(0)].len(), 3);
        for child in cluster.world.children[&key(0)].values() {
            prop_assert_eq!(cluster.announcer(&child.key), Some(child.home.as_str()));
        }
        no_harm_is_done(&cluster);
    }
}
