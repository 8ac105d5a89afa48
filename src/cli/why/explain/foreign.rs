//! Addresses of Services that are not of l2lb: MetalLB elects for them in the
//! same way.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use serde::Serialize;

use super::candidates::Election;
use super::{Endpoints, Explanation, Known};
use crate::api::names;
use crate::metallb::election;
use crate::plan::neighbours::metallb_ranges;
use crate::world::{Key, World, ingress};

/// A Service that is not one of l2lb.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli::why) struct ForeignService {
    pub namespace: String,
    pub name: String,
    /// MetalLB's pool that holds its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address_pool: Option<String>,
    pub external_traffic_policy: String,
}

/// The Service that has an address from its load balancer.
pub(in crate::cli::why) fn holder(services: &[Service], address: IpAddr) -> Option<&Service> {
    services.iter().find(|s| has(s, address))
}

fn has(service: &Service, address: IpAddr) -> bool {
    ingress(service).any(|a| a == address)
}

/// Its namespace and name.
pub(in crate::cli::why) fn key(service: &Service) -> Key {
    let meta = &service.metadata;
    let namespace = meta.namespace.clone().unwrap_or_default();
    Key::new(namespace, meta.name.clone().unwrap_or_default())
}

impl Explanation {
    /// What is to be said where several Services name or have the address.
    pub(super) fn judge_holders(&mut self, holders: &[&Key], known: &Known) {
        if holders.len() < 2 {
            return;
        }
        let names: Vec<String> = holders.iter().map(ToString::to_string).collect();
        let (count, names) = (names.len(), names.join(", "));
        let having = known.foreign.iter().filter(|s| has(s, self.address));
        if having.count() == count {
            self.notes.push(format!(
                "{count} Services share this address ({names}), and MetalLB elects for each by \
                 itself: this is of the first"
            ));
            return;
        }
        self.remedies.push(format!(
            "{count} Services name or have this address ({names}), and MetalLB gives it to one of \
             them: take it out of the others"
        ));
    }

    /// Services that may ask for the address, and have it from no load balancer.
    pub(super) fn explain_claims(&mut self, world: &World, holders: &[&Key], known: &Known) {
        for holder in holders {
            let mut nodes: Vec<String> = world.announcers(holder).map(str::to_owned).collect();
            self.announced_by.append(&mut nodes);
            self.announced_since = world.announced_since.get(holder).copied();
        }
        let asks = |service: &&Service| {
            let spec = service.spec.as_ref();
            spec.and_then(|s| s.type_.as_deref()) == Some("LoadBalancer")
        };
        for service in known.foreign.iter().filter(asks) {
            self.notes.push(format!(
                "Service {} has not got it from MetalLB, so that nobody announces it for that \
                 Service",
                key(service)
            ));
        }
    }

    /// Holds MetalLB's election for a Service of somebody else.
    pub(super) fn explain_foreign(
        &mut self,
        world: &World,
        service: &Service,
        endpoints: &Endpoints,
    ) {
        let key = key(service);
        let spec = service.spec.clone().unwrap_or_default();
        let policy = spec.external_traffic_policy;
        let policy = policy.unwrap_or_else(|| "Cluster".to_owned());
        let mut addresses: Vec<IpAddr> = ingress(service).collect();
        addresses.sort_unstable();
        let pool = pool_of(world, &addresses);
        self.service = Some(ForeignService {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            ip_address_pool: pool.clone(),
            external_traffic_policy: policy.clone(),
        });
        if world.reports_announcers() {
            self.take_reports(world, &key);
        }
        if let Some(class) = spec.load_balancer_class {
            self.notes.push(format!(
                "its loadBalancerClass is {class}: MetalLB announces it only where it runs with \
                 --lb-class={class}"
            ));
        }
        let (Some(pool), Some(deciding)) = (pool, election::deciding_address(&addresses)) else {
            self.notes.push(
                "no IPAddressPool of MetalLB holds all of its addresses, and MetalLB announces no \
                 others"
                    .to_owned(),
            );
            return;
        };
        self.hold(&Election {
            world,
            pool: &pool,
            labels: &service.metadata.labels.clone().unwrap_or_default(),
            deciding: &deciding,
            endpoints,
            local: policy == "Local",
            child: None,
            states: Vec::new(),
        });
        if self.is_muted(world, service) {
            return;
        }
        self.judge_foreign(world, &key, endpoints);
    }

    /// Whether MetalLB announces nothing of a Service because it shares its address
    /// and an advertisement for it selects Services.
    /// Source: `ShouldAnnounce` in MetalLB's `speaker/layer2_controller.go`.
    fn is_muted(&mut self, world: &World, service: &Service) -> bool {
        let annotations = service.metadata.annotations.as_ref();
        let shares = annotations
            .is_some_and(|a| names::METALLB_SHARED.iter().any(|key| a.contains_key(*key)));
        if !shares || !world.capabilities.mutes_shared() {
            return false;
        }
        let selects = |name: &&String| {
            let stored = world.l2_advertisements.get(*name);
            let read = stored.and_then(|s| s.valid());
            read.is_some_and(|a| !a.spec.service_selectors.is_empty())
        };
        let mut all = self.candidates.iter().flat_map(|c| &c.advertisements);
        let Some(name) = all.find(selects).cloned() else {
            return false;
        };
        for candidate in self.candidates.iter_mut().filter(|c| c.place.is_some()) {
            candidate.place = None;
            candidate.why = "the Service shares its address, and is announced by nobody".to_owned();
        }
        (self.should_announce, self.because) = (None, None);
        self.remedies.push(format!(
            "it has the annotation allow-shared-ip, and MetalLB announces no such Service that an \
             L2Advertisement with serviceSelectors ({name}) is for: take the annotation off, or the \
             serviceSelectors"
        ));
        true
    }
}

/// MetalLB's pool that holds all of some addresses.
fn pool_of(world: &World, addresses: &[IpAddr]) -> Option<String> {
    let mut pools = world.ip_address_pools.iter();
    let found = pools.find(|(_, stored)| {
        stored.valid().is_some_and(|pool| {
            let ranges = metallb_ranges(&pool.spec);
            addresses.iter().all(|a| ranges.contains(*a))
        })
    });
    found.map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests;
