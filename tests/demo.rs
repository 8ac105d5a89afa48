//! The demo's steps as tests, and what else needs real traffic: failover
//! with either traffic policy, and a handover that nobody notices.

#[path = "demo/dns.rs"]
mod dns;

use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use kube::api::Api;
use l2lb::api::{L2LoadBalancer, SlotPhase, SlotStatus};
use l2lb_demo::Script;
use l2lb_lab::{Lab, LabConfig, Process, Spec, harness};
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};

/// When a request was made, and the node that served it or what went wrong.
type Outcome = (Instant, Result<String, String>);

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let dual_stack = LabConfig {
        dual_stack: true,
        ..LabConfig::default()
    };
    harness::run(vec![
        harness::trial("demo", LabConfig::default(), |lab| {
            l2lb_demo::play(lab, Script::single_stack(program()))
        }),
        harness::trial("demo_dual_stack", dual_stack, |lab| {
            l2lb_demo::play(lab, Script::dual_stack(program()))
        }),
        harness::trial(
            "handover_on_cordon",
            LabConfig::default(),
            handover_on_cordon,
        ),
        harness::trial(
            "name_follows_power",
            LabConfig::default(),
            dns::name_follows_power,
        ),
        harness::trial(
            "failover_with_policy_cluster",
            LabConfig::default(),
            failover_with_policy_cluster,
        ),
    ])
}

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_l2lb-controller").into()
}

/// A load balancer on a lab, with the controller that serves it.
struct Stage {
    lab: Arc<Lab>,
    _controller: Process,
}

impl Stage {
    async fn set(lab: Lab, policy: &str) -> Result<Self> {
        lab.install_product_crds().await?;
        lab.deploy_backend("default", "web", 8080).await?;
        let spec = Spec::new("l2lb-controller", program()).args(["--listen=0", "--hold-down=2s"]);
        let controller = lab.start(spec)?;
        lab.apply(&format!(
            "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {{name: edge}}
spec: {{addresses: [192.0.2.100-192.0.2.120], dnsDomains: [example.org]}}
---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {{namespace: default, name: web}}
spec:
  addressPool: edge
  service:
    selector: {{app: web}}
    externalTrafficPolicy: {policy}
    ports: [{{port: 80, targetPort: 8080}}]
"
        ))
        .await?;
        let stage = Self {
            lab: Arc::new(lab),
            _controller: controller,
        };
        let slots = stage
            .until("every slot to be announced by its home", |slots| {
                slots.len() == 3 && slots.iter().all(|s| s.phase == SlotPhase::Announced)
            })
            .await?;
        for slot in &slots {
            let address = address(slot)?;
            stage
                .lab
                .wait_for_answer(address, &slot.node, PATIENCE)
                .await?;
            stage.lab.wait_for_http(address, 80, PATIENCE).await?;
        }
        Ok(stage)
    }

