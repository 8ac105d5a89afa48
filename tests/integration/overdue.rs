//! A write that takes longer than the API server lets it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use l2lb::api::names;
use l2lb_lab::Lab;

use crate::cluster::{Cluster, PATIENCE, label, load_balancer, pool};

/// Changes of an IPAddressPool come to no end, as when the node of MetalLB's
/// controller, which has a webhook, dies.
const POOLS: &str = "{apiGroups: [metallb.io], apiVersions: ['*'], operations: [UPDATE], \
                     resources: [ipaddresspools]}";

/// While the change of a pool comes to no end, addresses leave a node that
/// fails and another pool is served; the change is tried less and less often,
/// that is said, and it is made when it can be.
pub async fn a_pool_hangs(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    cluster.slots("shop", "web", 3).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;

    let silence = cluster.silence(POOLS).await?;
    cluster.pool("203.0.113.0/27").await?;
    overdue(&cluster, 1).await?;

    let children = cluster.children("shop", "web").await?;
    let lost = children
        .iter()
        .find(|(_, child)| label(*child, names::HOME) == "node-1");
    let (lost, _) = lost.ok_or_else(|| anyhow::anyhow!("{children:?}"))?;
    let failed = Instant::now();
    cluster.set_ready("node-1", false).await?;
    cluster
        .until(
            &cluster.services("shop"),
            lost,
            "its pin to move",
            |child| child.is_some_and(|c| label(c, names::PIN) != "node-1"),
        )
        .await?;
    // A write that is under way is waited for.
    let took = failed.elapsed();
    ensure!(took < Duration::from_secs(8), "the move took {took:?}");
    cluster.apply(&pool("other", "198.51.100.0/28")).await?;
    cluster
        .apply(&load_balancer("shop", "other", "other"))
        .await?;
    cluster.slots("shop", "other", 3).await?;

    let condition = cluster
        .pool_condition("edge", "Configured", "Refused")
        .await?;
    ensure!(
        condition.message.contains("there was no answer in time"),
        "{condition:?}"
    );
    overdue(&cluster, 3).await?;
    let before = attempts(&cluster)?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let more = attempts(&cluster)? - before;
    ensure!(more <= 2, "{more} attempts in 12 s, after {before}");

    cluster
        .lab
        .kubectl()
        .run(["delete", "validatingwebhookconfiguration", "silence"])
        .await?;
    drop(silence);
    cluster
        .until(
            &cluster.metallb_pools(),
            "l2lb-edge",
            "the pool to be larger",
            |pool| pool.is_some_and(|p| p.spec.addresses.concat().contains("203.0.113.31")),
        )
        .await?;
    cluster.pool_condition("edge", "Configured", "Ok").await?;
    Ok(())
}

/// How often the API server gave up on the controller's change of a pool.
fn attempts(cluster: &Cluster) -> Result<usize> {
    let writes = cluster.writes()?;
    let overdue = writes
        .iter()
        .filter(|w| w.resource == "ipaddresspools" && w.code >= 500);
    Ok(overdue.count())
}

async fn overdue(cluster: &Cluster, count: usize) -> Result<()> {
    let start = Instant::now();
    while attempts(cluster)? < count {
        ensure!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} for {count} writes that come to no end"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
