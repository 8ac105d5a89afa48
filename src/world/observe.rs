//! How objects enter and leave the world.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    Child, InterfaceFailure, Key, Kind, Namespace, Node, ObjectRef, Observed, ServiceRecord,
    Stored, World,
};
use crate::address::{AddressRange, Family};
use crate::api::names;
use crate::metallb;

impl World {
    /// Takes in an object that exists, in its newest state.
    pub fn observe(&mut self, observed: Observed) {
        let object = observed.object();
        let name = object.key.name.clone();
        match observed {
            Observed::Node(node) => {
                let read = Node::read(&node, self.nodes.get(&name), self.now);
                if self.nodes.get(&name) != Some(&read) {
                    self.nodes.insert(name, read);
                    self.touch_environment();
                }
            }
            Observed::Namespace(namespace) => {
                let read = Namespace {
                    terminating: namespace.metadata.deletion_timestamp.is_some(),
                    labels: namespace.metadata.labels.unwrap_or_default(),
                };
                if self.namespaces.get(&name) != Some(&read) {
                    self.namespaces.insert(name, read);
                    self.touch_environment();
                }
            }
            Observed::Service(service) => self.observe_service(object.key, *service),
            Observed::AddressPool(pool) => {
                self.pools.insert(name, pool);
                self.touch_environment();
            }
            Observed::LoadBalancer(load_balancer) => {
                let key = object.key;
                // Whose pool it names matters to others; its status does not.
                let same_spec = match (self.load_balancers.get(&key), &load_balancer) {
                    (Some(Stored::Valid(a)), Stored::Valid(b)) => {
                        a.spec == b.spec
                            && a.metadata.deletion_timestamp == b.metadata.deletion_timestamp
                            && a.metadata.uid == b.metadata.uid
                    }
                    _ => false,
                };
                if !same_spec {
                    self.touch_environment();
                }
                self.load_balancers.insert(key.clone(), load_balancer);
                self.touch_load_balancer(key);
            }
            Observed::IpAddressPool(pool) => {
                self.touch_owner(&name);
                self.ip_address_pools.insert(name, pool);
                self.touch_environment();
            }
            Observed::L2Advertisement(advertisement) => {
                self.touch_owner(&name);
                self.l2_advertisements.insert(name, advertisement);
                self.touch_environment();
            }
            Observed::BgpAdvertisement(advertisement) => {
                self.bgp_advertisements.insert(name, advertisement);
                self.touch_environment();
            }
            Observed::ServiceL2Status(meta) => self.observe_announcer(&object.key, &meta),
            Observed::DnsEndpoint(endpoint) => {
                self.dns_endpoints.insert(object.key.clone(), endpoint);
                self.touch_load_balancer(object.key);
            }
            Observed::ServiceCidr(cidr) => {
                let ranges = cidr
                    .spec
                    .iter()
                    .flat_map(|s| s.cidrs.iter().flatten())
                    .filter_map(|c| AddressRange::parse_leniently(c).ok())
                    .collect();
                self.service_cidrs.insert(name, ranges);
                self.touch_environment();
            }
            Observed::Pod(pod) => {
                // `render` is given pods of everywhere.
                if object.key.namespace == self.options.metallb_namespace
                    && self.speakers.observe(&pod, self.now)
                {
                    self.touch_environment();
                }
            }
            Observed::Event(event) => match InterfaceFailure::read(&event) {
                Some(failure) => {
                    if self.interface_failures.get(&object.key) != Some(&failure) {
                        self.interface_failures.insert(object.key, failure);
                        self.touch_environment();
                    }
                }
                None => self.forget(&object),
            },
            Observed::EndpointSlice(slice) => self.observe_endpoints(&object.key, &slice),
        }
    }

    /// Takes out an object that is gone.
    pub fn forget(&mut self, object: &ObjectRef) {
        let name = &object.key.name;
        match object.kind {
            Kind::Node => {
                self.nodes.remove(name);
                self.speakers.forget_node(name);
            }
            Kind::Namespace => drop(self.namespaces.remove(name)),
            Kind::AddressPool => drop(self.pools.remove(name)),
            Kind::LoadBalancer => {
                self.load_balancers.remove(&object.key);
                self.touch_load_balancer(object.key.clone());
            }
            Kind::IpAddressPool => drop(self.ip_address_pools.remove(name)),
            Kind::L2Advertisement => drop(self.l2_advertisements.remove(name)),
            Kind::BgpAdvertisement => drop(self.bgp_advertisements.remove(name)),
            Kind::ServiceCidr => drop(self.service_cidrs.remove(name)),
            Kind::DnsEndpoint => {
                self.dns_endpoints.remove(&object.key);
                self.refusals.remove(object);
                self.touch_load_balancer(object.key.clone());
                return;
            }
            Kind::Service => {
                self.forget_service(&object.key);
                return;
            }
            Kind::ServiceL2Status => {
                self.forget_announcer(&object.key);
                return;
            }
            Kind::Pod => {
                if self.speakers.forget(name, self.now) {
                    self.touch_environment();
                }
                return;
            }
            Kind::EndpointSlice => {
                self.forget_endpoints(&object.key);
                return;
            }
            Kind::Event => {
                if self.interface_failures.remove(&object.key).is_some() {
                    self.touch_environment();
                }
                return;
            }
        }
        self.refusals.remove(object);
        if matches!(object.kind, Kind::IpAddressPool | Kind::L2Advertisement) {
            self.touch_owner(name);
        }
        self.touch_environment();
    }

