//! The webhook under a real API server, called through a Service reference.

#[path = "lab/cluster.rs"]
mod cluster;
#[path = "lab/messages.rs"]
mod messages;
#[path = "lab/race.rs"]
mod race;
#[path = "lab/rotation.rs"]
mod rotation;

use std::process::ExitCode;
use std::time::Duration;

use l2lb_lab::{LabConfig, harness};

fn main() -> ExitCode {
    harness::run(vec![
        harness::trial("messages", LabConfig::api_only(), messages::run),
        harness::trial("race", LabConfig::api_only(), race::run),
        harness::trial("rotation", LabConfig::api_only(), rotation::run)
            .timeout(Duration::from_secs(200)),
    ])
}
