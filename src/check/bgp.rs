//! BGPAdvertisements that make MetalLB refuse its whole configuration.

mod pairs;
pub(super) mod parser;

use std::collections::BTreeMap;

use super::parser::STALE;
use super::{Facts, Findings, Severity};
use crate::address::{AddressRange, Family};
use crate::metallb::{BgpAdvertisementSpec, IpAddressPoolSpec};
use crate::plan::neighbours::{bgp, metallb_ranges, selects_pool};
use crate::plan::pool::{owned_pool, parse_spec};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "bgp-breaks-pool",
        "a BGPAdvertisement and a pool of l2lb cannot be together",
    ),
    (
        "bgp-breaks-metallb",
        "a BGPAdvertisement is shorter than a pool of MetalLB's",
    ),
    (
        "bgp-advertisements-conflict",
        "two BGPAdvertisements announce a pool with different preferences",
    ),
    (
        "bgp-matches-ipv6",
        "a BGPAdvertisement and IPv6 addresses, which MetalLB in native BGP mode refuses",
    ),
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    ipv6(facts, found);
    for (pool, stored) in &world.pools {
        let Some(object) = stored.valid() else {
            continue;
        };
        let Ok(spec) = parse_spec(pool, &object.spec) else {
            continue;
        };
        if let Err((_, message)) = bgp::judge(world, pool, &spec.usable) {
            let (message, remedy) = message
                .rsplit_once(": ")
                .unwrap_or((&message, "limit the advertisement with spec.ipAddressPools"));
            let about = format!("L2AddressPool {pool}");
            found.add(Severity::Error, "bgp-breaks-pool", about, message, remedy);
        }
    }
    for (name, stored) in &world.bgp_advertisements {
        let Some(advertisement) = stored.valid() else {
            continue;
        };
        let spec = &advertisement.spec;
        for (pool_name, pool) in &world.ip_address_pools {
            let Some(pool) = pool.valid() else { continue };
            let labels = pool.metadata.labels.clone().unwrap_or_default();
            if owned_pool(&pool.metadata).is_none() && matches(spec, pool_name, &labels) {
                lengths(found, (name, spec), (pool_name, &pool.spec));
            }
        }
    }
    pairs::check(facts, found);
}

/// Whether a BGPAdvertisement is for a pool.
fn matches(spec: &BgpAdvertisementSpec, pool: &str, labels: &BTreeMap<String, String>) -> bool {
    let selectors = &spec.ip_address_pool_selectors;
    selects_pool(&spec.ip_address_pools, selectors, pool, labels)
}

/// MetalLB compares with each entry by itself: two halves of a network are not
/// the network.
fn lengths(
    found: &mut Findings,
    (name, spec): (&str, &BgpAdvertisementSpec),
    (pool_name, pool): (&str, &IpAddressPoolSpec),
) {
    for text in &pool.addresses {
        let Ok(range) = AddressRange::parse_leniently(text) else {
            continue;
        };
        let length = match range.family() {
            Family::IPv4 => spec.aggregation_length.unwrap_or(32),
            Family::IPv6 => spec.aggregation_length_v6.unwrap_or(128),
        };
        let shortest = range.shortest_prefix();
        if i64::from(length) < i64::from(shortest) {
            found.add(
                Severity::Error,
                "bgp-breaks-metallb",
                format!("BGPAdvertisement {name}"),
                format!(
                    "its aggregation length {length} is shorter than /{shortest} of {text} in \
                     IPAddressPool {pool_name}: {STALE}"
                ),
                "raise the aggregation length, or limit the advertisement with spec.ipAddressPools",
            );
        }
    }
}

/// IPv6 pools beside BGP. Up to MetalLB 0.14.8 no matter which pools the
/// advertisement is for; what matches a pool of ours is said of that pool.
fn ipv6(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    if !world.bgp_may_be_native() {
        return;
    }
    let (severity, when) = match world.speakers.running().next() {
        Some(_) => (Severity::Error, "in native BGP mode, in which it runs,"),
        None => (Severity::Warning, "in native BGP mode"),
    };
    let old = world.capabilities.bgp_forbids_ipv6();
    for (pool_name, pool) in &world.ip_address_pools {
        let Some(pool) = pool.valid() else { continue };
        if !metallb_ranges(&pool.spec).has(Family::IPv6) {
            continue;
        }
        let labels = pool.metadata.labels.clone().unwrap_or_default();
        let matches = |spec: &BgpAdvertisementSpec| matches(spec, pool_name, &labels);
        let all = world.bgp_advertisements.iter();
        let mut readable = all.filter_map(|(name, stored)| Some((name, &stored.valid()?.spec)));
        let ours = owned_pool(&pool.metadata).is_some();
        let (message, remedy) = if let Some((name, _)) = readable.clone().find(|(_, s)| matches(s))
        {
            if ours {
                continue;
            }
            (
                format!(
                    "it has IPv6 addresses and BGPAdvertisement {name} matches it: MetalLB {when} \
                     refuses its whole configuration then"
                ),
                "limit the advertisement with spec.ipAddressPools, or run MetalLB in FRR mode",
            )
        } else if let (true, Some((name, _))) = (old, readable.next()) {
            (
                format!(
                    "it has IPv6 addresses and there is BGPAdvertisement {name}: up to 0.14.8 MetalLB \
                     {when} refuses its whole configuration then, whichever pools that is for"
                ),
                "upgrade MetalLB, run it in FRR mode, or delete the one or the other",
            )
        } else {
            continue;
        };
        let about = format!("IPAddressPool {pool_name}");
        found.add(severity, "bgp-matches-ipv6", about, message, remedy);
    }
}
