//! Do no harm: what a pool of ours would do to MetalLB's configuration and
//! to others, and what others' objects would do to it. One object that
//! MetalLB's parser rejects makes its whole configuration stale, for
//! everybody, so everything is judged as that parser would before it is sent.

pub(crate) mod bgp;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::pool::{owned_pool, parse_spec};
use crate::address::{AddressRange, RangeSet};
use crate::api::{Reason, names};
use crate::metallb::{L2AdvertisementSpec, PREFERENCE};
use crate::selector::Selector;
use crate::world::{Node, Stored, World};

/// Whether a pool may be given to MetalLB. `all` is its spec, `usable` what
/// is left without the exclusions, which is what MetalLB will see; `taken`
/// are the older pools.
pub(super) fn judge_pool(
    world: &World,
    name: &str,
    all: &RangeSet,
    usable: &RangeSet,
    taken: &[(String, RangeSet)],
) -> Result<(), (Reason, String)> {
    if let Some(message) = overlaps(world, name, all, usable, taken).into_iter().next() {
        return Err((Reason::AddressOverlap, message));
    }
    bgp::judge(world, name, usable)
}

/// What a pool would take from younger ones of ours, and that as a sentence: the
/// older one stands where two overlap, but it does not grow over what MetalLB has
/// from a younger one already. `taken` are the older pools.
pub(super) fn takes(
    world: &World,
    name: &str,
    usable: &RangeSet,
    taken: &[(String, RangeSet)],
) -> Option<(RangeSet, String)> {
    let pools = world.ip_address_pools.values().filter_map(Stored::valid);
    let pools = pools.filter_map(|pool| Some((owned_pool(&pool.metadata)?, &pool.spec)));
    let is_younger = |other: &str| {
        other != name
            && world.pools.contains_key(other)
            && taken.iter().all(|(older, _)| older != other)
    };
    let theirs = pools.clone().filter(|(owner, _)| is_younger(owner));
    let mut theirs = theirs.filter_map(|(owner, spec)| {
        let has = metallb_ranges(spec);
        usable.overlap(&has).map(|_| (owner, has))
    });
    let first = theirs.next()?;
    // Nearly always there is none, and what the pool itself has is not asked for.
    let own = pools.filter(|(owner, _)| *owner == name);
    let own = own.flat_map(|(_, spec)| metallb_ranges(spec).ranges().to_vec());
    let fresh = usable.minus(&own.collect());
    let mut all = RangeSet::default();
    let mut message = None;
    for (other, has) in std::iter::once(first).chain(theirs) {
        let Some(range) = fresh.overlap(&has) else {
            continue;
        };
        all = all.plus(fresh.minus(&fresh.minus(&has)).ranges().iter().copied());
        message = message.or_else(|| {
            Some(format!(
                "{range} was in L2AddressPool {other} first: take it out of one of them"
            ))
        });
    }
    message.map(|message| (all, message))
}

/// Everything that the addresses of a pool overlap, as sentences.
pub(crate) fn overlaps(
    world: &World,
    name: &str,
    all: &RangeSet,
    usable: &RangeSet,
    taken: &[(String, RangeSet)],
) -> Vec<String> {
    let mut found = Vec::new();
    for (other, ranges) in taken {
        if let Some(range) = ranges.overlap(all) {
            found.push(format!(
                "{range} is also in the older L2AddressPool {other}: take it out of one of them"
            ));
        }
    }
    for (other, stored) in &world.ip_address_pools {
        let Stored::Valid(pool) = stored else {
            continue;
        };
        let ours = owned_pool(&pool.metadata);
        if ours == Some(name) {
            continue;
        }
        let has = metallb_ranges(&pool.spec);
        let Some(range) = has.overlap(usable) else {
            continue;
        };
        let Some(ours) = ours.filter(|ours| world.pools.contains_key(*ours)) else {
            found.push(format!(
                "{range} is also in MetalLB's IPAddressPool {other}: take it out of one of them, \
                 or list it in spec.excludedAddresses"
            ));
            continue;
        };
        // Its spec was compared above. An address that was taken out of that
        // stays in MetalLB's pool for as long as a slot has it.
        if let Some(range) = has.minus(&spec_ranges(world, ours)).overlap(usable) {
            found.push(format!(
                "{range} is still used by a load balancer of L2AddressPool {ours}, although it is \
                 not in there any more: list it in spec.excludedAddresses until it is free"
            ));
        }
    }
    for (cidr, ranges) in &world.service_cidrs {
        let ranges: RangeSet = ranges.iter().copied().collect();
        if let Some(range) = ranges.overlap(usable) {
            found.push(format!(
                "the addresses overlap {range}, which ServiceCIDR {cidr} uses for cluster addresses"
            ));
        }
    }
    found
}

