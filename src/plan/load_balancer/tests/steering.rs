//! A Service whose spec must stay as it is goes where it belongs all the same.

use super::*;
use crate::plan::{Action, Change};
use crate::world::Refusal;

fn service_of(scene: &Scene, number: u32) -> ObjectRef {
    ObjectRef {
        kind: Kind::Service,
        key: Key::new("shop", names::service_name(&scene.key.name, number)),
    }
}

/// What is planned for a slot's Service.
fn change_of(scene: &Scene, number: u32) -> Option<Change> {
    let object = service_of(scene, number);
    let changes = plan(&scene.cluster.world).changes;
    changes.into_iter().find(|change| change.object == object)
}

/// Edits an object as somebody else.
fn edit(scene: &mut Scene, kind: Kind, edit: impl FnOnce(&mut Value)) {
    let world = &scene.cluster.world;
    let mut object = match kind {
        Kind::AddressPool => json!(**world.pools["edge"].valid().unwrap()),
        _ => json!(**world.load_balancers[&scene.key].valid().unwrap()),
    };
    edit(&mut object);
    scene.cluster.put(kind, object).unwrap();
}

/// One field that the API server finds wrong must not hold the address.
#[test]
fn a_service_that_is_refused_is_steered() {
    for version in ["0.16.2", "0.15.2"] {
        let mut scene = Scene::new(version, 3, &json!({}));
        let (number, _, addresses) = scene.slot_of("node-1");
        edit(&mut scene, Kind::LoadBalancer, |lb| {
            lb["spec"]["service"]["selector"] = json!({"app": "a b"});
        });
        let spec = change_of(&scene, number).unwrap();
        assert!(matches!(spec.action, Action::Apply(_)), "{spec:?}");
        let retry_at = scene.cluster.world.now + SignedDuration::from_mins(5);
        let refusal = Refusal {
            message: "spec.selector: Invalid value".to_owned(),
            retry_at,
            attempts: 9,
            content: spec.content,
            reverted: false,
        };
        let object = service_of(&scene, number);
        scene.cluster.world.refuse(object.clone(), refusal.clone());
        assert_eq!(change_of(&scene, number), None);

        scene.cluster.set_node("node-1", false, false);
        let steering = change_of(&scene, number).unwrap();
        let Action::Patch(body) = &steering.action else {
            panic!("{steering:?}");
        };
        assert!(body.to_json().get("spec").is_none(), "{body:?}");
        assert!(steering.cause.is_move());
        scene.cluster.apply(&steering);
        assert_ne!(scene.slot_of("node-1").1, "node-1");
        assert_eq!(scene.slot_of("node-1").2, addresses);
        assert_eq!(scene.service(number)["spec"]["selector"]["app"], "web");

        // Who fights for the pin is no reason to write it more often.
        let fought = Refusal {
            content: 0,
            reverted: true,
            ..refusal
        };
        scene.cluster.world.refuse(object, fought);
        scene.cluster.set_node("node-1", true, false);
        scene.cluster.advance(SignedDuration::from_secs(120));
        let change = change_of(&scene, number).unwrap();
        assert!(matches!(change.action, Action::Apply(_)), "{change:?}");
    }
}

/// MetalLB takes the address of a Service whose families are changed, and gives
/// it none when there is none of the second family.
#[test]
fn without_an_address_of_the_second_family_the_first_stays() {
    for version in ["0.16.2", "0.15.2"] {
        let mut scene = Scene::new(version, 3, &json!({}));
        let before = scene.slots();
        edit(&mut scene, Kind::AddressPool, |pool| {
            pool["spec"]["addresses"] = json!(["203.0.113.0/26", "2001:db8::1/128"]);
        });
        scene.settle();
        edit(&mut scene, Kind::LoadBalancer, |lb| {
            lb["spec"]["service"]["ipFamilyPolicy"] = json!("RequireDualStack");
        });
        scene.after(60);
        let both = scene.slots();
        let mut dual = 0;
        for (number, (home, _, addresses)) in &before {
            let now = &both[number];
            assert_eq!((&now.0, now.2[0]), (home, addresses[0]), "{version}");
            dual += usize::from(now.2.len() == 2);
            let families = scene.service(*number)["spec"]["ipFamilies"].clone();
            assert_eq!(families.as_array().unwrap().len(), now.2.len());
        }
        assert_eq!(dual, 1, "{version}: {both:?}");
        assert_eq!(scene.cluster.taken, vec![]);
        assert_eq!(
            scene.condition("AddressesAllocated").1,
            "AddressesExhausted"
        );
        // What else the spec says is written.
        edit(&mut scene, Kind::LoadBalancer, |lb| {
            lb["spec"]["service"]["loadBalancerSourceRanges"] = json!(["192.0.2.0/24"]);
        });
        scene.after(1);
        for number in before.keys() {
            let ranges = &scene.service(*number)["spec"]["loadBalancerSourceRanges"];
            assert_eq!(*ranges, json!(["192.0.2.0/24"]));
        }
        // And those that wait go where they belong.
        let waiting = both.values().find(|slot| slot.2.len() == 1).unwrap();
        let home = waiting.0.clone();
        scene.cluster.set_node(&home, false, false);
        scene.after(1);
        assert_ne!(scene.slot_of(&home).1, home);
        scene.cluster.set_node(&home, true, false);
        edit(&mut scene, Kind::AddressPool, |pool| {
            pool["spec"]["addresses"] = json!(["203.0.113.0/26", "2001:db8::/124"]);
        });
        scene.after(120);
        assert!(scene.slots().values().all(|slot| slot.2.len() == 2));
        assert_eq!(scene.slot_of(&home).1, home);
    }
}

