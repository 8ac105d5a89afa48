//! Where things are.

use std::path::{Path, PathBuf};

use nix::unistd::getuid;

/// The environment variable that names the folder for logs.
pub(crate) const LOGS: &str = "L2LB_LAB_LOGS";
/// The environment variable that names the folder for control sockets.
pub(crate) const STATE: &str = "L2LB_LAB_STATE";
/// Everything that a lab writes, on a file system that ends with it.
pub(crate) const RUN: &str = "/run/lab";
/// The folder for control sockets, as seen inside a lab.
pub const INNER_STATE: &str = "/run/lab/state";

/// The administrator's kubeconfig, as seen inside a lab.
pub const KUBECONFIG: &str = "/run/lab/kubeconfig";

/// The repository.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Cargo's target folder.
#[must_use]
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// A folder for the logs of a lab that is about to start.
pub(crate) fn new_logs_dir() -> PathBuf {
    match std::env::var_os(LOGS) {
        Some(dir) => PathBuf::from(dir),
        None => target().join("lab").join(std::process::id().to_string()),
    }
}

/// The folder for this lab's logs.
pub(crate) fn logs_dir() -> PathBuf {
    new_logs_dir()
}

/// The folder for the control sockets of this user's labs.
#[must_use]
pub fn state_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os(STATE) {
        return PathBuf::from(dir);
    }
    let base =
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    base.join(format!("l2lb-lab-{}", getuid()))
}

/// Where a component's folder is seen inside a lab.
pub(crate) fn tool_dir(component: &str) -> PathBuf {
    Path::new(RUN).join("tools").join(component)
}

/// A program of a component, as seen inside a lab.
#[must_use]
pub fn tool(component: &str, program: &str) -> PathBuf {
    tool_dir(component).join("bin").join(program)
}
