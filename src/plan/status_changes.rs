//! The status of an object, compared with the one that is stored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{Action, Cause, Change, LoadBalancerPlan, Stage, writing};
use crate::api::{ConditionType, L2LoadBalancer, L2LoadBalancerStatus, names};
use crate::world::{Key, Kind, ObjectRef, Stored};

pub(super) fn write_status(
    key: &Key,
    stored: Option<&Stored<L2LoadBalancer>>,
    plan: &mut LoadBalancerPlan,
) {
    let same = match stored {
        Some(Stored::Valid(lb)) => lb
            .status
            .as_ref()
            .is_some_and(|old| is_same(old, &plan.status)),
        Some(Stored::Broken { conditions, .. }) => plan
            .status
            .conditions
            .iter()
            .all(|c| conditions.contains(c)),
        None => true,
    };
    if same {
        return;
    }
    let mut status = json!(plan.status);
    if matches!(stored, Some(Stored::Broken { .. })) {
        // Nothing but the conditions is known to be right.
        status = json!({"conditions": plan.status.conditions});
    }
    let meta = stored.map(Stored::metadata);
    let change = status_change(Kind::LoadBalancer, key, meta, &status);
    plan.changes.push(change);
}

/// Whether two statuses say the same, leaving others' conditions aside.
fn is_same(old: &L2LoadBalancerStatus, new: &L2LoadBalancerStatus) -> bool {
    old.public_addresses == new.public_addresses
        && old.slots_ready == new.slots_ready
        && old.slots == new.slots
        && old.observed_generation == new.observed_generation
        && new.conditions.iter().all(|c| old.conditions.contains(c))
        && has_dns(new) == has_dns(old)
}

/// The one condition that is not always there.
fn has_dns(status: &L2LoadBalancerStatus) -> bool {
    let kind = ConditionType::DnsPublished.as_str();
    status.conditions.iter().any(|c| c.type_ == kind)
}

/// A status without the times of its conditions.
fn timeless(status: &Value) -> Value {
    let mut said = status.clone();
    let conditions = said.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastTransitionTime");
        }
    }
    said
}

/// The write of a status, for the state of the object that it was planned
/// from. A write that comes late, from a leader that is no more, would say
/// what is no longer so, of another object of that name even: by the resource
/// version it fails. That costs little: nobody else writes these objects often,
/// and what we write of them tells us the version that comes next.
pub(super) fn status_change(
    kind: Kind,
    key: &Key,
    meta: Option<&ObjectMeta>,
    status: &Value,
) -> Change {
    let mut body = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": kind.as_str(),
        "metadata": {"name": key.name},
        "status": status,
    });
    if !key.namespace.is_empty() {
        body["metadata"]["namespace"] = json!(key.namespace);
    }
    // The same words for another state, or since another moment, are no other
    // content: what is refused is not tried at once for that.
    let content = writing::content_of(&timeless(status));
    let meta = meta.map(|m| (m.uid.as_ref(), m.resource_version.as_ref()));
    if let Some((Some(uid), _)) = meta {
        body["metadata"]["uid"] = json!(uid);
    }
    if let Some((_, Some(version))) = meta {
        body["metadata"]["resourceVersion"] = json!(version);
    }
    Change {
        stage: Stage::Report,
        object: ObjectRef {
            kind,
            key: key.clone(),
        },
        content,
        action: Action::ApplyStatus(body.into()),
        cause: Cause::Status,
        needs: Vec::new(),
    }
}
