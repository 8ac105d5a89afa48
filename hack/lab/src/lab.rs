//! A lab: the whole cluster as one value.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::cluster::{CONTROL_PLANE_NODE, Cluster};
use crate::kubectl::Kubectl;
use crate::kubelet::{self, Order};
use crate::netns::Netns;
use crate::probe::Probe;
use crate::process::{Process, Spec};
use crate::segment::{Answer, Segment};
use crate::topology::{self, CLIENT, MAX_NODES, Machine};
use crate::{control_plane, enter, http, logs, metallb, node, place, sandbox};

/// The version of MetalLB that labs use unless told otherwise.
pub const METALLB: &str = "0.16.2";

/// What a lab consists of.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// How many nodes, called `node-1`, `node-2` and so on.
    pub nodes: u8,
    /// The version of MetalLB, a `metallb-VERSION` folder of `hack/tools`.
    pub metallb: Option<String>,
    /// Only MetalLB's CRDs, without MetalLB.
    pub metallb_crds_only: bool,
    /// IPv6 besides IPv4.
    pub dual_stack: bool,
    /// Whether kube-controller-manager runs; nodes need it.
    pub controller_manager: bool,
    /// How long a node may be silent before Kubernetes calls it unreachable.
    pub node_monitor_grace: Duration,
    /// Whether the API server keeps a log of what is written, for
    /// [`Lab::writes`].
    pub audit: bool,
    /// What images stand for, besides MetalLB's.
    pub images: Vec<Image>,
}

/// A program that pods with an image run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's name without a tag.
    pub repository: String,
    /// The file to run.
    pub program: PathBuf,
}

impl Default for LabConfig {
    /// Three nodes with MetalLB.
    fn default() -> Self {
        Self {
            nodes: 3,
            metallb: Some(METALLB.into()),
            metallb_crds_only: false,
            dual_stack: false,
            controller_manager: true,
            node_monitor_grace: Duration::from_secs(10),
            audit: false,
            images: Vec::new(),
        }
    }
}

impl LabConfig {
    /// An API server with MetalLB's CRDs and nothing else: up in seconds.
    #[must_use]
    pub fn api_only() -> Self {
        Self {
            nodes: 0,
            metallb_crds_only: true,
            controller_manager: false,
            audit: true,
            ..Self::default()
        }
    }

    /// The folders of `hack/tools` that it needs.
    #[must_use]
    pub fn components(&self) -> Vec<String> {
        let mut all = vec!["kubernetes".to_owned()];
        if let Some(version) = &self.metallb {
            all.push(metallb::component(version));
            if !self.metallb_crds_only {
                all.push("helm".into());
            }
        }
        all
    }

    fn with_nodes(&self) -> bool {
        self.nodes > 0 || (self.metallb.is_some() && !self.metallb_crds_only)
    }
}

/// A running cluster.
pub struct Lab {
    config: LabConfig,
    cluster: Arc<Cluster>,
    segment: Segment,
    orders: mpsc::Sender<Order>,
    control_plane: Vec<Process>,
    tasks: JoinSet<()>,
}

impl Lab {
    /// Brings a lab up; the program must have called [`enter`](crate::enter()).
    pub async fn up(config: LabConfig) -> Result<Self> {
        if !enter::is_inside() {
            bail!("call l2lb_lab::enter before Lab::up");
        }
        let logs = place::logs_dir();
        topology::create(config.dual_stack)?;
        let chart = async {
            match &config.metallb {
                Some(version) if !config.metallb_crds_only => {
                    metallb::render(version).await.map(Some)
                }
                _ => Ok(None),
            }
        };
        let (chart, control_plane) = tokio::join!(chart, control_plane::start(&config, &logs));
        let (chart, control_plane) = (chart?, control_plane?);
        let mut processes = control_plane.processes;
        if config.controller_manager {
            processes.push(control_plane::start_controller_manager(&config, &logs)?);
        }

        let mut images = config.images.clone();
        if let Some(version) = &config.metallb {
            images.extend(metallb::images(version));
        }
        let cluster = Arc::new(Cluster::new(
            control_plane.client,
            config.dual_stack,
            logs,
            images,
        ));
        let (orders, receiver) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        if config.with_nodes() {
            tasks.spawn(kubelet::run(cluster.clone(), receiver));
            tasks.spawn(node::heartbeats(cluster.clone()));
        }
        let lab = Self {
            config,
            cluster,
            segment: Segment::open()?,
            orders,
            control_plane: processes,
            tasks,
        };
        lab.fill(chart.as_deref()).await?;
        Ok(lab)
    }

