//! How Services ask MetalLB for what they want.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::address::Family;
use crate::api::names;
use crate::check::{Facts, Findings, Severity, title};

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings, service: &Value) {
    let annotations = &service["metadata"]["annotations"];
    prefixes(facts, found, service, annotations);
    if facts.is_metallbs(service) {
        addresses(facts, found, service, annotations);
    }
}

const NEW: &str = "metallb.io/";
const OLD: &str = "metallb.universe.tf/";

/// Annotations that this MetalLB does not read, or not for long.
fn prefixes(facts: &Facts<'_>, found: &mut Findings, service: &Value, annotations: &Value) {
    let has = |prefix: &str| {
        let steering = ["address-pool", "loadBalancerIPs", "allow-shared-ip"];
        steering
            .iter()
            .any(|key| annotations[format!("{prefix}{key}")].is_string())
    };
    // Ours carry both for as long as both may be read.
    let labels = &service["metadata"]["labels"];
    if labels[names::MANAGED_BY] == names::MANAGED_BY_VALUE {
        return;
    }
    let new = facts.world.capabilities.new_annotations;
    if has(NEW) && !has(OLD) && !new && facts.world.capabilities.installed {
        found.add(
            Severity::Warning,
            "annotations-not-read",
            title(service),
            format!(
                "its annotations have the prefix {NEW} alone, which MetalLB up to 0.14.8 does not \
                 read: it gets any address of any pool"
            ),
            format!("write them with the prefix {OLD} as well, or upgrade MetalLB"),
        );
    }
    if !has(OLD) {
        return;
    }
    let message = if has(NEW) {
        format!(
            "it has annotations of both prefixes, {NEW} and {OLD}: MetalLB reads one of them, by its version"
        )
    } else if new {
        format!(
            "it has annotations of the old prefix {OLD}: MetalLB warns at each use, and a later one may not read them"
        )
    } else {
        return;
    };
    let keep = if new { NEW } else { OLD };
    found.add(
        Severity::Warning,
        "annotation-prefixes",
        title(service),
        message,
        format!("keep those of {keep} alone"),
    );
}

/// The addresses that a Service names, beside the families that it has.
fn addresses(facts: &Facts<'_>, found: &mut Findings, service: &Value, annotations: &Value) {
    let capabilities = &facts.world.capabilities;
    let keys: &[&str] = if capabilities.installed && !capabilities.new_annotations {
        &[names::METALLB_OLD_IPS]
    } else {
        &[names::METALLB_IPS, names::METALLB_OLD_IPS]
    };
    let annotated = keys
        .iter()
        .find_map(|key| Some((*key, annotations[*key].as_str()?)));
    let annotated = annotated.filter(|(_, list)| !list.is_empty());
    let field = service["spec"]["loadBalancerIP"].as_str();
    let field = field.filter(|address| !address.is_empty());
    let list = match (annotated, field) {
        (None, None) => return,
        (Some((key, _)), Some(address)) => {
            found.add(
                Severity::Error,
                "address-named-in-two-ways",
                title(service),
                format!(
                    "it has the annotation {key} and spec.loadBalancerIP {address}: MetalLB refuses \
                     both together, even where they are the same"
                ),
                "take spec.loadBalancerIP out",
            );
            return;
        }
        (Some((_, list)), None) | (None, Some(list)) => list,
    };
    let named = list.split(',').map(|a| a.trim().parse::<IpAddr>());
    let Ok(named) = named.collect::<Result<Vec<IpAddr>, _>>() else {
        return;
    };
    let asked: BTreeSet<Family> = named.into_iter().map(Family::of).collect();
    families(found, service, list, &asked);
}

/// MetalLB gives a Service the addresses that it names only where they are of
/// each family that it has, and of no other.
fn families(found: &mut Findings, service: &Value, list: &str, asked: &BTreeSet<Family>) {
    let has = families_of(service);
    if has.is_empty() || has == *asked {
        return;
    }
    if service["spec"]["ipFamilyPolicy"] == "PreferDualStack" && asked.is_subset(&has) {
        found.add(
            Severity::Error,
            "prefer-dual-stack",
            title(service),
            format!(
                "ipFamilyPolicy is PreferDualStack, it has both families and names {list} alone: \
                 MetalLB allocates none"
            ),
            "use SingleStack, or RequireDualStack with an address of each family",
        );
        return;
    }
    let written = |families: &BTreeSet<Family>| {
        let families: Vec<&str> = families.iter().map(|f| f.as_str()).collect();
        families.join(" and ")
    };
    found.add(
        Severity::Error,
        "address-of-another-family",
        title(service),
        format!(
            "it is of {} and names {list}, which is {}: MetalLB allocates none",
            written(&has),
            written(asked)
        ),
        "name an address of each of its ipFamilies and no other, or change these",
    );
}

/// The families that a Service has: MetalLB goes by its cluster addresses.
fn families_of(service: &Value) -> BTreeSet<Family> {
    let list = |field: &str| service["spec"][field].as_array().into_iter().flatten();
    let addresses = list("clusterIPs").filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
    let by_address: BTreeSet<Family> = addresses.map(Family::of).collect();
    if !by_address.is_empty() {
        return by_address;
    }
    let listed = list("ipFamilies").filter_map(Value::as_str);
    let listed: Vec<&str> = listed.collect();
    let both = Family::BOTH.into_iter();
    both.filter(|f| listed.contains(&f.as_str())).collect()
}
