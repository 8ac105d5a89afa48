//! MetalLB's own pools: what makes its whole configuration stale, or surprises.

use std::collections::BTreeSet;

use super::{Facts, Findings, Severity, title};
use crate::address::{AddressRange, RangeSet};
use crate::plan::neighbours::metallb_ranges;
use crate::plan::pool::owned_pool;

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "metallb-pools-overlap",
        "two IPAddressPools of MetalLB overlap",
    ),
    (
        "metallb-pool-invalid",
        "MetalLB cannot parse an IPAddressPool, and refuses its whole configuration",
    ),
    (
        "metallb-pool-masked",
        "an address range of an IPAddressPool means more than is written",
    ),
    (
        "metallb-pool-holds-node",
        "an IPAddressPool of somebody else holds an address of a node",
    ),
    (
        "legacy-address-pool",
        "there are objects of MetalLB's old kind AddressPool",
    ),
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let mut seen: Vec<(&str, RangeSet)> = Vec::new();
    for (name, stored) in &facts.world.ip_address_pools {
        let about = format!("IPAddressPool {name}");
        let Some(pool) = stored.valid() else {
            found.add(
                Severity::Error,
                "metallb-pool-invalid",
                about,
                "it cannot be read",
                "correct or delete it",
            );
            continue;
        };
        let ranges = metallb_ranges(&pool.spec);
        for (other, others) in &seen {
            if let Some(range) = ranges.overlap(others) {
                found.add(
                    Severity::Error,
                    "metallb-pools-overlap",
                    &about,
                    format!(
                        "{range} is also in IPAddressPool {other}: MetalLB refuses its whole \
                         configuration, and nothing that is changed afterwards takes effect"
                    ),
                    "take the range out of one of them",
                );
            }
        }
        if owned_pool(&pool.metadata).is_none() {
            foreign(facts, found, &about, &pool.spec.addresses, &ranges);
        }
        seen.push((name, ranges));
    }
    for legacy in facts.of_kind("AddressPool") {
        found.add(
            Severity::Warning,
            "legacy-address-pool",
            title(legacy),
            "MetalLB before 0.14 reads this kind and later ones do not: its addresses overlap \
             unnoticed, or are not served",
            "write an IPAddressPool instead, and delete it",
        );
    }
}

/// What l2lb never writes.
fn foreign(
    facts: &Facts<'_>,
    found: &mut Findings,
    about: &str,
    addresses: &[String],
    ranges: &RangeSet,
) {
    let invalid = |found: &mut Findings, message: String| {
        found.add(
            Severity::Error,
            "metallb-pool-invalid",
            about,
            format!("{message}: MetalLB refuses its whole configuration"),
            "correct spec.addresses",
        );
    };
    if addresses.is_empty() {
        invalid(found, "spec.addresses is empty".to_owned());
    }
    let mut different = BTreeSet::new();
    for text in addresses {
        if !different.insert(text.as_str()) {
            invalid(found, format!("spec.addresses has {text} twice"));
        }
        match (
            AddressRange::parse(text),
            AddressRange::parse_leniently(text),
        ) {
            (Ok(_), _) => {}
            (Err(_), Ok(range)) => found.add(
                Severity::Warning,
                "metallb-pool-masked",
                about,
                format!("MetalLB reads {text} as {range}"),
                format!("write {range}, or the range that is meant"),
            ),
            (Err(error), Err(_)) => invalid(found, error.to_string()),
        }
    }
    for node in facts.world.nodes.values() {
        for address in node.addresses.iter().filter(|a| ranges.contains(**a)) {
            found.add(
                Severity::Warning,
                "metallb-pool-holds-node",
                about,
                format!(
                    "{address} is node {}'s own, and may be given to a Service",
                    node.name
                ),
                "take it out of spec.addresses",
            );
        }
    }
}
