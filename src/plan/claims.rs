//! What load balancers claim and need not have yet: addresses by
//! `spec.addresses`, names by `spec.dns`. Whoever may create an L2LoadBalancer
//! anywhere writes there what they like, for any pool. So a claim counts against
//! others only where it could be served: its pool exists, offers what is asked
//! for, and may be used from its namespace. What a load balancer has already
//! stays its own, whatever has become of its pool or of the namespace's labels.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::pool::PoolView;
use crate::api::L2LoadBalancer;
use crate::world::{Key, Stored, World};

/// Whether a pool may be used from a namespace.
pub(super) fn admits(world: &World, pool: &PoolView, namespace: &str) -> bool {
    let Some(selector) = &pool.namespace_selector else {
        return true;
    };
    match world.namespaces.get(namespace) {
        Some(namespace) => selector.matches(&namespace.labels),
        None => selector.matches(&BTreeMap::new()),
    }
}

/// The pool that a load balancer asks for, if that exists and may be used from
/// its namespace.
pub(super) fn pool_for<'a>(
    world: &World,
    pools: &'a BTreeMap<String, Arc<PoolView>>,
    key: &Key,
    lb: &L2LoadBalancer,
) -> Option<&'a PoolView> {
    let pool = pools.get(&lb.spec.address_pool)?;
    admits(world, pool, &key.namespace).then_some(&**pool)
}

/// Those of some load balancers that can be read and are not being deleted.
pub(super) fn staying<'a>(
    world: &'a World,
    keys: &'a [Key],
) -> impl Iterator<Item = (&'a Key, &'a L2LoadBalancer)> {
    keys.iter()
        .filter_map(move |key| Some((key, stays(world, key)?)))
}

fn stays<'a>(world: &'a World, key: &Key) -> Option<&'a L2LoadBalancer> {
    let lb = world.load_balancers.get(key).and_then(Stored::valid)?;
    lb.metadata.deletion_timestamp.is_none().then_some(&**lb)
}

/// Each address with each load balancer for which `spec.addresses` reserves it.
/// `order` is the oldest first, who has it if nobody holds it.
pub(super) fn reservations<'a>(
    world: &'a World,
    pools: &'a BTreeMap<String, Arc<PoolView>>,
    order: &'a [Key],
) -> impl Iterator<Item = (IpAddr, &'a Key)> {
    let naming = staying(world, order).filter(|(_, lb)| !lb.spec.addresses.is_empty());
    naming.flat_map(move |(key, lb)| {
        let pool = pool_for(world, pools, key, lb);
        let named = lb.spec.addresses.iter().filter_map(|a| a.parse().ok());
        named
            .filter(move |a| pool.is_some_and(|p| p.offers(*a)) || has(world, key, *a))
            .map(move |a| (a, key))
    })
}

/// Whether a Service of a load balancer names or has an address.
fn has(world: &World, key: &Key, address: IpAddr) -> bool {
    let children = world.children.get(key).into_iter().flat_map(|c| c.values());
    children
        .flat_map(|child| child.addresses.iter().chain(&child.allocated))
        .any(|a| *a == address)
}

/// The addresses of a load balancer's Services that went missing, by the
/// status that was last written. Without this, a load balancer that comes
/// earlier in a plan could take them before they come back.
pub(super) fn missing<'a>(
    world: &'a World,
    key: &'a Key,
) -> impl Iterator<Item = (IpAddr, &'a Key)> {
    let status = stays(world, key).and_then(|lb| lb.status.as_ref());
    let slots = status.map_or(&[][..], |s| &s.slots);
    let children = world.children.get(key);
    // Nearly always they are all there, which is quickly seen.
    let all_there = children.is_some_and(|c| c.len() >= slots.len());
    let slots = if all_there { &[] } else { slots };
    slots
        .iter()
        .filter(move |slot| {
            let mut there = children.into_iter().flat_map(|c| c.values());
            there.all(|child| child.key.name != slot.service)
        })
        .flat_map(|slot| &slot.addresses)
        .filter_map(move |a| Some((a.parse().ok()?, key)))
}

#[cfg(test)]
mod tests;
