//! The run that Prometheus watches.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::{Client, Config};
use l2lb_demo::stage::{PATIENCE, Stage};
use l2lb_lab::{Lab, METALLB_NAMESPACE, Process, Spec, place};
use serde_json::{Value, json};

use crate::prometheus::Prometheus;

/// Ports of the two controllers' and the webhook's metrics.
const CONTROLLERS: [u16; 2] = [8180, 8181];
const WEBHOOK: u16 = 8182;
/// Where the webhook answers reviews.
const REVIEWS: u16 = 10443;
/// How long a state lasts, so that it is seen.
const MOMENT: Duration = Duration::from_secs(6);

/// What runs.
pub struct Scene {
    /// When it began.
    pub began: Timestamp,
    _stage: Stage,
    _others: Vec<Process>,
}

impl Scene {
    /// Where metrics are served.
    pub fn ports(&self) -> [u16; 3] {
        [CONTROLLERS[0], CONTROLLERS[1], WEBHOOK]
    }
}

/// Plays the story: all that metrics can speak of happens once.
pub async fn play(lab: Lab) -> Result<(Scene, Prometheus)> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_l2lb-controller"));
    let listen = format!("--listen=127.0.0.1:{}", CONTROLLERS[0]);
    let args = ["--hold-down=1s", "--lease-duration=12s", &listen];
    let mut stage = Stage::set(lab, program.clone(), &args).await?;
    let second = Spec::new("l2lb-controller-2", &program).args([
        "--hold-down=1s".to_owned(),
        "--lease-duration=12s".to_owned(),
        format!("--listen=127.0.0.1:{}", CONTROLLERS[1]),
    ]);
    let mut others = vec![start_webhook(&stage.lab, &program).await?];
    let prometheus = Prometheus::start(&stage.lab, &config(&stage).await?).await?;
    let began = Timestamp::now();
    prometheus
        .until("l2lb_leader == 1", PATIENCE)
        .await
        .context("no controller leads")?;
    others.push(stage.lab.start(second)?);
    prometheus
        .until("l2lb_webhook_ready == 1", PATIENCE)
        .await?;

    let step = |what: &str| eprintln!("{what}");
    step("pools and load balancers");
    let edge =
        json!({"addresses": ["192.0.2.100-192.0.2.124"], "excludedAddresses": ["192.0.2.103"]});
    stage.pool("edge", edge).await?;
    for name in ["web", "api"] {
        stage
            .load_balancer(name, "edge", json!({}), json!({}))
            .await?;
    }
    for name in ["web", "api"] {
        stage.at_home(name, 3).await?;
    }
    tokio::time::sleep(MOMENT).await;

    step("a load balancer that its pool is too small for");
    stage
        .pool("small", json!({"addresses": ["192.0.2.130"]}))
        .await?;
    let denied = stage
        .load_balancer("huge", "small", json!({}), json!({}))
        .await;
    let why = format!("{:#}", denied.err().context("it was not denied")?);
    ensure!(
        why.contains("192.0.2.130") || why.contains("small"),
        "{why}"
    );

    step("a quota that refuses Services");
    for object in limited() {
        stage.lab.apply(&object.to_string()).await?;
    }
    prometheus
        .until("sum(l2lb_refused_objects) > 0", PATIENCE)
        .await?;

    step("a node dies and returns");
    stage.lab.kill_node("node-2").await?;
    stage.away("web", "node-2", "FailedOver").await?;
    tokio::time::sleep(MOMENT).await;
    stage.lab.revive_node("node-2").await?;
    stage.at_home("web", 3).await?;

    step("a node is drained and comes back");
    stage
        .lab
        .annotate_node("node-1", "l2lb.io/drain", Some("test"))
        .await?;
    stage.away("web", "node-1", "Draining").await?;
    tokio::time::sleep(MOMENT).await;
    stage
        .lab
        .annotate_node("node-1", "l2lb.io/drain", None)
        .await?;
    stage.at_home("web", 3).await?;

    step("a node joins and leaves");
    let joined = stage.lab.add_node().await?;
    stage.at_home("web", 4).await?;
    tokio::time::sleep(MOMENT).await;
    stage.lab.remove_node(&joined).await?;
    stage.away("web", &joined, "Retiring").await?;

    step("a pool whose name somebody else uses in MetalLB");
    stage.lab.apply(&taken().to_string()).await?;
    stage
        .pool("taken", json!({"addresses": ["192.0.2.152"]}))
        .await?;
    prometheus
        .until(
            "l2lb_pool_condition_failed{pool=\"taken\",reason=\"NameTaken\"}",
            PATIENCE,
        )
        .await?;

    step("a webhook that nobody answers, and that may be missed");
    unanswered(&stage.lab, &prometheus).await?;

    step("a pool in use is deleted");
    stage
        .pool("old", json!({"addresses": ["192.0.2.140-192.0.2.145"]}))
        .await?;
    stage
        .load_balancer("legacy", "old", json!({}), json!({}))
        .await?;
    stage.at_home("legacy", 3).await?;
    let delete = ["delete", "l2pool", "old", "--wait=false"];
    stage.lab.kubectl().run(delete).await?;
    prometheus
        .until("l2lb_pool_condition_failed{pool=\"old\"}", PATIENCE)
        .await?;

    step("the leader is killed");
    stage.restart_controller().await?;
    prometheus.until("sum(l2lb_leader) == 0", PATIENCE).await?;
    prometheus.until("sum(l2lb_leader) == 1", PATIENCE).await?;
    prometheus
        .until(
            "sum(l2lb_pool_addresses{pool=\"edge\",state=\"retiring\"}) > 0",
            PATIENCE,
        )
        .await?;
    prometheus
        .until("sum(l2lb_refused_objects) > 0", PATIENCE)
        .await?;
    // Every rule is evaluated, and every target scraped, once more.
    tokio::time::sleep(MOMENT).await;
    let scene = Scene {
        began,
        _stage: stage,
        _others: others,
    };
    Ok((scene, prometheus))
}

