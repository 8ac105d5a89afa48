//! What `status` shows, out of a world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::{FamilyCount, L2LoadBalancer, SlotPhase, SlotStatus, names};
use crate::cli::cluster::Unread;
use crate::plan::outlook::{NodeState, Outlook};
use crate::world::{Child, Key, Stored, World};

/// Which load balancers.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Their namespace; `None`: every one.
    pub namespace: Option<String>,
    /// Their name; `None`: every one.
    pub name: Option<String>,
}

impl Scope {
    pub fn holds(&self, key: &Key) -> bool {
        self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
            && self.name.as_ref().is_none_or(|n| *n == key.name)
    }

    fn is_everything(&self) -> bool {
        self.namespace.is_none() && self.name.is_none()
    }
}

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    pub load_balancers: Vec<LoadBalancer>,
    pub pools: Vec<Pool>,
    pub nodes: Vec<Node>,
    /// What may not be read. If anything: slots are as the controller reported
    /// them last, and there are no nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_looked_at: Vec<Unread>,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoadBalancer {
    pub namespace: String,
    pub name: String,
    pub pool: String,
    /// Condition Ready: True, False or Unknown.
    pub ready: String,
    /// The controller has not judged the spec as it is now.
    pub stale: bool,
    pub slots: Vec<Slot>,
    /// Conditions that do not hold.
    pub problems: Vec<Problem>,
}

/// A condition that does not hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem {
    pub condition: String,
    pub reason: String,
    pub message: String,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slot {
    pub service: String,
    pub home: String,
    /// The node that it is pinned to.
    pub pin: String,
    /// Nodes that say they announce it: usually one.
    pub announced_by: Vec<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announced_since: Option<Timestamp>,
    pub addresses: Vec<String>,
    pub phase: SlotPhase,
    /// Who takes it over when the node that has it now fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Slot {
    /// Who has it now: of two that announce it for a moment the pin, and where
    /// nobody does the pin as well.
    fn holder(&self) -> &str {
        let announced_by = &self.announced_by;
        let other = announced_by
            .first()
            .filter(|_| !announced_by.contains(&self.pin));
        other.unwrap_or(&self.pin)
    }
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pool {
    pub name: String,
    pub ready: String,
    pub capacity: FamilyCount,
    pub allocated: FamilyCount,
    pub free: FamilyCount,
    pub load_balancers: i64,
    pub problems: Vec<Problem>,
}

/// A node. Counts are of the load balancers that are shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub name: String,
    pub state: &'static str,
    #[serde(skip)]
    pub serves: bool,
    /// Slots that it is home to.
    pub homes: usize,
    /// Slots that it announces.
    pub announces: usize,
    /// Slots that it would take over if the node that has each one now failed.
    pub inherits: usize,
    /// Those by the node that has them now.
    pub inherits_from: BTreeMap<String, usize>,
}

impl View {
    pub fn of(world: &World, scope: &Scope) -> Self {
        let outlook = Outlook::of(world);
        let load_balancers: Vec<LoadBalancer> = world
            .load_balancers
            .iter()
            .filter(|(key, _)| scope.holds(key))
            .map(|(key, stored)| {
                let none = BTreeMap::new();
                let children = world.children.get(key).unwrap_or(&none);
                let slots = slots(world, &outlook, children, reports(stored));
                load_balancer(key, stored, slots)
            })
            .collect();
        let nodes = nodes(&outlook, scope, &load_balancers);
        Self {
            pools: pools(world, scope, &load_balancers),
            load_balancers,
            nodes,
            not_looked_at: Vec::new(),
        }
    }

    /// What the controller reported last, where other objects may not be read.
    pub fn reported(world: &World, scope: &Scope, not_looked_at: Vec<Unread>) -> Self {
        let load_balancers: Vec<LoadBalancer> = world
            .load_balancers
            .iter()
            .filter(|(key, _)| scope.holds(key))
            .map(|(key, stored)| {
                let reports = reports(stored).iter();
                let slots = reports.filter_map(|s| Some((number(s)?, slot_reported(s))));
                load_balancer(key, stored, slots.collect())
            })
            .collect();
        Self {
            pools: pools(world, scope, &load_balancers),
            load_balancers,
            nodes: Vec::new(),
            not_looked_at,
        }
    }
}

/// What the controller said last of the slots of a load balancer.
fn reports(stored: &Stored<L2LoadBalancer>) -> &[SlotStatus] {
    let status = stored.valid().and_then(|lb| lb.status.as_ref());
    status.map_or(&[], |s| &s.slots)
}

/// The number of a slot that is reported.
fn number(status: &SlotStatus) -> Option<u32> {
    let (_, number) = status.service.rsplit_once('-')?;
    number.parse().ok()
}

fn slots(
    world: &World,
    outlook: &Outlook,
    children: &BTreeMap<u32, Arc<Child>>,
    reported: &[SlotStatus],
) -> BTreeMap<u32, Slot> {
    let mut slots: BTreeMap<u32, Slot> = children
        .iter()
        .map(|(number, child)| {
            let status = reported.iter().find(|s| s.service == child.key.name);
            (*number, slot(world, outlook, child, status))
        })
        .collect();
    for status in reported {
        if let Some(number) = number(status) {
            // It has no Service: it cannot be made, and nobody announces it.
            slots.entry(number).or_insert_with(|| Slot {
                announced_by: Vec::new(),
                ..slot_reported(status)
            });
        }
    }
    slots
}

/// A slot of which the report alone is known.
fn slot_reported(status: &SlotStatus) -> Slot {
    Slot {
        service: status.service.clone(),
        home: status.node.clone(),
        pin: String::new(),
        announced_by: status.announced_by.clone().into_iter().collect(),
        announced_since: None,
        addresses: status.addresses.clone(),
        phase: status.phase,
        heir: None,
        message: status.message.clone(),
    }
}

