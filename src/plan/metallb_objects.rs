//! MetalLB's objects for the pools: what they should be, and in which order
//! they come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::{Value, json};

use super::change::{Action, Cause, Change, Stage};
use super::environment::{CandidateSet, Environment, Member};
use super::load_balancer::earlier;
use super::neighbours::pool_labels;
use super::pool::{PoolView, ip_address_pool_ref, is_ours, owned_pool};
use super::writing::{content_of, hold_back};
use crate::address::AddressRange;
use crate::api::names;
use crate::metallb::{L2AdvertisementSpec, PreferredNodeSelector};
use crate::selector;
use crate::world::{Key, Kind, LINGER, ObjectRef, World};

/// The objects of one pool, and how to get there.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolObjects {
    /// Everything that should exist, for `render`: the pool first.
    pub wanted: Vec<Value>,
    pub changes: Vec<Change>,
    pub deadline: Option<Timestamp>,
}

/// Plans the objects of a pool. `in_use` are addresses outside its ranges
/// that Services hold; `served` says whether any Service has one of its addresses.
pub(super) fn plan(
    world: &World,
    environment: &Environment,
    view: &PoolView,
    in_use: &[AddressRange],
    served: bool,
) -> PoolObjects {
    let mut result = PoolObjects::default();
    if view.terminating && !served {
        leave(world, view, &mut result);
        return result;
    }
    if !view.accepted.holds || !world.capabilities.can_prefer() {
        return result;
    }
    protect(world, view, &mut result);
    let spec = view.ip_address_pool(in_use.iter().copied(), &world.options.metallb_namespace);
    let object = ip_address_pool_ref(world, &view.name);
    let live = world.ip_address_pools.get(&object.key.name);
    let manifest = manifest(view, &object, &spec, BTreeMap::new());
    result.wanted.push(manifest.clone());
    let live_spec = live.map(|l| (l.metadata(), l.valid().map(|v| json!(v.spec))));
    write(
        world,
        view,
        Stage::Pool,
        object,
        manifest,
        live_spec,
        &mut result,
    );
    if view.configured.holds || view.exists {
        advertise(world, environment, view, &mut result);
    }
    result
}

/// Makes, mends and removes the advertisements of a pool.
fn advertise(world: &World, environment: &Environment, view: &PoolView, result: &mut PoolObjects) {
    let mut wanted = BTreeSet::new();
    for ((pool, _), set) in environment.sets() {
        if pool != view.name {
            continue;
        }
        for member in &set.members {
            let (object, manifest) = advertisement(world, view, set, member);
            result.wanted.push(manifest.clone());
            wanted.insert(object.key.name.clone());
            let live = world.l2_advertisements.get(&object.key.name);
            let live_spec = live.map(|l| (l.metadata(), l.valid().map(|v| json!(v.spec))));
            write(
                world,
                view,
                Stage::Advertise,
                object,
                manifest,
                live_spec,
                result,
            );
        }
    }
    let unwanted = ours(world, &view.name).filter(|(name, _)| !wanted.contains(*name));
    let unwanted: Vec<_> = unwanted.collect();
    if unwanted.is_empty() {
        return;
    }
    let used = used_advertisements(world, &view.name);
    for (name, meta) in unwanted {
        if !used.contains(name) {
            withdraw(
                world,
                Stage::Unadvertise,
                Kind::L2Advertisement,
                name,
                meta,
                result,
            );
        }
    }
}

/// Removes everything of a pool that is being deleted and holds no address:
/// what a speaker still announces must have ended first, as a speaker that
/// announces an address refuses a configuration without it.
fn leave(world: &World, view: &PoolView, result: &mut PoolObjects) {
    for (name, meta) in ours(world, &view.name) {
        withdraw(
            world,
            Stage::Unadvertise,
            Kind::L2Advertisement,
            name,
            meta,
            result,
        );
    }
    let object = ip_address_pool_ref(world, &view.name);
    let pool = world.ip_address_pools.get(&object.key.name);
    if let Some(pool) = pool.filter(|p| is_ours(p.metadata(), &view.name)) {
        let name = object.key.name.clone();
        withdraw(
            world,
            Stage::Unpool,
            Kind::IpAddressPool,
            &name,
            pool.metadata(),
            result,
        );
    } else if has_finalizer(world, &view.name) {
        result
            .changes
            .push(finalizer(world, view, Stage::Release, false));
    }
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
    for (name, stored) in &world.l2_advertisements {
        if lost(stored.metadata()) {
            let meta = stored.metadata();
            withdraw(
                world,
                Stage::Unadvertise,
                Kind::L2Advertisement,
                name,
                meta,
                &mut result,
            );
        }
    }
    for (name, stored) in &world.ip_address_pools {
        if lost(stored.metadata()) {
            let meta = stored.metadata();
            withdraw(
                world,
                Stage::Unpool,
                Kind::IpAddressPool,
                name,
                meta,
                &mut result,
            );
        }
    }
    result
}