/// The addresses that a pool's spec names; none if it cannot be read.
fn spec_ranges(world: &World, pool: &str) -> RangeSet {
    let spec = world.pools.get(pool).and_then(|stored| stored.valid());
    spec.and_then(|object| parse_spec(pool, &object.spec).ok())
        .map(|parsed| parsed.all)
        .unwrap_or_default()
}

/// The addresses of one of MetalLB's pools, as far as they can be read.
pub(crate) fn metallb_ranges(spec: &crate::metallb::IpAddressPoolSpec) -> RangeSet {
    spec.addresses
        .iter()
        .filter_map(|a| AddressRange::parse_leniently(a).ok())
        .collect()
}

/// A foreign L2Advertisement that draws addresses of the pool away from where
/// they are pinned. MetalLB adds the weights of every advertisement that
/// matches a Service, ours with its 100 among them: a node that foreign ones
/// give 100 more than a balancer node has ties with it, or outranks it.
/// `nodes` is the pool's own selector.
pub(crate) fn conflicting_advertisement(
    world: &World,
    pool: &str,
    nodes: &Selector,
) -> Option<String> {
    let metallb_name = names::ip_address_pool_name(pool);
    let labels = pool_labels(pool);
    let weighty: Vec<(&String, &L2AdvertisementSpec)> = world
        .l2_advertisements
        .iter()
        .filter_map(|(name, stored)| Some((name, stored.valid()?)))
        .filter(|(_, advertisement)| owned_pool(&advertisement.metadata).is_none())
        .map(|(name, advertisement)| (name, &advertisement.spec))
        .filter(|(_, spec)| {
            !spec.preferred_node_selectors.is_empty()
                && selects_pool(
                    &spec.ip_address_pools,
                    &spec.ip_address_pool_selectors,
                    &metallb_name,
                    &labels,
                )
                && selects_service(world, pool, &spec.service_selectors)
        })
        .collect();
    if weighty.is_empty() {
        return None;
    }
    let total = |node: &Node| -> i64 { weighty.iter().map(|(_, spec)| weight(spec, node)).sum() };
    let least = world
        .nodes
        .values()
        .filter(|node| nodes.matches(&node.labels))
        .map(total)
        .min()?;
    let drawn = world
        .nodes
        .values()
        .find(|node| total(node) >= least + i64::from(PREFERENCE))?;
    weighty
        .into_iter()
        .max_by_key(|(_, spec)| weight(spec, drawn))
        .map(|(name, _)| name.clone())
}

/// The nodes that one of an advertisement's selectors selects, which are all
/// where there is none.
pub(crate) fn nodes_of<'a>(
    world: &'a World,
    selectors: &[LabelSelector],
) -> impl Iterator<Item = &'a Node> + use<'a> {
    let selectors: Vec<Selector> = match selectors {
        [] => vec![Selector::default()],
        some => some
            .iter()
            .filter_map(|s| Selector::parse(Some(s)).ok())
            .collect(),
    };
    let nodes = world.nodes.values();
    nodes.filter(move |n| selectors.iter().any(|s| s.matches(&n.labels)))
}

