//! Everything that a release hands out, in one folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::archive::{self, Entry};
use crate::build::{Built, PLATFORMS, PROGRAMS, Program};
use crate::image::{self, Assembled, Papers, Part};
use crate::packages::Packages;
use crate::project::Project;
use crate::{build, chart, krew, notices, sbom};

/// The programs of all platforms, with their papers.
#[derive(Debug)]
pub struct Programs {
    /// By platform.
    platforms: Vec<(Built, BTreeMap<&'static str, Papers>)>,
}

impl Programs {
    /// Builds all of them.
    pub fn all(project: &Project) -> Result<Self> {
        Self::build(project, &PROGRAMS.each_ref())
    }

    /// Builds those of which there are images.
    pub fn of_images(project: &Project) -> Result<Self> {
        let wanted: Vec<_> = PROGRAMS.iter().filter(|p| p.in_image).collect();
        Self::build(project, &wanted)
    }

    /// Builds programs for every platform that this machine can build for, and
    /// says which it cannot.
    fn build(project: &Project, wanted: &[&'static Program]) -> Result<Self> {
        let mut platforms = Vec::new();
        for platform in &PLATFORMS {
            if let Some(why) = platform.missing()? {
                eprintln!("{} is left out: {why}", platform.arch);
                continue;
            }
            let built = build::build(project, platform, wanted, &project.target().join("static"))?;
            platforms.push(with_papers(project, built, wanted)?);
        }
        ensure!(!platforms.is_empty(), "no platform can be built for");
        Ok(Self { platforms })
    }

    /// Writes the image of each program that has one, as a layout in a folder
    /// with the image's name.
    pub fn images(
        &self,
        project: &Project,
        to: &Path,
    ) -> Result<Vec<(&'static Program, Assembled)>> {
        let mut all = Vec::new();
        for program in PROGRAMS.iter().filter(|program| program.in_image) {
            let parts = self
                .platforms
                .iter()
                .map(|(built, papers)| {
                    let papers = of(papers, program)?;
                    Ok(Part { built, papers })
                })
                .collect::<Result<Vec<_>>>()?;
            let image = image::assemble(project, program, &parts, &to.join(program.name))
                .with_context(|| format!("making the image {}", program.name))?;
            all.push((program, image));
        }
        Ok(all)
    }
}

fn with_papers(
    project: &Project,
    built: Built,
    programs: &[&'static Program],
) -> Result<(Built, BTreeMap<&'static str, Papers>)> {
    let packages = Packages::read(project, &built)?;
    let papers = programs
        .iter()
        .map(|program| {
            let papers = Papers {
                bill: sbom::bill(project, &packages, &built, program)?,
                notices: notices::notices(&packages, &built, program)?,
            };
            Ok((program.name, papers))
        })
        .collect::<Result<_>>()?;
    Ok((built, papers))
}

fn of<'a>(all: &'a BTreeMap<&str, Papers>, program: &Program) -> Result<&'a Papers> {
    all.get(program.name)
        .with_context(|| format!("{} was not built", program.name))
}

/// What a release says about where it will be.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The address of the folder that its files will be downloaded from.
    pub url: Option<String>,
    /// Where its images will be.
    pub registry: Option<String>,
}

/// Where images are built.
#[must_use]
pub fn images_dir(project: &Project) -> PathBuf {
    project.target().join("images")
}

