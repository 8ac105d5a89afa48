//! What one load balancer becomes, and what several share.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::ListParams;
use l2lb::api::names;
use l2lb::manifest::{self, Manifest};
use l2lb::metallb::Capabilities;
use l2lb::render;
use l2lb::world::{Kind, Options};
use l2lb_lab::Lab;
use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE, addresses, ensure_distinct, label, load_balancer, pool};

/// What the API server adds to a Service by itself.
const SERVER_SIDE: [&str; 5] = [
    "clusterIP",
    "clusterIPs",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "sessionAffinity",
];

const INPUT: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [203.0.113.10-203.0.113.40]
  excludedAddresses: [203.0.113.11]
  interfaces: [eth1, eth0]
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}
---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {namespace: shop, name: web}
spec:
  addressPool: edge
  nodeSelector:
    matchExpressions: [{key: role, operator: In, values: [edge, both]}]
  addresses: [203.0.113.33]
  service:
    selector: {app: web}
    externalTrafficPolicy: Local
    sessionAffinity: ClientIP
    loadBalancerSourceRanges: [198.51.100.0/24]
    labels: {team: shop}
    annotations: {example.org/note: hello}
    ports:
    - {name: https, port: 443, targetPort: 8443}
    - {name: dns, port: 53, protocol: UDP, targetPort: dns}
";

