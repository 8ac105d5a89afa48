//! The images in a real cluster: installed from the chart's package, and with
//! nothing to see but what is in them. The release has not the usual name, and
//! the webhook's certificate is the administrator's.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use l2lb_lab::{Certificate, Image, Lab, LabConfig, harness, place};
use l2lb_release::build::PROGRAMS;
use l2lb_release::project::Project;
use l2lb_release::unpack::Layout;
use l2lb_release::{artefacts, chart};
use serde_json::json;

const NAMESPACE: &str = "--namespace=l2lb-system";
const RELEASE: &str = "balancer";
/// What the names of the release's objects begin with.
const FULL_NAME: &str = "balancer-l2lb";
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let images = PROGRAMS.iter().filter(|program| program.in_image);
    let config = LabConfig {
        images: images
            .map(|program| Image {
                repository: program.name.to_owned(),
                program: Path::new("/").join(program.name),
                root: Some(unpacked(program.name)),
            })
            .collect(),
        ..LabConfig::default()
    };
    harness::run(vec![
        harness::trial("images_serve", config, images_serve).timeout(Duration::from_secs(300)),
    ])
}

/// Where the lab sees an image's files.
fn unpacked(name: &str) -> PathBuf {
    Path::new("/run/lab/unpacked").join(name)
}

async fn images_serve(lab: Lab) -> Result<()> {
    let project = Project::read(&place::workspace())?;
    let mut flags = vec![NAMESPACE.to_owned()];
    for program in PROGRAMS.iter().filter(|program| program.in_image) {
        let layout = Layout::open(&artefacts::images_dir(&project).join(program.name))?;
        let arch = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let image = layout.image(arch)?;
        image.unpack(&unpacked(program.name))?;
        let part = program.name.trim_start_matches("l2lb-");
        flags.push(format!("--set={part}.image.digest={}", image.digest));
    }
    // All pods of a node share its ports in the lab.
    flags.push("--set=webhook.ports.http=8081".to_owned());

    // The package is the folder.
    let package = PathBuf::from("/run/lab/l2lb.tgz");
    std::fs::write(&package, chart::package(&project)?)?;
    let package = package.to_string_lossy();
    let folder = Lab::chart();
    let folder = folder.to_string_lossy();
    let template = |chart| {
        [
            "template",
            RELEASE,
            chart,
            NAMESPACE,
            "--kube-version=v1.33.0",
        ]
    };
    let (packed, plain) = (
        lab.helm(template(&package)).await?,
        lab.helm(template(&folder)).await?,
    );
    ensure!(
        packed == plain,
        "the package renders other manifests than the folder"
    );

    let kubectl = lab.kubectl();
    let service = format!("{FULL_NAME}-webhook.l2lb-system.svc");
    let certificate = Certificate::of_server("webhook", &[&service])?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "l2lb-system",
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": format!("{FULL_NAME}-webhook-tls"), "namespace": "l2lb-system"},
        "stringData": {"tls.crt": certificate.certificate, "tls.key": certificate.key}});
    for object in [namespace, secret] {
        lab.apply(&object.to_string()).await?;
    }
    let ca = PathBuf::from("/run/lab/webhook-ca.crt");
    std::fs::write(&ca, &certificate.ca)?;
    flags.push("--set=webhook.certificate.from=secret".to_owned());
    flags.push(format!(
        "--set-file=webhook.certificate.caBundle={}",
        ca.display()
    ));

    let start = Instant::now();
    let install = ["install", RELEASE, &package, "--wait", "--timeout=90s"];
    lab.helm(install.into_iter().chain(flags.iter().map(String::as_str)))
        .await?;
    eprintln!("ready after {:.1} s", start.elapsed().as_secs_f64());
    let lease = "jsonpath={.spec.holderIdentity}";
    let name = format!("{FULL_NAME}-controller");
    let holder = kubectl
        .run(["get", "lease", &name, NAMESPACE, "-o", lease])
        .await?;
    ensure!(
        holder.starts_with(&format!("{name}-")),
        "the Lease is held by {holder:?}"
    );

    lab.deploy_backend("default", "web", 8090).await?;
    let wait = ["wait", "--for=condition=Ready", "--timeout=60s"];
    lab.apply(POOL).await?;
    kubectl.run(wait.iter().chain(&["l2pool/edge"])).await?;
    lab.apply(LOAD_BALANCER).await?;
    kubectl.run(wait.iter().chain(&["l2lb/web"])).await?;
    let addresses = "jsonpath={.status.publicAddresses[*]}";
    let addresses = kubectl.run(["get", "l2lb", "web", "-o", addresses]).await?;
    let addresses: Vec<&str> = addresses.split_whitespace().collect();
    ensure!(addresses.len() == 3, "{addresses:?}");
    for address in addresses {
        let address: IpAddr = address.parse().context("reading an address")?;
        lab.wait_for_http(address, 80, PATIENCE).await?;
    }
    webhook_answers(&lab, Duration::ZERO).await?;
    certificate_changes_hands(&lab, &package, &ca).await?;
    lab.ensure_check_finds_nothing().await
}

/// Waits until the webhook denies what there are no addresses for.
async fn webhook_answers(lab: &Lab, patience: Duration) -> Result<()> {
    let start = Instant::now();
    let other = LOAD_BALANCER.replace("name: web", "name: other");
    loop {
        let denied = lab.apply(&other).await;
        match &denied {
            Err(error) if error.to_string().contains("has 2 free") => return Ok(()),
            // Nobody answers yet.
            Err(_) if start.elapsed() < patience => {}
            _ => bail!("a load balancer for which there are no addresses: {denied:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The webhook makes its certificate itself, and then the administrator again,
/// whose Secret is there all the time.
async fn certificate_changes_hands(lab: &Lab, package: &str, ca: &Path) -> Result<()> {
    let kubectl = lab.kubectl();
    let ca = format!("--set-file=webhook.certificate.caBundle={}", ca.display());
    let own = format!("secret/{FULL_NAME}-webhook-certificate");
    let given = format!("secret/{FULL_NAME}-webhook-tls");
    for (from, bundle) in [
        ("self", "--set=webhook.certificate.caBundle="),
        ("secret", ca.as_str()),
    ] {
        let from_whom = format!("--set=webhook.certificate.from={from}");
        let upgrade = ["upgrade", RELEASE, package, NAMESPACE];
        let how = ["--reset-then-reuse-values", "--wait", "--timeout=90s"];
        let what = [from_whom.as_str(), bundle];
        lab.helm([&upgrade[..], &how, &what].concat()).await?;
        let secrets = kubectl
            .run(["get", "secrets", NAMESPACE, "-o", "name"])
            .await?;
        let is_there = |name: &str| secrets.lines().any(|line| line == name);
        ensure!(
            is_there(&given) && is_there(&own) == (from == "self"),
            "with {from} there are the Secrets {secrets}"
        );
        webhook_answers(lab, PATIENCE).await?;
    }
    Ok(())
}

const POOL: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.104]
  # Not the control plane, or `check` would warn that it gets no address.
  nodeSelector:
    matchExpressions:
    - {key: node.kubernetes.io/exclude-from-external-load-balancers, operator: DoesNotExist}
";
const LOAD_BALANCER: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {name: web, namespace: default}
spec:
  addressPool: edge
  service: {selector: {app: web}, ports: [{port: 80, targetPort: 8090}]}
";