/// Writes every artefact of a release into a folder; what was in it goes.
/// Returns their names.
pub fn write(
    project: &Project,
    programs: &Programs,
    places: &Places,
    to: &Path,
) -> Result<Vec<String>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let version = &project.version;
    let images = images_dir(project);
    for (program, _) in programs.images(project, &images)? {
        let name = format!("{}-{version}.oci.tar", program.name);
        files.insert(name, tree(&images.join(program.name), project)?);
    }
    let mut plugins = BTreeMap::new();
    let licence = crate::read(&project.root.join("LICENSE"))?;
    for (built, papers) in &programs.platforms {
        let arch = built.platform.arch;
        for program in &PROGRAMS {
            let name = format!("{}-linux-{arch}", program.name);
            let papers = of(papers, program)?;
            let entries = vec![
                Entry::program(program.name, built.read(program)?),
                Entry::file("LICENSE", licence.clone()),
                Entry::file(notices::PATH, papers.notices.clone()),
            ];
            let packed = archive::gzip(&archive::tar(entries, project.seconds())?)?;
            if program.name == "kubectl-l2lb" {
                plugins.insert(arch, crate::sha256(&packed));
            }
            files.insert(format!("{name}.tar.gz"), packed);
            files.insert(format!("{name}.cdx.json"), papers.bill.clone());
        }
    }
    match &places.url {
        Some(url) => {
            let path = project.root.join("hack/release/krew.yaml");
            let template = String::from_utf8(crate::read(&path)?)
                .with_context(|| format!("reading {}", path.display()))?;
            let text = krew::manifest(&template, version, url, &plugins)?;
            files.insert("krew.yaml".to_owned(), text.into_bytes());
        }
        None => {
            eprintln!("krew.yaml is left out: it needs to know where the release will be (--url)")
        }
    }
    files.insert(format!("l2lb-{version}.tgz"), chart::package(project)?);
    files.insert(format!("l2lb-crds-{version}.yaml"), definitions(project)?);
    files.insert(format!("l2lb-{version}.yaml"), manifests(project, places)?);
    let sums: String = files
        .iter()
        .map(|(name, bytes)| format!("{}  {name}\n", crate::sha256(bytes)))
        .collect();
    files.insert("SHA256SUMS".to_owned(), sums.into_bytes());

    crate::empty_dir(to)?;
    for (name, bytes) in &files {
        crate::write(&to.join(name), bytes)?;
    }
    Ok(files.into_keys().collect())
}

/// A layout as one file.
fn tree(root: &Path, project: &Project) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        let listing =
            std::fs::read_dir(&path).with_context(|| format!("listing {}", path.display()))?;
        for entry in listing {
            let entry = entry.with_context(|| format!("listing {}", path.display()))?;
            let below = folder.join(entry.file_name());
            let name = below.to_string_lossy().into_owned();
            if entry.path().is_dir() {
                entries.push(Entry::folder(name));
                open.push(below);
            } else {
                entries.push(Entry::file(name, crate::read(&entry.path())?));
            }
        }
    }
    archive::tar(entries, project.seconds())
}

/// The definitions as one file.
fn definitions(project: &Project) -> Result<Vec<u8>> {
    let folder = project.root.join("crds");
    let mut paths = std::fs::read_dir(&folder)
        .and_then(|listing| {
            listing
                .map(|e| Ok(e?.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .with_context(|| format!("listing {}", folder.display()))?;
    paths.sort();
    let mut text = Vec::new();
    for path in paths {
        text.extend_from_slice(b"---\n");
        text.extend(crate::read(&path)?);
    }
    Ok(text)
}

/// The chart's manifests for those who do not use helm.
fn manifests(project: &Project, places: &Places) -> Result<Vec<u8>> {
    let script = project.root.join("hack/tools/build.sh");
    let helm = output(Command::new(&script).args(["--print", "helm"]))?;
    let helm = Path::new(String::from_utf8_lossy(&helm).trim()).join("bin/helm");
    let mut command = Command::new(helm);
    command.current_dir(&project.root).args([
        "template",
        "l2lb",
        "charts/l2lb",
        "--namespace=l2lb-system",
        "--no-hooks",
        // A helm that was built without a release's flags claims an old one.
        "--kube-version=v1.33.0",
    ]);
    match &places.registry {
        Some(registry) => {
            command.arg(format!("--set=image.registry={registry}"));
        }
        None => eprintln!(
            "the plain manifests name the images without a registry, so that nodes look for \
             them at Docker Hub: they need to know where the images will be (--registry)"
        ),
    }
    output(&mut command)
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_owned();
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} ended with {}",
        program.display(),
        output.status
    );
    Ok(output.stdout)
}
