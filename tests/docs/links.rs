//! Links within the repository lead somewhere, and paths that are named exist.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::pages::{self, Page};

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// The file that a link names, below the repository, and the anchor in it;
/// none for one that leads out of it.
fn target(page: &Page, link: &str) -> Option<(PathBuf, Option<String>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link
        .split_once('#')
        .map_or((link, None), |(p, a)| (p, Some(a.to_owned())));
    let path = if path.is_empty() {
        page.path.clone()
    } else {
        normal(&page.path.parent().unwrap_or(Path::new("")).join(path))
    };
    Some((path, anchor))
}

#[test]
fn links_lead_somewhere() {
    let pages = pages::all();
    let mut dead = Vec::new();
    let mut followed = 0;
    for page in &pages {
        for link in &page.links {
            let Some((path, anchor)) = target(page, &link.what) else {
                if !link.what.starts_with("https://") {
                    dead.push(format!(
                        "{}:{}: {} is not https",
                        page.path.display(),
                        link.line,
                        link.what
                    ));
                }
                continue;
            };
            followed += 1;
            let there = pages::root().join(&path).exists()
                && anchor.is_none_or(|anchor| {
                    pages
                        .iter()
                        .any(|p| p.path == path && p.anchors.contains(&anchor))
                });
            if !there {
                dead.push(format!(
                    "{}:{}: {}",
                    page.path.display(),
                    link.line,
                    link.what
                ));
            }
        }
    }
    assert!(followed > 30, "only {followed} links were followed");
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// The folders of which code in a sentence names files, as `src/plan/mod.rs`.
const FOLDERS: [&str; 10] = [
    "benches", "charts", "crds", "docs", "fuzz", "hack", "src", "testdata", "tests", "webhook",
];

/// Whether a part of a path stands for many, or for what the reader knows: one
/// with a `*` or a brace, and one with a word in capitals, as `X.Y.Z` or
/// `metallb-VERSION`. The names of pages are in capitals, too.
fn is_placeholder(part: &str) -> bool {
    let is_word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_uppercase());
    part.contains(['*', '{']) || (!part.ends_with(".md") && part.split(['.', '-']).any(is_word))
}

/// The file or folder of the repository that a word names, up to a placeholder.
fn path_named(word: &str) -> Option<PathBuf> {
    let path = word.split('#').next()?;
    let (folder, _) = path.split_once('/')?;
    let parts = path.split('/').take_while(|part| !is_placeholder(part));
    FOLDERS.contains(&folder).then(|| parts.collect())
}

#[test]
fn paths_that_are_named_exist() {
    let (mut missing, mut count) = (Vec::new(), 0);
    for page in pages::all() {
        for code in &page.code {
            for path in code.what.split(' ').filter_map(path_named) {
                count += 1;
                if !pages::root().join(&path).exists() {
                    missing.push(format!(
                        "{}:{}: there is no {}",
                        page.path.display(),
                        code.line,
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(count > 40, "only {count} paths are named");
}

#[test]
fn paths_are_told_from_other_words() {
    for (word, path) in [
        ("src/plan/mod.rs", Some("src/plan/mod.rs")),
        ("src/plan/", Some("src/plan")),
        ("docs/README.md#index", Some("docs/README.md")),
        ("testdata/releases/X.Y.Z", Some("testdata/releases")),
        ("hack/tools/metallb-VERSION/go.mod", Some("hack/tools")),
        ("tests/*.rs", Some("tests")),
        ("metallb.io/address-pool", None),
        ("src", None),
    ] {
        assert_eq!(path_named(word), path.map(PathBuf::from), "{word}");
    }
}

#[test]
fn the_index_names_every_page() {
    let index = pages::read("docs/README.md".into());
    let named: BTreeSet<PathBuf> = index
        .links
        .iter()
        .filter_map(|l| Some(target(&index, &l.what)?.0))
        .collect();
    for page in pages::all() {
        let is_listed = named.contains(&page.path) || page.path == index.path;
        assert!(
            is_listed || !page.path.starts_with("docs"),
            "docs/README.md does not link to {}",
            page.path.display()
        );
    }
}
