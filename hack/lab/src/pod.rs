//! One pod: its address, programs, probes and status.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Place};
use crate::http;
use crate::kubelet::Volumes;
use crate::process::{Process, Spec};
use crate::sandbox::Sandbox;

/// How often the lab looks after a pod.
const TICK: Duration = Duration::from_millis(200);
/// The image that the lab itself serves: an HTTP server on each of its ports.
pub const BACKEND_IMAGE: &str = "l2lb-lab/backend";

/// What a pod's programs and its status need to know.
pub(crate) struct PodContext {
    pub pod: Pod,
    pub node: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The node's addresses.
    pub node_addresses: Vec<IpAddr>,
}

/// Runs a pod until it is stopped.
pub(crate) async fn run(cluster: Arc<Cluster>, volumes: Volumes, pod: Pod, node: String, stop: CancellationToken) {
    let name = pod.name_any();
    let mut sandbox = None;
    loop {
        let attempt = live(&cluster, &volumes, &pod, &node, &mut sandbox);
        tokio::select! {
            () = stop.cancelled() => break,
            result = attempt => if let Err(error) = result {
                tracing::debug!("pod {name} on {node}: {error:#}");
            },
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(TICK) => {}
        }
    }
    if let Some(sandbox) = sandbox {
        sandbox.remove();
    }
}

/// Starts a pod and looks after it; returns only with an error, or when it cannot start yet.
async fn live(
    cluster: &Arc<Cluster>,
    volumes: &Volumes,
    pod: &Pod,
    node: &str,
    sandbox: &mut Option<Sandbox>,
) -> Result<()> {
    let place = cluster.place(node).with_context(|| format!("there is no node {node}"))?;
    let context = context(cluster, pod, node, &place)?;
    let spec = pod.spec.as_ref().context("the pod has no spec")?;

    let builtin = spec.containers.iter().all(|c| c.image.as_deref().is_some_and(|i| i.starts_with(BACKEND_IMAGE)));
    if builtin {
        let _servers = serve(&context, &place)?;
        return report(cluster, &context, true).and_stay().await;
    }

    if sandbox.is_none() {
        *sandbox = Some(Sandbox::new(cluster, &context).await?);
    }
    let sandbox = sandbox.as_mut().context("the pod has no sandbox")?;
    sandbox.refresh(volumes, &context)?;
    let mut containers = Vec::new();
    for container in &spec.containers {
        containers.push(Supervised::start(cluster, &place, &context, sandbox, container)?);
    }
    let mut reported = None;
    loop {
        for container in &mut containers {
            container.restart_if_ended(cluster, &place)?;
        }
        sandbox.refresh(volumes, &context)?;
        let mut ready = true;
        for container in &mut containers {
            ready &= container.is_ready(&place, &context).await;
        }
        if reported != Some(ready) {
            report(cluster, &context, ready).await?;
            reported = Some(ready);
        }
        tokio::time::sleep(TICK).await;
    }
}
