//! What of ours is still on a node, and what cannot leave it.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{SlotPhase, names};
use crate::plan;
use crate::plan::outlook::{NodeState, Outlook};
use crate::world::{Child, Key, Stored, World};

/// A slot, for a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub service: Key,
    pub addresses: String,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.service, self.addresses)
    }
}

impl Slot {
    fn of(child: &Child) -> Self {
        let addresses: Vec<String> = child.addresses.iter().map(ToString::to_string).collect();
        Self {
            service: child.key.clone(),
            addresses: addresses.join(" and "),
        }
    }
}

/// How far a node is emptied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leaving {
    /// Slots that are still pinned to it or announced by it, and will go.
    pub going: Vec<Slot>,
    /// Slots that stay, with the reason.
    pub staying: Vec<(Slot, String)>,
}

impl Leaving {
    /// What is on a node.
    pub fn of(world: &World, node: &str) -> Self {
        // Where the planner pins each slot when the node is drained.
        let mut drained = world.clone();
        if let Some(node) = drained.nodes.get_mut(node) {
            node.drained = true;
        }
        let plan = plan::plan(&drained);
        let outlook = Outlook::of(&drained);
        let value = names::node_value(node);
        let mut result = Self::default();
        for child in children(world) {
            let announced = announces(world, child, node);
            if child.pin != value && !announced {
                continue;
            }
            let owner = child.load_balancer();
            let planned = plan.load_balancers.get(&owner);
            let slot = planned.and_then(|lb| lb.slots.iter().find(|s| s.number == child.slot));
            let to = slot.map_or(child.pin.as_str(), |slot| slot.pin.as_str());
            let moves = child.pin != value || to != value;
            let pods = outlook.pods(world, child).filter(|nodes| !nodes.is_empty());
            let pods = pods.as_ref();
            let is_kept = pods.is_some_and(|pods| {
                let others = others(&outlook, &owner, node);
                keeps(&others, pods, node, to)
            });
            if moves && !is_kept {
                result.going.push(Slot::of(child));
            } else if announced || pods.is_none_or(|nodes| nodes.contains(node)) {
                let why = stays(world, &outlook, child, node, pods);
                result.staying.push((Slot::of(child), why));
            }
            // Else it is pinned here and a node with a pod announces it, as before.
        }
        result
    }
}

/// Every child that is not about to be deleted.
fn children(world: &World) -> impl Iterator<Item = &Child> {
    let all = world.children.values().flat_map(|slots| slots.values());
    all.map(|child| &**child).filter(|child| !child.terminating)
}

/// Whether a node says that it announces a slot, or, where speakers do not
/// say so reliably, the controller does.
fn announces(world: &World, child: &Child, node: &str) -> bool {
    if world.reports_announcers() {
        return world.announcers(&child.key).any(|n| n == node);
    }
    reported(world, child).is_some_and(|s| s.announced_by.as_deref() == Some(node))
}

/// A number of slots, in a sentence.
pub(super) fn slots(count: usize) -> String {
    if count == 1 {
        "1 slot".to_owned()
    } else {
        format!("{count} slots")
    }
}

/// The slot in the status of its load balancer.
fn reported<'a>(world: &'a World, child: &Child) -> Option<&'a crate::api::SlotStatus> {
    let lb = world
        .load_balancers
        .get(&child.load_balancer())
        .and_then(Stored::valid)?;
    let mut slots = lb.status.iter().flat_map(|s| &s.slots);
    slots.find(|s| s.service == child.key.name)
}

/// The other balancer nodes of a load balancer, with what the planner makes of each.
fn others(outlook: &Outlook, owner: &Key, node: &str) -> Vec<(String, NodeState)> {
    let all = outlook.candidates(owner).into_iter();
    all.filter(|(name, _)| name != node).collect()
}

/// Whether a drained node announces a slot wherever it is pinned `to`: it has a
/// ready pod, without which nobody can, and none of those has that could take over.
fn keeps(others: &[(String, NodeState)], pods: &BTreeSet<&str>, node: &str, to: &str) -> bool {
    let takes_over = |(name, state): &(String, NodeState)| {
        let is_chosen = *state == NodeState::Serving || names::node_value(name) == to;
        is_chosen && pods.contains(name.as_str())
    };
    pods.contains(node) && !others.iter().any(takes_over)
}

