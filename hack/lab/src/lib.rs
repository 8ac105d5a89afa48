//! A whole real cluster on one machine, in network namespaces of its own.
//!
//! Every program of the cluster is the real one, run as a plain process:
//! etcd, kube-apiserver, kube-controller-manager, kube-proxy, and MetalLB's
//! controller and speakers. Every machine of the cluster, and a client
//! outside it, is a network namespace on one Ethernet segment. The lab itself
//! plays scheduler and kubelet.
//!
//! ```no_run
//! fn main() -> anyhow::Result<()> {
//!     let config = l2lb_lab::LabConfig::default();
//!     let components = config.components();
//!     l2lb_lab::enter(&components.iter().map(String::as_str).collect::<Vec<_>>())?;
//!     tokio::runtime::Runtime::new()?.block_on(async {
//!         let lab = l2lb_lab::Lab::up(config).await?;
//!         println!("{}", lab.kubectl().run(["get", "nodes"]).await?);
//!         Ok(())
//!     })
//! }
//! ```
//!
//! Tests use [`harness`], which gives each test a lab of its own.

mod cluster;
mod control_plane;
mod enter;
pub mod harness;
mod helm;
mod http;
mod kubectl;
mod kubelet;
mod lab;
mod logs;
mod machines;
mod metallb;
mod netns;
mod node;
mod outside;
mod pki;
pub mod place;
mod plugin;
mod pod;
mod probe;
mod process;
mod programs;
mod sandbox;
mod segment;
mod tools;
pub mod topology;
mod unpacked;

pub use enter::{Interrupt, enter, enter_with, is_inside};
pub use http::{Connection, Response};
pub use kubectl::Kubectl;
pub use lab::{Image, Lab, LabConfig, METALLB, METALLB_VERSIONS};
pub use logs::{Request, log_tails, log_to_stderr};
pub use metallb::NAMESPACE as METALLB_NAMESPACE;
pub use netns::Netns;
pub use pki::Certificate;
pub use pod::BACKEND_IMAGE;
pub use probe::{Attempt, Probe};
pub use process::{Process, Spec};
pub use segment::Answer;
pub use tools::build as build_tools;
