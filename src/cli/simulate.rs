//! `kubectl l2lb simulate`: the planner over a made-up history.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Map, json};

use super::output::{Format, Plain};
use super::table::table;
use crate::manifest;
use crate::metallb::Capabilities;
use crate::simulate::event::{self, DEFAULT_POOL, Event, Pool};
use crate::simulate::random::{self, Recipe};
use crate::simulate::report::{self, Move, Report};
use crate::simulate::{Cluster, METALLB, METALLB_VERSIONS};
use crate::world::Spread;

/// Plays a history of nodes and load balancers in memory, with the planner of
/// the controller and a MetalLB that elects as the real one, and prints what
/// every event moves and has written, and how even things are afterwards.
/// There is no cluster and no waiting: for capacity questions, and to replay
/// the history of a failed test.
///
/// The same options give the same output.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Nodes at the beginning [default: 5, with a file of events 0]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Load balancers at the beginning [default: 20, with a file of events 0]
    #[arg(long, value_name = "M")]
    load_balancers: Option<usize>,
    /// maxNodes of the load balancers
    #[arg(long, value_name = "N")]
    max_nodes: Option<u32>,
    /// Addresses in the pool, at most 65536
    #[arg(long, value_name = "N", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pool_size: u32,
    /// Which MetalLB runs: before 0.16.2 addresses are pinned in another way
    #[arg(long, value_name = "VERSION", default_value = METALLB, value_parser = capabilities)]
    metallb: Capabilities,
    /// What happens: `random`, or a file with events in YAML; - is standard input
    #[arg(long, value_name = "FILE|random", default_value = "random")]
    events: PathBuf,
    /// How many random events
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: usize,
    /// Which random history
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Print the events, the beginning among them, as a file for --events, and stop
    #[arg(long)]
    print_events: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
}

const HELP: &str = "\
Columns: MOVED are slots whose announcing node changed, of all; HOMES are the fewest and the most \
slots that a node is home to; HEIRS the fewest and the most that another node takes over when \
the node with the least even share fails and nobody steers; STANDBYS the slots with one.

Events, one in each line of the file:
  - pool: {name: edge, spec: {addresses: [203.0.113.0/28]}}
  - join: {node: node-1, labels: {role: edge}}
  - label: {node: node-1, labels: {role: worker}}
  - create: {loadBalancer: shop/web, spec: {maxNodes: 3}}
  - delete: shop/web
  - lose: node-1           (return, cordon, uncordon, drain, undrain, leave)
  - endpoints: {loadBalancer: shop/web, nodes: [node-1]}
  - occupy: {service: legacy/web, addresses: [203.0.113.7]}
  - vacate: legacy/web
  - wait: 1h30m
A load balancer that names no pool is in pool edge; a file that makes that pool itself comes \
without the default one.

Examples:
  kubectl l2lb simulate --nodes 10 --load-balancers 200
  kubectl l2lb simulate --max-nodes 3 --steps 100 --seed 7 -o json
  kubectl l2lb simulate --nodes 10 --load-balancers 50 --metallb 0.15.2
  kubectl l2lb simulate --seed 7 --print-events > history.yaml
  kubectl l2lb simulate --events history.yaml";

pub(super) fn run(args: &Args) -> Result<(), String> {
    let (beginning, history) = events(args)?;
    if args.print_events {
        let all: Vec<Event> = beginning.into_iter().chain(history).collect();
        return super::print(&event::print(&all));
    }
    let report = report::play(&mut cluster(args)?, &beginning, &history)?;
    super::print(&text(&report, args.output)?)
}

/// What a version of MetalLB can do.
fn capabilities(version: &str) -> Result<Capabilities, String> {
    Capabilities::of_version(version).ok_or_else(|| {
        format!(
            "not a version of MetalLB from {} on; those that behave differently are {}",
            METALLB_VERSIONS[0],
            METALLB_VERSIONS.join(", ")
        )
    })
}

