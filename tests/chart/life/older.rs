//! A release before this one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use l2lb::manifest;
use l2lb_lab::Lab;

/// The chart as an older release could have been: its definition of
/// L2LoadBalancer lacks a field.
pub(super) fn release() -> Result<PathBuf> {
    let to = PathBuf::from("/run/lab/older");
    copy(&Lab::chart(), &to)?;
    let chart = to.join("Chart.yaml");
    let text = std::fs::read_to_string(&chart)?;
    let older = text.replace("\nversion: ", "\nversion: 0.0.1-before-");
    ensure!(older != text, "Chart.yaml has no version");
    std::fs::write(&chart, older)?;
    let file = to.join("files/crds/l2loadbalancers.l2lb.io.yaml");
    let objects = manifest::parse("the definition", &std::fs::read_to_string(&file)?)?;
    let mut definition = objects
        .first()
        .context("there is no definition")?
        .value
        .clone();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let spec = definition
        .pointer_mut(spec)
        .context("the definition has no spec")?;
    let fields = spec["properties"]
        .as_object_mut()
        .context("it has no fields")?;
    fields
        .remove("addresses")
        .context("the field is not there")?;
    std::fs::write(&file, definition.to_string())?;
    Ok(to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
