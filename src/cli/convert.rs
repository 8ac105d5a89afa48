//! `kubectl l2lb convert`: manifests of Deckhouse's L2LoadBalancer into ours.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Output;
use super::lint::{place, schema};
use super::merge::OF_SERVER;
use crate::api::{L2LoadBalancer, names};
use crate::manifest;
use crate::plan::pool::Problem;
use crate::plan::spec;
use crate::world::{Key, Kind};

/// Translates manifests of Deckhouse's L2LoadBalancer
/// (network.deckhouse.io/v1alpha1) into ours. What has no counterpart is named
/// on standard error and left out. Where Deckhouse's default is another than
/// ours, it is written. Nothing is applied.
///
/// Ends with 1 when an object cannot be translated, or our definition would
/// refuse what comes of it: the sentence says why.
///
/// The L2AddressPools are for you to make, from the pools in the settings of
/// Deckhouse's module: docs/migrate-from-deckhouse.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb convert -f deckhouse.yaml > l2lb.yaml\n  \
    kubectl get l2loadbalancers.network.deckhouse.io -A -o yaml | kubectl l2lb convert -f -")]
pub(super) struct Args {
    /// File or folder with manifests in YAML or JSON; - is standard input. May be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Deckhouse's API group.
const GROUP: &str = "network.deckhouse.io";

pub(super) fn run(args: &Args) -> Result<(), String> {
    let mut converted = Vec::new();
    for file in place::expand(&args.files)? {
        for manifest in manifest::read_file(&file).map_err(|e| e.to_string())? {
            let place = format!("{}, document {}", manifest.source_name, manifest.number);
            match convert(&manifest.value) {
                Some(result) => {
                    let (object, notes) = result.map_err(|error| format!("{place}: {error}"))?;
                    for note in notes {
                        eprintln!("note: {place}: {note}");
                    }
                    converted.push(object);
                }
                None => eprintln!("note: {place}: no L2LoadBalancer of {GROUP}, left out"),
            }
        }
    }
    if converted.is_empty() {
        return Err(format!(
            "there is no L2LoadBalancer of {GROUP} in the files"
        ));
    }
    super::print(&super::export::text(&converted, args.output)?)
}

/// Fields of metadata that are ours as they are.
const KEPT: [&str; 3] = ["name", "namespace", "labels"];
/// What kubectl writes beside an object that it applies.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Fields of a port that both kinds have by the same name.
const PORT: [&str; 5] = ["name", "port", "protocol", "targetPort", "appProtocol"];

/// One object, and what of it has no counterpart; `None` for other kinds.
fn convert(value: &Value) -> Option<Result<(Value, Vec<String>), String>> {
    let group = value["apiVersion"].as_str()?.split_once('/')?.0;
    if group != GROUP || value["kind"] != "L2LoadBalancer" {
        return None;
    }
    Some(translate(value))
}

fn translate(value: &Value) -> Result<(Value, Vec<String>), String> {
    let mut notes = Vec::new();
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let mut spec = Map::new();
    let mut service = Map::new();
    for (field, value) in fields(&value["spec"]) {
        match field.as_str() {
            "addressPool" => {
                ensure_one_pool(value)?;
                spec.insert(field.clone(), value.clone());
            }
            "nodeSelector" => drop(spec.insert(field.clone(), selector_of(value))),
            "service" => translate_service(value, &mut service, &mut notes)?,
            other => notes.push(format!("{name}: spec.{other} has no counterpart")),
        }
    }
    if !spec.contains_key("addressPool") {
        return Err(format!("{name} has no spec.addressPool"));
    }
    if !service.contains_key("selector") {
        return Err(format!(
            "{name} has no labels in spec.service.labelSelector or spec.service.selector"
        ));
    }
    spec.insert("service".to_owned(), Value::Object(service));
    let object = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": "L2LoadBalancer",
        "metadata": translate_metadata(&value["metadata"], &mut notes),
        "spec": spec,
    });
    ensure_accepted(name, &object)?;
    Ok((object, notes))
}

/// The fields of an object that say something.
fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null())
}

/// Early versions of Deckhouse's module had ranges here.
fn ensure_one_pool(value: &Value) -> Result<(), String> {
    if value.is_string() {
        return Ok(());
    }
    Err(format!(
        "spec.addressPool is {value}, and not the name of a pool: make an L2AddressPool of these \
         addresses, and write its name"
    ))
}

