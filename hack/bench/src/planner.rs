//! The planner's figures, out of criterion's estimates.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::figure::Figure;

/// Reads the median of one benchmark, in milliseconds.
fn median(criterion: &Path, name: &str) -> Result<f64> {
    let path = criterion.join(name).join("new/estimates.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: run `cargo bench --bench plan` first", path.display()))?;
    let estimates: Value = serde_json::from_str(&text)?;
    let nanoseconds = estimates["median"]["point_estimate"].as_f64();
    nanoseconds
        .map(|n| n / 1e6)
        .with_context(|| format!("{} has no median", path.display()))
}

/// The planner's figures.
pub fn figures(criterion: &Path) -> Result<Vec<Figure>> {
    let of = |name: &str| median(criterion, name);
    let serialise = of("thousand/serialise")?;
    let restart = of("thousand/restart")?;
    let mut figures = Vec::new();
    for (bench, name, target) in [
        (
            "restart",
            "plan, cold, 20,000 Services exist (vs serialising them)",
            Some(1.5),
        ),
        (
            "first",
            "plan, cold, none exists yet (vs serialising them)",
            Some(1.5),
        ),
        (
            "event",
            "plan, one event that changes nothing (vs serialising all)",
            Some(0.1),
        ),
        (
            "create",
            "plan, one load balancer more (vs serialising all)",
            None,
        ),
    ] {
        let value = of(&format!("thousand/{bench}"))?;
        figures.push(Figure::new(name, "ms", value, serialise, target));
    }
    for (bench, name, target) in [
        (
            "event",
            "one event that changes nothing (vs cold restart)",
            Some(0.1),
        ),
        // It concerns every load balancer, one after the other, and writes of each.
        (
            "death",
            "one node's death: 1,000 pins move (vs cold restart)",
            None,
        ),
    ] {
        let value = of(&format!("thousand/{bench}"))?;
        figures.push(Figure::new(name, "ms", value, restart, target));
    }
    // It asks for the free addresses of every load balancer in turn, so it is
    // beside the plan that chooses all of them.
    figures.push(Figure::new(
        "one node more: 1,000 Services (vs all 20,000 of them)",
        "ms",
        of("thousand/join")?,
        of("thousand/first")?,
        Some(1.5),
    ));
    // Twice the load balancers: 2.0 would be linear.
    for (small, large) in [(125, 250), (250, 500), (500, 1000)] {
        figures.push(Figure::new(
            format!("growth from {small} to {large} load balancers (linear: 2)"),
            "ms",
            of(&format!("growth/{large}"))?,
            of(&format!("growth/{small}"))?,
            Some(2.5),
        ));
    }
    figures.push(Figure::new(
        "a /8 (vs a /24)",
        "ms",
        of("pool/v4-8")?,
        of("pool/v4-24")?,
        Some(1.2),
    ));
    figures.push(Figure::new(
        "a /64 (vs a /120)",
        "ms",
        of("pool/v6-64")?,
        of("pool/v6-120")?,
        Some(1.2),
    ));
    Ok(figures)
}
