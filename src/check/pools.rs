//! MetalLB's own pools: what makes its whole configuration stale, or surprises.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::parser::{self, STALE};
use super::{Facts, Findings, Severity, title};
use crate::address::{AddressRange, RangeSet};
use crate::metallb::ServiceAllocation;
use crate::plan::neighbours::{metallb_ranges, selects_pool};
use crate::plan::pool::owned_pool;
use crate::selector::Selector;

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
        "pool-restricts-nobody",
        "the namespaces that an IPAddressPool is for are none, which restricts nothing",
    ),
    (
        "pool-of-many-entries",
        "an IPAddressPool of somebody else has thousands of entries",
    ),
    (
        "pool-without-advertisement",
        "no advertisement is for an IPAddressPool of somebody else",
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
            advertised(facts, found, (name, &about), &pool.metadata);
            if let Some(allocation) = &pool.spec.service_allocation {
                allocated(facts, found, &about, allocation);
            }
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

/// Whether anything announces a pool. Without a speaker somebody else may do that.
fn advertised(
    facts: &Facts<'_>,
    found: &mut Findings,
    (name, about): (&str, &str),
    metadata: &ObjectMeta,
) {
    let world = facts.world;
    let labels = metadata.labels.clone().unwrap_or_default();
    let selects = |by_name: &[String], by_label: &[LabelSelector]| {
        selects_pool(by_name, by_label, name, &labels)
    };
    // What one that cannot be read is for is not known.
    let l2 = world.l2_advertisements.values().any(|a| {
        let spec = a.valid().map(|a| &a.spec);
        spec.is_none_or(|s| selects(&s.ip_address_pools, &s.ip_address_pool_selectors))
    });
    let bgp = world.bgp_advertisements.values().any(|a| {
        let spec = a.valid().map(|a| &a.spec);
        spec.is_none_or(|s| selects(&s.ip_address_pools, &s.ip_address_pool_selectors))
    });
    if l2 || bgp || world.speakers.running().next().is_none() {
        return;
    }
    found.add(
        Severity::Warning,
        "pool-without-advertisement",
        about,
        "no L2Advertisement and no BGPAdvertisement is for it: Services get addresses from it, and \
         MetalLB announces none of them",
        format!(
            "write an L2Advertisement with spec.ipAddressPools [{name}], unless somebody else \
             announces them"
        ),
    );
}

/// From how many entries on MetalLB is slowed down noticeably: 0.15 s for 3,000.
const MANY: usize = 2_000;

/// For whom a pool of somebody else is.
fn allocated(facts: &Facts<'_>, found: &mut Findings, about: &str, allocation: &ServiceAllocation) {
    let field = |name: &str| format!("serviceAllocation.{name}");
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(parser::twice(&field("namespaces"), &allocation.namespaces));
    for (name, list) in [
        ("namespaceSelectors", &allocation.namespace_selectors),
        ("serviceSelectors", &allocation.service_selectors),
    ] {
        wrong.extend(parser::selectors(&field(name), list));
    }
    for message in wrong {
        found.add(
            Severity::Error,
            "metallb-pool-invalid",
            about,
            format!("{message}: {STALE}"),
            "correct spec.serviceAllocation",
        );
    }
    let selectors: Vec<Selector> = allocation
        .namespace_selectors
        .iter()
        .filter_map(|s| Selector::parse(Some(s)).ok())
        .collect();
    let mut namespaces = facts.world.namespaces.values();
    let none = !selectors.is_empty()
        && allocation.namespaces.is_empty()
        && !facts.world.namespaces.is_empty()
        && !namespaces.any(|n| selectors.iter().any(|s| s.matches(&n.labels)));
    if none {
        let who = if allocation.service_selectors.is_empty() {
            "Services of every namespace may use it"
        } else {
            "Services that its serviceSelectors select may use it from every namespace"
        };
        found.add(
            Severity::Warning,
            "pool-restricts-nobody",
            about,
            format!(
                "no namespace matches spec.serviceAllocation.namespaceSelectors, and MetalLB takes an \
                 empty set for no restriction: {who}"
            ),
            "label a namespace, or list one in spec.serviceAllocation.namespaces, which keeps the \
             set from being empty",
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
    if addresses.len() >= MANY {
        found.add(
            Severity::Info,
            "pool-of-many-entries",
            about,
            format!(
                "spec.addresses has {} entries, and MetalLB parses pools in time quadratic in them: \
                 in its webhook, its controller and every speaker, at every change",
                addresses.len()
            ),
            "write ranges (first-last)",
        );
    }
    let mut different = BTreeSet::new();
    let mut each = Vec::new();
    for text in addresses {
        if !different.insert(text.as_str()) {
            invalid(found, format!("spec.addresses has {text} twice"));
            continue;
        }
        // Other than ours, its parser knows no single addresses.
        if !text.contains('-') && text.parse::<ipnet::IpNet>().is_err() {
            invalid(
                found,
                format!("spec.addresses has {text}, which is neither a CIDR nor a range"),
            );
            continue;
        }
        match (
            AddressRange::parse(text),
            AddressRange::parse_leniently(text),
        ) {
            (Ok(range), _) => each.push(range),
            (Err(_), Ok(range)) => {
                each.push(range);
                found.add(
                    Severity::Warning,
                    "metallb-pool-masked",
                    about,
                    format!("MetalLB reads {text} as {range}"),
                    format!("write {range}, or the range that is meant"),
                );
            }
            (Err(error), Err(_)) => invalid(found, error.to_string()),
        }
    }
    each.sort_unstable();
    for pair in each.windows(2) {
        if let [a, b] = pair
            && a.overlaps(b)
        {
            invalid(found, format!("in spec.addresses {a} and {b} overlap"));
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
