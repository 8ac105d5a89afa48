//! The resource definitions: ours as new as this program, MetalLB's new enough.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::{Facts, Findings, Severity, name};
use crate::api;

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "definition-missing",
        "a definition of l2lb is not installed",
    ),
    (
        "definition-old",
        "a definition of l2lb lacks fields that this program knows",
    ),
    (
        "definition-new",
        "a definition of l2lb has fields that this program does not know",
    ),
    ("metallb-missing", "MetalLB's definitions are not installed"),
    ("metallb-old", "MetalLB is older than 0.16.2"),
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    if facts.could_read("CustomResourceDefinition") {
        for known in api::crds() {
            ours(facts, found, &known);
        }
    }
    let metallb = facts.world.capabilities;
    let about = format!(
        "MetalLB in namespace {}",
        facts.world.options.metallb_namespace
    );
    if !metallb.installed {
        found.add(
            Severity::Error,
            "metallb-missing",
            about,
            "the definitions ipaddresspools.metallb.io and l2advertisements.metallb.io are not installed",
            "install MetalLB 0.16.2 or later",
        );
    } else if !metallb.can_prefer() {
        found.add(
            Severity::Info,
            "metallb-old",
            about,
            "it is older than 0.16.2: each address has pools of its own, and moves less exactly",
            "upgrade MetalLB to 0.16.2 or later",
        );
    }
}

fn ours(facts: &Facts<'_>, found: &mut Findings, known: &CustomResourceDefinition) {
    let wanted = known.metadata.name.clone().unwrap_or_default();
    let about = format!("CustomResourceDefinition {wanted}");
    let known = json!(known);
    let Some(installed) = facts
        .of_kind("CustomResourceDefinition")
        .find(|d| name(d) == wanted)
    else {
        found.add(
            Severity::Error,
            "definition-missing",
            about,
            "it is not installed",
            "kubectl apply --server-side -f crds/, or install the chart",
        );
        return;
    };
    let differs = |a: &Value, b: &Value| {
        let (mut a, b) = (fields(a), fields(b));
        a.retain(|field| !b.contains(field));
        a
    };
    let missing = differs(&known, installed);
    if !missing.is_empty() {
        found.add(
            Severity::Warning,
            "definition-old",
            &about,
            format!(
                "it is older than this program and lacks {}: such fields are dropped or refused",
                missing.join(", ")
            ),
            "upgrade the definitions with the chart, or kubectl apply --server-side -f crds/",
        );
    }
    let more = differs(installed, &known);
    if !more.is_empty() {
        found.add(
            Severity::Info,
            "definition-new",
            &about,
            format!(
                "it is newer than this program, which does not know {}",
                more.join(", ")
            ),
            "upgrade kubectl-l2lb",
        );
    }
}

/// The paths of all fields of a definition's version.
fn fields(definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for part in ["spec", "status"] {
        walk(part, &schema["properties"][part], &mut found);
    }
    found
}

fn walk(path: &str, schema: &Value, found: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (field, schema) in properties {
            let path = format!("{path}.{field}");
            walk(&path, schema, found);
            found.push(path);
        }
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], found);
    }
}
