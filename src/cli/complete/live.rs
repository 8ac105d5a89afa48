//! Names of things that only the cluster knows. A person waits at the prompt:
//! whatever is not answered at once is not offered, and nothing is said of it.

use std::sync::mpsc;
use std::time::Duration;

use clap::{Arg, Args, Command, FromArgMatches};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, ListParams};
use kube::config::Kubeconfig;
use kube::{Resource, ResourceExt};

use crate::cli::cluster::{self, Cluster, Target};
use crate::world::World;

/// How long a shell is kept waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Thing {
    Node,
    Namespace,
    /// An L2LoadBalancer of the namespace.
    LoadBalancer,
    /// An address that an L2LoadBalancer has.
    Address,
    /// A context of the kubeconfig.
    Context,
}

/// What an argument of a command names, if it is such a thing.
pub(super) fn thing(command: &str, argument: &Arg) -> Option<Thing> {
    match (command, argument.get_id().as_str()) {
        ("drain" | "undrain", "node") => Some(Thing::Node),
        ("why", "address") => Some(Thing::Address),
        ("status" | "export", "name") => Some(Thing::LoadBalancer),
        (_, "namespace" | "metallb_namespace") => Some(Thing::Namespace),
        (_, "context") => Some(Thing::Context),
        _ => None,
    }
}

/// Where to look.
#[derive(Debug, clap::Args)]
struct Where {
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// The names of things, by the words so far; none where that takes long or fails.
pub(in crate::cli) fn ask(thing: Thing, words: &[String]) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    let place = place(words);
    // A plugin that makes credentials may take its time, and cannot be told to stop.
    let asking = std::thread::Builder::new().spawn(move || {
        let names = place.and_then(|place| names(thing, &place));
        drop(tell.send(names.unwrap_or_default()));
    });
    drop(asking);
    told.recv_timeout(PATIENCE).unwrap_or_default()
}

/// Where the words say to look: of other words there is nothing to know here.
fn place(words: &[String]) -> Option<Where> {
    let command = Where::augment_args(Command::new("complete").no_binary_name(true));
    let known = |word: &str| {
        let mut arguments = command.get_arguments();
        arguments.any(|a| {
            let long = a.get_long().is_some_and(|l| {
                let value = word.strip_prefix("--").and_then(|w| w.strip_prefix(l));
                value.is_some_and(|v| v.is_empty() || v.starts_with('='))
            });
            long || a.get_short().is_some_and(|s| word == format!("-{s}"))
        })
    };
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if known(word) {
            kept.push(word.clone());
            if !word.contains('=') && word != "--ignore-exclude-lb" {
                kept.extend(words.next().cloned());
            }
        }
    }
    let matches = command.clone().try_get_matches_from(kept).ok()?;
    Where::from_arg_matches(&matches).ok()
}

fn names(thing: Thing, place: &Where) -> Option<Vec<String>> {
    if thing == Thing::Context {
        let kubeconfig = Kubeconfig::read().ok()?;
        return Some(kubeconfig.contexts.into_iter().map(|c| c.name).collect());
    }
    let all = cluster::run(async {
        let cluster = place.target.connect().await?;
        let namespace = place.namespace.as_ref().unwrap_or(&cluster.namespace);
        match thing {
            Thing::Node => of_kind::<Node>(&cluster).await,
            Thing::Namespace => of_kind::<Namespace>(&cluster).await,
            Thing::LoadBalancer => {
                let world = cluster.reports(Some(namespace)).await?;
                Ok(world.load_balancers.into_keys().map(|k| k.name).collect())
            }
            Thing::Address => Ok(addresses(&cluster.reports(None).await?)),
            Thing::Context => Ok(Vec::new()),
        }
    });
    all.ok()
}

/// The names of all objects of a kind, as the API server remembers them.
async fn of_kind<K>(cluster: &Cluster) -> Result<Vec<String>, String>
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::all(cluster.client.clone());
    let list = api.list_metadata(&ListParams::default().match_any()).await;
    let list = list.map_err(|error| error.to_string())?;
    Ok(list.items.iter().map(ResourceExt::name_any).collect())
}

/// The addresses that load balancers have, as reported.
fn addresses(world: &World) -> Vec<String> {
    let read = world.load_balancers.values().filter_map(|s| s.valid());
    let reported = read.filter_map(|lb| lb.status.as_ref());
    reported
        .flat_map(|status| status.public_addresses.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_where_to_look() {
        let words = [
            "status",
            "-o",
            "wide",
            "--kubeconfig=/x",
            "--watch",
            "-n",
            "shop",
            "--interval",
            "3",
            "--ignore-exclude-lb",
            "--context",
        ];
        // The last one has no value yet.
        let all: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        assert!(place(&all).is_none());
        let found = place(&all[..all.len() - 1]).unwrap();
        assert_eq!(found.namespace.as_deref(), Some("shop"));
        assert!(found.target.options().ignore_exclude_label);
    }

    #[test]
    fn without_a_cluster_nothing_is_offered() {
        let words = ["drain", "--kubeconfig", "/nowhere"].map(str::to_owned);
        assert!(ask(Thing::Node, &words).is_empty());
        assert!(ask(Thing::Address, &words).is_empty());
    }
}
