//! How evenly the addresses of a pool lie on its nodes: how many homes each
//! node has, and how many addresses each would take over from another.
//!
//! Only nodes that the same load balancers select are compared with each
//! other: what a selector keeps from a node is not for the planner to even.
//! Nor is what pods keep from it under `externalTrafficPolicy: Local`: they come
//! and go, and addresses are chosen as though each node had one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::LoadBalancerPlan;
use super::environment::{CandidateSet, Environment, Member, Standing};
use super::load_balancer::{Served, SlotPlan};
use super::pool::PoolView;
use crate::api::condition::Verdict;
use crate::api::{ConditionType, Reason};
use crate::metallb::election;
use crate::world::{Evenness, Key, Spread};

/// The largest difference that counts as even.
pub const EVEN: usize = 2;

/// What one load balancer puts on its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// The home of each slot that does not retire.
    homes: Vec<u32>,
    /// Those of them that another node could be instead.
    movable: Vec<u32>,
    /// The same, but for a MetalLB pool that the slot has for itself.
    bound: Vec<u32>,
    /// The node that each slot is pinned to, and the one that would take it over.
    heirs: Vec<(u32, Option<u32>)>,
}

impl Load {
    /// That of the slots of a load balancer.
    pub fn of(set: &CandidateSet, slots: &[SlotPlan]) -> Self {
        let mut load = Self::default();
        // Each slot has a home of its own.
        let has_room = slots.len() < set.members.len();
        for slot in slots {
            if slot.retire_at.is_none() {
                let home = set.member(&slot.home).map(|m| m.id);
                load.homes.extend(home);
                let kind = if slot.has_own_pool() {
                    &mut load.bound
                } else {
                    &mut load.movable
                };
                kind.extend(home.filter(|_| has_room));
            }
            let pin = set.member(&slot.pin).filter(|m| is_live(m));
            let deciding = election::deciding_address(&slot.addresses);
            if let (Some(pin), Some(deciding)) = (pin, deciding) {
                let own = slot.has_own_pool();
                let heir = heir(set, pin, own, &deciding, &pin.name, |_| true);
                load.heirs.push((pin.id, heir.map(|m| m.id)));
            }
        }
        load
    }
}

/// Who takes over an address when the node that has it, `holder`, fails and
/// nobody steers. Under `externalTrafficPolicy: Local` that need not be the pin.
pub(super) fn heir<'s>(
    set: &'s CandidateSet,
    pin: &Member,
    own: bool,
    deciding: &str,
    holder: &str,
    has_pod: impl Fn(&Member) -> bool,
) -> Option<&'s Member> {
    let rank = |m: &Member| election::rank(&m.name, deciding);
    let members = set.members.iter();
    let able = members.filter(|m| m.name != holder && is_live(m) && has_pod(m));
    // Without preferences only the pin and those after it are listed.
    able.filter(|m| !own || rank(m) >= rank(pin))
        .min_by_key(|m| (m.id != pin.id, rank(m)))
}

/// Remembers what each load balancer puts on its nodes, as long as its plan is
/// the same: to know who inherits, each address is hashed with every node.
#[derive(Debug, Default)]
pub(super) struct LoadCache(HashMap<Key, Remembered>);

#[derive(Debug)]
struct Remembered {
    plan: Arc<LoadBalancerPlan>,
    set: Arc<CandidateSet>,
    pool: String,
    load: Arc<Load>,
}

impl LoadCache {
    /// The pool and load of each load balancer.
    pub fn update<'a>(
        &mut self,
        planned: impl Iterator<Item = (&'a Key, &'a Served, &'a Arc<LoadBalancerPlan>)>,
    ) -> Vec<(String, Arc<Load>)> {
        let mut before = std::mem::take(&mut self.0);
        let (mut same, mut new) = (Vec::new(), Vec::new());
        for (key, served, plan) in planned {
            let known = before.remove(key).filter(|known| {
                Arc::ptr_eq(&known.plan, plan) && Arc::ptr_eq(&known.set, &served.set)
            });
            match known {
                Some(known) => same.push((key.clone(), known)),
                None => new.push((key, served, plan)),
            }
        }
        let new = new.into_par_iter().map(|(key, served, plan)| {
            let known = Remembered {
                plan: Arc::clone(plan),
                set: Arc::clone(&served.set),
                pool: served.pool.name.clone(),
                load: Arc::new(Load::of(&served.set, &plan.slots)),
            };
            (key.clone(), known)
        });
        self.0 = new.collect();
        self.0.extend(same);
        let loads = self.0.values();
        loads
            .map(|known| (known.pool.clone(), Arc::clone(&known.load)))
            .collect()
    }
}

fn is_live(member: &Member) -> bool {
    member.standing != Standing::Lost
}

