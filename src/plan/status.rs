//! What is said of a load balancer: phases, conditions, events.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::ability::Trouble;
use super::announcement::other_class;
use super::change::PlannedEvent;
use super::environment::{CandidateSet, Environment, Standing};
use super::inference::INFERRED;
use super::load_balancer::{CONFIRM, Served, SlotPlan, Slots, display_name};
use super::own_pool;
use crate::address::Family;
use crate::api::condition::Verdict;
use crate::api::{ConditionType, L2LoadBalancerStatus, Reason, SlotPhase, SlotStatus, names};
use crate::world::{Key, Kind, ObjectRef, SpeakerState, World};

fn list(addresses: &[IpAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}

/// Sets phase and message of a slot.
pub(super) fn describe(
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
                        "no live node announces {}: {cannot}, and no other can",
                        list(&slot.addresses)
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
        (Some(Standing::Serving), Some(_)) if slot.pin != slot.home => (
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
pub(super) fn describe_frozen(slot: &mut SlotPlan, environment: &Environment) {
    let home = display_name(environment, &slot.home);
    slot.phase = match slot.announced_by.as_deref().filter(|_| slot.live) {
        _ if slot.retire_at.is_some() => SlotPhase::Retiring,
        None => SlotPhase::Pending,
        Some(node) if node == home => SlotPhase::Announced,
        Some(_) => SlotPhase::FailedOver,
    };
}

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
        format!("served from L2AddressPool {}", served.pool.name),
    );
    let mut verdicts = vec![
        accepted,
        allocated(world, served, slots),
        pinned(environment, served, slots),
        ready(world, slots),
    ];
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
                ready(world, slots)
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

fn slot_status(environment: &Environment, slot: &SlotPlan) -> SlotStatus {
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
pub(super) fn name_slots(status: &mut L2LoadBalancerStatus, load_balancer: &str) {
    for slot in &mut status.slots {
        slot.service = format!("{load_balancer}-{}", slot.service);
    }
}

fn allocated(world: &World, served: &Served, slots: &Slots) -> Verdict {
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
    if let (true, Some(unidentifiable)) =
        (served.set.members.is_empty(), unidentifiable(&served.set))
    {
        return Verdict::fails(kind, Reason::NodeNotIdentifiable, unidentifiable);
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
        let family = unmet.families.first().copied().unwrap_or(Family::IPv4);
        let nodes: Vec<&str> = slots.unmet.iter().map(|u| u.node.as_str()).collect();
        let capacity = pool.capacity(family);
        return Verdict::fails(
            kind,
            Reason::AddressesExhausted,
            format!(
                "L2AddressPool {} has no free {family} address ({capacity} in all, {} in use): {} \
                 needs {} more, for {} {}; add addresses to the pool or lower spec.maxNodes",
                pool.name,
                unmet.in_use,
                served.key,
                nodes.len(),
                if nodes.len() == 1 { "node" } else { "nodes" },
                nodes.join(", ")
            ),
        );
    }
    if let Some((reason, message)) = slots.slots.iter().find_map(|s| s.blocked.clone()) {
        return Verdict::fails(kind, reason, message);
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

fn pinned(environment: &Environment, served: &Served, slots: &Slots) -> Verdict {
    let kind = ConditionType::Pinned;
    let fails = |reason, message: String| Verdict::fails(kind, reason, message);
    if let Some(message) = unidentifiable(&served.set) {
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
    let standbys = if slots.slots.iter().any(SlotPlan::has_own_pool) {
        "every one has a standby"
    } else if served.set.members.len() > 1 {
        "every other balancer node stands by"
    } else {
        "there is no second balancer node to stand by"
    };
    Verdict::holds(
        kind,
        format!("every address is announced by its home; {standbys}"),
    )
}

/// The first node that is selected and cannot be told apart, with the remedy.
fn unidentifiable(set: &CandidateSet) -> Option<String> {
    let (node, hostname) = set.unidentifiable.first()?;
    Some(match hostname {
        None => format!(
            "node {node} has no label {0}, by which MetalLB could prefer it: kubectl label node \
             {node} {0}={node}",
            names::HOSTNAME
        ),
        Some(hostname) => format!(
            "node {node} has the same label {}={hostname} as another node, so that MetalLB cannot \
             prefer one of them: give each node its own",
            names::HOSTNAME
        ),
    })
}

fn ready(world: &World, slots: &Slots) -> Verdict {
    let kind = ConditionType::Ready;
    if slots.slots.is_empty() {
        return Verdict::fails(kind, Reason::NotAnnounced, "there is no slot yet");
    }
    let dark: Vec<&SlotPlan> = slots.slots.iter().filter(|s| !s.live).collect();
    match dark.first() {
        None => {
            let inferred = if world.capabilities.reports_announcers() {
                ""
            } else {
                INFERRED
            };
            Verdict::holds(
                kind,
                format!("every address has a live announcer{inferred}"),
            )
        }
        Some(first) => Verdict::fails(
            kind,
            Reason::NotAnnounced,
            format!(
                "{} of {} slots have no live announcer: {}",
                dark.len(),
                slots.slots.len(),
                first.message.clone().unwrap_or_default()
            ),
        ),
    }
}

/// What a person should hear of, out of the difference between two statuses.
pub(super) fn events(
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