/// Deletes an object, unless a speaker still announces a Service that went a
/// moment ago.
fn withdraw(
    world: &World,
    stage: Stage,
    kind: Kind,
    name: &str,
    meta: &ObjectMeta,
    result: &mut PoolObjects,
) {
    if meta.deletion_timestamp.is_some() {
        return;
    }
    let lingering = world
        .departed
        .iter()
        .filter(|(service, _)| world.announcers.contains_key(service))
        .filter_map(|(_, at)| at.checked_add(LINGER).ok())
        .filter(|until| *until > world.now)
        .min();
    if lingering.is_some() {
        result.deadline = earlier(result.deadline, lingering);
        return;
    }
    let change = Change {
        stage,
        object: ObjectRef {
            kind,
            key: Key::new(world.options.metallb_namespace.clone(), name.to_owned()),
        },
        action: Action::Delete {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
        },
        cause: Cause::Unwanted,
        pool: None,
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
        "metadata": {
            "name": view.name,
            "uid": view.uid,
            "resourceVersion": meta.and_then(|m| m.resource_version.clone()),
        },
    });
    if held {
        body["metadata"]["finalizers"] = json!([names::POOL_FINALIZER]);
    }
    Change {
        stage,
        object: ObjectRef {
            kind: Kind::AddressPool,
            key: Key::new("", view.name.clone()),
        },
        content: content_of(&body),
        action: Action::Apply(body.into()),
        cause: Cause::Finalizer,
        pool: None,
    }
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
        node_selectors: if set.selector.is_everything() {
            Vec::new()
        } else {
            vec![set.selector.to_label_selector()]
        },
        interfaces: view.interfaces.clone(),
        service_selectors: vec![selector::labels([
            (names::CANDIDATES, set.id.as_str()),
            (names::PIN, &member.value),
        ])],
        preferred_node_selectors: vec![PreferredNodeSelector {
            weight: 100,
            preference: selector::one_label(names::HOSTNAME, &member.hostname),
        }],
    };
    let object = ObjectRef {
        kind: Kind::L2Advertisement,
        key: Key::new(
            world.options.metallb_namespace.clone(),
            names::advertisement_name(&view.name, &set.id, &member.value),
        ),
    };
    let labels = BTreeMap::from([
        (names::CANDIDATES.to_owned(), set.id.clone()),
        (names::PIN.to_owned(), member.value.to_string()),
    ]);
    let manifest = manifest(view, &object, &spec, labels);
    (object, manifest)
}

/// The object as it is applied, with a digest of its spec: a field that is
/// wanted no more is seen by the digest alone.
fn manifest(
    view: &PoolView,
    object: &ObjectRef,
    spec: &impl Serialize,
    more_labels: BTreeMap<String, String>,
) -> Value {
    let mut labels = pool_labels(&view.name);
    labels.extend(more_labels);
    let spec = json!(spec);
    let owner = view.uid.as_ref().map(|uid| {
        vec![OwnerReference {
            api_version: format!("{}/{}", names::GROUP, names::VERSION),
            kind: "L2AddressPool".to_owned(),
            name: view.name.clone(),
            uid: uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(false),
        }]
    });
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": object.kind.as_str(),
        "metadata": ObjectMeta {
            name: Some(object.key.name.clone()),
            namespace: Some(object.key.namespace.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(
                names::TEMPLATE.to_owned(),
                names::short_digest(&spec.to_string()),
            )])),
            owner_references: owner,
            ..ObjectMeta::default()
        },
        "spec": spec,
    })
}

/// Writes an object if it is not as wanted, and not somebody else's.
fn write(
    world: &World,
    view: &PoolView,
    stage: Stage,
    object: ObjectRef,
    mut manifest: Value,
    live: Option<(&ObjectMeta, Option<Value>)>,
    result: &mut PoolObjects,
) {
    let content = content_of(&manifest);
    let (action, cause) = match live {
        None => (Action::Create(manifest.into()), Cause::New),
        Some((meta, _)) if !is_ours(meta, &view.name) => return,
        Some((meta, _)) if meta.deletion_timestamp.is_some() => return,
        Some((meta, spec)) => {
            let digest = |m: &Value| m["metadata"]["annotations"][names::TEMPLATE].clone();
            let have = meta
                .annotations
                .as_ref()
                .and_then(|a| a.get(names::TEMPLATE));
            let cause = if digest(&manifest).as_str() != have.map(String::as_str) {
                Cause::Spec
            } else if spec.is_none_or(|have| !covers(&manifest["spec"], &have))
                || !labels_cover(&manifest, meta)
            {
                Cause::Drift
            } else {
                return;
            };
            manifest["metadata"]["resourceVersion"] = json!(meta.resource_version);
            (Action::Apply(manifest.into()), cause)
        }
    };
    let change = Change {
        stage,
        object,
        action,
        cause,
        pool: Some(view.name.clone()),
        content,
    };
    let (change, until) = hold_back(world, change);
    result.deadline = earlier(result.deadline, until);
    result.changes.extend(change);
}

fn labels_cover(manifest: &Value, meta: &ObjectMeta) -> bool {
    let wanted = manifest["metadata"]["labels"].as_object();
    wanted.into_iter().flatten().all(|(key, value)| {
        meta.labels
            .as_ref()
            .and_then(|l| l.get(key))
            .map(String::as_str)
            == value.as_str()
    })
}

/// Whether every wanted field is as wanted. Lists are one value each, as in
/// MetalLB's definitions.
fn covers(wanted: &Value, have: &Value) -> bool {
    match (wanted, have) {
        (Value::Object(wanted), Value::Object(have)) => wanted
            .iter()
            .all(|(key, value)| have.get(key).is_some_and(|h| covers(value, h))),
        _ => wanted == have,
    }
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
