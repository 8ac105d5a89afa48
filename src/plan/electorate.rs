//! MetalLB's election for one Service, by the advertisements that MetalLB
//! really has, ours and others': who takes part, who does not and why, and in
//! which order those who do would announce.
//! Source: MetalLB's `speaker/layer2_controller.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::neighbours::selects_pool;
use crate::metallb::{Capabilities, L2AdvertisementSpec, election};
use crate::selector::Selector;
use crate::world::{Node, SpeakerState, Stored, World};

/// Why a node takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    /// No L2Advertisement that matches pool and Service lists it.
    NotListed,
    /// It is not ready, so that its speaker is taken for dead. (MetalLB does
    /// not look at the condition; the speaker usually ends with the node.)
    NotReady,
    /// Its condition NetworkUnavailable is True.
    NetworkUnavailable,
    /// It carries Kubernetes' label against load balancers.
    Excluded,
    /// It is cordoned, and MetalLB is the version that announces nothing then.
    Cordoned,
    /// No speaker runs on it.
    NoSpeaker,
    /// Its speaker runs without memberlist, and MetalLB is of a version that
    /// then announces nothing.
    NoMemberlist,
}

/// A node's part in an election.
#[derive(Clone, Debug)]
pub(crate) struct Elector<'a> {
    /// The node.
    pub node: &'a Node,
    /// The sum of the weights that advertisements give it.
    pub weight: i64,
    /// The advertisements that list it, by name.
    pub advertisements: Vec<&'a str>,
    /// Why it takes no part.
    pub barred: Option<Barred>,
}

/// Every node of the cluster, those first that take part, in the order in
/// which they would announce. `running` is the MetalLB that runs, `pool` the
/// name of its IPAddressPool, and `labels` are the Service's.
pub(crate) fn order<'a>(
    world: &'a World,
    running: Capabilities,
    pool: &str,
    labels: &BTreeMap<String, String>,
    deciding: &str,
) -> Vec<Elector<'a>> {
    let none = BTreeMap::new();
    let pool_labels = world
        .ip_address_pools
        .get(pool)
        .and_then(|p| p.metadata().labels.as_ref())
        .unwrap_or(&none);
    let advertisements: Vec<Advertisement<'_>> = world
        .l2_advertisements
        .iter()
        .filter_map(|(name, stored)| match stored {
            Stored::Valid(object) => Some((name, &object.spec)),
            Stored::Broken { .. } => None,
        })
        .filter(|(_, spec)| {
            let (names, selectors) = (&spec.ip_address_pools, &spec.ip_address_pool_selectors);
            selects_pool(names, selectors, pool, pool_labels)
                && (!running.service_selectors || selects(&parse(&spec.service_selectors), labels))
        })
        .map(|(name, spec)| Advertisement::read(name, spec, running))
        .collect();
    let mut all: Vec<Elector<'_>> = world
        .nodes
        .values()
        .map(|node| elector(world, running, node, &advertisements))
        .collect();
    all.sort_by_cached_key(|e| {
        let rank = election::rank(&e.node.name, deciding);
        (e.barred.is_some(), std::cmp::Reverse(e.weight), rank)
    });
    all
}

/// An advertisement that matches, with its selectors read.
struct Advertisement<'a> {
    name: &'a str,
    nodes: Option<Vec<Selector>>,
    preferences: Vec<(i64, Selector)>,
}

impl<'a> Advertisement<'a> {
    fn read(name: &'a str, spec: &L2AdvertisementSpec, running: Capabilities) -> Self {
        let preferred = spec.preferred_node_selectors.iter();
        Self {
            name,
            nodes: parse(&spec.node_selectors),
            preferences: preferred
                .filter(|_| running.preferred_nodes)
                .filter_map(|p| {
                    let selector = Selector::parse(Some(&p.preference)).ok()?;
                    Some((i64::from(p.weight), selector))
                })
                .collect(),
        }
    }
}

/// The selectors that can be read; `None` when there are none, which selects everything.
fn parse(selectors: &[LabelSelector]) -> Option<Vec<Selector>> {
    let read = selectors
        .iter()
        .filter_map(|s| Selector::parse(Some(s)).ok());
    (!selectors.is_empty()).then(|| read.collect())
}

fn selects(selectors: &Option<Vec<Selector>>, labels: &BTreeMap<String, String>) -> bool {
    selectors
        .as_ref()
        .is_none_or(|all| all.iter().any(|s| s.matches(labels)))
}

