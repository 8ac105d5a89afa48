//! The notices of what is linked into a program: who made it, and under which
//! licence, which permissive licences want to be handed on with it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use cargo_metadata::Package;
use spdx::{Expression, ParseMode};

use crate::build::{Built, Program};
use crate::packages::Packages;
use crate::trust;

/// Where archives have them.
pub const PATH: &str = "THIRD-PARTY-NOTICES";

/// How files with a licence or a notice are named.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// What is linked, with whose licences.
#[derive(Debug, Default)]
struct Notices {
    /// A line for each.
    parts: Vec<String>,
    /// Each text, and what it belongs to.
    texts: BTreeMap<String, Vec<String>>,
}

/// The notices of a program.
pub fn notices(packages: &Packages, built: &Built, program: &Program) -> Result<Vec<u8>> {
    let mut all = Notices::default();
    let root = packages.named(program.package)?;
    for (id, linked) in packages.closure(&root.id)? {
        let package = packages.package(&id)?;
        // Those of this workspace are under LICENSE.
        if linked && package.source.is_some() {
            all.package(package)?;
        }
    }
    if program.in_image {
        all.package(packages.named(trust::CRATE)?)?;
    }
    let rust = built.rustc.split(' ').nth(1).unwrap_or_default();
    all.standard(&format!("rust-std {rust}"), "MIT OR Apache-2.0")?;
    let libc = crate::build::c_library(built.platform)?;
    all.standard(&libc, "LGPL-2.1-or-later")?;
    Ok(all.text(program.name).into_bytes())
}

impl Notices {
    fn package(&mut self, package: &Package) -> Result<()> {
        let name = format!("{} {}", package.name, package.version);
        let licence = package
            .license
            .as_deref()
            .with_context(|| format!("{name} names no licence"))?;
        let files = files(package)?;
        if files.is_empty() {
            return self.standard(&name, licence);
        }
        self.part(&name, licence);
        for text in files {
            self.texts.entry(text).or_default().push(name.clone());
        }
        Ok(())
    }

    /// What brings no text along has that of its licences.
    fn standard(&mut self, name: &str, licence: &str) -> Result<()> {
        let expression = Expression::parse_mode(licence, ParseMode::LAX)
            .with_context(|| format!("reading the licence {licence} of {name}"))?;
        self.part(name, licence);
        for required in expression.requirements() {
            let id = required.req.license.id();
            let id =
                id.with_context(|| format!("{name} has a licence without a text: {licence}"))?;
            let text = tidy(id.text());
            self.texts.entry(text).or_default().push(name.to_owned());
        }
        Ok(())
    }

    fn part(&mut self, name: &str, licence: &str) {
        self.parts.push(format!("{name}: {licence}"));
    }

    fn text(mut self, program: &str) -> String {
        self.parts.sort();
        let mut text = format!(
            "{program} is under the Apache License 2.0. These are linked into it:\n\n{}\n",
            self.parts.join("\n")
        );
        // In the order of what they belong to, so that a part's are found.
        let mut texts: Vec<(Vec<String>, String)> = self
            .texts
            .into_iter()
            .map(|(text, mut of)| {
                of.sort();
                of.dedup();
                (of, text)
            })
            .collect();
        texts.sort();
        for (of, licence) in texts {
            let line = "-".repeat(72);
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{line}\n{}:\n\n{licence}", of.join(", "));
        }
        text
    }
}

/// The texts that a package brings along.
fn files(package: &Package) -> Result<Vec<String>> {
    let folder = package
        .manifest_path
        .parent()
        .with_context(|| format!("{} is nowhere", package.name))?;
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {folder}"))? {
        let path = entry.with_context(|| format!("listing {folder}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        if path.is_file() && NAMES.iter().any(|prefix| name.starts_with(prefix)) {
            texts.push(tidy(&String::from_utf8_lossy(&crate::read(&path)?)));
        }
    }
    Ok(texts)
}

/// The same text, however its lines end.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n").trim_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_there_once_with_all_that_it_belongs_to() {
        let mut all = Notices::default();
        all.standard("b 1", "MIT").unwrap();
        all.standard("a 1", "MIT OR Apache-2.0").unwrap();
        let text = all.text("program");
        assert!(
            text.contains("\na 1: MIT OR Apache-2.0\nb 1: MIT\n"),
            "{text}"
        );
        assert_eq!(text.matches("Permission is hereby granted").count(), 1);
        assert!(text.contains("\na 1, b 1:\n"), "{text}");
        assert!(text.contains("\na 1:\n"), "{text}");
    }

    #[test]
    fn a_licence_that_has_no_text_is_an_error() {
        let error = Notices::default().standard("a 1", "LicenseRef-own");
        assert!(format!("{:#}", error.unwrap_err()).contains("a 1"));
    }

    #[test]
    fn line_endings_do_not_matter() {
        assert_eq!(tidy("\r\na \r\nb"), tidy("a\nb\n\n"));
    }
}
