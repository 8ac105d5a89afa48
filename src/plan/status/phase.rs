//! Phase and message of each slot.

use std::net::IpAddr;

use crate::api::{L2LoadBalancerStatus, Reason, SlotPhase, SlotStatus};
use crate::plan::ability::Trouble;
use crate::plan::announcement::other_class;
use crate::plan::environment::{Environment, Standing};
use crate::plan::load_balancer::{Served, SlotPlan, display_name};
use crate::world::{SpeakerState, World};

fn list(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}

/// Sets phase and message of a slot.
pub(in crate::plan) fn describe(
    slot: &mut SlotPlan,
    world: &World,
    environment: &Environment,
    served: &Served,
    held: &[String],
) {
    let set = &*served.set;
    let home = display_name(environment, &slot.home);
    let at_home = slot.announced_by.as_deref() == Some(home.as_str());
    let member = set.member(&slot.home);
    let standing = member.map(|m| m.standing);
    let trouble = member.and_then(|m| m.trouble);
    let cannot = trouble.map(|t| sentence(t, world, served, &home));
    let by = slot.announced_by.as_deref().filter(|_| slot.live);
    let stand_in = by.map_or_else(|| "no node".to_owned(), str::to_owned);
    if let Some((_, message)) = &slot.blocked {
        slot.message = Some(message.clone());
    }
    if let Some(at) = slot.retire_at {
        slot.phase = SlotPhase::Retiring;
        // The time is not on the Service while that is refused: with each plan
        // it would be another one.
        if slot.blocked.is_some() {
            return;
        }
        slot.message = Some(format!(
            "node {home} has left; {} is kept until {at} unless a joining node takes the slot over",
            list(&slot.addresses)
        ));
        return;
    }
    if held.contains(&slot.home) {
        slot.phase = if by.is_some() {
            SlotPhase::FailedOver
        } else {
            SlotPhase::Pending
        };
        slot.message = Some(format!(
            "node {home} left together with more than half of the nodes; retirement is held"
        ));
        return;
    }
    (slot.phase, slot.message) = match (standing, by) {
        (_, None) => {
            let message = if slot.blocked.is_some() {
                slot.message.take()
            } else if slot.allocated {
                Some(match cannot {
                    Some(cannot) => format!(
                        "no live node announces {}: {cannot}, and no other {}",
                        list(&slot.addresses),
                        if can_stand_in(served, &slot.home) {
                            "does yet"
                        } else {
                            "can"
                        }
                    ),
                    None => format!(
                        "no live node announces {}: MetalLB announces a Service only while one of \
                         its pods is ready",
                        list(&slot.addresses)
                    ),
                })
            } else {
                Some(other_class(world, served).unwrap_or_else(|| {
                    format!("MetalLB has not allocated {} yet", list(&slot.addresses))
                }))
            };
            slot.reason = trouble.and_then(Trouble::reason);
            (SlotPhase::Pending, message)
        }
        (Some(Standing::Serving), Some(_)) if at_home => {
            (SlotPhase::Announced, slot.message.take())
        }
        (Some(Standing::Serving), Some(_)) if slot.pin != slot.home && slot.reason.is_none() => (
            SlotPhase::FailedOver,
            Some(format!(
                "{stand_in} stands in; node {home} is back and takes over after the hold-down"
            )),
        ),
        (Some(Standing::Serving), Some(_)) => (
            SlotPhase::FailedOver,
            Some(overruled(slot.reason, world, &home, &stand_in)),
        ),
        (Some(Standing::Draining), Some(_)) => (
            SlotPhase::Draining,
            Some(if at_home && slot.pin != slot.home {
                let to = display_name(environment, &slot.pin);
                format!("node {home} is cordoned or drained; {to} takes over")
            } else if at_home && slot.reason == Some(Reason::NoLocalEndpoint) {
                format!(
                    "node {home} is cordoned or drained and no other node can take over: with \
                     externalTrafficPolicy Local only nodes with a ready pod announce, and no \
                     other balancer node that is well has one"
                )
            } else if at_home {
                format!("node {home} is cordoned or drained and no other node can take over")
            } else {
                format!("node {home} is cordoned or drained; {stand_in} stands in")
            }),
        ),
        (Some(Standing::Lost), Some(_)) => (SlotPhase::FailedOver, {
            slot.reason = trouble.and_then(Trouble::reason);
            let cannot = cannot.unwrap_or_default();
            Some(format!("{cannot}; {stand_in} stands in"))
        }),
        (None, Some(_)) => (
            SlotPhase::FailedOver,
            Some(format!(
                "node {home} is no longer selected; {stand_in} stands in"
            )),
        ),
    };
}

