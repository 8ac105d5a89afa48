//! What the load balancers of one pool need and get: the planner's own
//! decisions, for admission. Pools share no addresses, so those of one pool
//! can be decided without the others.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::books::{Books, HeirCache};
use super::environment::{Environment, NodeIds};
use super::gate::{self, Gate};
use super::load_balancer::{self, Served, Slots};
use super::pool::PoolView;
use super::{claims, dns};
use crate::address::{Family, RangeSet, is_buggy};
use crate::api::Reason;
use crate::world::{Key, Stored, World};

/// A pool and its load balancers, as the planner would serve them now.
#[derive(Debug, Default)]
pub(crate) struct Appraisal {
    /// The pool, if it exists and can be read.
    pub pool: Option<PoolAppraisal>,
    /// Its load balancers, the oldest first.
    pub load_balancers: Vec<(Key, Appraised)>,
    /// Who reserves which address, of any pool.
    pub reservations: Vec<(IpAddr, Key)>,
    /// Who claims which name, in lower case, with whatever pool.
    pub names: Vec<(String, Key)>,
}

/// A pool, as the planner sees it.
#[derive(Debug)]
pub(crate) struct PoolAppraisal {
    /// Why it is not accepted.
    pub refused: Option<(Reason, String)>,
    /// Why it cannot be given to MetalLB.
    pub unconfigured: Option<(Reason, String)>,
    /// It is being deleted.
    pub terminating: bool,
    /// What it may give out.
    pub ranges: RangeSet,
    /// Without addresses that end in .0 and .255.
    pub avoid_buggy: bool,
    /// A foreign advertisement that draws addresses to other nodes.
    pub conflict: Option<String>,
    /// Addresses that are left when everybody has what they need, by family.
    pub left: BTreeMap<Family, u128>,
}

impl PoolAppraisal {
    /// Whether the pool can give out an address, if nobody has it.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.ranges.contains(address) && !(self.avoid_buggy && is_buggy(address))
    }
}

/// A load balancer, as the planner would serve it.
#[derive(Debug)]
pub(crate) enum Appraised {
    /// It may not be served.
    Shut(Reason, String),
    /// It is being deleted.
    Leaving,
    /// It is served.
    Served(Box<Service>),
}

/// What a served load balancer needs and gets.
#[derive(Debug)]
pub(crate) struct Service {
    /// The families of its Services.
    pub families: Vec<Family>,
    /// Its balancer nodes by name.
    pub nodes: Vec<String>,
    /// Nodes that are selected and cannot be told apart from others.
    pub unidentifiable: Vec<String>,
    /// Slots that there should be.
    pub wanted: usize,
    /// One more balancer node would mean one more slot.
    pub grows: bool,
    /// Slots that it has.
    pub has: usize,
    /// By family: the nodes that need a new address, and how many are free for them.
    pub needs: BTreeMap<Family, Need>,
    /// Nodes that left together, more than half of all.
    pub held: Vec<String>,
    /// Slots whose Service cannot be made, with the reason.
    pub blocked: Vec<String>,
}

/// New addresses of one family that a load balancer needs.
#[derive(Debug, Default)]
pub(crate) struct Need {
    /// The nodes that they are for.
    pub nodes: Vec<String>,
    /// Free addresses, among them those that it reserves itself.
    pub free: u128,
    /// Free addresses that others reserve.
    pub reserved: u128,
}

impl Need {
    /// How many addresses are missing.
    pub fn shortage(&self) -> u128 {
        (self.nodes.len() as u128).saturating_sub(self.free)
    }
}

/// Decides on everything in one pool as the planner would.
pub(crate) fn appraise(world: &World, pool: &str) -> Appraisal {
    let nothing = Environment::default();
    let mut environment = Environment::read(world, &nothing);
    let mut ids = NodeIds::default();
    let of_pool = |key: &Key| match world.load_balancers.get(key) {
        Some(Stored::Valid(lb)) => lb.spec.address_pool == pool,
        _ => false,
    };
    let reservations = claims::reservations(world, &environment.pools, &environment.order)
        .map(|(address, key)| (address, key.clone()))
        .collect();
    let names = dns::claims(world, &environment.pools, &environment.order);
    let keys: Vec<Key> = environment
        .order
        .iter()
        .filter(|k| of_pool(k))
        .cloned()
        .collect();
    let gates: Vec<(Key, Gate)> = keys
        .into_iter()
        .map(|key| {
            let gate = gate::judge(world, &mut environment, &nothing, &key, &mut ids, None);
            (key, gate)
        })
        .collect();
    let view = environment.pools.get(pool).cloned();
    let mut heirs = HeirCache::default();
    let mut books = Books::new(world, &environment, &ids, &mut heirs);
    let mut ledger = Ledger::new(world, &environment, view.as_deref());
    let load_balancers = gates
        .into_iter()
        .map(|(key, gate)| {
            let appraised = match gate {
                Gate::Leaving => Appraised::Leaving,
                Gate::Shut { verdict, .. } => Appraised::Shut(verdict.reason, verdict.message),
                Gate::Open(served) => {
                    let slots = load_balancer::decide(world, &environment, &served, &mut books);
                    let service = ledger.enter(world, &environment, &served, &slots);
                    Appraised::Served(Box::new(service))
                }
            };
            (key, appraised)
        })
        .collect();
    let pool = view.as_ref().map(|view| ledger.close(view));
    Appraisal {
        pool,
        load_balancers,
        reservations,
        names,
    }
}

