//! The plugin's manifest for krew, filled in.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::build::PLATFORMS;

/// Where a platform's part of the template begins.
const PLATFORM: &str = "  - selector: ";

/// The template with the version, the address of the folder that files are
/// downloaded from, and the checksum of the archive of each architecture. A
/// platform without an archive is left out.
pub fn manifest(
    template: &str,
    version: &str,
    url: &str,
    archives: &BTreeMap<&str, String>,
) -> Result<String> {
    let mut parts: Vec<String> = vec![String::new()];
    for line in template.split_inclusive('\n') {
        if line.starts_with(PLATFORM) {
            parts.push(String::new());
        }
        // The template's own explanation is not for its reader.
        if let Some(last) = parts.last_mut().filter(|_| !line.starts_with('#')) {
            last.push_str(line);
        }
    }
    let mut text = String::new();
    for mut part in parts {
        for platform in &PLATFORMS {
            let mark = format!("@SHA256_LINUX_{}@", platform.arch.to_uppercase());
            if !part.contains(&mark) {
                continue;
            }
            match archives.get(platform.arch) {
                Some(checksum) => part = part.replace(&mark, checksum),
                None => part.clear(),
            }
        }
        text.push_str(&part);
    }
    let text = text
        .replace("@VERSION@", &format!("v{version}"))
        .replace("@URL@", url.trim_end_matches('/'));
    match text.split('@').nth(1) {
        Some(mark) => bail!("nothing is known for @{mark}@ in the manifest for krew"),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../krew.yaml");

    #[test]
    fn filled_in() {
        let archives = BTreeMap::from([("amd64", "00ff".to_owned())]);
        let url = "https://downloads.example.org/v0.2.0/";
        let text = manifest(TEMPLATE, "0.2.0", url, &archives).unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(value["spec"]["version"], "v0.2.0");
        let platforms = value["spec"]["platforms"].as_array().unwrap();
        assert_eq!(platforms.len(), 1, "{text}");
        let only = &platforms[0];
        assert_eq!(only["selector"]["matchLabels"]["arch"], "amd64");
        assert_eq!(only["sha256"], "00ff");
        let uri = "https://downloads.example.org/v0.2.0/kubectl-l2lb-linux-amd64.tar.gz";
        assert_eq!(only["uri"], uri);
    }

    /// Notices are handed on with what is linked.
    #[test]
    fn all_of_an_archive_is_installed() {
        let all = PLATFORMS.iter().map(|p| (p.arch, "00ff".to_owned()));
        let archives: BTreeMap<_, _> = all.collect();
        let text = manifest(TEMPLATE, "0.2.0", "https://example.org", &archives).unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let platforms = value["spec"]["platforms"].as_array().unwrap();
        assert_eq!(platforms.len(), PLATFORMS.len(), "{text}");
        for platform in platforms {
            let files = platform["files"].as_array().unwrap().iter();
            let names: Vec<_> = files.map(|f| f["from"].as_str().unwrap()).collect();
            assert_eq!(names, ["kubectl-l2lb", "LICENSE", crate::notices::PATH]);
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let error = manifest("a: @OTHER@\n", "1", "", &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("@OTHER@"), "{error}");
    }
}
