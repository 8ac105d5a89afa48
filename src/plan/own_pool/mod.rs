//! Slots under a MetalLB without preferences (before 0.16.2). Such a slot has
//! an IPAddressPool of its own, and an L2Advertisement for it that lists the
//! node that it is pinned to and only those nodes that come after it in
//! MetalLB's election: so the pin wins while it lives, and the others stand
//! by. Which kind of pool a slot has is written on its Service, and an address
//! in use never changes its pool: after an upgrade of MetalLB the slot stays
//! what it is.

mod choice;
pub(super) mod verdict;

pub(super) use choice::{best_of, choose, leaves_standby};

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::ability::Trouble;
use super::announcement::has_pod;
use super::change::Stage;
use super::environment::{CandidateSet, Environment, Member, Standing};
use super::load_balancer::{Served, SlotPlan};
use super::metallb_changes::{PoolObjects, Writing, manifest};
use super::metallb_objects::preference;
use super::needs::metallb_object;
use super::neighbours::metallb_ranges;
use super::pool::owned_pool;
use crate::address::{AddressRange, RangeSet};
use crate::api::{Reason, names};
use crate::metallb::{IpAddressPoolSpec, L2AdvertisementSpec, ServiceAllocation, election};
use crate::selector;
use crate::world::{Child, Key, Kind, Stored, World};

/// What MetalLB has of ours: which address lies in which pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// Addresses in own pools, with the pool's name.
    own: HashMap<IpAddr, String>,
    /// The pools that many slots share.
    shared: Vec<RangeSet>,
}

impl Given {
    /// Reads it from the world.
    pub fn read(world: &World) -> Self {
        let mut given = Self::default();
        for (name, stored) in &world.ip_address_pools {
            let Stored::Valid(pool) = stored else {
                continue;
            };
            if owned_pool(&pool.metadata).is_none() {
                continue;
            }
            let ranges = metallb_ranges(&pool.spec);
            if names::is_own_pool(name) {
                for range in ranges.ranges() {
                    given.own.insert(range.first(), name.clone());
                }
            } else {
                given.shared.push(ranges);
            }
        }
        given
    }

    /// Every address that lies in an own pool.
    pub fn own(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.own.keys().copied()
    }

    /// Whether no own pool of another Service holds an address.
    pub fn yields(&self, address: IpAddr, service: Option<&Key>) -> bool {
        self.own.get(&address).is_none_or(|name| {
            let owner = names::own_pool_service(name);
            service.is_some_and(|s| owner == Some((&s.namespace, &s.name)))
        })
    }

    /// Whether an own pool holds one of some addresses.
    pub fn holds_any(&self, addresses: &[IpAddr]) -> bool {
        !self.own.is_empty() && addresses.iter().any(|a| self.own.contains_key(a))
    }

    /// Whether a pool other than `name` holds an address.
    fn has_elsewhere(&self, name: &str, address: IpAddr) -> bool {
        self.own.get(&address).is_some_and(|holder| holder != name) || self.is_shared(address)
    }

    fn is_shared(&self, address: IpAddr) -> bool {
        self.shared.iter().any(|ranges| ranges.contains(address))
    }
}

/// The name of the IPAddressPool that a slot's addresses lie in, or will.
pub(super) fn name(
    world: &World,
    environment: &Environment,
    pool: &str,
    service: &Key,
    child: Option<&Child>,
    addresses: &[IpAddr],
) -> String {
    let shared = names::ip_address_pool_name(pool);
    let prefix = names::own_pool_prefix(&service.namespace, &service.name);
    let named = child.and_then(|c| c.address_pool.as_ref());
    if let Some(named) = named.filter(|n| **n == shared || n.starts_with(&prefix)) {
        return named.clone();
    }
    // Its Service is new, or somebody took the name out of it: then what
    // MetalLB has tells.
    let given = &environment.given;
    let live = addresses.iter().find_map(|a| given.own.get(a));
    if let (Some(live), Some(_)) = (live.filter(|n| n.starts_with(&prefix)), child) {
        return live.clone();
    }
    let allocated = child.is_some_and(|c| c.allocated.iter().any(|a| given.is_shared(*a)));
    let first = addresses.iter().min_by_key(|a| a.to_string());
    match first {
        Some(first) if !world.capabilities.can_prefer() && !allocated => {
            names::own_pool_name(&service.namespace, &service.name, *first)
        }
        _ => shared,
    }
}

