//! Leader election by a Lease: one controller writes at a time.
//!
//! Every update names the resource version that it is for, so none is lost:
//! on a conflict the Lease is read again. Expiry is judged by the time at
//! which this process saw the Lease change last, so that clocks need not
//! agree. A leader may write only while its Lease is still good for the
//! longest time that a write can take; when it is lost the process ends and
//! is started anew, which is the same path as a crash and needs no other care.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// What the election is about.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Name of the Lease.
    pub name: String,
    /// Who this process is, unlike every other.
    pub identity: String,
    /// How long a Lease is good after it was renewed.
    pub duration: Duration,
    /// How often the leader renews it.
    pub renew: Duration,
}

/// How often a candidate looks.
const RETRY: Duration = Duration::from_secs(2);

/// Where this process stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The Lease was not read yet.
    Unknown,
    /// Another process leads.
    Standby {
        /// The other.
        leader: String,
    },
    /// This process leads.
    Leader {
        /// Until when, unless renewed; `None`: without election.
        until: Option<Instant>,
    },
    /// This process led and does not any more.
    Lost {
        /// Why.
        why: String,
    },
}

/// A handle to ask where this process stands.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Standing>);

impl Leadership {
    /// Leadership that is always held, for running without election.
    pub fn always() -> Self {
        Self(watch::channel(Standing::Leader { until: None }).1)
    }

    /// Whether the Lease is held for at least this long from now.
    pub fn holds_for(&self, needed: Duration) -> bool {
        match &*self.0.borrow() {
            Standing::Leader { until } => until.is_none_or(|until| Instant::now() + needed < until),
            _ => false,
        }
    }

    /// Where this process stands now.
    pub fn standing(&self) -> Standing {
        self.0.borrow().clone()
    }

    /// Waits until the standing changes; forever if it cannot.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a candidate does next.
#[derive(Debug, PartialEq)]
enum Move {
    /// Nothing: another holds it.
    Wait,
    /// Create the Lease.
    Create(Lease),
    /// Replace the Lease, at the version that it was read at.
    Replace(Lease),
}

/// The decisions of the election, without I/O.
#[derive(Debug)]
struct Candidate {
    terms: Terms,
    /// The version of the Lease that was seen last, and when it was seen first.
    seen: Option<(Option<String>, Instant)>,
}

impl Candidate {
    fn new(terms: Terms) -> Self {
        Self { terms, seen: None }
    }

    /// Decides by the Lease as it is stored now.
    fn consider(&mut self, stored: Option<&Lease>, now: Instant, wall: Timestamp) -> Move {
        let Some(stored) = stored else {
            self.seen = None;
            return Move::Create(Lease {
                metadata: ObjectMeta {
                    name: Some(self.terms.name.clone()),
                    labels: Some(labels()),
                    ..Default::default()
                },
                spec: Some(self.claim(None, wall)),
            });
        };
        let version = stored.metadata.resource_version.clone();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        let spec = stored.spec.as_ref();
        let holder = holder(stored);
        let term = spec
            .and_then(|s| s.lease_duration_seconds)
            .unwrap_or(0)
            .max(0);
        let expired = now >= since + Duration::from_secs(u64::from(term.unsigned_abs()));
        if holder.is_empty() || holder == self.terms.identity || expired {
            let mut lease = stored.clone();
            lease.metadata.managed_fields = None;
            lease.spec = Some(self.claim(spec, wall));
            return Move::Replace(lease);
        }
        Move::Wait
    }

