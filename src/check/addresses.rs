//! Addresses that somebody else on the segment answers for, as far as the API
//! knows.

use std::net::IpAddr;

use super::{Facts, Findings, Severity, name};
use crate::address::{AddressRange, RangeSet};
use crate::plan::pool::parse_spec;

pub(super) const RULES: &[(&str, &str)] = &[
    ("node-address-in-pool", "a pool holds an address of a node"),
    (
        "pod-network-in-pool",
        "a pool holds addresses of a node's pods",
    ),
    (
        "api-server-in-pool",
        "a pool holds the API server's address",
    ),
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    for (pool, stored) in &facts.world.pools {
        let Some(object) = stored.valid() else {
            continue;
        };
        let Ok(spec) = parse_spec(pool, &object.spec) else {
            continue;
        };
        let about = format!("L2AddressPool {pool}");
        nodes(facts, found, &about, &spec.usable);
        pod_networks(facts, found, &about, &spec.usable);
        api_server(facts, found, &about, &spec.usable);
    }
}

fn nodes(facts: &Facts<'_>, found: &mut Findings, about: &str, ranges: &RangeSet) {
    for node in facts.world.nodes.values() {
        for address in node.addresses.iter().filter(|a| ranges.contains(**a)) {
            found.add(
                Severity::Warning,
                "node-address-in-pool",
                about,
                format!(
                    "{address} is node {}'s own: it is never given out, and counts as free",
                    node.name
                ),
                format!("list {address} in spec.excludedAddresses"),
            );
        }
    }
}

fn pod_networks(facts: &Facts<'_>, found: &mut Findings, about: &str, ranges: &RangeSet) {
    for node in facts.of_kind("Node") {
        let networks = node["spec"]["podCIDRs"].as_array().into_iter().flatten();
        for network in networks.filter_map(|n| n.as_str()) {
            let Ok(range) = AddressRange::parse_leniently(network) else {
                continue;
            };
            if let Some(both) = ranges.overlap(&std::iter::once(range).collect()) {
                found.add(
                    Severity::Error,
                    "pod-network-in-pool",
                    about,
                    format!(
                        "{both} is also in {network}, the network of the pods of node {}",
                        name(node)
                    ),
                    "take it out of spec.addresses: pods answer for these addresses",
                );
            }
        }
    }
}

fn api_server(facts: &Facts<'_>, found: &mut Findings, about: &str, ranges: &RangeSet) {
    let slices = facts.of_kind("EndpointSlice").filter(|slice| {
        slice["metadata"]["namespace"] == "default"
            && slice["metadata"]["labels"]["kubernetes.io/service-name"] == "kubernetes"
    });
    for slice in slices {
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let addresses = endpoints.flat_map(|e| e["addresses"].as_array().into_iter().flatten());
        for address in addresses.filter_map(|a| a.as_str()?.parse::<IpAddr>().ok()) {
            let is_node = facts
                .world
                .nodes
                .values()
                .any(|n| n.addresses.contains(&address));
            if ranges.contains(address) && !is_node {
                found.add(
                    Severity::Error,
                    "api-server-in-pool",
                    about,
                    format!(
                        "{address} is the API server's address, and another host answers for it"
                    ),
                    format!("list {address} in spec.excludedAddresses"),
                );
            }
        }
    }
}
