//! The world: everything that exists and matters, as one snapshot.
//!
//! The controller keeps one [`World`] up to date from its watches and from
//! the answers to its own writes; `render`, the tests and the benchmarks
//! build one from manifests. Both go through [`World::observe`] and
//! [`World::forget`], so that a fact is read from an object in one place.

mod child;
mod endpoints;
mod evenness;
mod node;
mod object;
mod observe;
mod observed;
mod speaker;
mod version;

pub(crate) use child::ingress;
pub use child::{Child, ForeignService, ServiceRecord};
pub use endpoints::Endpoints;
pub(crate) use endpoints::serves;
pub use evenness::{Evenness, Spread};
pub use node::Node;
pub use object::{Key, Kind, ObjectRef, Stored};
pub use observed::{Observed, observe_manifest};
pub use speaker::{
    ANNOUNCE_FAILED, InterfaceFailure, SPEAKER_GRACE, Speaker, SpeakerState, Speakers, Version,
    version_of,
};
pub use version::ResourceVersion;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::address::{AddressRange, Family};
use crate::api::{L2AddressPool, L2LoadBalancer, names};
use crate::external_dns::{Availability, DnsEndpoint};
use crate::metallb::{BgpAdvertisement, Capabilities, IpAddressPool, L2Advertisement};

/// What the planner must know of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It is being deleted.
    pub terminating: bool,
}

/// A write that the API server or an admission webhook refused. The planner
/// reports it; the writer does not repeat it before `retry_at` unless the
/// wanted content changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The answer, for a person.
    pub message: String,
    /// When the same write is tried again.
    pub retry_at: Timestamp,
    /// Refusals in a row, for the backoff.
    pub attempts: u32,
    /// Digest of the content that was refused.
    pub content: u64,
    /// It was done, and somebody else changed it back, again and again.
    pub reverted: bool,
}

/// What an operator sets for the whole controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The namespace that MetalLB reads its configuration from.
    pub metallb_namespace: String,
    /// How long a home must be well before its addresses return to it.
    pub hold_down: SignedDuration,
    /// MetalLB's speakers run with `--ignore-exclude-lb`.
    pub ignore_exclude_label: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            metallb_namespace: "metallb-system".to_owned(),
            hold_down: SignedDuration::from_secs(10),
            ignore_exclude_label: false,
        }
    }
}

/// How long an advertisement outlives the last Service that needed it while a
/// speaker still reports to announce that Service.
pub const LINGER: SignedDuration = SignedDuration::from_secs(30);

/// How long nobody may report to announce a Service before that is believed: in
/// a handover MetalLB takes the old report away before it writes the new one.
pub const HANDOVER: SignedDuration = SignedDuration::from_secs(5);

/// How long a freed address rests: until then it is given out last.
pub const REST: SignedDuration = SignedDuration::from_hours(1);

