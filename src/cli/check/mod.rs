//! `kubectl l2lb check`: reads a snapshot, and applies the rules of
//! [`crate::check`] to it.

mod probe;
mod read;

use std::process::ExitCode;

use serde::Serialize;

use super::cluster::{self, Target};
use super::output::{Format, Plain};
use super::table::{Cell, Tone, draw_within, takes_colour, width};
use crate::check::{Finding, RULES, Severity, Snapshot, check};

/// Looks for what keeps addresses from being announced as they should, or will
/// one day: in our objects, in MetalLB's and others', in nodes, speakers,
/// kube-proxy and webhooks. Each finding names the object and says what to do.
///
/// Errors: an address is dark or goes elsewhere, or MetalLB or l2lb does not
/// work. Warnings: it works, and will not when something else happens.
///
/// What may not be read is named and left out. It sees what the API shows, and
/// with --probe also who answers for addresses on the segment that this machine
/// is in: it sends a datagram to each, to port 9 (discard), at most 100 in a
/// second, and reads the kernel's table of neighbours (Linux, IPv4).
///
/// Ends with 0 when there is no error (there may be warnings), 1 when there
/// is one, 2 when it could not look.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb check\n  \
    kubectl l2lb check -o json | jq -r '.findings[] | select(.rule == \"no-standby\").object'\n  \
    kubectl l2lb check --rules\n  \
    kubectl l2lb check --probe")]
pub(super) struct Args {
    /// Only list the rules
    #[arg(long)]
    rules: bool,
    /// Also find out who answers for addresses; on a host of the balancers'
    /// segment that is no node
    #[arg(long, conflicts_with = "rules")]
    probe: bool,
    /// How many addresses that no Service has are asked for with --probe
    #[arg(long, value_name = "COUNT", default_value_t = 256, requires = "probe")]
    probe_limit: usize,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
    #[command(flatten)]
    target: Target,
}

/// What is printed for a program.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    findings: &'a [Finding],
    not_looked_at: Vec<Unread<'a>>,
}

#[derive(Serialize)]
struct Unread<'a> {
    what: &'a str,
    why: &'a str,
}

/// The rules, for a program.
#[derive(Serialize)]
struct Rules<'a> {
    rules: &'a [Rule],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    family: &'static str,
    rule: &'static str,
    finds_that: &'static str,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, String> {
    if args.rules {
        super::print(&rules(args.output)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut snapshot = cluster::run(async { read::snapshot(&args.target.connect().await?).await })?;
    if args.probe {
        snapshot.probe = Some(probe::run(&snapshot.world, args.probe_limit)?);
    }
    let findings = check(&snapshot);
    super::print(&shown(
        &snapshot,
        &findings,
        args.output,
        (takes_colour(), width()),
    )?)?;
    let bad = findings.iter().any(|f| f.severity == Severity::Error);
    Ok(if bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn rules(output: Plain) -> Result<String, String> {
    let rules: Vec<Rule> = RULES
        .iter()
        .flat_map(|(family, rules)| {
            rules.iter().map(move |(rule, finds_that)| Rule {
                family,
                rule,
                finds_that,
            })
        })
        .collect();
    if let Some(text) = Format::from(output).of_program(&Rules { rules: &rules })? {
        return Ok(text);
    }
    let row = |r: &Rule| [r.family, r.rule, r.finds_that].map(str::to_owned);
    let rows: Vec<[String; 3]> = rules.iter().map(row).collect();
    Ok(super::table::table(["FAMILY", "RULE", "FINDS THAT"], &rows))
}

fn shown(
    snapshot: &Snapshot,
    findings: &[Finding],
    output: Plain,
    (colour, width): (bool, Option<u16>),
) -> Result<String, String> {
    let unread = snapshot.not_looked_at();
    let report = Report {
        findings,
        not_looked_at: unread
            .iter()
            .map(|(what, why)| Unread { what, why })
            .collect(),
    };
    if let Some(text) = Format::from(output).of_program(&report)? {
        return Ok(text);
    }
    let mut text = String::new();
    if findings.is_empty() {
        text += "nothing found\n";
    } else {
        let rows = findings.iter().map(|f| {
            let tone = match f.severity {
                Severity::Error => Tone::Bad,
                Severity::Warning => Tone::Watch,
                Severity::Info => Tone::Dim,
            };
            [
                Cell::new(f.severity.as_str(), tone),
                Cell::from(f.rule),
                Cell::from(f.object.as_str()),
                Cell::from(f.message.as_str()),
                Cell::from(f.remedy.as_str()),
            ]
        });
        let headings = ["SEVERITY", "RULE", "OBJECT", "FINDING", "WHAT TO DO"];
        text += &draw_within(width, &headings, rows.collect::<Vec<_>>(), colour);
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        text += &format!(
            "\n{} errors, {} warnings, {} to know\n",
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Info)
        );
    }
    for (what, why) in &unread {
        text += &format!("not looked at: {what}: {why}\n");
    }
    Ok(text)
}

/// What `check` prints of a snapshot.
#[cfg(test)]
pub(super) fn of_snapshot(args: &Args, snapshot: &Snapshot) -> String {
    if args.rules {
        return rules(args.output).unwrap();
    }
    shown(snapshot, &check(snapshot), args.output, (false, None)).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_for_programs_too() {
        let json: serde_json::Value = serde_json::from_str(&rules(Plain::Json).unwrap()).unwrap();
        let listed = json["rules"].as_array().unwrap();
        let lines = rules(Plain::Table).unwrap().lines().count();
        assert_eq!(listed.len() + 1, lines);
        let first = &listed[0];
        assert_eq!(first["family"], "addresses");
        assert_eq!(first["rule"], "node-address-in-pool");
        assert_eq!(first["findsThat"], "a pool holds an address of a node");
        let yaml: serde_json::Value = serde_saphyr::from_str(&rules(Plain::Yaml).unwrap()).unwrap();
        assert_eq!(yaml, json);
    }
}
