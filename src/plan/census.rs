//! What there is of everything, in numbers: the gauges of the controller.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{LoadBalancerPlan, Plan, SlotPlan, ability, pool};
use crate::address::Family;
use crate::api::{FamilyCount, SlotPhase, names};
use crate::world::{Kind, Stored, World};

/// The phases of a slot, in the order of [`Phases`].
pub const PHASES: [SlotPhase; 5] = [
    SlotPhase::Pending,
    SlotPhase::Announced,
    SlotPhase::FailedOver,
    SlotPhase::Draining,
    SlotPhase::Retiring,
];

/// How many slots are in each of [`PHASES`].
pub type Phases = [usize; PHASES.len()];

/// How many of each there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    /// Pools by name.
    pub pools: BTreeMap<String, PoolCensus>,
    /// Nodes that are home to a slot, pinned or announcing, by name.
    pub nodes: BTreeMap<String, NodeCensus>,
    /// Slots by namespace of the load balancer and by pool.
    pub slots: BTreeMap<(String, String), Phases>,
    /// Load balancers by condition, status and reason.
    pub load_balancers: BTreeMap<(String, String, String), usize>,
    /// Conditions of load balancers that do not hold: namespace, name, type, reason.
    pub failing: Vec<[String; 4]>,
    /// Conditions of pools that do not hold: name, type, reason.
    pub failing_pools: Vec<[String; 3]>,
    /// Objects whose last write was refused, by kind; of every kind that is written.
    pub refused: BTreeMap<Kind, usize>,
}

/// The numbers of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolCensus {
    /// Its addresses, by family; no entry for a family that it has none of.
    pub addresses: BTreeMap<Family, Shares>,
    /// L2LoadBalancers that name it.
    pub load_balancers: usize,
}

/// What has become of a pool's addresses of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// They can be given out.
    pub free: u128,
    /// Nobody has them, and they are kept for a load balancer that names them, or
    /// are those of nodes.
    pub reserved: u128,
    /// Services have them, and keep them.
    pub allocated: u128,
    /// Slots have them whose home has left.
    pub retiring: u128,
    /// They are never given out: `excludedAddresses` and `avoidBuggyIPs`.
    pub excluded: u128,
    /// Balancer nodes lack them.
    pub missing: u128,
    /// One more balancer node would take them.
    pub next_node: u128,
}

/// The numbers of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCensus {
    /// Slots that it is home to.
    pub homes: usize,
    /// Slots that are pinned to it.
    pub pins: usize,
    /// Slots that it announces.
    pub announced: usize,
    /// Slots that it is home to and that another node announces, or none.
    pub away: usize,
    /// It is Ready, has a network, and a MetalLB speaker runs on it.
    pub able: bool,
}

/// The kinds that the controller writes.
const WRITTEN: [Kind; 6] = [
    Kind::AddressPool,
    Kind::LoadBalancer,
    Kind::Service,
    Kind::IpAddressPool,
    Kind::L2Advertisement,
    Kind::DnsEndpoint,
];

/// Counts what there is, by a plan of that world.
pub fn census(world: &World, plan: &Plan) -> Census {
    let mut census = Census {
        refused: WRITTEN.iter().map(|kind| (*kind, 0)).collect(),
        ..Census::default()
    };
    for object in world.refusals.keys() {
        *census.refused.entry(object.kind).or_default() += 1;
    }
    let mut tallies: HashMap<&str, Tally> = HashMap::new();
    let mut nodes: HashMap<&str, NodeCensus> = HashMap::new();
    let mut announced: HashMap<&str, usize> = HashMap::new();
    for (key, planned) in &plan.load_balancers {
        let pool = planned.pool.as_deref().unwrap_or_default();
        tallies.entry(pool).or_default().add(planned);
        let phases = slots_of(&mut census.slots, &key.namespace, pool);
        for slot in &planned.slots {
            if let Some(index) = PHASES.iter().position(|p| *p == slot.phase) {
                phases[index] += 1;
            }
            if slot.retire_at.is_none() {
                let home = nodes.entry(&slot.home).or_default();
                home.homes += 1;
                home.away += usize::from(slot.phase != SlotPhase::Announced);
            }
            nodes.entry(&slot.pin).or_default().pins += 1;
            if let Some(by) = slot.announced_by.as_deref().filter(|_| slot.live) {
                *announced.entry(by).or_default() += 1;
            }
        }
        for condition in &planned.status.conditions {
            count(&mut census.load_balancers, condition);
            if condition.status == "False" {
                let (name, namespace) = (key.name.clone(), key.namespace.clone());
                let (kind, reason) = (condition.type_.clone(), condition.reason.clone());
                census.failing.push([namespace, name, kind, reason]);
            }
        }
    }
    for (name, planned) in &plan.pools {
        let none = Tally::default();
        let tally = tallies.get(name.as_str()).unwrap_or(&none);
        census
            .pools
            .insert(name.clone(), pool_of(world, name, planned, tally));
        for condition in planned
            .status
            .conditions
            .iter()
            .filter(|c| c.status == "False")
        {
            let (kind, reason) = (condition.type_.clone(), condition.reason.clone());
            census.failing_pools.push([name.clone(), kind, reason]);
        }
    }
    census.nodes = named(world, nodes, &announced);
    census
}

