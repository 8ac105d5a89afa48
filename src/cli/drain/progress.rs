//! What of ours is still on a node, and what cannot leave it.

use std::collections::BTreeMap;

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
            if child.pin != value {
                if announces(world, child, node) {
                    result.going.push(Slot::of(child));
                }
                continue;
            }
            let planned = owner(child).and_then(|key| plan.load_balancers.get(&key));
            let slot = planned.and_then(|lb| lb.slots.iter().find(|s| s.number == child.slot));
            if slot.is_some_and(|slot| slot.pin != value) {
                result.going.push(Slot::of(child));
            } else {
                let why = stays(world, &outlook, child, node);
                result.staying.push((Slot::of(child), why));
            }
        }
        result
    }
}

/// Every child that is not about to be deleted.
fn children(world: &World) -> impl Iterator<Item = &Child> {
    let all = world.children.values().flat_map(|slots| slots.values());
    all.map(|child| &**child).filter(|child| !child.terminating)
}

fn owner(child: &Child) -> Option<Key> {
    let (name, _) = child.key.name.rsplit_once('-')?;
    Some(Key::new(child.key.namespace.clone(), name))
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
        .get(&owner(child)?)
        .and_then(Stored::valid)?;
    let mut slots = lb.status.iter().flat_map(|s| &s.slots);
    slots.find(|s| s.service == child.key.name)
}

/// Why a slot that is pinned to a node stays there when the node is drained.
fn stays(world: &World, outlook: &Outlook, child: &Child, node: &str) -> String {
    let owner = owner(child).filter(|owner| world.load_balancers.contains_key(owner));
    let Some(owner) = owner else {
        return "its L2LoadBalancer is gone, so that nobody steers it".to_owned();
    };
    if let Some((reason, message)) = outlook.refusal(&owner) {
        return format!(
            "L2LoadBalancer {owner} is not served ({}), and nothing of it is changed: {message}",
            reason.as_str()
        );
    }
    let others: Vec<String> = outlook
        .candidates(&owner)
        .into_iter()
        .filter(|(name, _)| name != node)
        .map(|(name, state)| format!("{name} is {}", state.as_str()))
        .collect();
    if others.is_empty() {
        format!("node {node} is the only balancer node of L2LoadBalancer {owner}")
    } else {
        format!(
            "no other balancer node of L2LoadBalancer {owner} can take over ({})",
            others.join(", ")
        )
    }
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

/// Homes of a node that are not back there yet, and those that are.
pub(super) fn returning(world: &World, node: &str) -> (Vec<Slot>, Vec<Slot>) {
    let value = names::node_value(node);
    let homes = children(world).filter(|c| c.home == value && c.retire_at.is_none());
    let (back, away): (Vec<&Child>, Vec<&Child>) = homes.partition(|child| {
        let phase = reported(world, child).map(|s| s.phase);
        child.pin == value && announces(world, child, node) && phase == Some(SlotPhase::Announced)
    });
    let slots = |list: Vec<&Child>| list.into_iter().map(Slot::of).collect();
    (slots(away), slots(back))
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
mod tests {
    use super::*;
    use crate::plan::Planner;
    use crate::simulate::{Cluster, event};

    fn after(history: &str) -> World {
        let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let mut cluster = Cluster::new(start);
        let mut planner = Planner::default();
        cluster.add_pool("edge", &["203.0.113.0/28"]);
        for event in event::parse(history).unwrap() {
            cluster.happen(&event).unwrap();
            cluster.settle(&mut planner).unwrap();
        }
        cluster.world
    }

    const TWO: &str = "- join: {node: a}\n- join: {node: b}\n- create: {loadBalancer: shop/web}\n";

    #[test]
    fn a_node_is_empty_when_pins_and_announcements_have_gone() {
        let before = Leaving::of(&after(TWO), "a");
        assert_eq!((before.going.len(), before.staying.len()), (1, 0));
        let drained = after(&format!("{TWO}- drain: a\n"));
        assert_eq!(Leaving::of(&drained, "a"), Leaving::default());
        let where_to = announcers(&drained, &before.going);
        assert_eq!(where_to, BTreeMap::from([("b".to_owned(), 1)]));
    }

    #[test]
    fn what_nobody_can_take_over_stays() {
        let alone = after("- join: {node: a}\n- create: {loadBalancer: shop/web}\n- drain: a\n");
        let leaving = Leaving::of(&alone, "a");
        assert!(
            leaving.staying[0].1.contains("only balancer node"),
            "{leaving:?}"
        );
        let both = after(&format!("{TWO}- drain: a\n- drain: b\n"));
        let leaving = Leaving::of(&both, "b");
        assert!(leaving.going.is_empty(), "{leaving:?}");
        assert!(
            leaving
                .staying
                .iter()
                .all(|(_, why)| why.contains("a is Drained"))
        );
    }

    #[test]
    fn homes_are_back_when_they_are_announced_there() {
        let drained = after(&format!("{TWO}- drain: a\n"));
        let (away, back) = returning(&drained, "a");
        assert_eq!((away.len(), back.len()), (1, 0));
        let again = after(&format!("{TWO}- drain: a\n- undrain: a\n- wait: 1m\n"));
        let (away, back) = returning(&again, "a");
        assert_eq!((away.len(), back.len()), (0, 1));
        assert_eq!(unfit(&again, "a"), None);
        let cordoned = after(&format!("{TWO}- cordon: a\n"));
        assert!(
            unfit(&cordoned, "a")
                .unwrap()
                .contains("kubectl uncordon a")
        );
    }
}
