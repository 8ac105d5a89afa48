//! `kubectl l2lb convert`: manifests of Deckhouse's L2LoadBalancer into ours.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::Output;
use super::lint::place;
use crate::api::names;
use crate::manifest;

/// Translates manifests of Deckhouse's L2LoadBalancer
/// (network.deckhouse.io/v1alpha1) into ours. What has no counterpart is named
/// on standard error and left out. Nothing is applied.
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

/// Fields of a Service that both kinds have by the same name.
const SAME: [&str; 2] = ["ports", "externalTrafficPolicy"];

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
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels"] {
        if let Some(kept) = value["metadata"].get(field) {
            metadata.insert(field.to_owned(), kept.clone());
        }
    }
    let old = value["spec"].as_object().cloned().unwrap_or_default();
    let mut spec = Map::new();
    let mut service = Map::new();
    for (field, value) in &old {
        match field.as_str() {
            "addressPool" => drop(spec.insert(field.clone(), value.clone())),
            "nodeSelector" => drop(spec.insert(field.clone(), selector_of(value))),
            "service" => {
                let fields = value.as_object().cloned().unwrap_or_default();
                translate_service(&fields, &mut service, &mut notes)?;
            }
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
        "metadata": metadata,
        "spec": spec,
    });
    Ok((object, notes))
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
    old: &Map<String, Value>,
    service: &mut Map<String, Value>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    for (field, value) in old {
        match field.as_str() {
            "labelSelector" | "selector" => {
                if value.get("matchExpressions").is_some() {
                    return Err(format!(
                        "spec.service.{field}.matchExpressions: a Service selects by labels alone; \
                         write them as labels"
                    ));
                }
                let labels = value.get("matchLabels").unwrap_or(value);
                service.insert("selector".to_owned(), labels.clone());
            }
            "sourceRanges" => {
                service.insert("loadBalancerSourceRanges".to_owned(), value.clone());
            }
            same if SAME.contains(&same) => drop(service.insert(field.clone(), value.clone())),
            other => notes.push(format!("spec.service.{other} has no counterpart")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::L2LoadBalancer;

    fn deckhouse(service: Value) -> Value {
        json!({"apiVersion": "network.deckhouse.io/v1alpha1", "kind": "L2LoadBalancer",
            "metadata": {"name": "web", "namespace": "shop", "uid": "1"},
            "spec": {"addressPool": "edge", "nodeSelector": {"matchLabels": {"role": "edge"}},
                "service": service},
            "status": {"publicAddresses": ["203.0.113.10"]}})
    }

    #[test]
    fn every_field_of_the_table_is_translated() {
        let old = deckhouse(json!({
            "labelSelector": {"app": "web"}, "externalTrafficPolicy": "Local",
            "sourceRanges": ["198.51.100.0/24"],
            "ports": [{"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"}]}));
        let (new, notes) = convert(&old).unwrap().unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        assert!(new.get("status").is_none() && new["metadata"].get("uid").is_none());
        let read: L2LoadBalancer = serde_json::from_value(new.clone()).unwrap();
        assert_eq!(read.spec.address_pool, "edge");
        assert_eq!(read.spec.service.selector["app"], "web");
        assert_eq!(
            read.spec.service.load_balancer_source_ranges,
            ["198.51.100.0/24"]
        );
        assert_eq!(read.spec.service.external_traffic_policy.unwrap(), "Local");
        assert_eq!(
            new["spec"]["nodeSelector"],
            json!({"matchLabels": {"role": "edge"}})
        );
    }

    #[test]
    fn what_has_no_counterpart_is_said() {
        let selector = json!({"matchLabels": {"app": "web"}});
        let old = deckhouse(json!({"selector": selector, "ports": [{"port": 80}], "color": "red"}));
        let (new, notes) = convert(&old).unwrap().unwrap();
        assert_eq!(new["spec"]["service"]["selector"], json!({"app": "web"}));
        assert_eq!(notes, ["spec.service.color has no counterpart"]);
        let expressions = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
        let bad = deckhouse(json!({"selector": expressions, "ports": []}));
        assert!(convert(&bad).unwrap().is_err());
        assert!(convert(&deckhouse(json!({"ports": []}))).unwrap().is_err());
        assert!(
            convert(&json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer"})).is_none()
        );
    }
}
