//! Bills of materials: what a program was made of, as CycloneDX.
//! <https://cyclonedx.org/docs/1.5/json/>
//!
//! They hold no time and no serial number, so that the same program has the
//! same bill.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use cargo_metadata::Package;
use cyclonedx_bom::external_models::normalized_string::NormalizedString;
use cyclonedx_bom::external_models::spdx::SpdxExpression;
use cyclonedx_bom::external_models::uri::Purl;
use cyclonedx_bom::models::bom::{Bom, SpecVersion};
use cyclonedx_bom::models::component::{Classification, Component, Components, Scope};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata as BomMetadata;
use cyclonedx_bom::models::property::{Properties, Property};

use crate::build::{Built, Program};
use crate::packages::Packages;
use crate::project::Project;
use crate::trust;

/// The bill of materials of a program.
pub fn bill(
    project: &Project,
    packages: &Packages,
    built: &Built,
    program: &Program,
) -> Result<Vec<u8>> {
    let root = packages.named(program.package)?;
    let mut itself = component(Classification::Application, program.name, &project.version);
    itself.description = Some(NormalizedString::new(program.description));
    itself.licenses = licences("Apache-2.0");
    itself.hashes = Some(Hashes(vec![Hash {
        alg: HashAlgorithm::SHA_256,
        content: HashValue(crate::sha256(&built.read(program)?)),
    }]));

    let mut components = BTreeMap::new();
    let mut dependencies = BTreeMap::new();
    let mut needed_by_itself = Vec::new();
    let found = packages.closure(&root.id)?;
    for (id, linked) in &found {
        let package = packages.package(id)?;
        let mut needs: Vec<String> = packages
            .edges(id)
            .map(|(id, _)| Ok(reference(packages.package(id)?)))
            .collect::<Result<_>>()?;
        // A program is its package.
        if *id == root.id {
            needed_by_itself.append(&mut needs);
            continue;
        }
        needs.sort();
        dependencies.insert(reference(package), needs);
        let scope = if *linked {
            Scope::Required
        } else {
            Scope::Excluded
        };
        components.insert(reference(package), of(package, scope)?);
    }
    let mut more = toolchain(built)?;
    if program.in_image {
        more.push(certificates(packages)?);
    }
    for component in more {
        let name = component.bom_ref.clone().unwrap_or_default();
        needed_by_itself.push(name.clone());
        components.insert(name, component);
    }
    needed_by_itself.sort();
    dependencies.insert(itself.bom_ref.clone().unwrap_or_default(), needed_by_itself);

    let bom = Bom {
        version: 1,
        serial_number: None,
        spec_version: SpecVersion::V1_5,
        metadata: Some(BomMetadata {
            component: Some(itself),
            properties: Some(Properties(vec![
                Property::new("l2lb:target", built.platform.triple),
                Property::new("l2lb:compiler", &built.rustc),
            ])),
            ..BomMetadata::default()
        }),
        components: Some(Components(components.into_values().collect())),
        dependencies: Some(Dependencies(
            dependencies
                .into_iter()
                .map(|(dependency_ref, dependencies)| Dependency {
                    dependency_ref,
                    dependencies,
                })
                .collect(),
        )),
        ..Bom::default()
    };
    let mut text = Vec::new();
    bom.output_as_json_v1_5(&mut text)
        .with_context(|| format!("writing the bill of materials of {}", program.name))?;
    text.push(b'\n');
    Ok(text)
}

fn component(kind: Classification, name: &str, version: &str) -> Component {
    Component::new(kind, name, version, Some(format!("{name}@{version}")))
}

fn reference(package: &Package) -> String {
    format!("{}@{}", package.name, package.version)
}

fn of(package: &Package, scope: Scope) -> Result<Component> {
    let (name, version) = (package.name.as_str(), package.version.to_string());
    let mut component = component(Classification::Library, name, &version);
    // Those of this workspace are published nowhere.
    if package.source.is_some() {
        component.purl = Some(purl("cargo", name, &version)?);
    }
    component.licenses = package.license.as_deref().and_then(licences);
    component.scope = Some(scope);
    Ok(component)
}

fn purl(kind: &str, name: &str, version: &str) -> Result<Purl> {
    Purl::new(kind, name, version).with_context(|| format!("naming {name} {version}"))
}

/// Cargo's expressions may have a slash for "or".
fn licences(expression: &str) -> Option<Licenses> {
    let expression = SpdxExpression::parse_lax(expression.to_owned()).ok()?;
    Some(Licenses(vec![LicenseChoice::Expression(expression)]))
}

/// What compilers bring along: Rust's standard library, and the C library.
fn toolchain(built: &Built) -> Result<Vec<Component>> {
    let version = built.rustc.split(' ').nth(1).unwrap_or_default();
    let mut std = component(Classification::Library, "rust-std", version);
    std.purl = Some(purl("generic", "rust-std", version)?);
    std.licenses = licences("MIT OR Apache-2.0");
    let banner = crate::build::c_library(built.platform)?;
    let version = banner.rsplit(' ').next().unwrap_or_default();
    let mut libc = component(Classification::Library, "glibc", version);
    libc.description = Some(NormalizedString::new(&banner));
    libc.purl = Some(purl("generic", "glibc", version)?);
    libc.licenses = licences("LGPL-2.1-or-later");
    Ok([std, libc]
        .into_iter()
        .map(|component| Component {
            scope: Some(Scope::Required),
            ..component
        })
        .collect())
}

/// The certificate authorities, which are data.
fn certificates(packages: &Packages) -> Result<Component> {
    let mut component = of(packages.named(trust::CRATE)?, Scope::Required)?;
    component.component_type = Classification::Data;
    Ok(component)
}
