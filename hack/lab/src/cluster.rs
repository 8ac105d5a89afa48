//! What the parts of a lab share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use kube::Client;

use crate::lab::Image;
use crate::netns::Netns;
use crate::process::Process;
use crate::topology::{Mac, Machine};

/// The name of the control plane's own Node.
pub(crate) const CONTROL_PLANE_NODE: &str = "control-plane";

/// What the parts of a lab share.
pub(crate) struct Cluster {
    pub client: Client,
    pub dual_stack: bool,
    pub logs: PathBuf,
    pub images: Vec<Image>,
    nodes: Mutex<BTreeMap<String, Machinery>>,
}

/// A node as the lab sees it.
pub(crate) struct Machinery {
    pub machine: Machine,
    pub netns: Netns,
    /// Whether it has power.
    pub powered: bool,
    /// Its kubelet has stopped, while everything else goes on.
    pub silent: bool,
    pub kube_proxy: Option<Process>,
    pods: u8,
}

/// A node's place in the network.
#[derive(Clone)]
pub(crate) struct Place {
    pub machine: Machine,
    pub netns: Netns,
    pub powered: bool,
}

impl Cluster {
    pub fn new(client: Client, dual_stack: bool, logs: PathBuf, images: Vec<Image>) -> Self {
        Self {
            client,
            dual_stack,
            logs,
            images,
            nodes: Mutex::default(),
        }
    }

    pub fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Machinery>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a node.
    pub fn insert(&self, name: &str, machine: Machine, netns: Netns) {
        let machinery = Machinery {
            machine,
            netns,
            powered: true,
            silent: false,
            kube_proxy: None,
            pods: 0,
        };
        self.nodes().insert(name.to_owned(), machinery);
    }

    pub fn place(&self, node: &str) -> Option<Place> {
        self.nodes().get(node).map(|n| Place {
            machine: n.machine,
            netns: n.netns.clone(),
            powered: n.powered,
        })
    }

    /// A number for another pod of a node.
    pub fn next_pod(&self, node: &str) -> Result<u8> {
        let mut nodes = self.nodes();
        let node = nodes
            .get_mut(node)
            .with_context(|| format!("there is no node {node}"))?;
        node.pods = node.pods % 250 + 1;
        Ok(node.pods)
    }

    /// The node that a MAC address belongs to.
    pub fn node_of(&self, mac: Mac) -> Option<String> {
        self.nodes()
            .iter()
            .find(|(_, n)| n.machine.mac() == mac || n.machine.second_mac() == mac)
            .map(|(name, _)| name.clone())
    }
}
