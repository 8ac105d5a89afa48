//! What is said of a load balancer: phases, conditions, events.

mod condition;
mod event;
mod identity;
mod phase;
mod shortage;

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::environment::Environment;
use super::load_balancer::{Served, SlotPlan, Slots};
use crate::api::condition::Verdict;
use crate::api::{ConditionType, L2LoadBalancerStatus};
use crate::world::World;
use condition::{allocated, pinned, ready};
pub(super) use event::events;
use phase::slot_status;
pub(super) use phase::{describe, describe_frozen, name_slots};

/// The status of a load balancer that is served.
pub(super) fn served_status(
    world: &World,
    environment: &Environment,
    served: &Served,
    slots: &Slots,
    dns: Option<Verdict>,
) -> L2LoadBalancerStatus {
    let accepted = Verdict::holds(
        ConditionType::Accepted,
        format!(
            "served from L2AddressPool {}{}",
            served.pool.name,
            kept_family(served).unwrap_or_default()
        ),
    );
    let allocated = allocated(world, environment, served, slots);
    let ready = ready(environment, slots, &allocated);
    let pinned = pinned(environment, served, slots);
    let mut verdicts = vec![accepted, allocated, pinned, ready];
    verdicts.extend(dns);
    let meta = &served.object.metadata;
    build(
        world,
        environment,
        &slots.slots,
        slots.wanted,
        verdicts,
        served.object.status.as_ref().map_or(&[], |s| &s.conditions),
        meta.generation,
    )
}

/// At most ten names, and how many more there are.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 10;
    match names.get(SHOWN..) {
        None | Some([]) => names.join(", "),
        Some(more) => format!("{} and {} more", names[..SHOWN].join(", "), more.len()),
    }
}

/// That the Services keep another first family than the one that is asked for.
fn kept_family(served: &Served) -> Option<String> {
    let asked = served.object.spec.service.ip_families.first()?;
    let kept = served.families.first().filter(|kept| *kept != asked)?;
    Some(format!(
        "; its Services keep {kept} as their first family, which the API server never changes: \
         for {asked} create another L2LoadBalancer"
    ))
}

/// The status of a load balancer that may not be served: what it has stays.
pub(super) fn refused_status(
    world: &World,
    environment: &Environment,
    verdict: &Verdict,
    dns: Option<Verdict>,
    slots: &Slots,
    previous: &[Condition],
    generation: Option<i64>,
) -> L2LoadBalancerStatus {
    let waiting = |kind| {
        let message = "nothing is changed while the load balancer is not accepted";
        if slots.slots.is_empty() || kind == ConditionType::AddressesAllocated {
            Verdict::fails(kind, verdict.reason, message)
        } else {
            let mut judged = if kind == ConditionType::Ready {
                ready(environment, slots, verdict)
            } else {
                Verdict::fails(kind, verdict.reason, message)
            };
            judged.kind = kind;
            judged
        }
    };
    let mut verdicts = vec![
        verdict.clone(),
        waiting(ConditionType::AddressesAllocated),
        waiting(ConditionType::Pinned),
        waiting(ConditionType::Ready),
    ];
    verdicts.extend(dns);
    build(
        world,
        environment,
        &slots.slots,
        slots.wanted,
        verdicts,
        previous,
        generation,
    )
}

fn build(
    world: &World,
    environment: &Environment,
    slots: &[SlotPlan],
    wanted: usize,
    verdicts: Vec<Verdict>,
    previous: &[Condition],
    generation: Option<i64>,
) -> L2LoadBalancerStatus {
    let mut public: Vec<IpAddr> = slots
        .iter()
        .filter(|s| s.allocated)
        .flat_map(|s| s.addresses.iter().copied())
        .collect();
    public.sort_unstable();
    let live = slots
        .iter()
        .filter(|s| s.live && s.retire_at.is_none())
        .count();
    L2LoadBalancerStatus {
        public_addresses: public.iter().map(ToString::to_string).collect(),
        slots_ready: format!("{live}/{wanted}"),
        slots: slots.iter().map(|s| slot_status(environment, s)).collect(),
        conditions: verdicts
            .into_iter()
            .map(|v| v.into_condition(previous, world.now, generation))
            .collect(),
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests;
