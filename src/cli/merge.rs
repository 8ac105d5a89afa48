//! Objects of files over those of a world, as an apply would store them.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::manifest::Manifest;
use crate::world::{Kind, Observed, Stored, World, observe_manifest};

/// What the API server writes into metadata, and nobody else.
pub(super) const OF_SERVER: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// What people and controllers write into metadata, each their own part.
const SHARED: [&str; 3] = ["annotations", "finalizers", "labels"];

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

/// An object of a file as it would be stored over that of the API server's;
/// `None` for kinds that do not matter. `stored` is everything that the API
/// server has. For those of our own kinds [`identify`] knows more.
///
/// # Errors
/// A sentence that names the file and document that cannot be read.
pub(super) fn observe(stored: &[Value], manifest: &Manifest) -> Result<Option<Observed>, String> {
    let mut value = manifest.value.clone();
    set_defaults(&mut value);
    let is_same = |old: &&Value| {
        [
            "/apiVersion",
            "/kind",
            "/metadata/namespace",
            "/metadata/name",
        ]
        .iter()
        .all(|field| old.pointer(field) == value.pointer(field))
    };
    if let Some(old) = stored.iter().find(is_same) {
        value = applied(old, value);
    }
    observe_manifest(value).map_err(|error| format!("{}: {error}", place(manifest)))
}

/// Where an object was read.
pub(super) fn place(manifest: &Manifest) -> String {
    format!("{}, document {}", manifest.source_name, manifest.number)
}

/// What the API server adds to an object that does not say it.
fn set_defaults(value: &mut Value) {
    let (of, defaults) = match value["kind"].as_str() {
        Some("Namespace") => {
            let name = value["metadata"]["name"].clone();
            let labels = json!({"labels": {"kubernetes.io/metadata.name": name}});
            ("metadata", labels)
        }
        Some("IPAddressPool") => ("spec", json!({"autoAssign": true, "avoidBuggyIPs": false})),
        Some("BGPAdvertisement") => {
            let lengths = json!({"aggregationLength": 32, "aggregationLengthV6": 128});
            ("spec", lengths)
        }
        _ => return,
    };
    match &mut value[of] {
        absent @ Value::Null => *absent = defaults,
        said => fill(said, &defaults),
    }
}

/// Adds what is not said, field by field.
fn fill(value: &mut Value, from: &Value) {
    let (Some(value), Some(from)) = (value.as_object_mut(), from.as_object()) else {
        return;
    };
    for (key, more) in from {
        match value.get_mut(key) {
            Some(said) if !said.is_null() => fill(said, more),
            _ => drop(value.insert(key.clone(), more.clone())),
        }
    }
}

/// What an apply of an object leaves of the one that is stored: its status and
/// what is the API server's to write, and labels, annotations and finalizers
/// that the file does not speak of. Where the file has an object as `kubectl
/// get` prints it, these are as they are there, so that one can be taken away.
fn applied(stored: &Value, mut value: Value) -> Value {
    let is_whole = value["metadata"]["resourceVersion"].is_string();
    let nothing = Map::new();
    let old = stored["metadata"].as_object().unwrap_or(&nothing);
    if let Some(new) = value["metadata"].as_object_mut() {
        new.retain(|key, said| !said.is_null() && !OF_SERVER.contains(&key.as_str()));
        let of_file = |key: &str| is_whole && SHARED.contains(&key);
        for (key, before) in old.iter().filter(|(key, _)| !of_file(key)) {
            match new.get_mut(key) {
                Some(said) => fill(said, before),
                None => drop(new.insert(key.clone(), before.clone())),
            }
        }
    }
    if value["kind"] == "Service" {
        let spec = &stored["spec"];
        let kept = json!({"clusterIP": spec["clusterIP"], "clusterIPs": spec["clusterIPs"]});
        fill(&mut value["spec"], &kept);
    }
    value["status"] = Value::Null;
    for (key, before) in stored.as_object().unwrap_or(&nothing) {
        if value[key].is_null() {
            value[key] = before.clone();
        }
    }
    value
}

