//! One load balancer: everything that is planned for it, from its gate to the
//! differences from the world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::books::Books;
use super::environment::Environment;
use super::gate::Gate;
use super::load_balancer::{self, Served, Slots, earlier, is_elsewhere};
use super::service_changes::write_services;
use super::status_changes::write_status;
use super::template::ServiceTemplate;
use super::{LoadBalancerPlan, SlotPlan, dns, own_pool, status};
use crate::address::{AddressRange, Family};
use crate::api::{ConditionType, FamilyCount, L2LoadBalancerStatus, Reason, names};
use crate::world::{Child, Key, Stored, World};

pub(super) fn plan_load_balancer(
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
                load_balancer::class(world, served),
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
        has_strays: false,
        has_own_pools: slots.slots.iter().any(SlotPlan::has_own_pool),
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
    tally(world, environment, key, gate, &mut result);
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
        && !has_spare(gate, &result)
        && waiting.is_empty()
        && slots.unmet.is_empty()
        && written
        && (complete || !matches!(gate, Gate::Open(_)));
    result
}

/// Whether an address that is kept for the load balancer is not in use by it:
/// somebody else may have it, or get it.
fn has_spare(gate: &Gate, plan: &LoadBalancerPlan) -> bool {
    let Gate::Open(served) = gate else {
        return false;
    };
    let named = served.object.spec.addresses.iter();
    let mut named = named.filter_map(|a| a.parse::<IpAddr>().ok());
    named.any(|a| plan.slots.iter().all(|s| !s.addresses.contains(&a)))
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
fn tally(
    world: &World,
    environment: &Environment,
    key: &Key,
    gate: &Gate,
    plan: &mut LoadBalancerPlan,
) {
    let view = plan.pool.as_ref().and_then(|p| environment.pools.get(p));
    // What is not accepted is not planned anew when the pool's ranges change.
    let is_frozen = matches!(gate, Gate::Shut { .. });
    let children = world.children.get(key).into_iter().flat_map(|c| c.values());
    let leaving = children.filter(|c| plan.slots.iter().all(|s| s.number != c.slot));
    let is_stray = |child: &&Arc<Child>| {
        let pool = plan.pool.as_deref();
        pool.is_some_and(|pool| is_elsewhere(world, child, pool))
    };
    let (strays, leaving): (Vec<_>, Vec<_>) = leaving.partition(is_stray);
    let leaving = leaving
        .iter()
        .flat_map(|c| c.addresses.iter().map(|a| (*a, c.has_own_pool())));
    let slots = plan.slots.iter();
    let addresses: Vec<_> = slots
        .flat_map(|s| s.addresses.iter().map(|a| (*a, s.has_own_pool())))
        .chain(leaving)
        .collect();
    plan.has_strays = !strays.is_empty();
    for (address, own) in addresses {
        match Family::of(address) {
            Family::IPv4 => plan.held.ipv4 += 1,
            Family::IPv6 => plan.held.ipv6 += 1,
        }
        if !own && (is_frozen || view.is_some_and(|v| !v.ranges.contains(address))) {
            plan.outside.push(AddressRange::single(address));
        }
    }
}
