//! BGPAdvertisements that MetalLB refuses together.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{Family, RangeSet};
use crate::check::parser::STALE;
use crate::check::{Facts, Findings, Severity};
use crate::metallb::BgpAdvertisementSpec;
use crate::plan::neighbours::metallb_ranges;

/// Two by which one route would have two preferences: they match a pool with
/// one aggregation length, for the same peer, from the same node.
pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    let all = world.bgp_advertisements.iter();
    let all: Vec<(&String, &BgpAdvertisementSpec)> = all
        .filter_map(|(name, stored)| Some((name, &stored.valid()?.spec)))
        // Which Services they are for is not known beforehand.
        .filter(|(_, spec)| spec.service_selectors.is_empty())
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
                if let Some(what) = difference(other, spec)
                    && meet(facts, other, spec, &ranges)
                {
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

/// A field, and what the one and the other say there.
type Difference = (&'static str, i64, i64);

/// What they want differently.
fn difference(a: &BgpAdvertisementSpec, b: &BgpAdvertisementSpec) -> Option<Difference> {
    let fields = [
        ("localPref", a.local_pref, b.local_pref),
        ("asPathPrepend", a.as_path_prepend, b.as_path_prepend),
    ];
    let mut fields = fields
        .into_iter()
        .map(|(field, a, b)| (field, a.unwrap_or(0), b.unwrap_or(0)));
    fields.find(|(_, a, b)| a != b)
}

/// Whether both would send the same route of a pool to the same peer.
fn meet(
    facts: &Facts<'_>,
    a: &BgpAdvertisementSpec,
    b: &BgpAdvertisementSpec,
    ranges: &RangeSet,
) -> bool {
    let capabilities = &facts.world.capabilities;
    let length = |spec: &BgpAdvertisementSpec| spec.aggregation_length.unwrap_or(32);
    let length_v6 = |spec: &BgpAdvertisementSpec| spec.aggregation_length_v6.unwrap_or(128);
    // From 0.15 on only the families count that the pool has.
    let counts =
        |family| ranges.has(family) || (capabilities.installed && !capabilities.pool_counters);
    let same_length = (length(a) == length(b) && counts(Family::IPv4))
        || (length_v6(a) == length_v6(b) && counts(Family::IPv6));
    let share_peer = a.peers.is_empty()
        || b.peers.is_empty()
        || a.peers.iter().any(|peer| b.peers.contains(peer));
    let nodes: BTreeSet<&str> = facts.nodes_of(&a.node_selectors).into_iter().collect();
    let mut others = facts.nodes_of(&b.node_selectors).into_iter();
    same_length && share_peer && others.any(|node| nodes.contains(node))
}
