//! The Helm chart: what it renders, and its life in a real cluster, in which what
//! the documentation has people say to kubectl is said to it.

mod certificates;
mod life;
mod manifests;
// Of the pages only the commands are wanted here.
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[path = "../docs/pages.rs"]
mod pages;
mod rights;
#[path = "../docs/shell.rs"]
mod shell;

use std::process::ExitCode;
use std::time::Duration;

use l2lb_lab::{LabConfig, harness};
use tokio::runtime::Handle;

fn main() -> ExitCode {
    let manifests = LabConfig {
        tools: ["helm", "helm-unittest", "definitions"]
            .map(str::to_owned)
            .to_vec(),
        ..LabConfig::api_only()
    };
    let mut trials = vec![
        harness::trial("manifests", manifests, manifests::are_valid),
        harness::trial("life", life::config(), |lab| async move {
            // On a thread of its own: its async closures are not Send.
            let here = Handle::current();
            tokio::task::spawn_blocking(move || here.block_on(life::run(lab))).await?
        })
        .timeout(Duration::from_secs(660)),
    ];
    // cert-manager takes minutes to build.
    if harness::is_matrix() {
        let config = certificates::config();
        trials.push(harness::trial("certificates", config, |lab| async move {
            let here = Handle::current();
            tokio::task::spawn_blocking(move || here.block_on(certificates::by_cert_manager(lab)))
                .await?
        }));
    }
    harness::run(trials)
}
