//! The third-party programs, built by `hack/tools/build.sh`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::place;

/// The environment variable that tells the inner process where the components are.
pub(crate) const FOLDERS: &str = "L2LB_LAB_TOOLS";

/// The environment variable that names another release of Kubernetes for
/// labs: VERSION of a folder `hack/tools/kubernetes-VERSION`.
const KUBERNETES: &str = "L2LB_LAB_KUBERNETES";

/// Flags that an older kube-proxy needs besides: nftables was not on by
/// default before 1.31.
pub(crate) fn kube_proxy_flags() -> &'static [&'static str] {
    let version = std::env::var(KUBERNETES).unwrap_or_default();
    match version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse::<u32>().ok())
    {
        Some(..31) => &["--feature-gates=NFTablesProxyMode=true"],
        _ => &[],
    }
}

/// Builds components that are not in the cache yet, showing progress on
/// stderr, and says where each is.
pub fn build(components: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let kubernetes = match std::env::var(KUBERNETES) {
        Ok(version) if !version.is_empty() => format!("kubernetes-{version}"),
        _ => "kubernetes".to_owned(),
    };
    let folders = components.iter().map(|component| match *component {
        "kubernetes" => kubernetes.as_str(),
        other => other,
    });
    let script = place::workspace().join("hack/tools/build.sh");
    let output = Command::new(&script)
        .arg("--print")
        .args(folders)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", script.display()))?;
    if !output.status.success() {
        bail!(
            "hack/tools/build.sh could not provide {}",
            components.join(", ")
        );
    }
    let folders =
        String::from_utf8(output.stdout).context("reading the folders of the programs")?;
    Ok(components
        .iter()
        .map(ToString::to_string)
        .zip(folders.lines().map(PathBuf::from))
        .collect())
}

pub(crate) fn encode(folders: &BTreeMap<String, PathBuf>) -> Result<String> {
    serde_json::to_string(folders).context("encoding the folders of the programs")
}

/// What [`encode`] handed to this process.
pub(crate) fn folders() -> Result<BTreeMap<String, PathBuf>> {
    let text = std::env::var(FOLDERS).context("this process was not started by l2lb_lab::enter")?;
    serde_json::from_str(&text).context("decoding the folders of the programs")
}

/// Finds a program as a shell would, and where distributions keep
/// administrators' programs.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
