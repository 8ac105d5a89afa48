//! Plans the whole world, and remembers what did not change since the last plan.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use super::books::{Books, HeirCache};
use super::environment::{Environment, NodeIds};
use super::evenness::{self, LoadCache};
use super::gate::{self, Gate};
use super::load_balancer::earlier;
use super::metallb_changes::PoolObjects;
use super::metallb_objects::InUse;
use super::one::plan_load_balancer;
use super::pool::{PoolView, is_ours};
use super::{
    Change, LoadBalancerPlan, Plan, PoolPlan, SlotPlan, Stage, claims, dns, metallb_objects,
    pool_status, service_changes,
};
use crate::address::{AddressRange, RangeSet};
use crate::api::{FamilyCount, names};
use crate::external_dns::Availability;
use crate::metallb::Capabilities;
use crate::world::{Child, Evenness, Key, Stored, World};

/// Makes plans, and remembers what did not change since the last one. A plan
/// is the same with and without that memory.
#[derive(Debug, Default)]
pub struct Planner {
    environment: Environment,
    ids: NodeIds,
    heirs: HeirCache,
    memo: HashMap<Key, Memo>,
    loads: LoadCache,
    ground: Ground,
}

/// What every load balancer depends on, besides the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ground {
    capabilities: Capabilities,
    /// MetalLB is addressed under its old prefix.
    old_annotations: bool,
    /// Its speakers say what they announce.
    reports: bool,
    /// Some of them do not find dead nodes by themselves.
    without_memberlist: bool,
    external_dns: Availability,
}

/// A load balancer's last plan and everything that it was made from.
#[derive(Debug)]
struct Memo {
    revision: u64,
    gate: Gate,
    plan: Arc<LoadBalancerPlan>,
}

/// A load balancer that is to be planned, or was before.
struct Work {
    key: Key,
    gate: Gate,
    revision: u64,
    kept: Option<Arc<LoadBalancerPlan>>,
}

/// How many names of nodes that are no more are remembered at least.
const SPARE_IDS: usize = 64;

/// From how many load balancers on all cores plan at once.
const SEVERAL: usize = 2;

/// Plans the load balancers that ask nothing of the books, which all share:
/// those at rest, nearly all of them when a controller starts. Each can be
/// planned by itself; the others get `None`.
fn plan_ahead(
    world: &World,
    environment: &Environment,
    ids: &NodeIds,
    work: &[Work],
) -> Vec<Option<LoadBalancerPlan>> {
    let exists = |w: &&Work| w.kept.is_none() && world.children.contains_key(&w.key);
    if work.iter().filter(exists).count() < SEVERAL {
        return work.iter().map(|_| None).collect();
    }
    work.par_iter()
        .map(|w| {
            Some(w).filter(exists)?;
            let mut heirs = HeirCache::default();
            let mut books = Books::new(world, environment, ids, &mut heirs).closed();
            let planned = plan_load_balancer(world, environment, &w.key, &w.gate, &mut books);
            (!books.were_asked()).then_some(planned)
        })
        .collect()
}

