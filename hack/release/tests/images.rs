//! The images that `make image` built: what is in them, that it runs, and that
//! they come out the same again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cyclonedx_bom::models::bom::{Bom, SpecVersion};
use cyclonedx_bom::models::component::Scope;
use cyclonedx_bom::validation::Validate;
use l2lb_release::build::{Built, PLATFORMS, PROGRAMS, Platform, Program};
use l2lb_release::image::{self, Papers, Part};
use l2lb_release::project::Project;
use l2lb_release::unpack::{Image, Layout};
use l2lb_release::{elf, sha256, trust};

fn project() -> Project {
    Project::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn images() -> impl Iterator<Item = &'static Program> {
    PROGRAMS.iter().filter(|program| program.in_image)
}

/// The platform that this machine runs.
fn platform() -> &'static Platform {
    let mine = |p: &&Platform| p.triple.starts_with(std::env::consts::ARCH);
    PLATFORMS.iter().find(mine).unwrap()
}

fn layout(program: &Program) -> Layout {
    let root = l2lb_release::artefacts::images_dir(&project()).join(program.name);
    Layout::open(&root).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Unpacks an image for this machine into a folder for a test.
fn unpacked(program: &Program, test: &str) -> (Image, PathBuf, BTreeSet<String>) {
    let image = layout(program).image(platform().arch).unwrap();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(test)
        .join(program.name);
    let files = image.unpack(&root).unwrap();
    (image, root, files)
}

/// What refers to an image, of some kind.
fn paper(program: &Program, image: &Image, kind: &str) -> Vec<u8> {
    let referrers = layout(program).referrers().unwrap();
    let mut all = referrers
        .into_iter()
        .filter(|r| r.subject == image.digest && r.kind.to_string() == kind);
    let found = all.next();
    assert!(all.next().is_none(), "two {kind} of {}", image.digest);
    found
        .unwrap_or_else(|| panic!("no {kind} refers to {}", image.digest))
        .contents
}

#[test]
fn an_image_holds_its_program_and_the_authorities() {
    for program in images() {
        let (image, root, files) = unpacked(program, "holds");
        let expected = [program.name, trust::PATH].map(str::to_owned);
        assert_eq!(files, BTreeSet::from(expected));
        let file = root.join(program.name);
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o7777,
            0o755
        );
        elf::ensure_static(&std::fs::read(&file).unwrap()).unwrap();
        let authorities = std::fs::read_to_string(root.join(trust::PATH)).unwrap();
        assert_eq!(authorities, trust::certificates());

        let config = image.configuration.config().as_ref().unwrap();
        assert_eq!(config.user().as_deref(), Some("65532:65532"));
        assert_eq!(
            *config.entrypoint(),
            Some(vec![format!("/{}", program.name)])
        );
        let labels = config.labels().as_ref().unwrap();
        let label = |name: &str| labels.get(&format!("org.opencontainers.image.{name}"));
        assert_eq!(label("title").unwrap(), program.name);
        assert_eq!(label("version").unwrap(), env!("CARGO_PKG_VERSION"));
        assert_eq!(label("licenses").unwrap(), "Apache-2.0");
        assert_eq!(label("created"), image.configuration.created().as_ref());
    }
}

/// As root by that user, as somebody else by the one user of a namespace.
#[test]
fn a_program_runs_where_there_is_nothing_else() {
    let root_user = std::fs::metadata("/proc/self").unwrap();
    let is_root = std::os::unix::fs::MetadataExt::uid(&root_user) == 0;
    for program in images() {
        let (_, root, _) = unpacked(program, "runs");
        let mut command = if is_root {
            let mut command = Command::new("chroot");
            command.arg(format!("--userspec={}", image::USER));
            command
        } else {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "chroot"]);
            command
        };
        let output = command
            .arg(&root)
            .args([&format!("/{}", program.name), "--version"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let expected = format!("{} {}\n", program.name, env!("CARGO_PKG_VERSION"));
        assert_eq!(said, expected);
    }
}

