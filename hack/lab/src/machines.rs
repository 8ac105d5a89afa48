//! A lab's nodes: adding, killing, reviving, marking.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::oneshot;

use crate::kubelet::Order;
use crate::lab::Lab;
use crate::node;
use crate::topology::{self, MAX_NODES, Machine};

impl Lab {
    /// The names of the nodes, in order, without the control plane's.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        let nodes = self.cluster.nodes();
        let mut all: Vec<_> = nodes
            .iter()
            .filter(|(_, node)| node.machine.0 > 0)
            .collect();
        all.sort_by_key(|(_, node)| node.machine);
        all.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether a node has power.
    #[must_use]
    pub fn is_powered(&self, node: &str) -> bool {
        self.cluster.place(node).is_some_and(|place| place.powered)
    }

    /// Adds a node under the next free number, and returns its name.
    pub async fn add_node(&self) -> Result<String> {
        let number = self.next_machine()?;
        let name = format!("node-{number}");
        self.add_node_named(&name).await?;
        Ok(name)
    }

    /// Adds a node whose label `kubernetes.io/hostname` is not its name, as it
    /// comes about where machines are cloned; returns its name.
    pub async fn add_node_with_hostname(&self, hostname: &str) -> Result<String> {
        let name = format!("node-{}", self.next_machine()?);
        self.join(&name, hostname).await?;
        Ok(name)
    }

    /// Adds a node with a name.
    pub async fn add_node_named(&self, name: &str) -> Result<()> {
        self.join(name, name).await
    }

    async fn join(&self, name: &str, hostname: &str) -> Result<()> {
        if self.cluster.place(name).is_some() {
            bail!("there is a node {name} already");
        }
        let machine = Machine(self.next_machine()?);
        let netns = topology::add_node(name, machine, self.config.dual_stack)?;
        self.cluster.insert(name, machine, netns.clone());
        node::register(&self.cluster, name, hostname, machine).await?;
        let kube_proxy = node::start_kube_proxy(&self.cluster, name, &netns)?;
        if let Some(node) = self.cluster.nodes().get_mut(name) {
            node.kube_proxy = Some(kube_proxy);
        }
        Ok(())
    }

    fn next_machine(&self) -> Result<u8> {
        let used = self
            .cluster
            .nodes()
            .values()
            .map(|node| node.machine.0)
            .max()
            .unwrap_or_default();
        if used >= MAX_NODES {
            bail!("a lab has at most {MAX_NODES} nodes");
        }
        Ok(used + 1)
    }

    /// Cuts a node's power: its link goes down, its programs end, and its
    /// heartbeat stops. Kubernetes finds out by itself.
    pub async fn kill_node(&self, name: &str) -> Result<()> {
        let (machine, kube_proxy) = {
            let mut nodes = self.cluster.nodes();
            let node = nodes
                .get_mut(name)
                .with_context(|| format!("there is no node {name}"))?;
            if node.machine.0 == 0 {
                bail!("the control plane keeps its power");
            }
            node.powered = false;
            (node.machine, node.kube_proxy.take())
        };
        topology::set_link(machine, false)?;
        let (done, off) = oneshot::channel();
        self.orders
            .send(Order::PowerOff(name.to_owned(), done))
            .await
            .context("telling the kubelets")?;
        off.await.context("waiting for the kubelets")?;
        if let Some(kube_proxy) = kube_proxy {
            kube_proxy.kill().await;
        }
        Ok(())
    }

    /// Whether Kubernetes calls a node ready.
    pub async fn is_ready(&self, name: &str) -> Result<bool> {
        let nodes: Api<Node> = Api::all(self.client());
        let node = nodes
            .get(name)
            .await
            .with_context(|| format!("reading node {name}"))?;
        let conditions = node
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        Ok(conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    }

    /// Gives a node its power back.
    pub async fn revive_node(&self, name: &str) -> Result<()> {
        let place = self
            .cluster
            .place(name)
            .with_context(|| format!("there is no node {name}"))?;
        if place.powered {
            return Ok(());
        }
        topology::set_link(place.machine, true)?;
        let kube_proxy = node::start_kube_proxy(&self.cluster, name, &place.netns)?;
        if let Some(node) = self.cluster.nodes().get_mut(name) {
            node.powered = true;
            node.kube_proxy = Some(kube_proxy);
        }
        node::report_ready(&self.cluster, name).await?;
        self.orders
            .send(Order::PowerOn(name.to_owned()))
            .await
            .context("telling the kubelets")
    }

    /// Cordons a node, or uncordons it.
    pub async fn cordon(&self, name: &str, cordoned: bool) -> Result<()> {
        let patch = json!({"spec": {"unschedulable": cordoned}});
        self.patch_node(name, &patch).await
    }

    /// Sets a label of a node, or takes it away.
    pub async fn label_node(&self, name: &str, label: &str, value: Option<&str>) -> Result<()> {
        self.patch_node(name, &json!({"metadata": {"labels": {label: value}}}))
            .await
    }

    /// Sets an annotation of a node, or takes it away.
    pub async fn annotate_node(&self, name: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.patch_node(name, &json!({"metadata": {"annotations": {key: value}}}))
            .await
    }

    /// Stops a node's kubelet, or starts it again, while its pods run on.
    pub async fn silence_kubelet(&self, name: &str, silent: bool) -> Result<()> {
        self.cluster
            .nodes()
            .get_mut(name)
            .with_context(|| format!("there is no node {name}"))?
            .silent = silent;
        if silent {
            return Ok(());
        }
        node::report_ready(&self.cluster, name).await
    }

    /// Sets the condition NetworkUnavailable of a node, as its network's agent does.
    pub async fn set_network_unavailable(&self, name: &str, unavailable: bool) -> Result<()> {
        let status = if unavailable { "True" } else { "False" };
        let nodes: Api<Node> = Api::all(self.client());
        let patch = json!({"status": {"conditions": [{
            "type": "NetworkUnavailable", "status": status, "reason": "Lab",
            "lastTransitionTime": jiff::Timestamp::now(),
            "lastHeartbeatTime": jiff::Timestamp::now(),
        }]}});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .with_context(|| format!("changing the conditions of node {name}"))?;
        Ok(())
    }

    /// Takes a node away for good: its power, and its object. Its name stays used.
    pub async fn remove_node(&self, name: &str) -> Result<()> {
        self.kill_node(name).await?;
        let nodes: Api<Node> = Api::all(self.client());
        nodes
            .delete(name, &Default::default())
            .await
            .with_context(|| format!("deleting node {name}"))?;
        Ok(())
    }

    /// Plugs a node into the second segment; see [`LabConfig::second_segment`](crate::LabConfig).
    pub fn plug_second(&self, name: &str) -> Result<()> {
        let place = self
            .cluster
            .place(name)
            .with_context(|| format!("there is no node {name}"))?;
        topology::plug_second(name, place.machine)
    }

    async fn patch_node(&self, name: &str, patch: &serde_json::Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("changing node {name}"))?;
        Ok(())
    }
}
