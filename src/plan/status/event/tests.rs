use super::*;
use crate::api::condition::Verdict;

fn slot(number: u32, phase: SlotPhase) -> SlotStatus {
    SlotStatus {
        service: format!("web-{number}"),
        node: format!("node-{number}"),
        addresses: vec![format!("203.0.113.1{number}")],
        phase,
        ..SlotStatus::default()
    }
}

fn status(slots: Vec<SlotStatus>, verdicts: Vec<Verdict>) -> L2LoadBalancerStatus {
    let conditions = verdicts
        .into_iter()
        .map(|v| v.into_condition(&[], jiff::Timestamp::UNIX_EPOCH, None))
        .collect();
    L2LoadBalancerStatus {
        slots,
        conditions,
        ..L2LoadBalancerStatus::default()
    }
}

/// Whether it is a warning, the reason, and the note of each event.
fn said(
    old: &L2LoadBalancerStatus,
    new: &L2LoadBalancerStatus,
) -> Vec<(bool, &'static str, String)> {
    events(&Key::new("shop", "web"), None, Some(old), new)
        .into_iter()
        .map(|e| (e.warning, e.reason, e.note))
        .collect()
}

fn at_home() -> Vec<SlotStatus> {
    (0..3).map(|n| slot(n, SlotPhase::Announced)).collect()
}

#[test]
fn an_address_that_turns_dark_is_said_once() {
    let old = status(at_home(), vec![]);
    let mut slots = at_home();
    slots[1].phase = SlotPhase::Pending;
    slots[1].message = Some("no live node announces 203.0.113.11: node-1 is not ready".to_owned());
    let new = status(slots, vec![]);
    let wanted = "no live node announces 203.0.113.11: node-1 is not ready".to_owned();
    assert_eq!(said(&old, &new), [(true, "NotAnnounced", wanted)]);
    assert_eq!(said(&new, &new), []);
}

#[test]
fn many_that_turn_dark_are_one_event() {
    let old = status(at_home(), vec![]);
    let mut slots = at_home();
    for slot in &mut slots {
        slot.phase = SlotPhase::Pending;
    }
    slots[0].message = Some("no pod is ready".to_owned());
    let new = status(slots, vec![]);
    let wanted =
        "nobody announces 203.0.113.10, 203.0.113.11, 203.0.113.12 any more: no pod is ready";
    assert_eq!(
        said(&old, &new),
        [(true, "NotAnnounced", wanted.to_owned())]
    );
}

#[test]
fn what_was_never_announced_turns_not_dark() {
    let pending = status(vec![slot(0, SlotPhase::Pending)], vec![]);
    let told = said(&L2LoadBalancerStatus::default(), &pending);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, "SlotAdded");
    let retiring = status(vec![slot(0, SlotPhase::Retiring)], vec![]);
    let told = said(&pending, &retiring);
    assert!(told.iter().all(|(_, reason, _)| *reason != "NotAnnounced"));
}

#[test]
fn a_retiring_slot_can_turn_dark_too() {
    let mut slots = vec![slot(0, SlotPhase::Retiring)];
    slots[0].announced_by = Some("node-2".to_owned());
    let old = status(slots, vec![]);
    let new = status(vec![slot(0, SlotPhase::Retiring)], vec![]);
    let told = said(&old, &new);
    assert_eq!(
        told,
        [(
            true,
            "NotAnnounced",
            "nobody announces 203.0.113.10 any more".to_owned()
        )]
    );
}

#[test]
fn what_a_person_must_act_on_is_said_when_it_changes() {
    let pinned = |reason| Verdict::fails(ConditionType::Pinned, reason, "why");
    let well = status(
        at_home(),
        vec![Verdict::holds(ConditionType::Pinned, "at home")],
    );
    for reason in FOR_A_PERSON {
        let bad = status(at_home(), vec![pinned(reason)]);
        let wanted = (true, reason.as_str(), "why".to_owned());
        assert_eq!(said(&well, &bad), [wanted], "{reason:?}");
        assert_eq!(said(&bad, &bad), [], "{reason:?}");
        assert_eq!(said(&bad, &well), [], "{reason:?}");
    }
    for reason in [Reason::FailedOver, Reason::Draining, Reason::Pending] {
        let away = status(at_home(), vec![pinned(reason)]);
        assert_eq!(said(&well, &away), [], "{reason:?}");
    }
}

#[test]
fn one_reason_of_two_conditions_is_said_once() {
    let reason = Reason::NodeNotIdentifiable;
    let new = status(
        at_home(),
        vec![
            Verdict::fails(ConditionType::AddressesAllocated, reason, "one"),
            Verdict::fails(ConditionType::Pinned, reason, "other"),
        ],
    );
    let old = status(at_home(), vec![]);
    let wanted = (true, "NodeNotIdentifiable", "one".to_owned());
    assert_eq!(said(&old, &new), [wanted]);
}
