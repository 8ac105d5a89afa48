//! Services: ours that have no address or no pod, and others in our way.

mod asks;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::SignedDuration;
use serde_json::Value;

use super::{Facts, Findings, Severity, ingress, name, title};
use crate::address::is_buggy;
use crate::api::names;
use crate::plan::neighbours::metallb_ranges;
use crate::plan::pool::parse_spec;
use crate::world::{Child, Key};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "service-without-address",
        "MetalLB has not given a Service of l2lb its address",
    ),
    ("service-without-pod", "no pod of a Service of l2lb serves"),
    (
        "home-without-pod",
        "under externalTrafficPolicy Local a home has no pod that serves",
    ),
    (
        "address-held-by-others",
        "a Service of somebody else has or asks for an address of a pool of l2lb",
    ),
    ("address-named-twice", "two Services name one address"),
    (
        "annotation-prefixes",
        "a Service uses both of MetalLB's annotation prefixes, or the old one",
    ),
    (
        "annotations-not-read",
        "a Service has MetalLB's new annotations alone, which MetalLB up to 0.14.8 does not read",
    ),
    (
        "prefer-dual-stack",
        "a Service with PreferDualStack names one address, which MetalLB cannot allocate",
    ),
    (
        "address-of-another-family",
        "a Service names addresses of other families than its own, which MetalLB refuses",
    ),
    (
        "address-named-in-two-ways",
        "a Service names addresses by annotation and by spec.loadBalancerIP, which MetalLB refuses",
    ),
    (
        "address-outside-pool",
        "a Service of somebody else has an address that no IPAddressPool has any more",
    ),
];

/// How long MetalLB may take to give a Service its address.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let served = serving(facts);
    for child in facts.world.children.values().flat_map(|s| s.values()) {
        if !child.terminating {
            ours(facts, found, child, &served);
        }
    }
    held(facts, found);
    for service in facts.of_kind("Service") {
        asks::check(facts, found, service);
        outside(facts, found, service);
    }
}

/// The nodes with a serving pod, of each Service that has EndpointSlices.
fn serving<'a>(facts: &Facts<'a>) -> BTreeMap<Key, Vec<&'a str>> {
    let mut nodes: BTreeMap<Key, Vec<&str>> = BTreeMap::new();
    for slice in facts.of_kind("EndpointSlice") {
        let meta = &slice["metadata"];
        let service = meta["labels"]["kubernetes.io/service-name"].as_str();
        let namespace = meta["namespace"].as_str();
        let (Some(service), Some(namespace)) = (service, namespace) else {
            continue;
        };
        let list = nodes.entry(Key::new(namespace, service)).or_default();
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let conditions = &endpoint["conditions"];
            let serves = conditions["serving"]
                .as_bool()
                .or(conditions["ready"].as_bool());
            if serves.unwrap_or(true) {
                list.push(endpoint["nodeName"].as_str().unwrap_or_default());
            }
        }
    }
    nodes
}

fn ours(
    facts: &Facts<'_>,
    found: &mut Findings,
    child: &Child,
    serving: &BTreeMap<Key, Vec<&str>>,
) {
    let about = format!("Service {}", child.key);
    let addresses: Vec<String> = child.addresses.iter().map(ToString::to_string).collect();
    let created = child.service.metadata.creation_timestamp.as_ref();
    let young = created.is_some_and(|t| facts.now().duration_since(t.0) < PATIENCE);
    if child.allocated.is_empty() && !young {
        let said = facts
            .of_kind("Event")
            .filter(|e| {
                let object = &e["involvedObject"];
                object["namespace"] == child.key.namespace.as_str()
                    && object["name"] == child.key.name.as_str()
                    && e["reason"] == "AllocationFailed"
            })
            .last()
            .and_then(|e| e["message"].as_str());
        let why = said.map_or_else(String::new, |said| format!("; MetalLB says: {said}"));
        let planned = planned_message(facts, child).unwrap_or_default();
        found.add(
            Severity::Error,
            "service-without-address",
            &about,
            format!("it has waited for {} for more than {} s{why}", addresses.join(" and "), PATIENCE.as_secs()),
            if planned.contains("loadBalancerClass") {
                planned
            } else {
                format!(
                    "kubectl describe service -n {} {}; the log of MetalLB's controller says whether \
                     its configuration is stale",
                    child.key.namespace, child.key.name
                )
            },
        );
    }
    if !facts.could_read("EndpointSlice") || young {
        return;
    }
    let remedy = format!(
        "kubectl get endpointslices -n {} -l kubernetes.io/service-name={}",
        child.key.namespace, child.key.name
    );
    let none = Vec::new();
    let nodes = serving.get(&child.key).unwrap_or(&none);
    let home = facts.outlook.node_name(&child.home);
    if nodes.is_empty() {
        found.add(
            Severity::Error,
            "service-without-pod",
            about,
            format!(
                "no pod of it serves, so that nobody announces {}",
                addresses.join(" and ")
            ),
            remedy,
        );
    } else if child.is_local() && !nodes.contains(&home.as_str()) {
        found.add(
            Severity::Warning,
            "home-without-pod",
            about,
            format!(
                "with externalTrafficPolicy Local only nodes with a pod announce, and its home {home} \
                 has none that serves"
            ),
            "run a pod on each balancer node (a DaemonSet, or spread constraints), or use Cluster",
        );
    }
}

