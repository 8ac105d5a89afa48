//! What is released: the version, and the commit with its time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::MetadataCommand;
use jiff::Timestamp;
use serde_json::Value;

/// The repository, at a version.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its folder.
    pub root: PathBuf,
    /// The version of all its parts.
    pub version: String,
    /// The commit, with `-dirty` behind it if files differ from it; none if
    /// this is no git repository.
    pub revision: Option<String>,
    /// The time that everything in a release bears: `SOURCE_DATE_EPOCH`, or
    /// the commit's.
    pub time: Timestamp,
}

impl Project {
    /// Reads it from its folder.
    pub fn read(root: &Path) -> Result<Self> {
        let root = root
            .canonicalize()
            .with_context(|| format!("finding {}", root.display()))?;
        let version = version(&root)?;
        let commit = git(&root, &["log", "-1", "--format=%H %ct"]);
        let (revision, committed) = match &commit {
            Some(line) => {
                let (hash, time) = line
                    .split_once(' ')
                    .with_context(|| format!("git log says {line:?}"))?;
                let is_clean = git(&root, &["status", "--porcelain"]).is_some_and(|s| s.is_empty());
                let suffix = if is_clean { "" } else { "-dirty" };
                (Some(format!("{hash}{suffix}")), Some(time.to_owned()))
            }
            None => (None, None),
        };
        let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(seconds) => seconds,
            Err(_) => match committed {
                Some(seconds) => seconds,
                None => bail!(
                    "git knows no commit of {}, and a release bears a commit's time: set \
                     SOURCE_DATE_EPOCH to the seconds since 1970 at which the sources are from",
                    root.display()
                ),
            },
        };
        let time = seconds
            .parse()
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .with_context(|| format!("{seconds:?} is not a number of seconds since 1970"))?;
        Ok(Self {
            root,
            version,
            revision,
            time,
        })
    }

    /// The time in seconds since 1970, as archives have it.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        u64::try_from(self.time.as_second()).unwrap_or(0)
    }

    /// Cargo's target folder.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => self.root.join(folder),
            None => self.root.join("target"),
        }
    }
}

/// The version of the workspace, which is the chart's, too.
fn version(root: &Path) -> Result<String> {
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()
        .context("asking cargo for the version")?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name == "l2lb")
        .context("the workspace has no package l2lb")?;
    let version = package.version.to_string();
    let path = root.join("charts/l2lb/Chart.yaml");
    let chart: Value = serde_saphyr::from_slice(&crate::read(&path)?)
        .with_context(|| format!("reading {}", path.display()))?;
    for key in ["version", "appVersion"] {
        let has = chart[key].as_str().unwrap_or_default();
        ensure!(
            has == version,
            "charts/l2lb/Chart.yaml has {key} {has:?} and Cargo.toml has version {version:?}: a \
             release has one version"
        );
    }
    Ok(version)
}

/// What git says; nothing if it fails.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(args)
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_has_one_version() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert_eq!(version(&root).unwrap(), env!("CARGO_PKG_VERSION"));
    }
}
