//! A lab: the whole cluster as one value.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Client;
use kube::api::Api;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::{CONTROL_PLANE_NODE, Cluster};
use crate::kubectl::Kubectl;
use crate::kubelet::{self, Order};
use crate::netns::Netns;
use crate::process::Process;
use crate::segment::Segment;
use crate::topology::{self, Machine};
use crate::{control_plane, enter, logs, metallb, node, place, sandbox};

/// The version of MetalLB that labs use unless told otherwise.
pub const METALLB: &str = "0.16.2";
/// Every MetalLB that can be built, oldest first.
pub const METALLB_VERSIONS: [&str; 6] =
    ["0.13.12", "0.14.8", "0.14.9", "0.15.2", "0.16.1", METALLB];

/// What a lab consists of.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// How many nodes, called `node-1`, `node-2` and so on.
    pub nodes: u8,
    /// The version of MetalLB, a `metallb-VERSION` folder of `hack/tools`.
    pub metallb: Option<String>,
    /// Values for MetalLB's chart, over those of the lab.
    pub metallb_values: Option<String>,
    /// A version of MetalLB whose definition of L2Advertisement is installed
    /// over that of the chart: its speakers are of another version then.
    pub l2_advertisement_of: Option<String>,
    /// A second segment, on which the client and those nodes have `eth1` that
    /// [`Lab::plug_second`] plugs in.
    pub second_segment: bool,
    /// Other versions that [`Lab::install_metallb`] may install later.
    pub metallb_later: Vec<String>,
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
    /// Users whose reads are in that log, too, for [`Lab::requests`]; a
    /// ServiceAccount's name is `system:serviceaccount:NAMESPACE:NAME`.
    pub audit_reads_of: Vec<String>,
    /// Admission plugins of the API server, besides those that are on anyway.
    pub admission_plugins: Vec<String>,
    /// What images stand for, besides MetalLB's.
    pub images: Vec<Image>,
    /// More folders of `hack/tools` with programs that are needed.
    pub tools: Vec<String>,
}

/// A program that pods with an image run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's name; without a tag it is for every tag.
    pub repository: String,
    /// The file to run; of an unpacked image, its path in it.
    pub program: PathBuf,
    /// The folder that the image is unpacked in, once a pod wants it: then a
    /// container sees this alone, as the user that its pod names. Without it
    /// containers see the machine's libraries.
    pub root: Option<PathBuf>,
}

impl Default for LabConfig {
    /// Three nodes with MetalLB.
    fn default() -> Self {
        Self {
            nodes: 3,
            metallb: Some(METALLB.into()),
            metallb_values: None,
            l2_advertisement_of: None,
            second_segment: false,
            metallb_later: Vec::new(),
            metallb_crds_only: false,
            dual_stack: false,
            controller_manager: true,
            node_monitor_grace: Duration::from_secs(10),
            audit: false,
            audit_reads_of: Vec::new(),
            admission_plugins: Vec::new(),
            images: Vec::new(),
            tools: Vec::new(),
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
        all.extend(self.metallb_later.iter().map(|v| metallb::component(v)));
        if let Some(version) = &self.metallb {
            all.push(metallb::component(version));
            if !self.metallb_crds_only {
                all.push("helm".into());
            }
            if let Some(other) = &self.l2_advertisement_of {
                all.push(metallb::component(other));
            }
        }
        all.extend(self.tools.iter().cloned());
        all
    }

    fn with_nodes(&self) -> bool {
        self.nodes > 0 || (self.metallb.is_some() && !self.metallb_crds_only)
    }
}

/// A running cluster.
pub struct Lab {
    pub(crate) config: LabConfig,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) segment: Segment,
    pub(crate) second: Option<Segment>,
    pub(crate) orders: mpsc::Sender<Order>,
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
        if config.second_segment {
            topology::create_second()?;
        }
        let chart = async {
            match &config.metallb {
                Some(version) if !config.metallb_crds_only => {
                    metallb::render(version, config.metallb_values.as_deref())
                        .await
                        .map(Some)
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
        for version in config.metallb.iter().chain(&config.metallb_later) {
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
        let second = if config.second_segment {
            Some(Segment::open(topology::SECOND)?)
        } else {
            None
        };
        let lab = Self {
            config,
            cluster,
            segment: Segment::open(topology::FIRST)?,
            second,
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
                let name = CONTROL_PLANE_NODE;
                node::register(&self.cluster, name, name, Machine(0)).await?;
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
                if let Some(other) = &self.config.l2_advertisement_of {
                    self.apply_file(metallb::l2_advertisement(other)).await?;
                }
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

    /// Installs the product's resource definitions, and waits until all that
    /// there are have been established.
    pub async fn install_product_crds(&self) -> Result<()> {
        for crd in ["l2addresspools", "l2loadbalancers"] {
            self.apply_file(place::workspace().join(format!("crds/{crd}.l2lb.io.yaml")))
                .await?;
        }
        self.kubectl()
            .run([
                "wait",
                "--for=condition=Established",
                "crd",
                "--all",
                "--timeout=30s",
            ])
            .await?;
        Ok(())
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
    pub fn writes(&self) -> Result<Vec<logs::Request>> {
        let mut requests = self.requests()?;
        requests.retain(|request| !["get", "list", "watch"].contains(&request.verb.as_str()));
        Ok(requests)
    }

    /// Requests that wrote something, and all of those users that
    /// [`LabConfig::audit_reads_of`] names.
    pub fn requests(&self) -> Result<Vec<logs::Request>> {
        logs::requests(&control_plane::audit_log(&self.cluster.logs))
    }

    /// Ends the lab. What dropping it leaves ends with the process.
    pub async fn down(mut self) {
        self.tasks.shutdown().await;
        for process in self.control_plane.drain(..) {
            process.kill().await;
        }
    }
}
