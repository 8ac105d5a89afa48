//! What people and kubelets make and break.

use jiff::Timestamp;
use l2lb::world::{Kind, ObjectRef};
use serde_json::{Value, json};

use super::store::{METALLB, Store, object};

pub fn load_balancer(number: u8) -> ObjectRef {
    object(Kind::LoadBalancer, "shop", &format!("lb{number}"))
}

pub fn pool(number: u8) -> ObjectRef {
    object(Kind::AddressPool, "", &format!("pool{number}"))
}

pub fn node(number: u8) -> ObjectRef {
    object(Kind::Node, "", &format!("node{number}"))
}

pub fn balancer(kind: u8) -> Value {
    let mut spec = json!({
        "addressPool": format!("pool{}", kind % 2),
        "retirementPeriod": "60s",
        "service": {"selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    if kind >= 2 {
        spec["maxNodes"] = json!(2);
        spec["nodeSelector"] = json!({"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node0"]}]});
    }
    json!({"metadata": {"generation": 1}, "spec": spec})
}

pub fn ready_node(name: &str, ready: bool, now: Timestamp) -> Value {
    json!({
        "metadata": {"labels": {"kubernetes.io/hostname": name}},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "Unknown" },
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}]},
    })
}

/// Somebody else's Service takes a name or an address that we may want.
pub fn squat(store: &mut Store, number: u8) {
    let (name, address) = match number {
        0 => ("lb0-1", "192.0.2.200"),
        1 => ("lb1-0", "192.0.2.201"),
        2 => ("foreign", "192.0.2.3"),
        _ => ("other", "192.0.2.68"),
    };
    let service = object(Kind::Service, "shop", name);
    let used = store
        .children()
        .iter()
        .any(|(_, a)| a.iter().any(|a| a.to_string() == address));
    if store.get(&service).is_none() && !used {
        let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        store.put(
            &service,
            json!({"metadata": {}, "spec": {}, "status": status}),
        );
    }
}

pub fn foreign_services(store: &Store) -> Vec<ObjectRef> {
    let children: Vec<_> = store.children().into_iter().map(|(key, _)| key).collect();
    store
        .all(Kind::Service)
        .map(|(o, _)| o.clone())
        .filter(|o| o.key.namespace == "shop" && !children.contains(&o.key))
        .collect()
}

/// Somebody changes or deletes something of ours.
pub fn tamper(store: &mut Store, number: usize) {
    let children: Vec<_> = store.children().into_iter().map(|(key, _)| key).collect();
    if number < 12 {
        let Some(key) = children.get(number / 3) else {
            return;
        };
        let service = ObjectRef {
            kind: Kind::Service,
            key: key.clone(),
        };
        match number % 3 {
            0 => store.delete(&service),
            1 => store.edit(&service, |v| {
                v["spec"]["selector"] = json!({"app": "other"})
            }),
            _ => store.edit(&service, |v| {
                v["metadata"]["labels"]["l2lb.io/pin"] = json!("node9")
            }),
        }
        return;
    }
    let kind = if number.is_multiple_of(2) {
        Kind::IpAddressPool
    } else {
        Kind::L2Advertisement
    };
    let ours: Vec<_> = store.all(kind).map(|(o, _)| o.clone()).collect();
    if let Some(object) = ours.first() {
        assert_eq!(object.key.namespace, METALLB);
        store.delete(object);
    }
}
