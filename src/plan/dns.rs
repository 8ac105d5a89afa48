//! The name of a load balancer: one DNSEndpoint for ExternalDNS, which holds
//! the addresses that are announced by their home.
//!
//! An address whose home drains, is lost or has left is taken out while
//! another remains. One that merely wanders while its home is well (a speaker
//! restarts) stays for [`GRACE`], so that a rollout of MetalLB or a quick
//! reboot does not change the record; a new one is added once it is at home.

mod hostname;
mod record;

pub(super) use hostname::{Permission, claims, permission};
pub(crate) use hostname::{domains_allowed, is_below, is_hostname};

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::Plan;
use super::change::Change;
use super::environment::Standing;
use super::load_balancer::earlier;
use super::load_balancer::{Served, SlotPlan, Slots};
use super::writing::hold_back;
use crate::address::Family;
use crate::api::condition::Verdict;
use crate::api::{ConditionType, L2LoadBalancer, Reason, SlotPhase};
use crate::external_dns::{Availability, DEFINITION, DnsEndpoint};
use crate::world::{Key, Stored, World};

/// How long a published address that is not at home stays published while its
/// home is well.
pub(super) const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How many addresses a message names.
const NAMED: usize = 4;

/// What is planned for the name of one load balancer.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Condition DNSPublished; none without `spec.dns`.
    pub verdict: Option<Verdict>,
    /// The DNSEndpoint that should exist.
    pub wanted: Option<Value>,
    pub change: Option<Change>,
    /// When to decide again, if nothing happens before.
    pub until: Option<Timestamp>,
}

/// Plans the DNSEndpoint of a load balancer that is served.
pub(super) fn plan(world: &World, served: &Served, slots: &Slots) -> Records {
    let live = world.dns_endpoints.get(&served.key);
    let ours = live.filter(|l| record::is_ours(l.metadata(), &served.key));
    let (Some(dns), Some(permission)) = (&served.object.spec.dns, &served.dns) else {
        return removed(world, &served.key, ours, None);
    };
    let says = |reason, message| Some(Verdict::fails(ConditionType::DnsPublished, reason, message));
    let name = &dns.hostname;
    match world.external_dns {
        Availability::Served => {}
        Availability::Unknown => {
            return Records {
                verdict: as_before(served).or_else(|| {
                    let message = "waiting for the API server to list the DNSEndpoints".to_owned();
                    says(Reason::Pending, message)
                }),
                ..Records::default()
            };
        }
        Availability::Missing => {
            let message = format!(
                "the resource definition {DEFINITION} is not installed, so that {name} is not \
                 published: install it with ExternalDNS, which then runs with --source=crd; the \
                 name is published as soon as it appears"
            );
            return Records {
                verdict: says(Reason::ExternalDNSMissing, message),
                ..Records::default()
            };
        }
    }
    if let Err((reason, message)) = permission {
        return removed(world, &served.key, ours, says(*reason, message.clone()));
    }
    if live.is_some() && ours.is_none() {
        let message = format!(
            "DNSEndpoint {} exists and is not ours: rename or delete it",
            served.key
        );
        return Records {
            verdict: says(Reason::NameTaken, message),
            ..Records::default()
        };
    }
    let choice = choose(world.now, served, slots, &record::published(ours));
    if choice.targets.is_empty() {
        let message = format!("no address is announced yet, so that {name} is not published");
        return removed(world, &served.key, ours, says(Reason::Pending, message));
    }
    let wanted = record::manifest(served, dns, &choice.targets);
    let (change, held_until) = match record::difference(world, served, ours, &wanted) {
        Some(change) => hold_back(world, change),
        None => (None, None),
    };
    let refusal = world.refusals.get(&record::reference(&served.key));
    let verdict = match (ours, refusal) {
        (_, Some(refusal)) => says(
            Reason::Refused,
            format!(
                "DNSEndpoint {} was refused: {}",
                served.key, refusal.message
            ),
        ),
        (None, None) => says(
            Reason::Pending,
            format!("DNSEndpoint {} is being made", served.key),
        ),
        (Some(live), None) => Some(Verdict::holds(
            ConditionType::DnsPublished,
            choice.sentence(name, change.is_none() && record::was_read(live)),
        )),
    };
    Records {
        verdict,
        until: earlier(choice.until, held_until),
        wanted: Some(wanted),
        change,
    }
}

/// Takes our DNSEndpoint away, if there is one.
fn removed(
    world: &World,
    key: &Key,
    ours: Option<&Stored<DnsEndpoint>>,
    verdict: Option<Verdict>,
) -> Records {
    let meta = ours.map(Stored::metadata);
    let (change, until) = match meta.filter(|m| m.deletion_timestamp.is_none()) {
        Some(meta) => hold_back(world, record::deletion(key, meta)),
        None => (None, None),
    };
    Records {
        verdict,
        wanted: None,
        change,
        until,
    }
}

