//! One load balancer: may it be served, and with which slots.

mod turnover;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

pub(in crate::plan) use self::turnover::CONFIRM;
use self::turnover::{Draft, is_at_rest, join, retire};
use super::ability::Trouble;
use super::announcement::{Seen, endpoints, overruled};
use super::books::Books;
use super::change::Cause;
use super::environment::{CandidateSet, Environment, Standing};
use super::own_pool;
use super::pin::Situation;
use super::pool::PoolView;
use super::spec::OwnSpec;
use super::status::describe;
use crate::address::Family;
use crate::api::{L2LoadBalancer, Reason, SlotPhase, names};
use crate::world::{Child, Key, Kind, ObjectRef, World};

/// A load balancer that may be served, with all that decides about it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub key: Key,
    pub object: Arc<L2LoadBalancer>,
    pub pool: Arc<PoolView>,
    pub set: Arc<CandidateSet>,
    pub families: Vec<Family>,
    /// What its spec says, as it was read.
    pub own: Arc<OwnSpec>,
    /// Whether it may publish its name, if it asks for one.
    pub dns: Option<super::dns::Permission>,
}

impl Served {
    /// Whether a condition had this reason when status was last written, which
    /// outlives the controller.
    pub fn had_reason(&self, reason: Reason) -> bool {
        let mut conditions = self.object.status.iter().flat_map(|s| &s.conditions);
        conditions.any(|c| c.reason == reason.as_str())
    }
}

/// One slot as it should be, and as it is seen.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotPlan {
    /// Its number, for life.
    pub number: u32,
    /// The node that it belongs to, as a label value.
    pub home: String,
    /// The node that it is pinned to, as a label value.
    pub pin: String,
    /// Its addresses, in the order of the Service's families.
    pub addresses: Vec<IpAddr>,
    /// MetalLB's IPAddressPool that they lie in: the one that all slots of the
    /// L2AddressPool share, or its own.
    pub address_pool: String,
    /// Why its pin moves, if it moves.
    pub steered: Cause,
    /// What keeps its home from announcing, in one word.
    pub trouble: Option<&'static str>,
    /// When it is deleted because its home left.
    pub retire_at: Option<Timestamp>,
    /// Other live nodes could stand by, and none does.
    pub exposed: bool,
    /// The foreign L2Advertisement by which another node wins its election.
    pub drawn: Option<String>,
    /// The node that reports to announce it.
    pub announced_by: Option<String>,
    /// That node is alive, as far as is known.
    pub live: bool,
    /// MetalLB has given it all its addresses.
    pub allocated: bool,
    /// Where it is in its life.
    pub phase: SlotPhase,
    /// What a person should know about it.
    pub message: Option<String>,
    /// Why it is not announced by its home, where that is more than the phase says.
    pub reason: Option<Reason>,
    /// There is no address of a family that its Service has not got yet. Asking
    /// for that family would take away the address that it has.
    pub keeps_families: bool,
    /// Its Service cannot be made: why.
    pub blocked: Option<(Reason, String)>,
}

impl SlotPlan {
    /// Whether its addresses lie in a pool that it has for itself.
    pub fn has_own_pool(&self) -> bool {
        names::is_own_pool(&self.address_pool)
    }
}

/// A balancer node that has no slot, and what was missing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unmet {
    pub node: String,
    pub families: Vec<Family>,
    /// Addresses of the first of the families that are in use by now.
    pub in_use: usize,
}

/// The slots of one load balancer.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    pub slots: Vec<SlotPlan>,
    /// Children that go: retired, or left by an L2LoadBalancer of the same name.
    pub dropped: Vec<Arc<Child>>,
    pub unmet: Vec<Unmet>,
    /// Homes that left together, when that was more than half.
    pub held: Vec<String>,
    /// Slots that there should be.
    pub wanted: usize,
    pub deadline: Option<Timestamp>,
}

impl Slots {
    /// Notes a child that goes, unless it is going already.
    fn drop(&mut self, child: &Arc<Child>) {
        if !child.terminating {
            self.dropped.push(Arc::clone(child));
        }
    }

    pub fn until(&mut self, at: Option<Timestamp>) {
        self.deadline = earlier(self.deadline, at);
    }
}

/// The earlier of two times, where none is never.
pub(super) fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Whether a child is a slot of the load balancer with a UID and a pool. One that
/// was left on purpose (`--cascade=orphan`) with an address of another pool stays
/// what it is: it cannot have both.
pub(super) fn is_slot_of(world: &World, child: &Child, uid: Option<&String>, pool: &str) -> bool {
    child.belongs_to(uid) && (child.owner.is_some() || !is_elsewhere(world, child, pool))
}

/// Whether a child has its addresses from another pool, which is still there.
pub(super) fn is_elsewhere(world: &World, child: &Child, pool: &str) -> bool {
    child.pool != pool && world.pools.contains_key(&child.pool)
}

