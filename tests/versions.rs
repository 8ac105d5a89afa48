//! The main job on older versions of MetalLB, with real speakers: every
//! address at its home, failover, return, handover, and nothing left behind;
//! and an upgrade of MetalLB under live addresses.
//!
//! `L2LB_TEST_METALLB` names the versions; without it one older one is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams};
use l2lb::api::names;
use l2lb::metallb::{Capabilities, IpAddressPool, L2Advertisement};
use l2lb_demo::stage::{NAMESPACE, PATIENCE, PORT, Slot, Stage};
use l2lb_lab::{Attempt, Lab, LabConfig, METALLB, METALLB_NAMESPACE, harness};
use serde_json::json;

const USUAL: &str = "0.15.2";
const NODES: u8 = 4;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for version in harness::metallb_versions(&[USUAL]) {
        let config = LabConfig {
            nodes: NODES,
            metallb: Some(version.clone()),
            ..LabConfig::default()
        };
        let name = harness::on_version("life_on", &version);
        let owned = version.clone();
        trials.push(harness::trial(name, config.clone(), move |lab| {
            life(lab, owned.clone())
        }));
        if version != METALLB {
            let config = LabConfig {
                nodes: 3,
                metallb_later: vec![METALLB.to_owned()],
                ..config
            };
            let name = harness::on_version("upgrade_from", &version);
            trials.push(harness::trial(name, config, upgrade));
        }
    }
    harness::run(trials)
}

/// A load balancer `web` on a lab, at home and served.
async fn set(lab: Lab) -> Result<Stage> {
    let program = env!("CARGO_BIN_EXE_l2lb-controller").into();
    let stage = Stage::set(lab, program, &["--hold-down=2s"]).await?;
    let workers = json!({"matchExpressions": [
        {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}]});
    let pool = json!({"addresses": ["192.0.2.100-192.0.2.140"], "nodeSelector": workers});
    stage.pool("edge", pool).await?;
    let service = json!({"externalTrafficPolicy": "Local"});
    stage
        .load_balancer("web", "edge", json!({}), service)
        .await?;
    for condition in ["Pinned", "Ready"] {
        stage.reason("l2lb", "web", condition, "Ok").await?;
    }
    everything_at_home(&stage).await?;
    Ok(stage)
}

/// Waits until the client hears each address from its home, and gets an
/// answer over HTTP.
async fn everything_at_home(stage: &Stage) -> Result<Vec<Slot>> {
    let slots = stage.at_home("web", stage.lab.nodes().len()).await?;
    for slot in &slots {
        stage
            .lab
            .wait_for_http(address(slot)?, PORT, PATIENCE)
            .await?;
    }
    Ok(slots)
}

/// The address of each Service and the pool that it lies in.
async fn pools(stage: &Stage) -> Result<BTreeMap<String, (String, String)>> {
    let api: Api<Service> = Api::namespaced(stage.lab.client(), NAMESPACE);
    let label = format!("{}=web", names::LOAD_BALANCER);
    let services = api.list(&ListParams::default().labels(&label)).await?;
    let mut found = BTreeMap::new();
    for service in services {
        let meta = service.metadata;
        let annotations = meta.annotations.unwrap_or_default();
        let read = |key: &str| annotations.get(key).cloned().unwrap_or_default();
        found.insert(
            meta.name.unwrap_or_default(),
            (read(names::METALLB_IPS), read(names::METALLB_POOL)),
        );
    }
    Ok(found)
}

fn address(slot: &Slot) -> Result<IpAddr> {
    let first = slot.addresses.first().copied();
    first.context("the slot has no address")
}

fn targets(slots: &[Slot]) -> Result<Vec<SocketAddr>> {
    slots
        .iter()
        .map(|s| Ok(SocketAddr::new(address(s)?, PORT)))
        .collect()
}