/// Why a slot stays on a node when the node is drained. `pods` are the nodes with
/// a ready pod, where only those announce it and they are known.
fn stays(
    world: &World,
    outlook: &Outlook,
    child: &Child,
    node: &str,
    pods: Option<&BTreeSet<&str>>,
) -> String {
    let owner = child.load_balancer();
    if !world.load_balancers.contains_key(&owner) {
        return "its L2LoadBalancer is gone, so that nobody steers it".to_owned();
    }
    if let Some((reason, message)) = outlook.refusal(&owner) {
        return format!(
            "L2LoadBalancer {owner} is not served ({}), and nothing of it is changed: {message}",
            reason.as_str()
        );
    }
    let others = others(outlook, &owner, node);
    if others.is_empty() {
        return format!("node {node} is the only balancer node of L2LoadBalancer {owner}");
    }
    let has_pod = |name: &str| pods.is_none_or(|nodes| nodes.contains(name));
    if !others.iter().any(|(name, _)| has_pod(name)) {
        return format!(
            "no other balancer node of L2LoadBalancer {owner} has a ready pod, and its \
             externalTrafficPolicy is Local"
        );
    }
    let states: Vec<String> = others
        .iter()
        .map(|(name, state)| {
            let podless = *state == NodeState::Serving && !has_pod(name);
            let but = if podless { " without a ready pod" } else { "" };
            format!("{name} is {}{but}", state.as_str())
        })
        .collect();
    format!(
        "no other balancer node of L2LoadBalancer {owner} can take over ({})",
        states.join(", ")
    )
}

/// Where the slots of a node are now, by node: whom it handed over to.
pub(super) fn announcers(world: &World, slots: &[Slot]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for slot in slots {
        let child = world.child(&slot.service);
        let by = child.and_then(|child| {
            let reported = reported(world, child).and_then(|s| s.announced_by.clone());
            let said = world.announcers(&slot.service).next().map(str::to_owned);
            said.filter(|_| world.reports_announcers()).or(reported)
        });
        *counts
            .entry(by.unwrap_or_else(|| "nobody".to_owned()))
            .or_default() += 1;
    }
    counts
}

/// The slots whose home a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Homes {
    /// Not back there yet.
    pub away: Vec<Slot>,
    /// Back there.
    pub back: Vec<Slot>,
    /// They cannot come back: the policy is Local, and the node has no ready pod.
    pub podless: Vec<Slot>,
}

impl Homes {
    /// Those of a node.
    pub fn of(world: &World, node: &str) -> Self {
        let outlook = Outlook::of(world);
        let value = names::node_value(node);
        let mut result = Self::default();
        let homes = children(world).filter(|c| c.home == value && c.retire_at.is_none());
        for child in homes {
            let phase = reported(world, child).map(|s| s.phase);
            let is_here = child.pin == value && announces(world, child, node);
            let pods = outlook.pods(world, child);
            let list = if is_here && phase == Some(SlotPhase::Announced) {
                &mut result.back
            } else if pods.is_some_and(|nodes| !nodes.contains(node)) {
                &mut result.podless
            } else {
                &mut result.away
            };
            list.push(Slot::of(child));
        }
        result
    }
}

/// Why a node cannot take its addresses back now, if it cannot.
pub(super) fn unfit(world: &World, node: &str) -> Option<String> {
    let outlook = Outlook::of(world);
    let state = outlook.nodes().find(|n| n.name == node)?.state;
    let why = match state {
        NodeState::Serving | NodeState::Drained => return None,
        NodeState::Cordoned => {
            let homes = children(world).filter(|c| c.home == names::node_value(node));
            let mut pools = homes.map(|c| c.pool.as_str());
            if pools.all(|pool| outlook.ignores_cordon(pool)) {
                return None;
            }
            format!(
                "node {node} is cordoned, so that its addresses stay with their standbys: kubectl \
                 uncordon {node}"
            )
        }
        NodeState::NotReady => format!("node {node} is not ready"),
        NodeState::NetworkUnavailable => {
            format!("node {node} has no network (its condition NetworkUnavailable is True)")
        }
        NodeState::NoSpeaker => format!("no MetalLB speaker runs on node {node}"),
        NodeState::NoMemberlist => {
            format!("the speaker of node {node} runs without memberlist and announces nothing")
        }
        NodeState::NoInterface => format!("node {node} lacks the interfaces of its pool"),
        NodeState::Excluded => format!(
            "node {node} is labelled {}, or being deleted",
            names::EXCLUDE_NODE
        ),
        NodeState::NotIdentifiable => {
            format!("node {node} has no label {} of its own", names::HOSTNAME)
        }
    };
    Some(why)
}

#[cfg(test)]
mod tests;
