//! What is said of versions in several places is said alike.

use crate::pages;

fn read(path: &str) -> String {
    std::fs::read_to_string(pages::root().join(path)).unwrap()
}

/// The oldest Kubernetes, as `1.33`, by the chart.
fn oldest_kubernetes() -> String {
    let chart = read("charts/l2lb/Chart.yaml");
    let line = chart.lines().find_map(|l| l.strip_prefix("kubeVersion: "));
    let version = line.and_then(|l| l.trim_matches('"').strip_prefix(">= "));
    let version = version.and_then(|v| v.strip_suffix(".0-0"));
    version.expect("a kubeVersion").to_owned()
}

#[test]
fn the_oldest_kubernetes_is_the_same_everywhere() {
    let oldest = oldest_kubernetes();
    let sentence = format!("Kubernetes {oldest} or later");
    for page in [
        "README.md",
        "docs/install.md",
        "docs/releasing.md",
        "CHANGELOG.md",
    ] {
        let text = read(page);
        assert!(text.contains(&sentence), "{page} does not say: {sentence}");
    }
    let flag = format!("--kube-version v{oldest}.0");
    assert!(read("docs/install.md").contains(&flag), "no {flag}");
}

/// Those of which the build itself says that it needs them.
#[test]
fn the_readme_names_the_compilers() {
    let after = |path: &str, mark: &str| {
        let text = read(path);
        let (_, rest) = text.split_once(mark).expect(mark);
        let version = rest.chars().take_while(|c| *c == '.' || c.is_ascii_digit());
        version.collect::<String>()
    };
    let rust = after("Cargo.toml", "rust-version = \"");
    let go = after("hack/tools/build.sh", "install Go ");
    let readme = read("README.md");
    for compiler in [format!("Rust {rust} "), format!("Go {go} ")] {
        assert!(readme.contains(&compiler), "README.md names no {compiler}");
    }
}

/// It is one that the lab runs.
#[test]
fn the_oldest_kubernetes_is_tested() {
    let prefix = format!("kubernetes-{}.", oldest_kubernetes());
    let mut tools = std::fs::read_dir(pages::root().join("hack/tools")).unwrap();
    let is_there = tools.any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with(&prefix)
    });
    assert!(is_there, "hack/tools has no {prefix}x");
}
