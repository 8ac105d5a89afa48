//! Links within the repository lead somewhere.

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
