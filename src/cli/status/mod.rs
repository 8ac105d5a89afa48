//! `kubectl l2lb status`: load balancers by slot, pools and nodes.

mod tables;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use crossterm::cursor::MoveTo;
use crossterm::execute;
use crossterm::terminal::{Clear, ClearType};

use super::cluster::{self, Cluster, Target};
use super::output::Format;
use super::table::takes_colour;
use crate::world::World;
use tables::Look;
use view::{Scope, View};

/// Shows load balancers by slot (home, who announces and since when, addresses,
/// phase), pools by use, and nodes by how many slots each is home to,
/// announces, and would inherit if the node that has each one now failed.
///
/// Home, address and announcer are as the cluster has them now; phases and
/// conditions are what the controller said last. SINCE needs MetalLB 0.16 or
/// later. Of the nodes, what is counted is what is shown: with -A everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Phases: Announced (at home), FailedOver (a standby announces, because home cannot), Draining (a \
standby announces, because home is cordoned or drained), Retiring (home has left; the address is \
kept for spec.retirementPeriod), Pending (nobody announces).

Examples:
  kubectl l2lb status -A
  kubectl l2lb status -n shop web -o wide
  kubectl l2lb status -A --watch
  kubectl l2lb status -A -o json | jq '.loadBalancers[].slots[] | select(.phase != \"Announced\")'")]
pub(super) struct Args {
    /// An L2LoadBalancer [default: all of the namespace]
    name: Option<String>,
    /// Namespace [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Every namespace, every pool and every node
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "name"])]
    all_namespaces: bool,
    /// Go on showing it: redraws on a terminal, else prints what changed
    #[arg(short, long)]
    watch: bool,
    /// Seconds between two looks with --watch
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    target: Target,
}

impl Args {
    fn scope(&self, default: &str) -> Scope {
        let namespace = self.namespace.as_deref().unwrap_or(default);
        Scope {
            namespace: (!self.all_namespaces).then(|| namespace.to_owned()),
            name: self.name.clone(),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), String> {
    cluster::run(async {
        let cluster = args.target.connect().await?;
        let scope = args.scope(&cluster.namespace);
        let world = cluster.world().await?;
        if let Some(name) = &args.name
            && !world.load_balancers.keys().any(|key| scope.holds(key))
        {
            let namespace = scope.namespace.unwrap_or_default();
            return Err(format!("there is no L2LoadBalancer {namespace}/{name}"));
        }
        if args.watch {
            watch(args, &cluster, &scope, world).await
        } else {
            super::print(&shown(
                &View::of(&world, &scope),
                &world,
                args.output,
                takes_colour(),
            )?)
        }
    })
}

/// The view in the form that was asked for.
fn shown(view: &View, world: &World, format: Format, colour: bool) -> Result<String, String> {
    if let Some(text) = format.of_program(view)? {
        return Ok(text);
    }
    let look = Look {
        wide: format == Format::Wide,
        colour,
        now: world.now,
    };
    Ok(tables::text(view, look))
}

async fn watch(
    args: &Args,
    cluster: &Cluster,
    scope: &Scope,
    mut world: World,
) -> Result<(), String> {
    let redraw =
        std::io::stdout().is_terminal() && matches!(args.output, Format::Table | Format::Wide);
    let mut last = None;
    loop {
        let view = View::of(&world, scope);
        if redraw {
            let text = shown(&view, &world, args.output, takes_colour())?;
            execute!(std::io::stdout(), MoveTo(0, 0), Clear(ClearType::All))
                .map_err(|e| format!("standard output: {e}"))?;
            super::print(&text)?;
        } else if last.as_ref() != Some(&view) {
            if last.is_some() && matches!(args.output, Format::Table | Format::Wide) {
                super::print("\n")?;
            } else if last.is_some() && args.output == Format::Yaml {
                super::print("---\n")?;
            }
            super::print(&shown(&view, &world, args.output, takes_colour())?)?;
            last = Some(view);
        }
        world = loop {
            tokio::time::sleep(Duration::from_secs(args.interval)).await;
            match cluster.world().await {
                Ok(world) => break world,
                // An API server may be away for a while.
                Err(message) => eprintln!("error: {message}"),
            }
        };
    }
}

/// What `status` prints of a world, without colour.
#[cfg(test)]
pub(super) fn of_world(args: &Args, world: &World) -> String {
    let scope = args.scope("default");
    shown(&View::of(world, &scope), world, args.output, false).unwrap()
}