/// The members of a set in the order in which MetalLB would elect them.
pub(super) fn order<'a>(set: &'a CandidateSet, deciding: &str) -> Vec<&'a Member> {
    let mut all: Vec<&Member> = set.members.iter().collect();
    all.sort_by_cached_key(|m| election::rank(&m.name, deciding));
    all
}

/// The nodes that may announce an address that is pinned to `pin`: the pin
/// and those after it that have the interfaces. All, when the pin is no member.
pub(super) fn listed<'a>(set: &'a CandidateSet, pin: &str, deciding: &str) -> Vec<&'a Member> {
    let mut all = order(set, deciding);
    if let Some(at) = all.iter().position(|m| *m.value == *pin) {
        all.drain(..at);
    }
    all.retain(|m| *m.value == *pin || m.trouble != Some(Trouble::NoInterface));
    all
}

/// Who inherits an address of a home, if anybody can.
pub(super) fn heir(set: &CandidateSet, home: &str, deciding: &str) -> Option<u32> {
    set.member(home)?;
    listed(set, home, deciding).get(1).map(|m| m.id)
}

/// Whether a live node could stand by for an address, and none does. `endpoints`
/// are the nodes with a pod, where only those can announce and it is known.
pub(super) fn is_exposed(
    set: &CandidateSet,
    pin: &str,
    deciding: &str,
    endpoints: Option<&BTreeSet<&str>>,
) -> bool {
    let alive =
        |m: &&Member| m.standing != Standing::Lost && !m.silenced && has_pod(endpoints, &m.name);
    let mut others = set.members.iter().filter(|m| *m.value != *pin);
    let mut behind = listed(set, pin, deciding).into_iter().skip(1);
    set.member(pin).is_some() && others.any(|m| alive(&m)) && !behind.any(|m| alive(&m))
}

/// The foreign advertisement by which a node wins that is not the pin: one
/// that matches is enough where the pin has no weight.
pub(super) fn drawn(
    environment: &Environment,
    served: &Served,
    pin: &str,
    deciding: &str,
) -> Option<String> {
    let sharing = served
        .pool
        .shared
        .as_ref()
        .filter(|_| !served.pool.prefers)?;
    let pin = served.set.member(pin)?;
    let limit = election::rank(&pin.name, deciding);
    let is_well = |name: &&String| {
        let node = environment.node(&names::node_value(name));
        node.is_some_and(|n| n.trouble.is_none() && !n.silenced)
    };
    let mut nodes = sharing.nodes.iter().filter(is_well);
    nodes
        .any(|n| election::rank(n, deciding) < limit)
        .then(|| sharing.name.clone())
}

/// Whose pool stands in the way of a slot's own one, if it is somebody else's.
pub(super) fn blocked(world: &World, slot_pool: &str, pool: &str) -> Option<(Reason, String)> {
    let foreign = |meta| owned_pool(meta) != Some(pool);
    let taken = [
        (
            Kind::IpAddressPool,
            world
                .ip_address_pools
                .get(slot_pool)
                .map(|s| foreign(s.metadata())),
        ),
        (
            Kind::L2Advertisement,
            world
                .l2_advertisements
                .get(slot_pool)
                .map(|s| foreign(s.metadata())),
        ),
    ];
    for (kind, taken) in taken {
        let object = metallb_object(world, kind, slot_pool);
        if taken == Some(true) {
            return Some((
                Reason::NameTaken,
                format!("{object} exists and is not ours: rename or delete it"),
            ));
        }
        if let Some(refusal) = world.refusals.get(&object) {
            return Some((
                Reason::Refused,
                format!("{object} was refused: {}", refusal.message),
            ));
        }
    }
    None
}

