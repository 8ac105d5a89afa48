//! The addresses of one slot: those that it has, else those that it had,
//! else those that its load balancer reserves, else free ones.

use std::net::IpAddr;

use super::books::Books;
use super::load_balancer::Served;
use super::own_pool;
use crate::address::Family;
use crate::api::names;
use crate::world::{Child, Key, World};

/// The addresses for a slot, one of each family in the order of the families.
///
/// # Errors
/// The families that nothing could be found for.
pub(super) fn addresses(
    world: &World,
    served: &Served,
    service: &Key,
    home: &str,
    child: Option<&Child>,
    books: &mut Books<'_>,
) -> Result<Vec<IpAddr>, Vec<Family>> {
    if let Some(kept) = child.and_then(|child| unchanged(served, child)) {
        return Ok(kept);
    }
    let mut found: Vec<(Family, IpAddr)> = Vec::with_capacity(served.families.len());
    if let Some(child) = child {
        let own = owned(world, served, child, books);
        for family in &served.families {
            found.extend(
                own.iter()
                    .find(|a| Family::of(**a) == *family)
                    .map(|a| (*family, *a)),
            );
        }
    }
    let missing: Vec<Family> = served
        .families
        .iter()
        .copied()
        .filter(|family| found.iter().all(|(f, _)| f != family))
        .collect();
    if missing.is_empty() {
        return Ok(found.into_iter().map(|(_, a)| a).collect());
    }
    if served.pool.terminating {
        return Err(missing);
    }
    // Whether MetalLB's order alone decides who stands by.
    let armed = match child {
        Some(child) => child.has_own_pool(),
        None => !world.capabilities.can_prefer(),
    };
    let mut unnamed = Vec::new();
    for family in missing {
        let of_family = |a: &IpAddr| Family::of(*a) == family;
        let had = if child.is_none() {
            remembered(served, home)
        } else {
            Vec::new()
        };
        let reserved = served
            .object
            .spec
            .addresses
            .iter()
            .filter_map(|a| a.parse().ok());
        let free = |books: &Books<'_>, a: &IpAddr| {
            of_family(a) && books.is_free(&served.pool, *a, &served.key, Some(service))
        };
        // One that MetalLB could not fail over is not taken again.
        let again = had.into_iter().find(|a| {
            free(books, a) && (!armed || own_pool::leaves_standby(books, served, home, *a))
        });
        let mut reserved = reserved.filter(|a| free(books, a));
        let named = match again {
            Some(again) => Some(again),
            None if armed => {
                let all: Vec<IpAddr> = reserved.collect();
                own_pool::best_of(books, served, home, all)
            }
            None => reserved.next(),
        };
        match named {
            Some(address) => {
                books.give(&served.pool.name, address);
                found.push((family, address));
            }
            None => unnamed.push(family),
        }
    }
    if !unnamed.is_empty() {
        let fixed: Vec<IpAddr> = found.iter().map(|(_, a)| *a).collect();
        let chosen = if armed {
            own_pool::choose(books, served, &unnamed, &fixed, home)?
        } else {
            let (pool, set) = (&served.pool, &served.set);
            books.choose(pool, &unnamed, &fixed, home, set, &served.key)?
        };
        found.extend(unnamed.into_iter().zip(chosen));
    }
    found.sort_by_key(|(family, _)| served.families.iter().position(|f| f == family));
    Ok(found.into_iter().map(|(_, a)| a).collect())
}

/// The addresses of a child at rest: it names one of each family, MetalLB has
/// given it just these, and status says so. Nearly every child is, so this is
/// seen quickly; [`owned`] comes to the same.
fn unchanged(served: &Served, child: &Child) -> Option<Vec<IpAddr>> {
    let has_one_each = child.addresses.len() == served.families.len();
    if !has_one_each || child.addresses != child.allocated {
        return None;
    }
    let before = &written(served, child)?.addresses;
    let is_written = |a: &IpAddr| before.iter().any(|text| text.parse() == Ok(*a));
    if !child.addresses.iter().all(is_written) {
        return None;
    }
    let of_family = |f: &Family| {
        child
            .addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == *f)
    };
    served.families.iter().map(of_family).collect()
}

/// The addresses that an existing child may keep. The Service is the record;
/// where somebody edited it, the status that was last written and what
/// MetalLB gave out say what was there before.
fn owned(world: &World, served: &Served, child: &Child, books: &Books<'_>) -> Vec<IpAddr> {
    let mut own = child.addresses.clone();
    let before: Vec<IpAddr> = written(served, child)
        .into_iter()
        .flat_map(|slot| &slot.addresses)
        .filter_map(|a| a.parse().ok())
        .collect();
    let edited = own.is_empty() || own.iter().any(|a| !before.contains(a));
    if edited && !before.is_empty() {
        let has = |all: &[IpAddr], family| all.iter().any(|a| Family::of(*a) == family);
        let same_families = Family::BOTH
            .into_iter()
            .all(|family| has(&own, family) == has(&before, family));
        let usable = |a: &IpAddr| {
            is_held_only_by(world, *a, &child.key)
                || books.is_free(&served.pool, *a, &served.key, Some(&child.key))
        };
        if (own.is_empty() || same_families) && before.iter().all(usable) {
            own = before;
        }
    }
    own.retain(|address| keeps(world, served, child, *address));
    own
}

/// The slot of a child in the status that was last written.
fn written<'a>(served: &'a Served, child: &Child) -> Option<&'a crate::api::SlotStatus> {
    let slots = &served.object.status.as_ref()?.slots;
    // Slots are sorted by number and seldom have gaps.
    let likely = slots
        .get(child.slot as usize)
        .filter(|s| s.service == child.key.name);
    likely.or_else(|| slots.iter().find(|s| s.service == child.key.name))
}

/// Whether a child keeps an address that it names: MetalLB gave it to it, or
/// it is in the pool and nobody else has the better claim.
fn keeps(world: &World, served: &Served, child: &Child, address: IpAddr) -> bool {
    if child.allocated.contains(&address) {
        return true;
    }
    if !served.pool.ranges.contains(address) {
        return false;
    }
    world
        .holders(address)
        .filter(|other| **other != child.key)
        .all(|other| {
            match world.child(other) {
                Some(other) => {
                    // Two children name it: MetalLB's choice, else the older one.
                    !other.allocated.contains(&address) && claim(child) < claim(other)
                }
                None => !was_given(world, other, address),
            }
        })
}

/// Whether a Service that is not ours was given an address: then MetalLB has no
/// second one of it. One that names it as an external address does not drive
/// ours off it.
fn was_given(world: &World, service: &Key, address: IpAddr) -> bool {
    let foreign = world.foreign_services.get(service);
    foreign.is_none_or(|foreign| foreign.given.contains(&address))
}

fn claim(child: &Child) -> (bool, Option<jiff::Timestamp>, &Key) {
    let created = child
        .service
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|t| t.0);
    (child.terminating, created, &child.key)
}

fn is_held_only_by(world: &World, address: IpAddr, service: &Key) -> bool {
    let mut holders = world.holders(address).peekable();
    holders.peek().is_some() && holders.all(|h| h == service)
}

/// The addresses of a home in the status that was last written: a Service
/// that was deleted by hand comes back with the same ones.
fn remembered(served: &Served, home: &str) -> Vec<IpAddr> {
    let slots = served.object.status.iter().flat_map(|s| &s.slots);
    slots
        .filter(|s| names::node_value(&s.node) == home)
        .flat_map(|s| &s.addresses)
        .filter_map(|a| a.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests;
