//! What a person should hear of.

use crate::api::{ConditionType, L2LoadBalancerStatus, Reason, SlotPhase};
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
    for condition in &new.conditions {
        let before = old.conditions.iter().find(|c| c.type_ == condition.type_);
        let changed =
            before.is_none_or(|b| b.status != condition.status || b.reason != condition.reason);
        let telling = condition.type_ == ConditionType::Accepted.as_str()
            || condition.type_ == ConditionType::AddressesAllocated.as_str()
            || condition.type_ == ConditionType::DnsPublished.as_str();
        if changed && telling && condition.status == "False" && condition.reason != "Pending" {
            let reason = Reason::ALL
                .iter()
                .find(|(r, _)| r.as_str() == condition.reason);
            say(
                true,
                reason.map_or("NotServed", |(r, _)| r.as_str()),
                condition.message.clone(),
            );
        }
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
