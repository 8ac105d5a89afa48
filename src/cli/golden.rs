//! The cases of testdata/cli: a cluster, and what each command says of it.
//!
//! A case is a folder with `cluster.yaml` (objects that controller and MetalLB
//! have acted on), optionally `history.yaml` (events as `simulate` plays
//! them), `also.yaml` (objects that nobody has acted on yet) and `commands`, a
//! command in each line. `expected.txt` is the transcript;
//! `UPDATE_GOLDEN=1 cargo test -p l2lb --lib golden` writes it anew.

use std::path::{Path, PathBuf};

use clap::Parser;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{Cli, Command};
use crate::check::Snapshot;
use crate::manifest;
use crate::plan::Planner;
use crate::simulate::{Cluster, event};
use crate::world::observe_manifest;

/// A cluster as the commands read it.
pub(crate) struct Scene {
    pub snapshot: Snapshot,
}

/// Objects of a file of a case; none when there is no such file.
fn objects(case: &Path, file: &str) -> Vec<Value> {
    let path = case.join(file);
    if !path.exists() {
        return Vec::new();
    }
    let manifests = manifest::read_file(&path).unwrap();
    manifests.into_iter().map(|m| m.value).collect()
}

impl Scene {
    /// The scene of a case.
    pub fn of(case: &Path) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut cluster = Cluster::new(start);
        let mut planner = Planner::default();
        for value in objects(case, "cluster.yaml") {
            if let Some(observed) = observe_manifest(value.clone()).unwrap() {
                cluster.put(observed.kind(), value).unwrap();
                cluster.settle(&mut planner).unwrap();
            }
        }
        cluster.advance(SignedDuration::from_mins(75));
        cluster.settle(&mut planner).unwrap();
        let history = case.join("history.yaml");
        if history.exists() {
            let text = std::fs::read_to_string(history).unwrap();
            for event in event::parse(&text).unwrap() {
                cluster.happen(&event).unwrap();
                cluster.settle(&mut planner).unwrap();
            }
        }
        let mut snapshot = Snapshot {
            world: cluster.world,
            ..Snapshot::default()
        };
        let nodes = objects(case, "cluster.yaml").into_iter();
        snapshot
            .objects
            .extend(nodes.filter(|o| o["kind"] == "Node"));
        for definition in crate::api::crds() {
            let mut value = json!(definition);
            value["kind"] = json!("CustomResourceDefinition");
            snapshot.add(value).unwrap();
        }
        for value in objects(case, "also.yaml") {
            snapshot.add(value).unwrap();
        }
        Self { snapshot }
    }

    /// What a command prints.
    fn answer(&self, case: &Path, command: &str) -> String {
        let words = command.split_whitespace();
        let cli = Cli::try_parse_from(std::iter::once("kubectl-l2lb").chain(words)).unwrap();
        match cli.command {
            Command::Status(args) => super::status::of_world(&args, &self.snapshot.world),
            Command::Why(args) => super::why::of_snapshot(&args, &self.snapshot),
            Command::Check(args) => super::check::of_snapshot(&args, &self.snapshot),
            Command::Diff(args) => super::diff::of_snapshot(&args, &self.snapshot, case),
            Command::Export(args) => super::export::of_world(&args, &self.snapshot.world),
            other => panic!("{other:?} needs no cluster"),
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cli");
    let entries = std::fs::read_dir(root).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    cases.sort();
    cases
}

#[test]
fn every_case_is_answered_as_expected() {
    let cases = cases();
    assert!(!cases.is_empty(), "no case was found");
    for case in cases {
        let scene = Scene::of(&case);
        let commands = std::fs::read_to_string(case.join("commands")).unwrap();
        let answers: Vec<String> = commands
            .lines()
            .map(|c| format!("$ kubectl l2lb {c}\n{}", scene.answer(&case, c)))
            .collect();
        let text = answers.join("\n");
        let path = case.join("expected.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = text.lines().zip(expected.lines()).position(|(a, b)| a != b);
        assert!(
            text == expected,
            "{} differs, from line {:?} on. If the new one is right: UPDATE_GOLDEN=1 cargo test \
             -p l2lb --lib golden\n{text}",
            path.display(),
            differs.map(|line| line + 1)
        );
    }
}
