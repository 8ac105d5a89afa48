//! Names for ExternalDNS, whose definition comes late and whose part is
//! played by the test.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use l2lb::api::names;
use l2lb::external_dns::DnsEndpoint;
use l2lb_lab::{Lab, place};
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, addresses, conditions_of, label};

const POOL: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec: {addresses: [203.0.113.0/28], dnsDomains: [example.org]}
";

fn load_balancer(name: &str, hostname: &str) -> String {
    format!(
        "---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {{namespace: shop, name: {name}}}
spec:
  addressPool: edge
  service:
    selector: {{app: web}}
    ports: [{{name: http, port: 80}}]
  dns: {{hostname: {hostname}, ttl: 30}}
"
    )
}

fn endpoints(cluster: &Cluster) -> Api<DnsEndpoint> {
    Api::namespaced(cluster.client.clone(), "shop")
}

/// Installs ExternalDNS's definition.
async fn define(cluster: &Cluster) -> Result<()> {
    let definition = place::workspace().join("testdata/lab/dnsendpoints.yaml");
    cluster.lab.apply_file(definition).await?;
    let established = "--for=condition=Established";
    let name = "crd/dnsendpoints.externaldns.k8s.io";
    cluster
        .lab
        .kubectl()
        .run(["wait", established, name, "--timeout=30s"])
        .await?;
    // It is served a moment after it is established.
    let start = std::time::Instant::now();
    while endpoints(cluster).list(&Default::default()).await.is_err() {
        ensure!(start.elapsed() < PATIENCE, "{name} is not served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn targets(endpoint: Option<&DnsEndpoint>) -> Vec<String> {
    let records = endpoint.map_or(&[][..], |e| &e.spec.endpoints);
    records.iter().flat_map(|r| r.targets.clone()).collect()
}

/// Waits until a record holds these addresses and no others.
async fn holds(cluster: &Cluster, name: &str, wanted: &[String]) -> Result<DnsEndpoint> {
    let what = format!("it to hold {wanted:?}");
    cluster
        .until(&endpoints(cluster), name, &what, |e| targets(e) == wanted)
        .await?
        .context("it is there")
}

/// Nothing suffers without the definition; the record comes with it, follows
/// the nodes, is repaired, is written only when it changes, and goes with its
/// load balancer or with `spec.dns`.
pub async fn record_follows_the_nodes(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    let _controller = cluster.controller()?;
    cluster.apply(POOL).await?;
    cluster
        .apply(&load_balancer("web", "web.example.org"))
        .await?;
    let children = cluster.slots("shop", "web", 3).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Ready", "Ok").await?;
    let said = cluster
        .condition("shop", "web", "DNSPublished", "ExternalDNSMissing")
        .await?;
    ensure!(
        said.message.contains("dnsendpoints.externaldns.k8s.io"),
        "{said:?}"
    );

    define(&cluster).await?;
    let mut all: Vec<String> = children.values().flat_map(addresses).collect();
    all.sort();
    let made = holds(&cluster, "web", &all).await?;
    let record = made.spec.endpoints.first().context("a record")?;
    ensure!(
        made.spec.endpoints.len() == 1
            && record.dns_name == "web.example.org"
            && record.record_type == "A"
            && record.record_ttl == Some(30),
        "{made:?}"
    );
    ensure!(
        made.owner_references()
            .iter()
            .any(|o| o.kind == "L2LoadBalancer" && o.name == "web"),
        "{made:?}"
    );
    cluster
        .condition("shop", "web", "DNSPublished", "Ok")
        .await?;
    ensure!(unread(&cluster).await?, "ExternalDNS does not run");

    // ExternalDNS reads it.
    let read = json!({"status": {"observedGeneration": made.metadata.generation}});
    endpoints(&cluster)
        .patch_status("web", &PatchParams::default(), &Patch::Merge(read))
        .await?;
    let start = std::time::Instant::now();
    while unread(&cluster).await? {
        ensure!(
            start.elapsed() < PATIENCE,
            "the condition says it is unread"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A cordon, and back.
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let without = |home: &str| -> Vec<String> {
        let others = children.values().filter(|c| label(*c, names::HOME) != home);
        let mut rest: Vec<String> = others.flat_map(addresses).collect();
        rest.sort();
        rest
    };
    let cordon = |on: bool| json!({"spec": {"unschedulable": on.then_some(true)}});
    cluster.change(&nodes, "node-2", cordon(true)).await?;
    holds(&cluster, "web", &without("node-2")).await?;
    cluster
        .condition("shop", "web", "DNSPublished", "Ok")
        .await?;
    repinned(&cluster, "node-2", false).await?;
    cluster.announce("shop", "web").await?;
    cluster.change(&nodes, "node-2", cordon(false)).await?;
    repinned(&cluster, "node-2", true).await?;
    cluster.announce("shop", "web").await?;
    let back = holds(&cluster, "web", &all).await?;

    // A node that fails, and nothing is written while nothing changes.
    cluster.set_ready("node-3", false).await?;
    holds(&cluster, "web", &without("node-3")).await?;
    repinned(&cluster, "node-3", false).await?;
    cluster.announce("shop", "web").await?;
    cluster
        .condition("shop", "web", "Pinned", "FailedOver")
        .await?;
    let before = writes(&cluster)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = writes(&cluster)?;
    ensure!(
        before == after,
        "{before} writes became {after} in a steady state"
    );
    cluster.set_ready("node-3", true).await?;
    repinned(&cluster, "node-3", true).await?;
    cluster.announce("shop", "web").await?;
    holds(&cluster, "web", &all).await?;

    // Somebody edits it.
    let theirs = json!({"spec": {"endpoints": []}});
    cluster.change(&endpoints(&cluster), "web", theirs).await?;
    let repaired = holds(&cluster, "web", &all).await?;
    ensure!(repaired.uid() == back.uid(), "it was made anew");

    // Without spec.dns.
    let plain = json!({"spec": {"dns": null}});
    cluster
        .change(&cluster.load_balancers("shop"), "web", plain)
        .await?;
    cluster
        .until(&endpoints(&cluster), "web", "it to be gone", |e| {
            e.is_none()
        })
        .await?;
    cluster
        .until(
            &cluster.load_balancers("shop"),
            "web",
            "the condition to be gone",
            |lb| conditions_of(lb).iter().all(|c| c.type_ != "DNSPublished"),
        )
        .await?;
    Ok(())
}

/// A name that is not allowed, a name that an older one has, and a
/// DNSEndpoint of somebody else; a deleted load balancer takes its record along.
pub async fn refused_names(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    define(&cluster).await?;
    let _controller = cluster.controller()?;
    cluster.apply(POOL).await?;
    cluster
        .apply(&load_balancer("web", "web.example.org"))
        .await?;
    cluster.slots("shop", "web", 2).await?;
    cluster.announce("shop", "web").await?;
    cluster
        .condition("shop", "web", "DNSPublished", "Ok")
        .await?;
    // Their creation times have whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let theirs = json!({"apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint",
        "metadata": {"namespace": "shop", "name": "taken"},
        "spec": {"endpoints": [{"dnsName": "taken.example.org", "recordType": "A",
            "targets": ["198.51.100.1"]}]}});
    cluster.apply(&theirs.to_string()).await?;
    for (name, hostname, reason, says) in [
        (
            "same",
            "web.example.org",
            "HostnameTaken",
            "L2LoadBalancer shop/web",
        ),
        (
            "other",
            "web.badexample.org",
            "DomainNotAllowed",
            "names below example.org",
        ),
        (
            "taken",
            "taken.example.org",
            "NameTaken",
            "DNSEndpoint shop/taken exists",
        ),
    ] {
        cluster.apply(&load_balancer(name, hostname)).await?;
        cluster.slots("shop", name, 2).await?;
        cluster.announce("shop", name).await?;
        let said = cluster
            .condition("shop", name, "DNSPublished", reason)
            .await?;
        ensure!(said.message.contains(says), "{said:?}");
        cluster.condition("shop", name, "Ready", "Ok").await?;
        if name != "taken" {
            let made = endpoints(&cluster).get_opt(name).await?;
            ensure!(made.is_none(), "{made:?}");
        }
    }

    cluster
        .delete(&cluster.load_balancers("shop"), "web")
        .await?;
    cluster
        .until(&endpoints(&cluster), "web", "it to be gone", |e| {
            e.is_none()
        })
        .await?;
    cluster
        .condition("shop", "same", "DNSPublished", "Ok")
        .await?;
    cluster
        .delete(&cluster.load_balancers("shop"), "taken")
        .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kept = endpoints(&cluster).get("taken").await?;
    ensure!(targets(Some(&kept)) == ["198.51.100.1"], "{kept:?}");
    Ok(())
}

/// Whether the condition says that ExternalDNS has not read the record.
async fn unread(cluster: &Cluster) -> Result<bool> {
    let said = cluster
        .condition("shop", "web", "DNSPublished", "Ok")
        .await?;
    Ok(said.message.contains("ExternalDNS has not read"))
}

/// Waits until a node's slot is pinned to its home, or away from it.
async fn repinned(cluster: &Cluster, node: &str, at_home: bool) -> Result<()> {
    let start = std::time::Instant::now();
    loop {
        let children = cluster.children("shop", "web").await?;
        let slot = children
            .values()
            .find(|c| label(*c, names::HOME) == node)
            .with_context(|| format!("{node} has no slot"))?;
        if (label(slot, names::PIN) == node) == at_home {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "the pin stays where it is");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often DNSEndpoints were written by controllers so far.
fn writes(cluster: &Cluster) -> Result<usize> {
    let writes = cluster.writes()?;
    Ok(writes
        .iter()
        .filter(|w| w.resource == "dnsendpoints")
        .count())
}
