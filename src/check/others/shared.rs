//! Services that share an address, beside L2Advertisements for some Services.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::api::names;
use crate::check::{Facts, Findings, Severity, ingress, labels, title};
use crate::plan::neighbours::{metallb_ranges, selects_pool};
use crate::plan::pool::owned_pool;
use crate::selector::Selector;

/// From 0.16.2 on no speaker announces a Service that shares its address as
/// soon as one of the L2Advertisements for it has serviceSelectors: others
/// without them do not help.
pub(super) fn check(facts: &Facts<'_>, found: &mut Findings, service: &Value) {
    let world = facts.world;
    let annotations = &service["metadata"]["annotations"];
    let shares = names::METALLB_SHARED
        .iter()
        .any(|key| annotations[*key].is_string());
    if !shares || !world.capabilities.mutes_shared() || !facts.is_metallbs(service) {
        return;
    }
    let Some(pool) = pool_of(facts, service) else {
        return;
    };
    let stored = world.ip_address_pools.get(&pool);
    let pool_labels = stored.and_then(|p| p.metadata().labels.clone());
    let pool_labels = pool_labels.unwrap_or_default();
    let own = labels(service);
    let is_for = |by_name: &[String], by_label: &[LabelSelector], services: &[LabelSelector]| {
        let selected = |s: &LabelSelector| Selector::parse(Some(s)).is_ok_and(|s| s.matches(&own));
        selects_pool(by_name, by_label, &pool, &pool_labels)
            && (services.is_empty() || services.iter().any(selected))
    };
    let bgp = world.bgp_advertisements.values().filter_map(|a| a.valid());
    let mut bgp = bgp.map(|a| &a.spec);
    if bgp.any(|s| {
        is_for(
            &s.ip_address_pools,
            &s.ip_address_pool_selectors,
            &s.service_selectors,
        )
    }) {
        return;
    }
    let advertisements = world.l2_advertisements.iter();
    let selecting: Vec<(&str, bool)> = advertisements
        .filter_map(|(name, stored)| Some((name, stored.valid()?)))
        .filter(|(_, a)| {
            let s = &a.spec;
            !s.service_selectors.is_empty()
                && is_for(
                    &s.ip_address_pools,
                    &s.ip_address_pool_selectors,
                    &s.service_selectors,
                )
        })
        .map(|(name, a)| (name.as_str(), owned_pool(&a.metadata).is_some()))
        .collect();
    let Some((first, _)) = selecting.first() else {
        return;
    };
    let more = match selecting.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let remedy = if selecting.iter().any(|(_, ours)| *ours) {
        "take the annotation off: what l2lb makes is selected by serviceSelectors"
    } else {
        "limit spec.serviceSelectors there so that they do not select it, or take the annotation off; \
         an L2Advertisement without serviceSelectors beside it does not help"
    };
    found.add(
        Severity::Error,
        "shared-address-not-announced",
        title(service),
        format!(
            "it has the annotation allow-shared-ip, and L2Advertisement {first}{more} for its \
             IPAddressPool {pool} selects it by serviceSelectors: MetalLB does not announce it then"
        ),
        remedy,
    );
}

/// The IPAddressPool that a Service has its address from, or asks for.
fn pool_of(facts: &Facts<'_>, service: &Value) -> Option<String> {
    let annotations = &service["metadata"]["annotations"];
    let named = [
        names::METALLB_ALLOCATED,
        names::METALLB_OLD_ALLOCATED,
        names::METALLB_POOL,
        names::METALLB_OLD_POOL,
    ]
    .iter()
    .find_map(|key| annotations[*key].as_str());
    if let Some(name) = named {
        return Some(name.to_owned());
    }
    let address: IpAddr = ingress(service).next()?;
    let mut pools = facts.world.ip_address_pools.iter();
    pools
        .find(|(_, pool)| {
            pool.valid()
                .is_some_and(|p| metallb_ranges(&p.spec).contains(address))
        })
        .map(|(name, _)| name.clone())
}
