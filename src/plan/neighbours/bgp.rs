//! BGPAdvertisements: those that would make MetalLB refuse its whole
//! configuration if a pool of ours were there.

pub(crate) mod pairs;

use super::{pool_labels, selects_pool};
use crate::address::{Family, RangeSet};
use crate::api::{Reason, names};
use crate::metallb::BgpAdvertisementSpec;
use crate::world::World;

/// BGPAdvertisements that would make MetalLB refuse its whole configuration as
/// soon as the pool exists.
pub(crate) fn judge(world: &World, name: &str, ranges: &RangeSet) -> Result<(), (Reason, String)> {
    let refused = |message| Err((Reason::BGPAdvertisementConflict, message));
    if let (true, Some(message)) = (world.bgp_may_be_native(), forbids_ipv6(world, name, ranges)) {
        return refused(message);
    }
    forbids_prefixes(world, name, ranges)
        .or_else(|| forbids_pairs(world, name, ranges))
        .map_or(Ok(()), refused)
}

const REMEDY: &str = "limit that advertisement to its own pools with spec.ipAddressPools";

/// Every BGPAdvertisement that can be read, and whether it matches a pool.
fn advertisements<'a>(
    world: &'a World,
    name: &str,
) -> impl Iterator<Item = (&'a String, &'a BgpAdvertisementSpec, bool)> {
    let metallb_name = names::ip_address_pool_name(name);
    let labels = pool_labels(name);
    world
        .bgp_advertisements
        .iter()
        .filter_map(move |(other, stored)| {
            let spec = &stored.valid()?.spec;
            let (pools, selectors) = (&spec.ip_address_pools, &spec.ip_address_pool_selectors);
            let matches = selects_pool(pools, selectors, &metallb_name, &labels);
            Some((other, spec, matches))
        })
}

/// Why IPv6 addresses cannot be, if MetalLB runs BGP in native mode.
pub(crate) fn forbids_ipv6(world: &World, name: &str, ranges: &RangeSet) -> Option<String> {
    if !ranges.has(Family::IPv6) {
        return None;
    }
    let any = world.capabilities.bgp_forbids_ipv6();
    advertisements(world, name).find_map(|(other, _, matches)| match matches {
        true => Some(format!(
            "BGPAdvertisement {other} matches this pool, and MetalLB in native BGP mode refuses its \
             whole configuration when it matches IPv6 addresses: {REMEDY}"
        )),
        false if any => Some(format!(
            "MetalLB before 0.14.9 in native BGP mode refuses its whole configuration when there are \
             an IPv6 pool and a BGPAdvertisement ({other}), whatever it matches: upgrade MetalLB, or \
             leave out the IPv6 addresses"
        )),
        false => None,
    })
}

/// Why a BGPAdvertisement cannot aggregate these ranges.
pub(crate) fn forbids_prefixes(world: &World, name: &str, ranges: &RangeSet) -> Option<String> {
    // Without preferences each address has a pool of its own.
    let single = world.capabilities.installed && !world.capabilities.can_prefer();
    let matching = advertisements(world, name).filter(|(_, _, matches)| *matches);
    matching
        .flat_map(|(other, spec, _)| ranges.ranges().iter().map(move |r| (other, spec, r)))
        .find_map(|(other, spec, range)| {
            let family = range.family();
            let (field, length) = match family {
                Family::IPv4 => ("aggregationLength", spec.aggregation_length),
                Family::IPv6 => ("aggregationLengthV6", spec.aggregation_length_v6),
            };
            let length = length.map_or(i64::from(family.bits()), i64::from);
            let shortest = if single {
                family.bits()
            } else {
                range.shortest_prefix()
            };
            (length < i64::from(shortest)).then(|| {
                format!(
                    "BGPAdvertisement {other} matches this pool with {field} {length}, and MetalLB \
                     refuses its whole configuration when that is shorter than a pool's prefix \
                     (/{shortest} for {range}): {REMEDY}"
                )
            })
        })
}