/// Sums up the loads of one pool.
pub(super) fn of_pool<'a>(
    environment: &Environment,
    pool: &str,
    loads: impl IntoIterator<Item = &'a Load>,
) -> Evenness {
    let mut names: BTreeMap<u32, &str> = BTreeMap::new();
    let mut sets: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut live: BTreeMap<u32, bool> = BTreeMap::new();
    let of_this = environment
        .sets()
        .into_iter()
        .filter(|((p, _), _)| *p == pool);
    for (index, (_, set)) in of_this.enumerate() {
        for member in &set.members {
            names.insert(member.id, &member.name);
            sets.entry(member.id).or_default().push(index);
            live.insert(member.id, is_live(member));
        }
    }
    let mut groups: BTreeMap<&[usize], Vec<u32>> = BTreeMap::new();
    for (id, of) in &sets {
        groups.entry(of).or_default().push(*id);
    }
    let mut homes: BTreeMap<u32, usize> = BTreeMap::new();
    let mut movable: BTreeMap<u32, usize> = BTreeMap::new();
    let mut bound: BTreeMap<u32, usize> = BTreeMap::new();
    let mut heirs: BTreeMap<u32, BTreeMap<u32, usize>> = BTreeMap::new();
    let mut result = Evenness::default();
    for load in loads {
        for (counts, of) in [
            (&mut homes, &load.homes),
            (&mut movable, &load.movable),
            (&mut bound, &load.bound),
        ] {
            for home in of {
                *counts.entry(*home).or_default() += 1;
            }
        }
        for (pin, heir) in &load.heirs {
            result.slots += 1;
            result.standbys += usize::from(heir.is_some());
            if let Some(heir) = heir {
                *heirs.entry(*pin).or_default().entry(*heir).or_default() += 1;
            }
        }
    }
    let count = |of: &BTreeMap<u32, usize>, id: &u32| of.get(id).copied().unwrap_or(0);
    let mut first = true;
    for group in groups.values() {
        let spread = Spread::of(group.iter().map(|id| count(&homes, id)));
        if first || spread.width() > result.homes.width() {
            result.homes = spread;
            result.bound = group.iter().map(|id| count(&bound, id)).sum();
            // Where there are two more than elsewhere, a move gains something.
            result.movable = group
                .iter()
                .any(|id| count(&homes, id) > spread.least + 1 && count(&movable, id) > 0);
        }
        first = false;
    }
    // By name, so that nothing depends on the numbers of the nodes.
    let mut failing: Vec<_> = heirs.iter().collect();
    failing.sort_by_key(|(id, _)| names.get(id));
    for (dead, gains) in failing {
        for group in groups.values() {
            let survivors = group
                .iter()
                .filter(|id| *id != dead && live.get(id) == Some(&true));
            let spread = Spread::of(survivors.map(|id| count(gains, id)));
            if result.failing.is_none() || spread.width() > result.heirs.width() {
                result.heirs = spread;
                result.failing = names.get(dead).map(|n| (*n).to_owned());
            }
        }
    }
    result
}

/// Condition `Even` of a pool.
pub(super) fn verdict(evenness: &Evenness, pool: &PoolView) -> Verdict {
    let kind = ConditionType::Even;
    if evenness.slots == 0 {
        return Verdict::holds(kind, "no node has an address");
    }
    let Spread { least, most } = evenness.homes;
    if evenness.homes.width() > EVEN {
        let message = format!(
            "nodes are home to between {least} and {most} addresses each: {}",
            remedy(evenness, pool)
        );
        return Verdict::fails(kind, Reason::Uneven, message);
    }
    if evenness.heirs.width() > EVEN
        && let Some(failing) = &evenness.failing
    {
        let message = format!(
            "when {failing} fails, the other nodes take over between {} and {} of its \
             addresses each: the pool had too few free addresses to choose from, or nodes came \
             and went since",
            evenness.heirs.least, evenness.heirs.most
        );
        return Verdict::fails(kind, Reason::Uneven, message);
    }
    Verdict::holds(
        kind,
        format!(
            "nodes are home to as many addresses each, and take over as many of another's, \
             give or take {EVEN}"
        ),
    )
}

/// What can be done about homes that are uneven.
fn remedy(evenness: &Evenness, pool: &PoolView) -> String {
    let bound = evenness.bound;
    let own = "MetalLB pools of their own, from before MetalLB 0.16.2";
    if !pool.prefers {
        return "before MetalLB 0.16.2 none can move; what is made from now on goes to the nodes \
                with the fewest"
            .to_owned();
    }
    if bound > 0 && !evenness.movable {
        return format!("{bound} have {own}, and cannot move until their Services are made anew");
    }
    let command = format!(
        "kubectl l2lb rebalance {} shows what would even them out",
        pool.name
    );
    match bound {
        0 => command,
        _ => format!("{command}, but for {bound} that have {own}, and cannot move"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::Selector;

    fn set() -> CandidateSet {
        let member = |id: u32| {
            let name = format!("node-{id}");
            Member {
                value: name.as_str().into(),
                hostname: name.clone(),
                standing: Standing::Serving,
                trouble: None,
                silenced: false,
                since: None,
                id,
                name,
            }
        };
        CandidateSet {
            pool: "edge".to_owned(),
            id: String::new(),
            selector: Selector::default(),
            members: (1..=3).map(member).collect(),
            unidentifiable: Vec::new(),
        }
    }

    /// The order for this address is 1-3-2.
    #[test]
    fn heirs_are_those_whom_metallb_elects() {
        let set = set();
        let heir = |pin: &str, own: bool, holder: &str, podless: &str| {
            let pin = set.member(pin).unwrap();
            let has_pod = |m: &Member| m.name != podless;
            let heir = heir(&set, pin, own, "192.0.2.100", holder, has_pod);
            heir.map(|m| m.name.clone()).unwrap_or_default()
        };
        assert_eq!(heir("node-1", false, "node-1", ""), "node-3");
        assert_eq!(heir("node-1", false, "node-1", "node-3"), "node-2");
        // The pin comes first when another has the address, unless it has no pod.
        assert_eq!(heir("node-2", false, "node-3", ""), "node-2");
        assert_eq!(heir("node-2", false, "node-3", "node-2"), "node-1");
        assert_eq!(heir("node-2", false, "node-1", "node-2"), "node-3");
        // With a pool of its own whoever comes before the pin is not listed.
        assert_eq!(heir("node-3", true, "node-3", ""), "node-2");
        assert_eq!(heir("node-2", true, "node-2", ""), "");
    }
}