/// A namespace whose quota leaves room for one Service of three.
fn limited() -> Vec<Value> {
    let mut spec = json!({"addressPool": "edge"});
    spec["service"] = json!({"selector": {"app": "none"}, "ports": [{"port": 80}]});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "limited"}}),
        json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"namespace": "limited", "name": "services"},
            "spec": {"hard": {"services": "1"}}}),
        json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
            "metadata": {"namespace": "limited", "name": "shop"}, "spec": spec}),
    ]
}

/// A pool of somebody else's in MetalLB, by the name that ours would have.
fn taken() -> Value {
    json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"namespace": METALLB_NAMESPACE, "name": "l2lb-taken"},
        "spec": {"addresses": ["192.0.2.150/32"], "autoAssign": false}})
}

/// The API server counts what it could not ask about and let in; it has no such
/// metric before.
async fn unanswered(lab: &Lab, prometheus: &Prometheus) -> Result<()> {
    let webhook = json!({
        "name": "nobody.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "failurePolicy": "Ignore", "timeoutSeconds": 1,
        "clientConfig": {"url": "https://192.0.2.1:9/"},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"],
            "resources": ["configmaps"]}],
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "nobody"}, "webhooks": [webhook],
    });
    lab.apply(&configuration.to_string()).await?;
    let counted = "apiserver_admission_webhook_fail_open_count{name=\"nobody.example.org\"}";
    let start = Instant::now();
    // The API server hears of the configuration through a watch of its own.
    while prometheus.query(counted).await?.is_empty() {
        ensure!(start.elapsed() < PATIENCE, "{counted} finds nothing");
        let note = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "default", "name": "note"},
            "data": {"after": format!("{:?}", start.elapsed())}});
        lab.apply(&note.to_string()).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let delete = ["delete", "validatingwebhookconfiguration", "nobody"];
    lab.kubectl().run(delete).await?;
    Ok(())
}

/// Starts the webhook and has the API server call it.
async fn start_webhook(lab: &Lab, controller: &std::path::Path) -> Result<Process> {
    let program = controller.with_file_name("l2lb-webhook");
    ensure!(
        program.is_file(),
        "{} is missing: cargo build --workspace --bins",
        program.display()
    );
    let kubeconfig = lab.register_webhooks(&[REVIEWS]).await?;
    let spec = Spec::new("l2lb-webhook", program)
        .args([
            format!("--webhook-listen=0.0.0.0:{REVIEWS}"),
            format!("--listen=127.0.0.1:{WEBHOOK}"),
            "--namespace=l2lb-system".to_owned(),
        ])
        .env("KUBECONFIG", kubeconfig.display().to_string());
    lab.start(spec)
}

/// What Prometheus scrapes, and the alerts.
async fn config(stage: &Stage) -> Result<Value> {
    let kubeconfig = std::fs::read_to_string(stage.lab.kubeconfig())?;
    let kubeconfig: Value = serde_saphyr::from_str(&kubeconfig)?;
    let token = &kubeconfig["users"][0]["user"]["token"];
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str();
    let server = server.context("the kubeconfig names no server")?;
    let selector = "app.kubernetes.io/component=controller";
    let pods = stage
        .get(&["pods", "-n", METALLB_NAMESPACE, "-l", selector])
        .await?;
    let metallb = pods["items"][0]["status"]["podIP"].as_str();
    let metallb = metallb.context("MetalLB's controller has no address")?;
    let local = |port: u16| format!("127.0.0.1:{port}");
    let secure = |job: &str, target: String, keep: &str| {
        json!({"job_name": job, "scheme": "https", "scrape_interval": "2s", "scrape_timeout": "2s",
            "authorization": {"credentials": token}, "tls_config": {"insecure_skip_verify": true},
            "static_configs": [{"targets": [target]}],
            "metric_relabel_configs": [
                {"source_labels": ["__name__"], "regex": keep, "action": "keep"}]})
    };
    let api_server = server.trim_start_matches("https://").to_owned();
    let calls = "apiserver_admission_webhook_(rejection|fail_open)_count";
    Ok(json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [place::workspace().join("charts/l2lb/files/alerts.yaml")],
        "scrape_configs": [
            {"job_name": "l2lb-controller",
                "static_configs": [{"targets": CONTROLLERS.map(local)}]},
            {"job_name": "l2lb-webhook", "static_configs": [{"targets": [local(WEBHOOK)]}]},
            secure("apiserver", api_server, calls),
            secure("metallb", format!("{metallb}:9120"), "metallb_.*"),
        ],
    }))
}

/// The metrics that are served on a port, in the older form.
pub async fn metrics(port: u16) -> Result<String> {
    let client = Client::try_from(Config::new(format!("http://127.0.0.1:{port}").parse()?))?;
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = client.request_text(request).await?;
    ensure!(
        !text.contains("# EOF"),
        "OpenMetrics came without being asked for"
    );
    Ok(text)
}
