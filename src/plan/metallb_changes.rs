//! MetalLB's objects of a pool, compared with those that exist.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::{Value, json};

use super::change::{Action, Cause, Change, Stage};
use super::load_balancer::earlier;
use super::needs::metallb_object;
use super::neighbours::pool_labels;
use super::pool::{PoolView, is_ours};
use super::writing::{content_of, hold_back};
use crate::api::names;
use crate::world::{Kind, ObjectRef, World};

/// The objects of one pool, and how to get there.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolObjects {
    /// Everything that should exist, for `render`: the pool first.
    pub wanted: Vec<Value>,
    pub changes: Vec<Change>,
    pub deadline: Option<Timestamp>,
}

/// The object as it is applied, with a digest of its spec: a field that is
/// wanted no more is seen by the digest alone.
pub(super) fn manifest(
    view: &PoolView,
    object: &ObjectRef,
    spec: &impl Serialize,
    more_labels: impl IntoIterator<Item = (String, String)>,
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

/// What the writes of MetalLB's objects have in common.
pub(super) struct Writing<'a> {
    pub world: &'a World,
    pub view: &'a PoolView,
    /// The IPAddressPool that they are for.
    pub ip_address_pool: &'a str,
}

impl Writing<'_> {
    /// Notes that an object is wanted, and writes it if it is not as wanted,
    /// and not somebody else's.
    pub fn write(
        &self,
        stage: Stage,
        object: ObjectRef,
        mut manifest: Value,
        result: &mut PoolObjects,
    ) {
        result.wanted.push(manifest.clone());
        let content = content_of(&manifest);
        let mut needs = Vec::new();
        let (action, cause) = match self.live(&object) {
            None => {
                if stage == Stage::Advertise && !self.has_pool() {
                    let name = self.ip_address_pool;
                    needs.push(metallb_object(self.world, Kind::IpAddressPool, name));
                }
                (Action::Create(manifest.into()), Cause::New)
            }
            Some((meta, _)) if !is_ours(meta, &self.view.name) => return,
            Some((meta, _)) if meta.deletion_timestamp.is_some() => return,
            Some((meta, spec)) => {
                let Some(cause) = difference(&manifest, meta, spec) else {
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
            needs,
            content,
        };
        let (change, until) = hold_back(self.world, change);
        result.deadline = earlier(result.deadline, until);
        result.changes.extend(change);
    }

    /// Whether the pool is there, as planned or not.
    fn has_pool(&self) -> bool {
        let live = self.world.ip_address_pools.get(self.ip_address_pool);
        live.is_some_and(|live| !live.is_terminating())
    }

    /// Metadata and spec of the object that exists.
    fn live(&self, object: &ObjectRef) -> Option<(&ObjectMeta, Option<Value>)> {
        let name = &object.key.name;
        match object.kind {
            Kind::IpAddressPool => {
                let live = self.world.ip_address_pools.get(name)?;
                Some((live.metadata(), live.valid().map(|v| json!(v.spec))))
            }
            _ => {
                let live = self.world.l2_advertisements.get(name)?;
                Some((live.metadata(), live.valid().map(|v| json!(v.spec))))
            }
        }
    }
}

/// Why an object that exists must be written again, if it must.
fn difference(manifest: &Value, meta: &ObjectMeta, spec: Option<Value>) -> Option<Cause> {
    let annotations = meta.annotations.as_ref();
    let have = annotations.and_then(|a| a.get(names::TEMPLATE));
    let wanted = &manifest["metadata"];
    if wanted["annotations"][names::TEMPLATE].as_str() != have.map(String::as_str) {
        let pin = meta.labels.as_ref().and_then(|l| l.get(names::PIN));
        let moved = wanted["labels"][names::PIN].as_str() != pin.map(String::as_str);
        Some(if moved { Cause::Pin } else { Cause::Spec })
    } else if spec.is_none_or(|have| !covers(&manifest["spec"], &have))
        || !labels_cover(manifest, meta)
    {
        Some(Cause::Drift)
    } else {
        None
    }
}

/// Whether the object has the labels of the manifest.
pub(super) fn labels_cover(manifest: &Value, meta: &ObjectMeta) -> bool {
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