#[test]
fn an_image_has_its_bill_of_materials() {
    for program in images() {
        let (image, root, _) = unpacked(program, "bill");
        let bill = paper(program, &image, image::BILL);
        let bom = Bom::parse_from_json_v1_5(bill.as_slice()).unwrap();
        let verdict = bom.validate_version(SpecVersion::V1_5);
        assert!(
            verdict.passed(),
            "{:?}",
            verdict.errors().collect::<Vec<_>>()
        );

        let itself = bom.metadata.unwrap().component.unwrap();
        let file = std::fs::read(root.join(program.name)).unwrap();
        assert_eq!(
            itself.hashes.as_ref().unwrap().0[0].content.0,
            sha256(&file)
        );
        let components = bom.components.unwrap().0;
        let references: BTreeSet<_> = components.iter().map(|c| &c.bom_ref).collect();
        assert_eq!(references.len(), components.len());
        assert!(!references.contains(&itself.bom_ref));
        for component in &components {
            assert!(component.licenses.is_some(), "{}", component.name);
            let is_ours = component.name.starts_with("l2lb");
            assert_eq!(component.purl.is_none(), is_ours, "{}", component.name);
        }
        let scopes: BTreeMap<&str, &Scope> = components
            .iter()
            .map(|c| (&*c.name, c.scope.as_ref().unwrap()))
            .collect();
        for (name, scope) in [
            ("kube-client", Some(&Scope::Required)),
            ("glibc", Some(&Scope::Required)),
            ("rust-std", Some(&Scope::Required)),
            (trust::CRATE, Some(&Scope::Required)),
            // At work while it is built.
            ("syn", Some(&Scope::Excluded)),
            ("cc", Some(&Scope::Excluded)),
            // For tests, and of other members of the workspace.
            ("proptest", None),
            ("l2lb-lab", None),
            ("oci-spec", None),
        ] {
            assert_eq!(scopes.get(name).copied(), scope, "{name}");
        }
        // Each has its own.
        let has_server = scopes.contains_key("axum-server");
        assert_eq!(has_server, program.package == "l2lb-webhook");
    }
}

#[test]
fn an_image_has_the_notices_of_what_is_linked() {
    for program in images() {
        let (image, _, _) = unpacked(program, "notices");
        let text = String::from_utf8(paper(program, &image, image::NOTICES)).unwrap();
        // All that is linked is named, with a text, and nothing else.
        let bill = paper(program, &image, image::BILL);
        let bom = Bom::parse_from_json_v1_5(bill.as_slice()).unwrap();
        for component in bom.components.unwrap().0 {
            let version = component.version.as_deref().unwrap_or_default();
            let name = format!("{} {version}", &*component.name);
            let linked = component.scope == Some(Scope::Required)
                && component.purl.is_some()
                && &*component.name != "glibc";
            let listed = text.lines().any(|l| l.starts_with(&format!("{name}: ")));
            assert_eq!(listed, linked, "{name}");
            let has_text = text
                .lines()
                .filter_map(|line| line.strip_suffix(':'))
                .any(|line| line.split(", ").any(|of| of == name));
            assert_eq!(has_text, linked, "{name}");
        }
        assert!(text.contains("\nGNU C Library "), "{text}");
        assert!(text.contains("GNU LESSER GENERAL PUBLIC LICENSE"));
    }
}

/// Of one program and its papers; `make reproducible` builds those anew, too.
#[test]
fn one_program_packed_twice_gives_the_same_image() {
    let project = project();
    for program in images() {
        let (image, root, _) = unpacked(program, "twice");
        let papers = Papers {
            bill: paper(program, &image, image::BILL),
            notices: paper(program, &image, image::NOTICES),
        };
        let built = Built {
            platform: platform(),
            programs: BTreeMap::from([(program.name, root.join(program.name))]),
            packages: BTreeSet::new(),
            rustc: String::new(),
        };
        let [first, second] = ["first", "second"].map(|place| {
            let part = Part {
                built: &built,
                papers: &papers,
            };
            let to = root.with_file_name(format!("{}-{place}", program.name));
            let assembled = image::assemble(&project, program, &[part], &to).unwrap();
            let index = std::fs::read(to.join("index.json")).unwrap();
            (assembled, index)
        });
        assert_eq!(first, second);
    }
}
