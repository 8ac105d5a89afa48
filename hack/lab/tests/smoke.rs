//! The lab itself: hand-written objects, and the proof by ARP.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use l2lb_lab::{Lab, LabConfig, harness, place};

/// The addresses of testdata/lab/handwritten.yaml, with their homes. By hash
/// order each would be announced by another node.
const HOMES: [(&str, &str); 3] = [
    ("192.0.2.102", "node-1"),
    ("192.0.2.100", "node-2"),
    ("192.0.2.101", "node-3"),
];

fn main() -> ExitCode {
    harness::run(vec![
        harness::trial("pinned_by_hand", LabConfig::default(), pinned_by_hand),
        harness::trial(
            "dual_stack",
            LabConfig {
                nodes: 2,
                dual_stack: true,
                ..LabConfig::default()
            },
            dual_stack,
        ),
        harness::trial("api_server_alone", LabConfig::api_only(), api_server_alone),
    ])
}

async fn pinned_by_hand(lab: Lab) -> Result<()> {
    lab.deploy_backend("default", "web", 8080).await?;
    lab.apply_file(place::workspace().join("testdata/lab/handwritten.yaml"))
        .await?;

    for (address, home) in HOMES {
        let address: IpAddr = address.parse()?;
        let took = lab
            .wait_for_answer(address, home, Duration::from_secs(20))
            .await?;
        let response = lab
            .wait_for_http(address, 80, Duration::from_secs(20))
            .await?;
        ensure!(
            response.status == 200,
            "{address} answers with {response:?}"
        );
        eprintln!(
            "{address} is answered by {home} after {took:?}: {}",
            response.body.trim()
        );
    }

    let targets = HOMES
        .iter()
        .map(|(address, _)| Ok(SocketAddr::new(address.parse()?, 80)));
    let probe = lab.probe(targets.collect::<Result<_>>()?, Duration::from_millis(100));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    lab.kill_node("node-1").await?;
    let moved: IpAddr = HOMES[0].0.parse()?;
    let heir = loop {
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "nobody took {moved} over"
        );
        match lab.who_answers(moved).await? {
            Some(name) => break name,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    ensure!(heir != "node-1", "a node without power answers");
    eprintln!(
        "{moved} is answered by {heir} {:?} after node-1 lost power",
        start.elapsed()
    );
    lab.wait_for_answer(moved, &heir, Duration::from_secs(5))
        .await?;

    // Until Kubernetes notices, connections may still be sent to the dead
    // node's pod; which node answers for the others never changes.
    for (address, home) in &HOMES[1..] {
        let attempts = probe.since(address.parse()?, start);
        ensure!(!attempts.is_empty(), "{address} was not watched");
        for attempt in attempts {
            ensure!(
                attempt.answered_by == [*home],
                "{address} was disturbed: {attempt:?}"
            );
        }
    }
    let node = [
        "get",
        "node",
        "node-1",
        "-o",
        r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#,
    ];
    while lab.kubectl().run(node).await? != "Unknown" {
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "Kubernetes does not notice that node-1 is gone"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    eprintln!("Kubernetes noticed after {:?}", start.elapsed());

    let start = Instant::now();
    lab.revive_node("node-1").await?;
    lab.wait_for_answer(moved, "node-1", Duration::from_secs(20))
        .await?;
    eprintln!(
        "node-1 has it back {:?} after power returned",
        start.elapsed()
    );
    probe.stop().await;
    lab.wait_for_http(moved, 80, Duration::from_secs(20))
        .await?;

    // MetalLB's own webhook judges what is applied.
    let overlap = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {namespace: metallb-system, name: overlap}
spec: {addresses: [192.0.2.105/32]}
";
    ensure!(
        lab.apply(overlap).await.is_err(),
        "an overlapping pool was let in"
    );
    Ok(())
}

async fn dual_stack(lab: Lab) -> Result<()> {
    lab.deploy_backend("default", "web", 8080).await?;
    lab.apply(
        "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {namespace: metallb-system, name: both}
spec: {addresses: [192.0.2.100/32, '2001:db8::100/128']}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {namespace: metallb-system, name: both}
spec: {ipAddressPools: [both], nodeSelectors: [{matchLabels: {kubernetes.io/hostname: node-2}}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: default, name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
",
    )
    .await?;
    for address in ["192.0.2.100", "2001:db8::100"] {
        let address: IpAddr = address.parse()?;
        lab.wait_for_answer(address, "node-2", Duration::from_secs(20))
            .await?;
        let response = lab
            .wait_for_http(address, 80, Duration::from_secs(20))
            .await?;
        eprintln!("{address}: {}", response.body.trim());
    }

    // A node that joins has everything the others have.
    let name = lab.add_node().await?;
    ensure!(name == "node-3", "the third node is called {name}");
    lab.kubectl()
        .run(["rollout", "status", "daemonset/web", "--timeout=20s"])
        .await?;
    Ok(())
}

async fn api_server_alone(lab: Lab) -> Result<()> {
    let crds = lab.kubectl().run(["get", "crd", "--output=name"]).await?;
    ensure!(
        crds.contains("ipaddresspools.metallb.io"),
        "MetalLB's CRDs are missing: {crds}"
    );
    let before = lab.writes()?.len();
    lab.apply(r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "default"}}"#).await?;
    let writes = lab.writes()?;
    let ours: Vec<_> = writes[before..]
        .iter()
        .filter(|write| write.user_agent.starts_with("kubectl"))
        .collect();
    ensure!(
        ours.len() == 1 && ours[0].resource == "configmaps",
        "{ours:?}"
    );
    Ok(())
}
