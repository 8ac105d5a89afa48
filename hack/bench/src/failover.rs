//! What one node's death does to clients: an L2LoadBalancer beside plain
//! MetalLB, in the same cluster and at the same moment.
//!
//! Twenty addresses each: four L2LoadBalancers over five nodes, and twenty
//! Services by hand with one advertisement for all. In each round the node
//! dies that announces one of the latter; it is home to four of the former.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use l2lb_lab::{Connection, Lab, Spec};
use serde_json::{Value, json};

use crate::figure::Figure;
use crate::median;

const ROUNDS: u8 = 5;
const NODES: u8 = 5;
const LOAD_BALANCERS: u8 = 4;
const CONNECTIONS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

/// Those of load balancer `n`: the first from 192.0.2.100 on.
fn ours(n: u8) -> Vec<IpAddr> {
    (0..NODES).map(|i| address(100 + n * NODES + i)).collect()
}

/// Those by hand, from 192.0.2.150 on.
fn plain() -> Vec<IpAddr> {
    (0..NODES * LOAD_BALANCERS)
        .map(|i| address(150 + i))
        .collect()
}

/// What one round showed, here and there.
#[derive(Default)]
struct Rounds {
    broken: Pairs,
    takeover: Pairs,
    spread_after: Pairs,
}

#[derive(Default)]
struct Pairs {
    ours: Vec<f64>,
    plain: Vec<f64>,
}

impl Pairs {
    fn push(&mut self, ours: f64, plain: f64) {
        self.ours.push(ours);
        self.plain.push(plain);
    }

    fn medians(self) -> (f64, f64) {
        let middle = |numbers| median(numbers).unwrap_or(f64::NAN);
        (middle(self.ours), middle(self.plain))
    }
}

/// Measures the rounds.
pub async fn measure(lab: Lab, controller: &Path) -> Result<Vec<Figure>> {
    lab.install_product_crds().await?;
    lab.deploy_backend("default", "web", 8080).await?;
    let spec = Spec::new("l2lb-controller", controller).args(["--listen=0", "--hold-down=2s"]);
    let _controller = lab.start(spec)?;
    lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects()}).to_string())
        .await?;
    let all: Vec<IpAddr> = (0..LOAD_BALANCERS).flat_map(ours).collect();
    at_home(&lab).await?;
    for address in all.iter().copied().chain(plain()) {
        lab.wait_for_http(address, 80, PATIENCE).await?;
    }
    let before = (spread(&lab, &all).await?, spread(&lab, &plain()).await?);
    let mut rounds = Rounds::default();
    for round in 0..ROUNDS {
        let single = address(150 + round);
        one_round(&lab, single, &all, &mut rounds)
            .await
            .with_context(|| format!("round {}", round + 1))?;
    }
    Ok(figures(before, rounds))
}

fn figures(before: (f64, f64), rounds: Rounds) -> Vec<Figure> {
    let mut all = Vec::new();
    let mut add = |name: &str, unit, (value, baseline), target| {
        all.push(Figure::new(name, unit, value, baseline, target));
    };
    add(
        "connections broken by a node's death (vs one Service of plain MetalLB)",
        "%",
        rounds.broken.medians(),
        Some(1.0 / f64::from(NODES)),
    );
    add(
        "from a node's death until ARP is answered again (vs plain MetalLB)",
        "s",
        rounds.takeover.medians(),
        Some(1.1),
    );
    add(
        "20 addresses on 5 nodes: busiest minus idlest (vs plain MetalLB)",
        "",
        before,
        Some(0.5),
    );
    add(
        "the same on the 4 survivors of a death (vs plain MetalLB)",
        "",
        rounds.spread_after.medians(),
        Some(1.0),
    );
    all
}

fn objects() -> Vec<Value> {
    let service = |policy: &str| {
        json!({"selector": {"app": "web"}, "externalTrafficPolicy": policy,
            "ports": [{"port": 80, "targetPort": 8080}]})
    };
    let mut all = vec![
        json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge"}, "spec": {"addresses": ["192.0.2.100-192.0.2.149"]}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "plain", "namespace": "metallb-system"},
            "spec": {"addresses": ["192.0.2.150-192.0.2.199"], "autoAssign": false}}),
        json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
            "metadata": {"name": "plain", "namespace": "metallb-system"},
            "spec": {"ipAddressPools": ["plain"]}}),
    ];
    for n in 0..LOAD_BALANCERS {
        all.push(
            json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
            "metadata": {"name": format!("web-{n}"), "namespace": "default"},
            "spec": {"addressPool": "edge", "service": service("Local")}}),
        );
    }
    for address in plain() {
        let mut spec = service("Local");
        spec["type"] = json!("LoadBalancer");
        spec["allocateLoadBalancerNodePorts"] = json!(false);
        let name = address.to_string().replace('.', "-");
        all.push(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("plain-{name}"), "namespace": "default",
                "annotations": {"metallb.io/address-pool": "plain",
                    "metallb.io/loadBalancerIPs": address.to_string()}},
            "spec": spec}));
    }
    all
}