impl Planner {
    /// Plans the whole world.
    pub fn plan(&mut self, world: &World) -> Plan {
        // Where nodes come and go under new names, their tables would grow for ever.
        if self.ids.len() > 2 * world.nodes.len() + SPARE_IDS {
            *self = Self::default();
        }
        let previous = std::mem::take(&mut self.environment);
        let mut environment = Environment::read(world, &previous);
        let ground = Ground {
            capabilities: world.capabilities,
            old_annotations: world.needs_old_annotations(),
            reports: environment.reports_announcers,
            without_memberlist: environment.without_memberlist,
            external_dns: world.external_dns,
        };
        let same_ground = environment.nodes == previous.nodes
            && ground == std::mem::replace(&mut self.ground, ground);
        let mut memo = std::mem::take(&mut self.memo);
        let mut plan = Plan {
            next_deadline: environment.deadline,
            ..Plan::default()
        };
        let order = std::mem::take(&mut environment.order);
        let work: Vec<Work> = order
            .into_iter()
            .map(|key| {
                let revision = world.load_balancer_revision(&key);
                let before = memo.remove(&key);
                let known = before.as_ref().map(|m| &m.gate);
                let ids = &mut self.ids;
                let gate = gate::judge(world, &mut environment, &previous, &key, ids, known);
                let same = before.filter(|m| {
                    same_ground
                        && m.revision == revision
                        && m.plan.settled
                        && m.plan.deadline.is_none_or(|at| at > world.now)
                        && m.gate.is_same(&gate)
                });
                Work {
                    key,
                    gate,
                    revision,
                    kept: same.map(|m| m.plan),
                }
            })
            .collect();
        let mut heirs = std::mem::take(&mut self.heirs);
        let ahead = plan_ahead(world, &environment, &self.ids, &work);
        let mut books = Books::new(world, &environment, &self.ids, &mut heirs);
        for (work, ahead) in work.into_iter().zip(ahead) {
            let Work {
                key,
                gate,
                revision,
                kept,
            } = work;
            let planned = match kept {
                Some(kept) => kept,
                None => {
                    let mut planned = match ahead {
                        Some(planned) => planned,
                        None => plan_load_balancer(world, &environment, &key, &gate, &mut books),
                    };
                    // What is remembered has nothing to write or to say.
                    plan.changes.append(&mut planned.changes);
                    plan.events.append(&mut planned.events);
                    Arc::new(planned)
                }
            };
            plan.next_deadline = earlier(plan.next_deadline, planned.deadline);
            self.memo.insert(
                key.clone(),
                Memo {
                    revision,
                    gate,
                    plan: Arc::clone(&planned),
                },
            );
            plan.load_balancers.insert(key, planned);
        }
        self.heirs = heirs;
        service_changes::abandoned(world, &mut plan);
        dns::abandoned(world, &mut plan);
        self.plan_pools(world, &environment, &mut plan);
        plan.changes
            .sort_by(|a, b| (a.stage, &a.object).cmp(&(b.stage, &b.object)));
        let sets = plan.load_balancers.values().filter_map(|p| p.set.as_ref());
        let wanted: BTreeSet<(&str, &str)> = sets.map(|(pool, id)| (&**pool, &**id)).collect();
        environment.drop_sets_except(&wanted);
        self.environment = environment;
        plan
    }

    /// How evenly the addresses of each pool lie on its nodes, by the plan that
    /// was made last. It is asked for when nothing is left to do, and goes
    /// back into the world: [`World::set_evenness`].
    pub fn evenness(&mut self) -> BTreeMap<String, Evenness> {
        let planned = self.memo.iter().filter_map(|(key, memo)| match &memo.gate {
            Gate::Open(served) => Some((key, &**served, &memo.plan)),
            _ => None,
        });
        let loads = self.loads.update(planned);
        self.environment
            .pools
            .keys()
            .map(|name| {
                let of_this = loads.iter().filter(|(pool, _)| pool == name);
                let evenness =
                    evenness::of_pool(&self.environment, name, of_this.map(|(_, load)| &**load));
                (name.clone(), evenness)
            })
            .collect()
    }

    fn plan_pools(&self, world: &World, environment: &Environment, plan: &mut Plan) {
        let mut tallies: BTreeMap<&str, (FamilyCount, i64, Vec<AddressRange>)> = BTreeMap::new();
        for planned in plan.load_balancers.values() {
            let Some(pool) = &planned.pool else { continue };
            let tally = tallies.entry(pool).or_default();
            tally.0.ipv4 += planned.held.ipv4;
            tally.0.ipv6 += planned.held.ipv6;
            tally.1 += 1;
            tally.2.extend(planned.outside.iter().copied());
        }
        let unplanned = unplanned(world, plan);
        let mut pools = BTreeMap::new();
        let unused = unused_pools(world, plan);
        plan.next_deadline = earlier(plan.next_deadline, unused.deadline);
        let mut more = unused.changes;
        let own = own_addresses(environment, plan);
        let mut own_objects: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for planned in plan.load_balancers.values() {
            if let Some(pool) = &planned.pool {
                let objects = own_objects.entry(pool).or_default();
                objects.extend(planned.own_objects.iter().cloned());
            }
        }
        for (name, view) in &environment.pools {
            let (mut held, users, mut outside) = tallies.remove(name.as_str()).unwrap_or_default();
            outside.extend(outside_of(view, &unplanned));
            pool_status::count_others(world, view, &unplanned, &mut held);
            let in_use = InUse {
                addresses: &outside,
                by: namespaces_with(world, plan, view, &unplanned),
                own: &own,
                served: users_of(world, name),
            };
            let mut objects = metallb_objects::plan(world, environment, view, in_use);
            let own = own_objects.remove(name.as_str());
            objects.wanted.extend(own.into_iter().flatten());
            plan.next_deadline = earlier(plan.next_deadline, objects.deadline);
            // What is about to be gone needs no status. What gets its
            // finalizer gets it with the next plan: it is a new version then.
            let is_first = |c: &Change| {
                matches!(c.stage, Stage::Protect | Stage::Release)
                    && !world.refusals.contains_key(&c.object)
            };
            let waits = objects.changes.iter().any(is_first);
            more.extend(objects.changes);
            let kept = pool_status::reserved(world, environment, view, &plan.load_balancers);
            let (status, change, events) = pool_status::plan(world, view, held, kept, users);
            if !waits {
                more.extend(change);
                plan.events.extend(events);
            }
            pools.insert(
                name.clone(),
                PoolPlan {
                    objects: objects.wanted,
                    status,
                },
            );
        }
        let orphans = metallb_objects::orphans(world);
        plan.next_deadline = earlier(plan.next_deadline, orphans.deadline);
        plan.changes.extend(more);
        plan.changes.extend(orphans.changes);
        plan.pools = pools;
    }
}

