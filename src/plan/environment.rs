//! What concerns more than one load balancer: the nodes, the pools, the sets
//! of candidate nodes, and who reserves which address.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::ability::{self, Trouble};
use super::load_balancer::earlier;
use super::own_pool::Given;
use super::pool::PoolView;
use super::{claims, dns};
use crate::api::OnCordon;
use crate::selector::Selector;
use crate::world::{Key, Node, World};

/// A node, as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeView {
    pub name: String,
    /// The name as a label value.
    pub value: Arc<str>,
    pub hostname: Option<String>,
    /// Its label `kubernetes.io/hostname` is there and no other node has the same.
    pub identifiable: bool,
    /// It is home to a slot, which it keeps when another node comes with the
    /// same `kubernetes.io/hostname`.
    pub incumbent: bool,
    pub labels: BTreeMap<String, String>,
    /// Why it cannot announce.
    pub trouble: Option<Trouble>,
    pub cordoned: bool,
    pub drained: bool,
    /// Cordoned, and MetalLB is the one that announces nothing from such a node.
    pub silenced: bool,
    /// Labelled against use by load balancers, or being deleted.
    pub excluded: bool,
    pub since: Option<Timestamp>,
}

impl NodeView {
    /// What a load balancer of a pool may expect of the node.
    pub fn standing(&self, on_cordon: OnCordon) -> Standing {
        if self.trouble.is_some() {
            Standing::Lost
        } else if self.drained
            || self.silenced
            || (self.cordoned && on_cordon == OnCordon::Handover)
        {
            Standing::Draining
        } else {
            Standing::Serving
        }
    }
}

/// What may be expected of a balancer node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It announces.
    Serving,
    /// It announces still, and is about to stop.
    Draining,
    /// It cannot announce.
    Lost,
}

/// A member of a [`CandidateSet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub name: String,
    pub value: Arc<str>,
    pub hostname: String,
    pub standing: Standing,
    /// Why it is lost.
    pub trouble: Option<Trouble>,
    /// MetalLB announces nothing from it, although it is well: it is cordoned.
    pub silenced: bool,
    pub since: Option<Timestamp>,
    /// Number of the node in the planner's tables.
    pub id: u32,
}

/// The nodes that may announce the addresses of the load balancers of one
/// pool that have one selector in common. They share advertisements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CandidateSet {
    pub pool: String,
    /// Stands for the selector in names and labels.
    pub id: String,
    /// The pool's and the load balancer's selector in one.
    pub selector: Selector,
    /// Sorted by value.
    pub members: Vec<Member>,
    /// Nodes that are selected and cannot be told apart from others, members
    /// that are home to a slot among them.
    pub unidentifiable: Vec<(String, Option<String>)>,
}

impl CandidateSet {
    pub fn member(&self, value: &str) -> Option<&Member> {
        self.members.get(self.position(value)?)
    }

    /// Where a member is among the members.
    pub fn position(&self, value: &str) -> Option<usize> {
        self.members
            .binary_search_by(|m| (*m.value).cmp(value))
            .ok()
    }
}

/// What concerns more than one load balancer.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    pub nodes: Vec<NodeView>,
    pub by_value: HashMap<Arc<str>, usize>,
    pub pools: BTreeMap<String, Arc<PoolView>>,
    /// Every load balancer, the oldest first.
    pub order: Vec<Key>,
    /// Whom an address is kept for: the one whose Service had it and went
    /// missing, else the oldest that reserves it by `spec.addresses`.
    pub reserved: HashMap<IpAddr, Key>,
    /// Who publishes a name.
    pub names: HashMap<String, Key>,
    /// Addresses of nodes, which are never given out.
    pub node_addresses: HashMap<IpAddr, String>,
    /// When a node changes its standing if nothing happens before.
    pub deadline: Option<Timestamp>,
    /// What MetalLB has of ours.
    pub given: Given,
    /// [`World::reports_announcers`], which goes through all speakers.
    pub reports_announcers: bool,
    /// A speaker runs without memberlist, of a version that announces all the same.
    pub without_memberlist: bool,
    /// By pool and the load balancers' own selector.
    sets: BTreeMap<String, BTreeMap<Selector, Arc<CandidateSet>>>,
}

