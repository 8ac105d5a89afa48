//! MetalLB's objects for the pools: what they should be, and in which order
//! they come and go.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use serde_json::{Value, json};

use super::ability::Trouble;
use super::change::{Action, Cause, Change, Stage};
use super::environment::{CandidateSet, Environment, Member};
use super::load_balancer::earlier;
use super::metallb_changes::{PoolObjects, Writing, manifest};
use super::needs::metallb_object;
use super::pool::{PoolView, is_ours, owned_pool};
use super::writing::{content_of, hold_back};
use crate::address::{AddressRange, RangeSet};
use crate::api::names;
use crate::metallb::{L2AdvertisementSpec, PREFERENCE, PreferredNodeSelector};
use crate::selector;
use crate::world::{Key, Kind, LINGER, ObjectRef, World};

/// [`LINGER`] where no speaker reports what it announces: long enough for it
/// to hear that the Service is gone.
const UNSEEN: SignedDuration = SignedDuration::from_secs(5);

/// What is in use of a pool, or will be.
pub(super) struct InUse<'a> {
    /// Addresses that Services hold, those outside its ranges at least.
    pub addresses: &'a [AddressRange],
    /// The namespaces of such Services.
    pub by: BTreeSet<&'a str>,
    /// Addresses that lie, or will lie, in slots' own pools.
    pub own: &'a RangeSet,
    /// Whether any Service has one of its addresses.
    pub served: bool,
}

/// Plans the objects that the slots of a pool share.
pub(super) fn plan(
    world: &World,
    environment: &Environment,
    view: &PoolView,
    in_use: InUse<'_>,
) -> PoolObjects {
    let InUse {
        addresses: held,
        by,
        own,
        served,
    } = in_use;
    let mut result = PoolObjects::default();
    if view.terminating && !served {
        leave(world, view, &mut result);
        return result;
    }
    if !view.accepted.holds || !world.capabilities.installed {
        return result;
    }
    protect(world, view, &mut result);
    let addresses = if world.capabilities.can_prefer() {
        view.ranges.plus(held.iter().copied()).minus(own)
    } else {
        // A MetalLB that was downgraded: what is in use stays where it is, and
        // leaves room for the pools of new slots.
        in_shared_pool(world, &view.name).minus(own)
    };
    let name = names::ip_address_pool_name(&view.name);
    let object = metallb_object(world, Kind::IpAddressPool, &name);
    let writing = Writing {
        world,
        view,
        ip_address_pool: &name,
    };
    if addresses.is_empty() {
        let live = world.ip_address_pools.get(&name);
        if let Some(live) = live.filter(|p| is_ours(p.metadata(), &view.name)) {
            let (kind, meta) = (Kind::IpAddressPool, live.metadata());
            withdraw(world, kind, &name, meta, &mut result);
        }
    } else {
        let spec = view.ip_address_pool(&addresses, by, &world.options.metallb_namespace);
        let manifest = manifest(view, &object, &spec, []);
        writing.write(Stage::Pool, object, manifest, &mut result);
    }
    let advertised = (view.configured.holds || view.exists) && !addresses.is_empty();
    advertise(environment, &writing, advertised, &mut result);
    result
}

/// The addresses of the Services that share a pool.
fn in_shared_pool(world: &World, pool: &str) -> RangeSet {
    let children = world.children.values().flat_map(|slots| slots.values());
    children
        .filter(|c| c.pool == pool && !c.has_own_pool())
        .flat_map(|c| c.all_addresses())
        .map(AddressRange::single)
        .collect()
}

/// Makes, mends and removes the advertisements that slots of a pool share. A
/// MetalLB without preferences is only given those that are missing: the ones
/// that exist would lose a part.
fn advertise(
    environment: &Environment,
    writing: &Writing<'_>,
    wanted: bool,
    result: &mut PoolObjects,
) {
    let Writing { world, view, .. } = *writing;
    let mut names = BTreeSet::new();
    for ((pool, _), set) in environment.sets() {
        if pool != view.name || !wanted {
            continue;
        }
        for member in &set.members {
            let (object, manifest) = advertisement(world, view, set, member);
            let name = object.key.name.clone();
            if world.capabilities.can_prefer() || !world.l2_advertisements.contains_key(&name) {
                writing.write(Stage::Advertise, object, manifest, result);
            }
            names.insert(name);
        }
    }
    let wanted = names;
    let unwanted = ours(world, &view.name)
        .filter(|(name, _)| !wanted.contains(*name) && !names::is_own_pool(name));
    let unwanted: Vec<_> = unwanted.collect();
    if unwanted.is_empty() {
        return;
    }
    let used = used_advertisements(world, &view.name);
    for (name, meta) in unwanted {
        if !used.contains(name) {
            withdraw(world, Kind::L2Advertisement, name, meta, result);
        }
    }
}