/// Waits until every load balancer says that all its addresses are at home.
async fn at_home(lab: &Lab) -> Result<()> {
    lab.kubectl()
        .run([
            "wait",
            "--for=condition=Pinned",
            "l2loadbalancers",
            "--all",
            "--timeout=60s",
        ])
        .await
        .map(drop)
}

async fn one_round(lab: &Lab, single: IpAddr, all: &[IpAddr], rounds: &mut Rounds) -> Result<()> {
    let victim = lab
        .who_answers(single)
        .await?
        .with_context(|| format!("nobody answers for {single}"))?;
    let slots = ours(0);
    let owners = owners(lab, &slots).await?;
    let (mine, _) = owners
        .iter()
        .find(|(_, node)| **node == victim)
        .with_context(|| format!("{victim} is home to no slot of web-0"))?;
    // As DNS hands them out: the addresses in turn.
    let many = connections(lab, slots.iter().cycle().take(CONNECTIONS)).await?;
    let one = connections(lab, std::iter::repeat_n(&single, CONNECTIONS)).await?;

    let start = Instant::now();
    lab.kill_node(&victim).await?;
    let (ours_after, plain_after) =
        tokio::try_join!(answered(lab, *mine, start), answered(lab, single, start))?;
    let (broken, broken_plain) = (broken(many).await, broken(one).await);
    // Whoever is to take over has done so when everything is answered.
    for address in all.iter().copied().chain(plain()) {
        answered(lab, address, start).await?;
    }
    let after = (spread(lab, all).await?, spread(lab, &plain()).await?);
    eprintln!(
        "{victim} died: {broken:.0} % of the connections broke, {broken_plain:.0} % with plain MetalLB; \
         answered again after {ours_after:.2} s, {plain_after:.2} s; spread {} and {}",
        after.0, after.1
    );
    rounds.broken.push(broken, broken_plain);
    rounds.takeover.push(ours_after, plain_after);
    rounds.spread_after.push(after.0, after.1);

    lab.revive_node(&victim).await?;
    let start = Instant::now();
    while !lab.is_ready(&victim).await? {
        ensure!(start.elapsed() < PATIENCE, "{victim} does not come back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    lab.kubectl()
        .run(["rollout", "status", "--timeout=60s", "daemonset/web"])
        .await?;
    at_home(lab).await?;
    lab.wait_for_answer(single, &victim, PATIENCE).await?;
    for address in owners.keys().copied().chain([single]) {
        lab.wait_for_http(address, 80, PATIENCE).await?;
    }
    Ok(())
}

async fn connections<'a>(
    lab: &Lab,
    to: impl Iterator<Item = &'a IpAddr>,
) -> Result<Vec<Connection>> {
    try_join_all(to.map(|address| lab.connect(SocketAddr::new(*address, 80)))).await
}

/// The share of connections, in percent, on which nothing is answered any more.
async fn broken(connections: Vec<Connection>) -> f64 {
    let total = connections.len();
    let asked = connections
        .into_iter()
        .map(|c| tokio::time::timeout(Duration::from_secs(3), c.get("/")));
    let alive = join_all(asked)
        .await
        .into_iter()
        .filter(|answer| matches!(answer, Ok(Ok(response)) if response.status == 200))
        .count();
    let count = |n: usize| u32::try_from(n).map_or(f64::NAN, f64::from);
    100.0 * (count(total) - count(alive)) / count(total)
}

/// Seconds from `start` until somebody answers for an address.
async fn answered(lab: &Lab, address: IpAddr, start: Instant) -> Result<f64> {
    while lab
        .answers(address, Duration::from_millis(20))
        .await?
        .is_empty()
    {
        ensure!(
            start.elapsed() < PATIENCE,
            "nobody answers for {address} any more"
        );
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Who answers for each of some addresses.
async fn owners(lab: &Lab, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>> {
    try_join_all(addresses.iter().map(|address| async move {
        let node = lab.who_answers(*address).await?;
        Ok((
            *address,
            node.with_context(|| format!("nobody answers for {address}"))?,
        ))
    }))
    .await
    .map(|pairs| pairs.into_iter().collect())
}

/// Addresses of the busiest node minus those of the idlest one that is up.
async fn spread(lab: &Lab, addresses: &[IpAddr]) -> Result<f64> {
    let up = lab.nodes().into_iter().filter(|n| lab.is_powered(n));
    let mut counts: BTreeMap<String, u32> = up.map(|n| (n, 0)).collect();
    for node in owners(lab, addresses).await?.into_values() {
        *counts.entry(node).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    let least = counts.values().min().copied().unwrap_or(0);
    Ok(f64::from(most - least))
}
