//! What becomes of each address when files are applied: the plan of the world
//! as it is, beside that of the world with the files in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::apply::Applied;
use crate::api::FamilyCount;
use crate::manifest::Manifest;
use crate::plan::{self, LoadBalancerPlan, Plan, SlotPlan};
use crate::world::{Key, World};

/// What becomes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    /// It is given out.
    Added,
    /// It is given back, now or when its retirement ends.
    Freed,
    /// It gets another home, or goes to another slot.
    Moved,
    /// It stays; its Service changes.
    Updated,
    /// Nothing.
    Unchanged,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Freed => "freed",
            Self::Moved => "moved",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub change: Change,
    pub address: String,
    pub load_balancer: String,
    pub service: String,
    /// Its home afterwards, or before where it is freed.
    pub node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A pool's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PoolRow {
    pub pool: String,
    pub capacity_before: FamilyCount,
    pub capacity: FamilyCount,
    pub free_before: FamilyCount,
    pub free: FamilyCount,
}

/// What an apply would change.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Diff {
    pub addresses: Vec<Row>,
    pub pools: Vec<PoolRow>,
    /// The objects in the files that differ from what is stored.
    pub objects: Vec<String>,
    /// What would be said of them that is not said now.
    pub problems: Vec<String>,
    /// What admission would deny; nothing of it is in the rest.
    pub denied: Vec<String>,
}

impl Diff {
    /// Compares a world with what an apply of files would make of it. `stored`
    /// is everything that the API server has.
    ///
    /// # Errors
    /// A sentence that names the file and document that cannot be read.
    pub fn of(
        world: &World,
        stored: &[Value],
        manifests: Vec<Manifest>,
        namespace: &str,
    ) -> Result<Self, String> {
        let applied = Applied::to(world, stored, manifests, namespace)?;
        let before = plan::plan(world);
        let after = plan::plan(&applied.world);
        Ok(Self {
            addresses: addresses(&applied.world, &before, &after),
            pools: pools(&before, &after),
            objects: applied.objects,
            problems: problems(&before, &after),
            denied: applied.denied,
        })
    }

    /// Whether an apply would change anything.
    pub fn differs(&self) -> bool {
        self.addresses.iter().any(|r| r.change != Change::Unchanged)
            || !self.pools.is_empty()
            || !self.objects.is_empty()
            || !self.problems.is_empty()
    }
}

/// A slot, where it belongs, and its Service without what is the slot's own.
struct Place<'a> {
    key: &'a Key,
    slot: &'a SlotPlan,
    service: Value,
}

/// Every address of a plan.
fn places(plan: &Plan) -> BTreeMap<std::net::IpAddr, Place<'_>> {
    let mut places = BTreeMap::new();
    for (key, planned) in &plan.load_balancers {
        let services = specs(planned);
        for slot in &planned.slots {
            for address in &slot.addresses {
                let service = services.get(&slot.number).cloned().unwrap_or_default();
                places.insert(*address, Place { key, slot, service });
            }
        }
    }
    places
}

/// What the Services of a load balancer have in common with its spec.
fn specs(planned: &LoadBalancerPlan) -> BTreeMap<u32, Value> {
    let numbers = planned.slots.iter().filter(|s| s.blocked.is_none());
    numbers
        .map(|s| s.number)
        .zip(planned.services())
        .map(|(number, service)| {
            let labels = service.metadata.labels.unwrap_or_default();
            let annotations = service.metadata.annotations.unwrap_or_default();
            let own = |key: &str| key.contains("l2lb.io/") || key.contains("metallb");
            let keep = |map: BTreeMap<String, String>| -> BTreeMap<String, String> {
                map.into_iter().filter(|(key, _)| !own(key)).collect()
            };
            let value = json!([service.spec, keep(labels), keep(annotations)]);
            (number, value)
        })
        .collect()
}

