//! Grafana's JSON model of a dashboard, as far as it is needed to ask its
//! queries and to draw it.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A dashboard.
#[derive(Debug)]
pub struct Dashboard {
    /// What a person chooses by.
    pub variables: Vec<Variable>,
    /// Its panels, rows among them.
    pub panels: Vec<Panel>,
}

/// A variable whose values are those that a label has.
#[derive(Debug)]
pub struct Variable {
    /// Its name, without the dollar sign.
    pub name: String,
    /// The metric that is looked at.
    pub metric: String,
    /// The label.
    pub label: String,
}

/// Where a panel is, in a grid of 24 columns.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Place {
    /// Columns from the left.
    pub x: i32,
    /// Units from above.
    pub y: i32,
    /// Columns.
    pub w: i32,
    /// Units.
    pub h: i32,
}

/// What a panel looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A heading.
    Row,
    /// One number.
    Stat,
    /// Lines over time.
    Timeseries,
    /// Labels of what there is now.
    Table,
}

/// A panel.
#[derive(Debug)]
pub struct Panel {
    /// Its number, unique in the dashboard.
    pub id: i64,
    /// What it looks like.
    pub kind: Kind,
    /// Its title.
    pub title: String,
    /// Where it is.
    pub place: Place,
    /// Unit of its values, as Grafana names it.
    pub unit: String,
    /// Values are stacked.
    pub stacked: bool,
    /// From which value on it has which colour.
    pub steps: Vec<(f64, String)>,
    /// Labels that a table leaves out.
    pub hidden: Vec<String>,
    /// What it asks.
    pub targets: Vec<Target>,
}

/// One query.
#[derive(Debug)]
pub struct Target {
    /// The query, with Grafana's own variables replaced; see [`Target::choose`].
    pub query: String,
    /// How each series is named.
    pub legend: String,
}

impl Dashboard {
    /// Reads the JSON model.
    pub fn read(text: &str) -> Result<Self> {
        let model: Value = serde_json::from_str(text)?;
        let variables = model["templating"]["list"].as_array();
        let variables: Vec<Variable> = variables
            .context("it has no variables")?
            .iter()
            .filter(|v| v["type"] == "query")
            .map(variable)
            .collect::<Result<_>>()?;
        let panels = model["panels"].as_array().context("it has no panels")?;
        let panels: Vec<Panel> = panels
            .iter()
            .map(|model| panel(model, &variables))
            .collect::<Result<_>>()?;
        Ok(Self { variables, panels })
    }
}

impl Target {
    /// The query when a person has chosen these values: regular expressions.
    pub fn choose(&self, choices: &[(&Variable, String)]) -> String {
        let mut query = self.query.clone();
        for (variable, values) in choices {
            query = query.replace(&format!("${}", variable.name), values);
        }
        query
    }
}

/// Reads one that asks `label_values(METRIC, LABEL)`.
fn variable(model: &Value) -> Result<Variable> {
    let query = model["query"]["query"].as_str().context("no query")?;
    ensure!(model["definition"] == query, "{query}: definition differs");
    let asked = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')')?.split_once(", "));
    let (metric, label) = asked.with_context(|| format!("{query} is no label_values"))?;
    Ok(Variable {
        name: model["name"].as_str().context("no name")?.to_owned(),
        metric: metric.to_owned(),
        label: label.to_owned(),
    })
}

fn panel(model: &Value, variables: &[Variable]) -> Result<Panel> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let title = text(&model["title"]);
    let defaults = &model["fieldConfig"]["defaults"];
    let targets = model["targets"].as_array().into_iter().flatten();
    let targets = targets
        .map(|target| {
            let query = target["expr"].as_str().context("no expr")?;
            // As Grafana does for a scrape each second.
            let query = query.replace("$__rate_interval", "10s");
            let is_known = |rest: &str| variables.iter().any(|v| rest.starts_with(&v.name));
            ensure!(
                query.split('$').skip(1).all(is_known),
                "{title}: unknown variable in {query}"
            );
            Ok(Target {
                query,
                legend: text(&target["legendFormat"]),
            })
        })
        .collect::<Result<_>>()?;
    let steps = defaults["thresholds"]["steps"].as_array();
    let steps = steps.into_iter().flatten().map(|step| {
        let from = step["value"].as_f64().unwrap_or(f64::NEG_INFINITY);
        (from, text(&step["color"]))
    });
    let organized = &model["transformations"][0]["options"]["excludeByName"];
    Ok(Panel {
        id: model["id"].as_i64().context("a panel has no id")?,
        kind: serde_json::from_value(model["type"].clone()).context(title.clone())?,
        place: serde_json::from_value(model["gridPos"].clone()).context(title.clone())?,
        unit: text(&defaults["unit"]),
        stacked: defaults["custom"]["stacking"]["mode"] == "normal",
        steps: steps.collect(),
        hidden: organized
            .as_object()
            .map(|o| o.keys().cloned().collect())
            .unwrap_or_default(),
        targets,
        title,
    })
}

/// The names of metrics in a query: words that have the form of one of the
/// metrics that are scraped here.
pub fn metrics_of(query: &str) -> Vec<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let mut names: Vec<String> = words
        .filter(|w| {
            ["l2lb_", "metallb_", "apiserver_"]
                .iter()
                .any(|p| w.starts_with(p))
        })
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}
