//! etcd, kube-apiserver and kube-controller-manager.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::KeyPair;
use serde_json::json;

use crate::lab::LabConfig;
use crate::netns::Netns;
use crate::pki::Certificate;
use crate::place;
use crate::process::{Process, Spec};
use crate::topology::{self, CONTROL_PLANE};

/// The administrator's token.
const TOKEN: &str = "lab-administrator";
/// The audit log counts requests where they arrive.
fn audit_policy(reads_of: &[String]) -> String {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            // Without users a rule is for everybody.
            {"level": "Metadata", "users": reads_of.iter().map(String::as_str).chain(["nobody"]).collect::<Vec<_>>()},
            {"level": "None", "verbs": ["get", "list", "watch"]},
            {"level": "Metadata"},
        ],
    });
    policy.to_string()
}

/// The running control plane.
pub(crate) struct ControlPlane {
    pub processes: Vec<Process>,
    pub client: Client,
}

pub(crate) fn pki() -> PathBuf {
    Path::new(place::RUN).join("pki")
}

/// Where the API server counts what was written.
pub(crate) fn audit_log(logs: &Path) -> PathBuf {
    logs.join("audit.jsonl")
}

/// Starts etcd and the API server, and returns when requests are served.
pub(crate) async fn start(config: &LabConfig, logs: &Path) -> Result<ControlPlane> {
    write_files()?;
    let mut processes = vec![Process::start(&Netns::ControlPlane, &etcd(), logs)?];
    processes.push(Process::start(
        &Netns::ControlPlane,
        &api_server(config, logs)?,
        logs,
    )?);
    let kubeconfig = Kubeconfig::read_from(place::KUBECONFIG).context("reading the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("reading the kubeconfig")?;
    let client = Client::try_from(config).context("making a Kubernetes client")?;
    wait_until_ready(&client, &mut processes).await?;
    Ok(ControlPlane { processes, client })
}

/// Starts kube-controller-manager.
pub(crate) fn start_controller_manager(config: &LabConfig, logs: &Path) -> Result<Process> {
    let pki = pki();
    let spec = Spec::new(
        "kube-controller-manager",
        place::tool("kubernetes", "kube-controller-manager"),
    )
    .args([
        format!("--kubeconfig={}", place::KUBECONFIG),
        format!(
            "--service-account-private-key-file={}",
            pki.join("service-account.key").display()
        ),
        format!("--root-ca-file={}", pki.join("ca.crt").display()),
        format!(
            "--node-monitor-grace-period={}s",
            config.node_monitor_grace.as_secs()
        ),
        "--node-monitor-period=1s".into(),
        "--leader-elect=false".into(),
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
        format!(
            "--cert-dir={}",
            Path::new(place::RUN)
                .join("kube-controller-manager")
                .display()
        ),
    ]);
    Process::start(&Netns::ControlPlane, &spec, logs)
}

fn etcd() -> Spec {
    let client = "http://127.0.0.1:2379";
    let peer = "http://127.0.0.1:2380";
    Spec::new("etcd", place::tool("kubernetes", "etcd")).args([
        format!(
            "--data-dir={}",
            Path::new(place::RUN).join("etcd").display()
        ),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ])
}

fn api_server(config: &LabConfig, logs: &Path) -> Result<Spec> {
    let pki = pki();
    let file = |name: &str| pki.join(name).display().to_string();
    let mut spec = Spec::new(
        "kube-apiserver",
        place::tool("kubernetes", "kube-apiserver"),
    )
    .args([
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!(
            "--cert-dir={}",
            Path::new(place::RUN).join("kube-apiserver").display()
        ),
        format!("--tls-cert-file={}", file("api-server.crt")),
        format!("--tls-private-key-file={}", file("api-server.key")),
        "--bind-address=0.0.0.0".into(),
        format!("--advertise-address={CONTROL_PLANE}"),
        format!(
            "--service-cluster-ip-range={}",
            topology::service_ranges(config.dual_stack)
        ),
        format!("--service-account-issuer=https://{CONTROL_PLANE}:6443"),
        format!("--service-account-key-file={}", file("service-account.pub")),
        format!(
            "--service-account-signing-key-file={}",
            file("service-account.key")
        ),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".into(),
        "--allow-privileged".into(),
        "--disable-admission-plugins=ServiceAccount".into(),
        "--enable-aggregator-routing".into(),
        "--endpoint-reconciler-type=none".into(),
    ]);
    if !config.admission_plugins.is_empty() {
        let plugins = config.admission_plugins.join(",");
        spec = spec.args([format!("--enable-admission-plugins={plugins}")]);
    }
    if config.audit {
        let policy = pki.join("audit-policy.yaml");
        std::fs::write(&policy, audit_policy(&config.audit_reads_of))
            .context("writing the audit policy")?;
        spec = spec.args([
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", audit_log(logs).display()),
            "--audit-log-mode=blocking".into(),
        ]);
    }
    Ok(spec)
}

async fn wait_until_ready(client: &Client, processes: &mut [Process]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let request = http_get("/readyz")?;
        let error = match client.request_text(request).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        for process in processes.iter_mut() {
            if let Some(how) = process.has_ended() {
                bail!("{} ended: {how}", process.name());
            }
        }
        if Instant::now() > deadline {
            return Err(error).context("the API server is not ready after 60 s");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    http::Request::get(path)
        .body(Vec::new())
        .context("making a request")
}

/// Writes keys, certificates, tokens and the administrator's kubeconfig.
fn write_files() -> Result<()> {
    let pki = pki();
    std::fs::create_dir_all(&pki).context("creating the folder for keys")?;
    let write = |name: &str, text: String| {
        std::fs::write(pki.join(name), text).with_context(|| format!("writing {name}"))
    };
    let names = [
        "192.0.2.1",
        "127.0.0.1",
        "198.18.128.1",
        "localhost",
        "kubernetes.default.svc",
    ];
    let server = Certificate::of_server("kube-apiserver", &names)?;
    write("ca.crt", server.ca)?;
    write("api-server.crt", server.certificate)?;
    write("api-server.key", server.key)?;
    let accounts = KeyPair::generate().context("making a key")?;
    write("service-account.key", accounts.serialize_pem())?;
    write("service-account.pub", accounts.public_key_pem())?;
    write(
        "tokens.csv",
        format!("{TOKEN},administrator,administrator,system:masters\n"),
    )?;
    write_kubeconfig(Path::new(place::KUBECONFIG), TOKEN)
}

/// Writes a kubeconfig for the bearer of a token.
pub(crate) fn write_kubeconfig(path: &Path, token: &str) -> Result<()> {
    let text = format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: lab\n  cluster: {{server: 'https://{CONTROL_PLANE}:6443', certificate-authority: {}}}\n\
         users:\n\
         - name: lab\n  user: {{token: {token}}}\n\
         contexts:\n\
         - name: lab\n  context: {{cluster: lab, user: lab}}\n\
         current-context: lab\n",
        pki().join("ca.crt").display(),
    );
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
