//! The dashboard, the alerts and the metrics, held against a real Prometheus
//! that scraped a real run: nodes that die, are drained, come and leave, a
//! quota that refuses, a leader that is killed.
//!
//! `UPDATE_PICTURE=1 cargo test --test observability` draws the dashboard anew
//! into docs/images/dashboard.svg, from what Prometheus answers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dashboard;
mod picture;
mod prometheus;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use l2lb_lab::{Lab, LabConfig, harness, place};

use self::dashboard::{Dashboard, Variable};
use self::prometheus::Prometheus;

/// Queries of the dashboard that may find nothing in the lab, by panel, and why.
const MAY_BE_EMPTY: [(&str, &str); 0] = [];

fn main() -> ExitCode {
    harness::run(vec![
        harness::trial("observability", LabConfig::default(), observability)
            .timeout(Duration::from_secs(420)),
    ])
}

async fn observability(lab: Lab) -> Result<()> {
    let (scene, prometheus) = scene::play(lab).await?;
    every_target_is_scraped(&prometheus).await?;
    metrics_are_those_of_the_documentation(&prometheus).await?;
    texts_are_well_formed(&scene).await?;
    what_happened_was_counted(&prometheus).await?;
    alerts_are_evaluated(&prometheus).await?;
    dashboard_shows_something_everywhere(&scene, &prometheus).await
}

async fn every_target_is_scraped(prometheus: &Prometheus) -> Result<()> {
    let targets = prometheus.get("/api/v1/targets?state=active").await?;
    for target in targets["activeTargets"].as_array().into_iter().flatten() {
        ensure!(
            target["health"] == "up",
            "{} is not scraped: {}",
            target["labels"],
            target["lastError"]
        );
    }
    Ok(())
}

/// The metrics in the tables of docs/reference.md, by name and type.
fn documented() -> Result<BTreeMap<String, String>> {
    let page = std::fs::read_to_string(place::workspace().join("docs/reference.md"))?;
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    });
    let rows: BTreeMap<_, _> = rows.filter(|(name, _)| name.starts_with("l2lb_")).collect();
    ensure!(
        rows.len() > 20,
        "only {} metrics are documented",
        rows.len()
    );
    Ok(rows)
}

async fn metrics_are_those_of_the_documentation(prometheus: &Prometheus) -> Result<()> {
    let documented = documented()?;
    let values = prometheus.get("/api/v1/label/__name__/values").await?;
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for name in values.as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if !name.starts_with("l2lb_") {
            continue;
        }
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| documented.get(*family).is_some_and(|k| k == "histogram"));
        seen.insert(family.unwrap_or(name).to_owned());
    }
    let documented: BTreeSet<String> = documented.into_keys().collect();
    let unseen: Vec<_> = documented.difference(&seen).collect();
    let undocumented: Vec<_> = seen.difference(&documented).collect();
    ensure!(unseen.is_empty(), "documented and never seen: {unseen:?}");
    ensure!(
        undocumented.is_empty(),
        "seen and not documented: {undocumented:?}"
    );
    eprintln!("{} metrics are documented and were seen", seen.len());
    Ok(())
}

/// What is served to those who do not ask for OpenMetrics passes promtool's
/// lint; Prometheus itself has read the other form.
async fn texts_are_well_formed(scene: &scene::Scene) -> Result<()> {
    for port in scene.ports() {
        let text = scene::metrics(port).await?;
        let (good, output) = prometheus::promtool(&["check", "metrics"], &text).await?;
        ensure!(
            good && output.trim().is_empty(),
            "port {port}: {output}\n{text}"
        );
    }
    Ok(())
}

/// Counters and gauges have followed the story.
async fn what_happened_was_counted(prometheus: &Prometheus) -> Result<()> {
    for (what, query) in [
        (
            "a node died",
            "max_over_time(sum(l2lb_pin_moves_total{cause=\"failover\"})[10m:1s]) >= 1",
        ),
        (
            "a node was drained",
            "max_over_time(sum(l2lb_pin_moves_total{cause=\"handover\"})[10m:1s]) >= 1",
        ),
        (
            "nodes came back",
            "max_over_time(sum(l2lb_pin_moves_total{cause=\"return\"})[10m:1s]) >= 2",
        ),
        (
            "a node left",
            "max_over_time(sum(l2lb_pin_moves_total{cause=\"departure\"})[10m:1s]) >= 1",
        ),
        (
            "its address retires",
            "l2lb_pool_addresses{pool=\"edge\",state=\"retiring\"} >= 1",
        ),
        (
            "one address is excluded",
            "l2lb_pool_addresses{pool=\"edge\",state=\"excluded\"} == 1",
        ),
        (
            "node-2 could not announce",
            "min_over_time(l2lb_node_able{node=\"node-2\"}[10m]) == 0",
        ),
        (
            "node-2 can announce",
            "l2lb_node_able{node=\"node-2\"} == 1",
        ),
        (
            "the quota refused",
            "sum(l2lb_refused_objects{kind=\"Service\"}) >= 1",
        ),
        (
            "the webhook denied",
            "sum(l2lb_webhook_findings_total{rule=\"sizing\",verdict=\"denial\"}) >= 1",
        ),
        ("one leads", "sum(l2lb_leader) == 1"),
        (
            "nobody led for a while",
            "min_over_time(sum(l2lb_leader)[10m:1s]) == 0",
        ),
        (
            "the certificate lives",
            "min(l2lb_webhook_certificate_expiry_timestamp_seconds) - time() > 3600",
        ),
        (
            "the deleted node is gone",
            "absent(l2lb_node_home_slots{node=\"node-4\"})",
        ),
    ] {
        let found = prometheus.query(query).await?;
        ensure!(!found.is_empty(), "{what}: {query} finds nothing");
    }
    Ok(())
}

