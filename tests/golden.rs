//! The cases of testdata/render: what a person writes, and what comes of it.
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes the expectations anew.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use l2lb::api::names;
use l2lb::manifest::Manifest;
use l2lb::metallb::Capabilities;
use l2lb::plan::Planner;
use l2lb::world::Options;
use l2lb::{manifest, render};
use serde_json::{Value, json};

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/render");
    let mut cases: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    cases.sort();
    cases
}

/// The version of MetalLB in the case's file `metallb-version`; the newest without one.
fn metallb(case: &Path) -> Capabilities {
    match std::fs::read_to_string(case.join("metallb-version")) {
        Ok(version) => Capabilities::of_version(&version).unwrap(),
        Err(_) => Capabilities::CURRENT,
    }
}

fn rendered(case: &Path) -> String {
    let manifests = manifest::read_file(&case.join("input.yaml")).unwrap();
    let now = "2026-01-01T00:10:00Z".parse().unwrap();
    let world = render::world_of(manifests, now, Options::default(), metallb(case))
        .unwrap()
        .world;
    manifest::to_yaml(&render::objects(&world)).unwrap()
}

#[test]
fn every_case_renders_as_expected() {
    let cases = cases();
    assert!(cases.len() >= 9, "only {} cases were found", cases.len());
    for case in cases {
        let expected = case.join("expected.yaml");
        let text = rendered(&case);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &text).unwrap();
            continue;
        }
        let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
        if text != wanted {
            let differs = text.lines().zip(wanted.lines()).position(|(a, b)| a != b);
            let line = differs.unwrap_or_else(|| text.lines().count().min(wanted.lines().count()));
            panic!(
                "{} differs from line {}:\n  is:     {:?}\n  wanted: {:?}\nIf the new one is right: \
                 UPDATE_GOLDEN=1 cargo test --test golden",
                expected.display(),
                line + 1,
                text.lines().nth(line),
                wanted.lines().nth(line)
            );
        }
    }
}

/// What was rendered and applied needs nothing more: a plan of the input
/// together with all of it writes nothing but statuses, which follow what is there
/// now.
#[test]
fn rendering_is_stable_over_its_own_output() {
    for case in cases() {
        let input = manifest::read_file(&case.join("input.yaml")).unwrap();
        let output = manifest::parse("output", &rendered(&case)).unwrap();
        assert!(!output.is_empty(), "{}", case.display());
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let both = applied(input, output);
        let mut world = render::world_of(both, now, Options::default(), metallb(&case))
            .unwrap()
            .world;
        let mut planner = Planner::default();
        planner.plan(&world);
        world.set_evenness(planner.evenness());
        let changes: Vec<String> = planner
            .plan(&world)
            .changes
            .iter()
            .filter(|c| c.action.verb() != "status")
            .map(|c| format!("{} {} ({})", c.action.verb(), c.object, c.cause.as_str()))
            .collect();
        assert!(changes.is_empty(), "{}: {changes:#?}", case.display());
    }
}

/// The input as an API server has it after server-side apply of the output.
fn applied(input: Vec<Manifest>, output: Vec<Manifest>) -> Vec<Manifest> {
    let mut all = input;
    for new in output {
        match all.iter_mut().find(|old| identity(old) == identity(&new)) {
            Some(old) => merge(&mut old.value, new.value),
            None => all.push(new),
        }
    }
    for pool in all
        .iter_mut()
        .filter(|m| m.value["kind"] == "L2AddressPool")
    {
        // The one write that is in no output.
        pool.value["metadata"]["finalizers"] = json!([names::POOL_FINALIZER]);
    }
    all
}

fn identity(manifest: &Manifest) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (object, meta) = (&manifest.value, &manifest.value["metadata"]);
    (
        text(&object["kind"]),
        text(&meta["namespace"]),
        text(&meta["name"]),
    )
}

fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                merge(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}
