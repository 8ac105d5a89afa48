//! `kubectl l2lb rebalance`: shows the moves, makes them, and the controller
//! leaves the homes where they were put.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use l2lb::api::names;
use l2lb_lab::Lab;

use crate::cluster::{Cluster, ensure_same, label};

fn load_balancer(name: &str) -> String {
    format!(
        "---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {{namespace: shop, name: {name}}}
spec:
  addressPool: edge
  maxNodes: 1
  service: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
"
    )
}

/// The homes of the four Services by name.
async fn homes(cluster: &Cluster) -> Result<Vec<String>> {
    let mut homes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let children = cluster.children("shop", name).await?;
        let child = children.values().next().context("a Service")?;
        homes.push(label(child, names::HOME));
    }
    Ok(homes)
}

/// Four load balancers on one node, and a second node that joined later.
pub async fn homes_are_evened_out(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1"]).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    for name in ["a", "b", "c", "d"] {
        cluster.apply(&load_balancer(name)).await?;
        cluster.slots("shop", name, 1).await?;
        cluster.announce("shop", name).await?;
        cluster.condition("shop", name, "Ready", "Ok").await?;
    }
    let mut before = cluster.children("shop", "a").await?;
    for name in ["b", "c", "d"] {
        before.extend(cluster.children("shop", name).await?);
    }
    cluster.nodes(["node-2"]).await?;
    let uneven = cluster.pool_condition("edge", "Even", "Uneven").await?;
    ensure!(
        uneven.message.contains("kubectl l2lb rebalance edge"),
        "{uneven:?}"
    );

    // It only shows.
    let (code, text) = rebalance(&cluster, &["edge"]).await?;
    ensure!(
        code == 3 && text.contains("--yes makes these moves"),
        "{code}: {text}"
    );
    ensure!(text.contains("node-1  4      2"), "{text}");
    ensure!(
        homes(&cluster).await?.iter().all(|h| h == "node-1"),
        "something moved"
    );
    let (code, text) = rebalance(&cluster, &["nowhere"]).await?;
    ensure!(
        code == 1 && text.contains("there is no L2AddressPool nowhere"),
        "{code}: {text}"
    );

    // It makes the moves, while MetalLB follows the pins.
    let speakers = async {
        loop {
            for name in ["a", "b", "c", "d"] {
                cluster.announce("shop", name).await?;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (code, text) = tokio::select! {
        done = rebalance(&cluster, &["edge", "--yes"]) => done?,
        broken = speakers => return broken,
    };
    ensure!(code == 0, "{code}: {text}");
    ensure!(text.contains("2 of 2: "), "{text}");
    let after = homes(&cluster).await?;
    let on = |node: &str| after.iter().filter(|h| *h == node).count();
    ensure!(on("node-1") == 2 && on("node-2") == 2, "{after:?}");

    // The controller has no other opinion, and no address changed.
    let quiet = cluster.writes()?.len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(
        homes(&cluster).await? == after,
        "the controller moved something"
    );
    ensure!(
        cluster.writes()?.len() == quiet,
        "something is written in a steady state"
    );
    let mut now = cluster.children("shop", "a").await?;
    for name in ["b", "c", "d"] {
        now.extend(cluster.children("shop", name).await?);
    }
    ensure_same(&before, &now)?;
    ensure!(
        now.values()
            .all(|s| label(s, names::PIN) == label(s, names::HOME)),
        "{now:?}"
    );
    cluster.pool_condition("edge", "Even", "Ok").await?;
    let (code, text) = rebalance(&cluster, &[]).await?;
    ensure!(
        code == 0 && text.contains("nothing to move"),
        "{code}: {text}"
    );
    Ok(())
}

/// Runs the command to its end; its exit code and all that it printed.
async fn rebalance(cluster: &Cluster, args: &[&str]) -> Result<(i32, String)> {
    cluster.lab.plugin(["rebalance"].iter().chain(args)).await
}
