//! Reads images back from their layouts, and trusts nothing that it reads.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::de::DeserializeOwned;

use crate::layout::BLOBS;

/// An image that was read from its layout.
#[derive(Debug)]
pub struct Image {
    /// The digest of its manifest.
    pub digest: String,
    /// How it is to be run.
    pub configuration: ImageConfiguration,
    /// The layers, from below, as tar archives.
    layers: Vec<Vec<u8>>,
}

/// Something that refers to an image.
#[derive(Debug)]
pub struct Referrer {
    /// The digest of the manifest that it refers to.
    pub subject: String,
    /// What kind of thing it is.
    pub kind: MediaType,
    /// The thing.
    pub contents: Vec<u8>,
}

/// A layout all of whose blobs are what their names say.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    /// What it is about.
    pub index: ImageIndex,
}

impl Layout {
    /// Opens a layout and reads every blob. An error names the one that is not
    /// what its name says.
    pub fn open(root: &Path) -> Result<Self> {
        let folder = root.join(BLOBS);
        let blobs = std::fs::read_dir(&folder).with_context(|| {
            format!(
                "there is no image in {}: `make image` builds it",
                root.display()
            )
        })?;
        for blob in blobs {
            let path = blob.context("listing blobs")?.path();
            let found = crate::sha256(&crate::read(&path)?);
            ensure!(
                path.file_name().is_some_and(|name| *name == *found),
                "{} has the SHA-256 {found}",
                path.display()
            );
        }
        let index = crate::read(&root.join("index.json"))?;
        Ok(Self {
            root: root.to_owned(),
            index: serde_json::from_slice(&index).context("reading index.json")?,
        })
    }

    /// The image for an architecture, by its name in Go.
    pub fn image(&self, arch: &str) -> Result<Image> {
        let named = self
            .index
            .manifests()
            .iter()
            .find(|manifest| manifest.annotations().is_some())
            .context("index.json names no image")?;
        let candidates = match named.media_type() {
            MediaType::ImageIndex => self.json::<ImageIndex>(named)?.manifests().clone(),
            _ => vec![named.clone()],
        };
        let found = candidates
            .iter()
            .find(|candidate| {
                let platform = candidate.platform().as_ref();
                platform.is_some_and(|p| p.architecture().to_string() == arch)
            })
            .with_context(|| format!("there is no image for {arch}"))?;
        let manifest: ImageManifest = self.json(found)?;
        let configuration: ImageConfiguration = self.json(manifest.config())?;
        let ids = configuration.rootfs().diff_ids();
        ensure!(
            ids.len() == manifest.layers().len(),
            "the configuration speaks of {} layers and the manifest of {}",
            ids.len(),
            manifest.layers().len()
        );
        let mut layers = Vec::new();
        for (layer, id) in manifest.layers().iter().zip(ids) {
            ensure!(
                *layer.media_type() == MediaType::ImageLayerGzip,
                "a layer is a {}",
                layer.media_type()
            );
            let mut plain = Vec::new();
            GzDecoder::new(self.blob(layer)?.as_slice())
                .read_to_end(&mut plain)
                .context("decompressing a layer")?;
            let found = format!("sha256:{}", crate::sha256(&plain));
            ensure!(
                found == *id,
                "a layer is {found}, the configuration says {id}"
            );
            layers.push(plain);
        }
        Ok(Image {
            digest: found.digest().to_string(),
            configuration,
            layers,
        })
    }

    /// What refers to images of this layout.
    pub fn referrers(&self) -> Result<Vec<Referrer>> {
        let mut all = Vec::new();
        for descriptor in self.index.manifests() {
            if *descriptor.media_type() != MediaType::ImageManifest {
                continue;
            }
            let manifest: ImageManifest = self.json(descriptor)?;
            let Some(subject) = manifest.subject() else {
                continue;
            };
            let layer = manifest.layers().first().context("a referrer is empty")?;
            all.push(Referrer {
                subject: subject.digest().to_string(),
                kind: layer.media_type().clone(),
                contents: self.blob(layer)?,
            });
        }
        Ok(all)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        // The digest was checked when the layout was opened.
        let bytes = crate::read(&self.root.join(BLOBS).join(descriptor.digest().digest()))?;
        ensure!(
            bytes.len() as u64 == descriptor.size(),
            "{} has {} bytes, its descriptor says {}",
            descriptor.digest(),
            bytes.len(),
            descriptor.size()
        );
        Ok(bytes)
    }

    fn json<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        serde_json::from_slice(&self.blob(descriptor)?)
            .with_context(|| format!("reading {}", descriptor.digest()))
    }
}

impl Image {
    /// Unpacks it into a folder, and returns the paths of all files in it.
    pub fn unpack(&self, to: &Path) -> Result<BTreeSet<String>> {
        crate::empty_dir(to)?;
        let mut files = BTreeSet::new();
        for layer in &self.layers {
            let mut archive = tar::Archive::new(layer.as_slice());
            archive.set_preserve_permissions(true);
            for entry in archive.entries().context("reading a layer")? {
                let mut entry = entry.context("reading a layer")?;
                let path = entry.path().context("reading a layer")?.into_owned();
                let is_plain = path.components().all(|c| matches!(c, Component::Normal(_)));
                let kind = entry.header().entry_type();
                if !is_plain || !(kind.is_file() || kind.is_dir()) {
                    bail!("{} is neither a file nor a folder", path.display());
                }
                if kind.is_file() {
                    files.insert(path.to_string_lossy().into_owned());
                }
                entry
                    .unpack_in(to)
                    .with_context(|| format!("unpacking {}", path.display()))?;
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout as Writer;

    #[test]
    fn a_blob_that_was_changed_is_found_out() {
        let root = std::env::temp_dir().join(format!("l2lb-unpack-{}", std::process::id()));
        let writer = Writer::new(&root).unwrap();
        let blob = writer.blob(MediaType::EmptyJSON, b"{}").unwrap();
        writer.finish(vec![blob.clone()]).unwrap();
        Layout::open(&root).unwrap();
        std::fs::write(root.join(BLOBS).join(blob.digest().digest()), "{ }").unwrap();
        let error = Layout::open(&root).unwrap_err().to_string();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(error.contains("has the SHA-256"), "{error}");
    }

    #[test]
    fn without_an_image_it_says_how_to_get_one() {
        let error = Layout::open(Path::new("/nowhere/l2lb-controller")).unwrap_err();
        assert!(error.to_string().contains("make image"), "{error}");
    }
}
