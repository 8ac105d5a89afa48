//! Services: the children, whose labels and annotations are the durable
//! record of the allocation, and all others.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

use super::observe::owner_of;
use super::{Key, ResourceVersion};
use crate::address::Family;
use crate::api::names;

/// A child Service: one slot of a load balancer.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// The Service.
    pub key: Key,
    /// Its slot number.
    pub slot: u32,
    /// Its home, as a label value.
    pub home: String,
    /// The node that it is pinned to, as a label value.
    pub pin: String,
    /// Name of its L2AddressPool.
    pub pool: String,
    /// Since when, as far as the controller saw it.
    pub pinned_since: Timestamp,
    /// MetalLB's IPAddressPool that its addresses lie in, as it names it.
    pub address_pool: Option<String>,
    /// MetalLB up to 0.14.8 gave it its addresses, and no later one has seen it.
    pub served_by_old: bool,
    /// Its set of candidate nodes.
    pub candidates: String,
    /// When it is deleted because its home left.
    pub retire_at: Option<Timestamp>,
    /// The addresses that it names, sorted.
    pub addresses: Vec<IpAddr>,
    /// The addresses that MetalLB gave it, sorted.
    pub allocated: Vec<IpAddr>,
    /// UID of the L2LoadBalancer that owns it; `None` after its owner was
    /// deleted with `--cascade=orphan`.
    pub owner: Option<String>,
    /// It is being deleted.
    pub terminating: bool,
    /// Digest of what a slot does not have for itself alone: labels,
    /// annotations, owner and spec, without slot number, home, pin, time of
    /// retirement, values of addresses and what the API server gives each
    /// Service. What is found out about it for one child of a load balancer
    /// holds for its siblings with the same digest.
    pub common: u64,
    /// The Service itself, without managed fields.
    pub service: Service,
}

/// A Service that is not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignService {
    /// The addresses that it has: those that it was given, and its external ones,
    /// for which nodes send traffic to its pods.
    pub addresses: BTreeSet<IpAddr>,
    /// Those that it was given as a load balancer's.
    pub given: BTreeSet<IpAddr>,
    /// Those that it asks for and has not. Anybody may ask for anything, so that
    /// this keeps nobody from an address: MetalLB gives those of an
    /// L2AddressPool to children alone.
    pub asked: BTreeSet<IpAddr>,
}

/// What a Service is to us.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceRecord {
    /// A slot.
    Child(Box<Child>),
    /// Somebody else's.
    Foreign(ForeignService),
}

impl ServiceRecord {
    /// Reads a Service. It is a child when it carries our labels, has the
    /// name of its slot and is not owned by something else.
    pub fn read(service: Service) -> Self {
        match read_child(&service) {
            Some(mut child) => {
                child.service = slim(service);
                child.common = common(&child);
                Self::Child(Box::new(child))
            }
            None => Self::Foreign(ForeignService::read(&service)),
        }
    }
}

impl ForeignService {
    fn read(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let external = spec.and_then(|s| s.external_ips.as_ref());
        let external = external.into_iter().flatten();
        let given: BTreeSet<IpAddr> = ingress(service).collect();
        let mut addresses = given.clone();
        addresses.extend(external.filter_map(|a| a.parse::<IpAddr>().ok()));
        let annotations = service.metadata.annotations.as_ref();
        let asked = [names::METALLB_IPS, names::METALLB_OLD_IPS]
            .iter()
            .filter_map(|key| annotations?.get(*key))
            .chain(spec.and_then(|s| s.load_balancer_ip.as_ref()))
            .flat_map(|list| list.split(','))
            .filter_map(|a| a.trim().parse::<IpAddr>().ok())
            .filter(|a| !addresses.contains(a))
            .collect();
        Self {
            addresses,
            given,
            asked,
        }
    }
}

impl Child {
    /// The families of the Service, the primary one first.
    pub fn families(&self) -> Vec<Family> {
        let spec = self.service.spec.as_ref();
        let written = spec.and_then(|s| s.ip_families.as_ref());
        let mut families: Vec<Family> = written
            .into_iter()
            .flatten()
            .filter_map(|text| Family::BOTH.into_iter().find(|f| f.as_str() == text))
            .collect();
        if families.is_empty() {
            families = self.addresses.iter().map(|a| Family::of(*a)).collect();
        }
        families.dedup();
        families
    }

    /// Whether it is a slot of the load balancer with that UID, and not one that
    /// an earlier one of the same name has left.
    pub fn belongs_to(&self, uid: Option<&String>) -> bool {
        self.owner.is_none() || self.owner.as_ref() == uid
    }

    /// The load balancer that it is a slot of, which may be no more.
    pub fn load_balancer(&self) -> Key {
        owner_of(&self.key)
    }

