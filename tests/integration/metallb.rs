//! MetalLB that is not there yet, that is too old, and whose speakers come
//! and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use l2lb::api::{SlotPhase, names};
use l2lb_lab::Lab;
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, ensure_same, slots_of};

/// Its definitions are missing: that is said, and work starts when they
/// appear. An older version is served its own way, and upgraded.
pub async fn is_missing(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    let definitions = remove_definitions(&cluster).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    let condition = cluster
        .pool_condition("edge", "Configured", "MetalLBMissing")
        .await?;
    ensure!(
        condition
            .message
            .contains("install MetalLB 0.16.2 or later in namespace metallb-system"),
        "{condition:?}"
    );
    cluster.pool_condition("edge", "Accepted", "Ok").await?;
    let condition = cluster
        .condition("shop", "web", "Accepted", "MetalLBMissing")
        .await?;
    ensure!(
        condition.message.contains("L2AddressPool edge"),
        "{condition:?}"
    );
    ensure!(
        cluster.children("shop", "web").await?.is_empty(),
        "Services were made"
    );

    // A MetalLB without preferences.
    let mut old = definitions.clone();
    for definition in &mut old {
        let schema = definition
            .spec
            .versions
            .first_mut()
            .and_then(|v| v.schema.as_mut());
        let spec = schema
            .and_then(|s| {
                s.open_api_v3_schema
                    .as_mut()?
                    .properties
                    .as_mut()?
                    .get_mut("spec")
            })
            .and_then(|s| s.properties.as_mut());
        if let Some(spec) = spec {
            spec.remove("preferredNodeSelectors");
        }
    }
    install(&cluster, &old).await?;
    cluster.pool_condition("edge", "Configured", "Ok").await?;
    let before = cluster.slots("shop", "web", 2).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    let own: Vec<String> = before.values().map(pool_of).collect();
    ensure!(own.iter().all(|name| names::is_own_pool(name)), "{own:?}");
    for name in &own {
        cluster.metallb_pools().get(name).await?;
        cluster.advertisements().get(name).await?;
    }

    // The upgrade.
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for definition in &definitions {
        let mut present = api.get(&definition.name_any()).await?;
        present.spec = definition.spec.clone();
        api.replace(&definition.name_any(), &PostParams::default(), &present)
            .await?;
    }
    let start = Instant::now();
    while cluster
        .metallb_pools()
        .get_opt(&names::ip_address_pool_name("edge"))
        .await?
        .is_none()
    {
        ensure!(start.elapsed() < PATIENCE, "there is no shared pool");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = cluster.children("shop", "web").await?;
    ensure_same(&before, &after)?;
    ensure!(
        after.values().map(pool_of).eq(own),
        "a slot changed its pool"
    );
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    cluster.pool_condition("edge", "Configured", "Ok").await?;

    // Somebody reinstalls MetalLB: no Service suffers.
    remove_definitions(&cluster).await?;
    cluster
        .pool_condition("edge", "Configured", "MetalLBMissing")
        .await?;
    install(&cluster, &definitions).await?;
    cluster.pool_condition("edge", "Configured", "Ok").await?;
    let start = Instant::now();
    while cluster
        .advertisements()
        .list(&ListParams::default())
        .await?
        .items
        .len()
        < 2
    {
        ensure!(
            start.elapsed() < PATIENCE,
            "the advertisements do not come back"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = cluster.children("shop", "web").await?;
    ensure_same(&before, &after)?;
    Ok(())
}

fn pool_of(service: &Service) -> String {
    let annotations = service.annotations();
    annotations
        .get(names::METALLB_POOL)
        .cloned()
        .unwrap_or_default()
}

async fn remove_definitions(cluster: &Cluster) -> Result<Vec<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let mut removed = Vec::new();
    for definition in api.list(&ListParams::default()).await? {
        if definition.spec.group != "metallb.io" {
            continue;
        }
        cluster.delete(&api, &definition.name_any()).await?;
        removed.push(definition);
    }
    // The API server may find a kind's storage not ready yet, and looks again
    // when the definition changes; when that is too often it never gets to
    // write that it is done. It waits a minute for the last object to be gone.
    let start = Instant::now();
    for name in removed.iter().map(ResourceExt::name_any) {
        let mut nudged = Instant::now();
        while api.get_opt(&name).await?.is_some() {
            ensure!(start.elapsed() < PATIENCE * 2, "definition {name} stays");
            if nudged.elapsed() > Duration::from_secs(2) {
                nudged = Instant::now();
                let nudge = json!({"metadata": {"annotations":
                    {"nudge": format!("{:?}", start.elapsed())}}});
                // It may have gone just now.
                let _ = cluster.change(&api, &name, nudge).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    ensure!(!removed.is_empty(), "there are no definitions of MetalLB");
    Ok(removed)
}

async fn install(cluster: &Cluster, definitions: &[CustomResourceDefinition]) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for definition in definitions {
        let mut new = definition.clone();
        new.metadata.resource_version = None;
        new.metadata.uid = None;
        new.metadata.managed_fields = None;
        new.metadata.finalizers = None;
        new.status = None;
        api.create(&PostParams::default(), &new)
            .await
            .with_context(|| format!("installing {}", definition.name_any()))?;
    }
    Ok(())
}

/// The pin follows the nodes, and the status says who announces.
pub async fn nodes_fail_and_return(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/28").await?;
    cluster.load_balancer("web").await?;
    let before = cluster.slots("shop", "web", 3).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Pinned", "Ok").await?;
    let slot = before
        .iter()
        .find(|(_, s)| crate::cluster::label(*s, names::HOME) == "node-2")
        .map(|(name, _)| name.clone())
        .context("node-2 has no slot")?;

    let nodes: Api<Node> = Api::all(cluster.client.clone());
    for (away, reason) in [("fails", "FailedOver"), ("is cordoned", "Draining")] {
        match away {
            "fails" => cluster.set_ready("node-2", false).await?,
            _ => {
                cluster
                    .change(&nodes, "node-2", json!({"spec": {"unschedulable": true}}))
                    .await?;
            }
        }
        pinned(&cluster, &slot, false).await?;
        cluster.announce("shop", "web").await?;
        cluster.condition("shop", "web", "Pinned", reason).await?;
        // The reboot of a node does not turn it False.
        cluster.condition("shop", "web", "Ready", "Ok").await?;
        match away {
            "fails" => cluster.set_ready("node-2", true).await?,
            _ => {
                cluster
                    .change(&nodes, "node-2", json!({"spec": {"unschedulable": null}}))
                    .await?;
            }
        }
        pinned(&cluster, &slot, true).await?;
        cluster.announce("shop", "web").await?;
        cluster.condition("shop", "web", "Pinned", "Ok").await?;
    }
    let after = cluster.children("shop", "web").await?;
    ensure_same(&before, &after)?;

    // A node that leaves for good: its address is kept, and a node that
    // joins inherits it.
    cluster.delete(&nodes, "node-2").await?;
    cluster
        .until(
            &cluster.load_balancers("shop"),
            "web",
            "its slot to retire",
            |lb| {
                slots_of(lb)
                    .iter()
                    .any(|s| s.service == slot && s.phase == SlotPhase::Retiring)
            },
        )
        .await?;
    cluster.nodes(["node-4"]).await?;
    cluster
        .until(
            &cluster.load_balancers("shop"),
            "web",
            "node-4 to inherit",
            |lb| {
                slots_of(lb)
                    .iter()
                    .any(|s| s.service == slot && s.node == "node-4")
            },
        )
        .await?;
    let after = cluster.children("shop", "web").await?;
    ensure_same(&before, &after)?;
    Ok(())
}

/// Waits until a slot is pinned to its home, or away from it.
async fn pinned(cluster: &Cluster, slot: &str, at_home: bool) -> Result<()> {
    let what = format!("the pin to be at home: {at_home}");
    cluster
        .until(&cluster.services("shop"), slot, &what, |service| {
            service.is_some_and(|s| {
                let label = |key| crate::cluster::label(s, key);
                (label(names::PIN) == label(names::HOME)) == at_home
            })
        })
        .await?;
    Ok(())
}
