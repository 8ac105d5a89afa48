//! The admission webhook: a separate program that reads the cluster by
//! watches, judges what is to be stored by the library's rules
//! ([`l2lb::admission`]), and looks after its own certificate.

mod args;
pub mod certificate;
mod metrics;
mod serve;
mod state;

pub use args::Args;

use std::time::Duration;

use kube::Client;
use l2lb::controller::http::{self, Health};
use l2lb::controller::metrics::Metrics;
use l2lb::controller::{connect, on_signals, watch};
use l2lb::world::Options;
use tokio::sync::mpsc;
use tracing::{error, info};

use self::certificate::bundle::Terms;
use self::certificate::{Current, Keeper, follow_files};
use self::metrics::Reviews;
use self::serve::{App, Server};
use self::state::State;

/// News that may wait; the watches wait when it is full.
const NEWS: usize = 1024;

/// Runs the webhook until it is told to end.
///
/// # Errors
/// A sentence for a person: why it could not start, or had to end.
pub async fn run(args: Args) -> Result<(), String> {
    let drain = on_signals()?;
    let probes = http::bind(args.listen).await?;
    let listener = serve::bind(args.webhook_listen)?;
    let client = connect().await?;
    let metrics = Metrics::watching("webhook");
    let reviews = Reviews::new(&metrics);
    let health = Health::new();
    if let Some(probes) = probes {
        info!(listen = %args.listen, "probes and metrics");
        tokio::spawn(http::serve(probes, health.clone(), metrics.clone()));
    }
    let current = Current::default();
    let mut certificate = start_certificate(&args, &client, &current, &reviews);
    let state = State::new(Options {
        metallb_namespace: args.metallb_namespace.clone(),
        ignore_exclude_label: args.ignore_exclude_lb,
        ..Options::default()
    });
    let (sender, news) = mpsc::channel(NEWS);
    let source = watch::Source {
        client: client.clone(),
        metallb_namespace: args.metallb_namespace.clone(),
        news: sender,
        metrics,
    };
    let _watches = watch::start(&source, state::KINDS);
    drop(source);
    let mut following = tokio::spawn(state.clone().follow(news));
    let app = App {
        state: state.clone(),
        client: Some(client),
        reviews: reviews.clone(),
    };
    let server = Server::start(listener, &current, serve::router(app))?;
    info!(listen = %args.webhook_listen, "reviews");
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let ended = loop {
        tokio::select! {
            biased;
            () = drain.cancelled() => break Ok(()),
            _ = &mut following => break Err("the watches have ended".to_owned()),
            why = &mut certificate => {
                break Err(format!("the certificate: {}", why.unwrap_or_else(|e| e.to_string())));
            }
            _ = tick.tick() => judge_readiness(&health, &state, &current, &reviews),
        }
    };
    match &ended {
        Ok(()) => {
            health.set(false, "ending");
            // The API servers must have heard that nobody is here any more.
            tokio::time::sleep(args.drain).await;
        }
        Err(why) => error!(why, "ending"),
    }
    server.stop().await;
    ended
}

fn judge_readiness(health: &Health, state: &State, current: &Current, reviews: &Reviews) {
    let missing = state.missing();
    let until = current.until();
    if let Some(until) = until {
        reviews.expires(until);
    }
    if !missing.is_empty() {
        health.set(false, format!("waiting for {}", missing.join(", ")));
    } else if until.is_none_or(|until| until <= jiff::Timestamp::now()) {
        health.set(false, "waiting for a certificate that is good");
    } else {
        health.set(true, "answering reviews");
        reviews.ready(true);
        return;
    }
    reviews.ready(false);
}

/// The metrics of a webhook that has done a bit of everything, as OpenMetrics
/// text, for the documentation.
///
/// # Errors
/// Those of formatting.
pub fn example_metrics() -> Result<String, std::fmt::Error> {
    let metrics = Metrics::watching("webhook");
    let _reviews = Reviews::new(&metrics);
    metrics.heard("Node", "listed");
    metrics.watches("Node");
    metrics.text()
}

/// Looks after the certificate; ends with a sentence when that is not possible.
fn start_certificate(
    args: &Args,
    client: &Client,
    current: &Current,
    reviews: &Reviews,
) -> tokio::task::JoinHandle<String> {
    let every = args.certificate_check;
    if let (Some(certificate), Some(key)) = (&args.certificate_file, &args.key_file) {
        let following = follow_files(
            current.clone(),
            certificate.clone(),
            key.clone(),
            every,
            reviews.certificate_errors(),
        );
        return tokio::spawn(async move {
            following
                .await
                .err()
                .unwrap_or_else(|| "the files are no longer read".to_owned())
        });
    }
    let namespace = args
        .namespace
        .as_deref()
        .unwrap_or(client.default_namespace());
    let service = &args.service;
    let terms = Terms {
        leaf: args.certificate_life,
        ca: args.ca_life,
        settle: args.ca_settle,
        names: vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
            service.clone(),
        ],
    };
    let keeper = Keeper::new(
        client,
        namespace,
        &args.secret,
        &args.webhook_configurations,
        terms,
        current.clone(),
    );
    let errors = reviews.certificate_errors();
    tokio::spawn(async move {
        keeper.run(every, &errors).await;
        "it is no longer looked after".to_owned()
    })
}