impl Environment {
    /// Reads it from the world. What did not change since `previous` is the
    /// same `Arc`, by which [`super::Planner`] knows that it did not.
    pub fn read(world: &World, previous: &Self) -> Self {
        let mut deadline = None;
        let nodes = read_nodes(world, &mut deadline);
        let by_value = nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (Arc::clone(&n.value), i))
            .collect();
        let mut order: Vec<_> = world
            .load_balancers
            .iter()
            .map(|(key, lb)| (lb.metadata().creation_timestamp.clone(), key))
            .collect();
        order.sort();
        let order: Vec<Key> = order.into_iter().map(|(_, key)| key.clone()).collect();
        let node_addresses = world
            .nodes
            .values()
            .flat_map(|n| n.addresses.iter().map(|a| (*a, n.name.clone())))
            .collect();
        let pools: BTreeMap<String, Arc<PoolView>> = super::pool::read_all(world)
            .into_iter()
            .map(|view| {
                let same = previous
                    .pools
                    .get(&view.name)
                    .filter(|old| ***old == view)
                    .cloned();
                (view.name.clone(), same.unwrap_or_else(|| Arc::new(view)))
            })
            .collect();
        // What a Service had comes before what is only asked for. Where MetalLB's
        // order decides who stands by, another address may serve better.
        let comes_back = order.iter().filter(|_| world.capabilities.can_prefer());
        let comes_back = comes_back.flat_map(|key| claims::missing(world, key));
        let mut reserved = HashMap::new();
        for (address, key) in comes_back.chain(claims::reservations(world, &pools, &order)) {
            reserved.entry(address).or_insert_with(|| key.clone());
        }
        let mut names = HashMap::new();
        for (name, key) in dns::claims(world, &pools, &order) {
            names.entry(name).or_insert(key);
        }
        for pool in pools.values() {
            deadline = earlier(deadline, pool.lacking.until);
        }
        Self {
            deadline,
            nodes,
            by_value,
            pools,
            order,
            reserved,
            names,
            node_addresses,
            given: Given::read(world),
            reports_announcers: world.reports_announcers(),
            without_memberlist: !world.capabilities.needs_memberlist()
                && world.speakers.running().any(|s| !s.memberlist),
            sets: BTreeMap::new(),
        }
    }

    /// The node of a label value.
    pub fn node(&self, value: &str) -> Option<&NodeView> {
        self.by_value.get(value).map(|i| &self.nodes[*i])
    }

    /// The candidates for a load balancer of a pool with a selector of its own.
    pub fn candidates(
        &mut self,
        pool: &PoolView,
        own: &Selector,
        previous: &Self,
        ids: &mut NodeIds,
    ) -> Arc<CandidateSet> {
        let of_pool = |sets: &BTreeMap<String, BTreeMap<_, Arc<CandidateSet>>>| {
            sets.get(&pool.name)?.get(own).cloned()
        };
        if let Some(set) = of_pool(&self.sets) {
            return set;
        }
        let selector = pool.node_selector.and(own);
        let selected = self
            .nodes
            .iter()
            .filter(|n| !n.excluded && selector.matches(&n.labels));
        let selected: Vec<&NodeView> = selected.collect();
        let mut members: Vec<Member> = selected
            .iter()
            .filter(|n| n.identifiable || n.incumbent)
            .map(|n| {
                let lacks = pool.lacking.nodes.contains(&n.name);
                let trouble = n.trouble.or(lacks.then_some(Trouble::NoInterface));
                Member {
                    name: n.name.clone(),
                    value: Arc::clone(&n.value),
                    hostname: n.hostname.clone().unwrap_or_default(),
                    standing: match trouble {
                        Some(_) => Standing::Lost,
                        None => n.standing(pool.on_cordon),
                    },
                    trouble,
                    silenced: n.silenced,
                    since: n.since,
                    id: ids.id(&n.value),
                }
            })
            .collect();
        members.sort_by(|a, b| a.value.cmp(&b.value));
        let set = CandidateSet {
            pool: pool.name.clone(),
            id: selector.digest(),
            members,
            unidentifiable: selected
                .iter()
                .filter(|n| !n.identifiable)
                .map(|n| (n.name.clone(), n.hostname.clone()))
                .collect(),
            selector,
        };
        let same = of_pool(&previous.sets).filter(|old| **old == set);
        let set = same.unwrap_or_else(|| Arc::new(set));
        let of_pool = self.sets.entry(pool.name.clone()).or_default();
        of_pool.insert(own.clone(), Arc::clone(&set));
        set
    }

    /// Every set that was asked for, by pool and id: two selectors that are
    /// written differently and come to the same share one.
    pub fn sets(&self) -> BTreeMap<(&str, &str), &Arc<CandidateSet>> {
        self.sets
            .values()
            .flat_map(BTreeMap::values)
            .map(|s| ((s.pool.as_str(), s.id.as_str()), s))
            .collect()
    }

    /// Forgets the sets that nobody asks for any more.
    pub fn drop_sets_except(&mut self, wanted: &BTreeSet<(&str, &str)>) {
        for sets in self.sets.values_mut() {
            sets.retain(|_, s| wanted.contains(&(s.pool.as_str(), s.id.as_str())));
        }
        self.sets.retain(|_, sets| !sets.is_empty());
    }
}

/// Numbers for nodes that stay the same while the planner lives. Nothing is
/// ever ordered by them.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeIds(HashMap<Arc<str>, u32>);

impl NodeIds {
    pub fn id(&mut self, value: &Arc<str>) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(Arc::clone(value)).or_insert(next)
    }

    pub fn get(&self, value: &str) -> Option<u32> {
        self.0.get(value).copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn read_nodes(world: &World, deadline: &mut Option<Timestamp>) -> Vec<NodeView> {
    let mut hostnames: HashMap<&str, u32> = HashMap::new();
    for node in world.nodes.values() {
        if let Some(hostname) = node.hostname() {
            *hostnames.entry(hostname).or_default() += 1;
        }
    }
    let is_unique = |node: &Node| {
        node.hostname()
            .is_some_and(|h| hostnames.get(h) == Some(&1))
    };
    // Twins are rare.
    let homes: HashSet<&str> = if hostnames.values().all(|count| *count == 1) {
        HashSet::new()
    } else {
        let children = world.children.values().flat_map(|slots| slots.values());
        children.map(|child| child.home.as_str()).collect()
    };
    world
        .nodes
        .values()
        .map(|node| {
            let ability = ability::of_node(world, node);
            *deadline = earlier(*deadline, ability.until);
            NodeView {
                name: node.name.clone(),
                value: node.value().into(),
                hostname: node.hostname().map(str::to_owned),
                identifiable: is_unique(node),
                incumbent: node.hostname().is_some() && homes.contains(&*node.value()),
                labels: node.labels.clone(),
                trouble: ability.trouble,
                cordoned: node.cordoned,
                drained: node.drained,
                silenced: node.cordoned && world.capabilities.cordon_silences(),
                excluded: node.terminating
                    || (node.is_excluded() && !world.options.ignore_exclude_label),
                since: ability.since,
            }
        })
        .collect()
}
