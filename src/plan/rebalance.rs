//! The moves that would even homes out: pure, for `kubectl l2lb rebalance`.
//! The planner itself never moves a slot because a better place appeared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use serde::Serialize;

use super::environment::{Environment, NodeIds, Standing};
use super::gate::{self, Gate};
use crate::api::names;
use crate::world::{Child, Key, World};

/// What is evened out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every load balancer.
    Everything,
    /// Those of one pool.
    Pool(String),
    /// One load balancer.
    LoadBalancer(Key),
}

/// A slot that gets another home. Its addresses stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its home, as a label value.
    pub from: String,
    /// Its home afterwards.
    pub to: String,
}

/// Why a slot that could have another home is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum LeftBecause {
    /// Its addresses have a MetalLB pool to themselves, which binds them to their home.
    OwnPool,
    /// It is away from home, or its home is about to go.
    Away,
    /// Its load balancer is not served.
    NotServed,
}

/// A slot that is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftAlone {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Why.
    pub why: LeftBecause,
}

/// The moves, in the order in which they can be made, and what comes of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// The moves.
    pub moves: Vec<Move>,
    /// Slots that could have another home, and are not considered.
    pub left_alone: Vec<LeftAlone>,
    /// Homes of each node now, over all load balancers.
    pub before: BTreeMap<String, usize>,
    /// Homes of each node afterwards.
    pub after: BTreeMap<String, usize>,
}

/// Computes the fewest moves after which the homes of no two nodes differ by
/// more than one, as far as selectors allow. Slots that are away from home, retire,
/// have a MetalLB pool of their own, or belong to a load balancer that is not served
/// stay, and nothing moves to a node that is lost or about to go.
pub fn rebalance(world: &World, scope: &Scope) -> Rebalance {
    let mut board = Board::read(world, scope);
    let before = board.count();
    while board.improve() {}
    Rebalance {
        moves: board.moves(),
        before,
        after: board.count(),
        left_alone: board.left_alone,
    }
}

/// A slot that may move. Nodes are numbers here.
struct Slot<'a> {
    owner: usize,
    child: &'a Child,
    /// Its home now, in the computation.
    home: usize,
}

/// A load balancer.
struct Owner {
    /// Nodes that may be home to its slots.
    nodes: Vec<usize>,
    /// Nodes that are home to one.
    homes: BTreeSet<usize>,
}

#[derive(Default)]
struct Board<'a> {
    nodes: Vec<String>,
    numbers: BTreeMap<String, usize>,
    loads: Vec<usize>,
    /// Nodes that take part, for the table.
    shown: BTreeSet<usize>,
    slots: Vec<Slot<'a>>,
    left_alone: Vec<LeftAlone>,
    /// The slots that may move, by home.
    by_home: Vec<BTreeSet<usize>>,
    owners: Vec<Owner>,
}

impl<'a> Board<'a> {
    fn read(world: &'a World, scope: &Scope) -> Self {
        let nothing = Environment::default();
        let mut environment = Environment::read(world, &nothing);
        let mut ids = NodeIds::default();
        let mut board = Self::default();
        for key in environment.order.clone() {
            let children = world
                .children
                .get(&key)
                .into_iter()
                .flat_map(|c| c.values());
            let homes: Vec<(usize, &Child)> = children
                .map(|child| (board.number(&child.home), child.as_ref()))
                .collect();
            for (home, child) in &homes {
                if is_home(child) {
                    board.loads[*home] += 1;
                }
            }
            let gate = gate::judge(world, &mut environment, &nothing, &key, &mut ids, None);
            let in_scope = match scope {
                Scope::Everything => true,
                Scope::Pool(pool) => gate.pool_name().as_ref() == Some(pool),
                Scope::LoadBalancer(one) => *one == key,
            };
            if !in_scope {
                continue;
            }
            let served = match gate {
                Gate::Open(served) => served,
                Gate::Shut { .. } => {
                    let left = homes.iter().map(|(_, child)| *child);
                    for child in left.filter(|c| is_home(c)) {
                        board.leave(child, LeftBecause::NotServed);
                    }
                    continue;
                }
                Gate::Leaving => continue,
            };
            let serving = served
                .set
                .members
                .iter()
                .filter(|m| m.standing == Standing::Serving);
            let nodes: Vec<usize> = serving.map(|m| board.number(&m.value)).collect();
            board.shown.extend(&nodes);
            let uid = served.object.metadata.uid.as_ref();
            let taken: BTreeSet<usize> = homes.iter().map(|(home, _)| *home).collect();
            let has_room = nodes.iter().any(|node| !taken.contains(node));
            for (home, child) in &homes {
                if !is_home(child) || child.owner.as_ref() != uid {
                    continue;
                }
                let why = if !is_in_shared_pool(child) {
                    Some(LeftBecause::OwnPool)
                } else if child.pin != child.home || !nodes.contains(home) {
                    Some(LeftBecause::Away)
                } else {
                    None
                };
                match why {
                    Some(why) if has_room => board.leave(child, why),
                    Some(_) => {}
                    None => {
                        board.by_home[*home].insert(board.slots.len());
                        board.slots.push(Slot {
                            owner: board.owners.len(),
                            child,
                            home: *home,
                        });
                    }
                }
            }
            board.owners.push(Owner {
                nodes,
                homes: taken,
            });
        }
        board
    }

