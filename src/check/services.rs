//! Services: ours that have no address or no pod, and others in our way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::SignedDuration;
use serde_json::Value;

use super::{Facts, Findings, Severity, title};
use crate::api::names;
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
        let annotations = &service["metadata"]["annotations"];
        prefixes(facts, found, service, annotations);
        dual(found, service, annotations);
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

const NEW: &str = "metallb.io/";
const OLD: &str = "metallb.universe.tf/";

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

fn dual(found: &mut Findings, service: &Value, annotations: &Value) {
    let named = [names::METALLB_IPS, names::METALLB_OLD_IPS]
        .iter()
        .find_map(|key| annotations[*key].as_str());
    let one = named.is_some_and(|list| !list.contains(','));
    if one && service["spec"]["ipFamilyPolicy"] == "PreferDualStack" {
        found.add(
            Severity::Warning,
            "prefer-dual-stack",
            title(service),
            "ipFamilyPolicy is PreferDualStack and one address is named: on a dual-stack cluster \
             MetalLB allocates none",
            "use SingleStack, or RequireDualStack with an address of each family",
        );
    }
}
