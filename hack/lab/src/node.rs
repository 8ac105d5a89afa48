//! Nodes: their objects, heartbeats and kube-proxy.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{CONTROL_PLANE_NODE, Cluster};
use crate::netns::Netns;
use crate::process::{Process, Spec};
use crate::topology::Machine;
use crate::{place, tools};

/// How often a node's Lease is renewed.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Where nodes' Leases live.
const LEASES: &str = "kube-node-lease";

/// Writes a Node and its Lease as a kubelet would.
pub(crate) async fn register(
    cluster: &Cluster,
    name: &str,
    hostname: &str,
    machine: Machine,
) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let mut labels = json!({
        "kubernetes.io/hostname": hostname,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    });
    let mut taints = json!([]);
    if name == CONTROL_PLANE_NODE {
        // As kubeadm does.
        labels["node-role.kubernetes.io/control-plane"] = json!("");
        labels["node.kubernetes.io/exclude-from-external-load-balancers"] = json!("");
        taints = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    }
    let ranges = machine.pod_ranges(cluster.dual_stack);
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges, "taints": taints},
    }))
    .context("describing a node")?;
    nodes
        .create(&PostParams::default(), &node)
        .await
        .with_context(|| format!("creating node {name}"))?;
    renew(cluster, name).await?;
    report_ready(cluster, name).await
}

/// Says that a node is ready, as its kubelet does when it starts.
pub(crate) async fn report_ready(cluster: &Cluster, name: &str) -> Result<()> {
    let place = cluster
        .place(name)
        .with_context(|| format!("there is no node {name}"))?;
    let mut addresses: Vec<Value> = place
        .machine
        .addresses(cluster.dual_stack)
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": name}));
    // Strategic merge knows addresses by type, of which two have one.
    addresses.push(json!({"$patch": "replace"}));
    let now = Timestamp::now();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let status = json!({"status": {
        "addresses": addresses,
        "capacity": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"},
        "conditions": [
            condition("Ready", "True", "KubeletReady"),
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        ],
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "osImage": "lab",
            "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
            "containerRuntimeVersion": "", "kubeletVersion": "v1.37.1", "kubeProxyVersion": "",
        },
    }});
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes
        .patch_status(name, &PatchParams::default(), &Patch::Strategic(status))
        .await
        .with_context(|| format!("reporting node {name} ready"))?;
    Ok(())
}

/// Renews the Leases of all nodes that have power, for ever.
pub(crate) async fn heartbeats(cluster: Arc<Cluster>) {
    let mut interval = tokio::time::interval(HEARTBEAT);
    loop {
        interval.tick().await;
        let alive: Vec<String> = cluster
            .nodes()
            .iter()
            .filter(|(_, node)| node.powered && !node.silent)
            .map(|(name, _)| name.clone())
            .collect();
        let renewals = alive.iter().map(|name| renew(&cluster, name));
        for result in futures::future::join_all(renewals).await {
            if let Err(error) = result {
                tracing::warn!("heartbeat: {error:#}");
            }
        }
    }
}

/// Renews a node's Lease, which from its first version on must have a
/// renewTime: the node lifecycle controller never misses one without.
async fn renew(cluster: &Cluster, name: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), LEASES);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name},
        "spec": {
            "holderIdentity": name, "leaseDurationSeconds": 40,
            "renewTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        },
    });
    leases
        .patch(
            name,
            &PatchParams::apply("kubelet").force(),
            &Patch::Apply(lease),
        )
        .await
        .with_context(|| format!("renewing the Lease of node {name}"))?;
    Ok(())
}

/// Starts kube-proxy on a node.
pub(crate) fn start_kube_proxy(cluster: &Cluster, name: &str, netns: &Netns) -> Result<Process> {
    let spec = Spec::new(
        format!("kube-proxy-{name}"),
        place::tool("kubernetes", "kube-proxy"),
    )
    .args([
        format!("--kubeconfig={}", place::KUBECONFIG),
        "--proxy-mode=nftables".into(),
        "--conntrack-max-per-core=0".into(),
        format!("--hostname-override={name}"),
    ])
    .args(tools::kube_proxy_flags());
    Process::start(netns, &spec, &cluster.logs)
}
