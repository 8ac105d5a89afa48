//! `kubectl-l2lb`: the tool for people. Works as a kubectl plugin
//! (`kubectl l2lb`) and alone.

mod render;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-l2lb",
    bin_name = "kubectl l2lb",
    version,
    about = "Look at, try out and steer l2lb load balancers",
    after_help = "As a kubectl plugin this is `kubectl l2lb ...`; it also runs alone as \
                  `kubectl-l2lb ...`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what would be applied, without a cluster
    Render(render::Args),
    /// Print a completion script for a shell
    #[command(after_help = "Example: kubectl-l2lb completion bash > \
                            /etc/bash_completion.d/kubectl-l2lb")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How objects are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// YAML documents
    #[default]
    Yaml,
    /// One JSON List
    Json,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Render(args) => render::run(&args),
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "kubectl-l2lb",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
