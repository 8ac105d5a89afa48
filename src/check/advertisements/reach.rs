//! L2Advertisements, and BGPAdvertisements, that reach no pool or no node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::api::names;
use crate::check::{Facts, Findings, Severity, parser};
use crate::metallb::L2AdvertisementSpec;
use crate::plan::neighbours::{nodes_of, selects_pool};
use crate::plan::pool::owned_pool;
use crate::selector::Selector;
use crate::world::Node;

/// The pools that an advertisement is for, and which do not exist.
pub(super) fn pools(
    facts: &Facts<'_>,
    found: &mut Findings,
    about: &str,
    by_name: &[String],
    by_label: &[LabelSelector],
) {
    let pools = &facts.world.ip_address_pools;
    let mut add = |message: String, remedy: &str| {
        let rule = "advertisement-of-no-pool";
        found.add(Severity::Warning, rule, about, message, remedy);
    };
    for pool in by_name.iter().filter(|p| !pools.contains_key(*p)) {
        add(
            format!(
                "it names IPAddressPool {pool}, which does not exist; MetalLB ignores that silently"
            ),
            "correct spec.ipAddressPools",
        );
    }
    let selected = |selector: &LabelSelector| {
        let selector = Selector::parse(Some(selector)).ok();
        selector.is_none_or(|s| {
            let labels = pools.values().map(|p| p.metadata().labels.as_ref());
            labels
                .map(|labels| labels.cloned().unwrap_or_default())
                .any(|labels| s.matches(&labels))
        })
    };
    if !by_label.is_empty() && !by_label.iter().any(selected) {
        add(
            "its spec.ipAddressPoolSelectors match no IPAddressPool; MetalLB ignores that silently"
                .to_owned(),
            "correct spec.ipAddressPoolSelectors, or label the pool that is meant",
        );
    }
}

/// The nodes that an L2Advertisement lists, where those are one or none.
pub(super) fn nodes(
    facts: &Facts<'_>,
    found: &mut Findings,
    (name, about): (&str, &str),
    spec: &L2AdvertisementSpec,
) {
    let selectors = &spec.node_selectors;
    // What cannot be read is said already.
    let is_bad = |s: &LabelSelector| parser::bad("nodeSelectors", s).is_some();
    if selectors.is_empty() || facts.world.nodes.is_empty() || selectors.iter().any(is_bad) {
        return;
    }
    let listed: Vec<&Node> = nodes_of(facts.world, selectors).collect();
    match listed.as_slice() {
        [] => nobody(facts, found, (name, about), spec),
        [only] => found.add(
            Severity::Info,
            "advertisement-without-failover",
            about,
            format!("node {} is the only one that it lists: its addresses go dark with that node", only.name),
            "list standbys too; from MetalLB 0.16.2 on prefer the node with spec.preferredNodeSelectors",
        ),
        _ => (),
    }
}

/// Its selectors match no node, by which some pools may be dark.
fn nobody(
    facts: &Facts<'_>,
    found: &mut Findings,
    (name, about): (&str, &str),
    spec: &L2AdvertisementSpec,
) {
    let dark = alone(facts, name, spec);
    let hint = misnamed(facts, &spec.node_selectors);
    let hint = hint.map_or_else(String::new, |hint| format!(": {hint}"));
    let (severity, then) = match dark.as_slice() {
        [] => (Severity::Warning, "it does nothing".to_owned()),
        pools => (
            Severity::Error,
            format!(
                "and nothing else announces the addresses of IPAddressPool {}",
                pools.join(", ")
            ),
        ),
    };
    found.add(
        severity,
        "advertisement-of-no-node",
        about,
        format!("its spec.nodeSelectors match no node{hint}; {then}"),
        "correct spec.nodeSelectors: kubectl get nodes --show-labels",
    );
}

/// The pools of others that an L2Advertisement is for, and no other one.
fn alone<'a>(facts: &Facts<'a>, name: &str, spec: &L2AdvertisementSpec) -> Vec<&'a str> {
    let world = facts.world;
    let others = world.l2_advertisements.iter().filter(|(n, _)| *n != name);
    let others = others.filter_map(|(_, stored)| Some(&stored.valid()?.spec));
    let others: Vec<&L2AdvertisementSpec> = others
        .filter(|s| nodes_of(world, &s.node_selectors).next().is_some())
        .collect();
    let bgp = world.bgp_advertisements.values().filter_map(|a| a.valid());
    let bgp: Vec<_> = bgp.map(|a| &a.spec).collect();
    let pools = world.ip_address_pools.iter();
    let alone = pools.filter(|(pool, stored)| {
        let metadata = stored.metadata();
        let labels = metadata.labels.clone().unwrap_or_default();
        let selects = |by_name: &[String], by_label: &[LabelSelector]| {
            selects_pool(by_name, by_label, pool, &labels)
        };
        owned_pool(metadata).is_none()
            && selects(&spec.ip_address_pools, &spec.ip_address_pool_selectors)
            && !others
                .iter()
                .any(|s| selects(&s.ip_address_pools, &s.ip_address_pool_selectors))
            && !bgp
                .iter()
                .any(|s| selects(&s.ip_address_pools, &s.ip_address_pool_selectors))
    });
    alone.map(|(pool, _)| pool.as_str()).collect()
}

/// A node that selectors name by `kubernetes.io/hostname`, and whose label is
/// another: usually it is the node's name, but not always.
fn misnamed(facts: &Facts<'_>, selectors: &[LabelSelector]) -> Option<String> {
    let label = names::HOSTNAME;
    let listed = |selector: &LabelSelector| {
        let equal = selector.match_labels.iter().flatten();
        let equal = equal
            .filter(|(key, _)| *key == label)
            .map(|(_, v)| v.clone());
        let expressions = selector.match_expressions.iter().flatten();
        let within = expressions
            .filter(|e| e.key == label && e.operator == "In")
            .flat_map(|e| e.values.clone().unwrap_or_default());
        equal.chain(within).collect::<Vec<String>>()
    };
    let mut values = selectors.iter().flat_map(listed);
    values.find_map(|value| {
        let begins = |long: &str, short: &str| {
            let rest = long.strip_prefix(short);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut nodes = facts.world.nodes.values();
        let node = nodes.find(|n| {
            n.hostname() != Some(value.as_str())
                && (begins(&n.name, &value) || begins(&value, &n.name))
        })?;
        Some(match node.hostname() {
            Some(hostname) => {
                format!("node {} has {label}: {hostname}, not {value}", node.name)
            }
            None => format!("node {} has no label {label}", node.name),
        })
    })
}
