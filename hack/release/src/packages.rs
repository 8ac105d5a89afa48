//! The packages that programs are made of, as cargo knows them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId, TargetKind};

use crate::build::Built;
use crate::project::Project;

/// What cargo knows of every package that is built for a platform.
#[derive(Debug)]
pub struct Packages {
    by_id: BTreeMap<PackageId, Package>,
    /// The packages that each needs, and whether while it is built alone.
    needs: BTreeMap<PackageId, Vec<(PackageId, bool)>>,
    /// What was really compiled.
    compiled: BTreeSet<PackageId>,
}

impl Packages {
    /// Asks cargo.
    pub fn read(project: &Project, built: &Built) -> Result<Self> {
        let filter = format!("--filter-platform={}", built.platform.triple);
        let metadata: Metadata = MetadataCommand::new()
            .current_dir(&project.root)
            .other_options(["--locked".to_owned(), filter])
            .exec()
            .context("asking cargo for the packages")?;
        let resolve = metadata.resolve.context("cargo resolved nothing")?;
        let mut needs = BTreeMap::new();
        for node in resolve.nodes {
            let mut edges = Vec::new();
            for dependency in node.deps {
                let kinds = || dependency.dep_kinds.iter().map(|kind| kind.kind);
                if kinds().any(|kind| kind == DependencyKind::Normal) {
                    edges.push((dependency.pkg, false));
                } else if kinds().any(|kind| kind == DependencyKind::Build) {
                    edges.push((dependency.pkg, true));
                }
            }
            needs.insert(node.id, edges);
        }
        Ok(Self {
            by_id: metadata
                .packages
                .into_iter()
                .map(|package| (package.id.clone(), package))
                .collect(),
            needs,
            compiled: built.packages.clone(),
        })
    }

    /// The package of a name.
    pub(crate) fn named(&self, name: &str) -> Result<&Package> {
        self.by_id
            .values()
            .find(|package| package.name == name)
            .with_context(|| format!("there is no package {name}"))
    }

    /// A package.
    pub(crate) fn package(&self, id: &PackageId) -> Result<&Package> {
        self.by_id
            .get(id)
            .with_context(|| format!("cargo does not know {id}"))
    }

    /// What a package needs of what was compiled, and whether while it is
    /// built alone.
    pub(crate) fn edges(&self, id: &PackageId) -> impl Iterator<Item = &(PackageId, bool)> {
        // The workspace's other members want features that this build lacks.
        let compiled = |(id, _): &&(PackageId, bool)| self.compiled.contains(id);
        self.needs.get(id).into_iter().flatten().filter(compiled)
    }

    /// What a package is made of, and whether it is linked: the rest runs
    /// while it is built.
    pub(crate) fn closure(&self, root: &PackageId) -> Result<BTreeMap<PackageId, bool>> {
        let mut found: BTreeMap<PackageId, bool> = BTreeMap::new();
        let mut open = vec![(root.clone(), true)];
        while let Some((id, linked)) = open.pop() {
            if found.get(&id).is_some_and(|before| *before || !linked) {
                continue;
            }
            found.insert(id.clone(), linked);
            for (needed, for_build) in self.edges(&id) {
                let is_macro = self
                    .package(needed)?
                    .targets
                    .iter()
                    .any(|target| target.kind.contains(&TargetKind::ProcMacro));
                open.push((needed.clone(), linked && !for_build && !is_macro));
            }
        }
        Ok(found)
    }
}
