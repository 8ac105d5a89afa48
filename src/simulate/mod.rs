//! A made-up cluster in memory: it takes the planner's writes as an API server
//! would, and plays MetalLB's part. For property tests, benchmarks and
//! capacity questions; no I/O.

pub mod event;
mod metallb;
mod pods;
pub mod random;
pub mod report;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::external_dns::Availability;
use crate::metallb::Capabilities;
use crate::plan::Planner;
use crate::world::{Key, Kind, ObjectRef, Observed, Options, Stored, World};

/// The newest MetalLB.
pub const METALLB: &str = "0.16.2";
/// Versions of MetalLB that differ in what matters here, the oldest first.
pub const METALLB_VERSIONS: [&str; 6] =
    ["0.13.12", "0.14.8", "0.14.9", "0.15.2", "0.16.1", METALLB];

/// A made-up cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its world, as a controller without any lag would see it.
    pub world: World,
    /// Writes so far, by kind.
    pub writes: BTreeMap<Kind, u64>,
    /// The MetalLB that runs, whatever its resource definitions say.
    pub running: Capabilities,
    /// What MetalLB's parser refused, or its speakers would, after any write.
    pub rejected: Vec<String>,
    /// Others' objects that the planner wrote to.
    pub trespasses: Vec<ObjectRef>,
    /// Addresses that MetalLB took from a Service that wanted to keep them.
    pub taken: Vec<(Key, Vec<IpAddr>)>,
    /// The nodes on which the application of a load balancer has a ready pod.
    /// Of one that is not here they are unknown, and count as being everywhere.
    pub pods: BTreeMap<Key, BTreeSet<String>>,
    /// What EndpointSlices say of each Service.
    slices: BTreeMap<Key, BTreeSet<String>>,
    /// What MetalLB has given each Service.
    ingress: BTreeMap<Key, Vec<IpAddr>>,
    /// Who announces each Service, reported or not.
    announcing: BTreeMap<Key, String>,
    version: u64,
}

/// The planner kept writing without coming to rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not at rest after {rounds} rounds; still to be written: {pending:?}")]
pub struct Restless {
    /// How many rounds were played.
    pub rounds: usize,
    /// What the last one wrote.
    pub pending: Vec<String>,
}

impl Cluster {
    /// An empty cluster with the newest MetalLB.
    pub fn new(now: Timestamp) -> Self {
        Self::with_metallb(now, Capabilities::CURRENT)
    }

    /// An empty cluster with some MetalLB.
    pub fn with_metallb(now: Timestamp, metallb: Capabilities) -> Self {
        let mut world = World::new(now, Options::default(), Capabilities::default());
        world.set_capabilities(metallb);
        world.set_external_dns(Availability::Served);
        Self {
            world,
            writes: BTreeMap::new(),
            running: metallb,
            rejected: Vec::new(),
            trespasses: Vec::new(),
            taken: Vec::new(),
            pods: BTreeMap::new(),
            slices: BTreeMap::new(),
            ingress: BTreeMap::new(),
            announcing: BTreeMap::new(),
            version: 0,
        }
    }

    /// Installs MetalLB's resource definitions; what runs stays.
    pub fn install_definitions(&mut self, metallb: Capabilities) {
        self.world.set_capabilities(metallb);
        if !metallb.l2_status {
            // Their definition goes, and they with it.
            let statuses = self.world.announcers.values();
            let names: Vec<String> = statuses.flat_map(|s| s.keys().cloned()).collect();
            for name in names {
                let namespace = self.world.options.metallb_namespace.clone();
                self.world.forget(&ObjectRef {
                    kind: Kind::ServiceL2Status,
                    key: Key::new(namespace, name),
                });
            }
        }
    }

    /// Installs another version of MetalLB, definitions and programs.
    pub fn install_metallb(&mut self, metallb: Capabilities) {
        self.install_definitions(metallb);
        self.running = metallb;
    }

