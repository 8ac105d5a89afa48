//! Fields that the definitions do not have: the API server would refuse them
//! or, worse, drop them without a word.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use crate::api;
use crate::world::Kind;

/// What is said of such a field.
pub(in crate::cli) const UNKNOWN: &str = "there is no such field";

/// Paths of the fields below `spec` that do not exist.
pub(in crate::cli) fn unknown_fields(kind: Kind, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let definitions = api::crds();
    let definition = definitions
        .iter()
        .find(|d| d.spec.names.kind == kind.as_str());
    let schema = definition
        .and_then(|d| d.spec.versions.first())
        .and_then(|v| v.schema.as_ref())
        .and_then(|s| s.open_api_v3_schema.as_ref());
    if let (Some(schema), Some(spec)) = (schema, object.get("spec")) {
        let spec_schema = schema.properties.as_ref().and_then(|p| p.get("spec"));
        if let Some(spec_schema) = spec_schema {
            walk("spec", spec, spec_schema, &mut found);
        }
    }
    found
}

fn walk(path: &str, value: &Value, schema: &JSONSchemaProps, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
                return;
            }
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match (
                    schema.properties.as_ref().and_then(|p| p.get(name)),
                    &schema.additional_properties,
                ) {
                    (Some(schema), _) => walk(&path, value, schema, found),
                    (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => {
                        walk(&path, value, schema, found);
                    }
                    (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
                    // Without any properties it is not described, and not judged.
                    _ if schema.properties.is_some() => found.push(path),
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    walk(&format!("{path}[{index}]"), item, schema, found);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_are_free_and_objects_are_not() {
        let object = json!({"spec": {"service": {"selector": {"any": "x"}, "labels": {"k": "v"},
            "ports": [{"port": 80, "nodePort": 30000}]},
            "nodeSelector": {"matchLabels": {"a": "b"}, "matchLabel": {}}}});
        let mut found = unknown_fields(Kind::LoadBalancer, &object);
        found.sort();
        assert_eq!(
            found,
            [
                "spec.nodeSelector.matchLabel",
                "spec.service.ports[0].nodePort"
            ]
        );
    }
}