    /// Adds nodes and MetalLB to a control plane.
    async fn fill(&self, chart: Option<&str>) -> Result<()> {
        self.wait_for_namespaces().await?;
        if self.config.with_nodes() {
            self.cluster
                .insert(CONTROL_PLANE_NODE, Machine(0), Netns::ControlPlane);
            let nodes = async {
                node::register(&self.cluster, CONTROL_PLANE_NODE, Machine(0)).await?;
                for _ in 0..self.config.nodes {
                    self.add_node().await?;
                }
                Ok(())
            };
            let install = async {
                match chart {
                    Some(chart) => metallb::install(&self.kubectl(), chart).await,
                    None => Ok(()),
                }
            };
            let (nodes, install): (Result<()>, _) = tokio::join!(nodes, install);
            nodes?;
            install?;
            if chart.is_some() {
                metallb::wait_until_ready(&self.cluster.client, self.config.nodes.into()).await?;
            }
        }
        if let (Some(version), true) = (&self.config.metallb, self.config.metallb_crds_only) {
            metallb::install_crds(&self.cluster.client, version).await?;
        }
        Ok(())
    }

    async fn wait_for_namespaces(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        let wanted: &[&str] = if self.config.with_nodes() {
            &["default", "kube-node-lease"]
        } else {
            &["default"]
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        for name in wanted {
            while namespaces
                .get_opt(name)
                .await
                .context("looking for Kubernetes' namespaces")?
                .is_none()
            {
                if Instant::now() > deadline {
                    bail!("the API server has not made namespace {name} after 30 s");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// What the lab was brought up with.
    #[must_use]
    pub fn config(&self) -> &LabConfig {
        &self.config
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        PathBuf::from(place::KUBECONFIG)
    }

    /// A client with the administrator's rights.
    #[must_use]
    pub fn client(&self) -> Client {
        self.cluster.client.clone()
    }

    /// kubectl with the administrator's rights.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::default()
    }

    /// Applies the objects of a file by server-side apply.
    pub async fn apply_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        self.apply(&text).await
    }

    /// Applies YAML or JSON by server-side apply.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl().apply(manifests).await
    }

    /// Writes a kubeconfig with the rights of a ServiceAccount.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        accounts
            .get(account)
            .await
            .with_context(|| format!("looking for ServiceAccount {namespace}/{account}"))?;
        let token = sandbox::token(&self.cluster, namespace, account).await?;
        let path = Path::new(place::RUN).join(format!("kubeconfig-{namespace}-{account}"));
        control_plane::write_kubeconfig(&path, &token)?;
        Ok(path)
    }

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

    /// Adds a node with a name.
    pub async fn add_node_named(&self, name: &str) -> Result<()> {
        if self.cluster.place(name).is_some() {
            bail!("there is a node {name} already");
        }
        let machine = Machine(self.next_machine()?);
        let netns = topology::add_node(name, machine, self.config.dual_stack)?;
        self.cluster.insert(name, machine, netns.clone());
        node::register(&self.cluster, name, machine).await?;
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

    async fn patch_node(&self, name: &str, patch: &serde_json::Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("changing node {name}"))?;
        Ok(())
    }

    /// All different answers to an ARP request (or neighbour solicitation)
    /// for an address, as the client hears them.
    pub async fn answers(&self, address: IpAddr, timeout: Duration) -> Result<Vec<Answer>> {
        self.segment.ask(address, timeout).await
    }

    /// The node that answers ARP (or NDP) for an address, if any does within
    /// half a second; an error if two do.
    pub async fn who_answers(&self, address: IpAddr) -> Result<Option<String>> {
        let answers = self.answers(address, Duration::from_millis(500)).await?;
        let names: Vec<String> = answers
            .iter()
            .map(|answer| {
                self.cluster
                    .node_of(answer.mac)
                    .unwrap_or_else(|| answer.mac.to_string())
            })
            .collect();
        match names.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => bail!("{} all answer for {address}", several.join(" and ")),
        }
    }