/// The children that no plan of a load balancer counts: it is going, is no more
/// or cannot be read, or has another pool than an earlier one of its name.
fn unplanned<'a>(world: &'a World, plan: &Plan) -> Vec<&'a Child> {
    let mut found = Vec::new();
    for (key, slots) in &world.children {
        let planned = plan.load_balancers.get(key);
        let pool = planned.and_then(|p| Some((p.pool.as_deref()?, p.has_strays)));
        let children = slots.values().map(|child| &**child);
        match pool {
            Some((_, false)) => {}
            Some((pool, true)) => found.extend(children.filter(|c| c.pool != pool)),
            None => found.extend(children),
        }
    }
    found
}

/// The namespaces whose Services have addresses of a pool, or will, where that
/// matters. One that is listed stays while it may use the pool anyway: MetalLB takes
/// every change of a pool for a new configuration.
fn namespaces_with<'a>(
    world: &'a World,
    plan: &'a Plan,
    view: &PoolView,
    unplanned: &[&'a Child],
) -> BTreeSet<&'a str> {
    if view.namespace_selector.is_none() {
        return BTreeSet::new();
    }
    let listed = world
        .ip_address_pools
        .get(&names::ip_address_pool_name(&view.name))
        .and_then(Stored::valid)
        .filter(|pool| is_ours(&pool.metadata, &view.name))
        .and_then(|pool| pool.spec.service_allocation.as_ref())
        .map_or(&[][..], |allocation| &allocation.namespaces);
    let listed = listed
        .iter()
        .map(String::as_str)
        .filter(|name| world.namespaces.contains_key(*name) && claims::admits(world, view, name));
    let planned = plan.load_balancers.iter().filter(|(_, planned)| {
        planned.pool.as_ref() == Some(&view.name) && !planned.slots.is_empty()
    });
    let others = unplanned.iter().filter(|c| c.pool == view.name);
    planned
        .map(|(key, _)| key.namespace.as_str())
        .chain(others.map(|c| c.key.namespace.as_str()))
        .chain(listed)
        .collect()
}

/// What they hold outside the ranges of their pool, which MetalLB must have until
/// they are gone.
fn outside_of(view: &PoolView, unplanned: &[&Child]) -> Vec<AddressRange> {
    let of_pool = unplanned
        .iter()
        .filter(|c| c.pool == view.name && !c.has_own_pool());
    of_pool
        .flat_map(|child| child.all_addresses())
        .filter(|address| !view.ranges.contains(*address))
        .map(AddressRange::single)
        .collect()
}

/// The slots that have a pool of their own, or will.
fn slots_with_own_pools(plan: &Plan) -> impl Iterator<Item = &SlotPlan> {
    let load_balancers = plan.load_balancers.values();
    // From MetalLB 0.16.2 on hardly any has, and all slots need not be gone through.
    load_balancers
        .filter(|p| p.has_own_pools)
        .flat_map(|p| &p.slots)
        .filter(|s| s.has_own_pool())
}

/// Every address that lies in a slot's own pool, or will.
fn own_addresses(environment: &Environment, plan: &Plan) -> RangeSet {
    slots_with_own_pools(plan)
        .flat_map(|s| s.addresses.iter().copied())
        .chain(environment.given.own())
        .map(AddressRange::single)
        .collect()
}

/// Own pools that no slot has any more: they go.
fn unused_pools(world: &World, plan: &Plan) -> PoolObjects {
    if !metallb_objects::has_own(world) {
        return PoolObjects::default();
    }
    let children = world.children.values().flat_map(|slots| slots.values());
    let named = children.filter_map(|c| c.address_pool.as_deref());
    let planned = slots_with_own_pools(plan).map(|s| s.address_pool.as_str());
    let wanted = named.filter(|n| names::is_own_pool(n)).chain(planned);
    metallb_objects::unused_own(world, &wanted.collect())
}

/// Whether any Service, even one that is going, has an address of a pool.
fn users_of(world: &World, pool: &str) -> bool {
    world
        .children
        .values()
        .flat_map(|slots| slots.values())
        .any(|c| c.pool == pool)
}
