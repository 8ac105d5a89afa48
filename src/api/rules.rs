//! CEL rules and bounds that more than one field has. The API server reckons
//! what a rule may cost from the bounds of the lists and strings in it, and
//! refuses a definition that may cost too much: a rule goes through a list once.

use kube::core::Rule;
use schemars::Schema;
use serde_json::{Map, Value, json};

use super::names;

/// Most entries of `matchLabels` and of `matchExpressions`.
const MOST_REQUIREMENTS: u32 = 256;
/// What Kubernetes takes as the value of a label.
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// What Kubernetes takes as the key of a label.
const LABEL_KEY: &str =
    "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";

/// No CIDR of a list has bits behind its prefix.
pub(super) fn no_host_bits(field: &str) -> Rule {
    let message = format!(
        "a CIDR in {field} has bits set behind its prefix: write the network itself, as in \
         203.0.113.0/28, or a range"
    );
    Rule::new("self.all(a, !isCIDR(a) || cidr(a) == cidr(a).masked())").message(message.as_str())
}

/// Both ends of each range of a list are of one family.
pub(super) fn one_family(field: &str) -> Rule {
    Rule::new(
        "self.all(a, a.split('-').size() != 2 || !a.split('-').all(p, isIP(p.trim())) || \
         ip(a.split('-')[0].trim()).family() == ip(a.split('-')[1].trim()).family())",
    )
    .message(format!("both ends of a range in {field} are of one family").as_str())
}

/// The single addresses of a list are such as hosts have. To look at the ends of
/// ranges as well would cost more than the API server allows; they are for the
/// webhook and the planner.
pub(super) fn host_addresses(field: &str) -> Rule {
    Rule::new("self.all(a, !isIP(a) || ip(a).isGlobalUnicast() || ip(a).isLinkLocalUnicast())")
        .message(unusable(field).as_str())
}

/// No CIDR of a list holds addresses that no host has: it begins with one that
/// a host may have, and holds neither loopback nor multicast addresses.
pub(super) fn host_networks(field: &str) -> Rule {
    Rule::new(
        "self.all(a, !isCIDR(a) || ((cidr(a).ip().isGlobalUnicast() || \
         cidr(a).ip().isLinkLocalUnicast()) && !cidr(a).containsIP('127.0.0.0') && \
         !cidr(a).containsIP('224.0.0.0') && !cidr(a).containsIP('ff00::')))",
    )
    .message(unusable(field).as_str())
}

fn unusable(field: &str) -> String {
    format!(
        "{field} has no unspecified, loopback, multicast or broadcast addresses, which cannot be \
         given to a Service"
    )
}

/// No key of a map is one of [`names::is_reserved_key`]; `hint` ends the message.
pub(super) fn no_reserved_key(field: &str, hint: &str) -> Rule {
    let prefixes = names::RESERVED_PREFIXES.map(|p| format!("!k.startsWith('{p}')"));
    let owners = names::RESERVED_PREFIXES.map(|p| p.trim_end_matches(['/', '.']));
    let message = format!(
        "{field} of {} and {} are set by the controllers alone{hint}",
        owners.join(", "),
        names::MANAGED_BY
    );
    Rule::new(format!(
        "self.all(k, {} && k != '{}')",
        prefixes.join(" && "),
        names::MANAGED_BY
    ))
    .message(message.as_str())
}

/// Bounds a label selector, and refuses operators and values that Kubernetes
/// would not take.
pub(super) fn bounded_selector(schema: &mut Schema) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    let value = json!({"maxLength": 63, "pattern": LABEL_VALUE});
    if let Some(labels) = object(properties, "matchLabels") {
        labels.insert("maxProperties".to_owned(), json!(MOST_REQUIREMENTS));
        extend(object(labels, "additionalProperties"), &value);
    }
    let Some(expressions) = object(properties, "matchExpressions") else {
        return;
    };
    expressions.insert("maxItems".to_owned(), json!(MOST_REQUIREMENTS));
    let Some(requirement) = object(expressions, "items") else {
        return;
    };
    let rule = Rule::new(
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
    )
    .message("In and NotIn take at least one value, Exists and DoesNotExist none");
    requirement.insert("x-kubernetes-validations".to_owned(), json!([rule]));
    let Some(fields) = object(requirement, "properties") else {
        return;
    };
    let operators = json!({"enum": ["In", "NotIn", "Exists", "DoesNotExist"]});
    extend(object(fields, "operator"), &operators);
    let key = json!({"maxLength": 317, "pattern": LABEL_KEY});
    extend(object(fields, "key"), &key);
    let values = object(fields, "values");
    extend(values.and_then(|v| object(v, "items")), &value);
}

fn object<'a>(of: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    of.get_mut(field)?.as_object_mut()
}

fn extend(schema: Option<&mut Map<String, Value>>, more: &Value) {
    if let (Some(schema), Some(more)) = (schema, more.as_object()) {
        schema.extend(more.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_prefix_is_in_the_rule() {
        let rule = no_reserved_key("labels", "");
        for prefix in names::RESERVED_PREFIXES {
            assert!(rule.rule.contains(&format!("!k.startsWith('{prefix}')")));
        }
        assert!(rule.rule.contains("k != 'app.kubernetes.io/managed-by'"));
    }

    #[test]
    fn selectors_are_bounded() {
        for crd in super::super::crds() {
            let crd = json!(crd);
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let spec = &schema["properties"]["spec"]["properties"];
            assert!(spec["nodeSelector"].is_object());
            for field in ["nodeSelector", "namespaceSelector"] {
                let selector = &spec[field]["properties"];
                if spec[field].is_null() {
                    continue;
                }
                assert_eq!(selector["matchLabels"]["maxProperties"], 256, "{field}");
                let value = &selector["matchLabels"]["additionalProperties"];
                assert_eq!(value["maxLength"], 63);
                let expressions = &selector["matchExpressions"];
                assert_eq!(expressions["maxItems"], 256);
                let requirement = &expressions["items"];
                let operators = &requirement["properties"]["operator"]["enum"];
                assert_eq!(operators.as_array().map(Vec::len), Some(4));
                assert_eq!(
                    requirement["properties"]["values"]["items"]["maxLength"],
                    63
                );
                assert!(requirement["x-kubernetes-validations"][0]["rule"].is_string());
            }
        }
    }
}
