//! The books of one plan: which addresses are free, how many homes and pins
//! each node has, and who would inherit from whom. What the world says is
//! read only when somebody asks, and what was decided in this plan is added.

mod heirs;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) use self::heirs::HeirCache;
use self::heirs::{Firsts, Matrix};
use super::environment::{CandidateSet, Environment, Member, NodeIds};
use super::own_pool;
use super::pool::PoolView;
use crate::address::{Family, is_buggy};
use crate::metallb::election;
use crate::world::{Child, Key, World};

/// How many free addresses are weighed against each other for one slot.
const CHOICE: usize = 64;

pub(super) struct Books<'a> {
    world: &'a World,
    environment: &'a Environment,
    ids: &'a NodeIds,
    heirs: &'a mut HeirCache,
    homes: Counts,
    pins: Counts,
    matrix: Option<Matrix>,
    /// (home, heir) of what was decided before the matrix was asked for.
    decided: Vec<(u32, u32)>,
    free: BTreeMap<(String, Family), FreeList>,
    given: HashSet<IpAddr>,
    orders: HashMap<*const CandidateSet, HashMap<String, Arc<[u32]>>>,
    /// The first two of a set of candidates in MetalLB's order for a free
    /// address. They are asked for again for every home.
    firsts: HashMap<(*const CandidateSet, IpAddr), Firsts>,
    asked: Cell<bool>,
    /// Closed books only note that they were asked.
    closed: bool,
}

#[derive(Default)]
struct Counts {
    base: Option<Vec<i64>>,
    delta: HashMap<u32, i64>,
}

impl Counts {
    fn add(&mut self, id: u32, by: i64) {
        *self.delta.entry(id).or_default() += by;
    }

    fn get(&self, id: u32) -> i64 {
        let base = self
            .base
            .as_ref()
            .and_then(|b| b.get(id as usize))
            .copied()
            .unwrap_or(0);
        base + self.delta.get(&id).copied().unwrap_or(0)
    }
}

/// Free addresses of one family of a pool, the lowest first, those freed a
/// short while ago last.
struct FreeList {
    next: Option<IpAddr>,
    exhausted: bool,
    ready: VecDeque<IpAddr>,
    /// Freed lately, the one that rested longest first.
    resting: VecDeque<IpAddr>,
}

impl<'a> Books<'a> {
    pub fn new(
        world: &'a World,
        environment: &'a Environment,
        ids: &'a NodeIds,
        heirs: &'a mut HeirCache,
    ) -> Self {
        Self {
            world,
            environment,
            ids,
            heirs,
            homes: Counts::default(),
            pins: Counts::default(),
            matrix: None,
            decided: Vec::new(),
            free: BTreeMap::new(),
            given: HashSet::new(),
            orders: HashMap::new(),
            firsts: HashMap::new(),
            asked: Cell::new(false),
            closed: false,
        }
    }

    /// Books that answer nothing: whoever asks them is planned again with
    /// open ones. To answer costs more than all the rest.
    pub fn closed(mut self) -> Self {
        self.closed = true;
        self
    }

    /// Notes that something was asked; returns whether there is no answer.
    fn is_closed(&self) -> bool {
        self.asked.set(true);
        self.closed
    }

    /// Whether anything was asked of them or noted in them.
    pub fn were_asked(&self) -> bool {
        self.asked.get()
    }

    /// Notes that a slot gets (1) or loses (-1) this home in this plan.
    pub fn note_home(&mut self, value: &str, by: i64) {
        if self.is_closed() {
            return;
        }
        if let Some(id) = self.ids.get(value) {
            self.homes.add(id, by);
        }
    }

    /// Notes that a slot moves from one pin to another in this plan.
    pub fn note_pin(&mut self, from: Option<&str>, to: &str) {
        if self.is_closed() {
            return;
        }
        for (value, by) in from.map(|f| (f, -1)).into_iter().chain([(to, 1)]) {
            if let Some(id) = self.ids.get(value) {
                self.pins.add(id, by);
            }
        }
    }

    /// Of how many slots, of all load balancers, a node is the home.
    pub fn homes(&mut self, member: &Member) -> i64 {
        if self.is_closed() {
            return 0;
        }
        if self.homes.base.is_none() {
            self.homes.base = Some(
                self.count(|child| (child.retire_at.is_none()).then_some(child.home.as_str())),
            );
        }
        self.homes.get(member.id)
    }

