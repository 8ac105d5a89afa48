//! One load balancer: may it be served, and with which slots.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::ability::Trouble;
use super::announcement::{Seen, overruled};
use super::books::Books;
use super::change::Cause;
use super::environment::{CandidateSet, Environment, Member, Standing};
use super::own_pool;
use super::pin::Situation;
use super::pool::PoolView;
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
    pub retirement: SignedDuration,
    /// Whether it may publish its name, if it asks for one.
    pub dns: Option<super::dns::Permission>,
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

/// The annotation by which an administrator confirms that more than half of
/// the nodes were meant to leave.
pub(super) const CONFIRM: &str = "l2lb.io/confirm-retirement";

/// Nodes that leave within this time leave together: a command that changes the
/// label of many writes one node after the other.
const TOGETHER: SignedDuration = SignedDuration::from_secs(60);

/// A slot in the making.
struct Draft {
    number: u32,
    home: String,
    retire_at: Option<Timestamp>,
    child: Option<Arc<Child>>,
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
    for child in children.values().filter(|c| !c.terminating) {
        if child.owner.is_some() && child.owner.as_ref() != uid {
            result.dropped.push(Arc::clone(child));
        } else {
            drafts.push(Draft {
                number: child.slot,
                home: child.home.clone(),
                retire_at: child.retire_at,
                child: Some(Arc::clone(child)),
            });
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

/// Whether every balancer node has its slot, and none is too many: then
/// nothing retires or joins. It is so nearly always, and quickly seen.
fn is_at_rest(served: &Served, drafts: &[Draft], wanted: usize) -> bool {
    let mut has_slot = vec![false; served.set.members.len()];
    let mut is_first = |draft: &Draft| {
        let member = served.set.position(&draft.home);
        member
            .and_then(|m| has_slot.get_mut(m))
            .is_some_and(|has| !std::mem::replace(has, true))
    };
    drafts.len() == wanted && drafts.iter().all(|d| d.retire_at.is_none() && is_first(d))
}

/// Decides which slots stay, which retire, and drops those whose time has come.
fn retire(
    now: Timestamp,
    served: &Served,
    drafts: &mut Vec<Draft>,
    books: &mut Books<'_>,
    result: &mut Slots,
) {
    // A node is home to one slot: of two, the one that is not retiring, then
    // the one that had it when status was last written, then the lower number.
    let mut seen = BTreeSet::new();
    if drafts.iter().all(|d| seen.insert(d.home.as_str())) {
        drafts.sort_by_key(|d| (d.retire_at.is_some(), d.number));
    } else {
        drafts.sort_by_cached_key(|d| (d.retire_at.is_some(), !had_home(served, d), d.number));
    }
    let mut homes: BTreeSet<&str> = BTreeSet::new();
    let (mut staying, mut leaving): (Vec<usize>, Vec<usize>) = (0..drafts.len()).partition(|i| {
        served
            .set
            .member(&drafts[*i].home)
            .is_some_and(|m| homes.insert(&m.value))
    });
    let before = drafts.iter().filter(|d| d.retire_at.is_none()).count();
    // The last ones in that order go first when maxNodes was lowered.
    while staying.len() > result.wanted && staying.len() > 1 {
        leaving.extend(staying.pop());
    }
    for index in &staying {
        if drafts[*index].retire_at.take().is_some() {
            books.note_home(&drafts[*index].home, 1);
        }
    }
    let mut gone: Vec<usize> = leaving
        .iter()
        .copied()
        .filter(|i| drafts[*i].retire_at.is_none() && served.set.member(&drafts[*i].home).is_none())
        .collect();
    let confirmed = served
        .object
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(CONFIRM))
        .is_some_and(|v| v == "true");
    let just_left = just_left(now, served, drafts, &leaving);
    let together = gone.len() + just_left.len();
    let all = before + just_left.len();
    let hold = all > 1 && !gone.is_empty() && together * 2 > all && !confirmed;
    if hold {
        for index in just_left {
            drafts[index].retire_at = None;
            books.note_home(&drafts[index].home, 1);
            gone.push(index);
        }
        gone.sort_unstable();
        result.held = gone.iter().map(|i| drafts[*i].home.clone()).collect();
    }
    for index in leaving {
        let draft = &mut drafts[index];
        // The last slot never retires: better one address than none.
        let last = staying.is_empty() && before <= 1;
        if draft.retire_at.is_none() && !last && !(hold && gone.contains(&index)) {
            draft.retire_at = now.checked_add(served.retirement).ok();
            books.note_home(&draft.home, -1);
        }
    }
    let mut left = drafts.len();
    drafts.retain(|draft| match (draft.retire_at, &draft.child) {
        (Some(at), Some(child)) if at <= now && left > 1 => {
            left -= 1;
            result.dropped.push(Arc::clone(child));
            false
        }
        _ => true,
    });
}

/// The slots whose nodes left a short while ago, and that retire since.
fn just_left(now: Timestamp, served: &Served, drafts: &[Draft], leaving: &[usize]) -> Vec<usize> {
    let is_recent = |at: Timestamp| {
        let age = served.retirement - at.duration_since(now);
        !age.is_negative() && age < TOGETHER
    };
    let mut recent = leaving.to_vec();
    recent.retain(|i| {
        let draft = &drafts[*i];
        draft.retire_at.is_some_and(is_recent) && served.set.member(&draft.home).is_none()
    });
    recent
}

/// Gives the nodes that have no slot one: a retiring slot, else a new one.
fn join(
    world: &World,
    served: &Served,
    drafts: &mut Vec<Draft>,
    books: &mut Books<'_>,
    result: &mut Slots,
) {
    let homes: BTreeSet<&str> = drafts
        .iter()
        .filter(|d| d.retire_at.is_none())
        .map(|d| d.home.as_str())
        .collect();
    let settled = homes
        .iter()
        .filter(|h| served.set.member(h).is_some())
        .count();
    let need = result.wanted.saturating_sub(settled);
    if need == 0 {
        return;
    }
    let mut joining: Vec<&Member> = served
        .set
        .members
        .iter()
        .filter(|m| !homes.contains(&*m.value))
        .collect();
    if need < joining.len() {
        joining.sort_by_cached_key(|m| {
            (
                m.standing != Standing::Serving,
                books.homes(m),
                m.name.clone(),
            )
        });
        joining.truncate(need);
    }
    // Whoever had a slot before, by the status that was last written, gets
    // the same number again.
    joining.sort_by_cached_key(|m| (remembered(served, &m.value).is_none(), m.name.clone()));
    let taken = world.children.get(&served.key);
    for member in joining {
        books.note_home(&member.value, 1);
        let heirless = drafts
            .iter_mut()
            .filter(|d| served.set.member(&d.home).is_none() || d.retire_at.is_some())
            .min_by_key(|d| d.number);
        if let Some(draft) = heirless {
            if draft.retire_at.take().is_none() {
                books.note_home(&draft.home, -1);
                result.held.retain(|h| *h != draft.home);
            }
            draft.home = member.value.to_string();
            continue;
        }
        let is_taken = |number: u32| {
            drafts.iter().any(|d| d.number == number)
                || taken.is_some_and(|t| t.contains_key(&number))
        };
        let number = remembered(served, &member.value)
            .and_then(|s| s.service.rsplit_once('-')?.1.parse().ok())
            .filter(|n| *n < names::MAX_SLOTS && !is_taken(*n))
            .or_else(|| (0..names::MAX_SLOTS).find(|n| !is_taken(*n)));
        if let Some(number) = number {
            drafts.push(Draft {
                number,
                home: member.value.to_string(),
                retire_at: None,
                child: None,
            });
        }
    }
}

/// Whether a slot had its home when status was last written.
fn had_home(served: &Served, draft: &Draft) -> bool {
    let slot = draft.child.as_ref().map(|c| c.key.name.as_str());
    remembered(served, &draft.home).is_some_and(|s| Some(s.service.as_str()) == slot)
}

/// The slot of a node in the status that was last written.
fn remembered<'a>(served: &'a Served, home: &str) -> Option<&'a crate::api::SlotStatus> {
    let status = served.object.status.as_ref()?;
    status
        .slots
        .iter()
        .find(|s| names::node_value(&s.node) == home)
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
    let seen = Seen::of(world, environment, Some(served), key, child, &addresses);
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
        exposed: by_order.is_some_and(|d| own_pool::is_exposed(set, &pin.to, d)),
        drawn: by_order.and_then(|d| own_pool::drawn(served, &pin.to, d)),
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
        blocked,
    };
    if let Some(child) = child.filter(|_| slot.pin == slot.home) {
        let (reason, until) = overruled(world, served, child, &seen, deciding.as_deref());
        slot.reason = reason;
        result.until(until);
    }
    describe(&mut slot, world, environment, served, &result.held);
    Some(slot)
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
    for child in children.filter(|c| !c.terminating) {
        let (key, addresses) = (&child.key, &child.addresses);
        let seen = Seen::of(world, environment, None, key, Some(child), addresses);
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