/// A Service's class cannot be changed: what asks for it would be refused with all
/// that it asks for besides.
#[test]
fn a_pool_that_changes_its_class_leaves_its_services_alone() {
    let mut scene = Scene::new("0.16.2", 3, &json!({}));
    edit(&mut scene, Kind::AddressPool, |pool| {
        pool["spec"]["loadBalancerClass"] = json!("edge.example/l2");
    });
    let written = |scene: &Scene| scene.cluster.writes.get(&Kind::Service).copied();
    let before = written(&scene);
    scene.after(60);
    assert_eq!(written(&scene), before);
    // A slot that joins is as the others are.
    scene.cluster.add_node("node-9", &[]);
    scene.after(1);
    let (number, _, _) = scene.slot_of("node-9");
    assert!(scene.service(number)["spec"]["loadBalancerClass"].is_null());
    scene.key = Key::new("shop", "new");
    let key = scene.key.clone();
    scene.cluster.add_load_balancer(&key, "edge", &json!({}));
    scene.settle();
    assert_eq!(
        scene.service(0)["spec"]["loadBalancerClass"],
        "edge.example/l2"
    );
}

/// One that waits for an address of the second family retires like any other, and
/// its status is not written with each plan.
#[test]
fn without_an_address_of_the_second_family_a_slot_retires() {
    let mut scene = Scene::new("0.16.2", 4, &json!({"retirementPeriod": "20s"}));
    edit(&mut scene, Kind::AddressPool, |pool| {
        pool["spec"]["addresses"] = json!(["203.0.113.0/26", "2001:db8::1/128"]);
    });
    edit(&mut scene, Kind::LoadBalancer, |lb| {
        lb["spec"]["service"]["ipFamilyPolicy"] = json!("RequireDualStack");
    });
    scene.after(1);
    let slots = scene.slots();
    let waiting = slots.values().find(|slot| slot.2.len() == 1).unwrap();
    let home = waiting.0.clone();
    scene.cluster.remove_node(&home);
    scene.after(1);
    assert_eq!(scene.slots().len(), 4);
    let written = |scene: &Scene| scene.cluster.writes[&Kind::LoadBalancer];
    let before = written(&scene);
    scene.after(1);
    assert_eq!(written(&scene), before);
    scene.after(30);
    assert_eq!(scene.slots().len(), 3);
}

/// A retiring slot that another node inherits while its spec is refused.
#[test]
fn steering_takes_a_retirement_back() {
    let mut scene = Scene::new("0.16.2", 3, &json!({"retirementPeriod": "1h"}));
    let (number, _, _) = scene.slot_of("node-1");
    scene.cluster.remove_node("node-1");
    scene.after(1);
    assert!(scene.service(number)["metadata"]["annotations"][names::RETIRE_AT].is_string());
    let refusal = Refusal {
        message: "spec.selector: Invalid value".to_owned(),
        retry_at: scene.cluster.world.now + SignedDuration::from_mins(5),
        attempts: 9,
        content: 1,
        reverted: false,
    };
    let object = service_of(&scene, number);
    scene.cluster.world.refuse(object, refusal);
    scene.cluster.add_node("node-9", &[]);
    let change = change_of(&scene, number).unwrap();
    assert!(matches!(change.action, Action::Patch(_)), "{change:?}");
    scene.cluster.apply(&change);
    let service = scene.service(number);
    assert_eq!(service["metadata"]["labels"][names::HOME], "node-9");
    assert!(service["metadata"]["annotations"][names::RETIRE_AT].is_null());
}
