//! On which nodes a Service has a pod that serves. It is known for child
//! Services with `externalTrafficPolicy: Local` alone, whose EndpointSlices are
//! watched: MetalLB announces those from such nodes only.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::observe::owner_of;
use super::{Key, World};

/// The label by which an EndpointSlice names its Service.
const SERVICE: &str = "kubernetes.io/service-name";

/// What EndpointSlices say.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// The nodes of each slice, by Service and the slice's name.
    nodes: HashMap<Key, BTreeMap<String, BTreeSet<String>>>,
    /// The Service of each slice.
    services: HashMap<Key, Key>,
}

impl Endpoints {
    /// The nodes that have a pod of a Service which serves; none while no slice
    /// of it is known.
    pub fn nodes(&self, service: &Key) -> Option<BTreeSet<&str>> {
        let slices = self.nodes.get(service)?;
        let all = slices.values().flatten().map(String::as_str);
        Some(all.collect())
    }

    /// Takes a slice in; the Services for which something changed.
    fn observe(&mut self, key: &Key, slice: &EndpointSlice) -> Vec<Key> {
        let labels = slice.metadata.labels.as_ref();
        let Some(name) = labels.and_then(|l| l.get(SERVICE)) else {
            return self.forget(key).into_iter().collect();
        };
        let service = Key::new(key.namespace.clone(), name.clone());
        let mut changed = Vec::new();
        if self
            .services
            .get(key)
            .is_some_and(|before| *before != service)
        {
            changed.extend(self.forget(key));
        }
        let nodes: BTreeSet<String> = slice
            .endpoints
            .iter()
            .flatten()
            .filter(|endpoint| serves(endpoint))
            .filter_map(|endpoint| endpoint.node_name.clone())
            .collect();
        let slices = self.nodes.entry(service.clone()).or_default();
        if slices.get(&key.name) != Some(&nodes) {
            slices.insert(key.name.clone(), nodes);
            self.services.insert(key.clone(), service.clone());
            changed.push(service);
        }
        changed
    }

    /// Takes a slice out; the Service that it was of.
    fn forget(&mut self, key: &Key) -> Option<Key> {
        let service = self.services.remove(key)?;
        if let Some(slices) = self.nodes.get_mut(&service) {
            slices.remove(&key.name);
            if slices.is_empty() {
                self.nodes.remove(&service);
            }
        }
        Some(service)
    }
}

/// Whether MetalLB takes a pod for one that serves: it is ready, nobody says
/// that it is not, or it serves while it is being ended.
pub(crate) fn serves(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.is_none_or(|c| c.ready.unwrap_or(true) || c.serving.unwrap_or(false))
}

impl World {
    pub(super) fn observe_endpoints(&mut self, key: &Key, slice: &EndpointSlice) {
        for service in self.endpoints.observe(key, slice) {
            self.touch_load_balancer(owner_of(&service));
        }
    }

    pub(super) fn forget_endpoints(&mut self, key: &Key) {
        if let Some(service) = self.endpoints.forget(key) {
            self.touch_load_balancer(owner_of(&service));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(service: &str, endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"labels": {SERVICE: service}}}))
        .unwrap()
    }

    fn pod(node: &str, conditions: Value) -> Value {
        json!({"addresses": ["192.0.2.1"], "nodeName": node, "conditions": conditions})
    }

    #[test]
    fn pods_that_serve_count() {
        let all = json!([
            pod("a", json!({"ready": true})),
            pod("b", json!({"ready": false})),
            pod(
                "c",
                json!({"ready": false, "serving": true, "terminating": true})
            ),
            pod("d", json!({})),
            pod("e", json!({"ready": true, "serving": false}))
        ]);
        let mut endpoints = Endpoints::default();
        let (web, key) = (Key::new("shop", "web-0"), Key::new("shop", "web-0-x"));
        assert_eq!(endpoints.nodes(&web), None);
        assert_eq!(
            endpoints.observe(&key, &slice("web-0", all.clone())),
            std::slice::from_ref(&web)
        );
        assert_eq!(endpoints.observe(&key, &slice("web-0", all)), []);
        let nodes = endpoints.nodes(&web).unwrap();
        assert_eq!(nodes, BTreeSet::from(["a", "c", "d", "e"]));
    }

    #[test]
    fn slices_add_up_and_go() {
        let mut endpoints = Endpoints::default();
        let (web, other) = (Key::new("shop", "web-0"), Key::new("shop", "web-1"));
        let (x, y) = (Key::new("shop", "x"), Key::new("shop", "y"));
        endpoints.observe(&x, &slice("web-0", json!([pod("a", json!({}))])));
        endpoints.observe(&y, &slice("web-0", json!([])));
        assert_eq!(endpoints.nodes(&web), Some(BTreeSet::from(["a"])));
        // A slice of another Service now.
        let moved = endpoints.observe(&x, &slice("web-1", json!([pod("a", json!({}))])));
        assert_eq!(moved, [web.clone(), other.clone()]);
        assert_eq!(endpoints.nodes(&web), Some(BTreeSet::new()));
        endpoints.forget(&y);
        assert_eq!(endpoints.nodes(&web), None);
        assert!(endpoints.services.contains_key(&x) && endpoints.services.len() == 1);
        endpoints.forget(&x);
        assert_eq!(endpoints.nodes(&other), None);
    }
}
