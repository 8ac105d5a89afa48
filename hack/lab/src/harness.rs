//! Tests, each in a process and a lab of its own.
//!
//! ```no_run
//! use l2lb_lab::{LabConfig, harness};
//!
//! fn main() -> std::process::ExitCode {
//!     harness::run(vec![harness::trial("three_nodes", LabConfig::default(), |lab| async move {
//!         assert_eq!(lab.nodes().len(), 3);
//!         Ok(())
//!     })])
//! }
//! ```
//!
//! The test needs `harness = false` in Cargo.toml. It takes the usual
//! arguments of a Rust test: filters, `--list`, `--test-threads`. A trial's
//! output is shown if it fails, with the last lines of every log of its lab;
//! set `L2LB_LAB_SHOW=1` to see it as it comes. `L2LB_TEST_METALLB` names the
//! versions of MetalLB for trials that are made for several: `all`, or some by
//! commas. With `L2LB_TEST_MATRIX` there are trials that take long to prepare.

use std::future::Future;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::pin::Pin;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use libtest_mimic::{Arguments, Failed};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::{Lab, LabConfig, enter, place, tools};

/// Names the trial that a process is to run.
const TRIAL: &str = "L2LB_LAB_TRIAL";
/// Shows trials' output as it comes.
const SHOW: &str = "L2LB_LAB_SHOW";
/// How many lines of each log a failure shows.
const TAIL: usize = 25;
/// How long a lab gets to say why it failed before it is killed.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Names the versions of MetalLB that trials are made for, by commas, or `all`.
const VERSIONS: &str = "L2LB_TEST_METALLB";

/// See [`is_matrix`].
const MATRIX: &str = "L2LB_TEST_MATRIX";

/// The versions of MetalLB to test with: those that `L2LB_TEST_METALLB` names,
/// else the usual ones.
pub fn metallb_versions(usual: &[&str]) -> Vec<String> {
    let owned = |all: &[&str]| all.iter().map(|v| (*v).to_owned()).collect();
    match std::env::var(VERSIONS).unwrap_or_default().as_str() {
        "" => owned(usual),
        "all" => owned(&crate::METALLB_VERSIONS),
        list => list.split(',').map(|v| v.trim().to_owned()).collect(),
    }
}

/// Whether trials that `make test` leaves out run, too: `L2LB_TEST_MATRIX` is set.
pub fn is_matrix() -> bool {
    std::env::var_os(MATRIX).is_some()
}

/// The name of a trial on one version of MetalLB.
pub fn on_version(what: &str, version: &str) -> &'static str {
    // As long as the process, like every trial's name.
    Box::leak(format!("{what}_{}", version.replace('.', "_")).into_boxed_str())
}

type Body = dyn Fn(Lab) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + Sync;

/// A test with a lab.
pub struct Trial {
    name: &'static str,
    config: LabConfig,
    timeout: Duration,
    body: Box<Body>,
}

/// A test that gets a lab of its own.
pub fn trial<F, R>(name: &'static str, config: LabConfig, body: F) -> Trial
where
    F: Fn(Lab) -> R + Send + Sync + 'static,
    R: Future<Output = Result<()>> + Send + 'static,
{
    Trial {
        name,
        config,
        timeout: Duration::from_secs(300),
        body: Box::new(move |lab| Box::pin(body(lab))),
    }
}

impl Trial {
    /// Fails the test if it takes longer; 300 s unless said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn components(&self) -> Vec<String> {
        self.config.components()
    }
}

/// Runs the trials that the program's arguments select.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    if let Some(name) = std::env::var_os(TRIAL) {
        let chosen = trials.into_iter().find(|trial| *trial.name == *name);
        return match chosen.context("there is no such trial").and_then(run_one) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::from_args();
    if !arguments.list {
        let mut components: Vec<String> = trials.iter().flat_map(Trial::components).collect();
        components.sort();
        components.dedup();
        // Here, where progress is seen; the trials find everything in the cache.
        if let Err(error) = tools::build(&components.iter().map(String::as_str).collect::<Vec<_>>())
        {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    }
    let tests = trials
        .into_iter()
        .map(|trial| {
            let (name, timeout) = (trial.name, trial.timeout);
            libtest_mimic::Trial::test(name, move || {
                spawn(name, timeout).map_err(|e| Failed::from(format!("{e:#}")))
            })
        })
        .collect();
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// Runs a trial in a process of its own.
fn spawn(name: &str, timeout: Duration) -> Result<()> {
    let logs = place::target()
        .join("lab")
        .join(format!("{name}-{}", std::process::id()));
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command
        .env(TRIAL, name)
        .env(place::LOGS, &logs)
        .stdin(Stdio::null())
        .process_group(0);
    let (mut reader, writer) = std::io::pipe().context("making a pipe")?;
    if std::env::var_os(SHOW).is_some() {
        drop(writer);
    } else {
        command
            .stdout(writer.try_clone().context("sharing a pipe")?)
            .stderr(writer);
    }
    let mut child = command.spawn().context("starting the trial")?;
    // The command holds the pipe's other end open.
    drop(command);
    let output = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let deadline = Instant::now() + timeout + LAST_WORDS;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for the trial")? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().context("killing the trial")?;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let output = output
        .join()
        .map_err(|_| anyhow!("reading the trial's output panicked"))?;
    if status.success() {
        if std::env::var_os("L2LB_LAB_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&logs);
        }
        return Ok(());
    }
    bail!("{output}\nthe trial ended with {status}")
}

/// Runs a trial in this process, which becomes a lab.
fn run_one(trial: Trial) -> Result<()> {
    // Whoever kills the tests kills the labs.
    if !enter::is_inside() {
        prctl::set_pdeathsig(Signal::SIGKILL).context("tying the trial to the tests")?;
    }
    let components = trial.components();
    enter::enter(&components.iter().map(String::as_str).collect::<Vec<_>>())?;
    crate::logs::log_to_stderr();
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    let outcome = runtime.block_on(async {
        let timeout = trial.timeout;
        let work = async {
            let start = Instant::now();
            let lab = Lab::up(trial.config).await.context("bringing the lab up")?;
            eprintln!("lab up after {:.1} s", start.elapsed().as_secs_f64());
            tokio::spawn((trial.body)(lab))
                .await
                .map_err(|error| anyhow!("the test panicked: {error}"))?
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(anyhow!("the test takes longer than {timeout:?}")),
        }
    });
    if let Err(error) = &outcome {
        eprintln!(
            "{}\n{error:#}",
            crate::logs::tails(&place::logs_dir(), TAIL)
        );
    }
    // Nothing is worth waiting for: the namespaces end with this process.
    std::process::exit(i32::from(outcome.is_err()))
}
