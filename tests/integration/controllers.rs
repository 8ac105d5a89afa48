//! Controllers that end, at any time, and controllers that take over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use l2lb::api::names;
use l2lb_lab::{Lab, Process};
use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE, ensure_distinct, identities, load_balancer};

const NODES: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "node-5"];

/// Whatever happens while no controller runs, everybody keeps what they have.
pub async fn restart_keeps_addresses(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(NODES).await?;
    cluster.pool("203.0.113.0/25").await?;
    let all = ["one", "two", "three", "four"];
    for name in all {
        cluster.load_balancer(name).await?;
    }
    let controller = cluster.controller()?;
    let mut before = BTreeMap::new();
    for name in all {
        before.extend(cluster.slots("shop", name, 5).await?);
    }
    ensure!(
        ensure_distinct(before.values())? == 20,
        "addresses are missing"
    );
    controller.kill().await;

    let services = cluster.services("shop");
    cluster.delete(&services, "one-2").await?;
    cluster
        .delete(&cluster.load_balancers("shop"), "four")
        .await?;
    cluster.nodes(["node-0"]).await?;
    cluster.load_balancer("five").await?;

    let _controller = cluster.controller()?;
    let mut after = BTreeMap::new();
    for name in ["one", "two", "three", "five"] {
        after.extend(cluster.slots("shop", name, 6).await?);
    }
    ensure!(
        ensure_distinct(after.values())? == 24,
        "addresses are missing"
    );
    for (name, (uid, addresses)) in identities(&before) {
        let now = identities(&after);
        let found = now.get(&name);
        match name.as_str() {
            _ if name.starts_with("four-") => ensure!(found.is_none(), "{name} is still there"),
            "one-2" => ensure!(
                found.is_some_and(|(_, a)| *a == addresses),
                "{name} came back with {found:?} instead of {addresses:?}"
            ),
            _ => ensure!(
                found.is_some_and(|(u, a)| *u == uid && *a == addresses),
                "{name} has {found:?} instead of {addresses:?}"
            ),
        }
    }
    Ok(())
}

