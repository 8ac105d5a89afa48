//! Manifests in the documentation can be read, and would be admitted.

use std::path::Path;
use std::process::Command;

use l2lb::manifest;
use serde_json::Value;

use crate::pages;

/// The cluster that examples are judged against.
const CLUSTER: &str = "testdata/docs/cluster.yaml";
/// The pool of examples that define none of that name.
const POOL: &str = "testdata/docs/pool.yaml";

fn is_ours(object: &Value) -> bool {
    object["apiVersion"]
        .as_str()
        .is_some_and(|v| v.starts_with("l2lb.io/"))
}

/// What `kubectl l2lb lint` says of a file in the examples' cluster, if it
/// would be denied or cannot be judged.
fn complaint(file: &Path, with_pool: bool) -> Option<String> {
    let mut lint = Command::new(env!("CARGO_BIN_EXE_kubectl-l2lb"));
    lint.current_dir(pages::root())
        .args(["lint", "-f", CLUSTER]);
    if with_pool {
        lint.args(["-f", POOL]);
    }
    let output = lint.arg("-f").arg(file).output().unwrap();
    (!output.status.success()).then(|| {
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

#[test]
fn yaml_is_readable_and_admitted() {
    let folder = scratch();
    let (mut read, mut judged) = (0, 0);
    for page in pages::all() {
        for block in page.blocks.iter().filter(|b| b.what.language == "yaml") {
            let place = format!("{}:{}", page.path.display(), block.line);
            read += 1;
            let documents: Vec<Value> = serde_saphyr::from_multiple(&block.what.text)
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            // Other YAML, as a history to simulate, is no manifest.
            if documents.iter().all(|d| d["kind"].is_null()) {
                continue;
            }
            let objects =
                manifest::parse(&place, &block.what.text).unwrap_or_else(|error| panic!("{error}"));
            if !objects.iter().any(|m| is_ours(&m.value)) {
                continue;
            }
            judged += 1;
            let defines_edge = objects.iter().any(|m| {
                m.value["kind"] == "L2AddressPool" && m.value["metadata"]["name"] == "edge"
            });
            let file = folder.join(format!("{judged}.yaml"));
            std::fs::write(&file, &block.what.text).unwrap();
            if let Some(complaint) = complaint(&file, !defines_edge) {
                panic!("{place} would not be admitted:\n{complaint}");
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(judged > 10, "only {judged} of {read} blocks were judged");
}

/// An empty folder of this process.
fn scratch() -> std::path::PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("docs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