/// A cluster in which nothing is yet but MetalLB.
fn cluster(args: &Args) -> Result<Cluster, String> {
    // An arbitrary time: nothing depends on it.
    let start = Timestamp::from_second(1_800_000_000).map_err(|e| e.to_string())?;
    Ok(Cluster::with_metallb(start, args.metallb))
}

/// What is there at the beginning, and what happens then.
fn events(args: &Args) -> Result<(Vec<Event>, Vec<Event>), String> {
    let random = args.events.as_os_str() == "random";
    let nodes = args.nodes.unwrap_or(if random { 5 } else { 0 });
    let load_balancers = args.load_balancers.unwrap_or(if random { 20 } else { 0 });
    let history = if random {
        let recipe = Recipe {
            steps: args.steps,
            nodes,
            load_balancers,
            max_nodes: args.max_nodes,
        };
        random::history(args.seed, &recipe)
    } else {
        let text = manifest::read_text(&args.events).map_err(|e| e.to_string())?;
        event::parse(&text).map_err(|e| format!("{}: {e}", args.events.display()))?
    };
    let own_pool = |e: &Event| matches!(e, Event::Pool(pool) if pool.name == DEFAULT_POOL);
    let mut beginning = Vec::new();
    if !history.iter().any(own_pool) {
        let last = std::net::Ipv4Addr::from(0x0a00_0000 + args.pool_size - 1);
        let mut spec = Map::new();
        spec.insert("addresses".to_owned(), json!([format!("10.0.0.0-{last}")]));
        beginning.push(Event::Pool(Pool {
            name: DEFAULT_POOL.to_owned(),
            spec,
        }));
    }
    beginning.extend((1..=nodes).map(random::join));
    beginning.extend((1..=load_balancers).map(|n| random::create(n, args.max_nodes)));
    Ok((beginning, history))
}

fn text(report: &Report, output: Plain) -> Result<String, String> {
    let program = Format::from(output).of_program(report)?;
    Ok(program.unwrap_or_else(|| readable(report)))
}

fn readable(report: &Report) -> String {
    let rows: Vec<[String; 8]> = report
        .steps
        .iter()
        .map(|step| {
            let moved: usize = step
                .moves
                .iter()
                .filter(|m| m.from.is_some())
                .map(|m| m.slots)
                .sum();
            let even = &step.evenness;
            [
                step.number.to_string(),
                report::elapsed(step.at_seconds),
                step.event.clone(),
                format!("{moved} of {}", even.slots),
                writes(&step.writes),
                spread(even.homes),
                spread(even.heirs),
                format!("{}/{}", even.standbys, even.slots),
            ]
        })
        .collect();
    let headings = [
        "STEP", "TIME", "EVENT", "MOVED", "WRITES", "HOMES", "HEIRS", "STANDBYS",
    ];
    let mut text = table(headings, &rows);
    let who: Vec<[String; 2]> = report
        .steps
        .iter()
        .filter(|s| s.number > 0)
        .flat_map(|step| {
            let moved = step.moves.iter().filter(|m| m.from.is_some());
            moved.map(|m| [step.number.to_string(), hands(m)])
        })
        .collect();
    if !who.is_empty() {
        text.push('\n');
        text += &table(["STEP", "ANNOUNCED BY ANOTHER NODE"], &who);
    }
    let s = &report.summary;
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let rows = [
        ["nodes".to_owned(), s.nodes.to_string()],
        ["load balancers".to_owned(), s.load_balancers.to_string()],
        ["Services".to_owned(), s.services.to_string()],
        [
            "homes of a node, before and after".to_owned(),
            format!("{}, {}", spread(s.before.homes), spread(s.after.homes)),
        ],
        [
            "heirs of a failing node, before and after".to_owned(),
            format!("{}, {}", spread(s.before.heirs), spread(s.after.heirs)),
        ],
        [
            "heirs at a second failure".to_owned(),
            spread(s.second_failure),
        ],
        ["failures".to_owned(), s.failures.to_string()],
        [
            "share of the slots that a failure moved".to_owned(),
            format!("{} (1/N is {})", percent(s.touched), percent(s.fair)),
        ],
        ["writes".to_owned(), writes(&s.writes)],
    ];
    text.push('\n');
    text += &table(["SUMMARY", ""], &rows);
    text
}