/// Whether a balancer node other than the home is able to announce.
fn can_stand_in(served: &Served, home: &str) -> bool {
    let mut others = served.set.members.iter().filter(|m| *m.value != *home);
    others.any(|m| m.trouble.is_none())
}

/// Why a home cannot announce, with the remedy.
fn sentence(trouble: Trouble, world: &World, served: &Served, home: &str) -> String {
    let namespace = &world.options.metallb_namespace;
    match trouble {
        Trouble::NotReady => format!("node {home} is not ready"),
        Trouble::NetworkUnavailable => {
            format!("node {home} has no network (its condition NetworkUnavailable is True)")
        }
        Trouble::NoSpeaker => format!(
            "no MetalLB speaker runs on node {home} (see kubectl get pods -n {namespace} -o wide; \
             its DaemonSet must select the node and tolerate its taints)"
        ),
        Trouble::NoMemberlist => format!(
            "the speaker of node {home} runs without memberlist, and MetalLB before 0.15 announces \
             nothing then (switch it on, speaker.memberlist.enabled in its chart, or upgrade MetalLB)"
        ),
        Trouble::NoInterface => format!(
            "node {home} has no interface {} (spec.interfaces of L2AddressPool {}; when it has one, \
             start its speaker in namespace {namespace} anew, or leave the node out of the pool's \
             nodeSelector)",
            served.pool.interfaces.join(" or "),
            served.pool.name
        ),
    }
}

/// Why somebody else announces although home is well and preferred.
fn overruled(reason: Option<Reason>, world: &World, home: &str, stand_in: &str) -> String {
    match reason {
        Some(Reason::NoLocalEndpoint) => format!(
            "{stand_in} announces: with externalTrafficPolicy Local only nodes with a ready pod \
             do, and node {home} has none; it takes over when it has one"
        ),
        Some(Reason::SpeakersTooOld) => {
            let image = match world.speakers.on(home) {
                SpeakerState::Running(s) if !s.image.is_empty() => {
                    format!(" (node {home} runs {})", s.image)
                }
                _ => String::new(),
            };
            format!(
                "{stand_in} announces although node {home} is preferred, as speakers before \
                 MetalLB 0.16.2 would, which do not know preferredNodeSelectors{image}: upgrade \
                 the speakers to the version of MetalLB's resource definitions"
            )
        }
        _ => format!("{stand_in} announces although node {home} is preferred"),
    }
}

/// Sets phase and message of a slot of a load balancer that is not served now.
pub(in crate::plan) fn describe_frozen(slot: &mut SlotPlan, environment: &Environment) {
    let home = display_name(environment, &slot.home);
    slot.phase = match slot.announced_by.as_deref().filter(|_| slot.live) {
        _ if slot.retire_at.is_some() => SlotPhase::Retiring,
        None => SlotPhase::Pending,
        Some(node) if node == home => SlotPhase::Announced,
        Some(_) => SlotPhase::FailedOver,
    };
}

pub(super) fn slot_status(environment: &Environment, slot: &SlotPlan) -> SlotStatus {
    SlotStatus {
        // Completed by the caller, who knows the load balancer's name.
        service: slot.number.to_string(),
        node: display_name(environment, &slot.home),
        addresses: slot.addresses.iter().map(ToString::to_string).collect(),
        announced_by: slot.announced_by.clone(),
        phase: slot.phase,
        message: slot.message.clone(),
    }
}

/// Puts the Services' names into the slots of a status.
pub(in crate::plan) fn name_slots(status: &mut L2LoadBalancerStatus, load_balancer: &str) {
    for slot in &mut status.slots {
        slot.service = format!("{load_balancer}-{}", slot.service);
    }
}