/// Removes everything of a pool that is being deleted and holds no address:
/// what a speaker still announces must have ended first, as a speaker that
/// announces an address refuses a configuration without it.
fn leave(world: &World, view: &PoolView, result: &mut PoolObjects) {
    for (name, meta) in ours(world, &view.name) {
        withdraw(world, Kind::L2Advertisement, name, meta, result);
    }
    let mut pools = world
        .ip_address_pools
        .iter()
        .filter(|(_, pool)| is_ours(pool.metadata(), &view.name))
        .peekable();
    if pools.peek().is_some() {
        for (name, pool) in pools {
            let (kind, meta) = (Kind::IpAddressPool, pool.metadata());
            withdraw(world, kind, name, meta, result);
        }
    } else if has_finalizer(world, &view.name) {
        result
            .changes
            .push(finalizer(world, view, Stage::Release, false));
    }
}

/// Everything that MetalLB reads of a pool, the advertisements first.
fn all(world: &World) -> impl Iterator<Item = (Kind, &String, &ObjectMeta)> {
    let advertisements = world.l2_advertisements.iter();
    let pools = world.ip_address_pools.iter();
    advertisements
        .map(|(name, stored)| (Kind::L2Advertisement, name, stored.metadata()))
        .chain(pools.map(|(name, stored)| (Kind::IpAddressPool, name, stored.metadata())))
}

/// Removes MetalLB objects of ours whose L2AddressPool is no more.
pub(super) fn orphans(world: &World) -> PoolObjects {
    let mut result = PoolObjects::default();
    let lost = |meta: &ObjectMeta| {
        owned_pool(meta).is_some_and(|pool| {
            !world.pools.contains_key(pool)
                && world
                    .children
                    .values()
                    .flat_map(|c| c.values())
                    .all(|c| c.pool != pool)
        })
    };
    for (kind, name, meta) in all(world).filter(|(_, _, meta)| lost(meta)) {
        withdraw(world, kind, name, meta, &mut result);
    }
    result
}

/// Whether MetalLB has any pool or advertisement that a slot has, or had, for itself.
pub(super) fn has_own(world: &World) -> bool {
    all(world).any(|(_, name, _)| names::is_own_pool(name))
}

/// Removes slots' own pools and advertisements that no slot has any more.
/// `wanted` are the names of those that slots have or will have.
pub(super) fn unused_own(world: &World, wanted: &BTreeSet<&str>) -> PoolObjects {
    let mut result = PoolObjects::default();
    for (kind, name, meta) in all(world) {
        // Without its L2AddressPool it is an orphan.
        let ours = owned_pool(meta).is_some_and(|pool| world.pools.contains_key(pool));
        if names::is_own_pool(name) && ours && !wanted.contains(name.as_str()) {
            withdraw(world, kind, name, meta, &mut result);
        }
    }
    result
}

/// Until when a Service that went is thought to be announced still.
fn lingers(world: &World, service: &Key, departed: Timestamp) -> Option<Timestamp> {
    let announced = if world.reports_announcers() {
        world.announcers.contains_key(service).then_some(LINGER)
    } else {
        Some(UNSEEN)
    };
    let until = departed.checked_add(announced?).ok()?;
    (until > world.now).then_some(until)
}

/// Deletes an object, unless a speaker still announces a Service that went a
/// moment ago.
fn withdraw(world: &World, kind: Kind, name: &str, meta: &ObjectMeta, result: &mut PoolObjects) {
    if meta.deletion_timestamp.is_some() {
        return;
    }
    let lingering = match names::own_pool_service(name) {
        Some((namespace, service)) => {
            let service = Key::new(namespace, service);
            let departed = world.departed.get(&service);
            departed.and_then(|at| lingers(world, &service, *at))
        }
        None => world
            .departed
            .iter()
            .filter_map(|(service, at)| lingers(world, service, *at))
            .min(),
    };
    if lingering.is_some() {
        result.deadline = earlier(result.deadline, lingering);
        return;
    }
    let change = Change {
        // A pool goes after what advertises it.
        stage: match kind {
            Kind::L2Advertisement => Stage::Unadvertise,
            _ => Stage::Unpool,
        },
        object: metallb_object(world, kind, name),
        action: Action::Delete {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
        },
        cause: Cause::Unwanted,
        needs: Vec::new(),
        content: 0,
    };
    let (change, until) = hold_back(world, change);
    result.deadline = earlier(result.deadline, until);
    result.changes.extend(change);
}

