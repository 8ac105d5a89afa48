//! `kubectl l2lb export`: manifests that rebuild the same addresses elsewhere.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::Output;
use super::cluster::{self, Target};
use crate::api::{L2LoadBalancer, names};
use crate::manifest;
use crate::world::{Key, Stored, World};

/// Writes manifests of L2AddressPools and L2LoadBalancers by which another
/// cluster, or this one rebuilt, has the same addresses: spec.addresses lists
/// those that each load balancer has, in the order of its slots. What the
/// cluster adds (status, uid, managed fields) is left out.
///
/// Which node is home to which of them is decided anew, by the names of the
/// nodes there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubectl l2lb export -A > l2lb.yaml\n  \
    kubectl l2lb export -n shop web --no-pools\n  \
    kubectl l2lb export -A | kubectl l2lb lint -f - -f nodes.yaml")]
pub(super) struct Args {
    /// An L2LoadBalancer [default: all of the namespace]
    name: Option<String>,
    /// Namespace [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Every namespace, and every pool
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "name"])]
    all_namespaces: bool,
    /// Leave out the L2AddressPools
    #[arg(long)]
    no_pools: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    target: Target,
}

/// How many addresses `spec.addresses` may hold.
const MOST: usize = 128;

pub(super) fn run(args: &Args) -> Result<(), String> {
    cluster::run(async {
        let cluster = args.target.connect().await?;
        let world = cluster.world().await?;
        let (objects, notes) = objects(&world, args, &cluster.namespace)?;
        for note in notes {
            eprintln!("note: {note}");
        }
        super::print(&text(&objects, args.output)?)
    })
}

/// Objects in the form that was asked for.
pub(super) fn text(objects: &[Value], output: Output) -> Result<String, String> {
    match output {
        Output::Yaml => manifest::to_yaml(objects).map_err(|e| e.to_string()),
        Output::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            let text = serde_json::to_string_pretty(&list).map_err(|e| e.to_string())?;
            Ok(text + "\n")
        }
    }
}

/// The manifests, pools first, and what a person should know of them.
fn objects(world: &World, args: &Args, default: &str) -> Result<(Vec<Value>, Vec<String>), String> {
    let namespace = args.namespace.as_deref().unwrap_or(default);
    let wanted = |key: &Key| {
        (args.all_namespaces || key.namespace == namespace)
            && args.name.as_ref().is_none_or(|name| *name == key.name)
    };
    let mut notes = Vec::new();
    let mut pools: BTreeSet<&str> = BTreeSet::new();
    let mut load_balancers = Vec::new();
    for (key, stored) in world.load_balancers.iter().filter(|(key, _)| wanted(key)) {
        let Stored::Valid(lb) = stored else {
            notes.push(format!(
                "L2LoadBalancer {key} cannot be read and is left out"
            ));
            continue;
        };
        pools.insert(&lb.spec.address_pool);
        load_balancers.push(load_balancer(world, key, lb, &mut notes));
    }
    if let Some(name) = &args.name
        && load_balancers.is_empty()
    {
        return Err(format!("there is no L2LoadBalancer {namespace}/{name}"));
    }
    let mut all = Vec::new();
    for (name, stored) in world.pools.iter().filter(|_| !args.no_pools) {
        if !args.all_namespaces && !pools.contains(name.as_str()) {
            continue;
        }
        match stored {
            Stored::Valid(pool) => {
                all.push(bare("L2AddressPool", &pool.metadata, json!(pool.spec)))
            }
            Stored::Broken { .. } => {
                notes.push(format!(
                    "L2AddressPool {name} cannot be read and is left out"
                ));
            }
        }
    }
    all.extend(load_balancers);
    Ok((all, notes))
}

fn load_balancer(world: &World, key: &Key, lb: &L2LoadBalancer, notes: &mut Vec<String>) -> Value {
    let slots = world.children.get(key).into_iter().flat_map(|s| s.values());
    // One that retires is about to be free.
    let staying = slots.filter(|c| c.retire_at.is_none() && !c.terminating);
    let mut addresses: Vec<String> = staying
        .flat_map(|c| c.addresses.iter().map(ToString::to_string))
        .collect();
    // What is reserved stays so.
    for reserved in &lb.spec.addresses {
        let canonical = reserved
            .parse::<std::net::IpAddr>()
            .map_or_else(|_| reserved.clone(), |a| a.to_string());
        if !addresses.contains(&canonical) {
            addresses.push(canonical);
        }
    }
    if addresses.len() > MOST {
        notes.push(format!(
            "L2LoadBalancer {key} has {} addresses, and spec.addresses holds {MOST}: the last {} \
             are left out, and may be others in the new cluster",
            addresses.len(),
            addresses.len() - MOST
        ));
        addresses.truncate(MOST);
    }
    let mut spec = json!(lb.spec);
    if !addresses.is_empty() {
        spec["addresses"] = json!(addresses);
    }
    bare("L2LoadBalancer", &lb.metadata, spec)
}

/// An object without what the cluster or kubectl adds to it.
fn bare(kind: &str, meta: &ObjectMeta, spec: Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(meta.name));
    if let Some(namespace) = &meta.namespace {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    for (field, map) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
        let kept: Map<String, Value> = map
            .iter()
            .flatten()
            .filter(|(key, _)| !is_of_tools(key))
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        if !kept.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(kept));
        }
    }
    json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": kind,
        "metadata": metadata,
        // Optional fields that are empty are not written by the types
        // themselves. Nothing else may be: an empty label value selects.
        "spec": spec,
    })
}

/// Whether a label or annotation is of what applied the object, or steers only now.
fn is_of_tools(key: &str) -> bool {
    const PREFIXES: [&str; 6] = [
        "kubectl.kubernetes.io/",
        "l2lb.io/",
        "meta.helm.sh/",
        "helm.toolkit.fluxcd.io/",
        "kustomize.toolkit.fluxcd.io/",
        "argocd.argoproj.io/",
    ];
    // By the instance Argo CD tracks what is its own, and prunes it, unless it is
    // told otherwise.
    const KEYS: [&str; 3] = [
        "helm.sh/chart",
        "app.kubernetes.io/instance",
        names::MANAGED_BY,
    ];
    PREFIXES.iter().any(|p| key.starts_with(p)) || KEYS.contains(&key)
}

/// What `export` prints of a world.
#[cfg(test)]
pub(super) fn of_world(args: &Args, world: &World) -> String {
    let (objects, notes) = objects(world, args, "default").unwrap();
    let notes: String = notes.iter().map(|n| format!("note: {n}\n")).collect();
    notes + &text(&objects, args.output).unwrap()
}

#[cfg(test)]
mod tests;