/// Which addresses of the pool are free, as one load balancer after the other is served.
struct Ledger<'a> {
    pool: Option<&'a PoolView>,
    environment: &'a Environment,
    taken: HashSet<IpAddr>,
}

impl<'a> Ledger<'a> {
    fn new(world: &World, environment: &'a Environment, pool: Option<&'a PoolView>) -> Self {
        let all = world
            .held()
            .chain(environment.node_addresses.keys().copied());
        let taken = all
            .filter(|a| pool.is_some_and(|p| offers(p, *a)))
            .collect();
        Self {
            pool,
            environment,
            taken,
        }
    }

    /// Free addresses of a family: for anybody, and reserved by others than `key`.
    fn free(&self, family: Family, key: Option<&Key>) -> (u128, u128) {
        let Some(pool) = self.pool.filter(|p| !p.terminating) else {
            return (0, 0);
        };
        let of_family = |a: &&IpAddr| Family::of(**a) == family;
        let taken = self.taken.iter().filter(of_family).count() as u128;
        let reserved = self
            .environment
            .reserved
            .iter()
            .filter(|(a, by)| {
                Family::of(**a) == family
                    && Some(*by) != key
                    && offers(pool, **a)
                    && !self.taken.contains(*a)
            })
            .count() as u128;
        (
            pool.capacity(family)
                .saturating_sub(taken)
                .saturating_sub(reserved),
            reserved,
        )
    }

    fn enter(
        &mut self,
        world: &World,
        environment: &Environment,
        served: &Served,
        slots: &Slots,
    ) -> Service {
        let children = world.children.get(&served.key);
        let before: BTreeMap<Family, (u128, u128)> = served
            .families
            .iter()
            .map(|f| (*f, self.free(*f, Some(&served.key))))
            .collect();
        let mut needs: BTreeMap<Family, Need> = BTreeMap::new();
        for slot in &slots.slots {
            let had = children
                .and_then(|c| c.get(&slot.number))
                .map(|c| &c.addresses);
            let new = slot
                .addresses
                .iter()
                .filter(|a| had.is_none_or(|had| !had.contains(a)));
            for address in new {
                let need = needs.entry(Family::of(*address)).or_default();
                need.nodes
                    .push(load_balancer::display_name(environment, &slot.home));
                self.taken.insert(*address);
            }
        }
        for unmet in &slots.unmet {
            let home = crate::api::names::node_value(&unmet.node);
            let exists = slots.slots.iter().any(|s| s.home == home);
            for family in &served.families {
                // A new slot needs them all, whichever it was that ran out first.
                if !exists || unmet.families.contains(family) {
                    needs
                        .entry(*family)
                        .or_default()
                        .nodes
                        .push(unmet.node.clone());
                }
            }
        }
        for (family, need) in &mut needs {
            need.nodes.sort();
            (need.free, need.reserved) = before.get(family).copied().unwrap_or_default();
        }
        let set = &served.set;
        let limit = served
            .object
            .spec
            .max_nodes
            .map_or(usize::MAX, |m| m as usize);
        Service {
            families: served.families.clone(),
            nodes: set.members.iter().map(|m| m.name.clone()).collect(),
            unidentifiable: set.unidentifiable.iter().map(|(n, _)| n.clone()).collect(),
            wanted: slots.wanted,
            grows: set.members.len() < limit,
            has: children.map_or(0, BTreeMap::len),
            needs,
            held: slots.held.clone(),
            blocked: slots
                .slots
                .iter()
                .filter_map(|s| s.blocked.as_ref().map(|(_, why)| why.clone()))
                .collect(),
        }
    }

    fn close(self, view: &Arc<PoolView>) -> PoolAppraisal {
        let why =
            |v: &crate::api::condition::Verdict| (!v.holds).then(|| (v.reason, v.message.clone()));
        PoolAppraisal {
            refused: why(&view.accepted),
            unconfigured: why(&view.configured),
            terminating: view.terminating,
            ranges: view.ranges.clone(),
            avoid_buggy: view.avoid_buggy,
            conflict: view.spoiler().cloned(),
            left: Family::BOTH
                .into_iter()
                .filter(|f| view.ranges.has(*f))
                .map(|f| (f, self.free(f, None).0))
                .collect(),
        }
    }
}

fn offers(pool: &PoolView, address: IpAddr) -> bool {
    pool.ranges.contains(address) && !(pool.avoid_buggy && is_buggy(address))
}
