//! Files, and lines in them.

use std::path::{Path, PathBuf};

use crate::manifest::Manifest;

/// The files, with folders replaced by the manifests in them.
pub(in crate::cli) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries =
            std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut inside: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|p| {
                p.extension()
                    .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
            })
            .collect();
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// The line of a field of an object, counted from 1, as well as it can be
/// told from the text: where a key is not found, that of the one above it.
pub(super) fn line_of(manifest: &Manifest, name: &str, field: &str) -> usize {
    std::fs::read_to_string(Path::new(&manifest.source_name))
        .map_or(1, |text| line_in(&text, manifest.number, name, field))
}

fn line_in(text: &str, document: usize, name: &str, field: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let is_mark = |line: &&str| line.starts_with("---");
    // What comes before the first mark is a document if there is anything in it.
    let first = lines
        .iter()
        .find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let mut starts: Vec<usize> = if first.is_some_and(is_mark) {
        Vec::new()
    } else {
        vec![0]
    };
    starts.extend(
        lines
            .iter()
            .enumerate()
            .filter(|(_, l)| is_mark(l))
            .map(|(i, _)| i + 1),
    );
    let start = starts.get(document - 1).copied().unwrap_or(0);
    let end = starts
        .get(document)
        .copied()
        .unwrap_or(lines.len())
        .min(lines.len());
    let find = |from: usize, key: &str, value: &str| {
        (from..end).find(|i| {
            let line = lines[*i].replace('"', "");
            line.find(&format!("{key}:")).is_some_and(|at| {
                let before = line[..at].chars().last();
                before.is_none_or(|c| !c.is_alphanumeric() && c != '-' && c != '/')
                    && line[at..].contains(value)
            })
        })
    };
    let mut at = find(start, "name", &format!(" {name}")).unwrap_or(start);
    for part in field.split('.').filter(|p| *p != "metadata") {
        let (key, index) = part.split_once('[').unwrap_or((part, ""));
        let Some(found) = find(at, key, "") else {
            break;
        };
        at = found;
        // Items that are written one a line.
        let index: Option<usize> = index.trim_end_matches(']').parse().ok();
        if let Some(index) = index {
            let item = |i: &usize| lines[*i].trim_start().starts_with("- ");
            at = (at + 1..end)
                .filter(item)
                .nth(index)
                .filter(|_| !lines[at].contains('['))
                .unwrap_or(at);
        }
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_fields_in_documents() {
        let text = "# comment\n---\nkind: A\nmetadata:\n  name: one\nspec:\n  addresses:\n  - x\n  - y\n\
                    ---\nkind: B\nmetadata: {name: two}\nspec: {maxNodes: 3}\n";
        assert_eq!(line_in(text, 1, "one", "spec.addresses[1]"), 9);
        assert_eq!(line_in(text, 1, "one", "spec.maxNodes"), 6);
        assert_eq!(line_in(text, 2, "two", "spec.maxNodes"), 13);
        assert_eq!(line_in(text, 2, "two", "metadata.name"), 12);
        assert_eq!(line_in("", 3, "x", "spec"), 1);
    }
}
