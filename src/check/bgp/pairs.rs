//! BGPAdvertisements that MetalLB refuses together.

use std::collections::BTreeMap;

use crate::check::parser::STALE;
use crate::check::{Facts, Findings, Severity};
use crate::metallb::BgpAdvertisementSpec;
use crate::plan::neighbours::bgp::pairs::{Difference, clash};
use crate::plan::neighbours::metallb_ranges;

/// Two by which one route would have two preferences: they match a pool with
/// one aggregation length, for the same peer, from the same node.
pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    let all = world.bgp_advertisements.iter();
    let all: Vec<(&String, &BgpAdvertisementSpec)> = all
        .filter_map(|(name, stored)| Some((name, &stored.valid()?.spec)))
        .collect();
    let mut said: BTreeMap<(&String, &String), (Difference, &String)> = BTreeMap::new();
    for (pool_name, pool) in &world.ip_address_pools {
        let Some(pool) = pool.valid() else { continue };
        let labels = pool.metadata.labels.clone().unwrap_or_default();
        let ranges = metallb_ranges(&pool.spec);
        let matching = all.iter().copied();
        let matching: Vec<(&String, &BgpAdvertisementSpec)> = matching
            .filter(|(_, spec)| super::matches(spec, pool_name, &labels))
            .collect();
        for (at, &(name, spec)) in matching.iter().enumerate() {
            for &(other_name, other) in &matching[..at] {
                if let Some(what) = clash(world, other, spec, &ranges) {
                    said.entry((other_name, name)).or_insert((what, pool_name));
                }
            }
        }
    }
    for ((first, second), ((field, a, b), pool)) in said {
        found.add(
            Severity::Error,
            "bgp-advertisements-conflict",
            format!("BGPAdvertisement {second}"),
            format!(
                "its spec.{field} is {b} and that of BGPAdvertisement {first} is {a}, both are for \
                 IPAddressPool {pool}, and they have a node and a peer in common: {STALE}"
            ),
            "give both the same, or limit one of them with spec.ipAddressPools, spec.peers or \
             spec.nodeSelectors",
        );
    }
}
