//! The conditions of a load balancer that is served.

use std::net::IpAddr;

use super::{identity, shortage};
use crate::api::condition::Verdict;
use crate::api::{ConditionType, Reason, SlotPhase, names};
use crate::plan::environment::Environment;
use crate::plan::inference::INFERRED;
use crate::plan::load_balancer::{CONFIRM, Served, SlotPlan, Slots};
use crate::plan::own_pool;
use crate::world::World;

/// Whether every balancer node has its addresses.
pub(super) fn allocated(
    world: &World,
    environment: &Environment,
    served: &Served,
    slots: &Slots,
) -> Verdict {
    let kind = ConditionType::AddressesAllocated;
    let pool = &served.pool;
    if served.set.members.is_empty() && served.set.unidentifiable.is_empty() {
        return Verdict::fails(
            kind,
            Reason::NoNodes,
            format!(
                "no node matches both spec.nodeSelector and that of L2AddressPool {}: label the \
                 nodes or change a selector",
                pool.name
            ),
        );
    }
    if let Some(unmet) = slots.unmet.first() {
        if pool.terminating {
            return Verdict::fails(
                kind,
                Reason::PoolTerminating,
                format!(
                    "L2AddressPool {} is being deleted and gives out no new addresses",
                    pool.name
                ),
            );
        }
        let message = shortage::sentence(world, environment, served, slots, unmet);
        return Verdict::fails(kind, Reason::AddressesExhausted, message);
    }
    if let Some((reason, message)) = slots.slots.iter().find_map(|s| s.blocked.clone()) {
        return Verdict::fails(kind, reason, message);
    }
    if let Some(message) = identity::left_out(environment, served, slots) {
        return Verdict::fails(kind, Reason::NodeNotIdentifiable, message);
    }
    let pending = slots.slots.iter().filter(|s| !s.allocated).count();
    if pending > 0 {
        return Verdict::fails(
            kind,
            Reason::Pending,
            format!("waiting for MetalLB to allocate the addresses of {pending} Services"),
        );
    }
    if let Some((address, why)) = unavailable(world, served, slots) {
        return Verdict::fails(
            kind,
            Reason::AddressUnavailable,
            format!("{address} of spec.addresses {why}; other addresses are used instead"),
        );
    }
    let count = slots.slots.len();
    Verdict::holds(
        kind,
        format!("{count} of {count} slots have their addresses"),
    )
}

/// An address of `spec.addresses` that somebody else has, or that the pool
/// does not give out.
fn unavailable(world: &World, served: &Served, slots: &Slots) -> Option<(IpAddr, String)> {
    let wanted = served
        .object
        .spec
        .addresses
        .iter()
        .filter_map(|a| a.parse::<IpAddr>().ok());
    wanted.into_iter().find_map(|address| {
        if slots.slots.iter().any(|s| s.addresses.contains(&address)) {
            return None;
        }
        if !served.pool.ranges.contains(address) {
            return Some((
                address,
                format!("is not in L2AddressPool {}", served.pool.name),
            ));
        }
        let holder = world.holders(address).next()?;
        Some((address, format!("is held by Service {holder}")))
    })
}

pub(super) fn pinned(environment: &Environment, served: &Served, slots: &Slots) -> Verdict {
    let kind = ConditionType::Pinned;
    let fails = |reason, message: String| Verdict::fails(kind, reason, message);
    // First, as the planner reads it again when it decides who retires.
    if !slots.held.is_empty() {
        return fails(
            Reason::RetirementHeld,
            format!(
                "{} of the nodes left at once ({}), which looks like a mistake in labels; their \
                 addresses are kept. Bring the nodes back, or confirm with annotation \
                 {CONFIRM}=true on the L2LoadBalancer",
                slots.held.len(),
                slots.held.join(", ")
            ),
        );
    }
    if let Some(message) = identity::doubtful(environment, &served.set) {
        return fails(Reason::NodeNotIdentifiable, message);
    }
    if let Some(advertisement) = &served.pool.conflict {
        return fails(
            Reason::ConflictingAdvertisement,
            format!(
                "L2Advertisement {advertisement} matches this pool and gives a node a weight of \
                 100 or more, which ties with ours or outranks it: limit it to its own pools with spec.ipAddressPools"
            ),
        );
    }
    if let Some((reason, message)) = own_pool::verdict::pinned(environment, served, slots) {
        return fails(reason, message);
    }
    for (phase, reason) in [
        (SlotPhase::FailedOver, Reason::FailedOver),
        (SlotPhase::Draining, Reason::Draining),
        (SlotPhase::Retiring, Reason::Retiring),
        (SlotPhase::Pending, Reason::Pending),
    ] {
        let away: Vec<&SlotPlan> = slots.slots.iter().filter(|s| s.phase == phase).collect();
        // One that a person must act on comes first.
        let first = away.iter().find(|s| s.reason.is_some()).or(away.first());
        if let Some(first) = first {
            let reason = first.reason.unwrap_or(reason);
            let message = first.message.clone().unwrap_or_default();
            return fails(
                reason,
                match away.len() {
                    1 => message,
                    n => format!("{message} (and {} more slots)", n - 1),
                },
            );
        }
    }
    if slots.slots.is_empty() {
        return fails(Reason::Pending, "there is no slot yet".to_owned());
    }
    Verdict::holds(
        kind,
        format!(
            "every address is announced by its home; {}",
            standbys(environment, served, slots)
        ),
    )
}