/// Which two BGPAdvertisements cannot both announce these ranges.
pub(crate) fn forbids_pairs(world: &World, name: &str, ranges: &RangeSet) -> Option<String> {
    if ranges.is_empty() {
        return None;
    }
    let matching = advertisements(world, name).filter(|(_, _, matches)| *matches);
    let matching: Vec<_> = matching.map(|(other, spec, _)| (other, spec)).collect();
    matching.iter().enumerate().find_map(|(at, (second, b))| {
        matching[..at].iter().find_map(|(first, a)| {
            let (field, of_a, of_b) = pairs::clash(world, a, b, ranges)?;
            Some(format!(
                "BGPAdvertisements {first} and {second} match this pool with {field} {of_a} and \
                 {of_b} and have a node and a peer in common, and MetalLB refuses its whole \
                 configuration then: {REMEDY}"
            ))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::AddressRange;
    use crate::world::observe_manifest;
    use serde_json::{Value, json};

    /// What is said of a pool's ranges beside a BGPAdvertisement.
    fn beside_bgp(version: &str, advertisement: Value, ranges: &[&str]) -> Option<String> {
        let mut world = World::default();
        world.set_capabilities(crate::metallb::Capabilities::of_version(version).unwrap());
        let advertisement = json!({"apiVersion": "metallb.io/v1beta1", "kind": "BGPAdvertisement",
            "metadata": {"name": "routed"}, "spec": advertisement});
        world.observe(observe_manifest(advertisement).unwrap().unwrap());
        let ranges: Vec<AddressRange> = ranges
            .iter()
            .map(|r| AddressRange::parse(r).unwrap())
            .collect();
        let ranges = ranges.into_iter().collect();
        judge(&world, "edge", &ranges).err().map(|(_, m)| m)
    }

    #[test]
    fn native_bgp_knows_no_ipv6() {
        let (v4, v6) = ("192.0.2.0/28", "2001:db8::/120");
        let others = || json!({"ipAddressPools": ["routed"]});
        // Up to 0.14.8 whatever the advertisement matches.
        let said = beside_bgp("0.14.8", others(), &[v4, v6]).unwrap();
        assert!(said.contains("(routed)"), "{said}");
        assert_eq!(beside_bgp("0.14.8", others(), &[v4]), None);
        for version in ["0.14.9", "0.16.2"] {
            assert_eq!(beside_bgp(version, others(), &[v4, v6]), None, "{version}");
            let said = beside_bgp(version, json!({}), &[v4, v6]).unwrap();
            assert!(said.contains("IPv6"), "{said}");
            assert_eq!(beside_bgp(version, json!({}), &[v4]), None);
        }
        // Through FRR it may, unless it is aggregated too far.
        let mut world = World::default();
        let speaker = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "speaker",
                "namespace": "metallb-system", "labels": {"component": "speaker"}},
            "spec": {"nodeName": "a", "containers": [{"name": "speaker",
                "env": [{"name": "METALLB_BGP_TYPE", "value": "frr-k8s"}]}]},
            "status": {"phase": "Running"}});
        world.observe(observe_manifest(speaker).unwrap().unwrap());
        let six = std::iter::once(AddressRange::parse(v6).unwrap()).collect();
        for (length, refused) in [(128, false), (119, true)] {
            let advertisement = json!({"apiVersion": "metallb.io/v1beta1",
                "kind": "BGPAdvertisement", "metadata": {"name": "routed"},
                "spec": {"aggregationLengthV6": length}});
            world.observe(observe_manifest(advertisement).unwrap().unwrap());
            let said = judge(&world, "edge", &six);
            assert_eq!(said.is_err(), refused, "{said:?}");
        }
    }

    /// MetalLB has no use for them together until there is a pool for both.
    #[test]
    fn one_route_has_one_preference() {
        let said = |specs: [Value; 2]| {
            let mut world = World::default();
            let mut observe = |value| world.observe(observe_manifest(value).unwrap().unwrap());
            for node in ["a", "b"] {
                observe(json!({"apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": node, "labels": {"rack": node}}}));
            }
            for (number, spec) in specs.iter().enumerate() {
                observe(
                    json!({"apiVersion": "metallb.io/v1beta1", "kind": "BGPAdvertisement",
                    "metadata": {"name": format!("bgp-{number}")}, "spec": spec}),
                );
            }
            let range = AddressRange::parse("192.0.2.0/28").unwrap();
            let judged = judge(&world, "edge", &std::iter::once(range).collect());
            judged.err().map(|(_, message)| message)
        };
        let with = |more: Value| {
            let mut spec = json!({"localPref": 200});
            let (into, more) = (spec.as_object_mut().unwrap(), more.as_object().unwrap());
            into.extend(more.clone());
            spec
        };
        let message = said([json!({}), with(json!({}))]).unwrap();
        assert!(message.contains("localPref 0 and 200"), "{message}");
        for other in [
            json!({"localPref": 0}),
            json!({"aggregationLength": 30}),
            json!({"ipAddressPools": ["routed"]}),
            json!({"serviceSelectors": [{"matchLabels": {"tier": "back"}}]}),
        ] {
            assert_eq!(said([json!({}), with(other.clone())]), None, "{other}");
        }
        let of = |rack: &str, peer: &str| {
            with(json!({"peers": [peer], "nodeSelectors": [{"matchLabels": {"rack": rack}}]}))
        };
        let one = |rack: &str, peer: &str| {
            let mut spec = of(rack, peer);
            spec["localPref"] = json!(100);
            spec
        };
        assert!(said([one("a", "x"), of("a", "x")]).is_some());
        assert_eq!(said([one("a", "x"), of("b", "x")]), None);
        assert_eq!(said([one("a", "x"), of("a", "y")]), None);
    }
}
