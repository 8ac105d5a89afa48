//! What a person should hear of.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::list;
use crate::api::{ConditionType, L2LoadBalancerStatus, Reason, SlotPhase, SlotStatus};
use crate::plan::change::PlannedEvent;
use crate::world::{Key, Kind, ObjectRef};

/// What a person should hear of, out of the difference between two statuses.
pub(in crate::plan) fn events(
    key: &Key,
    uid: Option<&String>,
    old: Option<&L2LoadBalancerStatus>,
    new: &L2LoadBalancerStatus,
) -> Vec<PlannedEvent> {
    let mut events = Vec::new();
    let mut say = |warning, reason, note| {
        events.push(PlannedEvent {
            object: ObjectRef {
                kind: Kind::LoadBalancer,
                key: key.clone(),
            },
            uid: uid.cloned(),
            warning,
            reason,
            note,
        });
    };
    let nothing = L2LoadBalancerStatus::default();
    let old = old.unwrap_or(&nothing);
    let mut said: Vec<&str> = Vec::new();
    for condition in &new.conditions {
        let before = old.conditions.iter().find(|c| c.type_ == condition.type_);
        let changed =
            before.is_none_or(|b| b.status != condition.status || b.reason != condition.reason);
        if !changed || condition.status != "False" || said.contains(&condition.reason.as_str()) {
            continue;
        }
        if let Some(reason) = telling(condition) {
            said.push(&condition.reason);
            say(true, reason.as_str(), condition.message.clone());
        }
    }
    if let Some(note) = darkened(old, new) {
        say(true, Reason::NotAnnounced.as_str(), note);
    }
    for slot in &new.slots {
        let before = old.slots.iter().find(|s| s.service == slot.service);
        let addresses = slot.addresses.join(" and ");
        if before.is_none() && !slot.addresses.is_empty() {
            say(
                false,
                "SlotAdded",
                format!(
                    "Service {} has {addresses} for node {}",
                    slot.service, slot.node
                ),
            );
        }
        let was = before.map_or(SlotPhase::Pending, |b| b.phase);
        let message = slot.message.clone().unwrap_or_default();
        match (was, slot.phase) {
            (a, b) if a == b => {}
            (_, SlotPhase::FailedOver) => {
                say(true, "FailedOver", format!("{addresses}: {message}"))
            }
            (_, SlotPhase::Draining) => say(false, "HandedOver", format!("{addresses}: {message}")),
            (_, SlotPhase::Retiring) => say(true, "Retiring", message),
            (SlotPhase::FailedOver | SlotPhase::Draining, SlotPhase::Announced) => {
                say(
                    false,
                    "Returned",
                    format!("{addresses} is announced by its home {} again", slot.node),
                );
            }
            _ => {}
        }
    }
    for slot in &old.slots {
        if new.slots.iter().all(|s| s.service != slot.service) {
            say(
                false,
                "SlotRemoved",
                format!(
                    "Service {} is gone; {} is free",
                    slot.service,
                    slot.addresses.join(" and ")
                ),
            );
        }
    }
    events
}

/// The reasons of `Pinned` that do not pass by themselves.
const FOR_A_PERSON: [Reason; 9] = [
    Reason::NoStandby,
    Reason::ConflictingAdvertisement,
    Reason::NodeNotIdentifiable,
    Reason::SpeakersTooOld,
    Reason::MemberlistOff,
    Reason::InterfaceMissing,
    Reason::SpeakerMissing,
    Reason::RetirementHeld,
    Reason::MetalLBTooOld,
];

/// The reason of a condition that does not hold, if a person should hear of it.
fn telling(condition: &Condition) -> Option<Reason> {
    let (reason, _) = Reason::ALL
        .iter()
        .find(|(r, _)| r.as_str() == condition.reason)?;
    let kind = ConditionType::ALL
        .iter()
        .find(|(kind, _)| kind.as_str() == condition.type_);
    let tells = match kind?.0 {
        ConditionType::Accepted
        | ConditionType::AddressesAllocated
        | ConditionType::DnsPublished => *reason != Reason::Pending,
        ConditionType::Pinned => FOR_A_PERSON.contains(reason),
        // What turned dark is said by its addresses.
        ConditionType::Ready | ConditionType::Configured | ConditionType::Even => false,
    };
    tells.then_some(*reason)
}

/// The addresses that were announced and are not any more, in one sentence for
/// all of them: a Service without ready pods takes all of its slots along.
fn darkened(old: &L2LoadBalancerStatus, new: &L2LoadBalancerStatus) -> Option<String> {
    let was_announced = |slot: &&SlotStatus| {
        let mut before = old.slots.iter();
        before.any(|b| b.service == slot.service && is_announced(b))
    };
    let dark: Vec<&SlotStatus> = new
        .slots
        .iter()
        .filter(|slot| !is_announced(slot))
        .filter(was_announced)
        .collect();
    let addresses: Vec<&str> = dark
        .iter()
        .flat_map(|slot| slot.addresses.iter().map(String::as_str))
        .collect();
    let why = dark.first()?.message.as_deref().unwrap_or_default();
    let names_it = addresses.first().is_some_and(|a| why.contains(a));
    Some(match why {
        "" => format!("nobody announces {} any more", list(&addresses)),
        why if dark.len() == 1 && names_it => why.to_owned(),
        why => format!("nobody announces {} any more: {why}", list(&addresses)),
    })
}

fn is_announced(slot: &SlotStatus) -> bool {
    match slot.phase {
        SlotPhase::Pending => false,
        SlotPhase::Announced | SlotPhase::FailedOver | SlotPhase::Draining => true,
        SlotPhase::Retiring => slot.announced_by.is_some(),
    }
}

#[cfg(test)]
mod tests;
