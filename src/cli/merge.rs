//! Objects of files over those of a world, as an apply would store them.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::manifest::Manifest;
use crate::world::{Kind, Observed, Stored, World};

/// Gives an object of a namespaced kind the namespace that kubectl would.
pub(super) fn default_namespace(manifest: &mut Manifest, namespace: &str) {
    let namespaced = matches!(
        manifest.value["kind"].as_str(),
        Some("L2LoadBalancer" | "Service")
    );
    if namespaced && manifest.value["metadata"]["namespace"].is_null() {
        manifest.value["metadata"]["namespace"] = json!(namespace);
    }
}

/// An object as it would be stored, and what is stored now.
pub(super) fn identify(
    world: &World,
    kind: Kind,
    mut value: Value,
) -> Result<(Observed, Option<Observed>), String> {
    let read = |value: Value| Observed::read(kind, value).map_err(|error| error.to_string());
    let object = read(value.clone())?;
    let key = object.object().key;
    let (old, status) = match kind {
        Kind::AddressPool => {
            let stored = world.pools.get(&key.name).cloned();
            let status = stored
                .as_ref()
                .and_then(Stored::valid)
                .map(|o| json!(o.status));
            (stored.map(Observed::AddressPool), status)
        }
        _ => {
            let stored = world.load_balancers.get(&key).cloned();
            let status = stored
                .as_ref()
                .and_then(Stored::valid)
                .map(|o| json!(o.status));
            (stored.map(Observed::LoadBalancer), status)
        }
    };
    let Some(old) = old else {
        return Ok((object, None));
    };
    value["metadata"]["uid"] = json!(old.metadata().uid);
    value["metadata"]["creationTimestamp"] = json!(old.metadata().creation_timestamp);
    if let Some(status) = status {
        value["status"] = status;
    }
    Ok((read(value)?, Some(old)))
}

/// The same, of an object that is younger than all others if it is new.
pub(super) fn identify_newest(
    world: &World,
    kind: Kind,
    mut value: Value,
    now: Timestamp,
) -> Result<(Observed, Option<Observed>), String> {
    value["metadata"]["creationTimestamp"] = json!(now);
    identify(world, kind, value)
}
