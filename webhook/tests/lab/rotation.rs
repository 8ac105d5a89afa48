//! Certificates and CAs are renewed, by two replicas, under continuous
//! requests without one failure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use l2lb::api::L2LoadBalancer;
use l2lb_lab::Lab;
use serde_json::json;

use crate::cluster;

const RUN: Duration = Duration::from_secs(60);

/// The right to create Secrets.
const MAY_CREATE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: create-secrets, namespace: l2lb-system}
rules: [{apiGroups: [''], resources: [secrets], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: create-secrets, namespace: l2lb-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: create-secrets}
subjects: [{kind: ServiceAccount, name: l2lb-webhook, namespace: l2lb-system}]
";

pub async fn run(lab: Lab) -> Result<()> {
    let ports = [9443, 9444];
    let short = [
        "--certificate-life=9s",
        "--ca-life=24s",
        "--ca-settle=3s",
        "--certificate-check=1s",
    ];
    let _webhooks = cluster::start(&lab, &ports, &short).await?;
    cluster::add_nodes(&lab, &["a", "b"]).await?;
    let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
        "metadata": {"name": "edge"}, "spec": {"addresses": ["203.0.113.1-203.0.113.6"]}});
    lab.apply(&pool.to_string()).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for worker in 0..4 {
        let (client, stop, count) = (lab.client(), stop.clone(), count.clone());
        tasks.push(tokio::spawn(ask(client, worker, stop, count)));
    }
    for port in ports {
        let (client, stop, count) = (lab.client(), stop.clone(), count.clone());
        tasks.push(tokio::spawn(connect(client, port, stop, count)));
    }
    let secrets: Api<Secret> = Api::namespaced(lab.client(), "l2lb-system");
    let (mut leaves, mut authorities) = (BTreeSet::new(), BTreeSet::new());
    let start = Instant::now();
    while start.elapsed() < RUN {
        let data = secrets
            .get("l2lb-webhook-certificate")
            .await?
            .data
            .unwrap_or_default();
        leaves.insert(data.get("tls.crt").context("no tls.crt")?.0.clone());
        authorities.insert(data.get("ca.key").context("no ca.key")?.0.clone());
        if tasks.iter().any(tokio::task::JoinHandle::is_finished) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Also when it is deleted, for those who may create it: the chart's
    // webhook may not.
    lab.apply(MAY_CREATE).await?;
    secrets
        .delete("l2lb-webhook-certificate", &Default::default())
        .await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    secrets
        .get("l2lb-webhook-certificate")
        .await
        .context("the Secret did not come back")?;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    let requests = count.load(Ordering::Relaxed);
    eprintln!(
        "{requests} requests, {} certificates, {} CAs, no failure",
        leaves.len(),
        authorities.len()
    );
    ensure!(
        leaves.len() >= 5 && authorities.len() >= 3,
        "too few renewals"
    );
    ensure!(requests > 500, "only {requests} requests");
    Ok(())
}

/// Creates without storing, again and again: each one is asked about.
async fn ask(
    client: Client,
    worker: usize,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Result<()> {
    let all: Api<L2LoadBalancer> = Api::namespaced(client, "default");
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    while !stop.load(Ordering::Relaxed) {
        let object: L2LoadBalancer = serde_json::from_value(json!({
            "apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
            "metadata": {"name": format!("ask-{worker}")},
            "spec": {"addressPool": "edge", "service": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}}))?;
        all.create(&params, &object)
            .await
            .context("a creation failed")?;
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A new connection for each request, trusting what the caBundle holds: the
/// API server keeps its connections and would hardly notice a certificate.
async fn connect(
    client: Client,
    port: u16,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Result<()> {
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client);
    while !stop.load(Ordering::Relaxed) {
        let configuration = configurations.get("l2lb").await?;
        let webhooks = configuration.webhooks.unwrap_or_default();
        let bundle = webhooks
            .first()
            .and_then(|w| w.client_config.ca_bundle.clone());
        let bundle = bundle.context("there is no caBundle")?;
        let mut config = Config::new(format!("https://192.0.2.1:{port}").parse()?);
        config.tls_server_name = Some("l2lb-webhook.l2lb-system.svc".to_owned());
        config.root_cert = Some(ders(&bundle.0)?);
        config.default_retry = false;
        let direct = Client::try_from(config)?;
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u", "kind": {"kind": "x"}, "operation": "DELETE"}});
        let request = axum::http::Request::post("/validate").body(serde_json::to_vec(&review)?)?;
        let answer: serde_json::Value = direct
            .request(request)
            .await
            .with_context(|| format!("port {port}"))?;
        if answer["response"]["allowed"] != json!(true) {
            bail!("the answer is {answer}");
        }
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn ders(pem: &[u8]) -> Result<Vec<Vec<u8>>> {
    x509_parser::pem::Pem::iter_from_buffer(pem)
        .map(|block| Ok(block?.contents))
        .collect()
}