    fn claim(&self, before: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let renewal =
            before.is_some_and(|b| b.holder_identity.as_ref() == Some(&self.terms.identity));
        let transitions = before.and_then(|b| b.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.terms.identity.clone()),
            lease_duration_seconds: i32::try_from(self.terms.duration.as_secs()).ok(),
            acquire_time: before
                .and_then(|b| b.acquire_time.clone())
                .filter(|_| renewal)
                .or(Some(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(match before {
                Some(_) if !renewal => transitions.saturating_add(1),
                _ => transitions,
            }),
            ..Default::default()
        }
    }

    /// The Lease as it is left for others, at once free to take.
    fn released(&self, held: &Lease, wall: Timestamp) -> Lease {
        let mut lease = held.clone();
        lease.metadata.managed_fields = None;
        let mut spec = self.claim(held.spec.as_ref(), wall);
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        lease.spec = Some(spec);
        lease
    }
}

/// By which the Lease is found whatever its name; the chart's has them too.
fn labels() -> BTreeMap<String, String> {
    let label = |key: &str, value: &str| (format!("app.kubernetes.io/{key}"), value.to_owned());
    BTreeMap::from([label("name", "l2lb"), label("component", "controller")])
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|s| s.holder_identity.as_deref())
        .unwrap_or_default()
}

/// Takes part in the election until the Lease is lost or `release` is
/// cancelled, which gives it up for others to take at once.
pub async fn campaign(
    api: Api<Lease>,
    terms: Terms,
    standing: watch::Sender<Standing>,
    release: CancellationToken,
) {
    let mut candidate = Candidate::new(terms.clone());
    let mut held: Option<Lease> = None;
    let mut until: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if until.is_some_and(|until| now >= until) {
            let why = format!("the Lease {} could not be renewed in time", terms.name);
            standing.send_replace(Standing::Lost { why });
            return;
        }
        // Never wait longer for an answer than the Lease is good for.
        let patience = until.map_or(terms.renew, |u| (u - now).min(terms.renew));
        let attempt = attempt(&api, &mut candidate, held.take());
        let pause = tokio::select! {
            () = release.cancelled() => break,
            outcome = timeout(patience, attempt) => match outcome {
                Ok(Ok(Outcome::Held(lease))) => {
                    if until.is_none() {
                        info!(lease = terms.name, identity = terms.identity, "leading");
                    }
                    held = Some(*lease);
                    until = Some(now + terms.duration);
                    standing.send_replace(Standing::Leader { until });
                    terms.renew
                }
                Ok(Ok(Outcome::HeldBy(leader))) if until.is_some() => {
                    let why = format!("the Lease {} was taken by {leader}", terms.name);
                    standing.send_replace(Standing::Lost { why });
                    return;
                }
                Ok(Ok(Outcome::HeldBy(leader))) => {
                    let now = Standing::Standby { leader: leader.clone() };
                    if *standing.borrow() != now {
                        info!(lease = terms.name, leader, "standing by");
                        standing.send_replace(now);
                    }
                    RETRY
                }
                Ok(Ok(Outcome::Conflict)) => {
                    debug!(lease = terms.name, "changed meanwhile, reading it again");
                    Duration::from_millis(100)
                }
                Ok(Err(error)) => {
                    warn!(lease = terms.name, %error, "the Lease could not be read or written");
                    RETRY.min(terms.renew)
                }
                Err(_) => {
                    warn!(lease = terms.name, "no answer about the Lease");
                    Duration::from_millis(100)
                }
            },
        };
        let pause = until.map_or(pause, |until| pause.min(until - Instant::now().min(until)));
        tokio::select! {
            () = release.cancelled() => break,
            () = sleep(pause) => {}
        }
    }
    if until.is_some() {
        give_up(&api, &candidate, held).await;
    }
}

enum Outcome {
    Held(Box<Lease>),
    HeldBy(String),
    Conflict,
}

/// One round: look, decide, write. A leader trusts the Lease that it wrote
/// last and lets the resource version find out.
async fn attempt(
    api: &Api<Lease>,
    candidate: &mut Candidate,
    held: Option<Lease>,
) -> Result<Outcome, kube::Error> {
    let stored = match held {
        Some(lease) => Some(lease),
        None => api.get_opt(&candidate.terms.name).await?,
    };
    let params = PostParams::default();
    let written = match candidate.consider(stored.as_ref(), Instant::now(), Timestamp::now()) {
        Move::Wait => {
            let leader = stored.as_ref().map(holder).unwrap_or_default().to_owned();
            return Ok(Outcome::HeldBy(leader));
        }
        Move::Create(lease) => api.create(&params, &lease).await,
        Move::Replace(lease) => api.replace(&candidate.terms.name, &params, &lease).await,
    };
    match written {
        Ok(lease) => Ok(Outcome::Held(Box::new(lease))),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
            Ok(Outcome::Conflict)
        }
        Err(error) => Err(error),
    }
}

async fn give_up(api: &Api<Lease>, candidate: &Candidate, held: Option<Lease>) {
    let name = &candidate.terms.name;
    let release = async {
        let held = match held {
            Some(lease) => lease,
            None => api.get(name).await?,
        };
        if holder(&held) != candidate.terms.identity {
            return Ok(());
        }
        let lease = candidate.released(&held, Timestamp::now());
        api.replace(name, &PostParams::default(), &lease)
            .await
            .map(drop)
    };
    match timeout(Duration::from_secs(3), release).await {
        Ok(Ok(())) => info!(lease = name, "released"),
        Ok(Err(error)) => warn!(lease = name, %error, "not released; it expires"),
        Err(_) => warn!(lease = name, "not released in time; it expires"),
    }
}

/// Starts the election; the handle ends when the Lease is lost or released.
pub fn start(
    api: Api<Lease>,
    terms: Terms,
    release: CancellationToken,
) -> (Leadership, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Standing::Unknown);
    let task = tokio::spawn(campaign(api, terms, sender, release));
    (Leadership(receiver), task)
}

#[cfg(test)]
mod tests;
