//! The controller.

use std::process::ExitCode;

use clap::Parser;
use l2lb::controller::{self, Args};

/// A plan is made of many small pieces, which take the system's allocator
/// longer than everything else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.log.start() {
        Ok(()) => controller::run(args).await,
        Err(why) => Err(why),
    };
    if let Err(why) = result {
        eprintln!("l2lb-controller: {why}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