/// What the load balancers of a pool come to.
#[derive(Default)]
struct Tally {
    load_balancers: usize,
    retiring: FamilyCount,
    missing: FamilyCount,
    growth: FamilyCount,
}

impl Tally {
    fn add(&mut self, planned: &LoadBalancerPlan) {
        self.load_balancers += 1;
        let retiring = planned.slots.iter().filter(|s| s.retire_at.is_some());
        let retiring: FamilyCount = retiring
            .flat_map(|s: &SlotPlan| s.addresses.iter().map(|a| Family::of(*a)))
            .collect();
        for (sum, more) in [
            (&mut self.retiring, retiring),
            (&mut self.missing, planned.missing),
            (&mut self.growth, planned.growth),
        ] {
            sum.ipv4 += more.ipv4;
            sum.ipv6 += more.ipv6;
        }
    }
}

/// The phases of the slots of a namespace from a pool.
fn slots_of<'a>(
    slots: &'a mut BTreeMap<(String, String), Phases>,
    namespace: &str,
    pool: &str,
) -> &'a mut Phases {
    slots
        .entry((namespace.to_owned(), pool.to_owned()))
        .or_default()
}

fn count(of: &mut BTreeMap<(String, String, String), usize>, condition: &Condition) {
    let key = (
        condition.type_.clone(),
        condition.status.clone(),
        condition.reason.clone(),
    );
    *of.entry(key).or_default() += 1;
}

fn pool_of(world: &World, name: &str, planned: &super::PoolPlan, tally: &Tally) -> PoolCensus {
    let spec = world
        .pools
        .get(name)
        .and_then(Stored::valid)
        .map(|object| pool::read_spec(name, &object.spec).0);
    let mut result = PoolCensus {
        load_balancers: tally.load_balancers,
        ..PoolCensus::default()
    };
    let avoids = world
        .pools
        .get(name)
        .and_then(Stored::valid)
        .is_some_and(|object| object.spec.avoid_buggy_ips);
    for family in [Family::IPv4, Family::IPv6] {
        let of = |count: &FamilyCount| u128::from(count.of(family).unsigned_abs());
        let (all, usable) = spec.as_ref().map_or((0, 0), |spec| {
            let buggy = if avoids {
                spec.usable.count_buggy(family)
            } else {
                0
            };
            (spec.all.len(family), spec.usable.len(family) - buggy)
        });
        let held = of(&planned.status.allocated);
        let retiring = of(&tally.retiring).min(held);
        let reserved = of(&planned.status.reserved);
        let shares = Shares {
            free: usable.saturating_sub(held).saturating_sub(reserved),
            reserved,
            allocated: held - retiring,
            retiring,
            excluded: all - usable,
            missing: of(&tally.missing),
            next_node: of(&tally.growth),
        };
        if shares != Shares::default() {
            result.addresses.insert(family, shares);
        }
    }
    result
}

/// The nodes by name instead of by label value.
fn named(
    world: &World,
    nodes: HashMap<&str, NodeCensus>,
    announced: &HashMap<&str, usize>,
) -> BTreeMap<String, NodeCensus> {
    let mut nodes: HashMap<String, NodeCensus> = nodes
        .into_iter()
        .map(|(value, node)| (value.to_owned(), node))
        .collect();
    for (name, count) in announced {
        let value = names::node_value(name).into_owned();
        nodes.entry(value).or_default().announced = *count;
    }
    let mut result = BTreeMap::new();
    for node in world.nodes.values() {
        if let Some(mut numbers) = nodes.remove(&*node.value()) {
            numbers.able = ability::of_node(world, node).trouble.is_none();
            result.insert(node.name.clone(), numbers);
        }
    }
    // What is left are nodes that are no more.
    result.extend(nodes.into_iter().filter(|(value, _)| !value.is_empty()));
    result
}

#[cfg(test)]
mod tests;
