//! The books of one plan: which addresses are free, how many homes and pins
//! each node has, and who would inherit from whom. What the world says is
//! read only when somebody asks, and what was decided in this plan is added.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::environment::{CandidateSet, Environment, Member, NodeIds};
use super::pool::PoolView;
use crate::address::{Family, is_buggy};
use crate::metallb::election;
use crate::world::{Key, World};

/// How many free addresses are weighed against each other for one slot.
const CHOICE: usize = 64;

/// Remembers who would inherit an address of a Service, as long as neither
/// the address nor the candidates change.
#[derive(Debug, Default)]
pub(super) struct HeirCache(HashMap<Key, (String, Arc<CandidateSet>, Option<u32>)>);

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

/// How many addresses of each home each other node would inherit.
struct Matrix {
    width: usize,
    cells: Vec<u32>,
}

impl Matrix {
    fn cell(&self, home: u32, heir: u32) -> u32 {
        self.cells
            .get(home as usize * self.width + heir as usize)
            .copied()
            .unwrap_or(0)
    }

    fn add(&mut self, home: u32, heir: u32) {
        if let Some(cell) = self
            .cells
            .get_mut(home as usize * self.width + heir as usize)
        {
            *cell += 1;
        }
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
        }
    }

    /// Notes that a slot gets (1) or loses (-1) this home in this plan.
    pub fn note_home(&mut self, value: &str, by: i64) {
        if let Some(id) = self.ids.get(value) {
            self.homes.add(id, by);
        }
    }

    /// Notes that a slot moves from one pin to another in this plan.
    pub fn note_pin(&mut self, from: Option<&str>, to: &str) {
        for (value, by) in from.map(|f| (f, -1)).into_iter().chain([(to, 1)]) {
            if let Some(id) = self.ids.get(value) {
                self.pins.add(id, by);
            }
        }
    }

    /// Of how many slots, of all load balancers, a node is the home.
    pub fn homes(&mut self, member: &Member) -> i64 {
        if self.homes.base.is_none() {
            self.homes.base = Some(
                self.count(|child| (child.retire_at.is_none()).then_some(child.home.as_str())),
            );
        }
        self.homes.get(member.id)
    }

    /// How many slots are pinned to a node.
    pub fn pins(&mut self, member: &Member) -> i64 {
        if self.pins.base.is_none() {
            self.pins.base = Some(self.count(|child| Some(child.pin.as_str())));
        }
        self.pins.get(member.id)
    }

    fn count(&self, of: impl Fn(&crate::world::Child) -> Option<&str>) -> Vec<i64> {
        let mut counts = vec![0; self.ids.len()];
        for child in self
            .world
            .children
            .values()
            .flat_map(|slots| slots.values())
        {
            let id = of(child)
                .filter(|_| !child.terminating)
                .and_then(|v| self.ids.get(v));
            if let Some(count) = id.and_then(|id| counts.get_mut(id as usize)) {
                *count += 1;
            }
        }
        counts
    }

    /// Whether an address may be given to a slot of `load_balancer`.
    pub fn is_free(&self, pool: &PoolView, address: IpAddr, load_balancer: &Key) -> bool {
        let offered = pool.ranges.contains(address) && (!pool.avoid_buggy || !is_buggy(address));
        let taken = self.world.is_held(address)
            || self.given.contains(&address)
            || self.environment.node_addresses.contains_key(&address);
        let reserved_by_other = self
            .environment
            .reserved
            .get(&address)
            .is_some_and(|by| by != load_balancer);
        offered && !taken && !reserved_by_other
    }

    /// How many addresses of a pool are in use, those given out in this plan
    /// among them.
    pub fn in_use(&self, pool: &PoolView, family: Family) -> usize {
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
        self.given.insert(address);
        if let Some(list) = self.free.get_mut(&(pool.to_owned(), Family::of(address))) {
            list.ready.retain(|a| *a != address);
            list.resting.retain(|a| *a != address);
        }
    }

    /// The first free addresses of a family, at most [`CHOICE`].
    fn free(&mut self, pool: &PoolView, family: Family, load_balancer: &Key) -> Vec<IpAddr> {
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
        if list.ready.len() < CHOICE && !list.exhausted {
            let mut last = None;
            for address in pool.ranges.iter(family, list.next) {
                if Some(address) == list.next {
                    continue;
                }
                last = Some(address);
                // What is reserved for one is skipped for all: the reserving
                // load balancer takes its own before it asks here.
                if !self.environment.reserved.contains_key(&address)
                    && !self.world.freed.contains_key(&address)
                    && self.is_free(pool, address, load_balancer)
                {
                    list.ready.push_back(address);
                    if list.ready.len() == CHOICE {
                        break;
                    }
                }
            }
            list.exhausted = list.ready.len() < CHOICE;
            list.next = last.or(list.next);
        }
        let mut found: Vec<_> = list.ready.iter().copied().collect();
        if found.is_empty() {
            found = list
                .resting
                .iter()
                .copied()
                .filter(|a| self.is_free(pool, *a, load_balancer))
                .take(CHOICE)
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
        let mut lists = Vec::with_capacity(families.len());
        let mut missing = Vec::new();
        for family in families {
            let list = self.free(pool, *family, load_balancer);
            if list.is_empty() {
                missing.push(*family);
            }
            lists.push(list);
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let others: Vec<&Member> = set.members.iter().filter(|m| &*m.value != home).collect();
        let combine = |picks: &[usize]| -> Vec<IpAddr> {
            let mut all = fixed.to_vec();
            all.extend(lists.iter().zip(picks).map(|(list, pick)| list[*pick]));
            all
        };
        let mut picks = vec![0; lists.len()];
        let mut best = (u32::MAX, picks.clone(), None);
        if let (Some(home_id), false) = (self.ids.get(home), others.is_empty()) {
            let matrix = self.matrix();
            let least = others
                .iter()
                .map(|m| matrix.cell(home_id, m.id))
                .min()
                .unwrap_or(0);
            // Vary one family at a time; the first address by text decides.
            'search: for family in 0..lists.len() {
                let mut seen: Option<String> = None;
                for pick in 0..lists[family].len() {
                    picks.fill(0);
                    picks[family] = pick;
                    let Some(deciding) = election::deciding_address(&combine(&picks)) else {
                        continue;
                    };
                    if seen.as_ref() == Some(&deciding) {
                        continue;
                    }
                    let heir = heir_of(&deciding, &others);
                    seen = Some(deciding);
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
        }
        if let Some((home_id, heir)) = best.2 {
            match &mut self.matrix {
                Some(matrix) => matrix.add(home_id, heir),
                None => self.decided.push((home_id, heir)),
            }
        }
        let chosen: Vec<IpAddr> = lists.iter().zip(&best.1).map(|(l, p)| l[*p]).collect();
        for address in &chosen {
            self.give(&pool.name, *address);
        }
        Ok(chosen)
    }

    fn matrix(&mut self) -> &Matrix {
        if self.matrix.is_none() {
            let built = self.build_matrix();
            self.matrix = Some(built);
        }
        // Built above; an empty one only stands in for the type checker.
        self.matrix.get_or_insert(Matrix {
            width: 0,
            cells: Vec::new(),
        })
    }

    fn build_matrix(&mut self) -> Matrix {
        let width = self.ids.len();
        let mut matrix = Matrix {
            width,
            cells: vec![0; width * width],
        };
        let sets = self.environment.sets();
        for child in self
            .world
            .children
            .values()
            .flat_map(|slots| slots.values())
        {
            let Some(home) = self.ids.get(&child.home) else {
                continue;
            };
            let Some(set) = sets.get(&(child.pool.as_str(), child.candidates.as_str())) else {
                continue;
            };
            let cached = self.heirs.0.get(&child.key);
            let deciding = election::deciding_address(&child.addresses);
            let heir = match (cached, deciding) {
                (Some((address, for_set, heir)), Some(deciding))
                    if *address == deciding && Arc::ptr_eq(for_set, set) =>
                {
                    *heir
                }
                (_, Some(deciding)) => {
                    let others: Vec<_> = set
                        .members
                        .iter()
                        .filter(|m| *m.value != *child.home)
                        .collect();
                    let heir = heir_of(&deciding, &others);
                    self.heirs
                        .0
                        .insert(child.key.clone(), (deciding, Arc::clone(set), heir));
                    heir
                }
                (_, None) => None,
            };
            if let Some(heir) = heir {
                matrix.add(home, heir);
            }
        }
        for (home, heir) in self.decided.drain(..) {
            matrix.add(home, heir);
        }
        matrix
    }
}

fn heir_of(deciding: &str, others: &[&Member]) -> Option<u32> {
    others
        .iter()
        .min_by_key(|m| election::rank(&m.name, deciding))
        .map(|m| m.id)
}