/// What an advertisement adds to a node's weight.
pub(crate) fn weight(spec: &L2AdvertisementSpec, node: &Node) -> i64 {
    let selects = |selector: &LabelSelector| {
        Selector::parse(Some(selector)).is_ok_and(|s| s.matches(&node.labels))
    };
    if !spec.node_selectors.is_empty() && !spec.node_selectors.iter().any(selects) {
        return 0;
    }
    spec.preferred_node_selectors
        .iter()
        .filter(|preferred| selects(&preferred.preference))
        .map(|preferred| i64::from(preferred.weight))
        .sum()
}

/// Whether an advertisement is for one of the Services that a pool has now.
fn selects_service(world: &World, pool: &str, selectors: &[LabelSelector]) -> bool {
    let selectors: Vec<Selector> = match selectors {
        [] => return true,
        some => some
            .iter()
            .filter_map(|s| Selector::parse(Some(s)).ok())
            .collect(),
    };
    let children = world.children.values().flat_map(|slots| slots.values());
    children
        .filter(|child| child.pool == pool)
        .filter_map(|child| child.service.metadata.labels.as_ref())
        .any(|labels| selectors.iter().any(|s| s.matches(labels)))
}

/// Foreign L2Advertisements that match a pool, or the own pools of its slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// Its name.
    pub name: String,
    /// The nodes that it adds to the candidates, by name, without those that
    /// are labelled against use by load balancers.
    pub nodes: Vec<String>,
    /// It names no interfaces, which lifts those that the pool names.
    pub every_interface: bool,
}

/// The foreign L2Advertisements that match every pool, or ours by its name or
/// labels: their nodes take part in the election, and one that comes before
/// the pin wins it where there are no preferences. The first one is named.
pub(crate) fn sharing_advertisement(world: &World, pool: &str) -> Option<Sharing> {
    // 0.13.12 does not know the label.
    let knows_label = world.capabilities.l2_status && !world.options.ignore_exclude_label;
    let mut found: Option<Sharing> = None;
    for (name, stored) in &world.l2_advertisements {
        let Some(advertisement) = stored.valid() else {
            continue;
        };
        let spec = &advertisement.spec;
        if owned_pool(&advertisement.metadata).is_some() || !shares_pool(world, spec, pool) {
            continue;
        }
        let selected =
            nodes_of(world, &spec.node_selectors).filter(|n| !n.is_excluded() || !knows_label);
        let sharing = found.get_or_insert_with(|| Sharing {
            name: name.clone(),
            nodes: Vec::new(),
            every_interface: false,
        });
        sharing.every_interface |= spec.interfaces.is_empty();
        sharing.nodes.extend(selected.map(|n| n.name.clone()));
    }
    found
}

/// Whether a foreign L2Advertisement adds its nodes to the candidates of a
/// pool's addresses.
pub(crate) fn shares_pool(world: &World, spec: &L2AdvertisementSpec, pool: &str) -> bool {
    // Own pools have names that nobody else lists.
    let metallb_name = if world.capabilities.can_prefer() {
        names::ip_address_pool_name(pool)
    } else {
        String::new()
    };
    let (by_name, by_label) = (&spec.ip_address_pools, &spec.ip_address_pool_selectors);
    selects_pool(by_name, by_label, &metallb_name, &pool_labels(pool))
        && selects_service(world, pool, &spec.service_selectors)
}

/// The labels that our IPAddressPools carry.
pub(super) fn pool_labels(pool: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            names::MANAGED_BY.to_owned(),
            names::MANAGED_BY_VALUE.to_owned(),
        ),
        (names::POOL.to_owned(), pool.to_owned()),
    ])
}

