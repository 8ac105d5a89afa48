//! Label selectors: judged as Kubernetes judges them, matched, merged, and
//! written in one canonical form that MetalLB's parser accepts.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Requirement {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

/// A label selector that Kubernetes and MetalLB accept: requirements sorted
/// and without duplicates. The empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(BTreeSet<(String, Requirement)>);

/// Why a selector cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A label key that Kubernetes does not allow.
    #[error(
        "{0:?} is not a label key: it has an optional DNS prefix, a slash, and at most 63 letters, digits, '-', '_' or '.'"
    )]
    Key(String),
    /// A label value that Kubernetes does not allow.
    #[error(
        "{value:?} is not a value of label {key}: at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit"
    )]
    Value {
        /// The label.
        key: String,
        /// The value as written.
        value: String,
    },
    /// An operator that does not exist.
    #[error("{operator:?} on label {key} is not one of In, NotIn, Exists and DoesNotExist")]
    Operator {
        /// The label.
        key: String,
        /// The operator as written.
        operator: String,
    },
    /// In or NotIn without values, or another operator with values.
    #[error("{operator} on label {key} takes {what}")]
    Values {
        /// The label.
        key: String,
        /// The operator.
        operator: String,
        /// What it takes.
        what: &'static str,
    },
}

impl Selector {
    /// Reads a selector as it stands in an object; `None` selects everything.
    ///
    /// # Errors
    /// [`SelectorError`] where Kubernetes would refuse it.
    pub fn parse(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let mut requirements = BTreeSet::new();
        let Some(selector) = selector else {
            return Ok(Self::default());
        };
        for (key, value) in selector.match_labels.iter().flatten() {
            check_key(key)?;
            check_value(key, value)?;
            requirements.insert((
                key.clone(),
                Requirement::In(BTreeSet::from([value.clone()])),
            ));
        }
        for expression in selector.match_expressions.iter().flatten() {
            requirements.insert(parse_expression(expression)?);
        }
        Ok(Self(requirements))
    }

    /// Whether the labels satisfy every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, requirement)| {
            let value = labels.get(key);
            match requirement {
                Requirement::In(values) => value.is_some_and(|v| values.contains(v)),
                Requirement::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
                Requirement::Exists => value.is_some(),
                Requirement::DoesNotExist => value.is_none(),
            }
        })
    }

    /// The selector that selects what both select.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// A short text that stands for this selector in a name or label: equal
    /// selectors have equal digests.
    pub fn digest(&self) -> String {
        // The canonical written form: it must not change with the compiler.
        let written = serde_json::to_string(&self.to_label_selector()).unwrap_or_default();
        crate::api::names::short_digest(&written)
    }

    /// The canonical written form: plain equality as `matchLabels`, all else
    /// as sorted `matchExpressions`.
    pub fn to_label_selector(&self) -> LabelSelector {
        let mut labels = BTreeMap::new();
        let mut expressions = Vec::new();
        for (key, requirement) in &self.0 {
            let (operator, values) = match requirement {
                Requirement::In(values) => {
                    // One value, and the key not taken by a contradicting one.
                    if let (1, Some(value), false) =
                        (values.len(), values.first(), labels.contains_key(key))
                    {
                        labels.insert(key.clone(), value.clone());
                        continue;
                    }
                    ("In", Some(values))
                }
                Requirement::NotIn(values) => ("NotIn", Some(values)),
                Requirement::Exists => ("Exists", None),
                Requirement::DoesNotExist => ("DoesNotExist", None),
            };
            expressions.push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: values.map(|v| v.iter().cloned().collect()),
            });
        }
        LabelSelector {
            match_labels: (!labels.is_empty()).then_some(labels),
            match_expressions: (!expressions.is_empty()).then_some(expressions),
        }
    }
}

/// The selector for one label with one value.
pub fn one_label(key: &str, value: &str) -> LabelSelector {
    labels([(key, value)])
}

/// The selector for several labels, each with one value.
pub fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(
            pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        ),
        match_expressions: None,
    }
}

