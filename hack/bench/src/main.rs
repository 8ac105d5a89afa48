//! `make bench`: what criterion measured of the planner, and what a lab shows
//! of the way from `kubectl apply` to ARP, each as a ratio to a baseline of
//! the same run. Machines are noisy; ratios are less so. `make failover` and
//! `make scale` measure in the lab alone.

mod failover;
mod fan_out;
mod figure;
mod planner;
mod scale;

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use l2lb_lab::{Lab, LabConfig, METALLB, place};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let config = LabConfig {
        nodes: 5,
        ..LabConfig::default()
    };
    match std::env::args().nth(1).as_deref() {
        None => bench(config),
        Some("failover") => fail_over(config),
        Some("scale") => scale(),
        Some(other) => bail!("{other} is not measured: say failover, scale or nothing"),
    }
}

/// A lab of this process's own.
fn enter(config: &LabConfig) -> Result<()> {
    let components = config.components();
    l2lb_lab::enter(&components.iter().map(String::as_str).collect::<Vec<_>>())
}

/// `make bench`: the planner, and the way to the first answers.
fn bench(config: LabConfig) -> Result<()> {
    enter(&config)?;
    let mut figures = planner::figures(&place::target().join("criterion"))?;
    // Optimised, by `cargo bench`; this program itself need not be.
    let controller = place::target().join("release/l2lb-controller");
    figures.extend(tokio::runtime::Runtime::new()?.block_on(async {
        eprintln!("bringing up a lab with 5 nodes for 10 pairs of fan-outs");
        fan_out::measure(Lab::up(config).await?, &controller).await
    })?);
    show(&figures, "summary.json")
}

/// `make failover`: what one node's death does, here and with plain MetalLB.
fn fail_over(config: LabConfig) -> Result<()> {
    enter(&config)?;
    let controller = std::env::current_exe()?.with_file_name("l2lb-controller");
    let figures = tokio::runtime::Runtime::new()?.block_on(async {
        eprintln!("bringing up a lab with 5 nodes");
        failover::measure(Lab::up(config).await?, &controller).await
    })?;
    show(&figures, "failover.json")
}

/// `make scale`: what a change of MetalLB's configuration costs. Each version
/// has a process of its own, as a process has one lab.
fn scale() -> Result<()> {
    let one = std::env::args().nth(2);
    let versions = [(METALLB, 3000), ("0.15.2", 300)];
    let Some(one) = one else {
        for (version, _) in versions {
            let status = std::process::Command::new(std::env::current_exe()?)
                .args(["scale", version])
                .status()
                .context("starting this program again")?;
            ensure!(status.success(), "MetalLB {version}: {status}");
        }
        return Ok(());
    };
    let known = versions.iter().find(|(version, _)| *version == one);
    let (version, services) = known.with_context(|| format!("MetalLB {one} is not measured"))?;
    let config = LabConfig {
        metallb: Some((*version).to_owned()),
        audit: true,
        ..LabConfig::default()
    };
    enter(&config)?;
    let figures = tokio::runtime::Runtime::new()?
        .block_on(async { scale::measure(Lab::up(config).await?, *services).await })?;
    show(&figures, &format!("scale-{version}.json"))
}

/// Prints figures as a table, and writes them to a file of `target/bench`.
fn show(figures: &[figure::Figure], file: &str) -> Result<()> {
    print!("{}", figure::table(figures));
    let summary = place::target().join("bench").join(file);
    std::fs::create_dir_all(summary.parent().context("no folder")?)?;
    std::fs::write(&summary, serde_json::to_string_pretty(figures)? + "\n")?;
    eprintln!("written to {}", summary.display());
    Ok(())
}

/// The middle one of some numbers.
fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        n if n % 2 == 1 => numbers.get(middle).copied(),
        _ => Some((numbers.get(middle - 1)? + numbers.get(middle)?) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(super::median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(super::median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(super::median(vec![]), None);
    }
}
