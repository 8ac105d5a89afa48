//! helm, as the administrator, and the product's chart.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::process::Command;

use crate::lab::Lab;
use crate::{place, topology};

/// The webhook's Service and account, as the chart names them.
const WEBHOOK: &str = "l2lb-webhook";
/// Where the tests have the chart's release.
const WEBHOOK_NAMESPACE: &str = "l2lb-system";

impl Lab {
    /// The product's chart.
    #[must_use]
    pub fn chart() -> PathBuf {
        place::workspace().join("charts/l2lb")
    }

    /// Runs helm, and returns its output. [`LabConfig::tools`](crate::LabConfig::tools)
    /// must name it, unless MetalLB runs.
    pub async fn helm<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.tool("helm", "helm", args).await
    }

    /// Runs a program of a folder of `hack/tools`, in the repository and with
    /// the administrator's rights, and returns its output.
    pub async fn tool<S: AsRef<OsStr>>(
        &self,
        component: &str,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let mut command = Command::new(place::tool(component, program));
        command
            .args(args)
            .current_dir(place::workspace())
            .env("KUBECONFIG", place::KUBECONFIG)
            .env("HOME", place::RUN)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let said = format!("{:?}", command.as_std().get_args().collect::<Vec<_>>());
        let output = command
            .output()
            .await
            .with_context(|| format!("running {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {said}: {}\n{text}", errors.trim());
        }
        Ok(text)
    }

    /// The manifests of the product's chart as release `l2lb` in namespace
    /// `l2lb-system`, with more flags of `helm template`.
    pub async fn render_chart(&self, flags: &[&str]) -> Result<String> {
        let chart = Self::chart();
        let chart = chart.to_string_lossy();
        // A helm that was built without a release's flags claims an old one.
        let namespace = format!("--namespace={WEBHOOK_NAMESPACE}");
        let kubernetes = "--kube-version=v1.33.0";
        let args = ["template", "l2lb", &chart, kubernetes, &namespace];
        self.helm(args.iter().chain(flags)).await
    }

    /// Applies some templates of the product's chart, by their paths.
    pub async fn apply_templates(&self, templates: &[&str]) -> Result<()> {
        let flags: Vec<String> = templates
            .iter()
            .map(|template| format!("--show-only=templates/{template}"))
            .collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let manifests = self.render_chart(&flags).await?;
        self.apply(&manifests).await
    }

    /// Has the API server call webhooks that listen in the control plane's
    /// namespace, one on each of some ports, with the certificate, the rights
    /// and the configurations that the chart makes. Returns the kubeconfig of
    /// their account.
    pub async fn register_webhooks(&self, ports: &[u16]) -> Result<PathBuf> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": WEBHOOK_NAMESPACE}});
        self.apply(&namespace.to_string()).await?;
        self.apply_templates(&[
            "webhook/rbac.yaml",
            "webhook/certificate.yaml",
            "webhook/configurations.yaml",
        ])
        .await?;
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": WEBHOOK, "namespace": WEBHOOK_NAMESPACE},
            "spec": {"ports": [{"name": "https", "port": 443}]}});
        self.apply(&service.to_string()).await?;
        for port in ports {
            let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": format!("{WEBHOOK}-{port}"), "namespace": WEBHOOK_NAMESPACE,
                    "labels": {"kubernetes.io/service-name": WEBHOOK}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [topology::CONTROL_PLANE],
                    "conditions": {"ready": true}}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
            self.apply(&slice.to_string()).await?;
        }
        // The API server of Kubernetes 1.33 looks for a webhook here.
        let subsets = ports.iter().map(|port| {
            json!({"addresses": [{"ip": topology::CONTROL_PLANE}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
        });
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": WEBHOOK, "namespace": WEBHOOK_NAMESPACE,
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": subsets.collect::<Vec<_>>()});
        self.apply(&endpoints.to_string()).await?;
        self.kubeconfig_of(WEBHOOK_NAMESPACE, WEBHOOK).await
    }
}