/// Everything that exists and matters.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The present time: the only clock of the planner.
    pub now: Timestamp,
    /// The operator's settings.
    pub options: Options,
    /// What the installed MetalLB can do.
    pub capabilities: Capabilities,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// L2AddressPools by name.
    pub pools: BTreeMap<String, Stored<L2AddressPool>>,
    /// L2LoadBalancers.
    pub load_balancers: BTreeMap<Key, Stored<L2LoadBalancer>>,
    /// The child Services of each load balancer by slot number, also of load
    /// balancers that are no more.
    pub children: BTreeMap<Key, BTreeMap<u32, Arc<Child>>>,
    /// Every other Service.
    pub foreign_services: BTreeMap<Key, ForeignService>,
    /// MetalLB's pools, ours and others', by name.
    pub ip_address_pools: BTreeMap<String, Stored<IpAddressPool>>,
    /// MetalLB's L2 advertisements, ours and others', by name.
    pub l2_advertisements: BTreeMap<String, Stored<L2Advertisement>>,
    /// MetalLB's BGP advertisements by name.
    pub bgp_advertisements: BTreeMap<String, Stored<BgpAdvertisement>>,
    /// The node that each ServiceL2Status of a Service reports to announce it;
    /// there may briefly be none or two.
    pub announcers: HashMap<Key, BTreeMap<String, String>>,
    /// When those last changed, as far as the controller saw it.
    pub announced_since: HashMap<Key, Timestamp>,
    /// The node that reported last to announce a Service, and when it ceased,
    /// where that was a moment ago and no other does yet.
    pub handing_over: BTreeMap<Key, (String, Timestamp)>,
    /// MetalLB's speakers.
    pub speakers: Speakers,
    /// Where pods of child Services with `externalTrafficPolicy: Local` are.
    pub endpoints: Endpoints,
    /// What speakers said that they cannot announce, by event.
    pub interface_failures: BTreeMap<Key, InterfaceFailure>,
    /// The cluster's Service networks, by name of the ServiceCIDR.
    pub service_cidrs: BTreeMap<String, Vec<AddressRange>>,
    /// ExternalDNS's records, ours and others'.
    pub dns_endpoints: BTreeMap<Key, Stored<DnsEndpoint>>,
    /// Whether such records can be made.
    pub external_dns: Availability,
    /// The family of Services that name none.
    pub primary_family: Option<Family>,
    /// Writes that were refused.
    pub refusals: BTreeMap<ObjectRef, Refusal>,
    /// Child Services that were deleted a short while ago.
    pub departed: BTreeMap<Key, Timestamp>,
    /// How evenly the addresses of each pool lay on its nodes when nothing was
    /// left to do: a report of the planner's to itself.
    pub evenness: BTreeMap<String, Evenness>,
    /// When an address was freed, for those of this controller's lifetime: they are given out last.
    pub freed: BTreeMap<IpAddr, Timestamp>,

    /// How many children MetalLB up to 0.14.8 gave their addresses to.
    served_by_old: usize,
    /// The definitions were those of MetalLB up to 0.14.8 a while ago, and
    /// nothing was seen yet of the controller that belongs to the new ones.
    old_controller_may_run: bool,
    holders: HashMap<IpAddr, BTreeSet<Key>>,
    status_service: BTreeMap<String, Key>,
    revisions: Revisions,
}

/// Counts changes, so that a plan can be kept for what did not change.
#[derive(Clone, Debug, Default)]
struct Revisions {
    count: u64,
    environment: u64,
    load_balancers: HashMap<Key, u64>,
}

impl World {
    /// An empty world at a time, with MetalLB as installed.
    pub fn new(now: Timestamp, options: Options, capabilities: Capabilities) -> Self {
        Self {
            now,
            options,
            capabilities,
            ..Self::default()
        }
    }

