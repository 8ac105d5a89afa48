//! What MetalLB does with the Services of others, and what others do to ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use regex::Regex;
use serde_json::Value;

use super::{Facts, Findings, Severity, title};
use crate::api::{OnCordon, names};
use crate::metallb::{STATUS_NAMESPACE, STATUS_NODE, STATUS_SERVICE};
use crate::plan::neighbours::{metallb_ranges, selects_pool};
use crate::plan::pool::owned_pool;
use crate::world::{InterfaceFailure, Key, SpeakerState, World};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "shared-address-not-announced",
        "a Service that shares its address is not announced by advertisements with serviceSelectors",
    ),
    (
        "announced-twice",
        "two speakers have announced one Service for long",
    ),
    (
        "announce-failed",
        "a speaker was elected for a Service of somebody else, and lacks the interfaces",
    ),
    (
        "hostname-on-child",
        "a Service of l2lb has an annotation by which ExternalDNS publishes it",
    ),
    (
        "cordon-not-ignored",
        "onCordon: Ignore has no effect with MetalLB 0.14.9",
    ),
    (
        "alert-of-full-pools",
        "MetalLB's alert of full pools fires for pools that l2lb fills by design",
    ),
];

/// How long two speakers may announce one Service: a hand-over takes less than
/// memberlist needs to agree, about 7 s.
const HANDOVER: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    for service in facts.of_kind("Service") {
        shared(facts, found, service);
    }
    twice(facts, found);
    for failure in facts.world.interface_failures.values() {
        failed(facts, found, failure);
    }
    hostnames(facts, found);
    cordon(facts, found);
    alert(facts, found);
}

