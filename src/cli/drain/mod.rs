//! `kubectl l2lb drain` and `undrain`: hand over what a node announces, and
//! take it back.

mod looks;
mod progress;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::{self, Cluster, Target};
use crate::api::names;
use crate::world::World;
use looks::Looks;
use progress::{Homes, Leaving, Slot};

/// Hands over what a node announces, and waits until nothing of l2lb is pinned
/// to it or announced by it any more: before maintenance, without cordoning it.
///
/// It sets the annotation l2lb.io/drain on the Node, which the controller
/// obeys also in pools with onCordon: Ignore. Addresses go to nodes that
/// serve; new connections keep working. Pods stay: `kubectl drain` is for them,
/// and cordons, which hands addresses over too.
///
/// Ends with 0 when the node is empty, with 1 when something stays there, as
/// where every other balancer node is drained, cordoned or not ready, or, under
/// externalTrafficPolicy Local, has no ready pod; the annotation stays as well.
/// An API server that does not answer for a while, because it goes down with the
/// node, is waited for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb drain node-1\n  \
    kubectl l2lb drain node-1 --timeout 300 && ssh node-1 sudo reboot\n  \
    kubectl l2lb drain node-1 --no-wait")]
pub(super) struct Args {
    /// The node
    node: String,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Only set the annotation, or take it away
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    target: Target,
}

/// Takes a drain back, and waits until every address whose home the node is is
/// announced there again, which begins after the controller's hold-down.
///
/// It removes the annotation l2lb.io/drain from the Node. A node that is
/// cordoned, or not ready, gets nothing back until it is well: that is said,
/// and ends with 1. What the node cannot announce, because the policy is Local and
/// it has no ready pod, is named and not waited for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb undrain node-1\n  \
    kubectl uncordon node-1 && kubectl l2lb undrain node-1")]
pub(super) struct UndrainArgs {
    #[command(flatten)]
    args: Args,
}

pub(super) fn drain(args: &Args) -> Result<(), String> {
    cluster::run(async {
        let patience = Duration::from_secs(args.timeout);
        let (looks, world) = Looks::begin(&args.target, &args.node, patience).await?;
        ensure_known(&world, &args.node)?;
        let before = Leaving::of(&world, &args.node);
        annotate(looks.cluster(), &args.node, json!("true")).await?;
        if args.no_wait {
            return Ok(());
        }
        let there = before.going.len() + before.staying.len();
        if there == 0 {
            return super::print(&format!("node {} announces nothing of l2lb\n", args.node));
        }
        leave(args, looks, world, before).await
    })
}

async fn leave(
    args: &Args,
    mut looks: Looks<'_>,
    mut world: World,
    before: Leaving,
) -> Result<(), String> {
    let node = &args.node;
    let started = Instant::now();
    let mut left = before.clone();
    let mut shown = None;
    while !left.going.is_empty() {
        if shown.as_ref() != Some(&left) {
            eprintln!(
                "{} of {} still on node {node}: {}",
                left.going.len(),
                progress::slots(before.going.len().max(left.going.len())),
                first_few(left.going.iter().map(|s| s.service.to_string()))
            );
            shown = Some(left.clone());
        }
        if looks.are_over() {
            return Err(format!(
                "still on node {node} after {} s: {} ({}){}; does the controller run, and do \
                 MetalLB's speakers? The annotation {}=true stays on the node: kubectl l2lb undrain \
                 {node} takes it away",
                args.timeout,
                progress::slots(left.going.len()),
                first_few(left.going.iter().map(ToString::to_string)),
                looks.trouble(),
                names::DRAIN
            ));
        }
        if let Some(seen) = looks.again().await {
            left = Leaving::of(&seen, node);
            world = seen;
        }
    }
    let stayed: Vec<String> = left
        .staying
        .iter()
        .map(|(slot, why)| format!("  {slot}: {why}"))
        .collect();
    let is_gone = |slot: &&Slot| left.staying.iter().all(|(s, _)| s != *slot);
    let gone: Vec<Slot> = before.going.iter().filter(is_gone).cloned().collect();
    if !gone.is_empty() {
        let to: Vec<String> = progress::announcers(&world, &gone)
            .into_iter()
            .map(|(node, count)| format!("{node} ({count})"))
            .collect();
        super::print(&format!(
            "{} went from node {node} to {} in {:.1} s\n",
            progress::slots(gone.len()),
            to.join(", "),
            started.elapsed().as_secs_f64()
        ))?;
    }
    if stayed.is_empty() {
        return super::print(&format!("node {node} announces nothing of l2lb\n"));
    }
    Err(format!(
        "{} on node {node} cannot leave, and will be dark while it is down:\n{}",
        progress::slots(stayed.len()),
        stayed.join("\n")
    ))
}