/// From the first address to the last.
async fn life(lab: Lab, version: String) -> Result<()> {
    let capabilities = Capabilities::of_version(&version).context("a version")?;
    let stage = set(lab).await?;
    let slots = stage.slots("web").await?;
    let pools: BTreeSet<String> = pools(&stage).await?.into_values().map(|p| p.1).collect();
    let expected = if capabilities.can_prefer() {
        1
    } else {
        slots.len()
    };
    ensure!(pools.len() == expected, "the pools are {pools:?}");

    let probe = stage
        .lab
        .probe(targets(&slots)?, Duration::from_millis(250));
    tokio::time::sleep(Duration::from_secs(2)).await;

    // A node loses power.
    let lost = slots.get(1).context("there is no second slot")?.clone();
    let moved = address(&lost)?;
    let start = Instant::now();
    stage.lab.kill_node(&lost.home).await?;
    let heir = stage
        .lab
        .wait_for_another(moved, &lost.home, PATIENCE)
        .await?;
    println!(
        "{version}: {moved} went to {heir} in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    stage.away("web", &lost.home, "FailedOver").await?;
    stage.lab.wait_for_http(moved, 80, PATIENCE).await?;

    // Its death touched its own share alone.
    for slot in slots.iter().filter(|s| s.service != lost.service) {
        let failures = probe.failures(address(slot)?, start);
        ensure!(
            failures.is_empty(),
            "{version}: {} of {} stopped though only {} failed: {failures:#?}",
            slot.service,
            slot.home,
            lost.home
        );
    }

    // It returns. Its speaker, until it has found the others, may answer for
    // them: that is MetalLB's own way, and only counted.
    let start = Instant::now();
    stage.lab.revive_node(&lost.home).await?;
    stage
        .lab
        .wait_for_answer(moved, &lost.home, PATIENCE)
        .await?;
    println!(
        "{version}: {moved} was back after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    everything_at_home(&stage).await?;
    let others = slots.iter().filter(|s| s.service != lost.service);
    let missed: Result<Vec<usize>> = others
        .map(|s| Ok(probe.failures(address(s)?, start).len()))
        .collect();
    println!(
        "{version}: looks at the others that failed meanwhile: {:?}",
        missed?
    );

    // Another is cordoned, and uncordoned.
    let cordoned = slots.first().context("there is no slot")?.clone();
    let moved = address(&cordoned)?;
    let start = Instant::now();
    stage.lab.cordon(&cordoned.home, true).await?;
    let stand_in = stage
        .lab
        .wait_for_another(moved, &cordoned.home, PATIENCE)
        .await?;
    println!(
        "{version}: {moved} was handed to {stand_in} in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    stage.away("web", &cordoned.home, "Draining").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure_handed_over_well(&version, &probe.since(moved, start))?;
    stage.lab.cordon(&cordoned.home, false).await?;
    stage
        .lab
        .wait_for_answer(moved, &cordoned.home, PATIENCE)
        .await?;
    everything_at_home(&stage).await?;
    probe.stop().await;

    // Everything goes.
    let kubectl = stage.lab.kubectl();
    kubectl
        .run(["delete", "l2loadbalancer", "web", "--timeout=60s"])
        .await?;
    kubectl
        .run(["delete", "l2addresspool", "edge", "--timeout=60s"])
        .await?;
    nothing_is_left(&stage).await?;
    metallb_still_serves(&stage.lab).await
}

/// What docs/failover.md promises of a handover: new connections keep working.
/// At no time is nobody there; two may answer in passing, and both serve.
fn ensure_handed_over_well(version: &str, looks: &[Attempt]) -> Result<()> {
    let failed: Vec<&Attempt> = looks.iter().filter(|look| !look.succeeded()).collect();
    println!(
        "{version}: {} of {} looks failed",
        failed.len(),
        looks.len()
    );
    ensure!(looks.len() > 3, "{version}: the handover was not watched");
    let lost: Vec<_> = failed
        .iter()
        .filter(|look| look.http.is_err() || look.answered_by.is_empty())
        .collect();
    ensure!(
        lost.is_empty(),
        "{version}: the cordon was noticed: {lost:#?}"
    );
    Ok(())
}

async fn nothing_is_left(stage: &Stage) -> Result<()> {
    let client = stage.lab.client();
    let start = Instant::now();
    loop {
        let services = pools(stage).await?;
        let pools: Api<IpAddressPool> = Api::namespaced(client.clone(), METALLB_NAMESPACE);
        let advertisements: Api<L2Advertisement> =
            Api::namespaced(client.clone(), METALLB_NAMESPACE);
        let pools = pools.list_metadata(&ListParams::default()).await?.items;
        let advertisements = advertisements
            .list_metadata(&ListParams::default())
            .await?
            .items;
        if services.is_empty() && pools.is_empty() && advertisements.is_empty() {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "left are {services:?}, {} pools and {} advertisements",
            pools.len(),
            advertisements.len()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// MetalLB's configuration is in order: what it is asked for plainly, works.
async fn metallb_still_serves(lab: &Lab) -> Result<()> {
    lab.apply(
        "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {namespace: metallb-system, name: plain}
spec: {addresses: [192.0.2.110/32]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {namespace: metallb-system, name: plain}
---
apiVersion: v1
kind: Service
metadata: {namespace: default, name: plain}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
",
    )
    .await?;
    lab.wait_for_http([192, 0, 2, 110].into(), 80, PATIENCE)
        .await?;
    Ok(())
}

/// Under an upgrade of MetalLB no address changes; new slots are the new kind.
async fn upgrade(lab: Lab) -> Result<()> {
    let from = lab.config().metallb.clone().unwrap_or_default();
    let stage = set(lab).await?;
    let slots = stage.slots("web").await?;
    let before = pools(&stage).await?;
    let probe = stage
        .lab
        .probe(targets(&slots)?, Duration::from_millis(250));
    tokio::time::sleep(Duration::from_secs(2)).await;

    let start = Instant::now();
    stage.lab.install_metallb(METALLB).await?;
    println!(
        "{from} to {METALLB} took {:.1} s",
        start.elapsed().as_secs_f64()
    );
    // A joining node shows that the new one is at work.
    let joined = stage.lab.add_node().await?;
    stage
        .until("web", "the joined node's slot", |slots| {
            slots.len() == 4
                && slots
                    .iter()
                    .any(|s| s.home == joined && s.phase == "Announced")
        })
        .await?;
    everything_at_home(&stage).await?;
    for slot in &slots {
        let (all, failed) = (
            probe.since(address(slot)?, start).len(),
            probe.failures(address(slot)?, start).len(),
        );
        println!(
            "{from} to {METALLB}: {} missed {failed} of {all} looks",
            slot.service
        );
    }
    probe.stop().await;
    let mut after = pools(&stage).await?;
    let new = before
        .keys()
        .try_fold(after.clone(), |mut rest, name| {
            rest.remove(name).map(|_| rest)
        })
        .context("a Service is gone")?;
    after.retain(|name, _| before.contains_key(name));
    ensure!(before == after, "it was {before:?} and is {after:?}");
    let shared = names::ip_address_pool_name("edge");
    ensure!(
        new.len() == 1 && new.values().all(|(_, pool)| *pool == shared),
        "the new ones are {new:?}"
    );

    let kubectl = stage.lab.kubectl();
    kubectl
        .run(["delete", "l2loadbalancer", "web", "--timeout=60s"])
        .await?;
    kubectl
        .run(["delete", "l2addresspool", "edge", "--timeout=60s"])
        .await?;
    nothing_is_left(&stage).await
}
