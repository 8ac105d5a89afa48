//! What the definitions alone refuse, fill in and show: the same without the
//! controller and the webhook.

mod cases;

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use l2lb::controller::resource;
use l2lb::world::{Key, Kind};
use l2lb_lab::Lab;
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn load_balancer() -> Value {
    json!({
        "apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"addressPool": "edge", "service": {
            "selector": {"app": "web"}, "ports": [{"port": 80}],
        }},
    })
}

fn pool() -> Value {
    json!({
        "apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
        "metadata": {"name": "edge"}, "spec": {"addresses": ["203.0.113.0/28"]},
    })
}

/// Every rule refuses what it is for, with its sentence, and nothing more.
pub async fn refuses_bad_objects(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    let mut wrong = Vec::new();
    for (kind, good, cases) in [
        (Kind::LoadBalancer, load_balancer(), cases::load_balancers()),
        (Kind::AddressPool, pool(), cases::pools()),
    ] {
        for (path, value, wanted) in cases {
            let case = format!("{} {path} = {value}", kind.as_str());
            let answer = send(&cluster, "POST", kind, &changed(&good, path, value)?).await?;
            wrong.extend(judge(&case, answer, wanted));
        }
    }
    let mut stored = load_balancer();
    stored["spec"]["service"]["loadBalancerClass"] = json!("example.org/metallb");
    stored["spec"]["service"]["ipFamilies"] = json!(["IPv4"]);
    cluster.apply(&stored.to_string()).await?;
    let stored = cluster.raw(Kind::LoadBalancer, "shop", "web").await?;
    for (path, value, wanted) in cases::changes() {
        let case = format!("changing {path} to {value}");
        let answer = send(
            &cluster,
            "PUT",
            Kind::LoadBalancer,
            &changed(&stored, path, value)?,
        )
        .await?;
        wrong.extend(judge(&case, answer, wanted));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));

    // People see the sentence, too.
    let bad = changed(&pool(), "/spec/addresses", json!(["203.0.113.5/24"]))?;
    let Err(error) = cluster.apply(&bad.to_string()).await else {
        bail!("kubectl accepts {bad}")
    };
    let said = format!("{error:#}");
    ensure!(
        said.contains("The L2AddressPool \"edge\" is invalid")
            && said.contains("write the network itself, as in 203.0.113.0/28, or a range"),
        "kubectl prints {said}"
    );
    Ok(())
}

fn changed(good: &Value, path: &str, value: Value) -> Result<Value> {
    let mut object = good.clone();
    let (parent, field) = path.rsplit_once('/').context("a path has a slash")?;
    let parent = object
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .context("no parent")?;
    match value {
        Value::Null => drop(parent.remove(field)),
        value => drop(parent.insert(field.to_owned(), value)),
    }
    Ok(object)
}