    /// How many slots are pinned to a node.
    pub fn pins(&mut self, member: &Member) -> i64 {
        if self.is_closed() {
            return 0;
        }
        if self.pins.base.is_none() {
            self.pins.base = Some(self.count(|child| Some(child.pin.as_str())));
        }
        self.pins.get(member.id)
    }

    fn count(&self, of: impl Fn(&Child) -> Option<&str>) -> Vec<i64> {
        let mut counts = vec![0; self.ids.len()];
        for child in self
            .world
            .children
            .values()
            .flat_map(|slots| slots.values())
        {
            let id = of(child).and_then(|v| self.ids.get(v));
            if let Some(count) = id.and_then(|id| counts.get_mut(id as usize)) {
                *count += 1;
            }
        }
        counts
    }

    /// Whether an address may be given to a slot of `load_balancer`. One that
    /// lies in a Service's own pool is for that `service` alone, until the
    /// pool is gone.
    pub fn is_free(
        &self,
        pool: &PoolView,
        address: IpAddr,
        load_balancer: &Key,
        service: Option<&Key>,
    ) -> bool {
        if self.is_closed() {
            return false;
        }
        let offered = pool.ranges.contains(address) && (!pool.avoid_buggy || !is_buggy(address));
        let taken = self.world.is_held(address)
            || self.given.contains(&address)
            || self.environment.node_addresses.contains_key(&address);
        let reserved_by_other = self
            .environment
            .reserved
            .get(&address)
            .is_some_and(|by| by != load_balancer);
        offered && !taken && !reserved_by_other && self.environment.given.yields(address, service)
    }

    /// How many addresses of a pool are in use, those given out in this plan
    /// among them.
    pub fn in_use(&self, pool: &PoolView, family: Family) -> usize {
        if self.is_closed() {
            return 0;
        }
        let new = self
            .given
            .iter()
            .copied()
            .filter(|a| !self.world.is_held(*a));
        let all = self.world.held().chain(new);
        all.filter(|a| Family::of(*a) == family && pool.ranges.contains(*a))
            .count()
    }

    /// Gives an address out: nobody else gets it in this plan.
    pub fn give(&mut self, pool: &str, address: IpAddr) {
        if self.is_closed() {
            return;
        }
        self.given.insert(address);
        if let Some(list) = self.free.get_mut(&(pool.to_owned(), Family::of(address))) {
            list.ready.retain(|a| *a != address);
            list.resting.retain(|a| *a != address);
        }
    }

    /// The first free addresses of a family, at most `limit` of those that
    /// do not rest.
    pub fn free(
        &mut self,
        pool: &PoolView,
        family: Family,
        load_balancer: &Key,
        limit: usize,
    ) -> Vec<IpAddr> {
        if self.is_closed() {
            return Vec::new();
        }
        let key = (pool.name.clone(), family);
        let mut list = self.free.remove(&key).unwrap_or_else(|| {
            let mut resting: Vec<_> = self
                .world
                .freed
                .iter()
                .filter(|(a, _)| Family::of(**a) == family && pool.ranges.contains(**a))
                .map(|(address, at)| (*at, *address))
                .collect();
            resting.sort_unstable();
            FreeList {
                next: None,
                exhausted: false,
                ready: VecDeque::new(),
                resting: resting.into_iter().map(|(_, a)| a).collect(),
            }
        });
        if list.ready.len() < limit && !list.exhausted {
            let mut last = None;
            for address in pool.ranges.iter(family, list.next) {
                if Some(address) == list.next {
                    continue;
                }
                last = Some(address);
                // What is reserved for one is skipped for all: the reserving
                // load balancer takes its own before it asks here.
                // Most that is not free is held: that is asked first.
                if !self.world.is_held(address)
                    && !self.environment.reserved.contains_key(&address)
                    && !self.world.freed.contains_key(&address)
                    && self.is_free(pool, address, load_balancer, None)
                {
                    list.ready.push_back(address);
                    if list.ready.len() == limit {
                        break;
                    }
                }
            }
            list.exhausted = list.ready.len() < limit;
            list.next = last.or(list.next);
        }
        let mut found: Vec<_> = list.ready.iter().copied().take(limit).collect();
        if found.is_empty() {
            found = list
                .resting
                .iter()
                .copied()
                .filter(|a| self.is_free(pool, *a, load_balancer, None))
                .take(limit)
                .collect();
        }
        self.free.insert(key, list);
        found
    }

