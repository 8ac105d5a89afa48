//! The command line.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;

use super::http::Listen;
use crate::world::Options;

/// Turns each L2LoadBalancer into one LoadBalancer Service for each balancer
/// node, each with its own address, announced by its own node, through MetalLB.
///
/// With KUBECONFIG (or ~/.kube/config) and no flags it works from outside a
/// cluster; in a pod it uses its ServiceAccount. Several may run: one holds a
/// Lease and works, the others stand by. It is never in the data path: while
/// it is down, traffic and MetalLB's failover go on.
///
/// The first SIGTERM or SIGINT lets it finish what is being written and hands
/// the Lease on; the second ends it at once.
#[derive(Clone, Debug, Parser)]
#[command(name = "l2lb-controller", version, max_term_width = 100)]
pub struct Args {
    /// The namespace that MetalLB runs in and reads its configuration from.
    #[arg(
        long,
        env = "L2LB_METALLB_NAMESPACE",
        default_value = "metallb-system",
        value_name = "NAME"
    )]
    pub metallb_namespace: String,

    /// How long a node must be well again before its addresses return to it.
    #[arg(long, env = "L2LB_HOLD_DOWN", default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub hold_down: SignedDuration,

    /// Say that MetalLB's speakers run with --ignore-exclude-lb: nodes labelled
    /// node.kubernetes.io/exclude-from-external-load-balancers announce too.
    #[arg(long, env = "L2LB_IGNORE_EXCLUDE_LB")]
    pub ignore_exclude_lb: bool,

    /// The namespace of the Lease. Default: that of the pod or of the
    /// kubeconfig's context.
    #[arg(long, env = "L2LB_LEASE_NAMESPACE", value_name = "NAME")]
    pub lease_namespace: Option<String>,

    /// The name of the Lease.
    #[arg(
        long,
        env = "L2LB_LEASE_NAME",
        default_value = "l2lb-controller",
        value_name = "NAME"
    )]
    pub lease_name: String,

    /// How long the Lease is good after its holder was last heard of.
    #[arg(long, env = "L2LB_LEASE_DURATION", default_value = "15s", value_parser = lease_duration, value_name = "TIME")]
    pub lease_duration: Duration,

    /// How often the Lease is renewed; at most a third of its duration.
    #[arg(long, env = "L2LB_LEASE_RENEW", default_value = "5s", value_parser = positive, value_name = "TIME")]
    pub lease_renew: Duration,

    /// Work without a Lease. Never run two controllers in this way: they
    /// would give out one address twice.
    #[arg(long, env = "L2LB_NO_LEADER_ELECTION")]
    pub no_leader_election: bool,

    /// Where /healthz, /readyz and /metrics are served; 0 for nowhere.
    #[arg(
        long,
        env = "L2LB_LISTEN",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: Listen,

    /// Take the finalizers of all L2AddressPools off, and end: for when no
    /// controller will run any more. Pools, load balancers and their Services
    /// stay.
    #[arg(long)]
    pub release_pools: bool,

    /// What is logged, and how.
    #[command(flatten)]
    pub log: Log,
}

/// What is logged, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Log {
    /// Form of the log.
    #[arg(long, env = "L2LB_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, also by module, as
    /// in info,l2lb::controller::watch=debug.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log_level: String,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Args {
    /// The planner's settings.
    pub fn options(&self) -> Options {
        Options {
            metallb_namespace: self.metallb_namespace.clone(),
            hold_down: self.hold_down,
            ignore_exclude_label: self.ignore_exclude_lb,
        }
    }
}

impl Log {
    /// Starts logging to standard error.
    ///
    /// # Errors
    /// A sentence, when the filter cannot be read.
    pub fn start(&self) -> Result<(), String> {
        let filter = EnvFilter::try_new(&self.log_level).map_err(|error| {
            format!(
                "--log-level (or RUST_LOG) {:?} cannot be read: {error}",
                self.log_level
            )
        })?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let started = match self.log_format {
            LogFormat::Text => builder.with_target(false).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| error.to_string())
    }
}

/// Reads a time that is not negative, as in 10s.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<SignedDuration>() {
        Ok(duration) if !duration.is_negative() => Ok(duration),
        Ok(_) => Err("it must not be negative".to_owned()),
        Err(_) => Err("expected a time, as in 10s or 1m30s".to_owned()),
    }
}

/// Reads a time of a second or more.
///
/// # Errors
/// What is wrong with it.
pub fn positive(text: &str) -> Result<Duration, String> {
    let duration = Duration::try_from(duration(text)?).map_err(|error| error.to_string())?;
    if duration < Duration::from_secs(1) {
        return Err("it must be at least 1s".to_owned());
    }
    Ok(duration)
}

/// A write may take 5 seconds, for which the Lease must still be good.
fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = positive(text)?;
    if duration < Duration::from_secs(12) {
        return Err("it must be at least 12s: a write may take 5s".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_sound_and_has_defaults() {
        Args::command().debug_assert();
        let args = Args::parse_from(["l2lb-controller"]);
        assert_eq!(args.options(), Options::default());
        assert_eq!(args.lease_duration, Duration::from_secs(15));
    }

    #[test]
    fn bad_times_are_explained() {
        for (flag, says) in [
            ("--hold-down=soon", "as in 10s"),
            ("--hold-down=-1s", "negative"),
            ("--lease-duration=3s", "at least 12s"),
            ("--listen=8080", "0.0.0.0:8080"),
        ] {
            let error = Args::try_parse_from(["l2lb-controller", flag])
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
