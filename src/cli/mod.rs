//! `kubectl-l2lb`: the tool for people. Works as a kubectl plugin
//! (`kubectl l2lb`) and alone.

mod age;
mod cluster;
#[cfg(test)]
mod golden;
mod lint;
mod output;
mod rebalance;
mod render;
mod simulate;
mod status;
mod table;

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
    /// Show load balancers by slot, pools by use, and nodes
    Status(status::Args),
    /// Show what would be applied, without a cluster
    Render(render::Args),
    /// Judge files as the admission webhook would
    Lint(lint::Args),
    /// Play a history of nodes and load balancers, without a cluster
    Simulate(simulate::Args),
    /// Even out how many addresses nodes are home to
    Rebalance(rebalance::Args),
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

/// The command line as a whole, for documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Status(args) => status::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Render(args) => render::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Simulate(args) => simulate::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Rebalance(args) => rebalance::run(&args),
        Command::Lint(args) => match lint::run(&args) {
            Err(message) => {
                // One is for what was judged and denied.
                eprintln!("error: {message}");
                return ExitCode::from(2);
            }
            judged => judged,
        },
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "kubectl-l2lb",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output; a reader that had enough, as in `| head`, is no error.
fn print(text: &str) -> Result<(), String> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| format!("standard output: {e}")),
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
