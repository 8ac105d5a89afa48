//! kubectl, as the administrator.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::place;

/// Runs kubectl in the lab.
#[derive(Debug, Clone, Default)]
pub struct Kubectl(());

impl Kubectl {
    /// Runs it, and returns its output.
    pub async fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.run_with_input(args, "").await
    }

    /// Applies YAML or JSON by server-side apply.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.run_with_input(
            ["apply", "--server-side", "--force-conflicts", "-f", "-"],
            manifests,
        )
        .await?;
        Ok(())
    }

    async fn run_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Result<String> {
        let mut command = Command::new(place::tool("kubernetes", "kubectl"));
        command
            .args(args)
            .env("KUBECONFIG", place::KUBECONFIG)
            .env("HOME", place::RUN);
        let said = format!("{:?}", command.as_std().get_args().collect::<Vec<_>>());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(input.as_bytes())
                .await
                .context("writing to kubectl")?;
        }
        let output = child
            .wait_with_output()
            .await
            .context("waiting for kubectl")?;
        if !output.status.success() {
            bail!(
                "kubectl {said}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