    /// Creates or replaces an object from its manifest, as an API server
    /// stores it: with uid, creation time and resource version.
    ///
    /// # Errors
    /// What serde says of a manifest that cannot be read.
    pub fn put(&mut self, kind: Kind, mut manifest: Value) -> Result<ObjectRef, serde_json::Error> {
        self.version += 1;
        let key = Key::new(
            manifest["metadata"]["namespace"]
                .as_str()
                .unwrap_or_default(),
            manifest["metadata"]["name"].as_str().unwrap_or_default(),
        );
        let object = ObjectRef { kind, key };
        let (uid, created, status) = self.identity(&object);
        let meta = &mut manifest["metadata"];
        meta["uid"] = json!(uid.unwrap_or_else(|| format!("uid-{}", self.version)));
        meta["creationTimestamp"] = json!(created.unwrap_or(self.world.now));
        meta["resourceVersion"] = json!(self.version.to_string());
        meta["generation"] = json!(meta["generation"].as_i64().unwrap_or(1));
        if manifest["status"].is_null()
            && let Some(status) = status
        {
            manifest["status"] = status;
        }
        self.world.observe(Observed::read(kind, manifest)?);
        Ok(object)
    }

    /// UID, creation time and status of an object that exists.
    fn identity(&self, object: &ObjectRef) -> (Option<String>, Option<Timestamp>, Option<Value>) {
        let name = &object.key.name;
        let of = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            (
                meta.uid.clone(),
                meta.creation_timestamp.as_ref().map(|t| t.0),
            )
        };
        let (meta, status) = match object.kind {
            Kind::Service => (
                self.world
                    .child(&object.key)
                    .map(|c| of(&c.service.metadata)),
                self.ingress.get(&object.key).map(|ips| ingress_status(ips)),
            ),
            Kind::AddressPool => {
                let stored = self.world.pools.get(name);
                let status = stored.and_then(Stored::valid).map(|p| json!(p.status));
                (stored.map(|s| of(s.metadata())), status)
            }
            Kind::LoadBalancer => {
                let stored = self.world.load_balancers.get(&object.key);
                let status = stored.and_then(Stored::valid).map(|p| json!(p.status));
                (stored.map(|s| of(s.metadata())), status)
            }
            Kind::IpAddressPool => (
                self.world
                    .ip_address_pools
                    .get(name)
                    .map(|s| of(s.metadata())),
                None,
            ),
            Kind::L2Advertisement => (
                self.world
                    .l2_advertisements
                    .get(name)
                    .map(|s| of(s.metadata())),
                None,
            ),
            Kind::DnsEndpoint => (
                self.world
                    .dns_endpoints
                    .get(&object.key)
                    .map(|s| of(s.metadata())),
                None,
            ),
            _ => (None, None),
        };
        let (uid, created) = meta.unwrap_or((None, None));
        (uid, created, status)
    }

    /// Adds a node, Ready, with `kubernetes.io/hostname` and more labels.
    pub fn add_node(&mut self, name: &str, labels: &[(&str, &str)]) {
        let mut all: BTreeMap<&str, &str> = labels.iter().copied().collect();
        all.insert("kubernetes.io/hostname", name);
        self.put_node(name, &json!(all), true, false);
    }

    /// Makes a node Ready or not, cordoned or not, with its labels kept.
    pub fn set_node(&mut self, name: &str, ready: bool, cordoned: bool) {
        if let Some(node) = self.world.nodes.get(name) {
            let labels = json!(node.labels);
            self.put_node(name, &labels, ready, cordoned);
        }
    }

    fn put_node(&mut self, name: &str, labels: &Value, ready: bool, cordoned: bool) {
        let was = self.world.nodes.get(name).map(|n| n.ready);
        let since = match self.world.nodes.get(name) {
            Some(node) if was == Some(ready) => node.since.unwrap_or(self.world.now),
            _ => self.world.now,
        };
        let status = if ready { "True" } else { "False" };
        let manifest = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"unschedulable": cordoned},
            "status": {"conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": since}]},
        });
        // Built above, so it can be read.
        let _ = self.put(Kind::Node, manifest);
    }

    /// Takes a node out of the cluster.
    pub fn remove_node(&mut self, name: &str) {
        self.world.forget(&ObjectRef {
            kind: Kind::Node,
            key: Key::new("", name),
        });
    }

    /// Adds a pool with these ranges for every node.
    pub fn add_pool(&mut self, name: &str, addresses: &[&str]) {
        let manifest = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": name}, "spec": {"addresses": addresses}});
        let _ = self.put(Kind::AddressPool, manifest);
    }

    /// Adds a load balancer; `spec` completes a minimal spec.
    pub fn add_load_balancer(&mut self, key: &Key, pool: &str, spec: &Value) {
        let mut manifest = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "spec": {"addressPool": pool, "service": {
                "selector": {"app": key.name},
                "ports": [{"name": "https", "port": 443, "targetPort": 8443}]}}});
        if let (Some(into), Some(more)) = (manifest["spec"].as_object_mut(), spec.as_object()) {
            for (field, value) in more {
                if let (Some(into), Some(more)) = (
                    into.get_mut(field).and_then(Value::as_object_mut),
                    value.as_object(),
                ) {
                    into.extend(more.clone());
                } else {
                    into.insert(field.clone(), value.clone());
                }
            }
        }
        let _ = self.put(Kind::LoadBalancer, manifest);
    }

    /// Deletes a load balancer at once, as background deletion does.
    pub fn delete_load_balancer(&mut self, key: &Key) {
        self.world.forget(&ObjectRef {
            kind: Kind::LoadBalancer,
            key: key.clone(),
        });
    }

    /// Marks a pool as being deleted; its finalizer holds it.
    pub fn delete_pool(&mut self, name: &str) {
        let Some(Stored::Valid(pool)) = self.world.pools.get(name) else {
            return;
        };
        let mut pool = (**pool).clone();
        if pool.metadata.finalizers.iter().flatten().next().is_none() {
            let object = ObjectRef {
                kind: Kind::AddressPool,
                key: Key::new("", name),
            };
            return self.world.forget(&object);
        }
        pool.metadata.deletion_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.world.now),
        );
        self.world
            .observe(Observed::AddressPool(Stored::Valid(Arc::new(pool))));
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: SignedDuration) {
        self.world
            .set_now(self.world.now.saturating_add(by).unwrap_or(self.world.now));
    }

    /// Plans, writes and lets MetalLB act until nothing is left to do.
    /// Returns the number of writes.
    ///
    /// # Errors
    /// [`Restless`] when that does not end.
    pub fn settle(&mut self, planner: &mut Planner) -> Result<usize, Restless> {
        const ROUNDS: usize = 30;
        let mut writes = 0;
        let mut pending = Vec::new();
        for _ in 0..ROUNDS {
            let plan = planner.plan(&self.world);
            for change in &plan.changes {
                self.apply(change);
            }
            writes += plan.changes.len();
            let moved = self.play_metallb();
            let at_rest = plan.changes.is_empty() && !moved;
            if at_rest && !self.world.set_evenness(planner.evenness()) {
                return Ok(writes);
            }
            pending = plan
                .changes
                .iter()
                .map(|c| format!("{} {} ({})", c.action.verb(), c.object, c.cause.as_str()))
                .collect();
        }
        Err(Restless {
            rounds: ROUNDS,
            pending,
        })
    }

    /// The addresses that each Service has been given by MetalLB.
    pub fn given(&self) -> &BTreeMap<Key, Vec<IpAddr>> {
        &self.ingress
    }

    /// The node that announces a Service, as MetalLB would elect it now.
    pub fn announcer(&self, service: &Key) -> Option<&str> {
        self.announcing.get(service).map(String::as_str)
    }

    /// Of how many slots each node is the home, for nodes that exist.
    pub fn homes(&self) -> BTreeMap<String, usize> {
        self.count(|c| c.retire_at.is_none().then_some(c.home.as_str()))
    }

    /// How many slots each node announces.
    pub fn announced(&self) -> BTreeMap<String, usize> {
        let mut counts: BTreeMap<String, usize> =
            self.world.nodes.keys().map(|n| (n.clone(), 0)).collect();
        for node in self.announcing.values() {
            *counts.entry(node.clone()).or_default() += 1;
        }
        counts
    }

    fn count(&self, of: impl Fn(&crate::world::Child) -> Option<&str>) -> BTreeMap<String, usize> {
        let mut counts: BTreeMap<String, usize> =
            self.world.nodes.keys().map(|n| (n.clone(), 0)).collect();
        for child in self.world.children.values().flat_map(|s| s.values()) {
            if let Some(count) = of(child).and_then(|v| counts.get_mut(v)) {
                *count += 1;
            }
        }
        counts
    }

    /// Every address that a child names, with the Services that name it.
    pub fn named(&self) -> BTreeMap<IpAddr, BTreeSet<Key>> {
        let mut named: BTreeMap<IpAddr, BTreeSet<Key>> = BTreeMap::new();
        for child in self.world.children.values().flat_map(|s| s.values()) {
            for address in &child.addresses {
                named.entry(*address).or_default().insert(child.key.clone());
            }
        }
        named
    }
}

fn ingress_status(ips: &[IpAddr]) -> Value {
    let list: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    json!({"loadBalancer": {"ingress": list}})
}