/// From 0.16 on an L2Advertisement may select Services. One that shares its
/// address with others is then announced by those without selectors alone.
fn shared(facts: &Facts<'_>, found: &mut Findings, service: &Value) {
    let world = facts.world;
    let annotations = &service["metadata"]["annotations"];
    let shares = [
        "metallb.io/allow-shared-ip",
        "metallb.universe.tf/allow-shared-ip",
    ]
    .iter()
    .any(|key| annotations[*key].as_str().is_some_and(|v| !v.is_empty()));
    if !shares || !world.capabilities.service_selectors {
        return;
    }
    let Some(pool) = pool_of(facts, service) else {
        return;
    };
    let stored = world.ip_address_pools.get(&pool);
    let labels = stored.and_then(|p| p.metadata().labels.clone());
    let labels = labels.unwrap_or_default();
    let selects = |by_name: &[String], by_label: &[LabelSelector]| {
        selects_pool(by_name, by_label, &pool, &labels)
    };
    let bgp = world.bgp_advertisements.values().filter_map(|a| a.valid());
    let advertisements = world.l2_advertisements.iter();
    let matching: Vec<(&String, bool)> = advertisements
        .filter_map(|(name, stored)| Some((name, &stored.valid()?.spec)))
        .filter(|(_, s)| selects(&s.ip_address_pools, &s.ip_address_pool_selectors))
        .map(|(name, s)| (name, s.service_selectors.is_empty()))
        .collect();
    if matching.is_empty()
        || matching.iter().any(|(_, for_all)| *for_all)
        || bgp
            .map(|a| &a.spec)
            .any(|s| selects(&s.ip_address_pools, &s.ip_address_pool_selectors))
    {
        return;
    }
    let listed: Vec<&str> = matching.iter().take(3).map(|(n, _)| n.as_str()).collect();
    let more = if matching.len() > listed.len() {
        ", ..."
    } else {
        ""
    };
    found.add(
        Severity::Error,
        "shared-address-not-announced",
        title(service),
        format!(
            "it has the annotation allow-shared-ip, and every L2Advertisement for its IPAddressPool \
             {pool} has serviceSelectors ({}{more}): MetalLB does not announce it",
            listed.join(", ")
        ),
        "write an L2Advertisement without serviceSelectors for the pool, or take the annotation off",
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
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array()?;
    let address: IpAddr = ingress
        .iter()
        .find_map(|i| i["ip"].as_str()?.parse().ok())?;
    let mut pools = facts.world.ip_address_pools.iter();
    pools
        .find(|(_, pool)| {
            pool.valid()
                .is_some_and(|p| metallb_ranges(&p.spec).contains(address))
        })
        .map(|(name, _)| name.clone())
}

/// Two speakers that do not see each other, which ServiceL2Status tells from
/// 0.16 on. What a dead node left there is not counted.
fn twice(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    if !world.reports_announcers() {
        return;
    }
    let alive = |node: &str| {
        world.nodes.get(node).is_some_and(|n| n.ready)
            && !matches!(world.speakers.on(node), SpeakerState::Away(_))
    };
    let mut announcers: BTreeMap<Key, BTreeSet<&str>> = BTreeMap::new();
    for status in facts.of_kind("ServiceL2Status") {
        let meta = &status["metadata"];
        let label = |key: &str| meta["labels"][key].as_str();
        let (Some(node), Some(service)) = (label(STATUS_NODE), label(STATUS_SERVICE)) else {
            continue;
        };
        let since: Option<Timestamp> = meta["creationTimestamp"]
            .as_str()
            .and_then(|t| t.parse().ok());
        let old = since.is_some_and(|t| facts.now().duration_since(t) > HANDOVER);
        if old && alive(node) {
            let namespace = label(STATUS_NAMESPACE).unwrap_or_default();
            let key = Key::new(namespace, service);
            announcers.entry(key).or_default().insert(node);
        }
    }
    for (service, nodes) in announcers.into_iter().filter(|(_, n)| n.len() > 1) {
        let nodes: Vec<&str> = nodes.into_iter().collect();
        found.add(
            Severity::Error,
            "announced-twice",
            format!("Service {service}"),
            format!(
                "the speakers of {} have announced it for more than {} s, each taking the others for \
                 dead: clients reach one or the other",
                nodes.join(" and "),
                HANDOVER.as_secs()
            ),
            "see that 7946/tcp and 7946/udp pass between the nodes, and that all speakers are of one \
             version",
        );
    }
}

/// Dark although MetalLB's metric says that it is announced. Ours are steered
/// elsewhere, and said of the node.
fn failed(facts: &Facts<'_>, found: &mut Findings, failure: &InterfaceFailure) {
    let world = facts.world;
    let (service, node) = (&failure.service, &failure.node);
    // Events are dated to the second.
    let announced_since = world
        .announced_since
        .get(service)
        .is_some_and(|t| t.duration_since(failure.at) > SignedDuration::from_secs(1));
    let restarted = match world.speakers.on(node) {
        SpeakerState::Running(speaker) => speaker.started.is_some_and(|s| s > failure.at),
        SpeakerState::Away(_) | SpeakerState::Unknown => false,
    };
    if !world.foreign_services.contains_key(service)
        || !world.nodes.contains_key(node)
        || announced_since
        || restarted
    {
        return;
    }
    found.add(
        Severity::Error,
        "announce-failed",
        format!("Service {service}"),
        format!(
            "node {node} was elected for it and has none of its L2Advertisements' interfaces: nobody \
             announces it, although metallb_speaker_announced says 1"
        ),
        "correct spec.interfaces of the L2Advertisement, or leave the node out by its nodeSelectors",
    );
}

/// l2lb publishes names by itself, and withdraws dead addresses.
fn hostnames(facts: &Facts<'_>, found: &mut Findings) {
    let children = facts.world.children.values().flat_map(|s| s.values());
    for child in children {
        let annotations = child.service.metadata.annotations.iter().flatten();
        for (key, value) in annotations {
            let is_name = key.starts_with("external-dns.")
                && (key.ends_with("/hostname") || key.ends_with("/internal-hostname"));
            if !is_name {
                continue;
            }
            found.add(
                Severity::Warning,
                "hostname-on-child",
                format!("Service {}", child.key),
                format!(
                    "its annotation {key} makes ExternalDNS publish {value} by itself, without regard \
                     to dead or drained nodes and to spec.dns"
                ),
                format!(
                    "kubectl annotate service -n {} {} {key}- ; use spec.dns of the L2LoadBalancer",
                    child.key.namespace, child.key.name
                ),
            );
        }
    }
}

fn cordon(facts: &Facts<'_>, found: &mut Findings) {
    if !facts.world.capabilities.cordon_silences() {
        return;
    }
    let pools = facts.world.pools.iter();
    for (name, pool) in pools.filter_map(|(name, stored)| Some((name, stored.valid()?))) {
        if pool.spec.on_cordon == OnCordon::Ignore {
            found.add(
                Severity::Warning,
                "cordon-not-ignored",
                format!("L2AddressPool {name}"),
                "onCordon is Ignore, and MetalLB 0.14.9 announces nothing from a cordoned node: its \
                 addresses go to standbys all the same",
                "upgrade MetalLB",
            );
        }
    }
}

/// MetalLB's chart has the alert, and from 0.15 on a way to leave pools out.
fn alert(facts: &Facts<'_>, found: &mut Findings) {
    const ALERT: &str = "MetalLBAddressPoolExhausted";
    let mut full = None;
    for object in facts.of_kind("PrometheusRule") {
        let groups = object["spec"]["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|g| g["rules"].as_array().into_iter().flatten());
        let mut expressions = rules
            .filter(|rule| rule["alert"] == ALERT)
            .filter_map(|rule| rule["expr"].as_str());
        let fires_for = expressions.find_map(|expression| {
            let matchers = pool_matchers(expression)?;
            let full = full.get_or_insert_with(|| full_pools(facts.world));
            full.iter()
                .find(|pool| match_pool(&matchers, pool))
                .copied()
        });
        if let Some(pool) = fires_for {
            found.add(
                Severity::Info,
                "alert-of-full-pools",
                title(object),
                format!(
                    "its alert {ALERT} fires for IPAddressPool {pool} of l2lb, which is full by \
                     design"
                ),
                format!(
                    "set prometheus.prometheusRule.addressPoolExhausted.excludePools (and that of \
                     addressPoolUsage) to {} in MetalLB's chart, which has it from 0.15 on; before, \
                     set enabled to false there; l2lb has alerts of its own",
                    names::IP_ADDRESS_POOLS
                ),
            );
        }
    }
}

/// Our IPAddressPools of which every address is in use.
fn full_pools(world: &World) -> Vec<&str> {
    let pools = world.ip_address_pools.iter();
    let full = pools.filter_map(|(name, stored)| {
        let pool = stored.valid()?;
        let ranges = metallb_ranges(&pool.spec);
        let each = ranges
            .ranges()
            .iter()
            .map(crate::address::AddressRange::len);
        let size = each.fold(0u128, u128::saturating_add);
        let used = world.held().filter(|a| ranges.contains(*a)).count();
        let is_full = u128::try_from(used).is_ok_and(|used| used == size);
        (owned_pool(&pool.metadata).is_some() && is_full).then_some(name.as_str())
    });
    full.collect()
}

/// What an expression of PromQL asks of the label `pool`: whether it shall
/// match, and what; `None` when that cannot be judged.
fn pool_matchers(expression: &str) -> Option<Vec<(bool, Regex)>> {
    let matchers = Regex::new(r#"\bpool\s*(=~|!~|!=|=)\s*["'`]([^"'`]*)["'`]"#).ok()?;
    let matchers = matchers.captures_iter(expression).map(|found| {
        let (_, [operator, value]) = found.extract();
        // In Prometheus' strings backslashes are doubled.
        let value = value.replace("\\\\", "\\");
        let pattern = if operator.ends_with('~') {
            value
        } else {
            regex::escape(&value)
        };
        // They are for the whole value.
        let pattern = Regex::new(&format!("^(?s:{pattern})$")).ok()?;
        Some((operator.starts_with('='), pattern))
    });
    matchers.collect()
}

fn match_pool(matchers: &[(bool, Regex)], pool: &str) -> bool {
    matchers
        .iter()
        .all(|(shall, pattern)| pattern.is_match(pool) == *shall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_left_out_as_prometheus_does() {
        let leaves_out = |expression: &str, pool: &str| {
            pool_matchers(expression).is_none_or(|matchers| !match_pool(&matchers, pool))
        };
        let old = "metallb_allocator_addresses_in_use_total >= on(pool) \
                   metallb_allocator_addresses_total";
        let new = |excluded: &str| {
            format!(
                "metallb_allocator_addresses_in_use_total{{pool!~\"{excluded}\"}} >= \
                 metallb_allocator_addresses_total"
            )
        };
        let own = names::own_pool_name("shop", "web-0", [203, 0, 113, 7].into());
        for pool in [names::ip_address_pool_name("edge"), own.clone()] {
            assert!(!leaves_out(old, &pool));
            // As the chart has it from 0.15 on when nothing is said.
            assert!(!leaves_out(&new(""), &pool));
            assert!(!leaves_out(&new("public"), &pool));
            assert!(leaves_out(&new(names::IP_ADDRESS_POOLS), &pool));
            let more = format!("public|{}", names::IP_ADDRESS_POOLS);
            assert!(leaves_out(&new(&more), &pool));
        }
        assert!(!leaves_out(&new(names::IP_ADDRESS_POOLS), "public"));
        assert!(!leaves_out(&new("l2lb-.*"), &own));
        assert!(leaves_out(&new(r"l2lb\\..*"), &own));
        assert!(leaves_out(r#"x{pool="public"} > 1"#, &own));
        assert!(leaves_out(r#"x{pool!="l2lb-edge"} > 1"#, "l2lb-edge"));
        assert!(leaves_out(&new("("), &own), "it cannot be judged");
    }
}