/// Prometheus evaluates every rule, each asks about metrics that exist, and
/// those that the story calls for are on their way.
async fn alerts_are_evaluated(prometheus: &Prometheus) -> Result<()> {
    let rules = prometheus.get("/api/v1/rules").await?;
    let groups = rules["groups"].as_array().cloned().unwrap_or_default();
    let rules: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .collect();
    ensure!(rules.len() > 15, "only {} rules", rules.len());
    let mut waking = BTreeSet::new();
    for rule in rules {
        let name = rule["name"].as_str().unwrap_or_default();
        ensure!(rule["health"] == "ok", "{name}: {}", rule["lastError"]);
        if rule["state"] != "inactive" {
            waking.insert(name.to_owned());
        }
        let query = rule["query"].as_str().unwrap_or_default();
        for metric in dashboard::metrics_of(query) {
            let found = prometheus.range(&metric).await?;
            ensure!(
                !found.is_empty(),
                "{name} asks about {metric}, which was never there"
            );
        }
    }
    for wanted in ["L2LBWritesRefused", "L2LBPoolNotUsable"] {
        ensure!(waking.contains(wanted), "{wanted} is not among {waking:?}");
    }
    for unwanted in ["L2LBNoLeader", "L2LBTwoLeaders", "L2LBWebhookDown"] {
        ensure!(!waking.contains(unwanted), "{unwanted} is among {waking:?}");
    }
    // "old" is being deleted, as the documentation says that a pool is.
    let alarm = "ALERTS{alertname=\"L2LBPoolNotUsable\"}";
    for found in prometheus.query(alarm).await? {
        let pool = found.labels.get("pool").map_or("", String::as_str);
        ensure!(pool == "taken", "L2LBPoolNotUsable is about {pool:?}");
    }
    eprintln!("alerts pending or firing: {waking:?}");
    Ok(())
}

/// The variables of the dashboard, with all values that a person can choose.
async fn values_of<'a>(
    dashboard: &'a Dashboard,
    prometheus: &Prometheus,
) -> Result<Vec<(&'a Variable, String)>> {
    let mut choices = Vec::new();
    for variable in &dashboard.variables {
        let Variable {
            name,
            metric,
            label,
        } = variable;
        let values = prometheus.values(metric, label).await?;
        ensure!(
            !values.is_empty(),
            "{metric} has no label {label}, by which ${name} is chosen"
        );
        choices.push((variable, values.join("|")));
    }
    ensure!(choices.len() > 2, "only {} variables", choices.len());
    Ok(choices)
}

async fn dashboard_shows_something_everywhere(
    scene: &scene::Scene,
    prometheus: &Prometheus,
) -> Result<()> {
    let path = place::workspace().join("charts/l2lb/files/dashboard.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let dashboard = Dashboard::read(&text)?;
    let by_name = values_of(&dashboard, prometheus).await?;
    let everything = dashboard.variables.iter().map(|v| (v, ".*".to_owned()));
    let everything: Vec<_> = everything.collect();
    let mut answers = BTreeMap::new();
    let (mut queries, mut empty) = (0, Vec::new());
    for panel in &dashboard.panels {
        for (index, target) in panel.targets.iter().enumerate() {
            queries += 1;
            let query = target.choose(&everything);
            let found = prometheus
                .range(&query)
                .await
                .with_context(|| format!("{}: {query}", panel.title))?;
            // The values of a wrong label find nothing.
            let query = target.choose(&by_name);
            let named = prometheus.range(&query).await?;
            let may_be = MAY_BE_EMPTY.iter().any(|(title, _)| *title == panel.title);
            if (found.is_empty() || named.is_empty()) && !may_be {
                empty.push(format!("{}: {query}", panel.title));
            }
            answers.insert((panel.id, index), found);
        }
    }
    ensure!(queries > 20, "only {queries} queries");
    if !empty.is_empty() {
        bail!("panels that show nothing:\n{}", empty.join("\n"));
    }
    eprintln!("{queries} queries of the dashboard were answered");
    let svg = picture::draw(&dashboard, &answers, scene.began, prometheus.now())?;
    let kept = place::target().join("lab/dashboard.svg");
    std::fs::write(&kept, &svg)?;
    if std::env::var_os("UPDATE_PICTURE").is_some() {
        std::fs::write(place::workspace().join("docs/images/dashboard.svg"), &svg)?;
    }
    Ok(())
}