fn elector<'a>(
    world: &World,
    running: Capabilities,
    node: &'a Node,
    advertisements: &[Advertisement<'a>],
) -> Elector<'a> {
    let mut elector = Elector {
        node,
        weight: 0,
        advertisements: Vec::new(),
        barred: barred(world, running, node),
    };
    for advertisement in advertisements {
        if !selects(&advertisement.nodes, &node.labels) {
            continue;
        }
        elector.advertisements.push(advertisement.name);
        for (weight, selector) in &advertisement.preferences {
            if selector.matches(&node.labels) {
                elector.weight += weight;
            }
        }
    }
    if elector.advertisements.is_empty() {
        elector.barred = Some(Barred::NotListed);
    }
    elector
}

fn barred(world: &World, running: Capabilities, node: &Node) -> Option<Barred> {
    // 0.13.12 does not know the label.
    let knows_label = running.l2_status && !world.options.ignore_exclude_label;
    if !node.ready {
        Some(Barred::NotReady)
    } else if node.network_unavailable {
        Some(Barred::NetworkUnavailable)
    } else if knows_label && node.is_excluded() {
        Some(Barred::Excluded)
    } else if running.cordon_silences() && node.cordoned {
        Some(Barred::Cordoned)
    } else {
        match world.speakers.on(&node.name) {
            SpeakerState::Away(_) => Some(Barred::NoSpeaker),
            SpeakerState::Running(s) if !s.memberlist && running.needs_memberlist() => {
                Some(Barred::NoMemberlist)
            }
            SpeakerState::Running(_) | SpeakerState::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Options, observe_manifest};
    use serde_json::{Value, json};

    fn world(specs: &[Value]) -> World {
        let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let mut world = World::new(now, Options::default(), Capabilities::CURRENT);
        let mut observe = |value| world.observe(observe_manifest(value).unwrap().unwrap());
        for (node, extra) in [("a", "x"), ("b", "x"), ("c", names_exclude())] {
            observe(json!({"apiVersion": "v1", "kind": "Node", "metadata":
                {"name": node, "labels": {"kubernetes.io/hostname": node, extra: ""}}}));
        }
        for (number, spec) in specs.iter().enumerate() {
            observe(
                json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
                "metadata": {"name": format!("ad-{number}")}, "spec": spec}),
            );
        }
        world
    }

    fn names_exclude() -> &'static str {
        crate::api::names::EXCLUDE_NODE
    }

    fn of(specs: &[Value], running: Capabilities) -> Vec<(String, i64, Option<Barred>)> {
        let world = world(specs);
        let labels = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
        order(&world, running, "edge", &labels, "192.0.2.1")
            .into_iter()
            .map(|e| (e.node.name.clone(), e.weight, e.barred))
            .collect()
    }

    fn prefer(weight: i32, node: &str) -> Value {
        json!({"weight": weight, "preference": {"matchLabels": {"kubernetes.io/hostname": node}}})
    }

    #[test]
    fn weights_add_up_and_decide_before_the_hash() {
        let by_hash = election::winner("192.0.2.1", ["a", "b"]).unwrap();
        let other = if by_hash == "a" { "b" } else { "a" };
        let plain = of(&[json!({})], Capabilities::CURRENT);
        assert_eq!(plain[0].0, by_hash);
        assert_eq!(plain[2], ("c".to_owned(), 0, Some(Barred::Excluded)));
        let specs = [
            json!({"preferredNodeSelectors": [prefer(60, by_hash), prefer(40, other)]}),
            json!({"preferredNodeSelectors": [prefer(40, other)]}),
        ];
        let preferred = of(&specs, Capabilities::CURRENT);
        assert_eq!((preferred[0].0.as_str(), preferred[0].1), (other, 80));
        // An older MetalLB knows no weights.
        let older = of(&specs, Capabilities::of_version("0.16.1").unwrap());
        assert_eq!((older[0].0.as_str(), older[0].1), (by_hash, 0));
    }

    #[test]
    fn only_what_matches_pool_and_service_lists_a_node() {
        let barred = |spec: Value| {
            let found = of(&[spec], Capabilities::CURRENT);
            found[0].2
        };
        assert_eq!(barred(json!({"ipAddressPools": ["edge"]})), None);
        let not = Some(Barred::NotListed);
        assert_eq!(barred(json!({"ipAddressPools": ["other"]})), not);
        let services = json!({"serviceSelectors": [{"matchLabels": {"tier": "back"}}]});
        assert_eq!(barred(services), not);
        let nodes = json!({"nodeSelectors": [{"matchLabels": {"none": "such"}}]});
        assert_eq!(barred(nodes), not);
    }
}
