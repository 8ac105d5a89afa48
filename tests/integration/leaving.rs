//! On the way out: in the right order, and nothing is left.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use l2lb::api::names;
use l2lb_lab::{Lab, METALLB_NAMESPACE};

use crate::cluster::{Cluster, PATIENCE, ensure_distinct, ensure_same};

/// A pool that is deleted is held until its addresses are free, and gives out
/// no new ones.
pub async fn pool_waits_for_its_addresses(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    let controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    let before = cluster.slots("shop", "web", 2).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    let pool = cluster.pools().get("edge").await?;
    ensure!(
        pool.finalizers() == [names::POOL_FINALIZER],
        "finalizers are {:?}",
        pool.finalizers()
    );

    cluster.delete(&cluster.pools(), "edge").await?;
    cluster
        .pool_condition("edge", "Accepted", "PoolTerminating")
        .await?;
    cluster.load_balancer("late").await?;
    cluster.nodes(["node-3"]).await?;
    let condition = cluster
        .condition("shop", "late", "AddressesAllocated", "PoolTerminating")
        .await?;
    ensure!(
        condition
            .message
            .contains("L2AddressPool edge is being deleted"),
        "{condition:?}"
    );
    cluster
        .condition("shop", "web", "AddressesAllocated", "PoolTerminating")
        .await?;
    // Nor does a restart forget it.
    controller.kill().await;
    let _controller = cluster.controller()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = cluster.children("shop", "web").await?;
    ensure_same(&before, &after)?;
    ensure!(
        cluster.children("shop", "late").await?.is_empty(),
        "new addresses were given out"
    );
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    ensure!(
        cluster
            .metallb_pools()
            .get_opt("l2lb-edge")
            .await?
            .is_some(),
        "MetalLB's pool is gone"
    );

    cluster
        .delete(&cluster.load_balancers("shop"), "web")
        .await?;
    gone_silent(&cluster, "web").await?;
    cluster
        .until(&cluster.pools(), "edge", "it to go", |pool| pool.is_none())
        .await?;
    let start = Instant::now();
    loop {
        let left = leftovers(&cluster).await?;
        if left.is_empty() {
            break;
        }
        ensure!(start.elapsed() < PATIENCE, "{left:?} is left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster
        .condition("shop", "late", "Accepted", "PoolNotFound")
        .await?;
    Ok(())
}

/// Deletion without a garbage collector: the controller clears up, Services
/// first, and MetalLB's objects when no speaker announces any more.
pub async fn background(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    cluster.slots("shop", "web", 3).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Pinned", "Ok").await?;
    let before = cluster.writes()?.len();

    cluster
        .delete(&cluster.load_balancers("shop"), "web")
        .await?;
    for number in 0..3 {
        let name = format!("web-{number}");
        cluster
            .until(&cluster.services("shop"), &name, "it to go", |s| {
                s.is_none()
            })
            .await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let count = cluster
        .advertisements()
        .list(&ListParams::default())
        .await?
        .items
        .len();
    ensure!(
        count == 3,
        "{count} advertisements are left while speakers announce"
    );
    gone_silent(&cluster, "web").await?;
    let start = Instant::now();
    while !cluster
        .advertisements()
        .list(&ListParams::default())
        .await?
        .items
        .is_empty()
    {
        ensure!(start.elapsed() < PATIENCE, "the advertisements stay");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let writes = cluster.writes()?;
    let order: Vec<&str> = writes[before..]
        .iter()
        .filter(|w| w.verb == "delete")
        .map(|w| w.resource.as_str())
        .collect();
    ensure!(
        order
            == [
                "services",
                "services",
                "services",
                "l2advertisements",
                "l2advertisements",
                "l2advertisements"
            ],
        "deleted in this order: {order:?}"
    );
    // The pool stays for the next one.
    ensure!(
        cluster
            .metallb_pools()
            .get_opt("l2lb-edge")
            .await?
            .is_some(),
        "the pool is gone"
    );
    cluster.load_balancer("next").await?;
    cluster.slots("shop", "next", 3).await?;
    Ok(())
}

/// `--cascade=foreground`: the load balancer goes after its Services.
pub async fn foreground(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    cluster.load_balancer("other").await?;
    cluster.slots("shop", "web", 2).await?;
    let other = cluster.slots("shop", "other", 2).await?;
    cluster
        .load_balancers("shop")
        .delete("web", &DeleteParams::foreground())
        .await
        .context("deleting it")?;
    let start = Instant::now();
    loop {
        let lb = cluster.load_balancers("shop").get_opt("web").await?;
        let children = cluster.children("shop", "web").await?;
        if lb.is_none() {
            ensure!(
                children.is_empty(),
                "it is gone before {:?}",
                children.keys()
            );
            break;
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "it stays, with {:?}",
            children.keys()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = cluster.children("shop", "other").await?;
    ensure_same(&other, &after)?;
    Ok(())
}

/// `--cascade=orphan`: the Services stay and work, their addresses are in
/// use, and a load balancer of the same name takes them on.
pub async fn orphan(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    let controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    let before = cluster.slots("shop", "web", 2).await?;
    cluster
        .load_balancers("shop")
        .delete("web", &DeleteParams::orphan())
        .await
        .context("deleting it")?;
    cluster
        .until(&cluster.load_balancers("shop"), "web", "it to go", |lb| {
            lb.is_none()
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let orphans = cluster.children("shop", "web").await?;
    ensure_same(&before, &orphans)?;
    ensure!(
        orphans.values().all(|s| s.owner_references().is_empty()),
        "they still have an owner: {orphans:?}"
    );
    // The advertisements that they need stay, and their addresses are taken,
    // also for a controller that starts now.
    controller.kill().await;
    let _controller = cluster.controller()?;
    cluster.load_balancer("other").await?;
    let other = cluster.slots("shop", "other", 2).await?;
    ensure_distinct(orphans.values().chain(other.values()))?;
    let count = cluster
        .advertisements()
        .list(&ListParams::default())
        .await?
        .items
        .len();
    ensure!(count == 2, "there are {count} advertisements");

    cluster.load_balancer("web").await?;
    let after = cluster.slots("shop", "web", 2).await?;
    ensure_same(&before, &after)?;
    cluster
        .until(&cluster.services("shop"), "web-0", "its new owner", |s| {
            s.is_some_and(|s: &Service| s.owner_references().len() == 1)
        })
        .await?;
    Ok(())
}

/// Plays the speakers: they announce the Services of a load balancer no more.
async fn gone_silent(cluster: &Cluster, load_balancer: &str) -> Result<()> {
    cluster
        .lab
        .kubectl()
        .run([
            "delete",
            "servicel2statuses",
            "-n",
            METALLB_NAMESPACE,
            "--all",
        ])
        .await
        .with_context(|| format!("silencing {load_balancer}"))?;
    Ok(())
}

/// Every object of ours that exists.
async fn leftovers(cluster: &Cluster) -> Result<Vec<String>> {
    let of_ours = ListParams::default().labels(&format!(
        "{}={}",
        names::MANAGED_BY,
        names::MANAGED_BY_VALUE
    ));
    let services: Api<Service> = Api::all(cluster.client.clone());
    let mut left: Vec<String> = services
        .list(&of_ours)
        .await?
        .iter()
        .map(|s| format!("Service {}", s.name_any()))
        .collect();
    let found = cluster.metallb_pools().list(&of_ours).await?;
    left.extend(
        found
            .iter()
            .map(|p| format!("IPAddressPool {}", p.name_any())),
    );
    let found = cluster.advertisements().list(&of_ours).await?;
    left.extend(
        found
            .iter()
            .map(|a| format!("L2Advertisement {}", a.name_any())),
    );
    Ok(left)
}
