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
    let config = || LabConfig {
        tools: vec!["helm".to_owned()],
        ..LabConfig::api_only()
    };
    harness::run(vec![
        harness::trial("messages", config(), messages::run),
        harness::trial("race", config(), race::run),
        harness::trial("rotation", config(), rotation::run).timeout(Duration::from_secs(200)),
    ])
}
