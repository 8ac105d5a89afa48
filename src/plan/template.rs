//! What the children of one load balancer have in common, and how one of
//! them looks as a Service.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::change::Cause;
use super::load_balancer::SlotPlan;
use crate::address::Family;
use crate::api::{L2LoadBalancer, names};
use crate::world::{Child, Key};

/// What the children of one load balancer have in common.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceTemplate {
    load_balancer: Key,
    uid: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    spec: ServiceSpec,
    old_annotations: bool,
}

impl ServiceTemplate {
    /// From a load balancer, for Services of these families.
    pub fn new(
        load_balancer: &L2LoadBalancer,
        key: &Key,
        pool: &str,
        class: &str,
        candidates: &str,
        families: &[Family],
        old_annotations: bool,
    ) -> Self {
        let wanted = &load_balancer.spec.service;
        let mut labels = wanted.labels.clone();
        for (label, value) in [
            (names::MANAGED_BY, names::MANAGED_BY_VALUE),
            (names::LOAD_BALANCER, &key.name),
            (names::POOL, pool),
            (names::CANDIDATES, candidates),
        ] {
            labels.insert(label.to_owned(), value.to_owned());
        }
        if wanted.is_local() {
            labels.insert(names::TRAFFIC_POLICY.to_owned(), "Local".to_owned());
        }
        let spec = ServiceSpec {
            type_: Some("LoadBalancer".to_owned()),
            selector: Some(wanted.selector.clone()),
            ports: Some(
                wanted
                    .ports
                    .iter()
                    .map(|p| ServicePort {
                        name: p.name.clone(),
                        port: p.port,
                        protocol: Some(p.protocol.clone()),
                        target_port: Some(
                            p.target_port.clone().unwrap_or(IntOrString::Int(p.port)),
                        ),
                        app_protocol: p.app_protocol.clone(),
                        node_port: None,
                    })
                    .collect(),
            ),
            external_traffic_policy: wanted.external_traffic_policy.clone(),
            internal_traffic_policy: wanted.internal_traffic_policy.clone(),
            traffic_distribution: wanted.traffic_distribution.clone(),
            load_balancer_source_ranges: (!wanted.load_balancer_source_ranges.is_empty())
                .then(|| wanted.load_balancer_source_ranges.clone()),
            session_affinity: wanted.session_affinity.clone(),
            session_affinity_config: wanted.session_affinity_config.clone(),
            allocate_load_balancer_node_ports: Some(wanted.allocate_load_balancer_node_ports),
            publish_not_ready_addresses: wanted.publish_not_ready_addresses.then_some(true),
            load_balancer_class: (!class.is_empty()).then(|| class.to_owned()),
            ..ServiceSpec::default()
        };
        let template = Self {
            load_balancer: key.clone(),
            uid: load_balancer.metadata.uid.clone(),
            labels,
            annotations: wanted.annotations.clone(),
            spec,
            old_annotations,
        };
        template.with_families(families)
    }

    /// The same for Services of these families.
    pub fn with_families(mut self, families: &[Family]) -> Self {
        let policy = match families {
            [_, _, ..] => "RequireDualStack",
            _ => "SingleStack",
        };
        self.spec.ip_families = Some(families.iter().map(|f| f.as_str().to_owned()).collect());
        self.spec.ip_family_policy = Some(policy.to_owned());
        self.annotations.remove(names::TEMPLATE);
        let digest = self.digest();
        self.annotations.insert(names::TEMPLATE.to_owned(), digest);
        self
    }

    /// The L2AddressPool of the children.
    pub fn pool(&self) -> &str {
        self.label(names::POOL)
    }

    /// The set of candidate nodes of the children.
    pub fn candidates(&self) -> &str {
        self.label(names::CANDIDATES)
    }

    fn label(&self, key: &str) -> &str {
        self.labels.get(key).map_or("", String::as_str)
    }

    /// Stands for everything that the children have in common.
    fn digest(&self) -> String {
        let text = serde_json::to_string(&(
            &self.labels,
            &self.annotations,
            &self.spec,
            self.old_annotations,
        ))
        .unwrap_or_default();
        names::short_digest(&text)
    }

