//! A cluster with the webhook in it, under its own ServiceAccount.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use l2lb_lab::{Lab, Process, Spec};
use serde_json::json;

/// Installs definitions, rights and configurations, and starts a webhook on
/// each of the ports.
pub async fn start(lab: &Lab, ports: &[u16], more: &[&str]) -> Result<Vec<Process>> {
    for crd in l2lb::api::crds() {
        lab.apply(&serde_json::to_string(&crd)?).await?;
    }
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=20s",
        "crd",
        "--all",
    ];
    lab.kubectl().run(wait).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "metallb-system"}});
    lab.apply(&namespace.to_string()).await?;
    let kubeconfig = lab.register_webhooks(ports).await?;
    let mut processes = Vec::new();
    for port in ports {
        let spec = Spec::new(
            format!("webhook-{port}"),
            env!("CARGO_BIN_EXE_l2lb-webhook"),
        )
        .args([
            format!("--webhook-listen=0.0.0.0:{port}"),
            format!("--listen=127.0.0.1:{}", port + 1000),
            "--namespace=l2lb-system".to_owned(),
            "--drain=0s".to_owned(),
        ])
        .args(more.iter().copied())
        .env("KUBECONFIG", kubeconfig.display().to_string());
        processes.push(lab.start(spec)?);
    }
    for port in ports {
        wait_until_ready(*port).await?;
    }
    Ok(processes)
}

/// The answer of a probe.
pub async fn probe(port: u16, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port + 1000)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

async fn wait_until_ready(port: u16) -> Result<()> {
    let start = Instant::now();
    loop {
        let answer = probe(port, "/readyz").await;
        if answer.as_ref().is_ok_and(|a| a.starts_with("HTTP/1.1 200")) {
            eprintln!("webhook {port} is ready after {:?}", start.elapsed());
            return Ok(());
        }
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "webhook {port}: {answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Adds Nodes that exist as objects only.
pub async fn add_nodes(lab: &Lab, names: &[&str]) -> Result<()> {
    for name in names {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"kubernetes.io/hostname": name, "role": "edge"}}});
        lab.apply(&node.to_string()).await?;
    }
    // Taints and readiness are a kubelet's; the rules look at neither.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Runs kubectl; returns whether it succeeded, and everything that it printed.
pub async fn kubectl(args: &[&str], input: &str) -> Result<(bool, String)> {
    use tokio::io::AsyncWriteExt;
    let mut command = tokio::process::Command::new("kubectl");
    command.args(args).envs(Lab::environment());
    command.stdin(std::process::Stdio::piped());
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().context("starting kubectl")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let text = [output.stderr, output.stdout].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

/// The controller, which is built beside the webhook.
pub fn controller() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_l2lb-webhook")).with_file_name("l2lb-controller")
}
