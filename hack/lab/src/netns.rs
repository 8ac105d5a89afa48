//! Network namespaces: one for each machine of the lab.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::tools;

/// The network namespace of a machine of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// The namespace of the lab's own process: the control plane.
    ControlPlane,
    /// A named one: a node, or the client.
    Named(String),
}

impl Netns {
    /// Runs `f` in this namespace.
    ///
    /// Sockets made and processes started by `f` stay in the namespace. It
    /// runs on a thread of its own, and should be short.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let Netns::Named(name) = self else {
            return Ok(f());
        };
        let path = Path::new("/run/netns").join(name);
        let runtime = tokio::runtime::Handle::try_current().ok();
        std::thread::spawn(move || {
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("entering {}", path.display()))?;
            let _guard = runtime.as_ref().map(tokio::runtime::Handle::enter);
            Ok(f())
        })
        .join()
        .map_err(|_| anyhow!("a thread in a network namespace panicked"))?
    }

    /// Sets kernel parameters, given as paths below /proc/sys.
    pub(crate) fn sysctl(&self, values: &'static [(&'static str, &'static str)]) -> Result<()> {
        self.run(move || {
            for (name, value) in values {
                let path = Path::new("/proc/sys").join(name);
                // Without IPv6 in the kernel there is nothing to set.
                if !path.exists() && name.starts_with("net/ipv6") {
                    continue;
                }
                std::fs::write(&path, value)
                    .with_context(|| format!("setting {name} to {value}"))?;
            }
            Ok(())
        })?
    }

    /// Runs `ip` commands, one a line, in this namespace.
    pub(crate) fn ip(&self, script: &str) -> Result<()> {
        let program = tools::on_path("ip").context("ip is missing")?;
        let mut command = Command::new(program);
        if let Netns::Named(name) = self {
            command.args(["-n", name]);
        }
        let mut child = command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting ip")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(script.as_bytes())
                .context("writing to ip")?;
        }
        let output = child.wait_with_output().context("waiting for ip")?;
        if !output.status.success() {
            bail!(
                "ip refused:\n{script}\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}
