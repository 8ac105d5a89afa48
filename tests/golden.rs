//! The cases of testdata/render: what a person writes, and what comes of it.
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes the expectations anew.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use l2lb::metallb::Capabilities;
use l2lb::world::Options;
use l2lb::{manifest, render};

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

/// What was rendered and applied needs nothing more: rendering it again,
/// together with the input, gives the same objects.
#[test]
fn rendering_is_stable_over_its_own_output() {
    for case in cases() {
        let input = std::fs::read_to_string(case.join("input.yaml")).unwrap();
        let output = rendered(&case);
        let services: String = output
            .split("---\n")
            .filter(|d| d.contains("kind: Service\n") && d.contains("apiVersion: v1\n"))
            .map(|d| format!("---\n{d}"))
            .collect();
        let both = manifest::parse("both", &format!("{input}{services}")).unwrap();
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let world = render::world_of(both, now, Options::default(), metallb(&case)).unwrap();
        let again = manifest::to_yaml(&render::objects(&world.world)).unwrap();
        let services_of = |text: &str| -> Vec<String> {
            text.split("---\n")
                .filter(|d| d.contains("kind: Service\n"))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(
            services_of(&again),
            services_of(&output),
            "{}",
            case.display()
        );
    }
}
