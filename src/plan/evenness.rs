//! How evenly the addresses of a pool lie on its nodes: how many homes each
//! node has, and how many addresses each would take over from another.
//!
//! Only nodes that the same load balancers select are compared with each
//! other: what a selector keeps from a node is not for the planner to even.

use std::collections::BTreeMap;

use serde::Serialize;

use super::environment::{CandidateSet, Environment, Member, Standing};
use super::load_balancer::SlotPlan;
use crate::api::condition::Verdict;
use crate::api::{ConditionType, Reason};
use crate::metallb::election;

/// The largest difference that counts as even.
pub const EVEN: usize = 2;

/// The smallest and the largest of some counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub least: usize,
    /// The largest.
    pub most: usize,
}

impl Spread {
    /// The difference.
    pub fn width(self) -> usize {
        self.most - self.least
    }

    fn of(counts: impl IntoIterator<Item = usize>) -> Self {
        let mut counts = counts.into_iter();
        let Some(first) = counts.next() else {
            return Self::default();
        };
        let start = Self {
            least: first,
            most: first,
        };
        counts.fold(start, |spread, count| Self {
            least: spread.least.min(count),
            most: spread.most.max(count),
        })
    }

    /// The wider one, of equals the first.
    fn or_wider(self, other: Self) -> Self {
        if other.width() > self.width() {
            other
        } else {
            self
        }
    }
}

/// How evenly the addresses of a pool lie on its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evenness {
    /// Slots that a node is home to, where they differ most.
    pub homes: Spread,
    /// Slots that a node takes over when `failing` fails and nobody steers.
    pub heirs: Spread,
    /// The node whose failure would be spread least evenly.
    pub failing: Option<String>,
    /// Slots that live nodes have.
    pub slots: usize,
    /// Those for which another live node stands by.
    pub standbys: usize,
}

/// What one load balancer puts on its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// The home of each slot that does not retire.
    homes: Vec<u32>,
    /// The node that each slot is pinned to, and the one that would take it over.
    heirs: Vec<(u32, Option<u32>)>,
}

impl Load {
    /// That of the slots of a load balancer.
    pub fn of(set: &CandidateSet, slots: &[SlotPlan]) -> Self {
        let mut load = Self::default();
        for slot in slots {
            if slot.retire_at.is_none() {
                load.homes.extend(set.member(&slot.home).map(|m| m.id));
            }
            let pin = set.member(&slot.pin).filter(|m| is_live(m));
            let deciding = election::deciding_address(&slot.addresses);
            if let (Some(pin), Some(deciding)) = (pin, deciding) {
                let heir = heir(set, pin, slot.has_own_pool(), &deciding);
                load.heirs.push((pin.id, heir.map(|m| m.id)));
            }
        }
        load
    }
}

/// Who takes over an address when the node that it is pinned to fails and
/// nobody steers.
pub(super) fn heir<'s>(
    set: &'s CandidateSet,
    pin: &Member,
    own: bool,
    deciding: &str,
) -> Option<&'s Member> {
    let rank = |m: &Member| election::rank(&m.name, deciding);
    let live = set.members.iter().filter(|m| is_live(m) && m.id != pin.id);
    // Without preferences only those after the pin stand by.
    live.filter(|m| !own || rank(m) > rank(pin))
        .min_by_key(|m| rank(m))
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
    let mut heirs: BTreeMap<u32, BTreeMap<u32, usize>> = BTreeMap::new();
    let mut result = Evenness::default();
    for load in loads {
        for home in &load.homes {
            *homes.entry(*home).or_default() += 1;
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
        result.homes = if first {
            spread
        } else {
            result.homes.or_wider(spread)
        };
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

impl Evenness {
    /// Condition `Even` of a pool.
    pub(super) fn verdict(&self, pool: &str) -> Verdict {
        let kind = ConditionType::Even;
        if self.slots == 0 {
            return Verdict::holds(kind, "no node has an address");
        }
        let Spread { least, most } = self.homes;
        if self.homes.width() > EVEN {
            let message = format!(
                "nodes are home to between {least} and {most} addresses each: kubectl l2lb \
                 rebalance {pool} shows what would even them out"
            );
            return Verdict::fails(kind, Reason::Uneven, message);
        }
        if self.heirs.width() > EVEN
            && let Some(failing) = &self.failing
        {
            let message = format!(
                "when {failing} fails, the other nodes take over between {} and {} of its \
                 addresses each: the pool had too few free addresses to choose from, or nodes came \
                 and went since",
                self.heirs.least, self.heirs.most
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
}
