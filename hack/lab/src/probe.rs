//! Watching addresses from the client, all the time.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::http;
use crate::netns::Netns;
use crate::segment::Segment;
use crate::topology::CLIENT;

/// How long an attempt waits for an answer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// One look at one address.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began.
    pub at: Instant,
    /// The address.
    pub target: SocketAddr,
    /// The nodes that answered ARP or NDP: one, if all is well.
    pub answered_by: Vec<String>,
    /// What came back over HTTP: the name of the node that served it first.
    pub http: Result<String, String>,
}

impl Attempt {
    /// Whether the address answered on both layers.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.http.is_ok() && self.answered_by.len() == 1
    }
}

/// Addresses being watched, until this is dropped or stopped.
pub struct Probe {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    tasks: JoinSet<()>,
}

impl Probe {
    pub(crate) fn start(
        cluster: &Arc<Cluster>,
        segment: &Segment,
        targets: Vec<SocketAddr>,
        interval: Duration,
    ) -> Self {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for target in targets {
            let (cluster, segment, attempts) = (cluster.clone(), segment.clone(), attempts.clone());
            tasks.spawn(async move {
                let mut ticks = tokio::time::interval(interval);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let attempt = attempt(&cluster, &segment, target).await;
                    attempts
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(attempt);
                }
            });
        }
        Self { attempts, tasks }
    }

    /// All attempts so far, in the order in which they ended.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The attempts at one address since an instant.
    #[must_use]
    pub fn since(&self, address: IpAddr, start: Instant) -> Vec<Attempt> {
        let mut attempts = self.attempts();
        attempts.retain(|attempt| attempt.target.ip() == address && attempt.at >= start);
        attempts
    }

    /// The attempts at one address since an instant that failed: empty if it
    /// never stopped answering.
    #[must_use]
    pub fn failures(&self, address: IpAddr, start: Instant) -> Vec<Attempt> {
        let mut attempts = self.since(address, start);
        attempts.retain(|attempt| !attempt.succeeded());
        attempts
    }

    /// How long after an instant an address was first served on both layers
    /// with only the named node answering for it; nothing if not yet.
    #[must_use]
    pub fn moved_to(&self, address: IpAddr, node: &str, start: Instant) -> Option<Duration> {
        self.since(address, start)
            .into_iter()
            .find(|attempt| attempt.succeeded() && attempt.answered_by == [node])
            .map(|attempt| attempt.at - start)
    }

    /// Stops watching, and returns all attempts.
    pub async fn stop(mut self) -> Vec<Attempt> {
        self.tasks.shutdown().await;
        self.attempts()
    }
}

async fn attempt(cluster: &Cluster, segment: &Segment, target: SocketAddr) -> Attempt {
    let at = Instant::now();
    let client = Netns::Named(CLIENT.into());
    let (answers, response) = tokio::join!(
        segment.ask(target.ip(), TIMEOUT),
        http::get(&client, target, "/", TIMEOUT)
    );
    let name = |mac| cluster.node_of(mac).unwrap_or_else(|| mac.to_string());
    let answered_by = answers
        .unwrap_or_default()
        .into_iter()
        .map(|answer| name(answer.mac))
        .collect();
    let http = response
        .map(|response| {
            response
                .body
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .map_err(|error| format!("{error:#}"));
    Attempt {
        at,
        target,
        answered_by,
        http,
    }
}
