//! The chart's life: installed as an older release, upgraded, uninstalled and
//! installed again, with the programs running under the accounts that it made.

mod docs;
mod looks;
mod manifests;
mod older;
mod people;
mod silence;
mod steps;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use l2lb_lab::{Image, Lab, LabConfig, place};

use self::manifests::NAMESPACES;
use crate::rights::{self, NAMESPACE};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// The release's accounts.
const ACCOUNTS: [&str; 3] = ["l2lb-controller", "l2lb-webhook", "l2lb-release-pools"];

/// Images that are the programs as they were built.
pub fn images() -> Vec<Image> {
    let controller = PathBuf::from(env!("CARGO_BIN_EXE_l2lb-controller"));
    let image = |name: &str| Image {
        repository: name.to_owned(),
        program: controller.with_file_name(name),
        root: None,
    };
    vec![image("l2lb-controller"), image("l2lb-webhook")]
}

/// Nodes with MetalLB.
pub fn config() -> LabConfig {
    LabConfig {
        audit: true,
        audit_reads_of: ACCOUNTS
            .map(|account| format!("system:serviceaccount:{NAMESPACE}:{account}"))
            .to_vec(),
        admission_plugins: vec!["OwnerReferencesPermissionEnforcement".to_owned()],
        images: images(),
        ..LabConfig::default()
    }
}

/// All pods of a node share its ports in the lab.
const PORTS: &str = "--set=webhook.ports.http=8081";

pub async fn run(lab: Lab) -> Result<()> {
    let webhook =
        PathBuf::from(env!("CARGO_BIN_EXE_l2lb-controller")).with_file_name("l2lb-webhook");
    ensure!(
        webhook.exists(),
        "{} is not built: cargo build -p l2lb-webhook",
        webhook.display()
    );
    let life = Life { lab };
    let lab = &life.lab;
    lab.apply(NAMESPACES).await?;
    lab.apply_file(place::workspace().join("testdata/lab/dnsendpoints.yaml"))
        .await?;
    for node in ["node-1", "node-2", "node-3"] {
        life.kubectl(&["label", "node", node, "role=edge"]).await?;
    }
    lab.deploy_backend("shop", "web", 8090).await?;

    let older = older::release()?;
    life.helm("install", &older, &["--set=holdDown=3s", PORTS])
        .await?;
    life.work().await?;
    let before = life.children().await?;
    ensure!(before.len() >= 3, "{before:?}");

    // The upgrade brings the definitions of this release; nobody's address
    // moves, and the certificate stays.
    ensure!(
        life.field_type().await?.is_empty(),
        "the older definition has the field"
    );
    let bundle = life.ca_bundle().await?;
    life.helm(
        "upgrade",
        &Lab::chart(),
        &["--reset-then-reuse-values", "--set=log.level=debug"],
    )
    .await?;
    let flags = life.controller_flags().await?;
    ensure!(
        flags.contains("--hold-down=3s") && flags.contains("--log-level=debug"),
        "what was set before, or now, is not set: {flags}"
    );
    ensure!(
        life.field_type().await? == "array",
        "the definitions were not upgraded"
    );
    ensure!(
        life.ca_bundle().await? == bundle,
        "the upgrade changed the caBundle"
    );
    ensure!(
        life.children().await? == before,
        "the upgrade changed the Services"
    );
    life.everything_works().await?;
    lab.ensure_check_finds_nothing().await?;
    life.docs_are_right().await?;
    life.rolls_back(&older).await?;
    life.people().await?;
    life.leaves_and_comes().await?;
    life.answers_get_lost().await?;
    life.pool_goes().await?;
    let requests = lab.requests()?;
    rights::ensure_nothing_was_forbidden(&requests)?;

    // Uninstalled under a load balancer: it stays, and nothing is held.
    let before = life.children().await?;
    life.uninstall().await?;
    ensure!(
        life.children().await? == before,
        "Services went with the release"
    );
    life.serves().await?;
    life.nothing_is_left_of_the_release().await?;
    let held = [
        "get",
        "l2pool",
        "edge",
        "-o",
        "jsonpath={.metadata.finalizers}",
    ];
    ensure!(
        life.kubectl(&held).await?.is_empty(),
        "the pool has a finalizer still"
    );

    // Installed again it finds what was there.
    life.helm("install", &Lab::chart(), &[PORTS]).await?;
    life.everything_works().await?;
    ensure!(
        life.children().await? == before,
        "Services changed with a new installation"
    );
    ensure!(
        !life.kubectl(&held).await?.is_empty(),
        "the pool has no finalizer"
    );

    // In the order of docs/install.md nothing at all is left.
    life.kubectl(&[
        "delete",
        "l2lb",
        "--all",
        "--all-namespaces",
        "--timeout=60s",
    ])
    .await?;
    life.kubectl(&["delete", "l2pool", "--all", "--timeout=60s"])
        .await?;
    life.uninstall().await?;
    life.nothing_is_left_of_the_release().await?;
    ensure!(life.children().await?.is_empty(), "Services are left");
    let ours = [
        "get",
        "ipaddresspools,l2advertisements",
        "-A",
        "-o",
        "name",
        "-l",
        "app.kubernetes.io/managed-by=l2lb",
    ];
    let left = life.kubectl(&ours).await?;
    ensure!(left.is_empty(), "MetalLB's objects are left: {left}");

    let requests = lab.requests()?;
    let hooks: Vec<_> = requests
        .iter()
        .filter(|r| r.user.ends_with(":l2lb-release-pools"))
        .cloned()
        .collect();
    rights::ensure_nothing_was_forbidden(&hooks)?;
    let manifests = lab.render_chart(&[]).await?;
    rights::ensure_nothing_is_superfluous(&manifests, &requests)
}

struct Life {
    lab: Lab,
}

impl Life {
    async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.lab.kubectl().run(args).await
    }

    async fn helm(&self, verb: &str, chart: &Path, more: &[&str]) -> Result<()> {
        let chart = chart.to_string_lossy();
        let namespace = format!("--namespace={NAMESPACE}");
        let args = [verb, "l2lb", &chart, &namespace, "--wait", "--timeout=120s"];
        let start = Instant::now();
        let said = self.lab.helm(args.iter().chain(more)).await?;
        ensure!(
            said.contains("rollout status"),
            "the notes are not shown: {said}"
        );
        eprintln!("helm {verb} took {:?}", start.elapsed());
        Ok(())
    }

    async fn uninstall(&self) -> Result<()> {
        let namespace = format!("--namespace={NAMESPACE}");
        let start = Instant::now();
        self.lab
            .helm(["uninstall", "l2lb", &namespace, "--wait", "--timeout=120s"])
            .await?;
        eprintln!("helm uninstall took {:?}", start.elapsed());
        Ok(())
    }
}
