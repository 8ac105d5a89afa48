//! BGPAdvertisements that make MetalLB refuse its whole configuration.

use super::{Facts, Findings, Severity};
use crate::address::Family;
use crate::plan::neighbours::{judge_bgp, metallb_ranges, selects_pool};
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
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    for (pool, stored) in &world.pools {
        let Some(object) = stored.valid() else {
            continue;
        };
        let Ok(spec) = parse_spec(pool, &object.spec) else {
            continue;
        };
        if let Err((_, message)) = judge_bgp(world, pool, &spec.usable) {
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
            let selectors = &spec.ip_address_pool_selectors;
            if owned_pool(&pool.metadata).is_some()
                || !selects_pool(&spec.ip_address_pools, selectors, pool_name, &labels)
            {
                continue;
            }
            for range in metallb_ranges(&pool.spec).ranges() {
                let length = match range.family() {
                    Family::IPv4 => spec.aggregation_length.unwrap_or(32),
                    Family::IPv6 => spec.aggregation_length_v6.unwrap_or(128),
                };
                if i64::from(length) < i64::from(range.shortest_prefix()) {
                    found.add(
                        Severity::Error,
                        "bgp-breaks-metallb",
                        format!("BGPAdvertisement {name}"),
                        format!(
                            "its aggregation length {length} is shorter than /{} of {range} in \
                             IPAddressPool {pool_name}, so that MetalLB refuses its whole configuration",
                            range.shortest_prefix()
                        ),
                        "raise the aggregation length, or limit the advertisement with spec.ipAddressPools",
                    );
                }
            }
        }
    }
}
