//! Two BGPAdvertisements that MetalLB refuses together, its whole configuration
//! with them: one route of a pool would have two preferences.

use std::collections::BTreeSet;

use crate::address::{Family, RangeSet};
use crate::metallb::BgpAdvertisementSpec;
use crate::plan::neighbours::nodes_of;
use crate::world::World;

/// A field, and what the one and the other say there.
pub(crate) type Difference = (&'static str, i64, i64);

/// What two that match a pool want differently, if both would send the same
/// route of it from the same node to the same peer.
pub(crate) fn clash(
    world: &World,
    a: &BgpAdvertisementSpec,
    b: &BgpAdvertisementSpec,
    ranges: &RangeSet,
) -> Option<Difference> {
    // Which Services they are for is not known beforehand.
    if !a.service_selectors.is_empty() || !b.service_selectors.is_empty() {
        return None;
    }
    difference(a, b).filter(|_| meet(world, a, b, ranges))
}

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

fn meet(
    world: &World,
    a: &BgpAdvertisementSpec,
    b: &BgpAdvertisementSpec,
    ranges: &RangeSet,
) -> bool {
    let capabilities = &world.capabilities;
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
    same_length && share_peer && {
        let nodes = nodes_of(world, &a.node_selectors).map(|node| &*node.name);
        let nodes: BTreeSet<&str> = nodes.collect();
        nodes_of(world, &b.node_selectors).any(|node| nodes.contains(&*node.name))
    }
}