/// Sends an object without storing it; the message, when it is refused.
async fn send(
    cluster: &Cluster,
    method: &str,
    kind: Kind,
    object: &Value,
) -> Result<Result<(), String>> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let path = resource::path(kind, &Key::new(namespace, name));
    let path = match method {
        "POST" => path
            .rsplit_once('/')
            .map_or(path.as_str(), |(list, _)| list)
            .to_owned(),
        _ => path,
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}?dryRun=All"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(object)?)?;
    match cluster.client.request::<Value>(request).await {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

fn judge(case: &str, answer: Result<(), String>, wanted: Result<(), &str>) -> Option<String> {
    match (answer, wanted) {
        (Ok(()), Ok(())) => None,
        (Err(message), Err(part)) if message.contains(part) => None,
        (Ok(()), Err(part)) => Some(format!("{case} is accepted, and not refused with {part:?}")),
        (Err(message), Ok(())) => Some(format!("{case} is refused: {message}")),
        (Err(message), Err(part)) => Some(format!(
            "{case} is refused with {message:?}, and not with {part:?}"
        )),
    }
}

/// Defaults, columns and explanations.
pub async fn for_people(lab: Lab) -> Result<()> {
    let cluster = Cluster::new(lab).await?;
    cluster.nodes(["node-1", "node-2"]).await?;
    let _controller = cluster.controller()?;
    cluster.apply(&pool().to_string()).await?;
    cluster.apply(&load_balancer().to_string()).await?;
    cluster.slots("shop", "web", 2).await?;
    cluster.announce("shop", "web").await?;
    cluster.condition("shop", "web", "Pinned", "Ok").await?;
    cluster.pool_condition("edge", "Configured", "Ok").await?;

    let stored = cluster.raw(Kind::LoadBalancer, "shop", "web").await?;
    for (path, default) in [
        ("/spec/retirementPeriod", json!("24h")),
        ("/spec/service/ports/0/protocol", json!("TCP")),
        ("/spec/service/allocateLoadBalancerNodePorts", json!(false)),
        ("/spec/service/publishNotReadyAddresses", json!(false)),
    ] {
        ensure!(
            stored.pointer(path) == Some(&default),
            "{path} is {:?}",
            stored.pointer(path)
        );
    }
    let stored = cluster.raw(Kind::AddressPool, "", "edge").await?;
    for (path, default) in [
        ("/spec/onCordon", json!("Handover")),
        ("/spec/avoidBuggyIPs", json!(false)),
    ] {
        ensure!(
            stored.pointer(path) == Some(&default),
            "{path} is {:?}",
            stored.pointer(path)
        );
    }

    table(
        &cluster,
        &["get", "l2lb", "-n", "shop"],
        &["NAME", "POOL", "SLOTS", "ADDRESSES", "READY", "AGE"],
        &["web", "edge", "2/2", "[\"203.0.113.", "True"],
    )
    .await?;
    table(
        &cluster,
        &["get", "l2lb", "-n", "shop", "-o", "wide"],
        &[
            "NAME",
            "POOL",
            "SLOTS",
            "ADDRESSES",
            "READY",
            "PINNED",
            "AGE",
        ],
        &["web", "edge", "2/2", "[\"203.0.113.", "True", "Ok"],
    )
    .await?;
    table(
        &cluster,
        &["get", "l2pool"],
        &[
            "NAME",
            "ADDRESSES",
            "CAPACITY",
            "FREE",
            "LBS",
            "ACCEPTED",
            "AGE",
        ],
        &["edge", "[\"203.0.113.0/28\"]", "16", "14", "1", "True"],
    )
    .await?;

    for (what, says) in [
        (
            "l2lb",
            "Orders one LoadBalancer Service for each balancer node",
        ),
        (
            "l2lb.spec.addressPool",
            "Name of the L2AddressPool that the addresses come from.",
        ),
        (
            "l2lb.spec.service.ports.targetPort",
            "Port of the pods, a number or a name.",
        ),
        (
            "l2lb.status.slots.announcedBy",
            "The node that announces them, as MetalLB reports.",
        ),
        ("l2pool", "A range of public addresses on one L2 segment"),
        ("l2pool.spec.onCordon", "What cordoning a node means"),
    ] {
        let text = cluster.lab.kubectl().run(["explain", what]).await?;
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(
            flat.contains(says) && !flat.contains("Auto-generated"),
            "kubectl explain {what} prints {text}"
        );
    }
    let text = cluster
        .lab
        .kubectl()
        .run([
            "wait",
            "-n",
            "shop",
            "--for=condition=Ready",
            "l2lb/web",
            "--timeout=5s",
        ])
        .await?;
    ensure!(text.contains("condition met"), "kubectl wait prints {text}");
    Ok(())
}

/// Checks a table of one line: its columns, and the beginnings of its cells.
async fn table(cluster: &Cluster, args: &[&str], columns: &[&str], cells: &[&str]) -> Result<()> {
    let text = cluster.lab.kubectl().run(args).await?;
    let mut lines = text.lines();
    let head: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    ensure!(head == columns, "the columns are {head:?}");
    let line = lines.next().unwrap_or_default();
    let found: Vec<&str> = line.split_whitespace().collect();
    let fits = found.len() > cells.len() && found.iter().zip(cells).all(|(f, c)| f.starts_with(c));
    ensure!(fits, "the line is {line:?}, and not {cells:?}");
    Ok(())
}