fn planned_message(facts: &Facts<'_>, child: &Child) -> Option<String> {
    let planned = facts.plan.load_balancers.get(&child.load_balancer())?;
    let slot = planned.slots.iter().find(|s| s.number == child.slot)?;
    slot.message.clone()
}

/// Addresses of our pools that others hold, and addresses that two name.
fn held(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    let mut twice: Vec<IpAddr> = Vec::new();
    for (key, service) in &world.foreign_services {
        for (pool, stored) in &world.pools {
            let Some(object) = stored.valid() else {
                continue;
            };
            let Ok(spec) = parse_spec(pool, &object.spec) else {
                continue;
            };
            let ours = |a: &&IpAddr| spec.usable.contains(**a);
            for address in service.addresses.iter().filter(ours) {
                found.add(
                    Severity::Error,
                    "address-held-by-others",
                    format!("Service {key}"),
                    format!("it has {address}, which is in L2AddressPool {pool}"),
                    format!(
                        "take it out of the Service, or list {address} in spec.excludedAddresses"
                    ),
                );
            }
            for address in service.asked.iter().filter(ours) {
                found.add(
                    Severity::Warning,
                    "address-held-by-others",
                    format!("Service {key}"),
                    format!(
                        "it asks for {address}, which L2AddressPool {pool} gives to Services of \
                         l2lb alone"
                    ),
                    "take it out of the Service, which waits for it in vain",
                );
            }
        }
    }
    twice.extend(world.held().filter(|a| world.holders(*a).count() > 1));
    twice.sort_unstable();
    for address in twice {
        let names: Vec<String> = world.holders(address).map(ToString::to_string).collect();
        found.add(
            Severity::Error,
            "address-named-twice",
            format!("Service {}", names.first().cloned().unwrap_or_default()),
            format!(
                "{address} is named by {} Services: {}",
                names.len(),
                names.join(", ")
            ),
            "MetalLB gives it to one of them: take it out of the others",
        );
    }
}

/// An address that was taken out of a pool while a Service has it.
fn outside(facts: &Facts<'_>, found: &mut Findings, service: &Value) {
    let world = facts.world;
    let meta = &service["metadata"];
    let key = Key::new(
        meta["namespace"].as_str().unwrap_or_default(),
        name(service),
    );
    let allocated = [names::METALLB_ALLOCATED, names::METALLB_OLD_ALLOCATED];
    let named = allocated
        .iter()
        .find_map(|k| meta["annotations"][*k].as_str());
    let is_anothers = world.foreign_services.contains_key(&key) && facts.is_metallbs(service);
    let Some(pool) = named.filter(|_| is_anothers) else {
        return;
    };
    // MetalLB asks every pool, not the one that gave the address. One that cannot
    // be read is said elsewhere.
    let has = |address: IpAddr| {
        world.ip_address_pools.values().any(|stored| {
            stored.valid().is_none_or(|pool| {
                metallb_ranges(&pool.spec).contains(address)
                    && !(pool.spec.avoid_buggy_ips == Some(true) && is_buggy(address))
            })
        })
    };
    let lost: Vec<String> = ingress(service)
        .filter(|a| !has(*a))
        .map(|a| a.to_string())
        .collect();
    if lost.is_empty() {
        return;
    }
    found.add(
        Severity::Error,
        "address-outside-pool",
        title(service),
        format!(
            "it has {} from IPAddressPool {pool}, and no IPAddressPool has that any more: MetalLB \
             takes it away, or refuses its whole configuration (0.13.12), and so does a speaker that \
             announces it",
            lost.join(" and ")
        ),
        format!("give it back to IPAddressPool {pool}, or let the Service have another address"),
    );
}
