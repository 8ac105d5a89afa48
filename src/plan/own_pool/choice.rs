//! Which address a slot with an own pool gets: one for which MetalLB's
//! election has the home in front, and whose heirs are spread evenly.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::books::Books;
use super::super::environment::{CandidateSet, Member};
use super::super::load_balancer::Served;
use crate::address::Family;
use crate::metallb::election;

/// How many free addresses are weighed for one slot: where the order decides,
/// one of N has the home in front.
const CHOICE: usize = 512;

/// Chooses one free address of each family for a slot with this home: the
/// home as early in MetalLB's order as can be had, with the heirs spread
/// evenly. `fixed` are addresses that the slot has already.
///
/// # Errors
/// The families that the pool has no free address of.
pub(in super::super) fn choose(
    books: &mut Books<'_>,
    served: &Served,
    families: &[Family],
    fixed: &[IpAddr],
    home: &str,
) -> Result<Vec<IpAddr>, Vec<Family>> {
    let pool = &served.pool;
    let lists: Vec<Vec<IpAddr>> = families
        .iter()
        .map(|family| books.free(pool, *family, &served.key, CHOICE))
        .collect();
    let missing: Vec<Family> = families
        .iter()
        .zip(&lists)
        .filter(|(_, list)| list.is_empty())
        .map(|(family, _)| *family)
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let mut scale = Scale::new(books, &served.set, home);
    let mut best: Option<(Weight, Vec<usize>)> = None;
    // Vary one family at a time; the first address by text decides.
    'search: for family in 0..lists.len() {
        for pick in 0..lists[family].len() {
            let mut picks = vec![0; lists.len()];
            picks[family] = pick;
            let all: Vec<IpAddr> = lists.iter().zip(&picks).map(|(l, p)| l[*p]).collect();
            let all = [fixed, &all].concat();
            let weight = scale.weigh(books, &all);
            if best.as_ref().is_none_or(|(least, _)| weight < *least) {
                best = Some((weight, picks));
            }
            if weight.is_perfect() {
                break 'search;
            }
        }
    }
    let picks = best.map_or_else(|| vec![0; lists.len()], |(_, picks)| picks);
    let chosen: Vec<IpAddr> = lists.iter().zip(picks).map(|(l, p)| l[p]).collect();
    for address in &chosen {
        books.give(&pool.name, *address);
    }
    scale.note(books, &[fixed, &chosen].concat());
    Ok(chosen)
}

/// The best of some free addresses, for a home.
pub(in super::super) fn best_of(
    books: &mut Books<'_>,
    served: &Served,
    home: &str,
    among: Vec<IpAddr>,
) -> Option<IpAddr> {
    let mut scale = Scale::new(books, &served.set, home);
    among.into_iter().min_by_key(|a| scale.weigh(books, &[*a]))
}

/// Whether an address leaves a home a standby, if there is any other node.
pub(in super::super) fn leaves_standby(
    books: &mut Books<'_>,
    served: &Served,
    home: &str,
    address: IpAddr,
) -> bool {
    let alone = Scale::new(books, &served.set, home)
        .weigh(books, &[address])
        .alone;
    !alone || served.set.members.len() < 2
}

/// How good an address is for a home: the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    /// Nobody stands by.
    alone: bool,
    /// The heir has more than one address above the least already. One above
    /// keeps the spread within two.
    uneven: bool,
    /// How many nodes are before the home, and so cannot stand by.
    before: usize,
}

impl Weight {
    fn is_perfect(self) -> bool {
        self == Self {
            alone: false,
            uneven: false,
            before: 0,
        }
    }
}

/// Weighs addresses for one home.
struct Scale<'a> {
    set: &'a Arc<CandidateSet>,
    home: Option<u32>,
    inherited: HashMap<u32, u32>,
    least: u32,
}

impl<'a> Scale<'a> {
    fn new(books: &mut Books<'_>, set: &'a Arc<CandidateSet>, home: &str) -> Self {
        let home = set.member(home).map(|m| m.id);
        let others: Vec<&Member> = set.members.iter().filter(|m| Some(m.id) != home).collect();
        let inherited = match home {
            Some(home) => books.inheritances(home, &others),
            None => HashMap::new(),
        };
        let least = inherited.values().min().copied().unwrap_or(0);
        Self {
            set,
            home,
            inherited,
            least,
        }
    }

    fn weigh(&mut self, books: &mut Books<'_>, addresses: &[IpAddr]) -> Weight {
        let deciding = election::deciding_address(addresses).unwrap_or_default();
        let order = books.order(self.set, &deciding);
        let before = order
            .iter()
            .position(|id| Some(*id) == self.home)
            .unwrap_or(0);
        let heir = order.get(before + 1);
        let inherits = heir.map_or(0, |id| self.inherited.get(id).copied().unwrap_or(0));
        Weight {
            alone: heir.is_none(),
            uneven: inherits > self.least + 1,
            before,
        }
    }

    fn note(&self, books: &mut Books<'_>, addresses: &[IpAddr]) {
        let deciding = election::deciding_address(addresses).unwrap_or_default();
        let order = books.order(self.set, &deciding);
        let at = order.iter().position(|id| Some(*id) == self.home);
        if let (Some(home), Some(heir)) = (self.home, at.and_then(|at| order.get(at + 1))) {
            books.note_heir(home, *heir);
        }
    }
}
