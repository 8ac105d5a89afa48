//! Alerts and dashboard against the documentation: each alert has a section
//! that says what to do, each metric that is asked about is in the generated
//! table, and promtool passes the rules and their tests.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::pages;

const FILES: &str = "charts/l2lb/files";

fn folder() -> PathBuf {
    pages::root().join(FILES)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read("alerts.yaml")).unwrap();
    let groups = file["groups"].as_array().unwrap().clone();
    let rules: Vec<Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect();
    assert!(rules.len() > 15, "only {} rules", rules.len());
    rules
}

/// The names of our metrics in a text.
fn metrics_of(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("l2lb_"))
        .collect()
}

#[test]
fn every_alert_has_a_section() {
    let page = pages::read("docs/observability.md".into());
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let anchor = name.to_lowercase();
        assert_eq!(
            rule["annotations"]["runbook_url"],
            format!("docs/observability.md#{anchor}"),
            "{name}"
        );
        assert!(page.anchors.contains(&anchor), "{name} has no section");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{name}: {text}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
    }
    let names: BTreeSet<String> = rules()
        .iter()
        .map(|rule| rule["alert"].as_str().unwrap().to_lowercase())
        .collect();
    let described = page.anchors.iter().filter(|a| a.starts_with("l2lb"));
    for anchor in described {
        assert!(names.contains(anchor), "there is no alert for #{anchor}");
    }
}

#[test]
fn every_alert_is_tested() {
    let tests = read("alerts_test.yaml");
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let fires = format!("alertname=\"{name}\"");
        assert!(
            tests.contains(&fires),
            "alerts_test.yaml does not test {name}"
        );
    }
}

#[test]
fn what_is_asked_about_is_documented() {
    let page = pages::read("docs/reference.md".into());
    let known: BTreeSet<&str> = page
        .text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split_once('`')
                .map(|(name, _)| name)
        })
        .filter(|name| name.starts_with("l2lb_"))
        .collect();
    assert!(
        known.len() > 20,
        "only {} metrics are documented",
        known.len()
    );
    let observability = pages::read("docs/observability.md".into());
    for (place, text) in [
        ("alerts.yaml", read("alerts.yaml")),
        ("alerts_test.yaml", read("alerts_test.yaml")),
        ("dashboard.json", read("dashboard.json")),
        ("docs/observability.md", observability.text),
    ] {
        for metric in metrics_of(&text) {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| metric.strip_suffix(suffix));
            let is_known = known.contains(metric) || family.is_some_and(|f| known.contains(f));
            assert!(is_known, "{place} asks about {metric}, which is no metric");
        }
    }
}

#[test]
fn every_panel_is_explained_and_has_a_unit() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let (mut ids, mut shown) = (BTreeSet::new(), 0);
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(
            ids.insert(panel["id"].as_i64().unwrap()),
            "{title}: id is used twice"
        );
        if panel["type"] == "row" {
            continue;
        }
        shown += 1;
        assert!(panel["description"].is_string(), "{title} is not explained");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        if panel["type"] != "table" {
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{title}"
            );
        }
    }
    assert!(shown > 15, "only {shown} panels");
}

/// promtool, with these arguments, in the folder of the rules.
fn promtool(args: &[&str]) {
    let output = Command::new("promtool")
        .args(args)
        .current_dir(folder())
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "promtool: {error}; it is in Debian's package prometheus, which hack/tools/system-packages.sh --tests installs"
            )
        });
    assert!(
        output.status.success(),
        "promtool {}:\n{}{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_passes_the_alerts() {
    promtool(&[
        "check",
        "rules",
        "--lint=all",
        "--lint-fatal",
        "alerts.yaml",
    ]);
    promtool(&["test", "rules", "alerts_test.yaml"]);
}
