//! One pod: its address, programs, probes and status.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
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
/// How often a program that is ready is probed.
const PERIOD: Duration = Duration::from_secs(2);
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
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    volumes: Volumes,
    pod: Pod,
    node: String,
    stop: CancellationToken,
) {
    let name = pod.name_any();
    let mut life = Life {
        cluster,
        volumes,
        node,
        context: None,
        sandbox: None,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            result = life.live(&pod) => if let Err(error) = result {
                tracing::debug!("pod {name}: {error:#}");
            },
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(TICK) => {}
        }
    }
    if let Some(sandbox) = life.sandbox {
        sandbox.remove();
    }
}

struct Life {
    cluster: Arc<Cluster>,
    volumes: Volumes,
    node: String,
    context: Option<PodContext>,
    sandbox: Option<Sandbox>,
}

impl Life {
    /// Starts a pod and looks after it; returns only with an error.
    async fn live(&mut self, pod: &Pod) -> Result<()> {
        let cluster = &*self.cluster;
        let place = cluster
            .place(&self.node)
            .with_context(|| format!("there is no node {}", self.node))?;
        let context = match &mut self.context {
            Some(context) => context,
            none => none.insert(context(cluster, pod, &self.node, &place)?),
        };
        let spec = pod.spec.as_ref().context("the pod has no spec")?;
        if spec.containers.iter().all(|c| {
            c.image
                .as_deref()
                .is_some_and(|i| i.starts_with(BACKEND_IMAGE))
        }) {
            let _servers = serve(context, &place)?;
            report(cluster, context, true).await?;
            return std::future::pending().await;
        }
        let sandbox = match &mut self.sandbox {
            Some(sandbox) => sandbox,
            none => none.insert(Sandbox::new(cluster, context).await?),
        };
        sandbox.refresh(&self.volumes, context)?;
        let mut containers = Vec::new();
        for container in &spec.containers {
            let spec = sandbox.program(cluster, context, container, &self.volumes)?;
            containers.push(Supervised::start(cluster, &place, container, spec)?);
        }
        let ends = spec.restart_policy.as_deref() == Some("Never");
        let mut reported = None;
        loop {
            if ends && let Some(succeeded) = outcome(&mut containers) {
                report_end(cluster, context, succeeded).await?;
                return std::future::pending().await;
            }
            let mut ready = true;
            for container in &mut containers {
                if !ends {
                    container.restart_if_ended(cluster, &place)?;
                }
                ready &= container.is_ready(&place, context).await;
            }
            if reported != Some(ready) {
                report(cluster, context, ready).await?;
                reported = Some(ready);
            }
            tokio::time::sleep(TICK).await;
            sandbox.refresh(&self.volumes, context)?;
        }
    }
}

fn context(cluster: &Cluster, pod: &Pod, node: &str, place: &Place) -> Result<PodContext> {
    let node_addresses = place.machine.addresses(cluster.dual_stack);
    let host_network = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or(false);
    let addresses = if host_network {
        node_addresses.clone()
    } else {
        let number = cluster.next_pod(node)?;
        let addresses = place.machine.pod_addresses(number, cluster.dual_stack);
        let mut script = String::new();
        for address in &addresses {
            let _ = match address {
                IpAddr::V4(v4) => writeln!(script, "addr replace {v4}/32 dev lo"),
                IpAddr::V6(v6) => writeln!(script, "addr replace {v6}/128 dev lo nodad"),
            };
        }
        place.netns.ip(&script)?;
        addresses
    };
    Ok(PodContext {
        pod: pod.clone(),
        node: node.to_owned(),
        addresses,
        node_addresses,
    })
}

/// Serves a pod of the lab's own image.
fn serve(context: &PodContext, place: &Place) -> Result<Vec<http::Backend>> {
    let containers = context.pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| port.container_port);
    let mut servers = Vec::new();
    for port in ports {
        let port = u16::try_from(port).context("a container port is out of range")?;
        for address in &context.addresses {
            let answer = format!("{} {}\n", context.node, context.pod.name_any());
            servers.push(http::Backend::start(
                &place.netns,
                SocketAddr::new(*address, port),
                answer,
            )?);
        }
    }
    Ok(servers)
}

/// Whether all programs of a pod ended well, once they have ended.
fn outcome(containers: &mut [Supervised]) -> Option<bool> {
    let ends = containers.iter_mut().map(|c| c.process.has_ended());
    let ends = ends.collect::<Option<Vec<_>>>()?;
    Some(ends.iter().all(|how| how == "exit status: 0"))
}

/// A container's program, started again whenever it ends, unless the pod is
/// one that runs to its end.
struct Supervised {
    spec: Spec,
    process: Process,
    probe: Option<(IpAddr, u16, String)>,
    probe_at: Instant,
    ready: bool,
    restart_at: Option<Instant>,
}

