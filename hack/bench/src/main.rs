//! `make bench`: what criterion measured of the planner, and what a lab shows
//! of the way from `kubectl apply` to ARP, each as a ratio to a baseline of
//! the same run. Machines are noisy; ratios are less so.

mod failover;
mod fan_out;
mod figure;
mod planner;

use std::process::ExitCode;

use anyhow::{Context, Result};
use l2lb_lab::{Lab, LabConfig, place};

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
    let components = config.components();
    l2lb_lab::enter(&components.iter().map(String::as_str).collect::<Vec<_>>())?;
    if std::env::args().nth(1).as_deref() == Some("failover") {
        return fail_over(config);
    }
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
    let controller = std::env::current_exe()?.with_file_name("l2lb-controller");
    let figures = tokio::runtime::Runtime::new()?.block_on(async {
        eprintln!("bringing up a lab with 5 nodes");
        failover::measure(Lab::up(config).await?, &controller).await
    })?;
    show(&figures, "failover.json")
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