    fn observe_service(&mut self, key: Key, service: Service) {
        if key.namespace == "default" && key.name == "kubernetes" {
            let families = service.spec.as_ref().and_then(|s| s.ip_families.as_ref());
            self.primary_family = families.and_then(|f| f.first()).map(|f| {
                if f == "IPv6" {
                    Family::IPv6
                } else {
                    Family::IPv4
                }
            });
        }
        let record = ServiceRecord::read(service);
        match record {
            ServiceRecord::Child(mut child) => {
                let known = self.child(&key);
                child.pinned_since = known
                    .filter(|known| known.pin == child.pin)
                    .map_or(self.now, |known| known.pinned_since);
                if known.is_some_and(|known| **known == *child) {
                    return;
                }
                self.note_allocator(&child);
                self.remove_service(&key);
                self.served_by_old += usize::from(child.served_by_old);
                self.hold(&key, child.all_addresses());
                let owner = owner_of(&key);
                self.departed.remove(&key);
                self.children
                    .entry(owner.clone())
                    .or_default()
                    .insert(child.slot, Arc::from(child));
                self.touch_load_balancer(owner);
            }
            ServiceRecord::Foreign(service) => {
                if self.foreign_services.get(&key) == Some(&service) {
                    return;
                }
                let had_addresses = self.remove_service(&key);
                if had_addresses || !service.addresses.is_empty() {
                    self.touch_environment();
                }
                // It may have taken, or given back, a name that a slot needs.
                self.touch_load_balancer(owner_of(&key));
                self.hold(&key, service.addresses.iter().copied());
                self.foreign_services.insert(key, service);
            }
        }
    }

    /// A Service on which a MetalLB from 0.14.9 on has newly left its mark
    /// shows that the controller is the one that the definitions belong to.
    fn note_allocator(&mut self, child: &Child) {
        let marked = |child: &Child| {
            let annotations = child.service.metadata.annotations.as_ref();
            annotations.is_some_and(|a| a.contains_key(names::METALLB_ALLOCATED))
        };
        if self.old_controller_may_run
            && self.capabilities.new_annotations
            && marked(child)
            && !self.child(&child.key).is_some_and(|known| marked(known))
        {
            self.old_controller_may_run = false;
            self.touch_environment();
        }
    }

    fn forget_service(&mut self, key: &Key) {
        let was_child = self.child(key).is_some();
        if self.remove_service(key) {
            self.touch_environment();
        }
        if was_child {
            self.departed.insert(key.clone(), self.now);
            self.touch_environment();
        }
        self.touch_load_balancer(owner_of(key));
        self.refusals.remove(&ObjectRef {
            kind: Kind::Service,
            key: key.clone(),
        });
    }

    /// Returns whether the Service was there and had addresses.
    fn remove_service(&mut self, key: &Key) -> bool {
        let addresses = if let Some(foreign) = self.foreign_services.remove(key) {
            foreign.addresses
        } else if let Some(child) = self.child(key).cloned() {
            let owner = owner_of(key);
            self.served_by_old -= usize::from(child.served_by_old);
            if let Some(slots) = self.children.get_mut(&owner) {
                slots.remove(&child.slot);
                if slots.is_empty() {
                    self.children.remove(&owner);
                }
            }
            Child::all_addresses(&child)
        } else {
            return false;
        };
        let any = !addresses.is_empty();
        self.release(key, addresses);
        any
    }

    fn observe_announcer(&mut self, status: &Key, meta: &ObjectMeta) {
        let label = |key: &str| meta.labels.as_ref().and_then(|l| l.get(key)).cloned();
        let (Some(node), Some(service)) =
            (label(metallb::STATUS_NODE), label(metallb::STATUS_SERVICE))
        else {
            return self.forget_announcer(status);
        };
        let service = Key::new(
            label(metallb::STATUS_NAMESPACE).unwrap_or_default(),
            service,
        );
        let statuses = self.announcers.get(&service);
        if statuses.and_then(|s| s.get(&status.name)) == Some(&node) {
            return;
        }
        self.forget_announcer(status);
        self.touch_load_balancer(owner_of(&service));
        self.announced_since.insert(service.clone(), self.now);
        self.handing_over.remove(&service);
        self.status_service
            .insert(status.name.clone(), service.clone());
        self.announcers
            .entry(service)
            .or_default()
            .insert(status.name.clone(), node);
    }

    fn forget_announcer(&mut self, status: &Key) {
        let Some(service) = self.status_service.remove(&status.name) else {
            return;
        };
        if let Some(statuses) = self.announcers.get_mut(&service) {
            let last = statuses.remove(&status.name);
            if statuses.is_empty() {
                self.announcers.remove(&service);
                self.announced_since.remove(&service);
                if let Some(last) = last.filter(|_| self.child(&service).is_some()) {
                    self.handing_over.insert(service.clone(), (last, self.now));
                }
            } else {
                self.announced_since.insert(service.clone(), self.now);
            }
        }
        if self.departed.contains_key(&service) {
            self.touch_environment();
        }
        self.touch_load_balancer(owner_of(&service));
    }
}

/// The load balancer that a Service of this name would be a slot of.
pub(super) fn owner_of(service: &Key) -> Key {
    let name = service
        .name
        .rsplit_once('-')
        .map_or(service.name.as_str(), |(name, _)| name);
    Key::new(service.namespace.clone(), name)
}