/// Who takes over when a home fails, and what a person should know of that.
fn standbys(environment: &Environment, served: &Served, slots: &Slots) -> String {
    if served.set.members.len() < 2 {
        return "there is no second balancer node to stand by".to_owned();
    }
    let mut text = if slots.slots.iter().any(SlotPlan::has_own_pool) {
        "every one has a standby".to_owned()
    } else {
        "every other balancer node stands by".to_owned()
    };
    if environment.without_memberlist {
        text += ". MetalLB runs without memberlist, so that only l2lb-controller moves an address, \
                 when Kubernetes says that its node is not ready: switch it on \
                 (speaker.memberlist.enabled in MetalLB's chart)";
    }
    let Some(sharing) = &served.pool.shared else {
        return text;
    };
    let is_stranger = |name: &&String| {
        let node = environment.node(&names::node_value(name));
        let set = &served.set;
        node.is_some_and(|n| !n.excluded && set.member(&n.value).is_none())
    };
    let strangers: Vec<&str> = sharing
        .nodes
        .iter()
        .filter(is_stranger)
        .map(String::as_str)
        .collect();
    let lifts = sharing.every_interface && !served.pool.interfaces.is_empty();
    let adds = match strangers.as_slice() {
        [] if lifts => "lifts the pool's interfaces".to_owned(),
        [] => return text,
        some => format!(
            "lets nodes that are no balancer nodes stand by as well ({})",
            some.join(", ")
        ),
    };
    text += &format!(
        ". L2Advertisement {} matches this pool and {adds}: limit it to its own pools with \
         spec.ipAddressPools",
        sharing.name
    );
    text
}

/// Whether every slot has a live announcer. Where no address exists yet, nobody
/// can announce it: then the reason is why there is none. `allocated` is the
/// condition AddressesAllocated.
pub(super) fn ready(environment: &Environment, slots: &Slots, allocated: &Verdict) -> Verdict {
    let kind = ConditionType::Ready;
    if slots.slots.is_empty() {
        let reason = match allocated.holds {
            true => Reason::Pending,
            false => allocated.reason,
        };
        return Verdict::fails(kind, reason, "there is no slot yet");
    }
    let dark: Vec<&SlotPlan> = slots.slots.iter().filter(|s| !s.live).collect();
    let Some(any) = dark.first() else {
        let inferred = if environment.reports_announcers {
            ""
        } else {
            INFERRED
        };
        return Verdict::holds(
            kind,
            format!("every address has a live announcer{inferred}"),
        );
    };
    let lost = dark.iter().find(|s| s.allocated);
    let blocked = dark.iter().find(|s| s.blocked.is_some());
    let first = lost.or(blocked).unwrap_or(any);
    let reason = match &first.blocked {
        _ if lost.is_some() => Reason::NotAnnounced,
        Some((reason, _)) => *reason,
        None => Reason::Pending,
    };
    let why = first.message.as_ref().map(|m| format!(": {m}"));
    Verdict::fails(
        kind,
        reason,
        format!(
            "{} of {} slots have no live announcer{}",
            dark.len(),
            slots.slots.len(),
            why.unwrap_or_default()
        ),
    )
}