    fn slot_labels<'a>(&self, slot: &'a SlotPlan, number: &'a str) -> [(&'static str, &'a str); 3] {
        [
            (names::SLOT, number),
            (names::HOME, &slot.home),
            (names::PIN, &slot.pin),
        ]
    }

    fn slot_annotations(&self, slot: &SlotPlan) -> Vec<(&'static str, String)> {
        let addresses = join(&slot.addresses);
        let mut annotations = Vec::with_capacity(5);
        if self.old_annotations {
            annotations.push((names::METALLB_OLD_IPS, addresses.clone()));
            annotations.push((names::METALLB_OLD_POOL, slot.address_pool.clone()));
        }
        annotations.push((names::METALLB_IPS, addresses));
        annotations.push((names::METALLB_POOL, slot.address_pool.clone()));
        if let Some(at) = slot.retire_at {
            annotations.push((names::RETIRE_AT, at.to_string()));
        }
        annotations
    }

    /// A digest of the Service of a slot, to tell whether a refused write is
    /// the same again.
    pub fn content(&self, slot: &SlotPlan) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.annotations.get(names::TEMPLATE).hash(&mut hasher);
        (slot.number, &slot.home, &slot.pin, &slot.addresses).hash(&mut hasher);
        // A time that is taken anew with each attempt would make each another one.
        (&slot.address_pool, slot.retire_at.is_some()).hash(&mut hasher);
        hasher.finish()
    }

    /// The Service of a slot.
    pub fn service(&self, slot: &SlotPlan) -> Service {
        let number = slot.number.to_string();
        let mut labels = self.labels.clone();
        for (key, value) in self.slot_labels(slot, &number) {
            labels.insert(key.to_owned(), value.to_owned());
        }
        let mut annotations = self.annotations.clone();
        for (key, value) in self.slot_annotations(slot) {
            annotations.insert(key.to_owned(), value);
        }
        Service {
            metadata: ObjectMeta {
                name: Some(names::service_name(&self.load_balancer.name, slot.number)),
                namespace: Some(self.load_balancer.namespace.clone()),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: self
                    .uid
                    .as_ref()
                    .map(|uid| vec![owner(&self.load_balancer.name, uid)]),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec.clone()),
            status: None,
        }
    }

    /// A digest of what [`steering`](Self::steering) writes.
    pub fn course(&self, slot: &SlotPlan) -> u64 {
        let mut hasher = DefaultHasher::new();
        ("steering", &slot.home, &slot.pin, self.candidates()).hash(&mut hasher);
        slot.retire_at.is_none().hash(&mut hasher);
        hasher.finish()
    }

    /// What takes the addresses of an existing Service to where they belong and
    /// leaves its spec as it is: a merge patch of the labels that MetalLB's
    /// advertisements select by. A retirement is taken back by it, and not set:
    /// what a patch has set, server-side apply would not take back.
    pub fn steering(&self, slot: &SlotPlan) -> Value {
        let mut metadata = json!({"labels": {
            names::HOME: slot.home,
            names::PIN: slot.pin,
            names::CANDIDATES: self.candidates(),
        }});
        if slot.retire_at.is_none() {
            metadata["annotations"] = json!({names::RETIRE_AT: null});
        }
        json!({"metadata": metadata})
    }

    /// Why a Service must be steered, if it must.
    pub fn steers(&self, slot: &SlotPlan, child: &Child) -> Option<Cause> {
        if let Some(cause) = turn(slot, child) {
            return Some(cause);
        }
        let labels = child.service.metadata.labels.as_ref();
        let candidates = labels.and_then(|l| l.get(names::CANDIDATES));
        if candidates.is_none_or(|c| c != self.candidates()) {
            return Some(Cause::Spec);
        }
        let comes_back = slot.retire_at.is_none() && child.retire_at.is_some();
        comes_back.then_some(Cause::Retirement)
    }

    /// Why the Service that exists must be written again, if it must: every
    /// field that is wanted is compared, and whatever others added is left.
    /// `alike` says that a sibling with the same [`Child::common`] is as wanted.
    pub fn difference(&self, slot: &SlotPlan, child: &Child, alike: bool) -> Option<Cause> {
        if let Some(cause) = turn(slot, child) {
            return Some(cause);
        }
        if slot.retire_at != child.retire_at {
            return Some(Cause::Retirement);
        }
        if alike && has_addresses(slot, child) {
            return None;
        }
        let service = &child.service;
        let empty = BTreeMap::new();
        let labels = service.metadata.labels.as_ref().unwrap_or(&empty);
        let annotations = service.metadata.annotations.as_ref().unwrap_or(&empty);
        if annotations.get(names::TEMPLATE) != self.annotations.get(names::TEMPLATE) {
            return Some(Cause::Spec);
        }
        let kept = self.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self
                .annotations
                .iter()
                .all(|(k, v)| annotations.get(k) == Some(v))
            && self.names_addresses(annotations, slot, child)
            && child.owner == self.uid
            && service
                .spec
                .as_ref()
                .is_some_and(|have| covers(&self.spec, have));
        (!kept).then_some(Cause::Drift)
    }
}