    /// The Services that have an address, and children that name it.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.holders.get(&address).into_iter().flatten()
    }

    /// Whether any Service has an address, or a child names it.
    pub fn is_held(&self, address: IpAddr) -> bool {
        self.holders.contains_key(&address)
    }

    /// Every address that a Service has or a child names, in no order.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> {
        self.holders.keys().copied()
    }

    /// A number that changes when anything changes.
    pub fn revision(&self) -> u64 {
        self.revisions.count
    }

    /// A number that changes when anything changes that concerns more than one load balancer.
    pub fn environment_revision(&self) -> u64 {
        self.revisions.environment
    }

    /// A number that changes when anything of one load balancer, or of children
    /// that it left, changes; zero when there is neither.
    pub fn load_balancer_revision(&self, key: &Key) -> u64 {
        self.revisions.load_balancers.get(key).copied().unwrap_or(0)
    }

    /// Takes in how evenly addresses lie; returns whether that is news.
    pub fn set_evenness(&mut self, evenness: BTreeMap<String, Evenness>) -> bool {
        let is_news = self.evenness != evenness;
        if is_news {
            self.evenness = evenness;
            self.revisions.count += 1;
        }
        is_news
    }

    /// Sets what the installed MetalLB can do.
    pub fn set_capabilities(&mut self, capabilities: Capabilities) {
        if self.capabilities != capabilities {
            self.capabilities = capabilities;
            self.old_controller_may_run |= capabilities.installed && !capabilities.new_annotations;
            self.touch_environment();
        }
    }

    /// Sets whether ExternalDNS's records can be made.
    pub fn set_external_dns(&mut self, availability: Availability) {
        if self.external_dns != availability {
            self.external_dns = availability;
            self.touch_environment();
        }
    }

    /// Whether a Service must name its addresses under MetalLB's old prefix
    /// too. In an upgrade the resource definitions are newer than the
    /// controller that still runs: it would not see the new prefix, and give a
    /// new Service an address of anybody's pool.
    pub fn needs_old_annotations(&self) -> bool {
        !self.capabilities.new_annotations || self.old_controller_may_run || self.served_by_old > 0
    }

    /// Remembers that a write was refused.
    pub fn refuse(&mut self, object: ObjectRef, refusal: Refusal) {
        self.touch_object(&object);
        self.refusals.insert(object, refusal);
    }

    /// Forgets a refusal, because the write succeeded or is no longer wanted.
    pub fn clear_refusal(&mut self, object: &ObjectRef) {
        if self.refusals.remove(object).is_some() {
            self.touch_object(object);
        }
    }

    /// The child Service of that name.
    pub fn child(&self, service: &Key) -> Option<&Arc<Child>> {
        let (load_balancer, slot) = service.name.rsplit_once('-')?;
        let key = Key::new(service.namespace.clone(), load_balancer);
        self.children
            .get(&key)?
            .get(&slot.parse().ok()?)
            .filter(|c| c.key == *service)
    }

    /// The nodes that report to announce a Service, by name.
    pub fn announcers(&self, service: &Key) -> impl Iterator<Item = &str> {
        self.announcers
            .get(service)
            .into_iter()
            .flat_map(|s| s.values())
            .map(String::as_str)
    }

    fn touch_environment(&mut self) {
        self.revisions.count += 1;
        self.revisions.environment = self.revisions.count;
    }

    fn touch_load_balancer(&mut self, key: Key) {
        self.revisions.count += 1;
        // What is gone is forgotten, and names of others that only look like
        // those of slots are never noted: there are more and more of them.
        if self.load_balancers.contains_key(&key) || self.children.contains_key(&key) {
            let count = self.revisions.count;
            self.revisions.load_balancers.insert(key, count);
        } else {
            self.revisions.load_balancers.remove(&key);
        }
    }

    fn touch_object(&mut self, object: &ObjectRef) {
        match object.kind {
            Kind::LoadBalancer | Kind::DnsEndpoint => {
                self.touch_load_balancer(object.key.clone());
            }
            Kind::Service => match object.key.name.rsplit_once('-') {
                Some((name, _)) => {
                    self.touch_load_balancer(Key::new(object.key.namespace.clone(), name));
                }
                None => self.touch_environment(),
            },
            Kind::IpAddressPool | Kind::L2Advertisement => {
                self.touch_owner(&object.key.name);
                self.touch_environment();
            }
            _ => self.touch_environment(),
        }
    }

    /// A slot's own pool or advertisement has changed.
    fn touch_owner(&mut self, name: &str) {
        if let Some((namespace, service)) = names::own_pool_service(name)
            && let Some((load_balancer, _)) = service.rsplit_once('-')
        {
            self.touch_load_balancer(Key::new(namespace, load_balancer));
        }
    }

    /// Sets the time, and forgets what was only remembered for a while.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
        let younger_than =
            |at: &Timestamp, age: SignedDuration| now.checked_sub(age).is_ok_and(|then| *at > then);
        self.departed.retain(|_, at| younger_than(at, LINGER));
        self.handing_over
            .retain(|_, (_, at)| younger_than(at, HANDOVER));
        self.freed.retain(|_, at| younger_than(at, REST));
    }

    fn hold(&mut self, service: &Key, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.freed.remove(&address);
            let holders = self.holders.entry(address).or_default();
            holders.insert(service.clone());
            self.touch_rivals(address);
        }
    }

    /// Whoever has one address with others must be judged again when one of
    /// them comes or goes.
    fn touch_rivals(&mut self, address: IpAddr) {
        let rivals = self.holders.get(&address).filter(|h| h.len() > 1).cloned();
        for rival in rivals.into_iter().flatten() {
            self.touch_object(&ObjectRef {
                kind: Kind::Service,
                key: rival,
            });
        }
    }

    fn release(&mut self, service: &Key, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.touch_rivals(address);
            if let Some(services) = self.holders.get_mut(&address) {
                services.remove(service);
                if services.is_empty() {
                    self.holders.remove(&address);
                    self.freed.insert(address, self.now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