fn translate_metadata(old: &Value, notes: &mut Vec<String>) -> Map<String, Value> {
    let mut metadata = Map::new();
    for (field, value) in fields(old) {
        match field.as_str() {
            kept if KEPT.contains(&kept) => drop(metadata.insert(field.clone(), value.clone())),
            given if OF_SERVER.contains(&given) => {}
            "annotations" => {
                let keys = fields(value).map(|(key, _)| key.as_str());
                let keys: Vec<&str> = keys.filter(|key| *key != LAST_APPLIED).collect();
                if !keys.is_empty() {
                    notes.push(format!(
                        "metadata.annotations are left out ({}): add those that you still want",
                        keys.join(", ")
                    ));
                }
            }
            other => notes.push(format!("metadata.{other} is left out")),
        }
    }
    metadata
}

/// A label selector; Deckhouse also takes the bare labels.
fn selector_of(value: &Value) -> Value {
    let is_selector = value.get("matchLabels").is_some() || value.get("matchExpressions").is_some();
    if is_selector {
        value.clone()
    } else {
        json!({"matchLabels": value})
    }
}

fn translate_service(
    old: &Value,
    service: &mut Map<String, Value>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    for (field, value) in fields(old) {
        match field.as_str() {
            "labelSelector" | "selector" => {
                let labels = labels_of(field, value)?;
                if service.insert("selector".to_owned(), labels).is_some() {
                    return Err(
                        "there are spec.service.labelSelector and spec.service.selector: keep the \
                         one that selects the pods"
                            .to_owned(),
                    );
                }
            }
            "sourceRanges" => {
                service.insert("loadBalancerSourceRanges".to_owned(), value.clone());
            }
            "ports" => drop(service.insert(field.clone(), ports_of(value, notes))),
            "externalTrafficPolicy" => drop(service.insert(field.clone(), value.clone())),
            other => notes.push(format!("spec.service.{other} has no counterpart")),
        }
    }
    if !service.contains_key("externalTrafficPolicy") {
        service.insert("externalTrafficPolicy".to_owned(), json!("Local"));
        notes.push(
            "spec.service.externalTrafficPolicy is not said, which means Local to Deckhouse and \
             Cluster to l2lb: Local is written"
                .to_owned(),
        );
    }
    Ok(())
}

/// The labels of a Service's selector, which has nothing else.
fn labels_of(field: &str, value: &Value) -> Result<Value, String> {
    let is_selector = value["matchLabels"].is_object() || value["matchExpressions"].is_array();
    if !is_selector {
        return Ok(value.clone());
    }
    if let Some((other, _)) = fields(value).find(|(key, _)| *key != "matchLabels") {
        return Err(format!(
            "spec.service.{field}.{other}: a Service selects by labels alone; write them as labels"
        ));
    }
    Ok(value["matchLabels"].clone())
}

/// Ports with the fields that are ours, too.
fn ports_of(value: &Value, notes: &mut Vec<String>) -> Value {
    let Some(ports) = value.as_array() else {
        return value.clone();
    };
    let mut kept = ports.clone();
    for (index, port) in kept.iter_mut().enumerate() {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        port.retain(|field, value| {
            let is_known = PORT.contains(&field.as_str());
            if !is_known {
                notes.push(format!(
                    "spec.service.ports[{index}].{field} has no counterpart"
                ));
            }
            is_known && !value.is_null()
        });
    }
    Value::Array(kept)
}

/// Fails with whatever our definition would refuse.
fn ensure_accepted(name: &str, object: &Value) -> Result<(), String> {
    let unknown = schema::unknown_fields(Kind::LoadBalancer, object).into_iter();
    let mut problems: Vec<String> = unknown
        .map(|field| format!("{field}: {}", schema::UNKNOWN))
        .collect();
    match L2LoadBalancer::deserialize(object) {
        Ok(read) => {
            let namespace = read.metadata.namespace.as_deref().unwrap_or("default");
            let found = spec::problems(&Key::new(namespace, name), &read);
            problems.extend(found.iter().map(Problem::text));
        }
        Err(error) => problems.push(error.to_string()),
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!(
        "what comes of {name} would be refused: {}",
        problems.join("; ")
    ))
}

#[cfg(test)]
mod tests;
