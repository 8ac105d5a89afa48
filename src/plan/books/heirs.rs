//! Who would inherit from whom when nobody steers: by MetalLB's own order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rayon::prelude::*;

use crate::metallb::election;
use crate::plan::environment::{CandidateSet, Environment, NodeIds};
use crate::plan::own_pool;
use crate::world::{Child, Key, World};

/// Remembers who would inherit from whom among the Services of each load
/// balancer, as long as neither they nor any candidates change.
#[derive(Debug, Default)]
pub(in crate::plan) struct HeirCache {
    /// The sets of candidates that it was made with.
    sets: Vec<Arc<CandidateSet>>,
    /// Revision of the load balancer, and (home, heir) of its Services.
    heirs: HashMap<Key, (u64, Vec<(u32, u32)>)>,
}

impl HeirCache {
    /// Who inherits from whom among the Services that exist.
    pub(super) fn matrix(
        &mut self,
        world: &World,
        environment: &Environment,
        ids: &NodeIds,
    ) -> Matrix {
        let width = ids.len();
        let mut matrix = Matrix {
            width,
            cells: vec![0; width * width],
        };
        let sets = environment.sets();
        let Self { sets: known, heirs } = self;
        let are_known =
            sets.len() == known.len() && sets.values().zip(&*known).all(|(a, b)| Arc::ptr_eq(a, b));
        if !are_known {
            heirs.clear();
            *known = sets.values().map(|set| Arc::clone(set)).collect();
        }
        heirs.retain(|owner, _| world.children.contains_key(owner));
        let of_child = |child: &Arc<Child>| {
            let set = sets.get(&(child.pool.as_str(), child.candidates.as_str()))?;
            let home = ids.get(&child.home)?;
            let deciding = election::deciding(&child.addresses)?;
            let heir = if child.has_own_pool() {
                own_pool::heir(set, &child.home, &deciding.to_string())
            } else {
                Firsts::of(deciding, set).heir(home)
            };
            Some((home, heir?))
        };
        let revision = |owner: &Key| world.load_balancer_revision(owner);
        let is_known = |owner: &Key| {
            let then = heirs.get(owner).map(|(then, _)| *then);
            then == Some(revision(owner))
        };
        let new = world.children.iter().filter(|(owner, _)| !is_known(owner));
        let new: Vec<_> = new.collect();
        // Each address is hashed with every node.
        let found = new.into_par_iter().map(|(owner, slots)| {
            let found = slots.values().filter_map(of_child).collect();
            (owner.clone(), (revision(owner), found))
        });
        let found: Vec<_> = found.collect();
        heirs.extend(found);
        for (home, heir) in heirs.values().flat_map(|(_, found)| found) {
            matrix.add(*home, *heir);
        }
        matrix
    }
}

/// The numbers of the first two nodes that MetalLB would elect for an address.
#[derive(Clone, Copy)]
pub(super) struct Firsts(Option<u32>, Option<u32>);

impl Firsts {
    pub fn of(address: IpAddr, set: &CandidateSet) -> Self {
        let text = address.to_string();
        let mut ranked = Vec::with_capacity(set.members.len());
        ranked.extend(
            set.members
                .iter()
                .map(|m| (election::rank(&m.name, &text), m.id)),
        );
        let first = ranked.iter().min().map(|(_, id)| *id);
        let others = ranked.iter().filter(|(_, id)| Some(*id) != first);
        Self(first, others.min().map(|(_, id)| *id))
    }

    /// The first that is not the home.
    pub fn heir(self, home: u32) -> Option<u32> {
        if self.0 == Some(home) { self.1 } else { self.0 }
    }
}

/// How many addresses of each home each other node would inherit.
#[derive(Default)]
pub(super) struct Matrix {
    width: usize,
    cells: Vec<u32>,
}

impl Matrix {
    pub fn cell(&self, home: u32, heir: u32) -> u32 {
        self.cells
            .get(home as usize * self.width + heir as usize)
            .copied()
            .unwrap_or(0)
    }

    pub fn add(&mut self, home: u32, heir: u32) {
        if let Some(cell) = self
            .cells
            .get_mut(home as usize * self.width + heir as usize)
        {
            *cell += 1;
        }
    }
}
