//! MetalLB, installed by its own chart.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::json;

use crate::kubectl::Kubectl;
use crate::lab::Image;
use crate::place;

/// MetalLB's namespace.
pub const NAMESPACE: &str = "metallb-system";
const VALUES: &str = include_str!("metallb-values.yaml");

/// The component of `hack/tools` with a version of MetalLB.
pub(crate) fn component(version: &str) -> String {
    format!("metallb-{version}")
}

/// The images of the chart.
pub(crate) fn images(version: &str) -> Vec<Image> {
    ["controller", "speaker"]
        .map(|program| Image {
            repository: format!("quay.io/metallb/{program}"),
            program: place::tool(&component(version), program),
        })
        .to_vec()
}

/// Renders the chart.
pub(crate) async fn render(version: &str) -> Result<String> {
    let values = std::path::Path::new(place::RUN).join("metallb-values.yaml");
    std::fs::write(&values, VALUES).context("writing MetalLB's values")?;
    let output = tokio::process::Command::new(place::tool("helm", "helm"))
        .args(["template", "metallb"])
        .arg(place::tool_dir(&component(version)).join("chart"))
        .args(["--namespace", NAMESPACE, "--include-crds", "--kube-version", "v1.37.1", "--values"])
        .arg(values)
        .env("HOME", place::RUN)
        .stdin(Stdio::null())
        .output()
        .await
        .context("running helm")?;
    if !output.status.success() {
        bail!("helm template: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("reading what helm rendered")
}

/// Applies a rendered chart.
pub(crate) async fn install(kubectl: &Kubectl, rendered: &str) -> Result<()> {
    create_namespace(kubectl).await?;
    kubectl.apply(rendered).await
}

/// Applies the CRDs alone.
pub(crate) async fn install_crds(kubectl: &Kubectl, version: &str) -> Result<()> {
    create_namespace(kubectl).await?;
    let folder = place::tool_dir(&component(version)).join("crds");
    kubectl.run(["apply", "--server-side", "-f", &folder.display().to_string()]).await?;
    kubectl.run(["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
    Ok(())
}

async fn create_namespace(kubectl: &Kubectl) -> Result<()> {
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}).to_string()).await
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
    let status = deployments.get_status("metallb-controller").await?.status.unwrap_or_default();
    if status.available_replicas.unwrap_or_default() < 1 {
        bail!("its controller is not available");
    }
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let status = sets.get_status("metallb-speaker").await?.status.unwrap_or_default();
    if usize::try_from(status.number_ready).unwrap_or_default() < nodes {
        bail!("{} of {nodes} speakers are ready", status.number_ready);
    }
    let kind = GroupVersionKind::gvk("metallb.io", "v1beta1", "IPAddressPool");
    let resource = ApiResource::from_gvk_with_plural(&kind, "ipaddresspools");
    let pools: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let pool = DynamicObject::new("lab-probe", &resource)
        .within(NAMESPACE)
        .data(json!({"spec": {"addresses": ["203.0.113.255/32"]}}));
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pools.create(&dry_run, &pool).await.context("asking its webhook")?;
    Ok(())
}
