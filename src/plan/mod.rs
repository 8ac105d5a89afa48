//! From the world to what should exist: pure, without clock, randomness or
//! I/O. Equal worlds give equal plans, in whatever order they came to be.
//!
//! One plan is for the whole cluster, so that evenness and the ownership of
//! addresses have one owner:
//!
//! 1. `environment`: nodes, pools, sets of candidate nodes;
//! 2. `load_balancer`: the slots of each load balancer, the oldest first,
//!    with their addresses (`address`, `books`) and pins (`pin`);
//! 3. `metallb_objects`: pools and advertisements;
//! 4. `status`: phases, conditions and events;
//! 5. the differences from the world, as [`Change`]s.

mod ability;
mod address;
mod announcement;
pub(crate) mod appraisal;
mod books;
mod census;
mod change;
pub(crate) mod dns;
pub(crate) mod electorate;
mod environment;
mod evenness;
pub(crate) mod gate;
mod inference;
mod load_balancer;
mod metallb_objects;
pub(crate) mod neighbours;
pub(crate) mod outlook;
mod own_pool;
mod pin;
pub(crate) mod pool;
mod pool_status;
mod rebalance;
mod status;
mod template;
mod writing;

pub use census::{Census, NodeCensus, PHASES, Phases, PoolCensus, Shares, census};
pub use change::{Action, Body, Cause, Change, PlannedEvent, Stage};
pub use evenness::EVEN;
pub use load_balancer::SlotPlan;
pub use rebalance::{Move, Rebalance, Scope, rebalance};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::address::{AddressRange, Family, RangeSet};
use crate::api::{
    ConditionType, FamilyCount, L2AddressPoolStatus, L2LoadBalancerStatus, Reason, names,
};
use crate::external_dns::Availability;
use crate::metallb::Capabilities;
use crate::world::{Child, Evenness, Key, Kind, ObjectRef, Stored, World};
use books::{Books, HeirCache};
use environment::{Environment, NodeIds};
use evenness::LoadCache;
use gate::Gate;
use load_balancer::{Served, Slots, earlier};
use template::ServiceTemplate;

/// What should exist, and what must be written to get there.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The load balancers, by key.
    pub load_balancers: BTreeMap<Key, Arc<LoadBalancerPlan>>,
    /// The pools, by name.
    pub pools: BTreeMap<String, PoolPlan>,
    /// What must be written, sorted by stage.
    pub changes: Vec<Change>,
    /// What a person should hear of once the changes are written.
    pub events: Vec<PlannedEvent>,
    /// When to plan again, if nothing happens before.
    pub next_deadline: Option<Timestamp>,
}

/// What is planned for one load balancer.
#[derive(Clone, Debug)]
pub struct LoadBalancerPlan {
    /// Its slots by number.
    pub slots: Vec<SlotPlan>,
    /// Its status.
    pub status: L2LoadBalancerStatus,
    /// Name of its pool, if it has one.
    pub pool: Option<String>,
    /// The DNSEndpoint that should exist, if one should.
    pub dns_endpoint: Option<Value>,
    template: Option<Arc<ServiceTemplate>>,
    changes: Vec<Change>,
    events: Vec<PlannedEvent>,
    deadline: Option<Timestamp>,
    /// Addresses by family.
    held: FamilyCount,
    /// Addresses that nodes which are selected now are still to be given.
    missing: FamilyCount,
    /// Addresses that one more node would take.
    growth: FamilyCount,
    /// Addresses outside the pool's ranges that are still held.
    outside: Vec<AddressRange>,
    /// The pools and advertisements that its slots have for themselves.
    own_objects: Vec<Value>,
    set: Option<(String, String)>,
    settled: bool,
}

impl LoadBalancerPlan {
    /// The Services that should exist; none while the load balancer is not accepted.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.template.iter().flat_map(|template| {
            self.slots
                .iter()
                .filter(|s| s.blocked.is_none())
                .map(|slot| template.service(slot))
        })
    }
}