    fn leave(&mut self, child: &Child, why: LeftBecause) {
        self.left_alone.push(LeftAlone {
            namespace: child.key.namespace.clone(),
            service: child.key.name.clone(),
            why,
        });
    }

    fn number(&mut self, node: &str) -> usize {
        if let Some(number) = self.numbers.get(node) {
            return *number;
        }
        let number = self.nodes.len();
        self.nodes.push(node.to_owned());
        self.loads.push(0);
        self.by_home.push(BTreeSet::new());
        self.numbers.insert(node.to_owned(), number);
        number
    }

    fn count(&self) -> BTreeMap<String, usize> {
        self.shown
            .iter()
            .map(|node| (self.nodes[*node].clone(), self.loads[*node]))
            .collect()
    }

    /// Moves one slot, or a chain of them, from a node with more homes to one
    /// with at least two fewer. `false` when there is none.
    fn improve(&mut self) -> bool {
        let mut sources: Vec<usize> = self.shown.iter().copied().collect();
        sources.sort_by_key(|node| (std::cmp::Reverse(self.loads[*node]), &self.nodes[*node]));
        for source in sources {
            if let Some(chain) = self.chain(source) {
                for (slot, to) in chain {
                    self.shift(slot, to);
                }
                return true;
            }
        }
        false
    }

    /// The shortest chain from a node to the reachable node with the fewest
    /// homes, if those are at least two fewer: slots, and where each goes.
    fn chain(&self, source: usize) -> Option<Vec<(usize, usize)>> {
        // How each node was reached: from which node, by which slot.
        let mut reached: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut queue = VecDeque::from([source]);
        let mut order = Vec::new();
        while let Some(node) = queue.pop_front() {
            for index in &self.by_home[node] {
                let owner = &self.owners[self.slots[*index].owner];
                for to in &owner.nodes {
                    if *to != source && !owner.homes.contains(to) && !reached.contains_key(to) {
                        reached.insert(*to, (node, *index));
                        queue.push_back(*to);
                        order.push(*to);
                    }
                }
                if order.len() + 1 >= self.shown.len() {
                    break;
                }
            }
        }
        // The first of equals has the shortest chain.
        let target = order.into_iter().min_by_key(|node| self.loads[*node])?;
        if self.loads[source] < self.loads[target] + 2 {
            return None;
        }
        let mut chain = Vec::new();
        let mut at = target;
        while at != source {
            let (from, slot) = *reached.get(&at)?;
            chain.push((slot, at));
            at = from;
        }
        Some(chain)
    }

    fn shift(&mut self, index: usize, to: usize) {
        let slot = &mut self.slots[index];
        let owner = &mut self.owners[slot.owner];
        owner.homes.remove(&slot.home);
        owner.homes.insert(to);
        self.by_home[slot.home].remove(&index);
        self.by_home[to].insert(index);
        self.loads[slot.home] -= 1;
        self.loads[to] += 1;
        slot.home = to;
    }

    /// What moved in the end, in an order in which no node is ever home to
    /// two slots of one load balancer.
    fn moves(&self) -> Vec<Move> {
        let mut left: Vec<&Slot<'_>> = self
            .slots
            .iter()
            .filter(|s| self.nodes[s.home] != s.child.home)
            .collect();
        let mut moves = Vec::with_capacity(left.len());
        loop {
            let is_blocked = |slot: &Slot<'_>| {
                left.iter().any(|other| {
                    other.owner == slot.owner && other.child.home == self.nodes[slot.home]
                })
            };
            // Those that block each other only change places: nothing is gained.
            let Some(next) = left.iter().position(|slot| !is_blocked(slot)) else {
                return moves;
            };
            let slot = left.remove(next);
            moves.push(Move {
                namespace: slot.child.key.namespace.clone(),
                service: slot.child.key.name.clone(),
                addresses: slot.child.addresses.clone(),
                from: slot.child.home.clone(),
                to: self.nodes[slot.home].clone(),
            });
        }
    }
}

/// Whether a slot counts as one of its home's.
fn is_home(child: &Child) -> bool {
    child.retire_at.is_none() && !child.terminating
}

/// Whether a slot's address comes from the pool that all share: one that has
/// a MetalLB pool of its own is bound to its node by that.
fn is_in_shared_pool(child: &Child) -> bool {
    let annotations = child.service.metadata.annotations.as_ref();
    let pool = annotations.and_then(|a| a.get(names::METALLB_POOL));
    pool == Some(&names::ip_address_pool_name(&child.pool))
}

#[cfg(test)]
mod tests;
