//! Promise 1: who has which address.

use std::net::IpAddr;

use l2lb::address::{AddressRange, Family, RangeSet};
use l2lb::api::names;
use l2lb::simulate::Cluster;
use l2lb::simulate::event::DEFAULT_POOL;
use l2lb::world::{Child, Key};

/// No address twice, each family as asked, what is in use stays, and what was
/// given out since `before` was there to be given.
pub fn are_right(before: &Cluster, after: &Cluster) {
    for (address, services) in after.named() {
        assert_eq!(services.len(), 1, "{address} is named by {services:?}");
    }
    for (owner, slots) in &after.world.children {
        for child in slots.values() {
            let spec = child.service.spec.as_ref().unwrap();
            let families = spec.ip_families.as_ref().unwrap();
            assert_eq!(child.addresses.len(), families.len(), "{}", child.key);
            assert_eq!(child.addresses, child.allocated, "{}", child.key);
            match earlier(before, child) {
                Some(was) => assert_eq!(child.addresses, was.addresses, "{}", child.key),
                None => may_be_given(after, owner, child),
            }
        }
        what_is_reserved_comes_first(before, after, owner);
    }
}

/// The same Service as it was.
fn earlier<'a>(before: &'a Cluster, child: &Child) -> Option<&'a Child> {
    let was = before.world.child(&child.key)?;
    (was.service.metadata.uid == child.service.metadata.uid).then_some(&**was)
}

/// The addresses of a new Service are the pool's as it is now, nobody else's,
/// and not kept for another load balancer.
fn may_be_given(cluster: &Cluster, owner: &Key, child: &Child) {
    let offered = offered(cluster);
    for address in &child.addresses {
        let given = format!("{} was given {address}", child.key);
        assert!(offered.contains(*address), "{given}, not of the pool");
        for (service, other) in &cluster.world.foreign_services {
            let is_theirs = other.addresses.contains(address);
            assert!(!is_theirs, "{given}, which {service} has");
        }
        let kept_for = kept_for(cluster, *address);
        assert!(
            kept_for.is_none_or(|key| key == owner),
            "{given}, which is kept for {kept_for:?}"
        );
    }
}

/// A new Service has one of its load balancer's `spec.addresses`, if there was
/// one to be had.
fn what_is_reserved_comes_first(before: &Cluster, after: &Cluster, owner: &Key) {
    let Some(lb) = after.world.load_balancers.get(owner) else {
        return;
    };
    let offered = offered(after);
    let named = lb.valid().unwrap().spec.addresses.iter();
    let named: Vec<IpAddr> = named.map(|text| read(text)).collect();
    let passed_over: Vec<IpAddr> = named
        .iter()
        .copied()
        .filter(|a| offered.contains(*a) && kept_for(after, *a) == Some(owner))
        .filter(|a| is_idle(before, *a) && is_idle(after, *a))
        .collect();
    let slots = after.world.children[owner].values();
    for child in slots.filter(|child| earlier(before, child).is_none()) {
        for address in child.addresses.iter().filter(|a| !named.contains(a)) {
            let family = Family::of(*address);
            let better = passed_over.iter().find(|a| Family::of(**a) == family);
            assert_eq!(better, None, "{} was given {address}", child.key);
        }
    }
}

/// What the pool gives out now.
fn offered(cluster: &Cluster) -> RangeSet {
    let spec = &cluster.world.pools[DEFAULT_POOL].valid().unwrap().spec;
    let set = |texts: &[String]| -> RangeSet {
        let ranges = texts.iter().map(|t| AddressRange::parse(t).unwrap());
        ranges.collect()
    };
    set(&spec.addresses).minus(&set(&spec.excluded_addresses))
}

/// The oldest load balancer of the pool that names an address in `spec.addresses`.
fn kept_for(cluster: &Cluster, address: IpAddr) -> Option<&Key> {
    let all = cluster.world.load_balancers.iter();
    let those = all.filter(|(_, stored)| {
        let spec = &stored.valid().unwrap().spec;
        spec.address_pool == DEFAULT_POOL && spec.addresses.iter().any(|t| read(t) == address)
    });
    let oldest = those.min_by_key(|(_, stored)| stored.metadata().creation_timestamp.clone());
    oldest.map(|(key, _)| key)
}

/// Whether nobody has an address: no Service, and no pool that a Service had
/// for itself and that MetalLB is to forget first.
fn is_idle(cluster: &Cluster, address: IpAddr) -> bool {
    let mut own_pools = cluster
        .world
        .ip_address_pools
        .iter()
        .filter(|(name, _)| names::is_own_pool(name))
        .flat_map(|(_, stored)| &stored.valid().unwrap().spec.addresses);
    let in_own_pool = own_pools.any(|text| AddressRange::parse(text).unwrap().contains(address));
    !cluster.world.is_held(address) && !in_own_pool
}

fn read(text: &str) -> IpAddr {
    text.parse().unwrap()
}
