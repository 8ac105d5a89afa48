//! What is said of pins that an older MetalLB cannot keep as well as one with
//! preferences.

use super::super::load_balancer::{Served, SlotPlan, Slots, display_name};
use crate::api::{Reason, names};
use crate::plan::environment::Environment;

fn first_and_rest(slots: &[&SlotPlan]) -> Option<(String, String)> {
    let first = slots.first()?;
    let addresses: Vec<String> = first.addresses.iter().map(ToString::to_string).collect();
    let rest = match slots.len() {
        1 => String::new(),
        n => format!(" (and {} more slots)", n - 1),
    };
    Some((addresses.join(" and "), rest))
}

/// Why the pins are not what they should be, if the installed MetalLB is the
/// reason.
pub(in super::super) fn pinned(
    environment: &Environment,
    served: &Served,
    slots: &Slots,
) -> Option<(Reason, String)> {
    let all = &slots.slots;
    if let Some(slot) = all.iter().find(|s| s.drawn.is_some()) {
        let advertisement = slot.drawn.as_deref().unwrap_or_default();
        return Some((
            Reason::ConflictingAdvertisement,
            format!(
                "L2Advertisement {advertisement} matches every pool, and one of its nodes wins \
                 over node {}: limit it to its own pools with spec.ipAddressPools, or upgrade \
                 MetalLB to 0.16.2 or later",
                display_name(environment, &slot.pin)
            ),
        ));
    }
    exposed(environment, served, all).or_else(|| misplaced(served, all))
}

/// Addresses for which no live node stands by, although one could.
fn exposed(
    environment: &Environment,
    served: &Served,
    slots: &[SlotPlan],
) -> Option<(Reason, String)> {
    let exposed: Vec<&SlotPlan> = slots.iter().filter(|s| s.exposed).collect();
    let (first, (addresses, rest)) = (exposed.first()?, first_and_rest(&exposed)?);
    let remedy = format!(
        "{}delete its Service, which is then made anew with an address that has one: kubectl \
         delete service -n {} {}",
        if served.pool.prefers {
            String::new()
        } else {
            format!(
                "upgrade MetalLB to 0.16.2 or later, or give L2AddressPool {} more free addresses; \
                 then ",
                served.pool.name
            )
        },
        served.key.namespace,
        names::service_name(&served.key.name, first.number)
    );
    Some((
        Reason::NoStandby,
        format!(
            "no live node stands by for {addresses}{rest} when node {} fails; the controller moves \
             it then. For a standby in MetalLB itself: {remedy}",
            display_name(environment, &first.pin)
        ),
    ))
}

/// Addresses in a pool that the installed MetalLB cannot pin by.
fn misplaced(served: &Served, slots: &[SlotPlan]) -> Option<(Reason, String)> {
    if served.pool.prefers {
        return None;
    }
    let shared: Vec<&SlotPlan> = slots.iter().filter(|s| !s.has_own_pool()).collect();
    let (first, (addresses, rest)) = (shared.first()?, first_and_rest(&shared)?);
    Some((
        Reason::MetalLBTooOld,
        format!(
            "{addresses}{rest} was set up for MetalLB 0.16.2 and cannot be pinned by the older one \
             that is installed: upgrade MetalLB again, or delete the Services one after the other, \
             which are then made anew for it: kubectl delete service -n {} {}",
            served.key.namespace,
            names::service_name(&served.key.name, first.number)
        ),
    ))
}