/// The first of the slots that a load balancer with a UID and a pool has already,
/// which says what all of them are and stay: their class, the first family.
pub(super) fn first_slot<'a>(
    world: &'a World,
    key: &Key,
    uid: Option<&String>,
    pool: &str,
) -> Option<&'a Arc<Child>> {
    let mut children = world.children.get(key).into_iter().flat_map(|c| c.values());
    children.find(|c| !c.terminating && is_slot_of(world, c, uid, pool))
}

/// Decides on the slots of a load balancer.
pub(super) fn decide(
    world: &World,
    environment: &Environment,
    served: &Served,
    books: &mut Books<'_>,
) -> Slots {
    let mut result = Slots::default();
    let none = BTreeMap::new();
    let children = world.children.get(&served.key).unwrap_or(&none);
    let uid = served.object.metadata.uid.as_ref();
    let mut drafts: Vec<Draft> = Vec::with_capacity(children.len());
    // One that is being deleted keeps its slot: its addresses are in use until
    // it is gone, and then it is made anew with them.
    for child in children.values() {
        if is_slot_of(world, child, uid, &served.pool.name) {
            drafts.push(Draft {
                number: child.slot,
                home: child.home.clone(),
                retire_at: child.retire_at,
                child: Some(Arc::clone(child)),
            });
        } else if child.owner.is_some() {
            result.drop(child);
        }
    }
    result.wanted = served.set.members.len().min(
        served
            .object
            .spec
            .max_nodes
            .map_or(usize::MAX, |m| m as usize),
    );
    if !is_at_rest(served, &drafts, result.wanted) {
        retire(world.now, served, &mut drafts, books, &mut result);
        join(world, served, &mut drafts, books, &mut result);
        drafts.sort_by_key(|d| d.number);
    }
    for draft in drafts {
        if let Some(slot) = finish(world, environment, served, draft, books, &mut result) {
            result.slots.push(slot);
        }
    }
    result.slots.sort_by_key(|s| s.number);
    result
}

/// Completes a slot: addresses, pin and what is seen of it. `None` when it
/// cannot be made.
fn finish(
    world: &World,
    environment: &Environment,
    served: &Served,
    draft: Draft,
    books: &mut Books<'_>,
    result: &mut Slots,
) -> Option<SlotPlan> {
    let new_key;
    let key = match &draft.child {
        Some(child) => &child.key,
        None => {
            let name = names::service_name(&served.key.name, draft.number);
            new_key = Key::new(served.key.namespace.clone(), name);
            &new_key
        }
    };
    let mut blocked = None;
    let mut keeps_families = false;
    let addresses = if draft.child.is_none() && world.foreign_services.contains_key(key) {
        blocked = Some((
            Reason::NameTaken,
            format!("Service {key} exists and is not ours: rename or delete it"),
        ));
        Vec::new()
    } else {
        let child = draft.child.as_deref();
        match super::address::addresses(world, served, key, &draft.home, child, books) {
            Ok(addresses) => addresses,
            Err(families) => {
                let family = families.first().copied().unwrap_or(Family::IPv4);
                let in_use = books.in_use(&served.pool, family);
                keeps_families = child.is_some_and(|child| is_new_to(child, &families));
                result.unmet.push(Unmet {
                    node: display_name(environment, &draft.home),
                    families,
                    in_use,
                });
                // What it has is kept; a new slot is not made.
                draft.child.as_ref().map(|c| c.addresses.clone())?
            }
        }
    };
    let pool = &served.pool.name;
    let address_pool = {
        let child = draft.child.as_deref();
        own_pool::name(world, environment, pool, key, child, &addresses)
    };
    let own = names::is_own_pool(&address_pool);
    if own && blocked.is_none() {
        blocked = own_pool::blocked(world, &address_pool, pool);
    }
    let refusal = if world.refusals.is_empty() {
        None
    } else {
        world.refusals.get(&ObjectRef {
            kind: Kind::Service,
            key: key.clone(),
        })
    };
    if let (Some(refusal), None) = (refusal, &blocked) {
        blocked = Some((
            Reason::Refused,
            format!("Service {key} was refused: {}", refusal.message),
        ));
    }
    let child = draft.child.as_deref();
    let known = endpoints(world, served, key);
    // While there is no pod at all, it does not matter where they are.
    let nodes = known.as_ref().filter(|nodes| !nodes.is_empty());
    let seen = Seen::of(
        world,
        environment,
        Some(served),
        key,
        child,
        &addresses,
        nodes,
    );
    result.until(seen.until);
    let announcer = seen
        .live
        .iter()
        .filter_map(|name| served.set.member(&names::node_value(name)))
        .next();
    let deciding = crate::metallb::election::deciding_address(&addresses);
    let current = draft.child.as_ref().map(|c| c.pin.as_str());
    let pin = Situation {
        set: &served.set,
        home: &draft.home,
        pin: current,
        announcer,
        deciding: deciding.as_deref(),
        own,
        endpoints: nodes,
        no_pods: known.is_some() && nodes.is_none(),
        now: world.now,
        hold_down: world.options.hold_down,
    }
    .decide(books);
    if current != Some(pin.to.as_str()) {
        books.note_pin(current, &pin.to);
    }
    result.until(pin.until);
    result.until(draft.retire_at.filter(|at| *at > world.now));
    let by_order = deciding.as_deref().filter(|_| own);
    let set = &served.set;
    let mut slot = SlotPlan {
        number: draft.number,
        address_pool,
        exposed: by_order.is_some_and(|d| own_pool::is_exposed(set, &pin.to, d, nodes)),
        drawn: by_order.and_then(|d| own_pool::drawn(environment, served, &pin.to, d)),
        announced_by: seen.shown(environment, &pin.to),
        live: !seen.live.is_empty(),
        allocated: seen.allocated,
        steered: steered(set, &draft.home, &pin.to),
        trouble: set
            .member(&draft.home)
            .and_then(|m| m.trouble)
            .map(Trouble::as_str),
        home: draft.home,
        pin: pin.to,
        addresses,
        retire_at: draft.retire_at,
        phase: SlotPhase::Pending,
        message: None,
        reason: None,
        keeps_families,
        blocked,
    };
    if let Some(child) = child.filter(|_| slot.pin == slot.home) {
        let (reason, until) = overruled(world, served, child, &seen, deciding.as_deref(), nodes);
        slot.reason = reason;
        result.until(until);
    }
    slot.reason = slot.reason.or_else(|| podless(set, &slot, nodes));
    describe(&mut slot, world, environment, served, &result.held);
    Some(slot)
}

