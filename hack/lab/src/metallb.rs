//! MetalLB, installed by its own chart.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::kubectl::Kubectl;
use crate::lab::{Image, Lab};
use crate::place;

/// MetalLB's namespace.
pub const NAMESPACE: &str = "metallb-system";
const VALUES: &str = include_str!("metallb-values.yaml");

/// The component of `hack/tools` with a version of MetalLB.
pub(crate) fn component(version: &str) -> String {
    format!("metallb-{version}")
}

/// The file with a version's definition of L2Advertisement.
pub(crate) fn l2_advertisement(version: &str) -> PathBuf {
    place::tool_dir(&component(version)).join("crds/metallb.io_l2advertisements.yaml")
}

/// The images of the chart. Their tags are told apart, for upgrades.
pub(crate) fn images(version: &str) -> Vec<Image> {
    ["controller", "speaker"]
        .map(|program| Image {
            repository: format!("quay.io/metallb/{program}:v{version}"),
            program: place::tool(&component(version), program),
            root: None,
        })
        .to_vec()
}

/// Renders the chart, with more values over the lab's.
pub(crate) async fn render(version: &str, more: Option<&str>) -> Result<String> {
    let values = std::path::Path::new(place::RUN).join("metallb-values.yaml");
    std::fs::write(&values, VALUES).context("writing MetalLB's values")?;
    let over = std::path::Path::new(place::RUN).join("metallb-more-values.yaml");
    std::fs::write(&over, more.unwrap_or_default()).context("writing more of them")?;
    let output = tokio::process::Command::new(place::tool("helm", "helm"))
        .args(["template", "metallb"])
        .arg(place::tool_dir(&component(version)).join("chart"))
        .args([
            "--namespace",
            NAMESPACE,
            "--include-crds",
            "--kube-version",
            "v1.37.1",
            "--values",
        ])
        .arg(values)
        .arg("--values")
        .arg(over)
        .env("HOME", place::RUN)
        .stdin(Stdio::null())
        .output()
        .await
        .context("running helm")?;
    if !output.status.success() {
        bail!(
            "helm template: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("reading what helm rendered")
}

impl Lab {
    /// Installs another version of MetalLB over the one that runs, one of
    /// those that [`LabConfig::metallb_later`](crate::LabConfig::metallb_later)
    /// names, and waits until its controller and all its speakers have been
    /// replaced.
    pub async fn install_metallb(&self, version: &str) -> Result<()> {
        let rendered = render(version, None).await?;
        self.kubectl().apply(&rendered).await?;
        let namespace = format!("--namespace={NAMESPACE}");
        for workload in ["deployment/metallb-controller", "daemonset/metallb-speaker"] {
            let wait = "--timeout=120s";
            self.kubectl()
                .run(["rollout", "status", &namespace, wait, workload])
                .await?;
        }
        Ok(())
    }

    /// Creates or replaces the resource definitions of a version of MetalLB,
    /// and nothing else of it.
    pub async fn install_metallb_definitions(&self, version: &str) -> Result<()> {
        let rendered = render(version, None).await?;
        let definitions: Vec<&str> = rendered
            .split("\n---")
            .filter(|document| document.contains("kind: CustomResourceDefinition"))
            .collect();
        self.kubectl().apply(&definitions.join("\n---\n")).await
    }
}

/// Applies a rendered chart.
pub(crate) async fn install(kubectl: &Kubectl, rendered: &str) -> Result<()> {
    create_namespace(kubectl).await?;
    kubectl.apply(rendered).await
}

/// Creates the CRDs alone, and waits until they can be used.
pub(crate) async fn install_crds(client: &Client, version: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))
        .context("describing MetalLB's namespace")?;
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .context("creating MetalLB's namespace")?;
    let folder = place::tool_dir(&component(version)).join("crds");
    let mut files = Vec::new();
    for entry in
        std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?
    {
        files.push(
            entry
                .with_context(|| format!("reading {}", folder.display()))?
                .path(),
        );
    }
    let created = files.iter().map(|path| create_crd(client, path));
    futures::future::try_join_all(created).await?;
    Ok(())
}

async fn create_crd(client: &Client, path: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let crd: CustomResourceDefinition =
        serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd.name_any();
    crds.create(&PostParams::default(), &crd)
        .await
        .with_context(|| format!("creating CRD {name}"))?;
    let established = conditions::is_crd_established();
    let wait = await_condition(crds, &name, established);
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .with_context(|| format!("CRD {name} is not established after 30 s"))?
        .with_context(|| format!("watching CRD {name}"))?;
    Ok(())
}

async fn create_namespace(kubectl: &Kubectl) -> Result<()> {
    kubectl
        .apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
                .to_string(),
        )
        .await
}

/// Waits until the controller's webhook answers and every node has a speaker.
pub(crate) async fn wait_until_ready(client: &Client, nodes: usize) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut last;
    loop {
        match ready(client, nodes).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
        if Instant::now() > deadline {
            return Err(last).context("MetalLB is not ready after 90 s");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ready(client: &Client, nodes: usize) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let status = deployments
        .get_status("metallb-controller")
        .await?
        .status
        .unwrap_or_default();
    if status.available_replicas.unwrap_or_default() < 1 {
        bail!("its controller is not available");
    }
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let status = sets
        .get_status("metallb-speaker")
        .await?
        .status
        .unwrap_or_default();
    if usize::try_from(status.number_ready).unwrap_or_default() < nodes {
        bail!("{} of {nodes} speakers are ready", status.number_ready);
    }
    let kind = GroupVersionKind::gvk("metallb.io", "v1beta1", "IPAddressPool");
    let resource = ApiResource::from_gvk_with_plural(&kind, "ipaddresspools");
    let pools: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let pool = DynamicObject::new("lab-probe", &resource)
        .within(NAMESPACE)
        .data(json!({"spec": {"addresses": ["203.0.113.255/32"]}}));
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    pools
        .create(&dry_run, &pool)
        .await
        .context("asking its webhook")?;
    Ok(())
}
