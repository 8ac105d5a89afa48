//! Findings as text, JSON and SARIF.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Located, Output};
use crate::admission::Rule;

/// All findings in one text.
pub(super) fn text(findings: &[Located], output: Output) -> Result<String, String> {
    let value = match output {
        Output::Text => return Ok(lines(findings)),
        Output::Json => json!({"findings": findings.iter().map(json_of).collect::<Vec<_>>()}),
        Output::Sarif => sarif(findings),
    };
    serde_json::to_string_pretty(&value)
        .map(|t| t + "\n")
        .map_err(|e| e.to_string())
}

fn level(located: &Located) -> &'static str {
    if located.denied { "error" } else { "warning" }
}

fn lines(findings: &[Located]) -> String {
    let mut text = String::new();
    for located in findings {
        let Located {
            file,
            line,
            finding,
            ..
        } = located;
        text.push_str(&format!(
            "{file}:{line}: {}: {}: {}: {} [{}]\n",
            finding.object,
            finding.field,
            level(located),
            finding.message,
            finding.rule
        ));
    }
    text
}

fn json_of(located: &Located) -> Value {
    let Located {
        file,
        line,
        finding,
        ..
    } = located;
    json!({
        "file": file,
        "line": line,
        "kind": finding.object.kind.as_str(),
        "namespace": finding.object.key.namespace,
        "name": finding.object.key.name,
        "field": finding.field,
        "rule": finding.rule.as_str(),
        "level": level(located),
        "message": finding.message,
    })
}

fn sarif(findings: &[Located]) -> Value {
    let used: BTreeSet<Rule> = findings.iter().map(|f| f.finding.rule).collect();
    let rules: Vec<Value> = used
        .iter()
        .map(|rule| json!({"id": rule.as_str(), "shortDescription": {"text": rule.description()}}))
        .collect();
    let results: Vec<Value> = findings
        .iter()
        .map(|located| {
            let Located {
                file,
                line,
                finding,
                ..
            } = located;
            json!({
                "ruleId": finding.rule.as_str(),
                "level": level(located),
                "message": {"text": format!("{}: {finding}", finding.object)},
                "locations": [{
                    "physicalLocation": {
                        "artifactLocation": {"uri": file},
                        "region": {"startLine": line}
                    },
                    "logicalLocations": [{
                        "fullyQualifiedName": format!("{} {}", finding.object, finding.field)
                    }]
                }]
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "kubectl-l2lb",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules
            }},
            "results": results
        }]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Finding;
    use crate::world::{Key, Kind, ObjectRef};

    fn one() -> Vec<Located> {
        vec![Located {
            file: "a.yaml".to_owned(),
            line: 7,
            denied: true,
            finding: Finding {
                rule: Rule::Sizing,
                object: ObjectRef {
                    kind: Kind::LoadBalancer,
                    key: Key::new("shop", "web"),
                },
                field: "spec.maxNodes".to_owned(),
                message: "too many".to_owned(),
            },
        }]
    }

    #[test]
    fn each_form_has_everything() {
        let line = "a.yaml:7: L2LoadBalancer shop/web: spec.maxNodes: error: too many [sizing]\n";
        assert_eq!(text(&one(), Output::Text).unwrap(), line);
        let json: Value = serde_json::from_str(&text(&one(), Output::Json).unwrap()).unwrap();
        assert_eq!(json["findings"][0]["namespace"], "shop");
        let sarif: Value = serde_json::from_str(&text(&one(), Output::Sarif).unwrap()).unwrap();
        let run = &sarif["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"][0]["id"], "sizing");
        let place = &run["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place["region"]["startLine"], 7);
        assert_eq!(run["results"][0]["level"], "error");
    }
}
