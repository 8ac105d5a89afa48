//! What a release consists of: images, archives, manifests, bills of
//! materials and checksums.
//!
//! No container daemon takes part: an image is a few files with a JSON
//! description of each ([`image`]). Nothing depends on the clock, on the name
//! of a folder or on chance, so that whoever builds the same commit with the
//! same compilers gets the same bytes.

pub mod archive;
pub mod artefacts;
pub mod build;
pub mod chart;
pub mod elf;
pub mod image;
pub mod krew;
pub mod layout;
pub mod notices;
pub mod packages;
pub mod project;
pub mod sbom;
pub mod trust;
pub mod unpack;

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The SHA-256 of some bytes, in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Writes a file, and the folder that it is in.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
    }
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// Makes a folder empty, and makes it.
pub(crate) fn empty_dir(path: &Path) -> Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()))?;
    }
    std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))
}