/// Every object is what `kubectl l2lb render` says, and nothing else is made.
pub async fn objects_are_as_rendered(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    cluster
        .node("inner", serde_json::json!({names::HOSTNAME: "inner"}))
        .await?;
    cluster.apply(INPUT).await?;
    let _controller = cluster.controller()?;
    cluster.slots("shop", "web", 3).await?;

    let objects = rendered(&cluster).await?;
    ensure!(
        objects.len() == 1 + 3 + 3 + 2,
        "{} objects were rendered",
        objects.len()
    );
    for object in &objects {
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (kind, namespace, name) = (
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name"),
        );
        let kind = match kind {
            "Service" => Kind::Service,
            "IPAddressPool" => Kind::IpAddressPool,
            "L2Advertisement" => Kind::L2Advertisement,
            // Its status is compared below.
            _ => continue,
        };
        let live = cluster.raw(kind, namespace, name).await?;
        compare(object, &live).with_context(|| format!("{} {name}", kind.as_str()))?;
    }
    let count = cluster
        .advertisements()
        .list(&ListParams::default())
        .await?
        .items
        .len();
    ensure!(count == 3, "there are {count} L2Advertisements");
    let count = cluster
        .metallb_pools()
        .list(&ListParams::default())
        .await?
        .items
        .len();
    ensure!(count == 1, "there are {count} IPAddressPools");

    // MetalLB has not acted yet: the status is what render says, too.
    let status = |kind: &str| {
        let object = objects.iter().find(|o| o["kind"] == kind);
        object
            .map(|o| o["status"].clone())
            .context("no status was rendered")
    };
    let wanted = timeless(status("L2LoadBalancer")?);
    let start = Instant::now();
    loop {
        let live = cluster.raw(Kind::LoadBalancer, "shop", "web").await?;
        let live = timeless(live["status"].clone());
        if live == wanted {
            break;
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "the status is {live:#}, and not {wanted:#}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let wanted = status("L2AddressPool")?;
    let live = cluster.raw(Kind::AddressPool, "", "edge").await?;
    for field in ["capacity", "allocated", "free", "loadBalancers"] {
        ensure!(
            live["status"][field] == wanted[field],
            "{field} is {}",
            live["status"][field]
        );
    }
    Ok(())
}

/// What `render` makes of the manifests, and of the nodes as they are.
async fn rendered(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut manifests = manifest::parse("input", INPUT)?;
    let add = |value: Value| Manifest {
        source_name: "cluster".into(),
        number: 1,
        value,
    };
    for node in ["node-1", "node-2", "node-3", "inner"] {
        manifests.push(add(cluster.raw(Kind::Node, "", node).await?));
    }
    manifests.push(add(cluster.raw(Kind::Namespace, "", "shop").await?));
    manifests.push(add(cluster
        .raw(Kind::Service, "default", "kubernetes")
        .await?));
    let world = render::world_of(
        manifests,
        jiff::Timestamp::now(),
        Options::default(),
        Capabilities::CURRENT,
    )
    .map_err(anyhow::Error::msg)?;
    Ok(render::objects(&world.world))
}

fn compare(rendered: &Value, live: &Value) -> Result<()> {
    for field in ["labels", "annotations"] {
        let (rendered, live) = (&rendered["metadata"][field], &live["metadata"][field]);
        ensure!(rendered == live, "{field} are {live}, and not {rendered}");
    }
    let owners = live["metadata"]["ownerReferences"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let [owner] = owners.as_slice() else {
        anyhow::bail!("its owners are {owners:?}")
    };
    ensure!(owner["controller"] == true, "its owner is {owner}");
    let mut spec = live["spec"].clone();
    if let (Some(spec), Some(rendered)) = (spec.as_object_mut(), rendered["spec"].as_object()) {
        spec.retain(|field, _| {
            rendered.contains_key(field) || !SERVER_SIDE.contains(&field.as_str())
        });
        // The server fills in the timeout.
        if rendered
            .get("sessionAffinity")
            .is_some_and(|a| a == "ClientIP")
        {
            spec.remove("sessionAffinityConfig");
        }
        // Node ports are the server's, and it needs one for Local.
        spec.remove("healthCheckNodePort");
    }
    ensure!(
        spec == rendered["spec"],
        "the spec is {spec:#}, and not {:#}",
        rendered["spec"]
    );
    Ok(())
}

fn timeless(mut status: Value) -> Value {
    if let Some(status) = status.as_object_mut() {
        status.remove("observedGeneration");
        for condition in status
            .get_mut("conditions")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(condition) = condition.as_object_mut() {
                condition.remove("lastTransitionTime");
                condition.remove("observedGeneration");
            }
        }
    }
    status
}

/// Two pools, one of each family, have nothing to do with each other.
pub async fn two_pools(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    let _controller = cluster.controller()?;
    let manifests = [
        pool("four", "203.0.113.0/28"),
        pool("other", "198.51.100.0/28"),
        load_balancer("shop", "web", "four"),
        load_balancer("shop", "api", "other"),
        load_balancer("shop", "lost", "nowhere"),
    ];
    cluster.apply(&manifests.concat()).await?;
    for (name, start) in [("web", "203.0.113."), ("api", "198.51.100.")] {
        let children = cluster.slots("shop", name, 2).await?;
        ensure!(
            ensure_distinct(children.values())? == 2,
            "an address is missing"
        );
        for child in children.values() {
            ensure!(
                addresses(child).iter().all(|a| a.starts_with(start)),
                "{name} has {:?}",
                addresses(child)
            );
        }
        cluster.announce("shop", name).await?;
        cluster.condition("shop", name, "Ready", "Ok").await?;
    }
    let condition = cluster
        .condition("shop", "lost", "Accepted", "PoolNotFound")
        .await?;
    ensure!(
        condition.message == "L2AddressPool nowhere does not exist; there are: four, other",
        "{}",
        condition.message
    );
    // A pool that appears later is found.
    cluster.apply(&pool("nowhere", "192.0.2.128/28")).await?;
    cluster.slots("shop", "lost", 2).await?;
    // Pools that overlap: the older one stands, and is not touched.
    cluster
        .apply(&pool("late", "203.0.113.8-203.0.113.20"))
        .await?;
    let condition = cluster
        .pool_condition("late", "Accepted", "AddressOverlap")
        .await?;
    ensure!(
        condition.message.contains("L2AddressPool four"),
        "{}",
        condition.message
    );
    cluster.pool_condition("four", "Accepted", "Ok").await?;
    Ok(())
}

/// Load balancers with equal selectors share advertisements: the second is
/// Services and nothing else.
pub async fn advertisements_are_shared(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2", "node-3"]).await?;
    let _controller = cluster.controller()?;
    cluster.pool("203.0.113.0/27").await?;
    cluster.load_balancer("first").await?;
    let first = cluster.slots("shop", "first", 3).await?;
    cluster.pool_condition("edge", "Configured", "Ok").await?;
    let before = cluster.writes()?.len();

    cluster.load_balancer("second").await?;
    let second = cluster.slots("shop", "second", 3).await?;
    ensure!(
        ensure_distinct(first.values().chain(second.values()))? == 6,
        "addresses are missing"
    );
    let writes = cluster.writes()?;
    let touched: BTreeSet<&str> = writes[before..]
        .iter()
        .map(|w| w.resource.as_str())
        .collect();
    let allowed = [
        "services",
        "l2loadbalancers/status",
        "l2addresspools/status",
    ];
    ensure!(
        touched.iter().all(|r| allowed.contains(r)),
        "{touched:?} were written"
    );
    let sets: BTreeSet<String> = first
        .values()
        .chain(second.values())
        .map(|s| label(s, names::CANDIDATES))
        .collect();
    ensure!(sets.len() == 1, "there are {sets:?}");

    // Another selector never shares candidates.
    let narrow = load_balancer("shop", "third", "edge").replace(
        "spec:\n",
        "spec:\n  nodeSelector: {matchLabels: {kubernetes.io/hostname: node-2}}\n",
    );
    cluster.apply(&narrow).await?;
    let third = cluster.slots("shop", "third", 1).await?;
    ensure!(
        third
            .values()
            .all(|s| !sets.contains(&label(s, names::CANDIDATES))),
        "{third:?}"
    );
    let advertisements = cluster
        .advertisements()
        .list(&ListParams::default())
        .await?;
    let names: Vec<String> = advertisements.iter().map(ResourceExt::name_any).collect();
    ensure!(names.len() == 4, "there are {names:?}");

    // And goes with the last load balancer that needs it.
    cluster
        .delete(&cluster.load_balancers("shop"), "third")
        .await?;
    let gone = names
        .iter()
        .find(|n| !sets.iter().any(|set| n.contains(set.as_str())));
    let gone = gone.context("no advertisement is the third's")?;
    cluster
        .until(&cluster.advertisements(), gone, "it to go", |found| {
            found.is_none()
        })
        .await?;
    Ok(())
}
