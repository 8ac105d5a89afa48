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

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use l2lb_demo::Script;
use l2lb_demo::stage::{NAMESPACE, PATIENCE, PORT, Slot, Stage};
use l2lb_lab::{Lab, LabConfig, METALLB_NAMESPACE, harness};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

/// When a request was made, and the node that served it or what went wrong.
type Outcome = (Instant, Result<String, String>);

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

/// A load balancer `web` on a lab, at home and served.
async fn set(lab: Lab, policy: &str) -> Result<Stage> {
    let stage = Stage::set(lab, program(), &["--hold-down=2s"]).await?;
    let pool = json!({"addresses": ["192.0.2.100-192.0.2.120"], "dnsDomains": ["example.org"]});
    stage.pool("edge", pool).await?;
    let service = json!({"externalTrafficPolicy": policy});
    stage
        .load_balancer("web", "edge", json!({}), service)
        .await?;
    for slot in stage.at_home("web", 3).await? {
        stage
            .lab
            .wait_for_http(address(&slot)?, PORT, PATIENCE)
            .await?;
    }
    Ok(stage)
}

fn address(slot: &Slot) -> Result<IpAddr> {
    let first = slot.addresses.first().copied();
    first.context("the slot has no address")
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
                    let outcome = match lab.http_get(address, PORT).await {
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

/// Speakers repeat themselves every 1.1 s.
const HEARD_AGAIN: Duration = Duration::from_millis(1200);

/// When a node that returned answered for addresses that are not its: its
/// speaker, just started, has not found the others yet, believes that it is
/// alone, and announces everything. Read from the speaker's own log: from the
/// first announcement since then to the last withdrawal, with the time that
/// others need to be heard again. None if it withdrew nothing.
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
    Ok(Some(start..instant(*last)? + HEARD_AGAIN))
}

/// A node is cordoned, loses power, returns and is uncordoned, and no client
/// of its address notices any of that, but for the moment in which its speaker
/// starts; see [`alone`].
async fn handover_on_cordon(lab: Lab) -> Result<()> {
    let stage = set(lab, "Local").await?;
    let slots = stage.slots("web").await?;
    let slot = slots.get(1).context("there is no second slot")?.clone();
    let (home, moved) = (slot.home.clone(), address(&slot)?);
    let connections = Connections::begin(&stage.lab, moved);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let start = Instant::now();
    stage.lab.cordon(&home, true).await?;
    let slot = stage.away("web", &home, "Draining").await?;
    let standby = slot.announced_by.context("nobody announces it")?;
    eprintln!(
        "{moved} went from {home} to {standby} in {:?}",
        start.elapsed()
    );
    connections.ensure_good("the handover", None).await?;

    stage.lab.kill_node(&home).await?;
    until_ready(&stage, &home, false).await?;
    ensure!(
        stage.lab.who_answers(moved).await?.as_deref() == Some(standby.as_str()),
        "{moved} left {standby} when {home} lost power"
    );
    connections.ensure_good("the loss of power", None).await?;

    let revived = Timestamp::now();
    stage.lab.revive_node(&home).await?;
    for (namespace, set) in [
        (NAMESPACE, "daemonset/web"),
        (METALLB_NAMESPACE, "daemonset/metallb-speaker"),
    ] {
        let args = ["rollout", "status", "--timeout=60s", "-n", namespace, set];
        stage.lab.kubectl().run(args).await?;
    }
    until_ready(&stage, &home, true).await?;
    // It is cordoned still: longer than the hold-down it stays away. Its
    // speaker may be alone for a moment, however long that is on this machine.
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.lab.wait_for_answer(moved, &standby, PATIENCE).await?;
    let settled = Instant::now();
    let window = alone(&stage.lab, &home, revived)?;
    connections
        .ensure_good("the return", window.as_ref())
        .await?;
    // What came after that is not excused.
    if let Some(window) = alone(&stage.lab, &home, revived)? {
        ensure!(
            window.end < settled + HEARD_AGAIN,
            "{home}'s speaker announced what is not its after it had found the others"
        );
    }

    let start = Instant::now();
    stage.lab.cordon(&home, false).await?;
    stage.lab.wait_for_answer(moved, &home, PATIENCE).await?;
    eprintln!("{moved} is back at {home} after {:?}", start.elapsed());
    stage.at_home("web", 3).await?;
    connections
        .ensure_good("the way back", window.as_ref())
        .await?;
    Ok(())
}

/// Waits until Kubernetes calls a node ready, or not.
async fn until_ready(stage: &Stage, node: &str, ready: bool) -> Result<()> {
    let start = Instant::now();
    while stage.lab.is_ready(node).await? != ready {
        ensure!(
            start.elapsed() < PATIENCE,
            "Kubernetes does not come to say of {node} that ready is {ready}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// With policy Cluster any node passes traffic on: the address moves, and
/// answers again when the dead node's pods are out of the endpoints.
async fn failover_with_policy_cluster(lab: Lab) -> Result<()> {
    let stage = set(lab, "Cluster").await?;
    let slots = stage.slots("web").await?;
    let slot = slots.first().context("there is no slot")?.clone();
    let moved = address(&slot)?;
    let start = Instant::now();
    stage.lab.kill_node(&slot.home).await?;
    let heir = stage
        .lab
        .wait_for_another(moved, &slot.home, PATIENCE)
        .await?;
    eprintln!("{moved} is answered by {heir} after {:?}", start.elapsed());
    stage.away("web", &slot.home, "FailedOver").await?;
    for other in slots.iter().filter(|s| s.service != slot.service) {
        stage.answers(other, &other.home).await?;
    }
    // Kubernetes takes the dead pod out of the endpoints, and each kube-proxy
    // hears of it; from then on every connection succeeds, through whichever
    // address.
    until_ready(&stage, &slot.home, false).await?;
    for slot in &slots {
        until_many_succeed(&stage, address(slot)?).await?;
    }
    for slot in &slots {
        Connections::begin(&stage.lab, address(slot)?)
            .ensure_good(&slot.service, None)
            .await?;
    }
    Ok(())
}

/// Waits until so many connections in turn succeed that none of them can have
/// been sent to one pod of three.
async fn until_many_succeed(stage: &Stage, address: IpAddr) -> Result<()> {
    let start = Instant::now();
    let mut in_turn = 0;
    while in_turn < 40 {
        match stage.lab.http_get(address, PORT).await {
            Ok(response) if response.status == 200 => in_turn += 1,
            other => {
                ensure!(
                    start.elapsed() < PATIENCE,
                    "connections to {address} go on failing: {other:?}"
                );
                in_turn = 0;
            }
        }
    }
    Ok(())
}