    async fn until(
        &self,
        what: &str,
        good: impl Fn(&[SlotStatus]) -> bool,
    ) -> Result<Vec<SlotStatus>> {
        let api: Api<L2LoadBalancer> = Api::namespaced(self.lab.client(), "default");
        let start = Instant::now();
        loop {
            let slots = api
                .get("web")
                .await?
                .status
                .map(|s| s.slots)
                .unwrap_or_default();
            if good(&slots) {
                return Ok(slots);
            }
            if start.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {what}; there is {slots:#?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn address(slot: &SlotStatus) -> Result<IpAddr> {
    slot.addresses
        .first()
        .context("the slot has no address")?
        .parse()
        .context("an address")
}

/// New connections to an address, one each 50 ms, whatever becomes of the others.
struct Connections {
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    task: JoinHandle<()>,
}

impl Connections {
    fn begin(lab: &Arc<Lab>, address: IpAddr) -> Self {
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let (lab, shared) = (Arc::clone(lab), Arc::clone(&outcomes));
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            let mut all = JoinSet::new();
            loop {
                ticks.tick().await;
                while all.try_join_next().is_some() {}
                let (lab, shared) = (Arc::clone(&lab), Arc::clone(&shared));
                all.spawn(async move {
                    let began = Instant::now();
                    let outcome = match lab.http_get(address, 80).await {
                        Ok(response) if response.status == 200 => Ok(response.body),
                        Ok(response) => Err(format!("{response:?}")),
                        Err(error) => Err(format!("{error:#}")),
                    };
                    shared
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((began, outcome));
                });
            }
        });
        Self { outcomes, task }
    }

    /// Waits for those under way, and fails if any failed; says how many
    /// were made and which nodes served. Those that began in `excused` may
    /// have failed, and are counted.
    async fn ensure_good(&self, what: &str, excused: Option<&Range<Instant>>) -> Result<usize> {
        let until = Instant::now();
        tokio::time::sleep(Duration::from_millis(2200)).await;
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_excused = |at: &Instant| excused.is_some_and(|window| window.contains(at));
        if let Some(window) = excused {
            let during = outcomes.iter().filter(|(at, _)| window.contains(at));
            let failed = during.clone().filter(|(_, o)| o.is_err()).count();
            eprintln!(
                "{what}: {failed} of {} connections failed in the {:?} around the speaker's start",
                during.count(),
                window.end - window.start
            );
        }
        let bad: Vec<String> = outcomes
            .iter()
            .filter(|(at, _)| !is_excused(at))
            .filter_map(|(at, outcome)| {
                let error = outcome.as_ref().err()?;
                let ago = until.saturating_duration_since(*at);
                Some(format!(
                    "{:.2} s before the end: {error}",
                    ago.as_secs_f64()
                ))
            })
            .collect();
        ensure!(
            bad.is_empty(),
            "{what}: {} of {} failed: {bad:#?}",
            bad.len(),
            outcomes.len()
        );
        ensure!(
            outcomes.len() > 20,
            "{what}: only {} connections were made",
            outcomes.len()
        );
        eprintln!(
            "{what}: all others of {} connections succeeded so far",
            outcomes.len()
        );
        Ok(outcomes.len())
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// When a node that returned answered for addresses that are not its: its
/// speaker, just started, has not found the others yet, believes that it is
/// alone, and announces everything. Read from the speaker's own log: from the
/// first announcement since then to the last withdrawal, with the time that
/// others need to be heard again (they repeat themselves every 1.1 s). None
/// if it withdrew nothing.
fn alone(lab: &Lab, node: &str, since: Timestamp) -> Result<Option<Range<Instant>>> {
    let path = lab.logs_dir().join(format!("speaker-{node}.log"));
    let log = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let (now, clock) = (Instant::now(), Timestamp::now());
    let times = |event: &str| -> Vec<Timestamp> {
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["event"] == event)
            .filter_map(|line| line["ts"].as_str()?.parse().ok())
            .filter(|at| *at >= since)
            .collect()
    };
    let (announced, withdrawn) = (times("serviceAnnounced"), times("serviceWithdrawn"));
    let (Some(first), Some(last)) = (announced.first(), withdrawn.last()) else {
        return Ok(None);
    };
    let instant = |at: Timestamp| -> Result<Instant> {
        let ago = Duration::try_from(clock.duration_since(at)).context("a time to come")?;
        now.checked_sub(ago).context("a time before the machine's")
    };
    // The log is dated to the millisecond.
    let start = instant(*first)? - Duration::from_millis(10);
    Ok(Some(start..instant(*last)? + Duration::from_millis(1200)))
}

/// A node is cordoned, loses power, returns and is uncordoned, and no client
/// of its address notices any of that, but for the moment in which its speaker
/// starts; see [`alone`].
async fn handover_on_cordon(lab: Lab) -> Result<()> {
    let stage = Stage::set(lab, "Local").await?;
    let slots = stage.until("slots", |slots| !slots.is_empty()).await?;
    let slot = slots.get(1).context("there is no second slot")?.clone();
    let (home, moved) = (slot.node.clone(), address(&slot)?);
    let connections = Connections::begin(&stage.lab, moved);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let start = Instant::now();
    stage.lab.cordon(&home, true).await?;
    let slots = stage
        .until("a standby to announce it", |slots| {
            slots.iter().any(|s| {
                s.service == slot.service
                    && s.phase == SlotPhase::Draining
                    && s.announced_by.as_ref().is_some_and(|by| *by != home)
            })
        })
        .await?;
    let standby = slots
        .iter()
        .find(|s| s.service == slot.service)
        .and_then(|s| s.announced_by.clone())
        .context("nobody announces it")?;
    stage.lab.wait_for_answer(moved, &standby, PATIENCE).await?;
    eprintln!(
        "{moved} went from {home} to {standby} in {:?}",
        start.elapsed()
    );
    connections.ensure_good("the handover", None).await?;

    stage.lab.kill_node(&home).await?;
    let start = Instant::now();
    while stage.lab.is_ready(&home).await? {
        ensure!(
            start.elapsed() < PATIENCE,
            "Kubernetes does not notice that {home} is gone"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(
        stage.lab.who_answers(moved).await?.as_deref() == Some(standby.as_str()),
        "{moved} left {standby} when {home} lost power"
    );
    connections.ensure_good("the loss of power", None).await?;

    let revived = Timestamp::now();
    stage.lab.revive_node(&home).await?;
    stage
        .lab
        .kubectl()
        .run(["rollout", "status", "--timeout=60s", "daemonset/web"])
        .await?;
    while !stage.lab.is_ready(&home).await? {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // It is cordoned still: longer than the hold-down it stays away.
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(
        stage.lab.who_answers(moved).await?.as_deref() == Some(standby.as_str()),
        "{moved} left {standby} although {home} is cordoned"
    );
    let window = alone(&stage.lab, &home, revived)?;
    if let Some(window) = &window {
        let length = window.end - window.start;
        ensure!(
            length < Duration::from_secs(5),
            "{home}'s speaker kept what is not its for {length:?}"
        );
    }
    connections
        .ensure_good("the return", window.as_ref())
        .await?;

    let start = Instant::now();
    stage.lab.cordon(&home, false).await?;
    stage.lab.wait_for_answer(moved, &home, PATIENCE).await?;
    eprintln!("{moved} is back at {home} after {:?}", start.elapsed());
    stage
        .until("every slot to be at home", |slots| {
            slots.iter().all(|s| s.phase == SlotPhase::Announced)
        })
        .await?;
    connections
        .ensure_good("the way back", window.as_ref())
        .await?;
    Ok(())
}

/// With policy Cluster any node passes traffic on: the address moves, and
/// answers again when the dead node's pods are out of the endpoints.
async fn failover_with_policy_cluster(lab: Lab) -> Result<()> {
    let stage = Stage::set(lab, "Cluster").await?;
    let slots = stage.until("slots", |slots| !slots.is_empty()).await?;
    let slot = slots.first().context("there is no slot")?.clone();
    let moved = address(&slot)?;
    let start = Instant::now();
    stage.lab.kill_node(&slot.node).await?;
    let heir = loop {
        ensure!(start.elapsed() < PATIENCE, "nobody took {moved} over");
        match stage.lab.who_answers(moved).await {
            Ok(Some(name)) => break name,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    ensure!(heir != slot.node, "a node without power answers");
    eprintln!("{moved} is answered by {heir} after {:?}", start.elapsed());
    stage
        .until("the pin to follow", |slots| {
            slots
                .iter()
                .any(|s| s.service == slot.service && s.phase == SlotPhase::FailedOver)
        })
        .await?;
    for other in slots.iter().filter(|s| s.service != slot.service) {
        stage
            .lab
            .wait_for_answer(address(other)?, &other.node, PATIENCE)
            .await?;
    }
    // Kubernetes takes the dead pod out of the endpoints; from then on every
    // connection succeeds, through whichever address.
    while stage.lab.is_ready(&slot.node).await? {
        ensure!(
            start.elapsed() < PATIENCE,
            "Kubernetes does not notice that {} is gone",
            slot.node
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for slot in &slots {
        Connections::begin(&stage.lab, address(slot)?)
            .ensure_good(&slot.service, None)
            .await?;
    }
    Ok(())
}