    /// Waits until exactly the named node answers for an address; says how
    /// long it took.
    pub async fn wait_for_answer(
        &self,
        address: IpAddr,
        node: &str,
        timeout: Duration,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let found = match self.who_answers(address).await {
                Ok(Some(name)) if name == node => return Ok(start.elapsed()),
                Ok(Some(name)) => name,
                Ok(None) => "nobody".into(),
                Err(error) => format!("{error:#}"),
            };
            if start.elapsed() > timeout {
                bail!("{node} does not answer for {address} after {timeout:?}: {found}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Requests `/` from the client, over a new connection. The backends
    /// answer with the names of their node and pod and the client's address.
    pub async fn http_get(&self, address: IpAddr, port: u16) -> Result<http::Response> {
        let client = Netns::Named(CLIENT.into());
        http::get(
            &client,
            SocketAddr::new(address, port),
            "/",
            Duration::from_secs(2),
        )
        .await
    }

    /// Requests `/` from the client again and again until it answers 200:
    /// kube-proxy learns of a Service some time after MetalLB does.
    pub async fn wait_for_http(
        &self,
        address: IpAddr,
        port: u16,
        timeout: Duration,
    ) -> Result<http::Response> {
        let start = Instant::now();
        let client = Netns::Named(CLIENT.into());
        let mut last = anyhow::anyhow!("there was no attempt");
        while start.elapsed() < timeout {
            let attempt = Duration::from_millis(500);
            match http::get(&client, SocketAddr::new(address, port), "/", attempt).await {
                Ok(response) if response.status == 200 => return Ok(response),
                Ok(response) => last = anyhow::anyhow!("it answers {response:?}"),
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(last).with_context(|| format!("no HTTP through {address} after {timeout:?}"))
    }

    /// Watches addresses from the client, each once an interval.
    #[must_use]
    pub fn probe(&self, targets: Vec<SocketAddr>, interval: Duration) -> Probe {
        Probe::start(&self.cluster, &self.segment, targets, interval)
    }

    /// Runs an HTTP server on every node, as a DaemonSet with the labels
    /// `app: NAME`, and waits until all are ready.
    pub async fn deploy_backend(&self, namespace: &str, name: &str, port: u16) -> Result<()> {
        let labels = json!({"app": name});
        let set = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{
                        "name": "http", "image": crate::pod::BACKEND_IMAGE,
                        "ports": [{"containerPort": port}],
                    }]},
                },
            },
        });
        self.apply(&set.to_string()).await?;
        let namespace = format!("--namespace={namespace}");
        let set = format!("daemonset/{name}");
        self.kubectl()
            .run(["rollout", "status", &namespace, "--timeout=30s", &set])
            .await?;
        Ok(())
    }

    /// Starts a program of the product in the control plane's namespace,
    /// with KUBECONFIG set; its output goes to `NAME.log`.
    pub fn start(&self, spec: Spec) -> Result<Process> {
        let spec = if spec.env.iter().any(|(name, _)| name == "KUBECONFIG") {
            spec
        } else {
            spec.env("KUBECONFIG", place::KUBECONFIG)
        };
        Process::start(&Netns::ControlPlane, &spec, &self.cluster.logs)
    }

    /// Runs a command on a node, or, if none is named, on the client outside
    /// the cluster, and returns its output.
    pub async fn exec<S: AsRef<OsStr>>(&self, node: Option<&str>, command: &[S]) -> Result<String> {
        let netns = match node {
            Some(name) => {
                self.cluster
                    .place(name)
                    .with_context(|| format!("there is no node {name}"))?
                    .netns
            }
            None => Netns::Named(CLIENT.into()),
        };
        let words: Vec<_> = command
            .iter()
            .map(|word| word.as_ref().to_owned())
            .collect();
        let output = netns
            .run(move || -> Result<_> {
                let (program, args) = words.split_first().context("there is no command")?;
                let mut command = tokio::process::Command::new(program);
                command
                    .args(args)
                    .env("PATH", crate::process::search_path())
                    .env("KUBECONFIG", place::KUBECONFIG);
                Ok(command.output())
            })??
            .await
            .context("running a command")?;
        if !output.status.success() {
            bail!(
                "the command failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The environment of commands that people run in a lab: KUBECONFIG, and
    /// a PATH with kubectl, helm and the programs of this repository.
    #[must_use]
    pub fn environment() -> Vec<(&'static str, OsString)> {
        let mut path = OsString::new();
        for component in ["kubernetes", "helm"] {
            path.push(place::tool_dir(component).join("bin"));
            path.push(":");
        }
        if let Some(folder) = std::env::current_exe()
            .ok()
            .as_deref()
            .and_then(Path::parent)
        {
            path.push(folder);
            path.push(":");
        }
        path.push(crate::process::search_path());
        vec![
            ("PATH", path),
            ("KUBECONFIG", place::KUBECONFIG.into()),
            (place::STATE, place::INNER_STATE.into()),
        ]
    }

    /// Variables by which the parts of a lab talk to each other; commands in
    /// a lab, which may start other labs, must not see them.
    #[must_use]
    pub fn hidden_environment() -> [&'static str; 2] {
        [place::LOGS, crate::tools::FOLDERS]
    }

    /// Where the logs of all programs are.
    #[must_use]
    pub fn logs_dir(&self) -> &Path {
        &self.cluster.logs
    }

    /// The last lines of every log.
    #[must_use]
    pub fn log_tails(&self, lines: usize) -> String {
        logs::tails(&self.cluster.logs, lines)
    }

    /// Requests that wrote something, from the API server's own count; see
    /// [`LabConfig::audit`].
    pub fn writes(&self) -> Result<Vec<logs::Write>> {
        logs::writes(&control_plane::audit_log(&self.cluster.logs))
    }

    /// Ends the lab. What dropping it leaves ends with the process.
    pub async fn down(mut self) {
        self.tasks.shutdown().await;
        for process in self.control_plane.drain(..) {
            process.kill().await;
        }
    }
}