impl Supervised {
    fn start(cluster: &Cluster, place: &Place, container: &Container, spec: Spec) -> Result<Self> {
        let process = Process::start(&place.netns, &spec, &cluster.logs)?;
        let probe = probe(container);
        Ok(Self {
            spec,
            process,
            ready: probe.is_none(),
            probe,
            probe_at: Instant::now(),
            restart_at: None,
        })
    }

    fn restart_if_ended(&mut self, cluster: &Cluster, place: &Place) -> Result<()> {
        let Some(how) = self.process.has_ended() else {
            return Ok(());
        };
        let at = *self.restart_at.get_or_insert_with(|| {
            tracing::debug!("{} ended: {how}", self.spec.name);
            Instant::now() + TICK
        });
        self.ready = false;
        if at <= Instant::now() {
            self.process = Process::start(&place.netns, &self.spec, &cluster.logs)?;
            self.ready = self.probe.is_none();
            self.restart_at = None;
        }
        Ok(())
    }

    async fn is_ready(&mut self, place: &Place, context: &PodContext) -> bool {
        let Some((host, port, path)) = &self.probe else {
            return self.ready;
        };
        if self.probe_at <= Instant::now() && self.restart_at.is_none() {
            let host = if host.is_unspecified() {
                context.addresses[0]
            } else {
                *host
            };
            let timeout = Duration::from_secs(1);
            let response =
                http::get(&place.netns, SocketAddr::new(host, *port), path, timeout).await;
            self.ready = response.is_ok_and(|response| response.status == 200);
            self.probe_at = Instant::now() + if self.ready { PERIOD } else { TICK };
        }
        self.ready
    }
}

/// The address (unspecified: the pod's), port and path of a container's HTTP readiness probe.
fn probe(container: &Container) -> Option<(IpAddr, u16, String)> {
    let action = container.readiness_probe.as_ref()?.http_get.as_ref()?;
    let port = match &action.port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_ref() == Some(name))?
                .container_port
        }
    };
    if action.scheme.as_deref() == Some("HTTPS") {
        return None;
    }
    let host = action.host.as_deref().and_then(|host| host.parse().ok());
    Some((
        host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        u16::try_from(port).ok()?,
        action.path.clone().unwrap_or_else(|| "/".into()),
    ))
}

/// Writes the status of a pod that has run to its end.
async fn report_end(cluster: &Cluster, context: &PodContext, succeeded: bool) -> Result<()> {
    let pod = &context.pod;
    let now = Timestamp::now();
    let reason = if succeeded { "Completed" } else { "Error" };
    let containers: Vec<_> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {
                    "exitCode": i32::from(!succeeded), "reason": reason, "finishedAt": now}},
            })
        })
        .collect();
    let condition = |kind: &str| json!({"type": kind, "status": "False", "reason": "PodCompleted", "lastTransitionTime": now});
    let status = json!({"status": {
        "phase": if succeeded { "Succeeded" } else { "Failed" },
        "conditions": [condition("ContainersReady"), condition("Ready")],
        "containerStatuses": containers,
    }});
    let pods: Api<Pod> =
        Api::namespaced(cluster.client.clone(), &pod.namespace().unwrap_or_default());
    let params = PatchParams::default();
    pods.patch_status(&pod.name_any(), &params, &Patch::Merge(status))
        .await
        .context("reporting the pod's end")?;
    Ok(())
}

/// Writes a pod's status.
async fn report(cluster: &Cluster, context: &PodContext, ready: bool) -> Result<()> {
    let pod = &context.pod;
    let now = Timestamp::now();
    let condition = |kind: &str, value: bool| json!({"type": kind, "status": if value { "True" } else { "False" }, "lastTransitionTime": now});
    let containers: Vec<_> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| {
            json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": ready, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    let list = |key: &str, addresses: &[IpAddr]| -> Vec<_> {
        addresses.iter().map(|a| json!({key: a})).collect()
    };
    let status = json!({"status": {
        "phase": "Running", "startTime": now,
        "podIP": context.addresses[0], "podIPs": list("ip", &context.addresses),
        "hostIP": context.node_addresses[0], "hostIPs": list("ip", &context.node_addresses),
        "conditions": [
            condition("PodScheduled", true), condition("Initialized", true),
            condition("ContainersReady", ready), condition("Ready", ready),
        ],
        "containerStatuses": containers,
    }});
    let pods: Api<Pod> =
        Api::namespaced(cluster.client.clone(), &pod.namespace().unwrap_or_default());
    pods.patch_status(
        &pod.name_any(),
        &PatchParams::default(),
        &Patch::Merge(status),
    )
    .await
    .context("reporting the pod's status")?;
    Ok(())
}
