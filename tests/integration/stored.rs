//! Objects that are stored and cannot be read: somebody had switched
//! validation off.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation,
};
use kube::api::{Api, PostParams};
use l2lb::controller::resource;
use l2lb::world::{Key, Kind};
use l2lb_lab::Lab;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, ensure_same, load_balancer, pool};

const DEFINITIONS: [&str; 2] = ["l2addresspools.l2lb.io", "l2loadbalancers.l2lb.io"];

const BROKEN: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: broken}
spec: {addresses: everything}
---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {namespace: shop, name: broken}
spec: {addressPool: edge, service: {selector: {app: web}, ports: all}}
---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {namespace: shop, name: empty}
spec: {}
---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {namespace: shop, name: bare}
";

/// They are reported and left alone, with what they have; all others are served.
pub async fn broken_stored_objects(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    let controller = cluster.controller()?;
    cluster.pool("203.0.113.0/27").await?;
    cluster.load_balancer("web").await?;
    cluster.load_balancer("spoilt").await?;
    let spoilt = cluster.slots("shop", "spoilt", 2).await?;
    cluster.slots("shop", "web", 2).await?;
    // What this machine can do now.
    let usual = time_to_serve(&cluster, "usual").await?;

    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let mut schemas = Vec::new();
    for name in DEFINITIONS {
        let lax: CustomResourceValidation = serde_json::from_value(json!({"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}))?;
        schemas.push(swap(&definitions, name, lax).await?);
    }
    apply_until_accepted(&cluster, BROKEN).await?;
    cluster
        .change(
            &cluster.load_balancers("shop"),
            "spoilt",
            json!({"spec": {"service": {"ports": "none"}}}),
        )
        .await
        // It cannot be read back here, either.
        .err()
        .context("it can be read")?;
    cluster.apply(&pool("late", "198.51.100.0/28")).await?;
    cluster
        .apply(&load_balancer("shop", "late", "late"))
        .await?;
    cluster.slots("shop", "late", 2).await?;

    // One that no controller has seen before it is too late.
    controller.kill().await;
    let unseen = "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {namespace: shop, name: unseen}
spec: {addressPool: edge, service: {selector: {app: web}, ports: all}}
";
    cluster.apply(unseen).await?;

    for (name, schema) in DEFINITIONS.iter().zip(schemas) {
        swap(&definitions, name, schema).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _controller = cluster.controller()?;
    cluster.load_balancer("after").await?;
    cluster.slots("shop", "after", 2).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    for name in ["broken", "empty", "bare", "spoilt"] {
        let message = unreadable(&cluster, name).await?;
        ensure!(
            message.starts_with("the stored object cannot be read (")
                && message.ends_with("): write it anew with kubectl replace"),
            "{message}"
        );
    }
    let after = cluster.children("shop", "spoilt").await?;
    ensure_same(&spoilt, &after)?;

    // The API server refuses a status for it, too; that is no outage, and is
    // tried less and less often.
    let before = cluster.writes()?.len();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let writes = cluster.writes()?;
    let attempts: Vec<_> = writes[before..]
        .iter()
        .filter(|w| w.name == "unseen")
        .collect();
    ensure!(attempts.len() <= 4, "{attempts:?}");
    let took = time_to_serve(&cluster, "prompt").await?;
    ensure!(
        took < usual * 4 + Duration::from_secs(2),
        "it took {took:?} beside objects that cannot be read, and {usual:?} without them"
    );

    // The remedy is what the condition says.
    replace(&cluster, "spoilt").await?;
    cluster.announce("shop", "spoilt").await?;
    cluster.condition("shop", "spoilt", "Ready", "Ok").await?;
    let after = cluster.children("shop", "spoilt").await?;
    ensure_same(&spoilt, &after)?;
    for name in ["broken", "unseen", "empty", "bare"] {
        replace(&cluster, name).await?;
        cluster.slots("shop", name, 2).await?;
    }
    Ok(())
}

/// Makes a load balancer, and waits until both its slots have addresses.
async fn time_to_serve(cluster: &Cluster, name: &str) -> Result<Duration> {
    let start = Instant::now();
    cluster.load_balancer(name).await?;
    cluster.slots("shop", name, 2).await?;
    Ok(start.elapsed())
}

/// Writes a good load balancer over a broken one, as `kubectl replace` does.
async fn replace(cluster: &Cluster, name: &str) -> Result<()> {
    let manifest = load_balancer("shop", name, "edge");
    let mut object = l2lb::manifest::parse(name, &manifest)?.remove(0).value;
    let live = cluster.raw(Kind::LoadBalancer, "shop", name).await?;
    object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
    let path = resource::path(Kind::LoadBalancer, &Key::new("shop", name));
    let request = Request::put(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&object)?)?;
    cluster
        .client
        .request::<Value>(request)
        .await
        .with_context(|| format!("replacing {name}"))?;
    Ok(())
}

/// Puts another schema into a definition, and returns the one that was there.
async fn swap(
    definitions: &Api<CustomResourceDefinition>,
    name: &str,
    schema: CustomResourceValidation,
) -> Result<CustomResourceValidation> {
    let mut definition = definitions.get(name).await?;
    let version = definition
        .spec
        .versions
        .first_mut()
        .context("it has no version")?;
    let before = version.schema.replace(schema).context("it has no schema")?;
    definitions
        .replace(name, &PostParams::default(), &definition)
        .await?;
    Ok(before)
}

async fn apply_until_accepted(cluster: &Cluster, manifests: &str) -> Result<()> {
    let start = Instant::now();
    while let Err(error) = cluster.apply(manifests).await {
        if start.elapsed() > PATIENCE {
            return Err(error).context("the definition does not change");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Waits for condition Accepted to be Unreadable; the object is read as it is.
async fn unreadable(cluster: &Cluster, name: &str) -> Result<String> {
    let start = Instant::now();
    loop {
        let object = cluster.raw(Kind::LoadBalancer, "shop", name).await?;
        let conditions = object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = conditions
            .iter()
            .find(|c| c["type"] == "Accepted" && c["reason"] == "Unreadable");
        if let Some(message) = found.and_then(|c| c["message"].as_str()) {
            return Ok(message.to_owned());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{name} is not reported: {object:#}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
