//! L2AddressPools: are they usable, and what MetalLB must be given for them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::ability::{self, Lacking};
use super::neighbours::{self, Sharing};
use crate::address::{AddressRange, Family, RangeSet, is_buggy};
use crate::api::condition::Verdict;
use crate::api::{ConditionType, L2AddressPool, L2AddressPoolSpec, OnCordon, Reason, names};
use crate::metallb::{IpAddressPoolSpec, ServiceAllocation};
use crate::selector::{self, Selector};
use crate::world::{Kind, ObjectRef, Stored, World};

/// A pool as the planner sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PoolView {
    pub name: String,
    pub generation: Option<i64>,
    pub uid: Option<String>,
    /// Being deleted: it gives out nothing new.
    pub terminating: bool,
    /// Condition Accepted.
    pub accepted: Verdict,
    /// Condition Configured: what stands between MetalLB and this pool.
    pub configured: Verdict,
    /// What it may give out: its ranges without the exclusions.
    pub ranges: RangeSet,
    pub avoid_buggy: bool,
    pub node_selector: Selector,
    pub namespace_selector: Option<Selector>,
    pub interfaces: Vec<String>,
    pub load_balancer_class: String,
    pub on_cordon: OnCordon,
    /// Domains below which names may be asked for.
    pub dns_domains: Vec<String>,
    /// Nodes that lack the interfaces.
    pub lacking: Lacking,
    /// A foreign advertisement that outranks our preferences.
    pub conflict: Option<String>,
    /// A foreign advertisement that adds nodes to the candidates of slots with
    /// own pools.
    pub shared: Option<Sharing>,
    /// MetalLB knows preferences.
    pub prefers: bool,
    /// MetalLB has its IPAddressPool already.
    pub exists: bool,
}

impl PoolView {
    /// Whether new Services may be made: accepted, and MetalLB has the pool
    /// or will have it before them.
    pub fn usable(&self) -> Result<(), (Reason, String)> {
        if !self.accepted.holds {
            let (reason, message) = (self.accepted.reason, &self.accepted.message);
            let reason = match reason {
                Reason::MetalLBMissing | Reason::MetalLBTooOld => reason,
                _ => Reason::PoolNotAccepted,
            };
            return Err((
                reason,
                format!("L2AddressPool {} is not accepted: {message}", self.name),
            ));
        }
        if !self.configured.holds && !self.exists {
            let message = &self.configured.message;
            return Err((
                self.configured.reason,
                format!(
                    "L2AddressPool {} cannot be given to MetalLB: {message}",
                    self.name
                ),
            ));
        }
        Ok(())
    }

    /// The foreign advertisement that draws addresses of new slots to other nodes.
    pub fn spoiler(&self) -> Option<&String> {
        match (self.prefers, &self.shared) {
            (true, _) => self.conflict.as_ref(),
            (false, shared) => shared.as_ref().map(|s| &s.name),
        }
    }

    /// Whether it can give out an address, if nobody has it.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.ranges.contains(address) && !(self.avoid_buggy && is_buggy(address))
    }

    /// Addresses of a family that it can give out in all.
    pub fn capacity(&self, family: Family) -> u128 {
        let buggy = if self.avoid_buggy {
            self.ranges.count_buggy(family)
        } else {
            0
        };
        self.ranges.len(family) - buggy
    }

    /// The spec of MetalLB's pool with some addresses. Those in use must be
    /// among them, and the namespaces that use them: taking one out would take
    /// its address from a Service.
    pub fn ip_address_pool(
        &self,
        addresses: &RangeSet,
        in_use_by: BTreeSet<&str>,
        metallb_namespace: &str,
    ) -> IpAddressPoolSpec {
        let addresses = addresses.ranges().iter().map(ToString::to_string);
        let addresses = addresses.collect();
        let mut namespaces = Vec::new();
        let mut namespace_selectors: Vec<LabelSelector> = Vec::new();
        if let Some(selector) = &self.namespace_selector
            && !selector.is_everything()
        {
            namespace_selectors.push(selector.to_label_selector());
            // One that loses its label keeps what it has.
            let mut all = in_use_by;
            // MetalLB takes a set of namespaces that comes out empty as no
            // restriction. Its own namespace, where tenants have no rights,
            // keeps the set from being empty.
            all.insert(metallb_namespace);
            namespaces.extend(all.into_iter().map(str::to_owned));
        }
        IpAddressPoolSpec {
            addresses,
            auto_assign: Some(false),
            // What is given out is our choice. MetalLB would refuse its whole
            // configuration over such an address that is in use.
            avoid_buggy_ips: Some(false),
            service_allocation: Some(ServiceAllocation {
                namespaces,
                namespace_selectors,
                service_selectors: vec![selector::labels([
                    (names::MANAGED_BY, names::MANAGED_BY_VALUE),
                    (names::POOL, &self.name),
                ])],
            }),
        }
    }
}

/// What the spec alone says.
pub(crate) struct ParsedSpec {
    pub all: RangeSet,
    pub usable: RangeSet,
    pub nodes: Selector,
    pub namespaces: Option<Selector>,
}

