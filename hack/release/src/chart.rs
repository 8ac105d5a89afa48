//! The chart as a package. helm's own command would put the time of day into it.

use std::path::Path;

use anyhow::{Context, Result};

use crate::archive::{self, Entry};
use crate::project::Project;

/// Folders of the chart that are not for users, as `.helmignore` has them.
const LEFT_OUT: [&str; 1] = ["tests"];

/// The package, which helm installs as it does the folder.
pub fn package(project: &Project) -> Result<Vec<u8>> {
    let root = project.root.join("charts/l2lb");
    let mut entries = Vec::new();
    collect(&root, Path::new("l2lb"), &mut entries)?;
    archive::gzip(&archive::tar(entries, project.seconds())?)
}

fn collect(from: &Path, to: &Path, entries: &mut Vec<Entry>) -> Result<()> {
    let listing = std::fs::read_dir(from).with_context(|| format!("listing {}", from.display()))?;
    for entry in listing {
        let entry = entry.with_context(|| format!("listing {}", from.display()))?;
        let name = entry.file_name();
        let is_hidden = name.to_string_lossy().starts_with('.');
        if is_hidden || LEFT_OUT.iter().any(|folder| name == *folder) {
            continue;
        }
        let (from, to) = (entry.path(), to.join(&name));
        if from.is_dir() {
            collect(&from, &to, entries)?;
        } else {
            entries.push(Entry::file(to.to_string_lossy(), crate::read(&from)?));
        }
    }
    Ok(())
}