/// Whether an advertisement is for a pool: by name, by label, or because it
/// names none.
pub(crate) fn selects_pool(
    by_name: &[String],
    by_label: &[LabelSelector],
    name: &str,
    labels: &BTreeMap<String, String>,
) -> bool {
    (by_name.is_empty() && by_label.is_empty())
        || by_name.iter().any(|n| n == name)
        || by_label
            .iter()
            .any(|s| Selector::parse(Some(s)).is_ok_and(|s| s.matches(labels)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::observe_manifest;
    use serde_json::{Value, json};

    /// Two nodes, one child of pool `edge`, and foreign advertisements.
    fn conflict(specs: &[Value]) -> Option<String> {
        let mut world = World::default();
        let mut observe = |value| world.observe(observe_manifest(value).unwrap().unwrap());
        for node in ["a", "b"] {
            observe(json!({"apiVersion": "v1", "kind": "Node", "metadata":
                {"name": node, "labels": {"kubernetes.io/hostname": node}}}));
        }
        observe(json!({"apiVersion": "v1", "kind": "Service", "metadata":
            {"name": "web-0", "namespace": "shop", "labels": {
                "app.kubernetes.io/managed-by": "l2lb", "l2lb.io/load-balancer": "web",
                "l2lb.io/slot": "0", "l2lb.io/pool": "edge", "tier": "front"}}}));
        for (number, spec) in specs.iter().enumerate() {
            observe(
                json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
                "metadata": {"name": format!("foreign-{number}")}, "spec": spec}),
            );
        }
        conflicting_advertisement(&world, "edge", &Selector::default())
    }

    fn prefer(weight: i32, node: &str) -> Value {
        json!({"weight": weight, "preference": {"matchLabels": {"kubernetes.io/hostname": node}}})
    }

    #[test]
    fn weights_of_others_count_from_a_tie_on() {
        let one = |weight| json!({"preferredNodeSelectors": [prefer(weight, "a")]});
        assert_eq!(conflict(&[json!({})]), None);
        assert_eq!(conflict(&[one(99)]), None);
        assert_eq!(conflict(&[one(100)]).unwrap(), "foreign-0");
        // Within one advertisement and over several they add up.
        let twice = json!({"preferredNodeSelectors": [prefer(50, "a"), prefer(50, "a")]});
        assert!(conflict(&[twice]).is_some());
        assert_eq!(conflict(&[one(40), one(60)]).unwrap(), "foreign-1");
        // Equal for all nodes they change nothing.
        let both = json!({"preferredNodeSelectors": [prefer(100, "a"), prefer(100, "b")]});
        assert_eq!(conflict(&[both]), None);
        // A weight counts for the advertisement's own nodes alone.
        let elsewhere = json!({"preferredNodeSelectors": [prefer(100, "a")],
            "nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": "b"}}]});
        assert_eq!(conflict(&[elsewhere]), None);
    }

    #[test]
    fn whatever_selects_the_pool_and_the_service_counts() {
        let with = |field: &str, value: Value| {
            let mut spec = json!({"preferredNodeSelectors": [prefer(100, "a")]});
            spec[field] = value;
            conflict(&[spec]).is_some()
        };
        let key = "l2lb.io/pool";
        let expression = |operator: &str, values: Value| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        let pools = "ipAddressPoolSelectors";
        assert!(with("ipAddressPools", json!(["l2lb-edge"])));
        assert!(!with("ipAddressPools", json!(["other"])));
        assert!(with(pools, json!([{}])));
        assert!(with(pools, expression("NotIn", json!(["core"]))));
        assert!(!with(pools, expression("NotIn", json!(["edge"]))));
        let absent = json!([{"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}]);
        assert!(with(pools, absent));
        assert!(with(
            "serviceSelectors",
            json!([{"matchLabels": {"tier": "front"}}])
        ));
        assert!(with("serviceSelectors", json!([{}])));
        assert!(!with(
            "serviceSelectors",
            json!([{"matchLabels": {"tier": "back"}}])
        ));
    }
}
