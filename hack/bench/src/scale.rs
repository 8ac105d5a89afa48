//! What a change of MetalLB's configuration costs among many Services: the
//! time until a new Service has its address when its pool gains that address
//! beside it, against the time when the pool has held it all along. This is
//! why the planner changes MetalLB's configuration as seldom as it can.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use l2lb_lab::Lab;
use serde_json::{Value, json};

use crate::figure::Figure;
use crate::median;

const ROUNDS: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(600);
/// How long nothing may be written before MetalLB is taken to be at rest.
const REST: Duration = Duration::from_secs(4);
/// Services in one `kubectl apply`.
const BATCH: u16 = 250;

/// Measures beside that many Services.
pub async fn measure(lab: Lab, services: u16) -> Result<Vec<Figure>> {
    let version = lab.config().metallb.clone().unwrap_or_default();
    pool(&lab, "crowd", &["198.18.0.0-198.18.15.255"]).await?;
    lab.apply(
        &json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
            "metadata": {"name": "all", "namespace": "metallb-system"}})
        .to_string(),
    )
    .await?;
    crowd(&lab, services).await?;
    eprintln!("MetalLB {version}: {services} Services have addresses");
    let (mut held, mut gained) = (Trials::default(), Trials::default());
    for round in 1..=ROUNDS {
        let (first, second) = (address(2 * round), address(2 * round + 1));
        pool(&lab, "edge", &[&first.to_string()]).await?;
        held.push(&lab, first, None).await?;
        let both = [first.to_string(), second.to_string()];
        gained.push(&lab, second, Some(&both)).await?;
        let (Some(a), Some(b)) = (held.seconds.last(), gained.seconds.last()) else {
            continue;
        };
        eprintln!(
            "round {round} of {ROUNDS}: {a:.2} s when the pool holds it, {b:.2} s when it gains it"
        );
    }
    let middle = |numbers| median(numbers).unwrap_or(f64::NAN);
    let about = format!("(vs that it holds), {services} Services, MetalLB {version}");
    Ok(vec![
        Figure::new(
            format!("to an address that the pool gains {about}"),
            "s",
            middle(gained.seconds),
            middle(held.seconds),
            None,
        ),
        Figure::new(
            format!("writes of Services for it {about}"),
            "",
            middle(gained.writes),
            middle(held.writes),
            None,
        ),
    ])
}

/// What rounds of one kind took.
#[derive(Default)]
struct Trials {
    seconds: Vec<f64>,
    writes: Vec<f64>,
}

impl Trials {
    /// A new Service asks for an address; before it, its pool may change.
    async fn push(&mut self, lab: &Lab, wants: IpAddr, change: Option<&[String]>) -> Result<()> {
        rest(lab).await?;
        let before = writes(lab)?;
        let start = Instant::now();
        if let Some(addresses) = change {
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            pool(lab, "edge", &addresses).await?;
        }
        lab.apply(&service("newcomer", Some(wants)).to_string())
            .await?;
        let all: Api<Service> = Api::namespaced(lab.client(), "default");
        while !has_address(&all.get("newcomer").await?) {
            ensure!(
                start.elapsed() < PATIENCE,
                "{wants} was not given within {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.seconds.push(start.elapsed().as_secs_f64());
        rest(lab).await?;
        let written = writes(lab)? - before;
        self.writes.push(f64::from(u32::try_from(written)?));
        lab.kubectl()
            .run(["delete", "service", "newcomer", "--wait=true"])
            .await?;
        Ok(())
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, last))
}

async fn pool(lab: &Lab, name: &str, addresses: &[&str]) -> Result<()> {
    let addresses: Vec<String> = addresses
        .iter()
        .map(|a| match a.contains('-') {
            true => (*a).to_owned(),
            false => format!("{a}/32"),
        })
        .collect();
    lab.apply(
        &json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": name, "namespace": "metallb-system"},
            "spec": {"addresses": addresses, "autoAssign": name == "crowd"}})
        .to_string(),
    )
    .await
}

fn service(name: &str, wants: Option<IpAddr>) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "selector": {"app": "none"}, "ports": [{"port": 80}]}});
    if let Some(address) = wants {
        service["metadata"]["annotations"] = json!({
            "metallb.io/address-pool": "edge", "metallb.io/loadBalancerIPs": address});
    }
    service
}

fn has_address(service: &Service) -> bool {
    let status = service.status.as_ref();
    status
        .and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref())
        .is_some_and(|ingress| !ingress.is_empty())
}

/// Creates Services, and waits until each has an address.
async fn crowd(lab: &Lab, services: u16) -> Result<()> {
    let all: Vec<u16> = (0..services).collect();
    let start = Instant::now();
    for batch in all.chunks(usize::from(BATCH)) {
        let items: Vec<Value> = batch
            .iter()
            .map(|n| service(&format!("crowd-{n}"), None))
            .collect();
        lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())
            .await?;
        let last = batch.last().map_or(0, |last| last + 1);
        eprintln!("{last} of {services} Services are made");
    }
    let api: Api<Service> = Api::namespaced(lab.client(), "default");
    loop {
        let list = api.list(&ListParams::default()).await?;
        let given = list.items.iter().filter(|s| has_address(s)).count();
        if given >= usize::from(services) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{given} of {services} Services have an address after {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Writes of Services, whoever made them.
fn writes(lab: &Lab) -> Result<usize> {
    let all = lab.writes()?;
    Ok(all
        .iter()
        .filter(|w| w.resource.starts_with("services"))
        .count())
}

/// Waits until no Service is written any more.
async fn rest(lab: &Lab) -> Result<()> {
    let start = Instant::now();
    let mut before = writes(lab)?;
    loop {
        tokio::time::sleep(REST).await;
        let now = writes(lab)?;
        if now == before {
            return Ok(());
        }
        before = now;
        ensure!(start.elapsed() < PATIENCE, "MetalLB goes on writing");
    }
}