/// What is planned for one pool.
#[derive(Clone, Debug, Default)]
pub struct PoolPlan {
    /// MetalLB's objects that should exist.
    pub objects: Vec<Value>,
    /// Its status.
    pub status: L2AddressPoolStatus,
}

/// Plans a world without memory of an earlier plan.
pub fn plan(world: &World) -> Plan {
    Planner::default().plan(world)
}

/// Makes plans, and remembers what did not change since the last one. A plan
/// is the same with and without that memory.
#[derive(Debug, Default)]
pub struct Planner {
    environment: Environment,
    ids: NodeIds,
    heirs: HeirCache,
    memo: HashMap<Key, Memo>,
    loads: LoadCache,
    /// What MetalLB can do, and whether it is addressed under its old prefix.
    metallb: (Capabilities, bool),
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
        let previous = std::mem::take(&mut self.environment);
        let mut environment = Environment::read(world, &previous);
        // What every load balancer depends on.
        let metallb = (world.capabilities, world.needs_old_annotations());
        let same_ground = environment.nodes == previous.nodes
            && metallb == std::mem::replace(&mut self.metallb, metallb)
            && world.external_dns == std::mem::replace(&mut self.external_dns, world.external_dns);
        let gates: Vec<(Key, Gate)> = environment
            .order
            .clone()
            .into_iter()
            .map(|key| {
                let gate = gate::judge(world, &mut environment, &previous, &key, &mut self.ids);
                (key, gate)
            })
            .collect();
        let mut memo = std::mem::take(&mut self.memo);
        let mut plan = Plan {
            next_deadline: environment.deadline,
            ..Plan::default()
        };
        let work: Vec<Work> = gates
            .into_iter()
            .map(|(key, gate)| {
                let revision = world.load_balancer_revision(&key);
                let same = memo.remove(&key).filter(|m| {
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
        abandoned(world, &mut plan);
        dns::abandoned(world, &mut plan);
        self.plan_pools(world, &environment, &mut plan);
        plan.changes
            .sort_by(|a, b| (a.stage, &a.object).cmp(&(b.stage, &b.object)));
        let wanted: BTreeSet<(String, String)> = plan
            .load_balancers
            .values()
            .filter_map(|p| p.set.clone())
            .collect();
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
            let (mut held, users, outside) = tallies.remove(name.as_str()).unwrap_or_default();
            pool_status::count_others(world, view, &mut held);
            let served = users_of(world, name);
            let mut objects =
                metallb_objects::plan(world, environment, view, &outside, &own, served);
            let own = own_objects.remove(name.as_str());
            objects.wanted.extend(own.into_iter().flatten());
            plan.next_deadline = earlier(plan.next_deadline, objects.deadline);
            // What is about to be gone needs no status.
            let released = objects.changes.iter().any(|c| c.stage == Stage::Release);
            more.extend(objects.changes);
            let (status, change, events) = pool_status::plan(world, view, held, users);
            more.extend(change.filter(|_| !released));
            plan.events.extend(events);
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

/// Every address that lies in a slot's own pool, or will.
fn own_addresses(environment: &Environment, plan: &Plan) -> RangeSet {
    let slots = plan.load_balancers.values().flat_map(|p| &p.slots);
    slots
        .filter(|s| s.has_own_pool())
        .flat_map(|s| s.addresses.iter().copied())
        .chain(environment.given.own())
        .map(AddressRange::single)
        .collect()
}

/// Own pools that no slot has any more: they go.
fn unused_pools(world: &World, plan: &Plan) -> metallb_objects::PoolObjects {
    let children = world.children.values().flat_map(|slots| slots.values());
    let slots = plan.load_balancers.values().flat_map(|p| &p.slots);
    let named = children.filter_map(|c| c.address_pool.as_deref());
    let planned = slots.map(|s| s.address_pool.as_str());
    let wanted = named.chain(planned).filter(|n| names::is_own_pool(n));
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

/// Children whose load balancer is no more: they go. One without an owner was
/// left on purpose (`--cascade=orphan`) and stays.
fn abandoned(world: &World, plan: &mut Plan) {
    for (key, children) in &world.children {
        let gone = match world.load_balancers.get(key).map(Stored::metadata) {
            None => true,
            // While the garbage collector takes their owner from them, they have one.
            Some(meta) => {
                let orphans = meta.finalizers.iter().flatten().any(|f| f == "orphan");
                meta.deletion_timestamp.is_some() && !orphans
            }
        };
        if gone {
            for child in children
                .values()
                .filter(|c| !c.terminating && c.owner.is_some())
            {
                plan.changes.push(deletion(child, Cause::Unwanted));
            }
        }
    }
}

fn deletion(child: &Child, cause: Cause) -> Change {
    Change {
        stage: Stage::Withdraw,
        object: ObjectRef {
            kind: Kind::Service,
            key: child.key.clone(),
        },
        action: Action::Delete {
            uid: child.service.metadata.uid.clone(),
            resource_version: child.service.metadata.resource_version.clone(),
        },
        cause,
        pool: None,
        content: 0,
    }
}

fn plan_load_balancer(
    world: &World,
    environment: &Environment,
    key: &Key,
    gate: &Gate,
    books: &mut Books<'_>,
) -> LoadBalancerPlan {
    let stored = world.load_balancers.get(key);
    let valid = stored.and_then(Stored::valid);
    let previous_conditions = match stored {
        Some(Stored::Valid(lb)) => lb.status.as_ref().map_or(&[][..], |s| &s.conditions),
        Some(Stored::Broken { conditions, .. }) => conditions,
        None => &[],
    };
    let generation = stored.and_then(|s| s.metadata().generation);
    let mut records = dns::Records::default();
    let (slots, mut status, template) = match gate {
        Gate::Open(served) => {
            let slots = load_balancer::decide(world, environment, served, books);
            records = dns::plan(world, served, &slots);
            let verdict = records.verdict.take();
            let status = status::served_status(world, environment, served, &slots, verdict);
            let template = ServiceTemplate::new(
                &served.object,
                key,
                &served.pool.name,
                &served.pool.load_balancer_class,
                &served.set.id,
                &served.families,
                world.needs_old_annotations(),
            );
            (slots, status, Some(Arc::new(template)))
        }
        Gate::Shut { verdict, .. } => {
            let slots = load_balancer::frozen(world, environment, key);
            let status = status::refused_status(
                world,
                environment,
                verdict,
                dns::frozen(valid, verdict.reason),
                &slots,
                previous_conditions,
                generation,
            );
            (slots, status, None)
        }
        Gate::Leaving => (Slots::default(), L2LoadBalancerStatus::default(), None),
    };
    status::name_slots(&mut status, &key.name);
    let mut result = LoadBalancerPlan {
        pool: gate.pool_name(),
        set: gate.set_key(),
        held: FamilyCount::default(),
        missing: slots
            .unmet
            .iter()
            .flat_map(|u| u.families.iter().copied())
            .collect(),
        growth: growth(gate, &slots),
        outside: Vec::new(),
        own_objects: Vec::new(),
        changes: Vec::new(),
        events: Vec::new(),
        deadline: earlier(slots.deadline, records.until),
        dns_endpoint: records.wanted,
        settled: false,
        slots: slots.slots,
        status,
        template,
    };
    tally(world, environment, key, &mut result);
    let waiting = match gate {
        Gate::Open(served) => give_pools(world, environment, served, &mut result),
        _ => BTreeSet::new(),
    };
    write_services(world, key, &slots.dropped, &waiting, &mut result);
    result.changes.extend(records.change);
    if !matches!(gate, Gate::Leaving) {
        write_status(key, stored, &mut result);
        let uid = stored.and_then(|s| s.metadata().uid.as_ref());
        if !result.changes.is_empty() {
            let old = valid.and_then(|lb| lb.status.as_ref());
            result.events = status::events(key, uid, old, &result.status);
        }
    }
    // A slot without a Service counts in the books only while it is planned.
    let none = BTreeMap::new();
    let children = world.children.get(key).unwrap_or(&none);
    let written = result
        .slots
        .iter()
        .all(|slot| children.contains_key(&slot.number));
    // What is missing may come free by what happens to others.
    let complete = result
        .status
        .conditions
        .iter()
        .all(|c| c.type_ != ConditionType::AddressesAllocated.as_str() || c.status == "True");
    result.settled = result.changes.is_empty()
        && waiting.is_empty()
        && slots.unmet.is_empty()
        && written
        && (complete || !matches!(gate, Gate::Open(_)));
    result
}

/// Addresses that one more balancer node would take: none when `maxNodes` is
/// reached, or when it would inherit a retiring slot.
fn growth(gate: &Gate, slots: &Slots) -> FamilyCount {
    let Gate::Open(served) = gate else {
        return FamilyCount::default();
    };
    let limit = served
        .object
        .spec
        .max_nodes
        .map_or(usize::MAX, |m| m as usize);
    let inherits = slots.slots.iter().any(|s| s.retire_at.is_some());
    if inherits || served.set.members.len() >= limit {
        return FamilyCount::default();
    }
    served.families.iter().copied().collect()
}

/// Plans the objects that slots have for themselves. Returns the numbers of
/// those whose Services must wait.
fn give_pools(
    world: &World,
    environment: &Environment,
    served: &Served,
    plan: &mut LoadBalancerPlan,
) -> BTreeSet<u32> {
    let mut waiting = BTreeSet::new();
    let children = world.children.get(&served.key);
    for slot in &plan.slots {
        if !slot.has_own_pool() {
            // Its Service was deleted when MetalLB was upgraded: the pool of
            // its own goes first.
            if environment.given.holds_any(&slot.addresses) {
                waiting.insert(slot.number);
            }
            continue;
        }
        if matches!(slot.blocked, Some((Reason::NameTaken, _))) {
            continue;
        }
        let child = children.and_then(|c| c.get(&slot.number)).map(|c| &**c);
        let name = names::service_name(&served.key.name, slot.number);
        let service = Key::new(served.key.namespace.clone(), name);
        match own_pool::objects(world, environment, served, &service, slot, child) {
            Some(objects) => {
                plan.own_objects.extend(objects.wanted);
                plan.changes.extend(objects.changes);
                plan.deadline = earlier(plan.deadline, objects.deadline);
            }
            None => drop(waiting.insert(slot.number)),
        }
    }
    waiting
}

/// Counts what the load balancer holds.
fn tally(world: &World, environment: &Environment, key: &Key, plan: &mut LoadBalancerPlan) {
    let view = plan.pool.as_ref().and_then(|p| environment.pools.get(p));
    let leaving = world.children.get(key).into_iter().flat_map(|c| c.values());
    let leaving = leaving
        .filter(|c| plan.slots.iter().all(|s| s.number != c.slot))
        .flat_map(|c| c.addresses.iter().map(|a| (*a, c.has_own_pool())));
    let slots = plan.slots.iter();
    let addresses: Vec<_> = slots
        .flat_map(|s| s.addresses.iter().map(|a| (*a, s.has_own_pool())))
        .chain(leaving)
        .collect();
    for (address, own) in addresses {
        match Family::of(address) {
            Family::IPv4 => plan.held.ipv4 += 1,
            Family::IPv6 => plan.held.ipv6 += 1,
        }
        if !own && view.is_some_and(|v| !v.ranges.contains(address)) {
            plan.outside.push(AddressRange::single(address));
        }
    }
}

/// `waiting` are the numbers of slots whose pools come first.
fn write_services(
    world: &World,
    key: &Key,
    dropped: &[Arc<Child>],
    waiting: &BTreeSet<u32>,
    plan: &mut LoadBalancerPlan,
) {
    for child in dropped {
        plan.changes.push(deletion(child, Cause::Retirement));
    }
    let Some(template) = &plan.template else {
        return;
    };
    let terminating = world
        .namespaces
        .get(&key.namespace)
        .is_some_and(|n| n.terminating);
    let none = BTreeMap::new();
    let children = world.children.get(key).unwrap_or(&none);
    let mut changes = Vec::new();
    // What was compared for one child need not be for those that are alike.
    let mut as_wanted = None;
    for slot in plan.slots.iter().filter(|s| !waiting.contains(&s.number)) {
        let (cause, action, content) = match children.get(&slot.number) {
            // It is going; its name is free when it is gone.
            Some(child) if child.terminating => continue,
            Some(child) => {
                let alike = as_wanted == Some(child.common);
                let difference = template.difference(slot, child, alike);
                if alike && difference.is_none() {
                    continue;
                }
                // Ports first: until those that are not ours have gone, the
                // API server may refuse ours beside them.
                if let Some(patch) = template.ports_patch(child) {
                    let content = writing::content_of(&patch);
                    (
                        difference.unwrap_or(Cause::Drift),
                        Action::Patch(patch.into()),
                        content,
                    )
                } else if let Some(cause) = difference {
                    let version = child.service.metadata.resource_version.clone();
                    let body = Body::service(template, slot, version);
                    (cause, Action::Apply(body), template.content(slot))
                } else {
                    as_wanted = Some(child.common);
                    continue;
                }
            }
            None if terminating => continue,
            None if matches!(slot.blocked, Some((Reason::NameTaken, _))) => continue,
            None => {
                let body = Body::service(template, slot, None);
                (Cause::New, Action::Create(body), template.content(slot))
            }
        };
        let name = names::service_name(&key.name, slot.number);
        let change = Change {
            stage: Stage::Serve,
            object: ObjectRef {
                kind: Kind::Service,
                key: Key::new(key.namespace.clone(), name),
            },
            action,
            cause,
            pool: Some(slot.address_pool.clone()),
            content,
        };
        let (change, until) = writing::hold_back(world, change);
        plan.deadline = earlier(plan.deadline, until);
        changes.extend(change);
    }
    plan.changes.extend(changes);
}

fn write_status(
    key: &Key,
    stored: Option<&Stored<crate::api::L2LoadBalancer>>,
    plan: &mut LoadBalancerPlan,
) {
    let same = match stored {
        Some(Stored::Valid(lb)) => lb
            .status
            .as_ref()
            .is_some_and(|old| is_same(old, &plan.status)),
        Some(Stored::Broken { conditions, .. }) => plan
            .status
            .conditions
            .iter()
            .all(|c| conditions.contains(c)),
        None => true,
    };
    if same {
        return;
    }
    let mut status = json!(plan.status);
    if matches!(stored, Some(Stored::Broken { .. })) {
        // Nothing but the conditions is known to be right.
        status = json!({"conditions": plan.status.conditions});
    }
    plan.changes.push(status_change(
        Kind::LoadBalancer,
        "L2LoadBalancer",
        key,
        &status,
    ));
}

/// Whether two statuses say the same, leaving others' conditions aside.
fn is_same(old: &L2LoadBalancerStatus, new: &L2LoadBalancerStatus) -> bool {
    old.public_addresses == new.public_addresses
        && old.slots_ready == new.slots_ready
        && old.slots == new.slots
        && old.observed_generation == new.observed_generation
        && new.conditions.iter().all(|c| old.conditions.contains(c))
        && has_dns(new) == has_dns(old)
}

/// The one condition that is not always there.
fn has_dns(status: &L2LoadBalancerStatus) -> bool {
    let kind = ConditionType::DnsPublished.as_str();
    status.conditions.iter().any(|c| c.type_ == kind)
}

fn status_change(kind: Kind, name: &str, key: &Key, status: &Value) -> Change {
    let mut metadata = json!({"name": key.name});
    if !key.namespace.is_empty() {
        metadata["namespace"] = json!(key.namespace);
    }
    let body = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": name,
        "metadata": metadata,
        "status": status,
    });
    Change {
        stage: Stage::Report,
        object: ObjectRef {
            kind,
            key: key.clone(),
        },
        content: writing::content_of(&body),
        action: Action::ApplyStatus(body.into()),
        cause: Cause::Status,
        pool: None,
    }
}
