//! Where the pods of applications are, and the EndpointSlices that say so:
//! Kubernetes' part in a made-up cluster, for Services with
//! `externalTrafficPolicy: Local`, whose slices alone are ever looked at.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Cluster;
use crate::world::{Key, Kind, ObjectRef};

impl Cluster {
    /// Says on which nodes the application of a load balancer has a ready pod.
    pub fn put_pods(&mut self, load_balancer: &Key, nodes: impl IntoIterator<Item = String>) {
        let nodes = nodes.into_iter().collect();
        self.pods.insert(load_balancer.clone(), nodes);
        self.write_slices();
    }

    /// Brings the EndpointSlices up to date. Returns whether anything changed.
    pub(super) fn write_slices(&mut self) -> bool {
        let wanted = self.wanted_slices();
        if wanted == self.slices {
            return false;
        }
        let before = std::mem::replace(&mut self.slices, wanted.clone());
        for service in before.keys().filter(|s| !wanted.contains_key(*s)) {
            self.world.forget(&slice_of(service));
        }
        for (service, nodes) in &wanted {
            if before.get(service) != Some(nodes) {
                // Built here, so it can be read.
                let _ = self.put(Kind::EndpointSlice, manifest(service, nodes));
            }
        }
        true
    }

    /// The nodes with a pod that serves, for each Service of which they are
    /// known. With its node a pod is not ready any more.
    fn wanted_slices(&self) -> BTreeMap<Key, BTreeSet<String>> {
        let mut wanted = BTreeMap::new();
        for (load_balancer, nodes) in &self.pods {
            let is_ready = |node: &String| self.world.nodes.get(node).is_some_and(|n| n.ready);
            let serving = nodes.iter().filter(|node| is_ready(node));
            let serving: BTreeSet<String> = serving.cloned().collect();
            let children = self.world.children.get(load_balancer);
            for child in children.into_iter().flat_map(|slots| slots.values()) {
                if child.is_local() {
                    wanted.insert(child.key.clone(), serving.clone());
                }
            }
        }
        wanted
    }
}

fn slice_of(service: &Key) -> ObjectRef {
    ObjectRef {
        kind: Kind::EndpointSlice,
        key: Key::new(service.namespace.clone(), format!("{}-pods", service.name)),
    }
}

fn manifest(service: &Key, nodes: &BTreeSet<String>) -> Value {
    let endpoints: Vec<Value> = nodes
        .iter()
        .map(|node| {
            json!({"addresses": ["192.0.2.1"], "nodeName": node, "conditions": {"ready": true}})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": slice_of(service).key.name, "namespace": service.namespace,
            "labels": {"kubernetes.io/service-name": service.name}},
        "addressType": "IPv4", "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metallb::Capabilities;
    use crate::plan::Planner;
    use crate::simulate::{METALLB_VERSIONS, event};

    /// Who announces each slot of shop/web after some events.
    fn announcers(
        cluster: &mut Cluster,
        planner: &mut Planner,
        events: &str,
    ) -> Vec<Option<String>> {
        for event in event::parse(events).unwrap() {
            cluster.happen(&event).unwrap();
            cluster.settle(planner).unwrap();
        }
        let children = cluster.world.children[&Key::new("shop", "web")].values();
        children
            .map(|c| cluster.announcer(&c.key).map(str::to_owned))
            .collect()
    }

    #[test]
    fn only_nodes_with_a_ready_pod_announce() {
        for version in METALLB_VERSIONS {
            let metallb = Capabilities::of_version(version).unwrap();
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            let mut cluster = Cluster::with_metallb(now, metallb);
            let mut planner = Planner::default();
            let mut play = |events: &str| announcers(&mut cluster, &mut planner, events);
            let names = |nodes: &[&str]| -> Vec<Option<String>> {
                nodes.iter().map(|n| Some((*n).to_owned())).collect()
            };
            let nobody: Vec<Option<String>> = vec![None; 3];
            let beginning = "
- pool: {name: edge, spec: {addresses: [203.0.113.0/24]}}
- join: {node: a}
- join: {node: b}
- create: {loadBalancer: shop/web, spec: {service: {externalTrafficPolicy: Local}}}
";
            // Where pods are is not known: as if they were everywhere.
            assert_eq!(play(beginning), names(&["a", "b"]), "{version}");
            let only = "- endpoints: {loadBalancer: shop/web, nodes: [b]}\n- wait: 1m\n";
            assert_eq!(play(only), names(&["b", "b"]), "{version}");
            // The slot of a node that joins is known at once.
            let joins = "- join: {node: c}\n- wait: 1m\n";
            assert_eq!(play(joins), names(&["b", "b", "b"]), "{version}");
            // With its node the only pod is gone.
            assert_eq!(play("- lose: b\n- wait: 1m\n"), nobody, "{version}");
            let back = "- return: b\n- wait: 1m\n";
            assert_eq!(play(back), names(&["b", "b", "b"]), "{version}");
            let none = "- endpoints: {loadBalancer: shop/web, nodes: []}\n";
            assert_eq!(play(none), nobody, "{version}");
            let all = "- endpoints: {loadBalancer: shop/web, nodes: [a, b, c]}\n- wait: 1m\n";
            assert_eq!(play(all), names(&["a", "b", "c"]), "{version}");
        }
    }

    #[test]
    fn slices_go_with_their_services() {
        let mut cluster = Cluster::new("2026-01-01T00:00:00Z".parse().unwrap());
        let mut planner = Planner::default();
        let text = "
- pool: {name: edge, spec: {addresses: [203.0.113.0/24]}}
- endpoints: {loadBalancer: shop/web, nodes: [a]}
- join: {node: a}
- create: {loadBalancer: shop/web, spec: {service: {externalTrafficPolicy: Local}}}
";
        announcers(&mut cluster, &mut planner, text);
        let service = Key::new("shop", "web-0");
        let nodes = |cluster: &Cluster| {
            let nodes = cluster.world.endpoints.nodes(&service);
            nodes.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(nodes(&cluster), Some(vec!["a".to_owned()]));
        cluster.delete_load_balancer(&Key::new("shop", "web"));
        cluster.settle(&mut planner).unwrap();
        assert_eq!(nodes(&cluster), None);
    }
}