fn load_balancer(
    key: &Key,
    stored: &Stored<L2LoadBalancer>,
    slots: BTreeMap<u32, Slot>,
) -> LoadBalancer {
    let valid = stored.valid();
    let status = valid.and_then(|lb| lb.status.as_ref());
    let conditions = match stored {
        Stored::Valid(_) => status.map_or(&[][..], |s| &s.conditions),
        Stored::Broken { conditions, .. } => conditions,
    };
    let seen = status.and_then(|s| s.observed_generation);
    LoadBalancer {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        pool: valid.map_or_else(String::new, |lb| lb.spec.address_pool.clone()),
        ready: verdict(conditions),
        stale: valid.is_some() && seen != stored.metadata().generation,
        slots: slots.into_values().collect(),
        problems: problems(conditions),
    }
}

fn slot(world: &World, outlook: &Outlook, child: &Child, status: Option<&SlotStatus>) -> Slot {
    let reports = world.reports_announcers();
    let announced_by: Vec<String> = if reports {
        let all: BTreeSet<&str> = world.announcers(&child.key).collect();
        all.into_iter().map(str::to_owned).collect()
    } else {
        status
            .and_then(|s| s.announced_by.clone())
            .into_iter()
            .collect()
    };
    let since = world.announced_since.get(&child.key).copied();
    let mut slot = Slot {
        service: child.key.name.clone(),
        home: outlook.node_name(&child.home),
        pin: outlook.node_name(&child.pin),
        announced_since: since.filter(|_| reports),
        announced_by,
        addresses: child.addresses.iter().map(ToString::to_string).collect(),
        phase: status.map_or(SlotPhase::Pending, |s| s.phase),
        heir: None,
        message: status.and_then(|s| s.message.clone()),
    };
    let heir = outlook.heir(world, child, slot.holder());
    slot.heir = heir.map(str::to_owned);
    slot
}

type Condition = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

fn verdict(conditions: &[Condition]) -> String {
    conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .map_or_else(|| "Unknown".to_owned(), |c| c.status.clone())
}

/// What does not hold; what only repeats another one is left out.
fn problems(conditions: &[Condition]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for condition in conditions.iter().filter(|c| c.status == "False") {
        let repeats = problems
            .iter()
            .any(|p| p.reason == condition.reason && condition.message.contains(&p.message));
        if !repeats {
            problems.push(Problem {
                condition: condition.type_.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            });
        }
    }
    problems
}

/// The pools that the load balancers use; all of them where everything is shown.
fn pools(world: &World, scope: &Scope, load_balancers: &[LoadBalancer]) -> Vec<Pool> {
    let used: BTreeSet<&str> = load_balancers.iter().map(|lb| lb.pool.as_str()).collect();
    let shown = |name: &str| scope.is_everything() || used.contains(name);
    let pools = world.pools.iter().filter(|(name, _)| shown(name));
    pools.map(|(name, stored)| pool(name, stored)).collect()
}

fn pool(name: &str, stored: &Stored<crate::api::L2AddressPool>) -> Pool {
    let status = stored
        .valid()
        .and_then(|p| p.status.clone())
        .unwrap_or_default();
    let conditions = match stored {
        Stored::Valid(_) => &status.conditions,
        Stored::Broken { conditions, .. } => conditions,
    };
    Pool {
        name: name.to_owned(),
        ready: verdict(conditions),
        problems: problems(conditions),
        capacity: status.capacity,
        allocated: status.allocated,
        free: status.free,
        load_balancers: status.load_balancers,
    }
}

/// The nodes that have to do with the load balancers.
fn nodes(outlook: &Outlook, scope: &Scope, load_balancers: &[LoadBalancer]) -> Vec<Node> {
    let mut candidates: BTreeSet<String> = BTreeSet::new();
    for lb in load_balancers {
        let key = Key::new(lb.namespace.clone(), lb.name.clone());
        candidates.extend(outlook.candidates(&key).into_iter().map(|(name, _)| name));
    }
    let slots = || load_balancers.iter().flat_map(|lb| &lb.slots);
    let count = |of: &dyn Fn(&Slot) -> bool| slots().filter(|s| of(s)).count();
    let known: Vec<_> = outlook.nodes().collect();
    let gone = slots().map(|s| s.home.clone()).filter(|home| {
        !known
            .iter()
            .any(|n| n.name == *home || *home == names::node_value(&n.name))
    });
    let gone: BTreeSet<String> = gone.collect();
    let all = known
        .iter()
        .map(|n| {
            (
                n.name.clone(),
                n.state.as_str(),
                n.state == NodeState::Serving,
            )
        })
        .chain(gone.into_iter().map(|name| (name, "Gone", false)));
    let mut nodes: Vec<Node> = all
        .map(|(name, state, serves)| {
            let mut inherits_from: BTreeMap<String, usize> = BTreeMap::new();
            for slot in slots().filter(|s| s.heir.as_ref() == Some(&name)) {
                *inherits_from.entry(slot.holder().to_owned()).or_default() += 1;
            }
            Node {
                state,
                serves,
                homes: count(&|s| s.home == name && s.phase != SlotPhase::Retiring),
                announces: count(&|s| s.announced_by.contains(&name)),
                inherits: inherits_from.values().sum(),
                inherits_from,
                name,
            }
        })
        .collect();
    nodes.retain(|n| {
        scope.is_everything() || candidates.contains(&n.name) || n.homes + n.announces > 0
    });
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
}

#[cfg(test)]
mod tests;
