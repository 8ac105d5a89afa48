use super::*;
use serde_json::{Value, json};

fn reference(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef {
        kind,
        key: Key::new("shop", name),
    }
}

fn put(world: &mut World, kind: Kind, name: &str, rest: Value) {
    let mut value = json!({"metadata": {"name": name, "namespace": "shop", "uid": name}});
    for (field, part) in rest.as_object().into_iter().flatten() {
        match part.as_object() {
            Some(map) if field == "metadata" => {
                for (key, entry) in map {
                    value["metadata"][key] = entry.clone();
                }
            }
            _ => value[field] = part.clone(),
        }
    }
    world.observe(Observed::read(kind, value).unwrap());
}

fn put_load_balancer(world: &mut World, name: &str) {
    let spec = json!({"addressPool": "edge",
        "service": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let (api, kind) = ("l2lb.io/v1alpha1", "L2LoadBalancer");
    put(
        world,
        Kind::LoadBalancer,
        name,
        json!({"apiVersion": api, "kind": kind, "spec": spec}),
    );
}

fn put_child(world: &mut World, load_balancer: &str) {
    let labels = json!({names::MANAGED_BY: names::MANAGED_BY_VALUE,
        names::LOAD_BALANCER: load_balancer, names::SLOT: "0"});
    let name = names::service_name(load_balancer, 0);
    put(
        world,
        Kind::Service,
        &name,
        json!({"metadata": {"labels": labels}}),
    );
}

/// Jobs, previews and tests make Services of ever new names.
#[test]
fn what_came_and_went_leaves_nothing_behind() {
    let mut world = World::default();
    put_load_balancer(&mut world, "web");
    put_child(&mut world, "web");
    for number in 0..1_000 {
        let name = format!("preview{number}-0");
        put(
            &mut world,
            Kind::Service,
            &name,
            json!({"spec": {"externalIPs": ["192.0.2.1"]}}),
        );
        world.forget(&reference(Kind::Service, &name));
        let name = format!("lb{number}");
        put_load_balancer(&mut world, &name);
        put_child(&mut world, &name);
        world.forget(&reference(Kind::LoadBalancer, &name));
        world.forget(&reference(Kind::Service, &names::service_name(&name, 0)));
        world.forget(&reference(Kind::DnsEndpoint, &name));
    }
    let kept: Vec<_> = world.revisions.load_balancers.keys().collect();
    assert_eq!(kept, [&Key::new("shop", "web")]);
    assert_eq!(world.holders.len(), 0);
    // Only for a while.
    world.set_now(world.now + LINGER);
    assert!(world.departed.is_empty());
}

/// A plan is remembered by its revision, which must not come again.
#[test]
fn revisions_do_not_come_again() {
    let mut world = World::default();
    let key = Key::new("shop", "web");
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        put_load_balancer(&mut world, "web");
        assert!(seen.insert(world.load_balancer_revision(&key)));
        put_child(&mut world, "web");
        assert!(seen.insert(world.load_balancer_revision(&key)));
        world.forget(&reference(Kind::LoadBalancer, "web"));
        // Its children are still there.
        assert!(seen.insert(world.load_balancer_revision(&key)));
        world.forget(&reference(Kind::Service, "web-0"));
        assert_eq!(world.load_balancer_revision(&key), 0);
    }
}