/// Something wrong with one field of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The field's path.
    pub field: String,
    /// A sentence.
    pub message: String,
}

impl Problem {
    pub fn new(field: impl Into<String>, message: impl ToString) -> Self {
        Self {
            field: field.into(),
            message: message.to_string(),
        }
    }

    /// Field and sentence in one.
    pub fn text(&self) -> String {
        if self.field.starts_with("spec") {
            format!("{}: {}", self.field, self.message)
        } else {
            self.message.clone()
        }
    }
}

/// Reads a pool's spec, or says in a sentence what is wrong with it.
pub(crate) fn parse_spec(name: &str, spec: &L2AddressPoolSpec) -> Result<ParsedSpec, String> {
    let (parsed, problems) = read_spec(name, spec);
    match problems.first() {
        None => Ok(parsed),
        Some(problem) => Err(problem.text()),
    }
}

/// Reads a pool's spec as far as it can be read, with everything that is
/// wrong with it.
pub(crate) fn read_spec(name: &str, spec: &L2AddressPoolSpec) -> (ParsedSpec, Vec<Problem>) {
    let mut problems = Vec::new();
    if name.len() > names::MAX_POOL_NAME {
        problems.push(Problem::new(
            "metadata.name",
            format!(
                "the name has {} characters; at most {} fit, because MetalLB's pool is named \
                 l2lb-NAME and must fit a label value",
                name.len(),
                names::MAX_POOL_NAME
            ),
        ));
    }
    let all = read_ranges("addresses", &spec.addresses, &mut problems);
    let excluded = read_ranges("excludedAddresses", &spec.excluded_addresses, &mut problems);
    let usable = all.minus(&excluded);
    if usable.is_empty() && problems.is_empty() {
        problems.push(Problem::new(
            "spec.addresses",
            "without spec.excludedAddresses no address is left: widen the one or shorten the other",
        ));
    }
    let mut select = |field: &str, selector| {
        Selector::parse(selector).unwrap_or_else(|error| {
            problems.push(Problem::new(field, error));
            Selector::default()
        })
    };
    let nodes = select("spec.nodeSelector", spec.node_selector.as_ref());
    let namespaces = spec
        .namespace_selector
        .as_ref()
        .map(|s| select("spec.namespaceSelector", Some(s)));
    (
        ParsedSpec {
            all,
            usable,
            nodes,
            namespaces,
        },
        problems,
    )
}

fn read_ranges(field: &str, texts: &[String], problems: &mut Vec<Problem>) -> RangeSet {
    let mut ranges: Vec<AddressRange> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match AddressRange::parse(text) {
            Ok(range) => ranges.push(range),
            Err(error) => problems.push(Problem::new(format!("spec.{field}[{index}]"), error)),
        }
    }
    ranges.into_iter().collect()
}

/// Every pool, the oldest first: where two overlap, the older one stands.
pub(super) fn read_all(world: &World) -> Vec<PoolView> {
    let mut stored: Vec<_> = world.pools.iter().collect();
    stored.sort_by_key(|(name, pool)| (pool.metadata().creation_timestamp.clone(), *name));
    let mut taken: Vec<(String, RangeSet)> = Vec::new();
    let mut views = Vec::new();
    for (name, pool) in stored {
        let view = match pool {
            Stored::Valid(pool) => read_one(world, pool, &mut taken),
            Stored::Broken {
                error, metadata, ..
            } => {
                let mut view = blank(name, metadata.generation, metadata.uid.clone());
                view.terminating = metadata.deletion_timestamp.is_some();
                view.accepted = Verdict::fails(
                    ConditionType::Accepted,
                    Reason::Unreadable,
                    format!(
                        "the stored object cannot be read ({error}): write it anew with kubectl replace"
                    ),
                );
                view
            }
        };
        views.push(view);
    }
    views
}

fn blank(name: &str, generation: Option<i64>, uid: Option<String>) -> PoolView {
    PoolView {
        name: name.to_owned(),
        generation,
        uid,
        terminating: false,
        accepted: Verdict::holds(ConditionType::Accepted, "the pool is in use"),
        configured: Verdict::holds(
            ConditionType::Configured,
            format!(
                "MetalLB has IPAddressPool {}",
                names::ip_address_pool_name(name)
            ),
        ),
        ranges: RangeSet::default(),
        avoid_buggy: false,
        node_selector: Selector::default(),
        namespace_selector: None,
        interfaces: Vec::new(),
        load_balancer_class: String::new(),
        on_cordon: OnCordon::default(),
        dns_domains: Vec::new(),
        lacking: Lacking::default(),
        conflict: None,
        shared: None,
        prefers: false,
        exists: false,
    }
}

