//! The planner's writes, as an API server takes them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Cluster;
use crate::api::names;
use crate::plan::pool::owned_pool;
use crate::plan::{Action, Change};
use crate::world::{Key, Kind, ObjectRef, Observed, Stored};

impl Cluster {
    /// Carries out one write of the planner.
    pub fn apply(&mut self, change: &Change) {
        *self.writes.entry(change.object.kind).or_default() += 1;
        if self.is_anothers(&change.object) {
            self.trespasses.push(change.object.clone());
        }
        match &change.action {
            Action::Delete { .. } => {
                self.ingress.remove(&change.object.key);
                self.world.forget(&change.object);
            }
            Action::ApplyStatus(body) => self.apply_status(&change.object, &body.to_json()),
            Action::Create(body) | Action::Apply(body)
                if change.object.kind == Kind::AddressPool =>
            {
                self.apply_finalizers(&change.object.key.name, &body.to_json());
            }
            Action::Patch(body) => {
                let Some(child) = self.world.child(&change.object.key) else {
                    return;
                };
                let mut service = serde_json::json!(child.service);
                json_patch::merge(&mut service, &body.to_json());
                let _ = self.put(change.object.kind, service);
            }
            Action::Create(body) | Action::Apply(body) => {
                let mut manifest = body.to_json();
                self.keep_marks(&change.object.key, &mut manifest);
                // What the planner writes can be read.
                let _ = self.put(change.object.kind, manifest);
            }
        }
        self.judge(&change.object);
    }

    /// Server-side apply leaves what MetalLB noted on a Service.
    fn keep_marks(&self, service: &Key, manifest: &mut Value) {
        let child = self.world.child(service);
        let annotations = child.and_then(|c| c.service.metadata.annotations.as_ref());
        for mark in [names::METALLB_ALLOCATED, names::METALLB_OLD_ALLOCATED] {
            if let Some(pool) = annotations.and_then(|a| a.get(mark)) {
                manifest["metadata"]["annotations"][mark] = json!(pool);
            }
        }
    }

    fn apply_status(&mut self, object: &ObjectRef, body: &Value) {
        let status = body["status"].clone();
        self.version += 1;
        let version = Some(self.version.to_string());
        match object.kind {
            Kind::LoadBalancer => {
                let stored = self
                    .world
                    .load_balancers
                    .get(&object.key)
                    .and_then(Stored::valid);
                if let Some(mut lb) = stored.map(|o| (**o).clone()) {
                    lb.status = serde_json::from_value(status).ok();
                    lb.metadata.resource_version = version;
                    self.world
                        .observe(Observed::LoadBalancer(Stored::Valid(Arc::new(lb))));
                }
            }
            Kind::AddressPool => {
                let stored = self
                    .world
                    .pools
                    .get(&object.key.name)
                    .and_then(Stored::valid);
                if let Some(mut pool) = stored.map(|o| (**o).clone()) {
                    pool.status = serde_json::from_value(status).ok();
                    pool.metadata.resource_version = version;
                    self.world
                        .observe(Observed::AddressPool(Stored::Valid(Arc::new(pool))));
                }
            }
            _ => {}
        }
    }

    fn apply_finalizers(&mut self, name: &str, body: &Value) {
        let Some(Stored::Valid(pool)) = self.world.pools.get(name) else {
            return;
        };
        let mut pool = (**pool).clone();
        let finalizers: Vec<String> =
            serde_json::from_value(body["metadata"]["finalizers"].clone()).unwrap_or_default();
        if finalizers.is_empty() && pool.metadata.deletion_timestamp.is_some() {
            let object = ObjectRef {
                kind: Kind::AddressPool,
                key: Key::new("", name),
            };
            return self.world.forget(&object);
        }
        pool.metadata.finalizers = Some(finalizers);
        self.world
            .observe(Observed::AddressPool(Stored::Valid(Arc::new(pool))));
    }

    /// Whether an object is there that is somebody else's.
    fn is_anothers(&self, object: &ObjectRef) -> bool {
        let (world, name) = (&self.world, &object.key.name);
        let meta = match object.kind {
            Kind::Service => return world.foreign_services.contains_key(&object.key),
            Kind::IpAddressPool => world.ip_address_pools.get(name).map(Stored::metadata),
            Kind::L2Advertisement => world.l2_advertisements.get(name).map(Stored::metadata),
            _ => None,
        };
        meta.is_some_and(|meta| owned_pool(meta).is_none())
    }
}
