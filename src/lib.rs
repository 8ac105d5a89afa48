//! Fans one LoadBalancer out over many nodes: MetalLB's L2 mode with one
//! address and one Service for each balancer node.
//!
//! ```text
//! watches -> World -> plan() -> Plan -> diff against the World -> writer
//! ```

pub mod address;
pub mod admission;
pub mod api;
pub mod check;
pub mod cli;
pub mod controller;
mod duration;
pub mod external_dns;
pub mod manifest;
pub mod metallb;
pub mod plan;
pub mod render;
pub mod selector;
pub mod simulate;
pub mod world;
