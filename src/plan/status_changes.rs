//! The status of an object, compared with the one that is stored.

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
    plan.changes.push(status_change(
        Kind::LoadBalancer,
        "L2LoadBalancer",
        key,
        &status,
    ));
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

pub(super) fn status_change(kind: Kind, name: &str, key: &Key, status: &Value) -> Change {
    let mut metadata = json!({"name": key.name});
    if !key.namespace.is_empty() {
        metadata["namespace"] = json!(key.namespace);
    }
    let body = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": name,
        "metadata": metadata,
        "status": status,
    });
    Change {
        stage: Stage::Report,
        object: ObjectRef {
            kind,
            key: key.clone(),
        },
        content: writing::content_of(&body),
        action: Action::ApplyStatus(body.into()),
        cause: Cause::Status,
        pool: None,
    }
}