/// What becomes of each address. `world` has the nodes of both plans.
fn addresses(world: &World, before: &Plan, after: &Plan) -> Vec<Row> {
    let (old, new) = (places(before), places(after));
    let all: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    let mut rows: Vec<Row> = all
        .into_iter()
        .filter_map(|address| {
            let (was, is) = (old.get(&address), new.get(&address));
            let at = is.or(was)?;
            let (change, note) = judge(world, was, is);
            Some(Row {
                change,
                address: address.to_string(),
                load_balancer: at.key.to_string(),
                service: crate::api::names::service_name(&at.key.name, at.slot.number),
                node: node_name(world, &at.slot.home),
                note,
            })
        })
        .collect();
    rows.sort_by_key(|row| row.change);
    rows
}

/// What becomes of an address, and what is said beside it.
fn judge(world: &World, was: Option<&Place<'_>>, is: Option<&Place<'_>>) -> (Change, String) {
    let (was, is) = match (was, is) {
        (None, Some(_)) => return (Change::Added, String::new()),
        (_, None) => return (Change::Freed, String::new()),
        (Some(was), Some(is)) => (was, is),
    };
    if was.key != is.key || was.slot.number != is.slot.number {
        (
            Change::Moved,
            format!("from {}-{}", was.key, was.slot.number),
        )
    } else if let (None, Some(at)) = (was.slot.retire_at, is.slot.retire_at) {
        let note = format!("at {at}, unless a node takes the slot over");
        (Change::Freed, note)
    } else if was.slot.home != is.slot.home {
        let from = node_name(world, &was.slot.home);
        (Change::Moved, format!("from {from}"))
    } else if was.slot.retire_at.is_some() && is.slot.retire_at.is_none() {
        (Change::Moved, "it retires no more".to_owned())
    } else if was.service != is.service {
        (Change::Updated, "its Service changes".to_owned())
    } else if was.slot.pin != is.slot.pin {
        let pin = node_name(world, &is.slot.pin);
        (Change::Moved, format!("announced by {pin}"))
    } else {
        (Change::Unchanged, String::new())
    }
}

/// The name of a node, of which a longer one is hashed in a label's value.
fn node_name(world: &World, value: &str) -> String {
    let mut nodes = world.nodes.values();
    nodes
        .find(|n| n.value() == value)
        .map_or_else(|| value.to_owned(), |n| n.name.clone())
}

fn pools(before: &Plan, after: &Plan) -> Vec<PoolRow> {
    let nothing = FamilyCount::default();
    after
        .pools
        .iter()
        .map(|(name, pool)| {
            let old = before.pools.get(name).map(|p| &p.status);
            PoolRow {
                pool: name.clone(),
                capacity_before: old.map_or(nothing, |s| s.capacity),
                capacity: pool.status.capacity,
                free_before: old.map_or(nothing, |s| s.free),
                free: pool.status.free,
            }
        })
        .filter(|row| row.capacity != row.capacity_before || row.free != row.free_before)
        .collect()
}

/// Conditions that do not hold afterwards, and are not said before.
fn problems(before: &Plan, after: &Plan) -> Vec<String> {
    type Conditions<'a> = &'a [k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition];
    let load_balancers = after.load_balancers.iter().map(|(key, planned)| {
        let old = before.load_balancers.get(key);
        let old: Conditions<'_> = old.map_or(&[], |p| &p.status.conditions);
        (
            format!("L2LoadBalancer {key}"),
            old,
            &planned.status.conditions[..],
        )
    });
    let pools = after.pools.iter().map(|(name, planned)| {
        let old = before.pools.get(name);
        let old: Conditions<'_> = old.map_or(&[], |p| &p.status.conditions);
        (
            format!("L2AddressPool {name}"),
            old,
            &planned.status.conditions[..],
        )
    });
    let mut problems: Vec<String> = Vec::new();
    for (about, old, new) in load_balancers.chain(pools) {
        // What is only not done yet is no problem.
        let bad = new
            .iter()
            .filter(|c| c.status == "False")
            .filter(|c| !["Pending", "NotAnnounced", "Retiring", "Uneven"].contains(&&*c.reason))
            .filter(|c| {
                !old.iter()
                    .any(|o| o.type_ == c.type_ && o.message == c.message)
            });
        for condition in bad {
            let text = format!("{about}: {}: {}", condition.reason, condition.message);
            let repeats = problems
                .iter()
                .any(|p| p.starts_with(&format!("{about}: {}", condition.reason)));
            if !repeats {
                problems.push(text);
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;
