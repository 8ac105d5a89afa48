//! `kubectl-l2lb`: the tool for people. Works as a kubectl plugin
//! (`kubectl l2lb`) and alone.

mod age;
mod check;
mod cluster;
mod complete;
mod convert;
mod diff;
mod drain;
mod export;
#[cfg(test)]
pub(crate) mod golden;
mod lint;
mod merge;
mod output;
mod rebalance;
mod render;
mod simulate;
mod status;
mod table;
mod why;

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
    /// Explain an address: whose it is, who should announce it, and who does
    Why(why::Args),
    /// Look for what keeps addresses from being announced, or will one day
    Check(check::Args),
    /// Hand over what a node announces, and wait until it is gone
    Drain(drain::Args),
    /// Take a drain back, and wait until the node announces its own again
    Undrain(drain::UndrainArgs),
    /// Even out how many addresses nodes are home to
    Rebalance(rebalance::Args),
    /// Show what an apply of files would do to each address
    Diff(diff::Args),
    /// Judge files as the admission webhook would
    Lint(lint::Args),
    /// Show what would be applied, without a cluster
    Render(render::Args),
    /// Write manifests that rebuild the same addresses elsewhere
    Export(export::Args),
    /// Translate manifests of Deckhouse's L2LoadBalancer
    Convert(convert::Args),
    /// Play a history of nodes and load balancers, without a cluster
    Simulate(simulate::Args),
    /// Print a completion script for a shell
    ///
    /// It completes `kubectl-l2lb`. For `kubectl l2lb`, kubectl's own completion
    /// asks a program kubectl_complete-l2lb: link that name to this program.
    #[command(after_help = "Examples:\n  \
        kubectl-l2lb completion bash > /etc/bash_completion.d/kubectl-l2lb\n  \
        ln -s $(which kubectl-l2lb) /usr/local/bin/kubectl_complete-l2lb")]
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
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    if std::path::Path::new(&program).ends_with(complete::NAME) {
        let mut command = Cli::command();
        command.build();
        let answer = complete::answer(&command, &words.collect::<Vec<_>>(), complete::ask);
        return print(&answer).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let command = Cli::parse().command;
    let failure = command.failure();
    match command.run() {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(failure)
        }
    }
}

impl Command {
    /// The exit code of what could not be done. One is taken where it stands
    /// for what was found.
    fn failure(&self) -> u8 {
        match self {
            Self::Check(_) | Self::Diff(_) | Self::Lint(_) => 2,
            _ => 1,
        }
    }

    fn run(self) -> Result<ExitCode, String> {
        let done = |result: Result<(), String>| result.map(|()| ExitCode::SUCCESS);
        match self {
            Self::Status(args) => done(status::run(&args)),
            Self::Why(args) => why::run(&args),
            Self::Check(args) => check::run(&args),
            Self::Drain(args) => done(drain::drain(&args)),
            Self::Undrain(args) => done(drain::undrain(&args)),
            Self::Rebalance(args) => rebalance::run(&args),
            Self::Diff(args) => diff::run(&args),
            Self::Lint(args) => lint::run(&args),
            Self::Render(args) => done(render::run(&args)),
            Self::Export(args) => done(export::run(&args)),
            Self::Convert(args) => done(convert::run(&args)),
            Self::Simulate(args) => done(simulate::run(&args)),
            Self::Completion { shell } => done(print(&completion(shell))),
        }
    }
}

/// A completion script.
fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-l2lb", &mut script);
    let script = String::from_utf8_lossy(&script);
    // For bash, clap_complete writes a program's hyphen in two ways, and nothing
    // after a subcommand is completed: github.com/clap-rs/clap/issues/6421.
    script.replace("kubectl__subcmd__l2lb", "kubectl__l2lb")
}

/// Prints to standard output; a reader that had enough, as in `| head`, is no error.
fn print(text: &str) -> Result<(), String> {
    output::write(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command teaches by examples, and they can be parsed.
    #[test]
    fn examples_in_help_are_commands() {
        let command = Cli::command();
        let mut examples = 0;
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            let help = sub.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_else(|| panic!("{name} has no example"));
            for part in help.split("kubectl l2lb ").skip(1) {
                let end = part
                    .find(['|', '>', '\n', ';', ')', '&'])
                    .unwrap_or(part.len());
                let words = part[..end].split_whitespace();
                let parsed = Cli::try_parse_from(std::iter::once("kubectl-l2lb").chain(words));
                assert!(parsed.is_ok(), "{name}: {part}: {parsed:?}");
                examples += 1;
            }
        }
        assert!(examples > 20, "only {examples}");
    }
}
