//! Policy Local: only nodes with a pod announce.

use super::*;

const LOCAL: &str = "Local";

fn local() -> Value {
    json!({"service": {"selector": {"app": "web"}, "ports": [{"port": 80}],
        "externalTrafficPolicy": LOCAL}})
}

#[test]
fn a_drained_node_hands_over_to_one_with_pods() {
    for version in ["0.16.2", "0.15.2"] {
        for other in ["node-1", "node-2", "node-3"] {
            let mut scene = Scene::new(version, 4, &local());
            scene.pods_on(&["node-0", other]);
            scene.settle();
            scene.cluster.set_node("node-0", true, true);
            scene.after(1);
            assert_eq!(scene.slot_of("node-0").1, other, "{version}");
        }
    }
}

#[test]
fn a_drained_node_that_has_the_only_pods_keeps_its_address() {
    for version in ["0.16.2", "0.15.2"] {
        let mut scene = Scene::new(version, 4, &local());
        scene.pods_on(&["node-0"]);
        scene.settle();
        scene.cluster.set_node("node-0", true, true);
        scene.after(60);
        assert_eq!(scene.slot_of("node-0").1, "node-0", "{version}");
        let lb = scene.cluster.world.load_balancers[&scene.key]
            .valid()
            .unwrap();
        let slots = &lb.status.as_ref().unwrap().slots;
        let slot = slots.iter().find(|s| s.node == "node-0").unwrap();
        assert_eq!(slot.phase, SlotPhase::Draining);
        let message = slot.message.as_deref().unwrap();
        assert!(
            message.contains("no other balancer node that is well has one"),
            "{message}"
        );
    }
}

/// Nobody is preferred who has a pod, and MetalLB's order takes a node that is
/// about to stop as well as any.
#[test]
fn a_home_without_pods_is_not_stood_in_for_by_a_drained_node() {
    for version in ["0.16.2", "0.15.2"] {
        let mut scene = Scene::new(version, 4, &local());
        scene.pods_on(&["node-0", "node-1"]);
        scene.settle();
        scene.cluster.set_node("node-0", true, true);
        scene.after(60);
        for home in ["node-2", "node-3"] {
            let (_, pin, addresses) = scene.slot_of(home);
            let text = addresses[0].to_string();
            let first = crate::metallb::election::winner(&text, ["node-0", "node-1"]);
            if version == "0.16.2" && first == Some("node-1") {
                assert_eq!(pin, home);
            } else {
                assert_eq!(pin, "node-1", "{version}");
            }
        }
        // Where nobody else has one, it goes on.
        scene.pods_on(&["node-0"]);
        scene.after(60);
        for (home, pin, _) in scene.slots().values() {
            let stays = version == "0.16.2" && home != "node-0";
            assert_eq!(pin, if stays { home } else { "node-0" }, "{version}");
        }
        scene.cluster.set_node("node-0", true, false);
        scene.after(60);
        assert_eq!(scene.slot_of("node-0").1, "node-0");
    }
}

/// Before MetalLB 0.16.2 nobody is listed who comes before the pin.
#[test]
fn without_preferences_the_pin_goes_where_the_pods_are() {
    let mut scene = Scene::new("0.15.2", 4, &local());
    for with_pods in ["node-0", "node-3"] {
        scene.pods_on(&[with_pods]);
        scene.after(30);
        for (home, pin, _) in scene.slots().values() {
            assert_eq!(pin, with_pods, "{home}");
        }
    }
    scene.pods_on(&["node-0", "node-1", "node-2", "node-3"]);
    scene.after(30);
    assert!(scene.slots().values().all(|(home, pin, _)| home == pin));
}

#[test]
fn where_nobody_has_a_pod_nothing_moves() {
    let mut scene = Scene::new("0.15.2", 4, &local());
    scene.pods_on(&["node-2"]);
    scene.after(30);
    let before = scene.slots();
    let writes = scene.cluster.writes.clone();
    // The only pod fails its probe again and again.
    for _ in 0..3 {
        scene.pods_on(&[]);
        scene.after(30);
        assert_eq!(scene.slots(), before);
        scene.pods_on(&["node-2"]);
        scene.after(30);
    }
    assert_eq!(scene.slots(), before);
    let services = |writes: &BTreeMap<Kind, u64>| writes.get(&Kind::Service).copied();
    assert_eq!(services(&scene.cluster.writes), services(&writes));
}

/// The node goes down for maintenance and comes back; its pod was moved away.
#[test]
fn a_home_gets_its_address_back_with_its_pod() {
    for version in ["0.16.2", "0.15.2"] {
        let mut scene = Scene::new(version, 4, &local());
        scene.pods_on(&["node-0", "node-1", "node-3"]);
        scene.settle();
        scene.cluster.set_node("node-0", true, true);
        scene.after(5);
        let stands_in = scene.slot_of("node-0").1;
        assert_ne!(stands_in, "node-0");
        scene.pods_on(&["node-1", "node-3"]);
        scene.after(60);
        assert_eq!(scene.slot_of("node-0").1, stands_in);
        scene.cluster.set_node("node-0", true, false);
        scene.after(60);
        assert_eq!(scene.slot_of("node-0").1, stands_in, "{version}");
        scene.pods_on(&["node-0", "node-1", "node-3"]);
        scene.after(60);
        assert_eq!(scene.slot_of("node-0").1, "node-0", "{version}");
    }
}
