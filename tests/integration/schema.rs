//! What the definitions alone refuse, fill in and show: the same without the
//! controller and the webhook.

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use l2lb::controller::resource;
use l2lb::world::{Key, Kind};
use l2lb_lab::Lab;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Something that is changed in a good object, and what is said of it; `Ok`
/// where nothing may be said.
type Case = (&'static str, Value, Result<(), &'static str>);

/// Changes to a good L2LoadBalancer.
fn load_balancers() -> Vec<Case> {
    let name = "at most 58 characters long, begins with a letter";
    let reserved = "are set by the controllers alone";
    let period = "retirementPeriod is a duration between 0s and 8760h (a year), as in 24h or 1h30m";
    let family = "two ipFamilies need ipFamilyPolicy: RequireDualStack";
    let port = |p: Value| json!([p]);
    vec![
        ("/metadata/name", json!("a".repeat(58)), Ok(())),
        ("/metadata/name", json!("a".repeat(59)), Err(name)),
        ("/metadata/name", json!("web.shop"), Err(name)),
        ("/metadata/name", json!("1web"), Err(name)),
        ("/metadata/name", json!("web-1"), Ok(())),
        (
            "/spec/addressPool",
            Value::Null,
            Err("spec.addressPool: Required value"),
        ),
        ("/spec/addressPool", json!(""), Err("spec.addressPool")),
        (
            "/spec/addressPool",
            json!("p".repeat(59)),
            Err("spec.addressPool: Too long"),
        ),
        ("/spec/maxNodes", json!(0), Err("spec.maxNodes")),
        ("/spec/maxNodes", json!(1), Ok(())),
        ("/spec/maxNodes", json!(10_001), Err("spec.maxNodes")),
        (
            "/spec/addresses",
            json!(["203.0.113.1", "2001:db8::1"]),
            Ok(()),
        ),
        (
            "/spec/addresses",
            json!(["203.0.113.0/24"]),
            Err("each of addresses is a single IPv4 or IPv6 address"),
        ),
        (
            "/spec/addresses",
            json!(["203.0.113.1", "203.0.113.1"]),
            Err("Duplicate value"),
        ),
        ("/spec/retirementPeriod", json!("1d"), Err(period)),
        ("/spec/retirementPeriod", json!("-1h"), Err(period)),
        ("/spec/retirementPeriod", json!(""), Err(period)),
        ("/spec/retirementPeriod", json!("8760h1s"), Err(period)),
        ("/spec/retirementPeriod", json!("8760h"), Ok(())),
        ("/spec/retirementPeriod", json!("0s"), Ok(())),
        ("/spec/retirementPeriod", json!("1.5h30m"), Ok(())),
        (
            "/spec/service",
            Value::Null,
            Err("spec.service: Required value"),
        ),
        (
            "/spec/service/selector",
            Value::Null,
            Err("spec.service.selector: Required value"),
        ),
        (
            "/spec/service/selector",
            json!({}),
            Err("should have at least 1 properties"),
        ),
        (
            "/spec/service/ports",
            Value::Null,
            Err("spec.service.ports: Required value"),
        ),
        (
            "/spec/service/ports",
            json!([]),
            Err("should have at least 1 items"),
        ),
        (
            "/spec/service/ports",
            port(json!({"port": 0})),
            Err("spec.service.ports[0].port"),
        ),
        (
            "/spec/service/ports",
            port(json!({"port": 65_536})),
            Err("spec.service.ports[0].port"),
        ),
        ("/spec/service/ports", port(json!({"port": 65_535})), Ok(())),
        (
            "/spec/service/ports",
            port(json!({"port": 80, "protocol": "HTTP"})),
            Err("Unsupported value: \"HTTP\""),
        ),
        (
            "/spec/service/ports",
            port(json!({"port": 80, "targetPort": "web"})),
            Ok(()),
        ),
        (
            "/spec/service/ports",
            port(json!({"port": 80, "name": "Web"})),
            Err("ports[0].name"),
        ),
        (
            "/spec/service/ports",
            json!([{"port": 80}, {"port": 443}]),
            Err("with more than one port every port needs a name"),
        ),
        (
            "/spec/service/ports",
            json!([{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]),
            Ok(()),
        ),
        (
            "/spec/service/ports",
            json!([{"name": "a", "port": 53}, {"name": "b", "port": 53}]),
            Err("Duplicate value"),
        ),
        (
            "/spec/service/externalTrafficPolicy",
            json!("Locale"),
            Err("Unsupported value"),
        ),
        (
            "/spec/service/externalTrafficPolicy",
            json!("Local"),
            Ok(()),
        ),
        (
            "/spec/service/loadBalancerSourceRanges",
            json!(["198.51.100.1"]),
            Err("each of loadBalancerSourceRanges is a CIDR, as in 198.51.100.0/24"),
        ),
        (
            "/spec/service/loadBalancerSourceRanges",
            json!(["198.51.100.1/32", "::/0"]),
            Ok(()),
        ),
        (
            "/spec/service/sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 10}}),
            Err("sessionAffinityConfig needs sessionAffinity: ClientIP"),
        ),
        ("/spec/service/sessionAffinity", json!("ClientIP"), Ok(())),
        (
            "/spec/service/ipFamilies",
            json!(["IPv4", "IPv4"]),
            Err("ipFamilies names each family once"),
        ),
        (
            "/spec/service/ipFamilies",
            json!(["IPv4", "IPv6"]),
            Err(family),
        ),
        ("/spec/service/ipFamilies", json!(["IPv6"]), Ok(())),
        (
            "/spec/service/ipFamilies",
            json!(["IPv5"]),
            Err("Unsupported value"),
        ),
        (
            "/spec/service/ipFamilyPolicy",
            json!("PreferDualStack"),
            Err("Unsupported value"),
        ),
        (
            "/spec/service/ipFamilyPolicy",
            json!("RequireDualStack"),
            Ok(()),
        ),
        (
            "/spec/service/loadBalancerClass",
            json!(""),
            Err("spec.service.loadBalancerClass"),
        ),
        (
            "/spec/service/labels",
            json!({"l2lb.io/slot": "7"}),
            Err(reserved),
        ),
        (
            "/spec/service/labels",
            json!({"app.kubernetes.io/managed-by": "me"}),
            Err(reserved),
        ),
        (
            "/spec/service/labels",
            json!({"app.kubernetes.io/name": "web"}),
            Ok(()),
        ),
        (
            "/spec/service/annotations",
            json!({"metallb.io/loadBalancerIPs": "203.0.113.1"}),
            Err(reserved),
        ),
        (
            "/spec/service/annotations",
            json!({"metallb.universe.tf/allow-shared-ip": "x"}),
            Err(reserved),
        ),
        (
            "/spec/service/annotations",
            json!({"external-dns.alpha.kubernetes.io/hostname": "shop.example.org"}),
            Err("for a name use spec.dns"),
        ),
        (
            "/spec/service/annotations",
            json!({"my-metallb.io/note": "x"}),
            Ok(()),
        ),
        ("/spec/dns", json!({"hostname": "shop.example.org"}), Ok(())),
        (
            "/spec/dns",
            json!({"hostname": "*.shop.example.org", "ttl": 1}),
            Ok(()),
        ),
        (
            "/spec/dns",
            json!({"hostname": "localhost"}),
            Err("spec.dns.hostname"),
        ),
        (
            "/spec/dns",
            json!({"hostname": "Shop.example.org"}),
            Err("spec.dns.hostname"),
        ),
        (
            "/spec/dns",
            json!({"hostname": "shop.example.org", "ttl": 0}),
            Err("spec.dns.ttl"),
        ),
    ]
}

/// Changes to a good L2AddressPool.
fn pools() -> Vec<Case> {
    let form = "each of addresses is a CIDR (203.0.113.0/28), a range (203.0.113.10-203.0.113.40) or a single address";
    let excluded = "each of excludedAddresses is a CIDR, a range or a single address";
    let bits = "a CIDR in addresses has bits set behind its prefix";
    let family = "both ends of a range in addresses are of one family";
    vec![
        ("/metadata/name", json!("p".repeat(58)), Ok(())),
        (
            "/metadata/name",
            json!("p".repeat(59)),
            Err("at most 58 characters long"),
        ),
        (
            "/spec/addresses",
            Value::Null,
            Err("spec.addresses: Required value"),
        ),
        (
            "/spec/addresses",
            json!([]),
            Err("should have at least 1 items"),
        ),
        ("/spec/addresses", json!(["203.0.113.5/24"]), Err(bits)),
        ("/spec/addresses", json!(["2001:db8::1/64"]), Err(bits)),
        (
            "/spec/addresses",
            json!(["203.0.113.5/32", "2001:db8::/64", "10.0.0.0/8"]),
            Ok(()),
        ),
        ("/spec/addresses", json!(["203.0.113.5"]), Ok(())),
        (
            "/spec/addresses",
            json!(["203.0.113.5 - 203.0.113.9"]),
            Ok(()),
        ),
        (
            "/spec/addresses",
            json!(["203.0.113.5-2001:db8::1"]),
            Err(family),
        ),
        ("/spec/addresses", json!(["203.0.113.5-9"]), Err(form)),
        (
            "/spec/addresses",
            json!(["203.0.113.5-203.0.113.6-203.0.113.7"]),
            Err(form),
        ),
        ("/spec/addresses", json!(["203.0.113.256"]), Err(form)),
        ("/spec/addresses", json!(["edge"]), Err(form)),
        ("/spec/addresses", json!(["203.0.113.0/33"]), Err(form)),
        ("/spec/excludedAddresses", json!(["gateway"]), Err(excluded)),
        (
            "/spec/excludedAddresses",
            json!(["203.0.113.1", "203.0.113.4/30"]),
            Ok(()),
        ),
        (
            "/spec/interfaces",
            json!(["eth0", "eth0"]),
            Err("Duplicate value"),
        ),
        (
            "/spec/interfaces",
            json!(["a-name-too-long1"]),
            Err("spec.interfaces[0]: Too long"),
        ),
        ("/spec/interfaces", json!(["eth0", "bond0.100"]), Ok(())),
        (
            "/spec/onCordon",
            json!("Never"),
            Err("Unsupported value: \"Never\""),
        ),
        ("/spec/onCordon", json!("Ignore"), Ok(())),
        ("/spec/dnsDomains", json!([""]), Err("spec.dnsDomains[0]")),
    ]
}

/// What cannot be changed in an L2LoadBalancer that is stored.
fn changes() -> Vec<Case> {
    let class = "loadBalancerClass cannot be changed, as on a Service";
    let families = "the first of ipFamilies cannot be changed, as on a Service";
    vec![
        (
            "/spec/addressPool",
            json!("other"),
            Err("addressPool cannot be changed: create another"),
        ),
        (
            "/spec/service/loadBalancerClass",
            json!("other"),
            Err(class),
        ),
        ("/spec/service/loadBalancerClass", Value::Null, Err(class)),
        ("/spec/service/ipFamilies", json!(["IPv6"]), Err(families)),
        (
            "/spec/service/ipFamilyPolicy",
            json!("RequireDualStack"),
            Ok(()),
        ),
        ("/spec/maxNodes", json!(3), Ok(())),
        ("/spec/addresses", json!(["203.0.113.9"]), Ok(())),
    ]
}

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
        (Kind::LoadBalancer, load_balancer(), load_balancers()),
        (Kind::AddressPool, pool(), pools()),
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
    for (path, value, wanted) in changes() {
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
