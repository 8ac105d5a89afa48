//! `make demo`: the main job on a real cluster, step by step.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use l2lb_demo::Script;
use l2lb_lab::{Lab, LabConfig};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo failed at {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let config = LabConfig {
        dual_stack: std::env::args().any(|a| a == "--dual-stack"),
        ..LabConfig::default()
    };
    let components = config.components();
    l2lb_lab::enter(&components.iter().map(String::as_str).collect::<Vec<_>>())?;
    let controller = controller()?;
    let script = if config.dual_stack {
        Script::dual_stack(controller)
    } else {
        Script::single_stack(controller)
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        println!(
            "starting etcd, kube-apiserver, kube-controller-manager, kube-proxy and MetalLB {} for \
             {} nodes in network namespaces",
            config.metallb.as_deref().unwrap_or_default(),
            config.nodes
        );
        let lab = Lab::up(config).await?;
        let logs = lab.logs_dir().to_owned();
        l2lb_demo::play(lab, script)
            .await
            .with_context(|| format!("{} (logs of every part)", logs.display()))
    })
}

/// The controller is built beside this program.
fn controller() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("l2lb-controller");
    path.exists()
        .then_some(path)
        .context("l2lb-controller is not built: cargo build --workspace --bins")
}
