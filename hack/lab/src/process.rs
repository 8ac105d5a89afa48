//! Programs of the lab, each with a log file.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::netns::Netns;

/// A program to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name, which is also its log's.
    pub name: String,
    /// The file to run.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its environment, besides PATH; nothing else is passed on.
    pub env: Vec<(String, String)>,
}

impl Spec {
    /// A program without arguments and environment.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// A running program; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a program in a network namespace, with its output appended to
    /// `logs/NAME.log`.
    pub fn start(netns: &Netns, spec: &Spec, logs: &Path) -> Result<Self> {
        let path = logs.join(format!("{}.log", spec.name));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        let spec = spec.clone();
        let name = spec.name.clone();
        let child = netns.run(move || -> Result<Child> {
            let errors = log.try_clone().context("sharing the log")?;
            Command::new(&spec.program)
                .args(&spec.args)
                .env_clear()
                .env("PATH", search_path())
                .envs(spec.env)
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors)
                // Ctrl-C is for the program in the foreground.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("starting {} ({})", spec.name, spec.program.display()))
        })??;
        Ok(Self { name, child })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, unless it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends by itself, and says how.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<String> {
        self.child
            .try_wait()
            .ok()
            .flatten()
            .map(|status| status.to_string())
    }

    /// Asks it to end, as Kubernetes does first.
    pub fn terminate(&self) -> Result<()> {
        if let Some(id) = self.child.id() {
            let id = i32::try_from(id).context("a process id")?;
            kill(Pid::from_raw(id), Signal::SIGTERM)
                .with_context(|| format!("asking {} to end", self.name))?;
        }
        Ok(())
    }

    /// Kills it, as a loss of power would.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

/// PATH for programs of the lab: an ordinary user's often lacks `sbin`.
pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
    path
}
