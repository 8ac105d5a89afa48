//! MetalLB's part in a made-up cluster: it allocates the addresses that a
//! Service names, and its speakers elect who announces them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde_json::json;

use super::{Cluster, ingress_status};
use crate::address::{AddressRange, RangeSet};
use crate::api::names;
use crate::metallb::{STATUS_NAMESPACE, STATUS_NODE, STATUS_SERVICE, election};
use crate::selector::Selector;
use crate::world::{Child, Key, Kind, Stored, World};

impl Cluster {
    /// Lets MetalLB act on what it sees. Returns whether anything changed.
    pub fn play_metallb(&mut self) -> bool {
        self.allocate() | self.elect()
    }

    fn children(&self) -> Vec<std::sync::Arc<Child>> {
        self.world
            .children
            .values()
            .flat_map(|s| s.values())
            .cloned()
            .collect()
    }

    fn allocate(&mut self) -> bool {
        let pools: BTreeMap<String, RangeSet> = self
            .world
            .ip_address_pools
            .iter()
            .filter_map(|(name, stored)| {
                let addresses = &stored.valid()?.spec.addresses;
                let ranges = addresses
                    .iter()
                    .filter_map(|a| AddressRange::parse_leniently(a).ok());
                Some((name.clone(), ranges.collect()))
            })
            .collect();
        let mut changed = false;
        let mut given: HashMap<IpAddr, Key> = HashMap::new();
        for (key, ips) in &self.ingress {
            given.extend(ips.iter().map(|ip| (*ip, key.clone())));
        }
        for child in self.children() {
            let pool = pools.get(&names::ip_address_pool_name(&child.pool));
            let taken = |a: &IpAddr| given.get(a).is_some_and(|holder| *holder != child.key);
            let allowed = pool.is_some_and(|pool| {
                child
                    .addresses
                    .iter()
                    .all(|a| pool.contains(*a) && !taken(a))
            });
            let wanted = if allowed {
                child.addresses.clone()
            } else {
                Vec::new()
            };
            if child.allocated != wanted {
                changed = true;
                let mut manifest = json!(child.service);
                manifest["status"] = ingress_status(&wanted);
                for ip in &child.allocated {
                    given.remove(ip);
                }
                given.extend(wanted.iter().map(|ip| (*ip, child.key.clone())));
                self.ingress.insert(child.key.clone(), wanted);
                let _ = self.put(Kind::Service, manifest);
            }
        }
        changed
    }

    fn elect(&mut self) -> bool {
        let mut changed = false;
        for child in self.children() {
            let winner = if child.allocated.is_empty() {
                None
            } else {
                winner(&self.world, &child)
            };
            if self.announcer(&child.key) != winner.as_deref() {
                changed = true;
                self.report(&child.key, winner.as_deref());
            }
        }
        let gone: Vec<Key> = self
            .world
            .announcers
            .keys()
            .filter(|key| self.world.child(key).is_none())
            .cloned()
            .collect();
        for key in gone {
            changed = true;
            self.report(&key, None);
        }
        changed
    }

    /// Writes or removes the ServiceL2Status.
    fn report(&mut self, service: &Key, node: Option<&str>) {
        let name = format!("l2-{}-{}", service.namespace, service.name);
        let namespace = self.world.options.metallb_namespace.clone();
        match node {
            Some(node) => {
                let manifest = json!({"apiVersion": "metallb.io/v1beta1",
                    "kind": "ServiceL2Status",
                    "metadata": {"name": name, "namespace": namespace, "labels": {
                        STATUS_NODE: node, STATUS_SERVICE: service.name,
                        STATUS_NAMESPACE: service.namespace}}});
                let _ = self.put(Kind::ServiceL2Status, manifest);
            }
            None => self.world.forget(&crate::world::ObjectRef {
                kind: Kind::ServiceL2Status,
                key: Key::new(namespace, name),
            }),
        }
    }
}

/// Who wins the election for a Service: the nodes of all advertisements that
/// match it, alive, by preference and then by hash.
fn winner(world: &World, child: &Child) -> Option<String> {
    let labels = child.service.metadata.labels.clone().unwrap_or_default();
    let pool = names::ip_address_pool_name(&child.pool);
    let mut scores: BTreeMap<&str, i32> = BTreeMap::new();
    for stored in world.l2_advertisements.values() {
        let Stored::Valid(advertisement) = stored else {
            continue;
        };
        let spec = &advertisement.spec;
        let selects = |selectors: &[_], labels| {
            selectors.is_empty()
                || selectors
                    .iter()
                    .any(|s| Selector::parse(Some(s)).is_ok_and(|s| s.matches(labels)))
        };
        let for_pool = (spec.ip_address_pools.is_empty()
            && spec.ip_address_pool_selectors.is_empty())
            || spec.ip_address_pools.contains(&pool);
        if !for_pool || !selects(&spec.service_selectors, &labels) {
            continue;
        }
        for node in world.nodes.values().filter(|n| n.ready && !n.is_excluded()) {
            if !selects(&spec.node_selectors, &node.labels) {
                continue;
            }
            let score = scores.entry(&node.name).or_default();
            for preferred in &spec.preferred_node_selectors {
                if Selector::parse(Some(&preferred.preference))
                    .is_ok_and(|s| s.matches(&node.labels))
                {
                    *score += preferred.weight;
                }
            }
        }
    }
    let best = scores.values().max().copied()?;
    let deciding = election::deciding_address(&child.allocated)?;
    let leaders = scores.iter().filter(|(_, s)| **s == best).map(|(n, _)| *n);
    election::winner(&deciding, leaders).map(str::to_owned)
}
