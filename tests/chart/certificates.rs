//! The webhook's certificate by cert-manager itself: issued, injected, renewed
//! and handed over, with nobody restarting anything.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use l2lb_lab::{Lab, LabConfig, Process, Spec, place};

use crate::life;
use crate::rights::NAMESPACE;

const PATIENCE: Duration = Duration::from_secs(90);
const SECRET: &str = "l2lb-webhook-tls";

/// Nodes with MetalLB, cert-manager's programs, and ours as they were built.
pub fn config() -> LabConfig {
    LabConfig {
        images: life::images(),
        tools: vec!["cert-manager".to_owned()],
        ..LabConfig::default()
    }
}

pub async fn by_cert_manager(lab: Lab) -> Result<()> {
    let _running = start(&lab).await?;
    for namespace in [NAMESPACE, "shop"] {
        lab.kubectl()
            .run(["create", "namespace", namespace])
            .await?;
    }
    helm(&lab, "install", "cert-manager").await?;
    lab.apply(POOL).await?;
    webhook_answers(&lab).await?;
    lab.ensure_check_finds_nothing().await?;

    // Another certificate of the same CA: taken up by programs that go on.
    let before = secret(&lab).await?;
    let pods = pods(&lab).await?;
    let delete = ["delete", "secret", SECRET, "-n", NAMESPACE];
    lab.kubectl().run(delete).await?;
    until("another certificate", async || {
        Ok(secret(&lab).await.is_ok_and(|now| now != before))
    })
    .await?;
    webhook_answers(&lab).await?;
    ensure!(pods == self::pods(&lab).await?, "pods were replaced");

    for from in ["self", "cert-manager"] {
        helm(&lab, "upgrade", from).await?;
        webhook_answers(&lab).await?;
    }
    lab.ensure_check_finds_nothing().await
}

/// Starts cert-manager with the administrator's rights.
async fn start(lab: &Lab) -> Result<[Process; 2]> {
    let definitions = lab.tool("cert-manager", "cert-manager", [""; 0]).await?;
    lab.apply(&definitions).await?;
    let run = |program: &str| {
        let spec = Spec::new(
            format!("cert-manager-{program}"),
            place::tool("cert-manager", program),
        );
        let kubeconfig = format!("--kubeconfig={}", place::KUBECONFIG);
        lab.start(spec.args([kubeconfig.as_str(), "--leader-elect=false"]))
    };
    Ok([run("controller")?, run("cainjector")?])
}

async fn helm(lab: &Lab, verb: &str, from: &str) -> Result<()> {
    let chart = Lab::chart();
    let chart = chart.to_string_lossy();
    let namespace = format!("--namespace={NAMESPACE}");
    let from = format!("--set=webhook.certificate.from={from}");
    // All pods of a node share its ports in the lab.
    let ports = "--set=webhook.ports.http=8081";
    let args = [verb, "l2lb", &chart, &namespace, &from, ports];
    lab.helm(args.iter().chain(&["--wait", "--timeout=120s"]))
        .await
        .map(drop)
}

/// The certificate that the webhook's pods mount.
async fn secret(lab: &Lab) -> Result<String> {
    let path = "jsonpath={.data.tls\\.crt}";
    let get = ["get", "secret", SECRET, "-n", NAMESPACE, "-o", path];
    let found = lab.kubectl().run(get).await?;
    ensure!(!found.is_empty(), "there is no certificate yet");
    Ok(found)
}

async fn pods(lab: &Lab) -> Result<String> {
    let path = "jsonpath={.items[*].metadata.uid}";
    let get = ["get", "pods", "-n", NAMESPACE, "-o", path];
    lab.kubectl().run(get).await
}

/// Waits until the webhook denies what there are no addresses for, which it does
/// only once the API server trusts it.
async fn webhook_answers(lab: &Lab) -> Result<()> {
    until("the webhook's denial", async || {
        let said = lab.apply(LARGE).await;
        ensure!(said.is_err(), "a load balancer without addresses: {said:?}");
        Ok(said.is_err_and(|error| error.to_string().contains("has 2 free")))
    })
    .await
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds().await? {
        ensure!(start.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

const POOL: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.101]
  # Not the control plane, or `check` would warn that it gets no address.
  nodeSelector:
    matchExpressions:
    - {key: node.kubernetes.io/exclude-from-external-load-balancers, operator: DoesNotExist}
";
const LARGE: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {name: large, namespace: shop}
spec:
  addressPool: edge
  service: {selector: {app: web}, ports: [{port: 80}]}
";
