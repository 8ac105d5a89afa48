//! Archives whose bytes depend on their contents alone.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// A file or a folder of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path in the archive, without a slash before it.
    pub path: String,
    /// Its contents; a folder has none.
    pub contents: Option<Vec<u8>>,
    /// Its permissions.
    pub mode: u32,
}

impl Entry {
    /// A file that everybody may read.
    pub fn file(path: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            contents: Some(contents.into()),
            mode: 0o644,
        }
    }

    /// A file that everybody may run.
    pub fn program(path: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        Self {
            mode: 0o755,
            ..Self::file(path, contents)
        }
    }

    /// A folder.
    pub fn folder(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            contents: None,
            mode: 0o755,
        }
    }
}

/// A tar archive of entries, sorted by path, all of root and of one time
/// (in seconds since 1970).
pub fn tar(mut entries: Vec<Entry>, time: u64) -> Result<Vec<u8>> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut builder = Builder::new(Vec::new());
    for entry in &entries {
        let contents = entry.contents.as_deref().unwrap_or_default();
        let mut header = Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time);
        header.set_size(contents.len() as u64);
        let mut path = entry.path.clone();
        if entry.contents.is_some() {
            header.set_entry_type(EntryType::Regular);
        } else {
            header.set_entry_type(EntryType::Directory);
            path.push('/');
        }
        builder
            .append_data(&mut header, path, contents)
            .with_context(|| format!("adding {} to an archive", entry.path))?;
    }
    builder.into_inner().context("ending an archive")
}

/// Compressed, without a name and a time.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("compressing")?;
    encoder.finish().context("compressing")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn order_does_not_matter() {
        let entries = vec![
            Entry::program("b/run", "run"),
            Entry::folder("b"),
            Entry::file("a", "text"),
        ];
        let mut turned = entries.clone();
        turned.reverse();
        let archive = tar(entries, 1_000).unwrap();
        assert_eq!(archive, tar(turned, 1_000).unwrap());
        let listed: Vec<_> = tar::Archive::new(archive.as_slice())
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                (path, header.mode().unwrap(), header.mtime().unwrap())
            })
            .collect();
        let expected = [("a", 0o644), ("b/", 0o755), ("b/run", 0o755)];
        let expected: Vec<_> = expected
            .map(|(path, mode)| (path.to_owned(), mode, 1_000))
            .to_vec();
        assert_eq!(listed, expected);
    }

    #[test]
    fn compressed_and_back() {
        let packed = gzip(b"the same, the same, the same").unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "the same, the same, the same");
        assert_eq!(packed[4..8], [0; 4], "there is a time in it");
    }
}