    /// Whether only nodes with a ready pod announce it.
    pub fn is_local(&self) -> bool {
        let spec = self.service.spec.as_ref();
        spec.and_then(|s| s.external_traffic_policy.as_deref()) == Some("Local")
    }

    /// Every address that it names or has.
    pub fn all_addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses
            .iter()
            .chain(&self.allocated)
            .copied()
            .collect()
    }

    /// Whether its addresses lie in a pool that it has for itself.
    pub fn has_own_pool(&self) -> bool {
        self.address_pool.as_deref().is_some_and(names::is_own_pool)
    }

    /// Its resource version.
    pub fn resource_version(&self) -> ResourceVersion {
        ResourceVersion::parse(self.service.metadata.resource_version.as_deref())
    }
}

fn read_child(service: &Service) -> Option<Child> {
    let meta = &service.metadata;
    let labels = meta.labels.as_ref()?;
    let label = |key: &str| labels.get(key).cloned();
    if label(names::MANAGED_BY).as_deref() != Some(names::MANAGED_BY_VALUE) {
        return None;
    }
    let load_balancer = label(names::LOAD_BALANCER)?;
    let slot: u32 = label(names::SLOT)?.parse().ok()?;
    let name = meta.name.clone()?;
    if slot >= names::MAX_SLOTS || name != names::service_name(&load_balancer, slot) {
        return None;
    }
    let controller = meta
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    if controller.is_some_and(|o| o.kind != "L2LoadBalancer" || o.name != load_balancer) {
        return None;
    }
    let empty = BTreeMap::new();
    let annotations = meta.annotations.as_ref().unwrap_or(&empty);
    let named = annotations
        .get(names::METALLB_IPS)
        .or_else(|| annotations.get(names::METALLB_OLD_IPS));
    let mut addresses: Vec<IpAddr> = named
        .into_iter()
        .flat_map(|list| list.split(','))
        .filter_map(|a| a.trim().parse().ok())
        .collect();
    addresses.sort_unstable();
    let address_pool = annotations
        .get(names::METALLB_POOL)
        .or_else(|| annotations.get(names::METALLB_OLD_POOL));
    let mut allocated: Vec<IpAddr> = ingress(service).collect();
    allocated.sort_unstable();
    Some(Child {
        key: Key::new(meta.namespace.clone().unwrap_or_default(), name),
        slot,
        home: label(names::HOME).unwrap_or_default(),
        pin: label(names::PIN).unwrap_or_default(),
        pinned_since: Timestamp::default(),
        pool: label(names::POOL).unwrap_or_default(),
        address_pool: address_pool.cloned(),
        served_by_old: annotations.contains_key(names::METALLB_OLD_ALLOCATED)
            && !annotations.contains_key(names::METALLB_ALLOCATED),
        candidates: label(names::CANDIDATES).unwrap_or_default(),
        retire_at: annotations
            .get(names::RETIRE_AT)
            .and_then(|t| t.parse().ok()),
        addresses,
        allocated,
        owner: controller.map(|o| o.uid.clone()),
        terminating: meta.deletion_timestamp.is_some(),
        common: 0,
        service: Service::default(),
    })
}