/// An object of ours as it would be stored, and what is stored now.
pub(super) fn identify(
    world: &World,
    kind: Kind,
    mut value: Value,
) -> Result<(Observed, Option<Observed>), String> {
    let read = |value: Value| Observed::read(kind, value).map_err(|error| error.to_string());
    let object = read(value.clone())?;
    let key = object.object().key;
    let old = match kind {
        Kind::AddressPool => {
            let stored = world.pools.get(&key.name);
            stored.map(|s| (as_value(s), Observed::AddressPool(s.clone())))
        }
        _ => {
            let stored = world.load_balancers.get(&key);
            stored.map(|s| (as_value(s), Observed::LoadBalancer(s.clone())))
        }
    };
    let Some((stored, old)) = old else {
        return Ok((object, None));
    };
    value = applied(&stored, value);
    Ok((read(value)?, Some(old)))
}

/// An object as the API server has it, as far as it can be read.
fn as_value<T: kube::Resource + Serialize>(stored: &Stored<T>) -> Value {
    match stored.valid() {
        Some(object) => json!(**object),
        None => json!({"metadata": stored.metadata()}),
    }
}

/// The same, of an object that is younger than all others if it is new.
pub(super) fn identify_newest(
    world: &World,
    kind: Kind,
    mut value: Value,
    now: Timestamp,
) -> Result<(Observed, Option<Observed>), String> {
    value["metadata"]["creationTimestamp"] = json!(now);
    // What is being deleted elsewhere is created here.
    value["metadata"]["deletionTimestamp"] = Value::Null;
    identify(world, kind, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn node(labels: &Value, annotations: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "uid": "1",
            "resourceVersion": "7", "labels": labels, "annotations": annotations},
            "spec": {"unschedulable": true}, "status": {"conditions": []}})
    }

    #[test]
    fn what_a_file_does_not_speak_of_stays() {
        let stored = node(
            &json!({"a": "1", "b": "1"}),
            &json!({"l2lb.io/drain": "me"}),
        );
        let file = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "a", "labels": {"b": "2"}, "uid": "9"}, "status": {"phase": "x"}});
        let wanted = node(
            &json!({"a": "1", "b": "2"}),
            &json!({"l2lb.io/drain": "me"}),
        );
        assert_eq!(applied(&stored, file), wanted);
    }

    #[test]
    fn a_whole_object_is_as_it_is_written() {
        let stored = node(
            &json!({"a": "1", "b": "1"}),
            &json!({"l2lb.io/drain": "me"}),
        );
        let mut file = node(&json!({"a": "1"}), &Value::Null);
        file["metadata"]["resourceVersion"] = json!("5");
        file["spec"] = json!({});
        let mut wanted = node(&json!({"a": "1"}), &json!({}));
        wanted["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("annotations");
        wanted["spec"] = json!({});
        assert_eq!(applied(&stored, file), wanted);
    }

    #[test]
    fn a_deletion_is_not_undone_and_not_done() {
        let pool = |more: Value| {
            let mut value = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
                "metadata": {"name": "edge"}, "spec": {"addresses": ["192.0.2.1"]}});
            fill(&mut value["metadata"], &more);
            value
        };
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["l2lb.io/addresses-in-use"], "uid": "1"});
        assert_eq!(applied(&pool(leaving.clone()), pool(json!({}))), {
            let mut wanted = pool(leaving.clone());
            wanted["status"] = Value::Null;
            wanted
        });
        let stays = applied(&pool(json!({"uid": "1"})), pool(leaving));
        assert!(stays["metadata"]["deletionTimestamp"].is_null(), "{stays}");
    }

    #[test]
    fn what_the_api_server_adds_is_there() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n\
                    ---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
                    metadata: {name: other, namespace: metallb-system}\nspec: {autoAssign: false}\n";
        let mut manifests = manifest::parse("test", text).unwrap().into_iter();
        let Some(Observed::Namespace(namespace)) =
            observe(&[], &manifests.next().unwrap()).unwrap()
        else {
            panic!("no namespace")
        };
        let labels = json!(namespace.metadata.labels);
        assert_eq!(
            labels,
            json!({"a": "b", "kubernetes.io/metadata.name": "shop"})
        );
        let mut pool = manifests.next().unwrap().value;
        set_defaults(&mut pool);
        assert_eq!(
            pool["spec"],
            json!({"autoAssign": false, "avoidBuggyIPs": false})
        );
    }
}
