//! `kubectl l2lb rebalance`: shows the moves that would even homes out, and
//! makes them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::cluster::{self, Target};
use super::drain::first_few;
use super::output::{Format, Plain};
use super::table::table;
use crate::api::{L2LoadBalancer, SlotPhase, names};
use crate::plan::{LeftAlone, LeftBecause, Move, Rebalance, Scope, rebalance};
use crate::world::{Key, World};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Ends a dry run that found something to move.
const UNEVEN: u8 = 3;

/// Shows the fewest moves after which every node is home to as many addresses
/// as any other, give or take one, as far as selectors allow; with --yes makes
/// them, one after the other, each when the one before is announced at its new
/// home. Addresses do not change. Connections through an address that moves
/// go on at its new node or break, as at a handover.
///
/// It says which slots it leaves alone: those that have a MetalLB pool of their
/// own, from before MetalLB 0.16.2, are bound to their nodes by it.
///
/// Ends with 0 when there is nothing to move or it was moved, 1 when something
/// went wrong, 3 when it only shows and there are moves to make.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb rebalance\n  \
    kubectl l2lb rebalance edge --yes\n  \
    kubectl l2lb rebalance -n shop web")]
pub(super) struct Args {
    /// An L2AddressPool; with --namespace an L2LoadBalancer [default: everything]
    #[arg(value_name = "POOL|LB")]
    name: Option<String>,
    /// Namespace of the L2LoadBalancer
    #[arg(short, long, value_name = "NAME", requires = "name")]
    namespace: Option<String>,
    /// Make the moves
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only show the moves, which is what happens without --yes
    #[arg(long)]
    dry_run: bool,
    /// How long a move may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, String> {
    cluster::run(async {
        let cluster = args.target.connect().await?;
        let world = cluster.world().await?;
        let scope = scope(args, &world)?;
        if !world.capabilities.can_prefer() {
            return Err(
                "the installed MetalLB cannot prefer a node (0.16.2 and later can): an address \
                 decides by itself where it is announced, and homes cannot move"
                    .to_owned(),
            );
        }
        let planned = rebalance(&world, &scope);
        super::print(&shown(&planned, args.output)?)?;
        if planned.moves.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if !args.yes {
            if args.output == Plain::Table {
                super::print("nothing was changed; --yes makes these moves\n")?;
            }
            return Ok(ExitCode::from(UNEVEN));
        }
        let limit = Duration::from_secs(args.timeout);
        for (index, step) in planned.moves.iter().enumerate() {
            let started = Instant::now();
            make(&cluster.client, &world, step, limit)
                .await
                .map_err(|why| {
                    let left = planned.moves.len() - index;
                    format!("{why}; {left} of {} moves are left", planned.moves.len())
                })?;
            eprintln!(
                "{} of {}: {}/{} is announced by {} after {:.1} s",
                index + 1,
                planned.moves.len(),
                step.namespace,
                step.service,
                step.to,
                started.elapsed().as_secs_f64()
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn scope(args: &Args, world: &World) -> Result<Scope, String> {
    match (&args.name, &args.namespace) {
        (Some(name), Some(namespace)) => {
            let key = Key::new(namespace.clone(), name.clone());
            if world.load_balancers.contains_key(&key) {
                Ok(Scope::LoadBalancer(key))
            } else {
                Err(format!("there is no L2LoadBalancer {key}"))
            }
        }
        (Some(name), None) if world.pools.contains_key(name) => Ok(Scope::Pool(name.clone())),
        (Some(name), None) => {
            let known: Vec<&str> = world.pools.keys().map(String::as_str).collect();
            Err(format!(
                "there is no L2AddressPool {name} (there are: {}); for an L2LoadBalancer name its \
                 namespace with -n",
                known.join(", ")
            ))
        }
        (None, _) => Ok(Scope::Everything),
    }
}

fn shown(planned: &Rebalance, output: Plain) -> Result<String, String> {
    if let Some(text) = Format::from(output).of_program(planned)? {
        return Ok(text);
    }
    let left = left_alone(&planned.left_alone);
    if planned.moves.is_empty() {
        return Ok(match left {
            Some(left) => {
                format!("nothing to move: what can move is as even as selectors allow\n{left}")
            }
            None => "nothing to move: homes are as even as selectors allow\n".to_owned(),
        });
    }
    let moves: Vec<[String; 5]> = planned
        .moves
        .iter()
        .map(|m| {
            let addresses: Vec<String> = m.addresses.iter().map(ToString::to_string).collect();
            [
                m.namespace.clone(),
                m.service.clone(),
                addresses.join(","),
                m.from.clone(),
                m.to.clone(),
            ]
        })
        .collect();
    let homes: Vec<[String; 3]> = planned
        .before
        .iter()
        .map(|(node, before)| {
            let after = planned.after.get(node).copied().unwrap_or(0);
            [node.clone(), before.to_string(), after.to_string()]
        })
        .collect();
    let moves = table(["NAMESPACE", "SERVICE", "ADDRESSES", "FROM", "TO"], &moves);
    let homes = table(["NODE", "HOMES", "AFTERWARDS"], &homes);
    Ok(match left {
        Some(left) => format!("{moves}\n{homes}\n{left}"),
        None => format!("{moves}\n{homes}"),
    })
}

/// Which slots are left alone, and why, in a sentence.
fn left_alone(left: &[LeftAlone]) -> Option<String> {
    let kinds = [
        (
            LeftBecause::OwnPool,
            "with a MetalLB pool of its own, from before MetalLB 0.16.2",
            "with MetalLB pools of their own, from before MetalLB 0.16.2",
        ),
        (
            LeftBecause::Away,
            "that is away from home, or the home of which is about to go",
            "that are away from home, or the homes of which are about to go",
        ),
        (
            LeftBecause::NotServed,
            "of an L2LoadBalancer that is not served",
            "of L2LoadBalancers that are not served",
        ),
    ];
    let parts: Vec<String> = kinds
        .into_iter()
        .filter_map(|(kind, one, more)| {
            let of_kind: Vec<&LeftAlone> = left.iter().filter(|l| l.why == kind).collect();
            let names = first_few(
                of_kind
                    .iter()
                    .map(|l| format!("{}/{}", l.namespace, l.service)),
            );
            match of_kind.len() {
                0 => None,
                1 => Some(format!("1 slot {one} ({names})")),
                count => Some(format!("{count} slots {more} ({names})")),
            }
        })
        .collect();
    (!parts.is_empty()).then(|| format!("left alone: {}\n", parts.join("; ")))
}

/// Makes one move: the label of the home, which the controller follows; then
/// waits until the new home announces.
async fn make(client: &Client, world: &World, step: &Move, limit: Duration) -> Result<(), String> {
    let key = Key::new(step.namespace.clone(), step.service.clone());
    let known = world
        .child(&key)
        .ok_or_else(|| format!("Service {key} is gone"))?;
    let services: Api<Service> = Api::namespaced(client.clone(), &step.namespace);
    let found = services
        .get_opt(&step.service)
        .await
        .map_err(|e| format!("Service {key} cannot be read: {e}"))?
        .filter(|s| s.metadata.uid == known.service.metadata.uid)
        .ok_or_else(|| format!("Service {key} is gone"))?;
    let label = |name| found.metadata.labels.as_ref().and_then(|l| l.get(name));
    if label(names::HOME) != Some(&step.from) || label(names::PIN) != Some(&step.from) {
        return Err(format!(
            "Service {key} is not at {} any more, because nodes changed: run this again",
            step.from
        ));
    }
    // Whoever changes it in between makes this fail.
    let patch = json!({"metadata": {
        "resourceVersion": found.metadata.resource_version,
        "labels": {names::HOME: step.to},
    }});
    let params = PatchParams {
        field_manager: Some("kubectl-l2lb".to_owned()),
        ..PatchParams::default()
    };
    services
        .patch(&step.service, &params, &Patch::Merge(patch))
        .await
        .map_err(|e| format!("Service {key} cannot be given to {}: {e}", step.to))?;
    let (name, _) = step
        .service
        .rsplit_once('-')
        .ok_or_else(|| format!("Service {key} has no slot number"))?;
    let load_balancers: Api<L2LoadBalancer> = Api::namespaced(client.clone(), &step.namespace);
    let started = Instant::now();
    loop {
        let seen = load_balancers
            .get_opt(name)
            .await
            .map_err(|e| {
                format!(
                    "L2LoadBalancer {}/{name} cannot be read: {e}",
                    step.namespace
                )
            })?
            .and_then(|lb| lb.status)
            .and_then(|s| s.slots.into_iter().find(|s| s.service == step.service));
        let there = seen.as_ref().is_some_and(|slot| {
            names::node_value(&slot.node) == step.to && slot.phase == SlotPhase::Announced
        });
        if there {
            return Ok(());
        }
        if started.elapsed() > limit {
            let message = seen.and_then(|s| s.message).unwrap_or_default();
            return Err(format!(
                "Service {key} has home {} now and is not announced there after {} s; does the \
                 controller run? {message}",
                step.to,
                limit.as_secs()
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(namespace: &str, service: &str, why: LeftBecause) -> LeftAlone {
        LeftAlone {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            why,
        }
    }

    #[test]
    fn what_is_left_alone_is_said() {
        let mut planned = Rebalance::default();
        let text = |planned: &Rebalance| shown(planned, Plain::Table).unwrap();
        assert_eq!(
            text(&planned),
            "nothing to move: homes are as even as selectors allow\n"
        );
        let own = (0..7).map(|n| left("shop", &format!("web-{n}"), LeftBecause::OwnPool));
        planned.left_alone = own.collect();
        let away = left("shop", "api-0", LeftBecause::Away);
        planned.left_alone.push(away);
        let sentence = "left alone: 7 slots with MetalLB pools of their own, from before MetalLB \
             0.16.2 (shop/web-0, shop/web-1, shop/web-2, shop/web-3, shop/web-4 and 2 more); 1 \
             slot that is away from home, or the home of which is about to go (shop/api-0)\n";
        assert_eq!(
            text(&planned),
            format!("nothing to move: what can move is as even as selectors allow\n{sentence}")
        );
        planned.moves.push(Move {
            namespace: "shop".to_owned(),
            service: "dns-0".to_owned(),
            addresses: Vec::new(),
            from: "a".to_owned(),
            to: "b".to_owned(),
        });
        let text = text(&planned);
        assert!(text.ends_with(sentence), "{text}");
        let program = shown(&planned, Plain::Json).unwrap();
        assert!(program.contains("\"leftAlone\""), "{program}");
        assert!(program.contains("\"why\": \"OwnPool\""), "{program}");
    }
}
