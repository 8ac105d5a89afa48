//! Advertisements of others that reach into ours, do nothing, or are refused.

mod reach;

use std::collections::BTreeMap;

use super::parser::{self, STALE};
use super::{Facts, Findings, Severity};
use crate::metallb::L2AdvertisementSpec;
use crate::plan::neighbours::{conflicting_advertisement, shares_pool};
use crate::plan::pool::{owned_pool, parse_spec};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "advertisement-of-every-pool",
        "an L2Advertisement matches our pools, and adds its nodes to those that may announce",
    ),
    (
        "advertisement-outranks",
        "an L2Advertisement outranks or ties with the preferences of l2lb",
    ),
    (
        "metallb-advertisement-invalid",
        "MetalLB cannot parse an advertisement, and refuses its whole configuration",
    ),
    (
        "advertisement-of-no-pool",
        "an advertisement names or selects pools that do not exist",
    ),
    (
        "advertisement-of-no-node",
        "the nodeSelectors of an L2Advertisement match no node",
    ),
    (
        "advertisement-without-failover",
        "an L2Advertisement lists one node only",
    ),
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    for (name, stored) in &world.l2_advertisements {
        if owned_pool(stored.metadata()).is_some() {
            continue;
        }
        let about = format!("L2Advertisement {name}");
        let Some(object) = stored.valid() else {
            invalid(found, &about, ["it cannot be read".to_owned()]);
            continue;
        };
        invalid(found, &about, wrong(&object.spec));
        reaches(facts, found, &about, &object.spec);
        let spec = &object.spec;
        let selectors = &spec.ip_address_pool_selectors;
        reach::pools(facts, found, &about, &spec.ip_address_pools, selectors);
        reach::nodes(facts, found, (name, &about), spec);
    }
    for (name, stored) in &world.bgp_advertisements {
        let about = format!("BGPAdvertisement {name}");
        let Some(object) = stored.valid() else {
            invalid(found, &about, ["it cannot be read".to_owned()]);
            continue;
        };
        let spec = &object.spec;
        invalid(found, &about, super::bgp::parser::wrong(facts, spec));
        let selectors = &spec.ip_address_pool_selectors;
        reach::pools(facts, found, &about, &spec.ip_address_pools, selectors);
    }
    let mut outranked: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (pool, stored) in &world.pools {
        let Some(object) = stored.valid() else {
            continue;
        };
        let Ok(spec) = parse_spec(pool, &object.spec) else {
            continue;
        };
        if let Some(name) = conflicting_advertisement(world, pool, &spec.nodes) {
            outranked.entry(name).or_default().push(pool);
        }
    }
    outranked.retain(|_, _| world.capabilities.can_prefer());
    for (name, pools) in outranked {
        found.add(
            Severity::Error,
            "advertisement-outranks",
            format!("L2Advertisement {name}"),
            format!(
                "it matches {} and gives a node 100 or more, which ties with the preferences of \
                 l2lb or outranks them",
                named(&pools)
            ),
            "limit it to its own pools with spec.ipAddressPools",
        );
    }
}

/// What MetalLB's parser refuses in an L2Advertisement.
fn wrong(spec: &L2AdvertisementSpec) -> Vec<String> {
    let pools = parser::twice("ipAddressPools", &spec.ip_address_pools);
    let mut found: Vec<String> = pools.into_iter().collect();
    for (field, list) in [
        ("ipAddressPoolSelectors", &spec.ip_address_pool_selectors),
        ("nodeSelectors", &spec.node_selectors),
        ("serviceSelectors", &spec.service_selectors),
    ] {
        found.extend(parser::selectors(field, list));
    }
    // Preferences may be there twice: they add up.
    let preferred = spec.preferred_node_selectors.iter();
    found.extend(preferred.filter_map(|p| parser::bad("preferredNodeSelectors", &p.preference)));
    found
}

fn invalid(found: &mut Findings, about: &str, wrong: impl IntoIterator<Item = String>) {
    for message in wrong {
        found.add(
            Severity::Error,
            "metallb-advertisement-invalid",
            about,
            format!("{message}: {STALE}"),
            "correct or delete it",
        );
    }
}

/// Pools in a sentence.
fn named(pools: &[&str]) -> String {
    let kind = if pools.len() == 1 {
        "L2AddressPool"
    } else {
        "L2AddressPools"
    };
    format!("{kind} {}", pools.join(", "))
}

/// Whether it adds nodes to the candidates of our addresses.
fn reaches(facts: &Facts<'_>, found: &mut Findings, about: &str, spec: &L2AdvertisementSpec) {
    let world = facts.world;
    let prefers = world.capabilities.can_prefer();
    let pools = world.pools.keys().map(String::as_str);
    let reached: Vec<&str> = pools.filter(|p| shares_pool(world, spec, p)).collect();
    if reached.is_empty() {
        return;
    }
    let (severity, what) = if prefers {
        (
            Severity::Warning,
            "when every balancer node of an address is down, one of its nodes announces it",
        )
    } else {
        (
            Severity::Error,
            "before MetalLB 0.16.2 one of its nodes may win an address from its home",
        )
    };
    found.add(
        severity,
        "advertisement-of-every-pool",
        about,
        format!(
            "it matches {}, and adds its nodes to those that may announce: {what}",
            named(&reached)
        ),
        "limit it to its own pools with spec.ipAddressPools",
    );
}