impl ServiceTemplate {
    /// Whether the annotations name the slot's pool and its addresses, in
    /// whatever order.
    fn names_addresses(
        &self,
        annotations: &BTreeMap<String, String>,
        slot: &SlotPlan,
        child: &Child,
    ) -> bool {
        let names = |pool, addresses| {
            annotations.get(pool) == Some(&slot.address_pool) && annotations.contains_key(addresses)
        };
        names(names::METALLB_POOL, names::METALLB_IPS)
            && (!self.old_annotations || names(names::METALLB_OLD_POOL, names::METALLB_OLD_IPS))
            && has_addresses(slot, child)
    }

    /// What takes ports that are not wanted out of a Service, if it has any.
    /// Server-side apply knows ports by number and protocol and leaves those
    /// that somebody else added.
    pub fn ports_patch(&self, child: &Child) -> Option<Value> {
        let wanted = self.spec.ports.as_deref().unwrap_or_default();
        let have = child
            .service
            .spec
            .as_ref()?
            .ports
            .as_deref()
            .unwrap_or_default();
        let is_wanted = |h: &ServicePort| {
            wanted
                .iter()
                .any(|w| w.port == h.port && w.protocol == h.protocol)
        };
        (!have.iter().all(is_wanted)).then(|| {
            json!({
                "metadata": {"resourceVersion": child.service.metadata.resource_version},
                "spec": {"ports": wanted},
            })
        })
    }
}

/// The owner of what is made for a load balancer.
pub(super) fn owner(load_balancer: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", names::GROUP, names::VERSION),
        kind: "L2LoadBalancer".to_owned(),
        name: load_balancer.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether the Service names the slot's pool and its addresses, in whatever order.
pub(super) fn has_addresses(slot: &SlotPlan, child: &Child) -> bool {
    child.address_pool.as_ref() == Some(&slot.address_pool)
        && slot.addresses.len() == child.addresses.len()
        && slot.addresses.iter().all(|a| child.addresses.contains(a))
}

/// Why a Service belongs elsewhere than it is, if it does.
fn turn(slot: &SlotPlan, child: &Child) -> Option<Cause> {
    if slot.home[..] != child.home {
        return Some(Cause::Home);
    }
    (slot.pin[..] != child.pin).then_some(slot.steered)
}

fn join(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// Whether every field that is wanted is as wanted; fields that are not
/// wanted are the API server's or somebody else's.
fn covers(wanted: &ServiceSpec, have: &ServiceSpec) -> bool {
    fn field<T: PartialEq>(wanted: &Option<T>, have: &Option<T>) -> bool {
        wanted.is_none() || wanted == have
    }
    field(&wanted.type_, &have.type_)
        && field(&wanted.selector, &have.selector)
        && field(
            &wanted.external_traffic_policy,
            &have.external_traffic_policy,
        )
        && field(
            &wanted.internal_traffic_policy,
            &have.internal_traffic_policy,
        )
        && field(&wanted.traffic_distribution, &have.traffic_distribution)
        && field(
            &wanted.load_balancer_source_ranges,
            &have.load_balancer_source_ranges,
        )
        && field(&wanted.session_affinity, &have.session_affinity)
        && affinity_covers(wanted, have)
        && field(&wanted.ip_families, &have.ip_families)
        && field(&wanted.ip_family_policy, &have.ip_family_policy)
        && field(
            &wanted.allocate_load_balancer_node_ports,
            &have.allocate_load_balancer_node_ports,
        )
        && field(
            &wanted.publish_not_ready_addresses,
            &have.publish_not_ready_addresses,
        )
        && field(&wanted.load_balancer_class, &have.load_balancer_class)
        && ports_cover(wanted, have)
}

/// A configuration that leaves the timeout out gets Kubernetes' default.
fn affinity_covers(wanted: &ServiceSpec, have: &ServiceSpec) -> bool {
    let timeout = |spec: &ServiceSpec| {
        spec.session_affinity_config
            .as_ref()?
            .client_ip
            .as_ref()?
            .timeout_seconds
    };
    timeout(wanted).is_none() || timeout(wanted) == timeout(have)
}

fn ports_cover(wanted: &ServiceSpec, have: &ServiceSpec) -> bool {
    let have = have.ports.as_deref().unwrap_or_default();
    wanted.ports.iter().flatten().all(|w| {
        have.iter().any(|h| {
            h.port == w.port
                && h.protocol == w.protocol
                && h.name == w.name
                && h.target_port == w.target_port
                && (w.app_protocol.is_none() || h.app_protocol == w.app_protocol)
        })
    })
}
