//! Which nodes can announce at all, and why others cannot.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::load_balancer::earlier;
use crate::api::{L2AddressPool, MissingInterfaces, Reason};
use crate::world::{Node, SpeakerState, World};

/// How long it is believed without further news that a node lacks a pool's
/// interfaces. Trying again leaves each of its addresses dark for about a
/// second, so it is not done often; once a day a forgotten node heals by itself.
pub(super) const INTERFACE_MEMORY: SignedDuration = SignedDuration::from_hours(24);

/// How old what is recorded may be before it is renewed by the same news.
const RENEWAL: SignedDuration = SignedDuration::from_hours(1);

/// Why a node cannot announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its condition Ready is not True.
    NotReady,
    /// Its condition NetworkUnavailable is True.
    NetworkUnavailable,
    /// No speaker runs on it.
    NoSpeaker,
    /// Its speaker runs without memberlist, and is of a version that then
    /// announces nothing.
    NoMemberlist,
    /// It has none of the pool's interfaces.
    NoInterface,
}

impl Trouble {
    /// One word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "NotReady",
            Self::NetworkUnavailable => "NetworkUnavailable",
            Self::NoSpeaker => "SpeakerMissing",
            Self::NoMemberlist => "MemberlistOff",
            Self::NoInterface => "InterfaceMissing",
        }
    }

    /// The reason in `Pinned`, where it is one that a person must act on.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::NotReady | Self::NetworkUnavailable => None,
            Self::NoSpeaker => Some(Reason::SpeakerMissing),
            Self::NoMemberlist => Some(Reason::MemberlistOff),
            Self::NoInterface => Some(Reason::InterfaceMissing),
        }
    }
}

/// A node's ability to announce, for every pool.
pub(super) struct Ability {
    pub trouble: Option<Trouble>,
    /// Since when it is able, or not.
    pub since: Option<Timestamp>,
    /// When it will be unable if nothing happens before.
    pub until: Option<Timestamp>,
}

/// Judges a node.
pub(super) fn of_node(world: &World, node: &Node) -> Ability {
    let mut ability = Ability {
        trouble: None,
        since: node.since,
        until: None,
    };
    if !node.ready {
        ability.trouble = Some(Trouble::NotReady);
    } else if node.network_unavailable {
        ability.trouble = Some(Trouble::NetworkUnavailable);
    } else if let Some(lost_at) = world.speakers.lost_at(node) {
        if lost_at <= world.now {
            ability.trouble = Some(Trouble::NoSpeaker);
        } else {
            ability.until = Some(lost_at);
        }
    } else if let SpeakerState::Running(speaker) = world.speakers.on(&node.name) {
        ability.since = node.since.max(speaker.since);
        if !speaker.memberlist && world.capabilities.needs_memberlist() {
            ability.trouble = Some(Trouble::NoMemberlist);
        }
    }
    ability
}

/// The nodes that lack a pool's interfaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lacking {
    /// What is recorded in the pool's status, by which it outlives the
    /// controller and the events. One without interfaces has no effect: the
    /// node was believed again then. It stays for as long as an event may be
    /// there that it came from, which else would look like news.
    pub records: Vec<MissingInterfaces>,
    /// The nodes to which a record applies now.
    pub nodes: BTreeSet<String>,
    /// When the first of them is tried again.
    pub until: Option<Timestamp>,
}

/// Judges the nodes by what their speakers said. `interfaces` are the pool's, sorted.
pub(super) fn of_pool(world: &World, pool: &L2AddressPool, interfaces: &[String]) -> Lacking {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let recorded = pool.status.iter().flat_map(|s| &s.missing_interfaces);
    let mut records: BTreeMap<&str, MissingInterfaces> = recorded
        .map(|r| (r.node.as_str(), r.clone()))
        .filter(|(node, record)| counts(world, node, record.since.0))
        .collect();
    let failures = || {
        world.interface_failures.values().filter(|failure| {
            let child = world.child(&failure.service);
            child.is_some_and(|c| c.pool == name) && counts(world, &failure.node, failure.at)
        })
    };
    // The pool has other interfaces now: what was said until then, which is
    // not all recorded, was not about these.
    for record in records.values_mut() {
        if record.interfaces != interfaces && !record.interfaces.is_empty() {
            let of_node = failures().filter(|failure| failure.node == record.node);
            let last = of_node.map(|failure| failure.at).max();
            record.since = Time(record.since.0.max(last.unwrap_or(record.since.0)));
            record.interfaces.clear();
        }
    }
    for failure in failures().filter(|_| !interfaces.is_empty()) {
        let news = records.get(failure.node.as_str()).is_none_or(|record| {
            let renewal = if record.interfaces == interfaces {
                RENEWAL
            } else {
                SignedDuration::ZERO
            };
            failure.at.duration_since(record.since.0) > renewal
        });
        if news {
            let record = MissingInterfaces {
                node: failure.node.clone(),
                interfaces: interfaces.to_vec(),
                since: Time(failure.at),
            };
            records.insert(&failure.node, record);
        }
    }
    let mut result = Lacking::default();
    for (node, mut record) in records {
        if announces(world, name, node, record.since.0) {
            record.interfaces.clear();
        }
        if !interfaces.is_empty() && record.interfaces == interfaces {
            result.nodes.insert(node.to_owned());
        }
        let until = record.since.0.checked_add(INTERFACE_MEMORY).ok();
        result.until = earlier(result.until, until);
        result.records.push(record);
    }
    result
}

/// Whether what a speaker said then still counts: it was not started anew since.
fn counts(world: &World, node: &str, at: Timestamp) -> bool {
    let restarted = match world.speakers.on(node) {
        SpeakerState::Running(speaker) => speaker.started.is_some_and(|s| s > at),
        SpeakerState::Away(_) | SpeakerState::Unknown => false,
    };
    let young = world.now.duration_since(at) < INTERFACE_MEMORY;
    world.nodes.contains_key(node) && !restarted && young
}

/// Whether a node has begun to announce an address of a pool since: it has
/// the interfaces after all. What a speaker says is dated to the second.
fn announces(world: &World, pool: &str, node: &str, since: Timestamp) -> bool {
    let second = SignedDuration::from_secs(1);
    world
        .children
        .values()
        .flat_map(|slots| slots.values())
        .filter(|child| child.pool == pool)
        .any(|child| {
            world.announcers(&child.key).any(|n| n == node)
                && world
                    .announced_since
                    .get(&child.key)
                    .is_some_and(|at| at.duration_since(since) > second)
        })
}

#[cfg(test)]
mod tests;
