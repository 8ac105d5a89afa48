//! What is said of a pool.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use super::change::{Change, PlannedEvent};
use super::environment::Environment;
use super::evenness;
use super::pool::PoolView;
use super::{LoadBalancerPlan, status_change};
use crate::address::Family;
use crate::api::condition::Verdict;
use crate::api::{ConditionType, FamilyCount, L2AddressPoolStatus, Reason};
use crate::world::{Child, Key, Kind, ObjectRef, Stored, World};

/// Adds the addresses of the pool that others hold: foreign Services, and
/// children of load balancers that are not planned.
pub(super) fn count_others(
    world: &World,
    view: &PoolView,
    unplanned: &[&Child],
    held: &mut FamilyCount,
) {
    let foreign = world
        .foreign_services
        .values()
        .flat_map(|s| s.addresses.iter());
    let orphaned = unplanned.iter().flat_map(|c| c.addresses.iter());
    for address in foreign
        .chain(orphaned)
        .filter(|a| view.ranges.contains(**a))
    {
        match Family::of(*address) {
            Family::IPv4 => held.ipv4 += 1,
            Family::IPv6 => held.ipv6 += 1,
        }
    }
}

/// The addresses of the pool that no Service has, or will have by this plan,
/// and that are not free either: those of nodes, and those that are kept for
/// one load balancer.
pub(super) fn reserved(
    world: &World,
    environment: &Environment,
    view: &PoolView,
    planned: &BTreeMap<Key, Arc<LoadBalancerPlan>>,
) -> FamilyCount {
    let unused = |address: &IpAddr| view.offers(*address) && !world.is_held(*address);
    let gets = |address: &IpAddr, by: &Key| {
        let mut slots = planned.get(by).into_iter().flat_map(|p| &p.slots);
        slots.any(|slot| slot.addresses.contains(address))
    };
    let kept = environment
        .reserved
        .iter()
        .filter(|(address, by)| unused(address) && !gets(address, by))
        .map(|(address, _)| address);
    let nodes = environment
        .node_addresses
        .keys()
        .filter(|address| unused(address) && !environment.reserved.contains_key(address));
    kept.chain(nodes).map(|a| Family::of(*a)).collect()
}

/// The status of a pool, the write that brings it there, and what to say.
/// `held` has a Service, `reserved` none.
pub(super) fn plan(
    world: &World,
    view: &PoolView,
    held: FamilyCount,
    reserved: FamilyCount,
    users: i64,
) -> (L2AddressPoolStatus, Option<Change>, Vec<PlannedEvent>) {
    let stored = world.pools.get(&view.name);
    let old = stored
        .and_then(Stored::valid)
        .and_then(|p| p.status.as_ref());
    let previous: &[Condition] = match stored {
        Some(Stored::Broken { conditions, .. }) => conditions,
        _ => old.map_or(&[], |s| &s.conditions),
    };
    let saturate = |n: u128| i64::try_from(n).unwrap_or(i64::MAX);
    let capacity = |family| view.capacity(family);
    let free = |family| {
        [held, reserved]
            .iter()
            .map(|count| u128::from(count.of(family).unsigned_abs()))
            .fold(capacity(family), u128::saturating_sub)
    };
    let mut accepted = view.accepted.clone();
    if view.terminating && accepted.holds {
        accepted = Verdict::fails(
            ConditionType::Accepted,
            Reason::PoolTerminating,
            "the pool is being deleted: it gives out nothing new and goes when its addresses are \
             free",
        );
    }
    let mut configured = view.configured.clone();
    if configured.holds && !view.accepted.holds {
        configured = Verdict::fails(
            ConditionType::Configured,
            view.accepted.reason,
            "nothing is changed in MetalLB while the pool is not accepted",
        );
    } else if configured.holds && !view.exists && view.prefers {
        configured = Verdict::fails(
            ConditionType::Configured,
            Reason::Pending,
            "MetalLB's IPAddressPool is being made",
        );
    }
    let ready = ready(&accepted, &configured);
    // Until everything is at rest, what was said of it before stays.
    let even = world
        .evenness
        .get(&view.name)
        .map(|e| evenness::verdict(e, view));
    let is_even = |c: &&Condition| c.type_ == ConditionType::Even.as_str();
    let unknown = previous
        .iter()
        .find(is_even)
        .filter(|_| even.is_none())
        .cloned();
    let status = L2AddressPoolStatus {
        capacity: FamilyCount {
            ipv4: saturate(capacity(Family::IPv4)),
            ipv6: saturate(capacity(Family::IPv6)),
        },
        allocated: held,
        reserved,
        free: FamilyCount {
            ipv4: saturate(free(Family::IPv4)),
            ipv6: saturate(free(Family::IPv6)),
        },
        load_balancers: users,
        missing_interfaces: view.lacking.records.clone(),
        conditions: [accepted, configured, ready]
            .into_iter()
            .chain(even)
            .map(|v| v.into_condition(previous, world.now, view.generation))
            .chain(unknown)
            .collect(),
        observed_generation: view.generation,
    };
    let key = Key::new("", view.name.clone());
    let broken = matches!(stored, Some(Stored::Broken { .. }));
    let same_conditions = status.conditions.iter().all(|c| previous.contains(c));
    let same = if broken {
        same_conditions
    } else {
        same_conditions
            && old.is_some_and(|old| {
                old.capacity == status.capacity
                    && old.allocated == status.allocated
                    && old.reserved == status.reserved
                    && old.free == status.free
                    && old.load_balancers == status.load_balancers
                    && old.missing_interfaces == status.missing_interfaces
                    && old.observed_generation == status.observed_generation
            })
    };
    if same {
        return (status, None, Vec::new());
    }
    let body = if broken {
        json!({"conditions": status.conditions})
    } else {
        json!(status)
    };
    let meta = stored.map(Stored::metadata);
    let change = status_change(Kind::AddressPool, &key, meta, &body);
    let events = events(&key, view, previous, &status);
    (status, Some(change), events)
}

/// Whether the pool can be used: what whoever waits for it waits for.
fn ready(accepted: &Verdict, configured: &Verdict) -> Verdict {
    let failed = [accepted, configured].into_iter().find(|v| !v.holds);
    match failed {
        Some(failed) => Verdict::fails(ConditionType::Ready, failed.reason, failed.message.clone()),
        None => Verdict::holds(ConditionType::Ready, configured.message.clone()),
    }
}

fn events(
    key: &Key,
    view: &PoolView,
    previous: &[Condition],
    status: &L2AddressPoolStatus,
) -> Vec<PlannedEvent> {
    let changed = |condition: &&Condition| {
        previous
            .iter()
            .find(|p| p.type_ == condition.type_)
            .is_none_or(|p| p.status != condition.status || p.reason != condition.reason)
    };
    status
        .conditions
        .iter()
        .filter(changed)
        // Ready repeats one of the others.
        .filter(|c| c.type_ != ConditionType::Ready.as_str())
        .filter(|c| c.status == "False" && c.reason != Reason::Pending.as_str())
        .filter_map(|condition| {
            let reason = Reason::ALL
                .iter()
                .find(|(r, _)| r.as_str() == condition.reason)?;
            Some(PlannedEvent {
                object: ObjectRef {
                    kind: Kind::AddressPool,
                    key: key.clone(),
                },
                uid: view.uid.clone(),
                warning: ![Reason::PoolTerminating, Reason::Uneven]
                    .map(Reason::as_str)
                    .contains(&condition.reason.as_str()),
                reason: reason.0.as_str(),
                note: condition.message.clone(),
            })
        })
        .collect()
}