fn spread(spread: Spread) -> String {
    format!("{}-{}", spread.least, spread.most)
}

fn writes(writes: &BTreeMap<String, u64>) -> String {
    if writes.is_empty() {
        return "-".to_owned();
    }
    let each: Vec<String> = writes
        .iter()
        .map(|(kind, n)| format!("{kind} {n}"))
        .collect();
    each.join(", ")
}

fn hands(moved: &Move) -> String {
    let name = |node: &Option<String>| node.clone().unwrap_or_else(|| "nobody".to_owned());
    format!(
        "{} from {} to {}",
        moved.slots,
        name(&moved.from),
        name(&moved.to)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(of: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Just {
            #[command(flatten)]
            args: Args,
        }
        let command = std::iter::once("simulate").chain(of.iter().copied());
        <Just as clap::Parser>::parse_from(command).args
    }

    fn played(of: &[&str], output: Plain) -> String {
        let args = args(of);
        let (beginning, history) = events(&args).unwrap();
        let report = report::play(&mut cluster(&args).unwrap(), &beginning, &history).unwrap();
        text(&report, output).unwrap()
    }

    const SMALL: [&str; 8] = [
        "--nodes",
        "3",
        "--load-balancers",
        "4",
        "--steps",
        "10",
        "--seed",
        "3",
    ];

    /// `UPDATE_GOLDEN=1` writes it anew.
    #[test]
    fn a_small_history_is_as_expected() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/testdata/simulate/small.expected"
        );
        let text = played(&SMALL, Plain::Table);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }

    #[test]
    fn printed_events_play_the_same() {
        let args = args(&SMALL);
        let (beginning, history) = events(&args).unwrap();
        let all: Vec<Event> = beginning
            .iter()
            .cloned()
            .chain(history.iter().cloned())
            .collect();
        let again = event::parse(&event::print(&all)).unwrap();
        assert_eq!(again, all);
        let once = report::play(&mut cluster(&args).unwrap(), &beginning, &history).unwrap();
        let twice = report::play(&mut cluster(&args).unwrap(), &again, &[]).unwrap();
        assert_eq!(once.summary.nodes, twice.summary.nodes);
        assert_eq!(once.summary.load_balancers, twice.summary.load_balancers);
    }

    #[test]
    fn json_has_the_numbers() {
        let text = played(
            &["--nodes", "4", "--load-balancers", "8", "--steps", "0"],
            Plain::Json,
        );
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["summary"]["services"], 32);
        assert_eq!(report["steps"][0]["evenness"]["standbys"], 32);
        assert_eq!(
            report["summary"]["before"]["homes"],
            json!({"least": 8, "most": 8})
        );
    }

    #[test]
    fn the_metallb_that_is_named_runs() {
        let pools = |more: &[&str]| {
            let usual = ["--nodes", "3", "--load-balancers", "2", "--steps", "0"];
            let text = played(&[&usual[..], more].concat(), Plain::Json);
            let report: serde_json::Value = serde_json::from_str(&text).unwrap();
            report["summary"]["writes"]["IPAddressPool"].clone()
        };
        assert_eq!(pools(&[]), 1);
        // One for each slot.
        assert_eq!(pools(&["--metallb", "0.15.2"]), 6);
    }

    #[test]
    fn versions_are_known_and_others_refused() {
        assert_eq!(capabilities(METALLB), Ok(Capabilities::CURRENT));
        let mut seen = Vec::new();
        for version in METALLB_VERSIONS {
            let found = capabilities(version).unwrap();
            assert!(!seen.contains(&found), "{version} is as an older one");
            seen.push(found);
        }
        for bad in ["0.12.1", "newest", ""] {
            let said = capabilities(bad).unwrap_err();
            let names_all = METALLB_VERSIONS.iter().all(|v| said.contains(v));
            assert!(names_all, "{bad}: {said}");
        }
    }
}
