//! Do no harm: what a pool of ours would do to MetalLB's configuration and
//! to others, and what others' objects would do to it. One object that
//! MetalLB's parser rejects makes its whole configuration stale, for
//! everybody, so everything is judged as that parser would before it is sent.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::pool::owned_pool;
use crate::address::{AddressRange, Family, RangeSet};
use crate::api::{Reason, names};
use crate::selector::Selector;
use crate::world::{Stored, World};

/// Whether a pool may be given to MetalLB. `all` is its spec, `usable` what
/// is left without the exclusions, which is what MetalLB will see; `taken`
/// are the older pools.
pub(super) fn judge_pool(
    world: &World,
    name: &str,
    all: &RangeSet,
    usable: &RangeSet,
    taken: &[(String, RangeSet)],
) -> Result<(), (Reason, String)> {
    if let Some(message) = overlaps(world, name, all, usable, taken).into_iter().next() {
        return Err((Reason::AddressOverlap, message));
    }
    judge_bgp(world, name, usable)
}

/// Everything that the addresses of a pool overlap, as sentences.
pub(crate) fn overlaps(
    world: &World,
    name: &str,
    all: &RangeSet,
    usable: &RangeSet,
    taken: &[(String, RangeSet)],
) -> Vec<String> {
    let mut found = Vec::new();
    for (other, ranges) in taken {
        if let Some(range) = ranges.overlap(all) {
            found.push(format!(
                "{range} is also in the older L2AddressPool {other}: take it out of one of them"
            ));
        }
    }
    for (other, stored) in &world.ip_address_pools {
        let Stored::Valid(pool) = stored else {
            continue;
        };
        // One of ours for a pool that still exists was compared above.
        if owned_pool(&pool.metadata).is_some_and(|p| p == name || world.pools.contains_key(p)) {
            continue;
        }
        if let Some(range) = metallb_ranges(&pool.spec).overlap(usable) {
            found.push(format!(
                "{range} is also in MetalLB's IPAddressPool {other}: take it out of one of them, \
                 or list it in spec.excludedAddresses"
            ));
        }
    }
    for (cidr, ranges) in &world.service_cidrs {
        let ranges: RangeSet = ranges.iter().copied().collect();
        if let Some(range) = ranges.overlap(usable) {
            found.push(format!(
                "the addresses overlap {range}, which ServiceCIDR {cidr} uses for cluster addresses"
            ));
        }
    }
    found
}

/// The addresses of one of MetalLB's pools, as far as they can be read.
pub(crate) fn metallb_ranges(spec: &crate::metallb::IpAddressPoolSpec) -> RangeSet {
    spec.addresses
        .iter()
        .filter_map(|a| AddressRange::parse_leniently(a).ok())
        .collect()
}

/// BGPAdvertisements that match the pool and would make MetalLB refuse its
/// whole configuration as soon as the pool exists.
pub(crate) fn judge_bgp(
    world: &World,
    name: &str,
    ranges: &RangeSet,
) -> Result<(), (Reason, String)> {
    let metallb_name = names::ip_address_pool_name(name);
    let labels = pool_labels(name);
    for (other, stored) in &world.bgp_advertisements {
        let Stored::Valid(advertisement) = stored else {
            continue;
        };
        let spec = &advertisement.spec;
        if !selects_pool(
            &spec.ip_address_pools,
            &spec.ip_address_pool_selectors,
            &metallb_name,
            &labels,
        ) {
            continue;
        }
        let remedy = "limit that advertisement to its own pools with spec.ipAddressPools";
        if ranges.has(Family::IPv6) {
            return Err((
                Reason::BGPAdvertisementConflict,
                format!(
                    "BGPAdvertisement {other} matches every pool, and MetalLB in native BGP mode \
                     refuses its whole configuration when it matches IPv6 addresses: {remedy}"
                ),
            ));
        }
        let length = spec.aggregation_length.unwrap_or(32);
        for range in ranges.ranges() {
            let shortest = range.shortest_prefix();
            if i64::from(length) < i64::from(shortest) {
                return Err((
                    Reason::BGPAdvertisementConflict,
                    format!(
                        "BGPAdvertisement {other} matches every pool with aggregationLength \
                         {length}, and MetalLB refuses its whole configuration when that is \
                         shorter than a pool's prefix (/{shortest} for {range}): {remedy}"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A foreign L2Advertisement that matches the pool with preferences of its
/// own: a weight of 100 ties with ours, a repeated one outranks it.
pub(crate) fn conflicting_advertisement(world: &World, pool: &str) -> Option<String> {
    let metallb_name = names::ip_address_pool_name(pool);
    let labels = pool_labels(pool);
    world.l2_advertisements.iter().find_map(|(name, stored)| {
        let advertisement = stored.valid()?;
        let spec = &advertisement.spec;
        (owned_pool(&advertisement.metadata).is_none()
            && !spec.preferred_node_selectors.is_empty()
            && spec.service_selectors.is_empty()
            && selects_pool(
                &spec.ip_address_pools,
                &spec.ip_address_pool_selectors,
                &metallb_name,
                &labels,
            ))
        .then(|| name.clone())
    })
}

/// The labels that our IPAddressPools carry.
pub(super) fn pool_labels(pool: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            names::MANAGED_BY.to_owned(),
            names::MANAGED_BY_VALUE.to_owned(),
        ),
        (names::POOL.to_owned(), pool.to_owned()),
    ])
}

/// Whether an advertisement is for a pool: by name, by label, or because it
/// names none.
fn selects_pool(
    by_name: &[String],
    by_label: &[LabelSelector],
    name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    (by_name.is_empty() && by_label.is_empty())
        || by_name.iter().any(|n| n == name)
        || by_label
            .iter()
            .any(|s| Selector::parse(Some(s)).is_ok_and(|s| s.matches(labels)))
}