/// Killed at any moment of a large rollout: no address is given twice, and
/// what was given stays.
pub async fn killed_again_and_again(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(NODES).await?;
    let count = 30;
    cluster.pool("203.0.113.0/24").await?;
    let manifests: String = (0..count)
        .map(|i| load_balancer("shop", &format!("lb{i:02}"), "edge"))
        .collect();
    cluster.apply(&manifests).await?;

    let mut known = BTreeMap::new();
    let wanted = count * NODES.len();
    for goal in (1..)
        .map(|round| round * 13)
        .take_while(|goal| *goal < wanted)
    {
        let controller = cluster.controller()?;
        let start = Instant::now();
        while children(&cluster).await?.len() < goal {
            ensure!(
                start.elapsed() < PATIENCE,
                "there are not {goal} Services after {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        controller.kill().await;
        known = check(known, &children(&cluster).await?)?;
    }
    let _controller = cluster.controller()?;
    let start = Instant::now();
    loop {
        let found = children(&cluster).await?;
        known = check(known, &found)?;
        if found.len() == wanted {
            break;
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "there are {} of {wanted} Services",
            found.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for i in 0..count {
        cluster
            .slots("shop", &format!("lb{i:02}"), NODES.len())
            .await?;
    }
    check(known, &children(&cluster).await?)?;
    Ok(())
}

async fn children(cluster: &Cluster) -> Result<BTreeMap<String, Service>> {
    let selector = ListParams::default().labels(names::LOAD_BALANCER);
    let list = cluster.services("shop").list(&selector).await?;
    Ok(list.items.into_iter().map(|s| (s.name_any(), s)).collect())
}

type Identities = BTreeMap<String, (String, Vec<String>)>;

fn check(known: Identities, found: &BTreeMap<String, Service>) -> Result<Identities> {
    ensure_distinct(found.values())?;
    let now = identities(found);
    for (name, identity) in known {
        ensure!(
            now.get(&name) == Some(&identity),
            "{name} had {identity:?}, has {:?}",
            now.get(&name)
        );
    }
    Ok(now)
}

/// Of two controllers one works. The other takes over when the first stands
/// still, ends or is killed, and there are never two that write.
pub async fn one_leader(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    cluster.pool("203.0.113.0/27").await?;
    let accounts = accounts(&cluster).await?;
    let start = |who: usize| -> Result<Process> {
        let name = ["anna", "bert"][who];
        let args = ["--lease-duration=12s", "--lease-renew=2s"];
        cluster.controller_with(name, &args, Some(&accounts[who]))
    };
    let mut anna = start(0)?;
    leads(&cluster, "anna").await?;
    cluster.load_balancer("one").await?;
    cluster.slots("shop", "one", 2).await?;
    let bert = start(1)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    leads(&cluster, "anna").await?;

    // The first stands still, and wakes up to a world that has gone on. It
    // finds work at once, and must not do it.
    signal(&cluster, &anna, "STOP").await?;
    leads(&cluster, "bert").await?;
    cluster.load_balancer("two").await?;
    cluster.slots("shop", "two", 2).await?;
    let turn = cluster.writes()?.len();
    signal(&cluster, &bert, "STOP").await?;
    cluster.delete(&cluster.services("shop"), "one-0").await?;
    signal(&cluster, &anna, "CONT").await?;
    let how = anna.ended().await;
    ensure!(how == "exit status: 1", "the old leader ended with {how}");
    let writes = cluster.writes()?;
    ensure!(
        writes[turn..].iter().all(|w| !w.user.ends_with(":anna")),
        "the old leader wrote: {:?}",
        &writes[turn..]
    );
    signal(&cluster, &bert, "CONT").await?;
    cluster.slots("shop", "one", 2).await?;

    // The second ends as it is asked to: the Lease is free at once.
    let anna = start(0)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    bert.terminate()?;
    leads(&cluster, "anna").await?;
    ensure!(
        asked.elapsed() < Duration::from_secs(8),
        "it took {:?}",
        asked.elapsed()
    );
    cluster.load_balancer("three").await?;
    cluster.slots("shop", "three", 2).await?;

    // Killed, it leaves a Lease that must expire first.
    let _bert = start(1)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    anna.kill().await;
    leads(&cluster, "bert").await?;
    cluster.load_balancer("four").await?;
    cluster.slots("shop", "four", 2).await?;

    let mut turns: Vec<String> = cluster.writes()?.into_iter().map(|w| w.user).collect();
    turns.dedup();
    let names: Vec<&str> = turns.iter().filter_map(|t| t.rsplit(':').next()).collect();
    ensure!(
        names == ["anna", "bert", "anna", "bert"],
        "they wrote in turns: {names:?}"
    );
    Ok(())
}

/// The first signal lets a write be finished, however long that takes; the
/// second ends the controller at once.
pub async fn second_signal(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1"]).await?;
    cluster.pool("203.0.113.0/27").await?;
    // A write of a Service takes as long as its writer waits.
    let silence = cluster
        .silence(
            "{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [services]}",
        )
        .await?;
    let mut controller = cluster.controller()?;
    cluster.load_balancer("web").await?;
    let _asked = timeout(PATIENCE, silence.accept())
        .await
        .context("nobody asks the webhook")??;

    controller.terminate()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let early = controller.has_ended();
    ensure!(early.is_none(), "it left a write alone: {early:?}");
    controller.terminate()?;
    // However long that takes on a busy machine: had it waited for the write,
    // it would end in order, with 0.
    let how = timeout(PATIENCE, controller.ended())
        .await
        .context("the second signal does not end it")?;
    ensure!(how == "exit status: 130", "it ended with {how}");
    Ok(())
}

/// Kubeconfigs of two accounts that may do everything.
async fn accounts(cluster: &Cluster) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for name in ["anna", "bert"] {
        cluster
            .apply(&format!(
                "
apiVersion: v1
kind: ServiceAccount
metadata: {{namespace: default, name: {name}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}
subjects: [{{kind: ServiceAccount, namespace: default, name: {name}}}]
"
            ))
            .await?;
        paths.push(cluster.lab.kubeconfig_of("default", name).await?);
    }
    Ok(paths)
}

/// Waits until a controller holds the Lease in namespace `default`.
pub async fn leads(cluster: &Cluster, name: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "default");
    cluster
        .until(
            &leases,
            "l2lb-controller",
            &format!("{name} to lead"),
            |lease| {
                let holder = lease.and_then(|l| l.spec.as_ref()?.holder_identity.as_ref());
                holder.is_some_and(|h| h.starts_with(&format!("{name}_")))
            },
        )
        .await?;
    Ok(())
}

async fn signal(cluster: &Cluster, process: &Process, name: &str) -> Result<()> {
    let id = process.id().context("it has ended")?.to_string();
    cluster
        .lab
        .exec(None, &["kill", &format!("-{name}"), &id])
        .await?;
    Ok(())
}
