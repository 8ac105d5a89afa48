//! `kubectl l2lb status`: load balancers by slot, pools and nodes.

mod tables;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use crossterm::cursor::MoveTo;
use crossterm::execute;
use crossterm::terminal::{Clear, ClearType};

use super::cluster::{self, Cluster, Kept, Nodes, Target, Unread, Unreadable, within};
use super::output::{self, Format};
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
///
/// Whoever may only read load balancers sees what the controller reported of
/// them last, and which kinds could not be looked at.
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

/// How long a look may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A cluster, as far as it may be read.
struct Seen {
    world: World,
    /// For the next look; none where something may not be read.
    kept: Option<Kept<'static>>,
    /// What may not be; if anything, the world has load balancers and perhaps
    /// pools alone.
    forbidden: Vec<Unread>,
}

impl Seen {
    /// Reads what may be read.
    async fn first(cluster: &Cluster, scope: &Scope) -> Result<Self, String> {
        let forbidden = match Kept::first(cluster, Nodes::All).await {
            Ok((kept, world)) => {
                return Ok(Self {
                    world,
                    kept: Some(kept),
                    forbidden: Vec::new(),
                });
            }
            Err(Unreadable::Forbidden(unread)) => unread,
            Err(failed) => return Err(failed.into()),
        };
        Ok(Self {
            world: reports(cluster, scope).await?,
            kept: None,
            forbidden,
        })
    }

    /// Reads the same anew.
    async fn again(&mut self, cluster: &Cluster, scope: &Scope) -> Result<(), String> {
        self.world = match &mut self.kept {
            Some(kept) => kept.again(cluster).await?,
            None => reports(cluster, scope).await?,
        };
        Ok(())
    }

    fn view(&self, scope: &Scope) -> View {
        if self.forbidden.is_empty() {
            View::of(&self.world, scope)
        } else {
            View::reported(&self.world, scope, self.forbidden.clone())
        }
    }
}

async fn reports(cluster: &Cluster, scope: &Scope) -> Result<World, String> {
    let namespace = scope.namespace.as_deref();
    let read = cluster.reports(namespace).await;
    read.map_err(|why| match (why, namespace) {
        (Unreadable::Forbidden(unread), None) => format!(
            "you may not read {} of every namespace: name one with -n",
            cluster::kinds(&unread)
        ),
        (Unreadable::Forbidden(unread), Some(namespace)) => format!(
            "you may not read {} in namespace {namespace}",
            cluster::kinds(&unread)
        ),
        (failed, _) => failed.into(),
    })
}

pub(super) fn run(args: &Args) -> Result<(), String> {
    cluster::run(async {
        let cluster = args.target.connect().await?;
        let scope = args.scope(&cluster.namespace);
        let seen = Seen::first(&cluster, &scope).await?;
        if let Some(name) = &args.name
            && !seen.world.load_balancers.keys().any(|key| scope.holds(key))
        {
            let namespace = scope.namespace.unwrap_or_default();
            return Err(format!("there is no L2LoadBalancer {namespace}/{name}"));
        }
        if args.watch {
            // While nothing changes nothing is written, which would tell.
            tokio::select! {
                ended = watch(args, cluster, &scope, seen) => ended,
                () = output::reader_left() => Ok(()),
            }
        } else {
            super::print(&shown(
                &seen.view(&scope),
                &seen.world,
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

/// Shows it again and again, until nobody reads it any more.
async fn watch(
    args: &Args,
    mut cluster: Cluster,
    scope: &Scope,
    mut seen: Seen,
) -> Result<(), String> {
    let redraw =
        std::io::stdout().is_terminal() && matches!(args.output, Format::Table | Format::Wide);
    let mut last = None;
    let mut trouble = Trouble::default();
    loop {
        let view = seen.view(scope);
        let mut text = String::new();
        if redraw {
            execute!(std::io::stdout(), MoveTo(0, 0), Clear(ClearType::All))
                .map_err(|e| format!("standard output: {e}"))?;
        } else if last.is_some() {
            text += match args.output {
                Format::Table | Format::Wide => "\n",
                Format::Yaml => "---\n",
                Format::Json => "",
            };
        }
        if redraw || last.as_ref() != Some(&view) {
            text += &shown(&view, &seen.world, args.output, takes_colour())?;
            if !output::write(&text)? {
                return Ok(());
            }
            last = Some(view);
        }
        // An API server may be away for a while.
        loop {
            tokio::time::sleep(Duration::from_secs(args.interval)).await;
            let again = async |cluster: &Cluster| seen.again(cluster, scope).await;
            let answer = within(ANSWER, &mut cluster, &args.target, again).await;
            let is_well = answer.is_ok();
            if let Some(line) = trouble.news(answer.err()) {
                eprintln!("{line}");
            }
            if is_well {
                break;
            }
        }
    }
}

/// What went wrong last time, which is said once.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

impl Trouble {
    /// What is to be said after a look that went wrong, or did not.
    fn news(&mut self, now: Option<String>) -> Option<String> {
        if self.0 == now {
            return None;
        }
        let line = match &now {
            Some(why) => format!("error: {why}; it is tried again"),
            None => "the cluster can be read again".to_owned(),
        };
        self.0 = now;
        Some(line)
    }
}

/// What `status` prints of a world, without colour.
#[cfg(test)]
pub(super) fn of_world(args: &Args, world: &World) -> String {
    let scope = args.scope("default");
    shown(&View::of(world, &scope), world, args.output, false).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_once_until_it_changes() {
        let mut trouble = Trouble::default();
        let away = || Some("it is away".to_owned());
        assert_eq!(trouble.news(None), None);
        let line = trouble.news(away()).unwrap();
        assert!(line.contains("it is away"), "{line}");
        assert_eq!(trouble.news(away()), None);
        assert!(trouble.news(Some("no answer".to_owned())).is_some());
        assert!(trouble.news(away()).is_some());
        let line = trouble.news(None).unwrap();
        assert_eq!(line, "the cluster can be read again");
        assert_eq!(trouble.news(None), None);
    }
}
