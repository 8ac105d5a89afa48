//! An image layout: a folder with blobs that are named by their digests.
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use oci_spec::image::{
    Descriptor, ImageIndex, ImageIndexBuilder, MediaType, OciLayoutBuilder, Sha256Digest,
};
use serde::Serialize;

/// The folder of the blobs.
pub const BLOBS: &str = "blobs/sha256";

/// A layout that is being written.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// An empty one; what was in the folder goes.
    pub fn new(root: &Path) -> Result<Self> {
        crate::empty_dir(root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Adds a blob.
    pub fn blob(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
        let hash = crate::sha256(bytes);
        crate::write(&self.root.join(BLOBS).join(&hash), bytes)?;
        let digest = Sha256Digest::from_str(&hash).context("making a digest")?;
        Ok(Descriptor::new(media_type, bytes.len() as u64, digest))
    }

    /// Adds a JSON document.
    pub fn json<T: Serialize>(&self, media_type: MediaType, value: &T) -> Result<Descriptor> {
        self.blob(media_type, &json(value)?)
    }

    /// Ends it with the manifests that it is about.
    pub fn finish(self, manifests: Vec<Descriptor>) -> Result<()> {
        let version = OciLayoutBuilder::default()
            .image_layout_version("1.0.0")
            .build()?;
        crate::write(&self.root.join("oci-layout"), &json(&version)?)?;
        crate::write(&self.root.join("index.json"), &json(&index(manifests)?)?)
    }
}

/// An index of manifests.
pub fn index(manifests: Vec<Descriptor>) -> Result<ImageIndex> {
    Ok(ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()?)
}

/// Annotations or labels.
pub fn annotations<K: Into<String>>(
    pairs: impl IntoIterator<Item = (K, String)>,
) -> HashMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.into(), v)).collect()
}

/// As JSON with its keys in order: maps of the types have none.
fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut value = serde_json::to_value(value).context("writing JSON")?;
    value.sort_all_objects();
    serde_json::to_vec(&value).context("writing JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order() {
        let map = annotations([("b", "1".into()), ("c", "2".into()), ("a", "3".into())]);
        assert_eq!(json(&map).unwrap(), br#"{"a":"3","b":"1","c":"2"}"#);
    }
}
