//! MetalLB's part in a made-up cluster: it judges its configuration, gives
//! the addresses that a Service names, and its speakers elect who announces
//! them, each as the version that runs would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::json;

use super::{Cluster, ingress_status};
use crate::address::{AddressRange, Family, RangeSet};
use crate::api::names;
use crate::metallb::{
    Capabilities, IpAddressPool, STATUS_NAMESPACE, STATUS_NODE, STATUS_SERVICE, election,
};
use crate::plan::electorate;
use crate::plan::neighbours::metallb_ranges;
use crate::selector::Selector;
use crate::world::{Child, Key, Kind, ObjectRef, Stored, World};

/// The pools of a configuration, by name.
type Pools = BTreeMap<String, (std::sync::Arc<IpAddressPool>, RangeSet)>;

impl Cluster {
    /// Lets MetalLB act on what it sees, pods among it. Returns whether anything changed.
    pub fn play_metallb(&mut self) -> bool {
        self.write_slices() | self.allocate() | self.elect()
    }

    fn children(&self) -> Vec<std::sync::Arc<Child>> {
        self.world
            .children
            .values()
            .flat_map(|s| s.values())
            .cloned()
            .collect()
    }

    fn pools(&self) -> Pools {
        let stored = self.world.ip_address_pools.iter();
        stored
            .filter_map(|(name, stored)| {
                let pool = stored.valid()?;
                let ranges = pool
                    .spec
                    .addresses
                    .iter()
                    .filter_map(|a| AddressRange::parse_leniently(a).ok());
                Some((name.clone(), (pool.clone(), ranges.collect())))
            })
            .collect()
    }

    /// Notes what MetalLB's parser would refuse now that an object was written.
    pub(super) fn judge(&mut self, object: &ObjectRef) {
        let name = &object.key.name;
        match object.kind {
            Kind::IpAddressPool => {
                self.judge_pool(name);
                self.judge_users(name);
            }
            Kind::L2Advertisement => self.judge_advertisement(name),
            _ => {}
        }
    }

    fn judge_pool(&mut self, name: &str) {
        let pools = self.pools();
        let Some((pool, ranges)) = pools.get(name) else {
            return;
        };
        let all = &pool.spec.addresses;
        let different: BTreeSet<&String> = all.iter().collect();
        if different.is_empty() || different.len() != all.len() {
            self.rejected.push(format!("addresses of {name}: {all:?}"));
        }
        for (other, (_, others)) in pools.iter().filter(|(other, _)| *other != name) {
            if let Some(range) = ranges.overlap(others) {
                self.rejected
                    .push(format!("{name} and {other} overlap: {range}"));
            }
        }
    }

    /// A speaker refuses a configuration in which no pool has an address that
    /// it announces.
    fn judge_users(&mut self, name: &str) {
        let stored = self.world.ip_address_pools.get(name);
        let ranges = stored
            .and_then(Stored::valid)
            .map(|pool| metallb_ranges(&pool.spec))
            .unwrap_or_default();
        let children = self.world.children.values().flat_map(|s| s.values());
        let users = children.filter(|c| c.address_pool.as_deref() == Some(name));
        let lost: Vec<String> = users
            .flat_map(|c| c.allocated.iter().map(move |a| (c, a)))
            .filter(|(c, a)| c.addresses.contains(a) && !ranges.contains(**a))
            .map(|(c, a)| format!("{name} without {a}, which Service {} has", c.key))
            .collect();
        self.rejected.extend(lost);
    }

    fn judge_advertisement(&mut self, name: &str) {
        let stored = self.world.l2_advertisements.get(name);
        let Some(advertisement) = stored.and_then(Stored::valid) else {
            return;
        };
        let spec = &advertisement.spec;
        for selector in spec.node_selectors.iter().chain(&spec.service_selectors) {
            let mut expressions = selector.match_expressions.iter().flatten();
            let repeats = expressions.any(|e| {
                let values: Vec<_> = e.values.iter().flatten().collect();
                values.iter().collect::<BTreeSet<_>>().len() != values.len()
            });
            if repeats || Selector::parse(Some(selector)).is_err() {
                self.rejected.push(format!("selectors of {name}"));
            }
        }
        if !self.world.capabilities.preferred_nodes && !spec.preferred_node_selectors.is_empty() {
            self.rejected.push(format!("{name} has unknown fields"));
        }
    }

    fn allocate(&mut self) -> bool {
        let pools = self.pools();
        let mut changed = false;
        let mut holders: BTreeMap<IpAddr, Key> = BTreeMap::new();
        for (key, ips) in &self.ingress {
            holders.extend(ips.iter().map(|ip| (*ip, key.clone())));
        }
        for child in self.children() {
            let free = |a: &IpAddr| holders.get(a).is_none_or(|holder| *holder == child.key);
            let wanted = give(&self.world, &pools, self.running, &child, free);
            let annotations = child.service.metadata.annotations.as_ref();
            let marked = annotations.is_some_and(|a| a.contains_key(self.mark()));
            if child.allocated == wanted && (marked || wanted.is_empty()) {
                continue;
            }
            changed = true;
            // An additional address is no harm; one that is taken away is.
            if !child.allocated.is_empty()
                && child
                    .allocated
                    .iter()
                    .any(|a| child.addresses.contains(a) && !wanted.contains(a))
            {
                self.taken
                    .push((child.key.clone(), child.allocated.clone()));
            }
            for ip in &child.allocated {
                holders.remove(ip);
            }
            holders.extend(wanted.iter().map(|ip| (*ip, child.key.clone())));
            let mut manifest = json!(child.service);
            manifest["status"] = ingress_status(&wanted);
            let pool = pool_of(&pools, &wanted);
            manifest["metadata"]["annotations"][self.mark()] = json!(pool.unwrap_or_default());
            self.ingress.insert(child.key.clone(), wanted);
            let _ = self.put(Kind::Service, manifest);
        }
        changed
    }

