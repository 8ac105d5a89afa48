//! Programs that people and tests run in a lab.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::lab::Lab;
use crate::netns::Netns;
use crate::place;
use crate::process::{Process, Spec};
use crate::topology::CLIENT;

impl Lab {
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
}