/// The objects of a slot with an own pool. `None` while another pool of ours
/// still holds one of its addresses: MetalLB refuses its whole configuration
/// when two pools overlap.
pub(super) fn objects(
    world: &World,
    environment: &Environment,
    served: &Served,
    service: &Key,
    slot: &SlotPlan,
    child: Option<&Child>,
) -> Option<PoolObjects> {
    let mut addresses = slot.addresses.clone();
    // What MetalLB has given it stays in the pool until it has taken it back.
    addresses.extend(child.iter().flat_map(|c| &c.allocated));
    addresses.sort_unstable();
    addresses.dedup();
    let given = &environment.given;
    if addresses.is_empty()
        || addresses
            .iter()
            .any(|a| given.has_elsewhere(&slot.address_pool, *a))
    {
        return None;
    }
    let mut result = PoolObjects::default();
    let spec = pool_spec(served, service, slot, &addresses);
    let object = |kind| metallb_object(world, kind, &slot.address_pool);
    let pool = manifest(&served.pool, &object(Kind::IpAddressPool), &spec, []);
    let writing = Writing {
        world,
        view: &served.pool,
        ip_address_pool: &slot.address_pool,
    };
    writing.write(Stage::Pool, object(Kind::IpAddressPool), pool, &mut result);
    if let Some(spec) = advertisement_spec(served, slot) {
        let pin = [(names::PIN.to_owned(), slot.pin.clone())];
        let advertisement = manifest(&served.pool, &object(Kind::L2Advertisement), &spec, pin);
        writing.write(
            Stage::Advertise,
            object(Kind::L2Advertisement),
            advertisement,
            &mut result,
        );
    }
    Some(result)
}

fn pool_spec(
    served: &Served,
    service: &Key,
    slot: &SlotPlan,
    addresses: &[IpAddr],
) -> IpAddressPoolSpec {
    IpAddressPoolSpec {
        addresses: addresses
            .iter()
            .map(|a| AddressRange::single(*a).to_string())
            .collect(),
        auto_assign: Some(false),
        avoid_buggy_ips: Some(false),
        service_allocation: Some(ServiceAllocation {
            namespaces: vec![service.namespace.clone()],
            namespace_selectors: Vec::new(),
            service_selectors: vec![selector::labels([
                (names::MANAGED_BY, names::MANAGED_BY_VALUE),
                (names::LOAD_BALANCER, &served.key.name),
                (names::SLOT, &slot.number.to_string()),
            ])],
        }),
    }
}

/// `None` when there is no node to list: an empty list would mean every node.
fn advertisement_spec(served: &Served, slot: &SlotPlan) -> Option<L2AdvertisementSpec> {
    let deciding = election::deciding_address(&slot.addresses)?;
    let mut values: Vec<String> = listed(&served.set, &slot.pin, &deciding)
        .into_iter()
        .map(|m| m.hostname.clone())
        .collect();
    values.sort();
    // Two that are home to slots may have one by now, and MetalLB refuses it twice.
    values.dedup();
    (!values.is_empty()).then(|| L2AdvertisementSpec {
        ip_address_pools: vec![slot.address_pool.clone()],
        node_selectors: vec![LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: names::HOSTNAME.to_owned(),
                operator: "In".to_owned(),
                values: Some(values),
            }]),
        }],
        interfaces: served.pool.interfaces.clone(),
        // After an upgrade of MetalLB: a weight that somebody else gives a node
        // does not outdo the order then. Older speakers go by the order alone.
        preferred_node_selectors: served
            .set
            .member(&slot.pin)
            .filter(|_| served.pool.prefers)
            .map(preference)
            .into_iter()
            .collect(),
        ..L2AdvertisementSpec::default()
    })
}

#[cfg(test)]
mod tests;