pub(super) fn undrain(args: &UndrainArgs) -> Result<(), String> {
    let args = &args.args;
    let node = &args.node;
    cluster::run(async {
        let patience = Duration::from_secs(args.timeout);
        let (mut looks, world) = Looks::begin(&args.target, node, patience).await?;
        ensure_known(&world, node)?;
        annotate(looks.cluster(), node, Value::Null).await?;
        if args.no_wait {
            return Ok(());
        }
        let mut away = Homes::of(&world, node).away;
        let mut shown = None;
        loop {
            if let Some(world) = looks.again().await {
                if let Some(why) = progress::unfit(&world, node) {
                    return Err(format!("the node is not drained any more, but {why}"));
                }
                let homes = Homes::of(&world, node);
                if homes.away.is_empty() {
                    return super::print(&returned(node, &homes));
                }
                let (missing, back) = (homes.away.len(), homes.back.len());
                if shown != Some(missing) {
                    eprintln!(
                        "{missing} of {} not back on node {node} yet: {}",
                        progress::slots(missing + back),
                        first_few(homes.away.iter().map(|s| s.service.to_string()))
                    );
                    shown = Some(missing);
                }
                away = homes.away;
            }
            if looks.are_over() {
                return Err(format!(
                    "{} not back on node {node} after {} s{}: kubectl l2lb why {} says more of \
                     the first",
                    progress::slots(away.len()),
                    args.timeout,
                    looks.trouble(),
                    away.first().map_or("ADDRESS", |s| s
                        .addresses
                        .split(' ')
                        .next()
                        .unwrap_or_default())
                ));
            }
        }
    })
}

/// What has come back to a node, and what was not waited for.
fn returned(node: &str, homes: &Homes) -> String {
    let back = progress::slots(homes.back.len());
    let mut text = format!("node {node} announces {back} of its own again\n");
    if !homes.podless.is_empty() {
        text += &format!(
            "not waited for: {} of its own, as externalTrafficPolicy is Local and node {node} \
             has no ready pod: {}\n",
            progress::slots(homes.podless.len()),
            first_few(homes.podless.iter().map(ToString::to_string))
        );
    }
    text
}

/// Fails if there is no such node.
fn ensure_known(world: &World, node: &str) -> Result<(), String> {
    if world.nodes.contains_key(node) {
        return Ok(());
    }
    let names = first_few(world.nodes.keys().cloned());
    Err(format!("there is no node {node} (there are: {names})"))
}

async fn annotate(cluster: &Cluster, node: &str, value: Value) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let patch = json!({"metadata": {"annotations": {names::DRAIN: value}}});
    let params = PatchParams {
        field_manager: Some("kubectl-l2lb".to_owned()),
        ..PatchParams::default()
    };
    nodes
        .patch(node, &params, &Patch::Merge(patch))
        .await
        .map(drop)
        .map_err(|e| format!("node {node} cannot be annotated with {}: {e}", names::DRAIN))
}

/// The first of many names, and how many more there are.
pub(super) fn first_few(names: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = names.collect();
    let shown = all.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(5) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
