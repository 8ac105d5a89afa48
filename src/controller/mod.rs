//! The controller: watches, the loop, writes, leader election and probes.
//!
//! ```text
//! watch -> News -> View (World + freshness) -> Planner -> Round -> Batch -> Writer
//!                    ^                                                        |
//!                    +------------------------ Answer ------------------------+
//! ```
//!
//! [`view`] and [`batch`] are synchronous and without I/O; the model test
//! drives them against a store in memory.

pub mod answer;
pub mod args;
pub mod batch;
mod events;
pub mod http;
mod lease;
pub mod metrics;
mod release;
pub mod resource;
mod run;
pub mod view;
pub mod watch;
mod write;

pub use args::Args;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use kube::{Api, Client, Config};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::events::Events;
use self::http::Health;
use self::lease::{Leadership, Standing, Terms};
use self::metrics::Metrics;
use self::run::{Loop, Pace, Parts};
use self::write::Writer;

/// News that may wait for the loop; the watches wait when it is full.
const NEWS: usize = 1024;

/// Runs the controller until it is told to end.
///
/// # Errors
/// A sentence for a person: why it could not start, or had to end.
pub async fn run(args: Args) -> Result<(), String> {
    if args.release_pools {
        return release::release_pools(connect().await?).await;
    }
    let drain = on_signals()?;
    let listener = http::bind(args.listen).await?;
    let client = connect().await?;
    let metrics = Metrics::new();
    let health = Health::new();
    if let Some(listener) = listener {
        info!(listen = %args.listen, "probes and metrics");
        tokio::spawn(http::serve(listener, health.clone(), metrics.clone()));
    }
    let identity = identity();
    let release = CancellationToken::new();
    let (mut leadership, election) = if args.no_leader_election {
        (Leadership::always(), None)
    } else {
        let namespace = args
            .lease_namespace
            .as_deref()
            .unwrap_or(client.default_namespace());
        let api = Api::namespaced(client.clone(), namespace);
        info!(
            lease = args.lease_name,
            namespace, identity, "taking part in the election"
        );
        let (leadership, task) = lease::start(api, terms(&args, &identity), release.clone());
        (leadership, Some(task))
    };
    let mut ended = Ok(());
    let mut may_release = true;
    if stand_by(&mut leadership, &health, &drain).await? {
        metrics.leads(true);
        health.set(false, "starting to watch");
        let (sender, news) = mpsc::channel(NEWS);
        let source = watch::Source {
            client: client.clone(),
            metallb_namespace: args.metallb_namespace.clone(),
            news: sender,
            metrics: metrics.clone(),
        };
        // Watches begin after the Lease was taken, so that what is listed is
        // not older than the last write of the leader before.
        let _watches = watch::start(&source, resource::KINDS);
        drop(source.news);
        let parts = Parts {
            writer: Writer::new(client.clone(), leadership.clone(), metrics.clone()),
            leadership,
            metrics: metrics.clone(),
            health: health.clone(),
            events: Events::start(client, identity),
            drain,
            pace: Pace::default(),
        };
        let mut work = Loop::new(args.options(), news, parts);
        ended = work.run().await;
        metrics.leads(false);
        health.set(false, "ending");
        // A write that may still come into effect is covered by the Lease: it
        // is left to expire.
        may_release = !work.has_writes_in_flight();
    }
    if let Some(election) = election {
        if may_release {
            release.cancel();
            let _ended = tokio::time::timeout(Duration::from_secs(5), election).await;
        } else {
            election.abort();
        }
    }
    ended
}

/// A client for the cluster that the environment names.
///
/// # Errors
/// A sentence with the remedy.
pub async fn connect() -> Result<Client, String> {
    let mut config = Config::infer().await.map_err(|error| {
        format!(
            "no cluster is known: {error}; set KUBECONFIG, or run it in a pod with a ServiceAccount"
        )
    })?;
    // What is repeated, and when, is decided by the loop: it looks first.
    config.default_retry = false;
    // By this name the API server's audit log knows it.
    if let Ok(agent) = ::http::HeaderValue::from_str(&user_agent()) {
        config.headers.push((::http::header::USER_AGENT, agent));
    }
    let url = config.cluster_url.clone();
    let client = Client::try_from(config)
        .map_err(|error| format!("cannot set up a connection to {url}: {error}"))?;
    info!(version = env!("CARGO_PKG_VERSION"), server = %url, "starting");
    Ok(client)
}

/// This program's name and version.
fn user_agent() -> String {
    let program = std::env::current_exe().ok();
    let name = program
        .as_deref()
        .and_then(|p| p.file_name()?.to_str())
        .unwrap_or("l2lb");
    format!("{name}/{}", env!("CARGO_PKG_VERSION"))
}

fn terms(args: &Args, identity: &str) -> Terms {
    Terms {
        name: args.lease_name.clone(),
        identity: identity.to_owned(),
        duration: args.lease_duration,
        renew: args.lease_renew.min(args.lease_duration / 3),
    }
}

/// Waits to become the leader; `false` when asked to end before.
async fn stand_by(
    leadership: &mut Leadership,
    health: &Health,
    drain: &CancellationToken,
) -> Result<bool, String> {
    loop {
        match leadership.standing() {
            Standing::Unknown => health.set(false, "waiting for the Lease"),
            // It is as ready as it can be; an update of the Deployment waits for that.
            Standing::Standby { leader } => {
                health.set(true, format!("standing by; {leader} leads"));
            }
            Standing::Leader { .. } => return Ok(true),
            Standing::Lost { why } => return Err(why),
        }
        tokio::select! {
            () = drain.cancelled() => return Ok(false),
            () = leadership.changed() => {}
        }
    }
}

/// The pod's name, with something that no other process of that name has.
fn identity() -> String {
    let name = std::env::var("POD_NAME")
        .ok()
        .or_else(|| hostname::get().ok()?.into_string().ok());
    let random = RandomState::new().build_hasher().finish();
    format!(
        "{}_{:08x}",
        name.unwrap_or_else(|| "l2lb-controller".to_owned()),
        random as u32
    )
}

/// The first signal cancels the token, the second ends the process.
///
/// # Errors
/// A sentence, when signals cannot be listened for.
pub fn on_signals() -> Result<CancellationToken, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let drain = CancellationToken::new();
    let token = drain.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        info!("ending: what is being written is finished; a second signal ends at once");
        token.cancel();
        either(&mut terminate, &mut interrupt).await;
        error!("ended by a second signal");
        std::process::exit(130);
    });
    Ok(drain)
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}