fn read_one(world: &World, pool: &L2AddressPool, taken: &mut Vec<(String, RangeSet)>) -> PoolView {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let mut view = blank(name, pool.metadata.generation, pool.metadata.uid.clone());
    view.terminating = pool.metadata.deletion_timestamp.is_some();
    let mut interfaces = pool.spec.interfaces.clone();
    interfaces.sort();
    interfaces.dedup();
    view.lacking = ability::of_pool(world, pool, &interfaces);
    view.interfaces = interfaces;
    view.avoid_buggy = pool.spec.avoid_buggy_ips;
    view.on_cordon = pool.spec.on_cordon;
    view.dns_domains = pool.spec.dns_domains.clone();
    view.load_balancer_class = pool.spec.load_balancer_class.clone();

    let metallb_name = names::ip_address_pool_name(name);
    let existing = world.ip_address_pools.get(&metallb_name);
    let ours = existing.is_some_and(|p| is_ours(p.metadata(), name));
    view.exists = ours;

    let mut crowded = None;
    let refuse = |reason, message| Verdict::fails(ConditionType::Accepted, reason, message);
    match parse_spec(name, &pool.spec) {
        Err(message) => view.accepted = refuse(Reason::InvalidSpec, message),
        Ok(parsed) => {
            view.ranges = parsed.usable;
            view.node_selector = parsed.nodes;
            view.namespace_selector = parsed.namespaces;
            let judged = neighbours::judge_pool(world, name, &parsed.all, &view.ranges, taken);
            let takes = neighbours::takes(world, name, &view.ranges, taken);
            match (judged, takes) {
                (Err((reason, message)), _) => view.accepted = refuse(reason, message),
                (Ok(()), None) => taken.push((name.to_owned(), parsed.all)),
                // One that serves goes on without them.
                (Ok(()), Some((theirs, message))) if serves(world, name) => {
                    view.ranges = view.ranges.minus(&theirs);
                    taken.push((name.to_owned(), parsed.all.minus(&theirs)));
                    crowded = Some(message);
                }
                (Ok(()), Some((_, message))) => {
                    view.accepted = refuse(Reason::AddressOverlap, message);
                }
            }
        }
    }
    view.conflict = neighbours::conflicting_advertisement(world, name, &view.node_selector);
    view.shared = neighbours::sharing_advertisement(world, name);
    view.prefers = world.capabilities.can_prefer();
    if world.capabilities.installed && !view.prefers {
        view.configured = Verdict::holds(
            ConditionType::Configured,
            "the installed MetalLB has no preferredNodeSelectors (before 0.16.2): each address \
             has an IPAddressPool of its own",
        );
    }

    let unconfigured = |reason, message| Verdict::fails(ConditionType::Configured, reason, message);
    if !world.capabilities.installed {
        view.configured = unconfigured(
            Reason::MetalLBMissing,
            format!(
                "the resource definitions of MetalLB (ipaddresspools.metallb.io, \
                 l2advertisements.metallb.io) are not installed: install MetalLB 0.16.2 or later \
                 in namespace {}; this pool is served as soon as they appear",
                world.options.metallb_namespace
            ),
        );
    } else if existing.is_some() && !ours && world.capabilities.can_prefer() {
        view.configured = unconfigured(
            Reason::NameTaken,
            format!(
                "IPAddressPool {}/{metallb_name} exists and is not ours: rename or delete it",
                world.options.metallb_namespace
            ),
        );
    } else if let Some((object, refusal)) = refusal(world, name) {
        view.configured = unconfigured(
            Reason::Refused,
            format!("{object} was refused: {}", refusal.message),
        );
    } else if let Some(message) = crowded {
        view.configured = match ours {
            true => unconfigured(Reason::AddressOverlap, message),
            // Each slot has a pool of its own, and none is left out.
            false => Verdict::holds(ConditionType::Configured, message),
        };
    }
    view
}

/// Whether MetalLB has anything of a pool.
fn serves(world: &World, pool: &str) -> bool {
    let mut pools = world.ip_address_pools.values();
    pools.any(|stored| is_ours(stored.metadata(), pool))
}

/// The first refusal of one of the pool's MetalLB objects.
fn refusal<'a>(world: &'a World, pool: &str) -> Option<(&'a ObjectRef, &'a crate::world::Refusal)> {
    let pool_name = names::ip_address_pool_name(pool);
    world.refusals.iter().find(|(object, _)| match object.kind {
        Kind::IpAddressPool => object.key.name == pool_name,
        // l2lb-POOL-DIGEST-NODE: the digest has ten digits, which tells pool
        // `a` from pool `a-b`.
        Kind::L2Advertisement => object
            .key
            .name
            .strip_prefix(&format!("{pool_name}-"))
            .and_then(|rest| rest.split('-').next())
            .is_some_and(|d| d.len() == 10 && d.bytes().all(|b| b.is_ascii_hexdigit())),
        _ => false,
    })
}

/// Whether a MetalLB object is one that this project made for a pool.
pub(super) fn is_ours(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    pool: &str,
) -> bool {
    owned_pool(meta).is_some_and(|p| p == pool)
}

/// The pool that one of our MetalLB objects was made for.
pub(crate) fn owned_pool(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Option<&str> {
    let labels = meta.labels.as_ref()?;
    (labels.get(names::MANAGED_BY)? == names::MANAGED_BY_VALUE)
        .then(|| labels.get(names::POOL).map(String::as_str))?
}

#[cfg(test)]
mod tests;
