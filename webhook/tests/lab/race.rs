//! Concurrent creations race for the last addresses: nobody gets an address
//! twice, and whoever loses is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams, PostParams};
use l2lb::api::L2LoadBalancer;
use l2lb_lab::{Lab, Spec};
use serde_json::json;

use crate::cluster;

const CONTENDERS: usize = 12;
/// Addresses of the pool: for three load balancers on two nodes.
const ADDRESSES: usize = 6;

pub async fn run(lab: Lab) -> Result<()> {
    let _webhooks = cluster::start(&lab, &[9443, 9444], &[]).await?;
    cluster::add_nodes(&lab, &["a", "b"]).await?;
    lab.kubectl().run(["create", "namespace", "shop"]).await?;
    let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
        "metadata": {"name": "edge"}, "spec": {"addresses": ["203.0.113.1-203.0.113.6"]}});
    lab.apply(&pool.to_string()).await?;
    let program = cluster::controller();
    ensure!(
        program.exists(),
        "{} is not built: cargo build -p l2lb",
        program.display()
    );
    let _controller = lab.start(
        Spec::new("controller", program)
            .args(["--listen=127.0.0.1:9980", "--lease-namespace=l2lb-system"]),
    )?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let all: Api<L2LoadBalancer> = Api::namespaced(lab.client(), "shop");
    let tasks: Vec<_> = (0..CONTENDERS)
        .map(|n| {
            let (all, name) = (all.clone(), format!("lb-{n}"));
            tokio::spawn(async move {
                let object: L2LoadBalancer = serde_json::from_value(json!({
                    "apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
                    "metadata": {"name": name}, "spec": {"addressPool": "edge",
                        "service": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}}))?;
                match all.create(&PostParams::default(), &object).await {
                    Ok(_) => Ok((name, None)),
                    Err(kube::Error::Api(status)) => Ok((name, Some(status.message.clone()))),
                    Err(error) => Err(anyhow::Error::from(error)),
                }
            })
        })
        .collect();
    let mut denied = 0;
    for task in tasks {
        if let (name, Some(message)) = task.await?? {
            ensure!(
                message.contains("needs 2 (one for each of 2 nodes: a, b)"),
                "{name}: {message}"
            );
            denied += 1;
        }
    }
    eprintln!("{denied} of {CONTENDERS} were denied, the others raced");

    let deadline = Instant::now() + Duration::from_secs(30);
    let (winners, losers) = loop {
        let (mut winners, mut losers) = (0, Vec::new());
        for lb in all.list(&ListParams::default()).await?.items {
            let conditions = lb
                .status
                .as_ref()
                .map(|s| s.conditions.clone())
                .unwrap_or_default();
            let allocated = conditions
                .into_iter()
                .find(|c| c.type_ == "AddressesAllocated");
            match allocated {
                Some(c) if c.reason == "AddressesExhausted" => losers.push(c.message),
                // Without MetalLB the Services wait for it.
                Some(c) if c.reason == "Pending" || c.status == "True" => winners += 1,
                _ => {}
            }
        }
        if winners + losers.len() + denied == CONTENDERS {
            break (winners, losers);
        }
        ensure!(
            Instant::now() < deadline,
            "{winners} winners, {losers:?}, {denied} denied"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    ensure!(
        winners == ADDRESSES / 2,
        "{winners} winners; losers: {losers:?}"
    );
    for message in &losers {
        ensure!(
            message.contains("L2AddressPool edge has no free IPv4 address"),
            "{message}"
        );
    }
    let services: Api<Service> = Api::namespaced(lab.client(), "shop");
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for service in services.list(&ListParams::default()).await?.items {
        let name = service.metadata.name.unwrap_or_default();
        let annotations = service.metadata.annotations.unwrap_or_default();
        let address = annotations
            .get("metallb.io/loadBalancerIPs")
            .context("no address")?
            .clone();
        let other = given.insert(address.clone(), name.clone());
        ensure!(
            other.is_none(),
            "{address} was given to {name} and to {other:?}"
        );
    }
    ensure!(given.len() == ADDRESSES, "{given:?}");
    eprintln!(
        "{winners} winners, {} with a condition, {denied} denied",
        losers.len()
    );
    Ok(())
}