/// Holds a pool until none of its addresses is in use.
fn protect(world: &World, view: &PoolView, result: &mut PoolObjects) {
    if !view.terminating && !has_finalizer(world, &view.name) {
        result
            .changes
            .push(finalizer(world, view, Stage::Protect, true));
    }
}

fn has_finalizer(world: &World, pool: &str) -> bool {
    world.pools.get(pool).is_some_and(|p| {
        p.metadata()
            .finalizers
            .iter()
            .flatten()
            .any(|f| f == names::POOL_FINALIZER)
    })
}

fn finalizer(world: &World, view: &PoolView, stage: Stage, held: bool) -> Change {
    let meta = world.pools.get(&view.name).map(|p| p.metadata());
    let mut body = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": "L2AddressPool",
        "metadata": {"name": view.name, "uid": view.uid},
    });
    if held {
        body["metadata"]["finalizers"] = json!([names::POOL_FINALIZER]);
    }
    // The same wish at another resource version is no other one.
    let content = content_of(&body);
    body["metadata"]["resourceVersion"] = json!(meta.and_then(|m| m.resource_version.clone()));
    Change {
        stage,
        object: ObjectRef {
            kind: Kind::AddressPool,
            key: Key::new("", view.name.clone()),
        },
        content,
        action: Action::Apply(body.into()),
        cause: Cause::Finalizer,
        needs: Vec::new(),
    }
}

/// The weight by which a node wins MetalLB's elections.
pub(super) fn preference(member: &Member) -> PreferredNodeSelector {
    PreferredNodeSelector {
        weight: PREFERENCE,
        preference: selector::one_label(names::HOSTNAME, &member.hostname),
    }
}

/// The candidates but those that lack the pool's interfaces: MetalLB would
/// elect them all the same, and then nobody announces.
fn node_selectors(set: &CandidateSet) -> Vec<LabelSelector> {
    let mut selected = set.selector.to_label_selector();
    let lacking: BTreeSet<&String> = set
        .members
        .iter()
        .filter(|m| m.trouble == Some(Trouble::NoInterface))
        .map(|m| &m.hostname)
        .collect();
    if !lacking.is_empty() {
        let others = LabelSelectorRequirement {
            key: names::HOSTNAME.to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(lacking.into_iter().cloned().collect()),
        };
        selected
            .match_expressions
            .get_or_insert_default()
            .push(others);
    } else if set.selector.is_everything() {
        return Vec::new();
    }
    vec![selected]
}

/// The advertisement that prefers one node for the Services pinned to it.
fn advertisement(
    world: &World,
    view: &PoolView,
    set: &Arc<CandidateSet>,
    member: &Member,
) -> (ObjectRef, Value) {
    let spec = L2AdvertisementSpec {
        ip_address_pools: vec![names::ip_address_pool_name(&view.name)],
        ip_address_pool_selectors: Vec::new(),
        node_selectors: node_selectors(set),
        interfaces: view.interfaces.clone(),
        service_selectors: if world.capabilities.service_selectors {
            vec![selector::labels([
                (names::CANDIDATES, set.id.as_str()),
                (names::PIN, &member.value),
            ])]
        } else {
            Vec::new()
        },
        preferred_node_selectors: if world.capabilities.can_prefer() {
            vec![preference(member)]
        } else {
            Vec::new()
        },
    };
    let name = names::advertisement_name(&view.name, &set.id, &member.value);
    let object = metallb_object(world, Kind::L2Advertisement, &name);
    let labels = [
        (names::CANDIDATES.to_owned(), set.id.clone()),
        (names::PIN.to_owned(), member.value.to_string()),
    ];
    let manifest = manifest(view, &object, &spec, labels);
    (object, manifest)
}

/// Our advertisements for a pool.
fn ours<'a>(world: &'a World, pool: &'a str) -> impl Iterator<Item = (&'a String, &'a ObjectMeta)> {
    world
        .l2_advertisements
        .iter()
        .map(|(name, stored)| (name, stored.metadata()))
        .filter(move |(_, meta)| is_ours(meta, pool))
}

/// The advertisements that Services of a pool are bound to by their labels.
fn used_advertisements(world: &World, pool: &str) -> BTreeSet<String> {
    world
        .children
        .values()
        .flat_map(|slots| slots.values())
        .filter(|c| c.pool == pool)
        .map(|c| names::advertisement_name(pool, &c.candidates, &c.pin))
        .collect()
}
