//! Condition `Ready` under a watch: what alerts and `kubectl wait` see.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::TryStreamExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use l2lb::api::{L2LoadBalancer, SlotPhase};
use l2lb_demo::stage::{NAMESPACE, PORT, Stage};
use l2lb_lab::{Attempt, Lab};
use tokio::task::JoinHandle;

use crate::usual;

/// How long before a status was written an address may have been found silent.
const RECENT: Duration = Duration::from_millis(1500);

/// A node loses power, returns, is cordoned and uncordoned. `Ready` is never
/// False while every address is answered by some node.
pub(super) async fn ready_does_not_flicker(lab: Lab) -> Result<()> {
    let stage = usual(lab, 3).await?;
    stage.ensure_ready("web").await?;
    let slots = stage.slots("web").await?;
    let addresses: Vec<IpAddr> = slots.iter().flat_map(|s| s.addresses.clone()).collect();
    let targets = addresses.iter().map(|a| SocketAddr::new(*a, PORT));
    let probe = stage
        .lab
        .probe(targets.collect(), Duration::from_millis(100));
    let recorder = Recorder::start(&stage);
    tokio::time::sleep(Duration::from_secs(2)).await;

    stage.lab.kill_node("node-2").await?;
    stage.away("web", "node-2", "FailedOver").await?;
    stage.lab.revive_node("node-2").await?;
    stage.at_home("web", 3).await?;
    stage.lab.cordon("node-2", true).await?;
    stage.away("web", "node-2", "Draining").await?;
    stage.lab.cordon("node-2", false).await?;
    stage.at_home("web", 3).await?;
    stage.reason("l2lb", "web", "Ready", "Ok").await?;
    // What is written late is seen, too.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let attempts = probe.stop().await;
    let written = recorder.stop()?;
    for phase in [SlotPhase::FailedOver, SlotPhase::Draining] {
        ensure!(
            written.iter().any(|w| w.phases.contains(&phase)),
            "the watch saw no slot {phase:?}: {written:#?}"
        );
    }
    let mut flickers = Vec::new();
    for status in written.iter().filter(|w| w.ready != "True") {
        let silent = silent(&addresses, &attempts, status.at);
        eprintln!(
            "Ready was {}, {silent:?} were silent: {}",
            status.ready, status.message
        );
        if silent.is_empty() {
            flickers.push(status);
        }
    }
    ensure!(
        flickers.is_empty(),
        "every address was answered, and Ready was not True: {flickers:#?}"
    );
    eprintln!("{} statuses, none of them too dark", written.len());
    Ok(())
}

/// The addresses for which nobody answered shortly before an instant.
fn silent(addresses: &[IpAddr], attempts: &[Attempt], at: Instant) -> Vec<IpAddr> {
    let was_silent = |address: &&IpAddr| {
        attempts.iter().any(|attempt| {
            attempt.target.ip() == **address
                && attempt.answered_by.is_empty()
                && attempt.at <= at
                && at - attempt.at < RECENT
        })
    };
    addresses.iter().filter(was_silent).copied().collect()
}

/// A status of the load balancer, as it was written.
#[derive(Clone, Debug)]
struct Written {
    at: Instant,
    ready: String,
    message: String,
    phases: Vec<SlotPhase>,
}

/// Keeps every status that is written.
struct Recorder {
    written: Arc<Mutex<Vec<Written>>>,
    task: JoinHandle<Result<(), watcher::Error>>,
}

impl Recorder {
    fn start(stage: &Stage) -> Self {
        let written = Arc::new(Mutex::new(Vec::new()));
        let api: Api<L2LoadBalancer> = Api::namespaced(stage.lab.client(), NAMESPACE);
        let config = watcher::Config::default().fields("metadata.name=web");
        let shared = Arc::clone(&written);
        let task = tokio::spawn(watcher(api, config).applied_objects().try_for_each(
            move |object| {
                shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(read(&object));
                std::future::ready(Ok(()))
            },
        ));
        Self { written, task }
    }

    /// All so far; an error if the watch did not last.
    fn stop(self) -> Result<Vec<Written>> {
        ensure!(!self.task.is_finished(), "the watch ended early");
        self.task.abort();
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(written.clone())
    }
}

fn read(object: &L2LoadBalancer) -> Written {
    let status = object.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    Written {
        at: Instant::now(),
        ready: ready.map(|c| c.status.clone()).unwrap_or_default(),
        message: ready.map(|c| c.message.clone()).unwrap_or_default(),
        phases: status.slots.iter().map(|s| s.phase).collect(),
    }
}
