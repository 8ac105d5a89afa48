//! The record for ExternalDNS through a node's loss of power.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{Api, Patch, PatchParams};
use l2lb::api::L2LoadBalancer;
use l2lb::external_dns::DnsEndpoint;
use l2lb_demo::stage::{NAMESPACE, PATIENCE, Stage};
use l2lb_lab::{Lab, place};
use serde_json::json;

use super::{address, set};

/// A node loses power: its address leaves the record, and returns when the
/// node announces it again. The others stay in it all the time.
pub async fn name_follows_power(lab: Lab) -> Result<()> {
    lab.apply_file(place::workspace().join("testdata/lab/dnsendpoints.yaml"))
        .await?;
    let stage = set(lab, "Cluster").await?;
    let load_balancers: Api<L2LoadBalancer> = Api::namespaced(stage.lab.client(), NAMESPACE);
    let dns = json!({"spec": {"dns": {"hostname": "web.example.org", "ttl": 30}}});
    load_balancers
        .patch("web", &PatchParams::default(), &Patch::Merge(dns))
        .await?;
    let slots = stage.slots("web").await?;
    let all = slots.iter().map(address).collect::<Result<BTreeSet<_>>>()?;
    let slot = slots.get(1).context("there is no second slot")?;
    let mut rest = all.clone();
    rest.remove(&address(slot)?);
    record(&stage, &all, &rest).await?;

    let start = Instant::now();
    stage.lab.kill_node(&slot.home).await?;
    record(&stage, &rest, &rest).await?;
    eprintln!(
        "{} left the record {:.1} s after {} lost power",
        address(slot)?,
        start.elapsed().as_secs_f64(),
        slot.home
    );

    let start = Instant::now();
    stage.lab.revive_node(&slot.home).await?;
    record(&stage, &all, &rest).await?;
    eprintln!(
        "{} is back in it {:.1} s after the power",
        address(slot)?,
        start.elapsed().as_secs_f64()
    );
    // It is at home when it is in the record.
    stage.answers(slot, &slot.home).await?;
    Ok(())
}

/// Waits until the record holds these addresses. It never lacks one of
/// `always` once it exists.
async fn record(stage: &Stage, wanted: &BTreeSet<IpAddr>, always: &BTreeSet<IpAddr>) -> Result<()> {
    let api: Api<DnsEndpoint> = Api::namespaced(stage.lab.client(), NAMESPACE);
    let start = Instant::now();
    loop {
        let found = api.get_opt("web").await?;
        let held: BTreeSet<IpAddr> = found
            .iter()
            .flat_map(|e| &e.spec.endpoints)
            .flat_map(|r| &r.targets)
            .filter_map(|t| t.parse().ok())
            .collect();
        if held == *wanted {
            return Ok(());
        }
        ensure!(
            found.is_none() || held.is_superset(always),
            "it holds {held:?}"
        );
        ensure!(
            start.elapsed() < PATIENCE,
            "waited for {wanted:?}, it holds {held:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
