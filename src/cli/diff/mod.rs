//! `kubectl l2lb diff`: what an apply would do to each address, before it is done.

mod apply;
mod compare;

use std::path::PathBuf;
use std::process::ExitCode;

use super::cluster::{self, Target};
use super::lint::place;
use super::output::{Format, Plain};
use super::table::{Cell, Tone, draw, takes_colour};
use crate::api::FamilyCount;
use crate::manifest;
use compare::{Change, Diff, PoolRow};

/// Shows what an apply of files would do to each address, before it is done:
/// which are added, freed, moved to another home, or stay.
///
/// It plans the cluster as it is, and once more with the files in it, as the
/// controller would. What a spec in the files does not say counts as absent, as
/// with kubectl replace; labels and annotations that they do not speak of stay,
/// unless an object is written there as kubectl get prints it. Other objects in
/// the files (Nodes with other labels, say) count too. What would be denied, a
/// field that does not exist among it, is an error.
///
/// Ends with 0 when nothing differs, 1 when something does, 2 when something
/// would be denied or went wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb diff -f pool.yaml -f web.yaml\n  \
    kubectl l2lb diff -f apps/ -o json | jq '.addresses[] | select(.change != \"unchanged\")'\n  \
    kubectl get node node-4 -o yaml | sed 's/role: worker/role: edge/' | kubectl l2lb diff -f -")]
pub(super) struct Args {
    /// File or folder with manifests in YAML or JSON; - is standard input. May be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Namespace of objects that name none [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Show the addresses, too, of which nothing changes
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
    #[command(flatten)]
    target: Target,
}

/// Ends what cannot be applied.
const DENIED: u8 = 2;

pub(super) fn run(args: &Args) -> Result<ExitCode, String> {
    let mut manifests = Vec::new();
    for file in place::expand(&args.files)? {
        manifests.extend(manifest::read_file(&file).map_err(|e| e.to_string())?);
    }
    cluster::run(async {
        let cluster = args.target.connect().await?;
        let (world, stored) = cluster.world_and_objects().await?;
        let namespace = args.namespace.as_deref().unwrap_or(&cluster.namespace);
        let diff = Diff::of(&world, &stored, manifests, namespace)?;
        super::print(&shown(&diff, args, takes_colour())?)?;
        for denied in &diff.denied {
            eprintln!("error: would be denied: {denied}");
        }
        Ok(match (diff.denied.is_empty(), diff.differs()) {
            (false, _) => ExitCode::from(DENIED),
            (true, true) => ExitCode::FAILURE,
            (true, false) => ExitCode::SUCCESS,
        })
    })
}

fn shown(diff: &Diff, args: &Args, colour: bool) -> Result<String, String> {
    if let Some(text) = Format::from(args.output).of_program(diff)? {
        return Ok(text);
    }
    let mut text = String::new();
    let rows = diff
        .addresses
        .iter()
        .filter(|row| args.all || row.change != Change::Unchanged)
        .map(|row| {
            let tone = match row.change {
                Change::Added => Tone::Good,
                Change::Freed => Tone::Bad,
                Change::Moved => Tone::Watch,
                Change::Updated => Tone::Plain,
                Change::Unchanged => Tone::Dim,
            };
            [
                Cell::new(row.change.as_str(), tone),
                Cell::new(&row.address, tone),
                Cell::from(row.load_balancer.as_str()),
                Cell::from(row.service.as_str()),
                Cell::from(row.node.as_str()),
                Cell::from(row.note.as_str()),
            ]
        });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        let headings = ["CHANGE", "ADDRESS", "LOAD BALANCER", "SERVICE", "HOME", ""];
        text += &draw(&headings, rows, colour);
    }
    let count = |change| diff.addresses.iter().filter(|r| r.change == change).count();
    text += &format!(
        "{} added, {} freed, {} moved, {} updated, {} unchanged\n",
        count(Change::Added),
        count(Change::Freed),
        count(Change::Moved),
        count(Change::Updated),
        count(Change::Unchanged)
    );
    if !diff.pools.is_empty() {
        text += "\n";
        text += &draw(
            &["POOL", "FAMILY", "CAPACITY", "", "FREE", ""],
            diff.pools.iter().flat_map(pool_rows).collect::<Vec<_>>(),
            colour,
        );
    }
    if !diff.objects.is_empty() {
        text += "\n";
        for object in &diff.objects {
            text += &format!("{object}\n");
        }
    }
    if !diff.problems.is_empty() {
        text += "\n";
        for problem in &diff.problems {
            text += &format!("then: {problem}\n");
        }
    }
    Ok(text)
}

fn pool_rows(row: &PoolRow) -> Vec<[Cell; 6]> {
    let of = |counts: FamilyCount, six: bool| if six { counts.ipv6 } else { counts.ipv4 };
    let mut rows = Vec::new();
    for (family, six) in [("IPv4", false), ("IPv6", true)] {
        let (capacity, free) = (of(row.capacity, six), of(row.free, six));
        let (capacity_before, free_before) =
            (of(row.capacity_before, six), of(row.free_before, six));
        if capacity == 0 && capacity_before == 0 {
            continue;
        }
        rows.push([
            Cell::from(row.pool.as_str()),
            Cell::from(family),
            Cell::from(capacity_before.to_string()),
            Cell::from(format!("-> {capacity}")),
            Cell::from(free_before.to_string()),
            Cell::from(format!("-> {free}")),
        ]);
    }
    rows
}

/// What `diff` prints of a cluster; files are below a case's folder.
#[cfg(test)]
pub(super) fn of_snapshot(
    args: &Args,
    snapshot: &crate::check::Snapshot,
    case: &std::path::Path,
) -> String {
    let mut manifests = Vec::new();
    for file in &args.files {
        manifests.extend(manifest::read_file(&case.join(file)).unwrap());
    }
    for manifest in &mut manifests {
        manifest.source_name = "a file".to_owned();
    }
    let diff = Diff::of(&snapshot.world, &snapshot.objects, manifests, "default").unwrap();
    let denied: String = diff
        .denied
        .iter()
        .map(|d| format!("error: would be denied: {d}\n"))
        .collect();
    shown(&diff, args, false).unwrap() + &denied
}
