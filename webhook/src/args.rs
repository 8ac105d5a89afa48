//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use l2lb::controller::args::{Log, duration, positive};
use l2lb::controller::http::Listen;

/// Judges L2AddressPools and L2LoadBalancers before they are stored: is there
/// an address for every balancer node, does anything overlap, may this
/// namespace do that. It answers in sentences with numbers and remedies.
///
/// It reads the cluster and writes nothing but its own certificate Secret and
/// the caBundle of its webhook configurations. Several may run. The first
/// SIGTERM lets it finish what is being asked; the second ends it at once.
#[derive(Clone, Debug, Parser)]
#[command(name = "l2lb-webhook", version, max_term_width = 100)]
pub struct Args {
    /// Where reviews are answered, with TLS.
    #[arg(
        long,
        env = "L2LB_WEBHOOK_LISTEN",
        default_value = "0.0.0.0:9443",
        value_name = "ADDRESS:PORT"
    )]
    pub webhook_listen: SocketAddr,

    /// Where /healthz, /readyz and /metrics are served; 0 for nowhere.
    #[arg(
        long,
        env = "L2LB_LISTEN",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: Listen,

    /// The namespace that MetalLB runs in and reads its configuration from.
    #[arg(
        long,
        env = "L2LB_METALLB_NAMESPACE",
        default_value = "metallb-system",
        value_name = "NAME"
    )]
    pub metallb_namespace: String,

    /// Say that MetalLB's speakers run with --ignore-exclude-lb, as to the controller.
    #[arg(long, env = "L2LB_IGNORE_EXCLUDE_LB")]
    pub ignore_exclude_lb: bool,

    /// Certificate file in PEM, with its chain; it is read again when it
    /// changes. Without it the certificate is made and renewed here, and kept
    /// in a Secret.
    #[arg(
        long,
        env = "L2LB_CERTIFICATE_FILE",
        value_name = "FILE",
        requires = "key_file"
    )]
    pub certificate_file: Option<PathBuf>,

    /// Key file in PEM, for --certificate-file.
    #[arg(
        long,
        env = "L2LB_KEY_FILE",
        value_name = "FILE",
        requires = "certificate_file"
    )]
    pub key_file: Option<PathBuf>,

    /// The namespace of the Secret and of the Service. Default: that of the
    /// pod or of the kubeconfig's context.
    #[arg(long, env = "L2LB_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// The Secret that the certificate is kept in.
    #[arg(
        long,
        env = "L2LB_SECRET",
        default_value = "l2lb-webhook-certificate",
        value_name = "NAME"
    )]
    pub secret: String,

    /// The Service by which the API server calls.
    #[arg(
        long,
        env = "L2LB_SERVICE",
        default_value = "l2lb-webhook",
        value_name = "NAME"
    )]
    pub service: String,

    /// The ValidatingWebhookConfigurations whose caBundle is kept. May be
    /// repeated or separated by commas.
    #[arg(
        long = "webhook-configuration",
        env = "L2LB_WEBHOOK_CONFIGURATIONS",
        default_values = ["l2lb", "l2lb-advice"],
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub webhook_configurations: Vec<String>,

    /// How long a certificate is good; it is renewed at two thirds.
    #[arg(long, env = "L2LB_CERTIFICATE_LIFE", default_value = "2160h", value_parser = positive, value_name = "TIME")]
    pub certificate_life: Duration,

    /// How long a CA is good; it is renewed at two thirds.
    #[arg(long, env = "L2LB_CA_LIFE", default_value = "17520h", value_parser = positive, value_name = "TIME")]
    pub ca_life: Duration,

    /// How long a new CA is in the caBundle before a certificate of it is
    /// used: every API server must have heard of it.
    #[arg(long, env = "L2LB_CA_SETTLE", default_value = "60s", value_parser = positive, value_name = "TIME")]
    pub ca_settle: Duration,

    /// How often the Secret and the configurations are looked at.
    #[arg(long, env = "L2LB_CERTIFICATE_CHECK", default_value = "10s", value_parser = positive, value_name = "TIME")]
    pub certificate_check: Duration,

    /// How long reviews are still answered after the first signal, until no
    /// API server sends any.
    #[arg(long, env = "L2LB_DRAIN", default_value = "5s", value_parser = drain, value_name = "TIME")]
    pub drain: Duration,

    /// What is logged, and how.
    #[command(flatten)]
    pub log: Log,
}

fn drain(text: &str) -> Result<Duration, String> {
    Duration::try_from(duration(text)?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_sound_and_has_defaults() {
        Args::command().debug_assert();
        let args = Args::parse_from(["l2lb-webhook"]);
        assert_eq!(args.webhook_configurations, ["l2lb", "l2lb-advice"]);
        assert!(Args::try_parse_from(["l2lb-webhook", "--key-file=x"]).is_err());
    }
}