/// The verdict for a load balancer that may not be served: what is published stays.
pub(super) fn frozen(object: Option<&Arc<L2LoadBalancer>>, reason: Reason) -> Option<Verdict> {
    object?.spec.dns.as_ref()?;
    Some(Verdict::fails(
        ConditionType::DnsPublished,
        reason,
        "nothing is changed while the load balancer is not accepted",
    ))
}

/// The DNSEndpoints of load balancers that are no more go, as their Services
/// do: those without an owner were left on purpose.
pub(super) fn abandoned(world: &World, plan: &mut Plan) {
    for (key, stored) in &world.dns_endpoints {
        let meta = stored.metadata();
        let gone = !world.load_balancers.contains_key(key);
        let owned = meta.owner_references.iter().flatten().next().is_some();
        if gone && owned && record::is_ours(meta, key) && meta.deletion_timestamp.is_none() {
            plan.changes.push(record::deletion(key, meta));
        }
    }
}

/// The addresses to publish.
struct Choice {
    targets: BTreeSet<IpAddr>,
    /// Announced or not, they are left out.
    left_out: Vec<IpAddr>,
    /// One of those published is at home.
    at_home: bool,
    until: Option<Timestamp>,
}

/// Chooses among the addresses of the slots, each family for itself.
/// `current` is what is published now.
fn choose(now: Timestamp, served: &Served, slots: &Slots, current: &BTreeSet<IpAddr>) -> Choice {
    let grace = wandering_since(served, now).checked_add(GRACE).ok();
    let in_grace = grace.is_some_and(|until| until > now);
    let mut choice = Choice {
        targets: BTreeSet::new(),
        left_out: Vec::new(),
        at_home: false,
        until: None,
    };
    let is_well = |slot: &SlotPlan| {
        slot.retire_at.is_none()
            && !slots.held.contains(&slot.home)
            && served
                .set
                .member(&slot.home)
                .is_some_and(|m| m.standing == Standing::Serving)
    };
    for family in [Family::IPv4, Family::IPv6] {
        let all: Vec<(&SlotPlan, IpAddr)> = slots
            .slots
            .iter()
            .flat_map(|slot| slot.addresses.iter().map(move |address| (slot, *address)))
            .filter(|(_, address)| Family::of(*address) == family)
            .collect();
        let at_home = |slot: &SlotPlan| slot.allocated && slot.phase == SlotPhase::Announced;
        let stays = |slot: &SlotPlan, address| is_well(slot) && current.contains(&address);
        let good: Vec<_> = all
            .iter()
            .filter(|(slot, address)| at_home(slot) || (in_grace && stays(slot, *address)))
            .collect();
        let chosen: Vec<_> = if good.iter().any(|(slot, _)| slot.live) {
            if good.iter().any(|(slot, _)| !at_home(slot)) {
                choice.until = grace;
            }
            choice.at_home |= good.iter().any(|(slot, _)| at_home(slot));
            good
        } else {
            let announced: Vec<_> = all.iter().filter(|(s, _)| s.live && s.allocated).collect();
            if announced.is_empty() {
                // Nothing is announced: better the names of yesterday than none.
                all.iter().filter(|(_, a)| current.contains(a)).collect()
            } else {
                announced
            }
        };
        choice.targets.extend(chosen.iter().map(|(_, a)| *a));
        choice.left_out.extend(
            all.iter()
                .map(|(_, a)| *a)
                .filter(|a| !choice.targets.contains(a)),
        );
    }
    choice
}

impl Choice {
    fn sentence(&self, hostname: &str, was_read: bool) -> String {
        let all = self.targets.len() + self.left_out.len();
        let mut text = format!("{hostname} has {} of {all} addresses", self.targets.len());
        if !self.at_home {
            text += "; none is announced by its home";
        } else if !self.left_out.is_empty() {
            let mut shown: Vec<String> = self
                .left_out
                .iter()
                .take(NAMED)
                .map(ToString::to_string)
                .collect();
            let more = self.left_out.len() - shown.len();
            if more > 0 {
                shown.push(format!("{more} more"));
            }
            text += &format!("; not announced by their home: {}", shown.join(", "));
        }
        if !was_read {
            text += "; ExternalDNS has not read the DNSEndpoint yet";
        }
        text
    }
}

/// Since when an address of the load balancer is not at home, as the status
/// has it.
fn wandering_since(served: &Served, now: Timestamp) -> Timestamp {
    previous(served, ConditionType::Pinned)
        .filter(|c| c.status == "False")
        .map_or(now, |c| c.last_transition_time.0)
}

fn previous(served: &Served, kind: ConditionType) -> Option<&Condition> {
    let status = served.object.status.as_ref()?;
    status.conditions.iter().find(|c| c.type_ == kind.as_str())
}

/// What the condition said before.
fn as_before(served: &Served) -> Option<Verdict> {
    let before = previous(served, ConditionType::DnsPublished)?;
    let (reason, _) = Reason::ALL
        .iter()
        .find(|(r, _)| r.as_str() == before.reason)?;
    Some(Verdict {
        kind: ConditionType::DnsPublished,
        holds: before.status == "True",
        reason: *reason,
        message: before.message.clone(),
    })
}

#[cfg(test)]
mod tests;