/// The digest [`Child::common`].
fn common(child: &Child) -> u64 {
    let mut hasher = DefaultHasher::new();
    let meta = &child.service.metadata;
    for (key, value) in meta.labels.iter().flatten() {
        if ![names::SLOT, names::HOME, names::PIN].contains(&key.as_str()) {
            (key, value).hash(&mut hasher);
        }
    }
    // Tells labels from annotations.
    0u8.hash(&mut hasher);
    for (key, value) in meta.annotations.iter().flatten() {
        match key.as_str() {
            names::RETIRE_AT => {}
            names::METALLB_IPS | names::METALLB_OLD_IPS => key.hash(&mut hasher),
            _ => (key, value).hash(&mut hasher),
        }
    }
    child.owner.hash(&mut hasher);
    let spec = child.service.spec.clone().map(|mut spec| {
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        spec.health_check_node_port = None;
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
        spec
    });
    // A spec can always be written as JSON.
    serde_json::to_string(&spec)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// Without what is never compared.
fn slim(mut service: Service) -> Service {
    service.metadata.managed_fields = None;
    service.status = None;
    service
}

pub(crate) fn ingress(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    service
        .status
        .iter()
        .filter_map(|s| s.load_balancer.as_ref()?.ingress.as_ref())
        .flatten()
        .filter_map(|i| i.ip.as_ref()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(json: serde_json::Value) -> Service {
        serde_json::from_value(json).unwrap()
    }

    /// A child with changes at JSON pointers.
    fn child(changes: &[(&str, serde_json::Value)]) -> Child {
        let mut json = serde_json::json!({"metadata": {"name": "web-2", "namespace": "shop",
            "labels": {"app.kubernetes.io/managed-by": "l2lb", "l2lb.io/load-balancer": "web",
                "l2lb.io/slot": "2", "l2lb.io/home": "a", "l2lb.io/pin": "a"},
            "annotations": {"metallb.io/loadBalancerIPs": "203.0.113.7", "l2lb.io/template": "0"}},
            "spec": {"type": "LoadBalancer", "clusterIP": "198.18.128.7",
                "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        for (pointer, value) in changes {
            *json.pointer_mut(pointer).unwrap() = value.clone();
        }
        match ServiceRecord::read(service(json)) {
            ServiceRecord::Child(child) => *child,
            ServiceRecord::Foreign(_) => panic!("not a child"),
        }
    }

    #[test]
    fn siblings_have_a_common_digest_until_one_is_changed() {
        let usual = child(&[]).common;
        let sibling = child(&[
            ("/metadata/name", "web-3".into()),
            ("/metadata/labels/l2lb.io~1slot", "3".into()),
            ("/metadata/labels/l2lb.io~1home", "b".into()),
            ("/metadata/labels/l2lb.io~1pin", "c".into()),
            (
                "/metadata/annotations/metallb.io~1loadBalancerIPs",
                "203.0.113.8".into(),
            ),
            ("/spec/clusterIP", "198.18.128.8".into()),
            ("/spec/ports/0/nodePort", 30081.into()),
        ]);
        assert_eq!(sibling.common, usual);
        for (pointer, value) in [
            ("/metadata/annotations/l2lb.io~1template", "1".into()),
            ("/spec/type", "ClusterIP".into()),
            ("/spec/ports/0/port", 81.into()),
            ("/spec/ports/0/protocol", "UDP".into()),
            (
                "/metadata/annotations",
                serde_json::json!({"metallb.universe.tf/loadBalancerIPs": "203.0.113.7"}),
            ),
        ] {
            assert_ne!(child(&[(pointer, value)]).common, usual, "{pointer}");
        }
    }

    #[test]
    fn what_a_stranger_asks_for_it_does_not_have() {
        let read = |json| match ServiceRecord::read(service(json)) {
            ServiceRecord::Foreign(foreign) => foreign,
            ServiceRecord::Child(_) => panic!("a child"),
        };
        let set =
            |all: &[&str]| -> BTreeSet<IpAddr> { all.iter().map(|a| a.parse().unwrap()).collect() };
        for kind in ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] {
            let asks = read(
                serde_json::json!({"metadata": {"name": "x", "annotations": {
                "metallb.io/loadBalancerIPs": "203.0.113.7, 2001:db8::1",
                "metallb.universe.tf/loadBalancerIPs": "203.0.113.8"}},
                "spec": {"type": kind, "loadBalancerIP": "203.0.113.9"}}),
            );
            let asked = set(&["203.0.113.7", "203.0.113.8", "203.0.113.9", "2001:db8::1"]);
            assert_eq!((asks.addresses.len(), asks.asked), (0, asked), "{kind}");
        }
        let has = read(
            serde_json::json!({"metadata": {"name": "x", "annotations": {
            "metallb.io/loadBalancerIPs": "203.0.113.7,203.0.113.9"}},
            "spec": {"type": "LoadBalancer", "externalIPs": ["203.0.113.8"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}),
        );
        assert_eq!(has.addresses, set(&["203.0.113.7", "203.0.113.8"]));
        assert_eq!(has.given, set(&["203.0.113.7"]));
        assert_eq!(has.asked, set(&["203.0.113.9"]));
    }

    #[test]
    fn a_child_needs_its_name_and_owner() {
        let labels = serde_json::json!({"app.kubernetes.io/managed-by": "l2lb",
            "l2lb.io/load-balancer": "web", "l2lb.io/slot": "2", "l2lb.io/home": "a"});
        let good = service(
            serde_json::json!({"metadata": {"name": "web-2", "namespace": "shop",
            "labels": labels, "annotations": {"metallb.io/loadBalancerIPs": "203.0.113.7, 2001:db8::1"}}}),
        );
        let ServiceRecord::Child(child) = ServiceRecord::read(good) else {
            panic!("not a child")
        };
        assert_eq!((child.slot, child.addresses.len()), (2, 2));
        let misnamed =
            service(serde_json::json!({"metadata": {"name": "web-3", "labels": labels}}));
        assert!(matches!(
            ServiceRecord::read(misnamed),
            ServiceRecord::Foreign(_)
        ));
        let owned = service(
            serde_json::json!({"metadata": {"name": "web-2", "labels": labels,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web",
                "uid": "1", "controller": true}]}}),
        );
        assert!(matches!(
            ServiceRecord::read(owned),
            ServiceRecord::Foreign(_)
        ));
    }
}