/// Whether one of the families is none of a Service's, as it is.
fn is_new_to(child: &Child, families: &[Family]) -> bool {
    let has = child.families();
    !has.is_empty() && families.iter().any(|f| !has.contains(f))
}

/// The class of the Services of a load balancer; empty if they have none. A Service
/// that exists keeps its own, as it cannot be changed, whatever the pool says now.
pub(super) fn class<'a>(world: &'a World, served: &'a Served) -> &'a str {
    let uid = served.object.metadata.uid.as_ref();
    let first = first_slot(world, &served.key, uid, &served.pool.name);
    if let Some(spec) = first.and_then(|child| child.service.spec.as_ref()) {
        return spec.load_balancer_class.as_deref().unwrap_or_default();
    }
    let own = served.object.spec.service.load_balancer_class.as_deref();
    own.unwrap_or(&served.pool.load_balancer_class)
}

/// Whether pods are the reason why a slot is not where it should be: its home
/// is well and has none, or is about to stop and only it has one.
fn podless(set: &CandidateSet, slot: &SlotPlan, nodes: Option<&BTreeSet<&str>>) -> Option<Reason> {
    let (home, nodes) = (set.member(&slot.home)?, nodes?);
    let (is_home, has_pod) = (slot.pin == slot.home, nodes.contains(&*home.name));
    match home.standing {
        Standing::Serving => !is_home && !has_pod,
        Standing::Draining => is_home && has_pod && set.members.len() > 1,
        Standing::Lost => false,
    }
    .then_some(Reason::NoLocalEndpoint)
}

/// Why a slot of this home is pinned to that node, in case it was not before.
fn steered(set: &CandidateSet, home: &str, pin: &str) -> Cause {
    match set.member(home).map(|m| m.standing) {
        _ if pin == home => Cause::Return,
        Some(Standing::Draining) => Cause::Handover,
        Some(Standing::Lost | Standing::Serving) => Cause::Failover,
        None => Cause::Departure,
    }
}

/// The slots of a load balancer that may not be served: as they are.
pub(super) fn frozen(world: &World, environment: &Environment, key: &Key) -> Slots {
    let mut result = Slots::default();
    let children = world.children.get(key).into_iter().flat_map(|c| c.values());
    for child in children {
        let (key, addresses) = (&child.key, &child.addresses);
        let seen = Seen::of(world, environment, None, key, Some(child), addresses, None);
        result.until(seen.until);
        let mut slot = SlotPlan {
            number: child.slot,
            address_pool: child.address_pool.clone().unwrap_or_default(),
            exposed: false,
            drawn: None,
            home: child.home.clone(),
            pin: child.pin.clone(),
            addresses: child.addresses.clone(),
            steered: Cause::Return,
            trouble: None,
            retire_at: child.retire_at,
            announced_by: seen.shown(environment, &child.pin),
            live: !seen.live.is_empty(),
            allocated: seen.allocated,
            phase: SlotPhase::Pending,
            message: None,
            reason: None,
            keeps_families: false,
            blocked: None,
        };
        super::status::describe_frozen(&mut slot, environment);
        result.slots.push(slot);
    }
    result.wanted = result.slots.len();
    result
}

/// A node's name for people, from its label value.
pub(super) fn display_name(environment: &Environment, value: &str) -> String {
    environment
        .node(value)
        .map_or_else(|| value.to_owned(), |n| n.name.clone())
}

#[cfg(test)]
mod tests;
