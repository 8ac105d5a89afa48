//! From `kubectl apply` until ARP is answered for every address: one
//! L2LoadBalancer against the equivalent objects written by hand.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use l2lb_lab::{Lab, Spec};
use serde_json::{Value, json};

use crate::figure::Figure;
use crate::median;

const PAIRS: usize = 10;
const NODES: u8 = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// Ours come from 192.0.2.100 on, those by hand from 192.0.2.150 on.
fn addresses(first: u8) -> Vec<IpAddr> {
    (0..NODES)
        .map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, first + n)))
        .collect()
}

/// Measures the pairs, in turn.
pub async fn measure(lab: Lab, controller: &Path) -> Result<Vec<Figure>> {
    lab.install_product_crds().await?;
    lab.deploy_backend("default", "web", 8080).await?;
    let spec = Spec::new("l2lb-controller", controller).args(["--listen", "127.0.0.1:8080"]);
    let _controller = lab.start(spec)?;
    // Both pools are there beforehand: a pool is made once, and used often.
    lab.apply(&list(&[
        json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge"}, "spec": {"addresses": ["192.0.2.100-192.0.2.149"]}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "hand", "namespace": "metallb-system"},
            "spec": {"addresses": ["192.0.2.150-192.0.2.199"], "autoAssign": false}}),
    ]))
    .await?;
    lab.kubectl()
        .run([
            "wait",
            "--for=condition=Configured",
            "l2addresspool/edge",
            "--timeout=30s",
        ])
        .await?;

    let ours = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
        "metadata": {"name": "web", "namespace": "default"},
        // A freed address rests before it is given out again: ask for these.
        "spec": {"addressPool": "edge", "addresses": addresses(100), "service": {"selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}]}}})
    .to_string();
    let hand = list(&by_hand(&lab));
    let (mut with_us, mut without) = (Vec::new(), Vec::new());
    for pair in 1..=PAIRS {
        // The one that goes first changes from pair to pair.
        let (a, b) = if pair % 2 == 1 {
            let a = fan_out(&lab, &ours, &addresses(100)).await?;
            (a, fan_out(&lab, &hand, &addresses(150)).await?)
        } else {
            let b = fan_out(&lab, &hand, &addresses(150)).await?;
            (fan_out(&lab, &ours, &addresses(100)).await?, b)
        };
        eprintln!("pair {pair} of {PAIRS}: {a:.3} s as one L2LoadBalancer, {b:.3} s by hand");
        with_us.push(a);
        without.push(b);
    }
    let ratios: Vec<f64> = with_us.iter().zip(&without).map(|(a, b)| a / b).collect();
    let name = "kubectl apply until ARP for 5 addresses (vs by hand), median of 10 pairs";
    let mut figure = Figure::new(
        name,
        "s",
        median(with_us).unwrap_or(f64::NAN),
        median(without).unwrap_or(f64::NAN),
        Some(1.1),
    );
    // The median of the ratios, not the ratio of the medians.
    figure.ratio = median(ratios).unwrap_or(f64::NAN);
    figure.met = Some(figure.ratio <= 1.1);
    Ok(vec![figure])
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// What a person would write: an advertisement and a Service for each node.
fn by_hand(lab: &Lab) -> Vec<Value> {
    let mut objects = Vec::new();
    for (node, address) in lab.nodes().iter().zip(addresses(150)) {
        objects.push(
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
            "metadata": {"name": format!("hand-{node}"), "namespace": "metallb-system"},
            "spec": {"ipAddressPools": ["hand"],
                "serviceSelectors": [{"matchLabels": {"hand": node}}],
                "preferredNodeSelectors": [{"weight": 100, "preference":
                    {"matchLabels": {"kubernetes.io/hostname": node}}}]}}),
        );
        objects.push(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("hand-{node}"), "namespace": "default",
                "labels": {"hand": node},
                "annotations": {"metallb.io/address-pool": "hand",
                    "metallb.io/loadBalancerIPs": address.to_string()}},
            "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}));
    }
    objects
}

/// Applies, waits until each address is answered, deletes again, and waits
/// until none is. Returns the seconds from apply to the last answer.
async fn fan_out(lab: &Lab, manifests: &str, addresses: &[IpAddr]) -> Result<f64> {
    let file = lab.logs_dir().join("bench.json");
    tokio::fs::write(&file, manifests).await?;
    let file = file.display().to_string();
    let start = Instant::now();
    let apply = async {
        lab.kubectl()
            .run(["apply", "--server-side", "-f", &file])
            .await
            .map(drop)
    };
    let answered = async { wait(lab, addresses, true).await };
    let ((), ()) = tokio::try_join!(apply, answered)?;
    let took = start.elapsed().as_secs_f64();
    lab.kubectl()
        .run(["delete", "--wait=true", "-f", &file])
        .await?;
    wait(lab, addresses, false).await?;
    // Let MetalLB come to rest before the next one.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(took)
}

/// Waits until every address is answered, or none.
async fn wait(lab: &Lab, addresses: &[IpAddr], answered: bool) -> Result<()> {
    let start = Instant::now();
    try_join_all(addresses.iter().map(|address| async move {
        loop {
            let answers = lab.answers(*address, Duration::from_millis(20)).await?;
            if answers.is_empty() != answered {
                return Ok(());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{address} after {PATIENCE:?}: {answers:?}"
            );
        }
    }))
    .await
    .map(drop)
}
