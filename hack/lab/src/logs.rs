//! Logs: the last words of every part, and what the API server counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The last lines of every log in a folder.
pub(crate) fn tails(folder: &Path, lines: usize) -> String {
    let mut text = String::new();
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
    {
        let Ok(bytes) = std::fs::read(path) else {
            continue;
        };
        let log = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = log.lines().collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let _ = writeln!(
            text,
            "--- {name}, last {} of {} lines",
            all.len().min(lines),
            all.len()
        );
        for line in &all[all.len().saturating_sub(lines)..] {
            let shown: String = line.chars().take(400).collect();
            let _ = writeln!(text, "{shown}");
        }
    }
    let _ = writeln!(text, "--- all logs are in {}", folder.display());
    text
}

/// The last lines of every log of this process's lab.
#[must_use]
pub fn log_tails(lines: usize) -> String {
    tails(&crate::place::logs_dir(), lines)
}

/// Sends this program's own messages to stderr; RUST_LOG says which.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "warn,kube_client=off,kube_runtime=off,l2lb_lab=info".into());
    // A program that has its own subscriber keeps it.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .try_init();
}

/// A request to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who sent it: a program's name and version.
    pub user_agent: String,
    /// As whom.
    pub user: String,
    /// `create`, `update`, `patch`, `delete`, ...
    pub verb: String,
    /// The group of the kind; empty for Kubernetes' first.
    pub group: String,
    /// The kind of object, as in `services` or `services/status`; empty for
    /// a request that is about none.
    pub resource: String,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// It was refused because the user has no right to it.
    pub forbidden: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    #[serde(default)]
    user_agent: String,
    user: User,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
struct ObjectRef {
    #[serde(default, rename = "apiGroup")]
    group: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    subresource: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// Reads the API server's audit log.
pub(crate) fn requests(path: &Path) -> Result<Vec<Request>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading {} (is LabConfig::audit set?)", path.display()))?;
    text.lines()
        .map(|line| {
            let event: Event = serde_json::from_str(line).context("reading the audit log")?;
            let object = event.object_ref.unwrap_or_default();
            let resource = match object.subresource.as_str() {
                "" => object.resource,
                sub => format!("{}/{sub}", object.resource),
            };
            let decision = event.annotations.get("authorization.k8s.io/decision");
            Ok(Request {
                user_agent: event.user_agent,
                user: event.user.username,
                verb: event.verb,
                group: object.group,
                resource,
                namespace: object.namespace,
                name: object.name,
                code: event.response_status.map_or(0, |status| status.code),
                forbidden: decision.is_some_and(|decision| decision == "forbid"),
            })
        })
        .collect()
}
