//! `kubectl-l2lb`, a kubectl plugin that also runs alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    l2lb::cli::main()
}
