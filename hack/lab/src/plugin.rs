//! The product's plugin, `kubectl-l2lb`, as the administrator.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::Instant;

use crate::lab::Lab;
use crate::place;

/// How long a cluster may take to be as `check` wants it: what announces an
/// address is told a moment after it does.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `check` says that it could not look at where kube-proxy is no pod.
const KUBE_PROXY: &str = "strictARP of kube-proxy";

impl Lab {
    /// A command of the plugin, with the administrator's kubeconfig.
    ///
    /// # Errors
    /// That it is not built.
    pub fn plugin_command(&self) -> Result<Command> {
        let mut command = Command::new(program()?);
        command
            .env("KUBECONFIG", place::KUBECONFIG)
            .env("HOME", place::RUN)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs the plugin; its exit code, and all that it printed.
    ///
    /// # Errors
    /// That it could not be run, or was killed.
    pub async fn plugin<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<(i32, String)> {
        let output = self
            .plugin_command()?
            .args(args)
            .output()
            .await
            .context("running kubectl-l2lb")?;
        let code = output.status.code().context("kubectl-l2lb was killed")?;
        let text = [output.stdout, output.stderr].concat();
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Waits until `kubectl l2lb check` finds nothing, not even something to
    /// be warned of, and could look everywhere but at kube-proxy's ConfigMap,
    /// which the lab has not.
    ///
    /// # Errors
    /// What it finds when patience ends.
    pub async fn ensure_check_finds_nothing(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let (code, text) = self.plugin(["check", "-o", "json"]).await?;
            let report: serde_json::Value =
                serde_json::from_str(&text).with_context(|| format!("check says {text}"))?;
            let list = |part: &str| report[part].as_array().cloned().unwrap_or_default();
            let unread = list("notLookedAt");
            let mut unread = unread.iter().filter(|u| u["what"] != KUBE_PROXY);
            let is_report = report["findings"].is_array();
            if code == 0 && is_report && list("findings").is_empty() && unread.next().is_none() {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "check ends with {code}: {text}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The plugin that was built with this program; tests are in a folder below.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let folders = own.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join("kubectl-l2lb"))
        .find(|path| path.is_file());
    found.context("kubectl-l2lb is not built: cargo build --workspace --bins")
}