    fn elect(&mut self) -> bool {
        let mut changed = false;
        let pools = self.pools();
        for child in self.children() {
            let winner = pool_of(&pools, &child.allocated)
                .and_then(|pool| winner(&self.world, self.running, &child, pool));
            if self.announcer(&child.key) != winner.as_deref() {
                changed = true;
                match &winner {
                    Some(node) => self.announcing.insert(child.key.clone(), node.clone()),
                    None => self.announcing.remove(&child.key),
                };
            }
            let reported = self.world.announcers(&child.key).next();
            let report = winner.filter(|_| self.reports());
            if reported != report.as_deref() {
                changed = true;
                self.report(&child.key, report.as_deref());
            }
        }
        let known = self.announcing.keys().chain(self.world.announcers.keys());
        let gone: BTreeSet<Key> = known
            .filter(|key| self.world.child(key).is_none())
            .cloned()
            .collect();
        for key in gone {
            changed = true;
            self.announcing.remove(&key);
            self.report(&key, None);
        }
        changed
    }

    fn mark(&self) -> &'static str {
        if self.running.new_annotations {
            names::METALLB_ALLOCATED
        } else {
            names::METALLB_OLD_ALLOCATED
        }
    }

    fn reports(&self) -> bool {
        self.running.l2_status && self.world.capabilities.l2_status
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

/// The pool that holds all of some addresses.
fn pool_of<'a>(pools: &'a Pools, addresses: &[IpAddr]) -> Option<&'a str> {
    let holds = |ranges: &RangeSet| addresses.iter().all(|a| ranges.contains(*a));
    let mut named = pools.iter().filter(|_| !addresses.is_empty());
    named
        .find(|(_, (_, ranges))| holds(ranges))
        .map(|(name, _)| name.as_str())
}

/// What MetalLB's controller gives a Service, or leaves it.
fn give(
    world: &World,
    pools: &Pools,
    running: Capabilities,
    child: &Child,
    free: impl Fn(&IpAddr) -> bool,
) -> Vec<IpAddr> {
    let annotations = child
        .service
        .metadata
        .annotations
        .clone()
        .unwrap_or_default();
    let read = |new: &str, old: &str| {
        let value = annotations.get(new).filter(|_| running.new_annotations);
        value.or_else(|| annotations.get(old)).cloned()
    };
    let pool = read(names::METALLB_POOL, names::METALLB_OLD_POOL);
    let mut named: Vec<IpAddr> = read(names::METALLB_IPS, names::METALLB_OLD_IPS)
        .iter()
        .flat_map(|list| list.split(','))
        .filter_map(|a| a.parse().ok())
        .collect();
    named.sort_unstable();
    let (Some(pool), false) = (pool, named.is_empty()) else {
        // It asks for nothing that this version can read: it keeps what it
        // has, or gets something from a pool that is for everybody.
        if pool_of(pools, &child.allocated).is_some() {
            return child.allocated.clone();
        }
        let open = pools
            .values()
            .filter(|(pool, _)| pool.spec.auto_assign.unwrap_or(true));
        let mut offers = open.flat_map(|(_, ranges)| ranges.iter(Family::IPv4, None).take(50));
        return offers.find(&free).into_iter().collect();
    };
    let allowed = pools.get(&pool).is_some_and(|(pool, ranges)| {
        named.iter().all(|a| ranges.contains(*a) && free(a)) && allocates_to(world, pool, child)
    });
    if allowed { named } else { Vec::new() }
}

fn allocates_to(world: &World, pool: &IpAddressPool, child: &Child) -> bool {
    let labels = child.service.metadata.labels.clone().unwrap_or_default();
    let namespace = &child.key.namespace;
    pool.spec.service_allocation.as_ref().is_none_or(|to| {
        let (names, selectors) = (&to.namespaces, &to.namespace_selectors);
        let of_namespace = world.namespaces.get(namespace).map(|n| n.labels.clone());
        let is_selected =
            !selectors.is_empty() && selects(selectors, &of_namespace.unwrap_or_default());
        let anywhere = names.is_empty() && selectors.is_empty();
        (anywhere || names.contains(namespace) || is_selected)
            && selects(&to.service_selectors, &labels)
    })
}

fn selects(selectors: &[LabelSelector], labels: &BTreeMap<String, String>) -> bool {
    selectors.is_empty()
        || selectors
            .iter()
            .any(|s| Selector::parse(Some(s)).is_ok_and(|s| s.matches(labels)))
}

/// Who wins the election for a Service.
fn winner(world: &World, running: Capabilities, child: &Child, pool: &str) -> Option<String> {
    let labels = child.service.metadata.labels.clone().unwrap_or_default();
    let deciding = election::deciding_address(&child.allocated)?;
    let electors = electorate::order(world, running, pool, &labels, &deciding);
    let pods = world
        .endpoints
        .nodes(&child.key)
        .filter(|_| child.is_local());
    let has_pod = |name: &str| pods.as_ref().is_none_or(|nodes| nodes.contains(name));
    let mut able = electors.iter().filter(|e| e.barred.is_none());
    let first = able.find(|e| has_pod(&e.node.name))?;
    Some(first.node.name.clone())
}
