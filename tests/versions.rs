//! The main job on older versions of MetalLB, with real speakers: every
//! address at its home, failover, return, handover, and nothing left behind;
//! and an upgrade of MetalLB under live addresses.
//!
//! `L2LB_TEST_METALLB` names the versions; without it one older one is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams};
use l2lb::api::{L2LoadBalancer, SlotPhase, SlotStatus, names};
use l2lb::metallb::{Capabilities, IpAddressPool, L2Advertisement};
use l2lb_lab::{Lab, LabConfig, METALLB, METALLB_NAMESPACE, Process, Spec, harness};

const USUAL: &str = "0.15.2";
const NODES: u8 = 4;
const PATIENCE: Duration = Duration::from_secs(90);

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

/// A load balancer on a lab, with the controller that serves it.
struct Stage {
    lab: Lab,
    _controller: Process,
}

impl Stage {
    async fn set(lab: Lab) -> Result<Self> {
        lab.install_product_crds().await?;
        lab.deploy_backend("default", "web", 8080).await?;
        let spec = Spec::new("l2lb-controller", env!("CARGO_BIN_EXE_l2lb-controller"))
            .args(["--listen=0", "--hold-down=2s"]);
        let controller = lab.start(spec)?;
        lab.apply(
            "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.140]
  nodeSelector: {matchExpressions: [{key: node-role.kubernetes.io/control-plane, operator: DoesNotExist}]}
---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {namespace: default, name: web}
spec:
  addressPool: edge
  service:
    selector: {app: web}
    externalTrafficPolicy: Local
    ports: [{port: 80, targetPort: 8080}]
",
        )
        .await?;
        let kubectl = lab.kubectl();
        for condition in ["Pinned", "Ready"] {
            let condition = format!("--for=condition={condition}");
            kubectl
                .run(["wait", &condition, "--timeout=90s", "l2loadbalancer/web"])
                .await?;
        }
        let stage = Self {
            lab,
            _controller: controller,
        };
        stage.everything_at_home().await?;
        Ok(stage)
    }

    async fn slots(&self) -> Result<Vec<SlotStatus>> {
        let api: Api<L2LoadBalancer> = Api::namespaced(self.lab.client(), "default");
        Ok(api
            .get("web")
            .await?
            .status
            .map(|s| s.slots)
            .unwrap_or_default())
    }

    async fn until(
        &self,
        what: &str,
        good: impl Fn(&[SlotStatus]) -> bool,
    ) -> Result<Vec<SlotStatus>> {
        let start = Instant::now();
        loop {
            let slots = self.slots().await?;
            if good(&slots) {
                return Ok(slots);
            }
            if start.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {what}; there is {slots:#?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the client hears each address from its home, and gets an
    /// answer over HTTP.
    async fn everything_at_home(&self) -> Result<Vec<SlotStatus>> {
        let nodes = self.balancer_nodes();
        let slots = self
            .until("every slot to be announced by its home", |slots| {
                slots.len() == nodes && slots.iter().all(|s| s.phase == SlotPhase::Announced)
            })
            .await?;
        for slot in &slots {
            let address = address(slot)?;
            self.lab
                .wait_for_answer(address, &slot.node, PATIENCE)
                .await?;
            self.lab.wait_for_http(address, 80, PATIENCE).await?;
        }
        Ok(slots)
    }

    fn balancer_nodes(&self) -> usize {
        let nodes = self.lab.nodes();
        nodes.iter().filter(|n| n.starts_with("node-")).count()
    }

    /// The address of each Service and the pool that it lies in.
    async fn pools(&self) -> Result<BTreeMap<String, (String, String)>> {
        let api: Api<Service> = Api::namespaced(self.lab.client(), "default");
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
}

fn address(slot: &SlotStatus) -> Result<IpAddr> {
    slot.addresses
        .first()
        .context("the slot has no address")?
        .parse()
        .context("an address")
}

fn targets(slots: &[SlotStatus]) -> Result<Vec<SocketAddr>> {
    slots
        .iter()
        .map(|s| Ok(SocketAddr::new(address(s)?, 80)))
        .collect()
}

/// From the first address to the last.
async fn life(lab: Lab, version: String) -> Result<()> {
    let capabilities = Capabilities::of_version(&version).context("a version")?;
    let stage = Stage::set(lab).await?;
    let slots = stage.slots().await?;
    let pools: BTreeSet<String> = stage.pools().await?.into_values().map(|p| p.1).collect();
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
    stage.lab.kill_node(&lost.node).await?;
    let heir = stage
        .lab
        .wait_for_another(moved, &lost.node, PATIENCE)
        .await?;
    println!(
        "{version}: {moved} went to {heir} in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    stage
        .until("the slot to be failed over", |slots| {
            slots
                .iter()
                .any(|s| s.service == lost.service && s.phase == SlotPhase::FailedOver)
        })
        .await?;
    stage.lab.wait_for_http(moved, 80, PATIENCE).await?;

    // Its death touched its own share alone.
    for slot in slots.iter().filter(|s| s.service != lost.service) {
        let failures = probe.failures(address(slot)?, start);
        ensure!(
            failures.is_empty(),
            "{version}: {} of {} stopped though only {} failed: {failures:#?}",
            slot.service,
            slot.node,
            lost.node
        );
    }

    // It returns. Its speaker, until it has found the others, may answer for
    // them: that is MetalLB's own way, and only counted.
    let start = Instant::now();
    stage.lab.revive_node(&lost.node).await?;
    stage
        .lab
        .wait_for_answer(moved, &lost.node, PATIENCE)
        .await?;
    println!(
        "{version}: {moved} was back after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    stage.everything_at_home().await?;
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
    stage.lab.cordon(&cordoned.node, true).await?;
    let stand_in = stage
        .lab
        .wait_for_another(moved, &cordoned.node, PATIENCE)
        .await?;
    println!(
        "{version}: {moved} was handed to {stand_in} in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    stage
        .until("the slot to be handed over", |slots| {
            slots.iter().any(|s| {
                s.service == cordoned.service
                    && s.phase == SlotPhase::Draining
                    && s.announced_by
                        .as_ref()
                        .is_some_and(|by| *by != cordoned.node)
            })
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let missed = probe.failures(moved, start).len();
    println!(
        "{version}: {missed} of {} looks failed",
        probe.since(moved, start).len()
    );
    stage.lab.cordon(&cordoned.node, false).await?;
    stage
        .lab
        .wait_for_answer(moved, &cordoned.node, PATIENCE)
        .await?;
    stage.everything_at_home().await?;
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

async fn nothing_is_left(stage: &Stage) -> Result<()> {
    let client = stage.lab.client();
    let start = Instant::now();
    loop {
        let services = stage.pools().await?;
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
    let stage = Stage::set(lab).await?;
    let slots = stage.slots().await?;
    let before = stage.pools().await?;
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
        .until("the joined node's slot", |slots| {
            slots.len() == 4
                && slots
                    .iter()
                    .any(|s| s.node == joined && s.phase == SlotPhase::Announced)
        })
        .await?;
    stage.everything_at_home().await?;
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
    let mut after = stage.pools().await?;
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
