//! The cluster of the kubeconfig: how to reach it, and its world, read once or
//! again and again.

mod again;
mod read;

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::world::Options;
#[cfg(test)]
pub(super) use again::ANEW;
pub(super) use again::{Kept, Nodes, within};
pub(super) use read::{Unread, Unreadable, is_forbidden, kinds, list_all};

/// Which cluster, and where its MetalLB is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Target {
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// File with the kubeconfig [default: KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of MetalLB
    #[arg(long, value_name = "NAME", default_value = "metallb-system")]
    metallb_namespace: String,
    /// Say that MetalLB's speakers run with --ignore-exclude-lb
    #[arg(long)]
    ignore_exclude_lb: bool,
}

impl Target {
    /// The planner's settings.
    pub fn options(&self) -> Options {
        Options {
            metallb_namespace: self.metallb_namespace.clone(),
            ignore_exclude_label: self.ignore_exclude_lb,
            ..Options::default()
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// A sentence that names the cluster.
    pub async fn connect(&self) -> Result<Cluster, String> {
        let unknown = |error: String| {
            format!("no cluster is known: {error}; set KUBECONFIG, or name a file by --kubeconfig")
        };
        let config = if self.context.is_none() && self.kubeconfig.is_none() {
            Config::infer().await.map_err(|e| unknown(e.to_string()))?
        } else {
            let kubeconfig = match &self.kubeconfig {
                Some(path) => Kubeconfig::read_from(path),
                None => Kubeconfig::read(),
            };
            let options = KubeConfigOptions {
                context: self.context.clone(),
                ..KubeConfigOptions::default()
            };
            let kubeconfig = kubeconfig.map_err(|e| unknown(e.to_string()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|e| unknown(e.to_string()))?
        };
        let (url, namespace) = (config.cluster_url.clone(), config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| format!("cannot connect to {url}: {error}"))?;
        Ok(Cluster {
            client,
            namespace,
            options: self.options(),
        })
    }
}

/// A cluster that is connected to.
pub(super) struct Cluster {
    pub client: Client,
    /// The namespace of the kubeconfig's context.
    pub namespace: String,
    pub options: Options,
}

/// Runs something that talks to the cluster.
///
/// # Errors
/// That of `work`.
pub(super) fn run<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(work)
}