    /// Chooses one free address of each family for a slot with this home, so
    /// that the homes' heirs by MetalLB's own order are spread evenly.
    /// `fixed` are addresses that the slot has already.
    ///
    /// # Errors
    /// The families that the pool has no free address of.
    pub fn choose(
        &mut self,
        pool: &PoolView,
        families: &[Family],
        fixed: &[IpAddr],
        home: &str,
        set: &CandidateSet,
        load_balancer: &Key,
    ) -> Result<Vec<IpAddr>, Vec<Family>> {
        if self.is_closed() {
            return Err(families.to_vec());
        }
        let mut lists = Vec::with_capacity(families.len());
        let mut missing = Vec::new();
        for family in families {
            let list = self.free(pool, *family, load_balancer, CHOICE);
            if list.is_empty() {
                missing.push(*family);
            }
            lists.push(list);
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let combine = |picks: &[usize]| -> Vec<IpAddr> {
            let mut all = fixed.to_vec();
            all.extend(lists.iter().zip(picks).map(|(list, pick)| list[*pick]));
            all
        };
        let mut picks = vec![0; lists.len()];
        let mut best = (u32::MAX, picks.clone(), None);
        let others = || set.members.iter().filter(|m| &*m.value != home);
        if let (Some(home_id), Some(_)) = (self.ids.get(home), others().next()) {
            let mut firsts = std::mem::take(&mut self.firsts);
            let matrix = self.matrix();
            let least = others()
                .map(|m| matrix.cell(home_id, m.id))
                .min()
                .unwrap_or(0);
            // Vary one family at a time; the first address by text decides.
            'search: for family in 0..lists.len() {
                let mut seen = None;
                for pick in 0..lists[family].len() {
                    picks.fill(0);
                    picks[family] = pick;
                    let all = combine(&picks);
                    let Some(deciding) = election::deciding(&all) else {
                        continue;
                    };
                    if seen == Some(deciding) {
                        continue;
                    }
                    seen = Some(deciding);
                    let heir = firsts
                        .entry((std::ptr::from_ref(set), deciding))
                        .or_insert_with(|| Firsts::of(deciding, set))
                        .heir(home_id);
                    let cell = heir.map_or(u32::MAX, |h| matrix.cell(home_id, h));
                    if cell < best.0 {
                        best = (cell, picks.clone(), heir.map(|h| (home_id, h)));
                    }
                    // One above the least keeps the spread within two, and is
                    // found many times faster than the least itself.
                    if cell <= least + 1 {
                        break 'search;
                    }
                }
            }
            self.firsts = firsts;
        }
        if let Some((home_id, heir)) = best.2 {
            self.note_heir(home_id, heir);
        }
        let chosen: Vec<IpAddr> = lists.iter().zip(&best.1).map(|(l, p)| l[*p]).collect();
        for address in &chosen {
            self.give(&pool.name, *address);
        }
        Ok(chosen)
    }

    /// Notes who inherits an address of a home when nobody steers.
    pub fn note_heir(&mut self, home: u32, heir: u32) {
        if self.is_closed() {
            return;
        }
        match &mut self.matrix {
            Some(matrix) => matrix.add(home, heir),
            None => self.decided.push((home, heir)),
        }
    }

    /// Of how many addresses of a home each of some others is the heir.
    pub fn inheritances(&mut self, home: u32, others: &[&Member]) -> HashMap<u32, u32> {
        if self.is_closed() {
            return HashMap::new();
        }
        let matrix = self.matrix();
        let cell = |m: &&Member| (m.id, matrix.cell(home, m.id));
        others.iter().map(cell).collect()
    }

    /// The numbers of a set's members in the order in which MetalLB would
    /// elect them for an address.
    pub fn order(&mut self, set: &Arc<CandidateSet>, deciding: &str) -> Arc<[u32]> {
        if self.is_closed() {
            return Arc::default();
        }
        let orders = self.orders.entry(Arc::as_ptr(set)).or_default();
        if let Some(order) = orders.get(deciding) {
            return Arc::clone(order);
        }
        let order: Arc<[u32]> = own_pool::order(set, deciding)
            .iter()
            .map(|m| m.id)
            .collect();
        orders.insert(deciding.to_owned(), Arc::clone(&order));
        order
    }

    fn matrix(&mut self) -> &Matrix {
        if self.matrix.is_none() {
            let mut built = self.heirs.matrix(self.world, self.environment, self.ids);
            for (home, heir) in self.decided.drain(..) {
                built.add(home, heir);
            }
            self.matrix = Some(built);
        }
        // Built above; an empty one only stands in for the type checker.
        self.matrix.get_or_insert_default()
    }
}
