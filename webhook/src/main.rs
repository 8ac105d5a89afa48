//! The admission webhook.

use std::process::ExitCode;

use clap::Parser;
use l2lb_webhook::Args;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.log.start() {
        Ok(()) => l2lb_webhook::run(args).await,
        Err(why) => Err(why),
    };
    if let Err(why) = result {
        eprintln!("l2lb-webhook: {why}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
