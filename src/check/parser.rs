//! What MetalLB's parser refuses in lists and selectors, beyond what its
//! definitions refuse: one object with it, and the whole configuration is
//! stale. Before MetalLB 0.15.3 nothing in the API shows that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::selector::Selector;

/// The consequence, for the end of a sentence.
pub(super) const STALE: &str =
    "MetalLB refuses its whole configuration, and nothing that is changed afterwards takes effect";

/// What a field has twice.
pub(super) fn twice(field: &str, values: &[String]) -> Option<String> {
    repeated(values).map(|value| format!("spec.{field} has {value} twice"))
}

fn repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    let mut at = values.iter().enumerate();
    at.find_map(|(i, value)| values[..i].contains(value).then_some(value))
}

/// Everything wrong with a list of selectors.
pub(super) fn selectors(field: &str, list: &[LabelSelector]) -> Vec<String> {
    let mut found = Vec::new();
    let sorted: Vec<LabelSelector> = list.iter().map(sorted).collect();
    for selector in &sorted {
        found.extend(bad(field, selector));
        let expressions = selector.match_expressions.as_deref().unwrap_or_default();
        for expression in expressions {
            let values = expression.values.as_deref().unwrap_or_default();
            if let Some(value) = repeated(values) {
                found.push(format!(
                    "spec.{field} has the value {value} of label {} twice",
                    expression.key
                ));
            }
        }
        if let Some(expression) = repeated(expressions) {
            found.push(format!(
                "spec.{field} has an expression on label {} twice",
                expression.key
            ));
        }
    }
    if repeated(&sorted).is_some() {
        found.push(format!("spec.{field} has a selector twice"));
    }
    found
}

/// Why a selector cannot be read.
pub(super) fn bad(field: &str, selector: &LabelSelector) -> Option<String> {
    let error = Selector::parse(Some(selector)).err()?;
    Some(format!("spec.{field}: {error}"))
}

/// As MetalLB compares them: values sorted, and what is empty is as if it were
/// not there.
fn sorted(selector: &LabelSelector) -> LabelSelector {
    let mut selector = selector.clone();
    selector.match_labels = selector.match_labels.filter(|l| !l.is_empty());
    selector.match_expressions = selector.match_expressions.filter(|e| !e.is_empty());
    for expression in selector.match_expressions.iter_mut().flatten() {
        expression.values = expression.values.take().filter(|v| !v.is_empty());
        if let Some(values) = &mut expression.values {
            values.sort_unstable();
        }
    }
    selector
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(list: Value) -> String {
        let list: Vec<LabelSelector> = serde_json::from_value(list).unwrap();
        selectors("nodeSelectors", &list).join("; ")
    }

    #[test]
    fn what_is_there_twice_is_found() {
        assert_eq!(of(json!([{}, {"matchLabels": {"a": "b"}}])), "");
        let label = json!({"matchLabels": {"a": "b"}});
        assert!(of(json!([label, label])).contains("a selector twice"));
        let within = |values: Value| json!({"matchExpressions": [{"key": "a", "operator": "In", "values": values}]});
        assert!(of(json!([within(json!(["x", "y", "x"]))])).contains("value x of label a twice"));
        let (one, other) = (within(json!(["x", "y"])), within(json!(["y", "x"])));
        assert!(of(json!([one, other])).contains("a selector twice"));
        let empty = json!([{"matchLabels": {}}, {"matchExpressions": []}]);
        assert!(of(empty).contains("a selector twice"));
        let exists = json!({"key": "a", "operator": "Exists"});
        let both = json!([{"matchExpressions": [exists, exists]}]);
        assert!(of(both).contains("an expression on label a twice"));
        assert!(
            of(json!([{"matchExpressions": [{"key": "a", "operator": "Maybe"}]}]))
                .contains("Maybe")
        );
        let twice = twice(
            "ipAddressPools",
            &["a".to_owned(), "b".to_owned(), "a".to_owned()],
        );
        assert_eq!(twice.unwrap(), "spec.ipAddressPools has a twice");
    }
}