fn parse_expression(
    expression: &LabelSelectorRequirement,
) -> Result<(String, Requirement), SelectorError> {
    let LabelSelectorRequirement {
        key,
        operator,
        values,
    } = expression;
    check_key(key)?;
    let set: BTreeSet<String> = values.iter().flatten().cloned().collect();
    for value in &set {
        check_value(key, value)?;
    }
    let wrong = |what| {
        Err(SelectorError::Values {
            key: key.clone(),
            operator: operator.clone(),
            what,
        })
    };
    let requirement = match (operator.as_str(), set.is_empty()) {
        ("In" | "NotIn", true) => return wrong("at least one value"),
        ("Exists" | "DoesNotExist", false) => return wrong("no values"),
        ("In", _) => Requirement::In(set),
        ("NotIn", _) => Requirement::NotIn(set),
        ("Exists", _) => Requirement::Exists,
        ("DoesNotExist", _) => Requirement::DoesNotExist,
        _ => {
            return Err(SelectorError::Operator {
                key: key.clone(),
                operator: operator.clone(),
            });
        }
    };
    Ok((key.clone(), requirement))
}

/// Letters, digits, '-', '_' and '.', at most 63, a letter or digit at both
/// ends: the rule for label values and the name part of keys.
fn is_label_text(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63
        && text.chars().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Lower-case letters, digits and '-' in parts between dots: the rule for the
/// prefix of a key and the names of most objects.
pub fn is_dns_subdomain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|part| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    let valid = match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label_text(name),
        None => is_label_text(key),
    };
    if valid {
        Ok(())
    } else {
        Err(SelectorError::Key(key.to_owned()))
    }
}

fn check_value(key: &str, value: &str) -> Result<(), SelectorError> {
    if value.is_empty() || is_label_text(value) {
        Ok(())
    } else {
        Err(SelectorError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn read(json: serde_json::Value) -> Result<Selector, SelectorError> {
        Selector::parse(Some(&serde_json::from_value(json).unwrap()))
    }

    #[test]
    fn matches_as_kubernetes_does() {
        let s = read(
            serde_json::json!({"matchLabels": {"role": "edge"}, "matchExpressions": [
            {"key": "zone", "operator": "NotIn", "values": ["b"]},
            {"key": "gone", "operator": "DoesNotExist"}]}),
        )
        .unwrap();
        assert!(s.matches(&map(&[("role", "edge")])));
        assert!(s.matches(&map(&[("role", "edge"), ("zone", "a")])));
        assert!(!s.matches(&map(&[("role", "edge"), ("zone", "b")])));
        assert!(!s.matches(&map(&[("role", "edge"), ("gone", "")])));
        assert!(Selector::parse(None).unwrap().matches(&map(&[])));
    }

    #[test]
    fn merging_keeps_contradictions() {
        let a = read(serde_json::json!({"matchLabels": {"role": "edge"}})).unwrap();
        let b = read(serde_json::json!({"matchLabels": {"role": "web"}})).unwrap();
        let both = a.and(&b);
        let written = both.to_label_selector();
        assert_eq!(Selector::parse(Some(&written)).unwrap(), both);
        assert!(!both.matches(&map(&[("role", "edge")])));
        assert_eq!(a.and(&a), a);
    }

    #[test]
    fn the_written_form_has_no_duplicates() {
        let s = read(serde_json::json!({"matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["b", "a", "a"]},
            {"key": "zone", "operator": "In", "values": ["a", "b"]}]}))
        .unwrap();
        let written = s.to_label_selector().match_expressions.unwrap();
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].values.clone().unwrap(), ["a", "b"]);
    }

    #[test]
    fn refuses_what_kubernetes_refuses() {
        for bad in [
            serde_json::json!({"matchLabels": {"a b": "c"}}),
            serde_json::json!({"matchLabels": {"a": "-"}}),
            serde_json::json!({"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}),
            serde_json::json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
            serde_json::json!({"matchLabels": {"A/b": "c"}}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
