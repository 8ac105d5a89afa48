//! The chart's life: installed as an older release, upgraded, uninstalled and
//! installed again, with the programs running under the accounts that it made.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use l2lb::manifest;
use l2lb_lab::{Image, Lab, LabConfig, place};
use serde_json::{Value, json};

use crate::rights::{self, NAMESPACE};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// The release's accounts.
const ACCOUNTS: [&str; 3] = ["l2lb-controller", "l2lb-webhook", "l2lb-release-pools"];

/// Nodes with MetalLB, and images that are the programs as they were built.
pub fn config() -> LabConfig {
    let controller = PathBuf::from(env!("CARGO_BIN_EXE_l2lb-controller"));
    let image = |name: &str| Image {
        repository: name.to_owned(),
        program: controller.with_file_name(name),
        root: None,
    };
    LabConfig {
        audit: true,
        audit_reads_of: ACCOUNTS
            .map(|account| format!("system:serviceaccount:{NAMESPACE}:{account}"))
            .to_vec(),
        admission_plugins: vec!["OwnerReferencesPermissionEnforcement".to_owned()],
        images: vec![image("l2lb-controller"), image("l2lb-webhook")],
        ..LabConfig::default()
    }
}

/// All pods of a node share its ports in the lab.
const PORTS: &str = "--set=webhook.ports.http=8081";

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: l2lb-system
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";

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

    let older = older_release()?;
    life.helm("install", &older, &["--set=holdDown=3s", PORTS])
        .await?;
    life.work().await?;
    let before = life.children().await?;
    ensure!(before.len() >= 3, "{before:?}");

    // The upgrade brings the definitions of this release; nobody's address
    // moves, and the certificate stays.
    let field = "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.addresses.type}";
    let definition = ["get", "crd", "l2loadbalancers.l2lb.io", "-o", field];
    ensure!(
        life.kubectl(&definition).await?.is_empty(),
        "the older definition has the field"
    );
    let bundle = life.ca_bundle().await?;
    life.helm(
        "upgrade",
        &Lab::chart(),
        &["--reuse-values", "--set=log.level=debug"],
    )
    .await?;
    ensure!(
        life.kubectl(&definition).await? == "array",
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

/// The chart as an older release could have been: its definition of
/// L2LoadBalancer lacks a field.
fn older_release() -> Result<PathBuf> {
    let to = PathBuf::from("/run/lab/older");
    copy(&Lab::chart(), &to)?;
    let chart = to.join("Chart.yaml");
    let text = std::fs::read_to_string(&chart)?;
    let older = text.replace("\nversion: ", "\nversion: 0.0.1-before-");
    ensure!(older != text, "Chart.yaml has no version");
    std::fs::write(&chart, older)?;
    let file = to.join("files/crds/l2loadbalancers.l2lb.io.yaml");
    let objects = manifest::parse("the definition", &std::fs::read_to_string(&file)?)?;
    let mut definition = objects
        .first()
        .context("there is no definition")?
        .value
        .clone();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let spec = definition
        .pointer_mut(spec)
        .context("the definition has no spec")?;
    let fields = spec["properties"]
        .as_object_mut()
        .context("it has no fields")?;
    fields
        .remove("addresses")
        .context("the field is not there")?;
    std::fs::write(&file, definition.to_string())?;
    Ok(to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
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

    /// The main job, for the first time.
    async fn work(&self) -> Result<()> {
        self.lab.apply(POOL).await?;
        self.lab.apply(&web(80, 60)).await?;
        self.everything_works().await?;
        // Reviewed by the webhook.
        let denied = self.lab.apply(&LARGE.replace("NAME", "large")).await;
        ensure!(
            denied
                .as_ref()
                .is_err_and(|e| e.to_string().contains("has 2 free")),
            "a load balancer for which there are no addresses: {denied:?}"
        );
        // A home that somebody with a right to pools gives away.
        self.lab.apply(ONE).await?;
        let home = self.home("one-0").await?;
        let other = if home == "node-1" { "node-2" } else { "node-1" };
        let label = format!("l2lb.io/home={other}");
        self.kubectl(&[
            "label",
            "--overwrite",
            "-n",
            "shop",
            "service/one-0",
            &label,
        ])
        .await?;
        let pin = [
            "get",
            "service",
            "one-0",
            "-n",
            "shop",
            "-o",
            "jsonpath={.metadata.labels.l2lb\\.io/pin}",
        ];
        self.until("one-0 to be pinned to its new home", async || {
            Ok(self.kubectl(&pin).await? == other)
        })
        .await?;
        self.kubectl(&["delete", "l2lb", "one", "-n", "shop"])
            .await?;
        Ok(())
    }

    /// Each address of `web` is announced by its home, and serves; the record is there.
    async fn everything_works(&self) -> Result<()> {
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=90s",
            "l2pool/edge",
        ])
        .await?;
        self.at_home(3).await?;
        self.serves().await?;
        let targets = [
            "get",
            "dnsendpoints",
            "-n",
            "shop",
            "-o",
            "jsonpath={.items[*].spec.endpoints[*].targets}",
        ];
        self.until("a record with three addresses", async || {
            let targets = self.kubectl(&targets).await?;
            Ok(targets.matches("192.0.2.").count() == 3)
        })
        .await
    }

    /// Nodes leave and join, are cordoned, and a Lease goes.
    async fn leaves_and_comes(&self) -> Result<()> {
        // The same twice, which is one event that is counted up.
        for _ in 0..2 {
            self.kubectl(&["cordon", "node-2"]).await?;
            self.until_phases("node-2's slot to be handed over", |phases| {
                phases
                    .get("node-2")
                    .is_some_and(|phase| phase == "Draining")
            })
            .await?;
            self.kubectl(&["uncordon", "node-2"]).await?;
            self.at_home(3).await?;
        }
        // Its slot is retired at once, and the node gets a new one.
        self.kubectl(&["label", "node", "node-3", "role-"]).await?;
        self.until_phases("node-3's slot to go", |phases| phases.len() == 2)
            .await?;
        self.kubectl(&["label", "node", "node-3", "role=edge"])
            .await?;
        self.at_home(3).await?;
        self.kubectl(&["delete", "lease", "l2lb-controller", "-n", NAMESPACE])
            .await?;
        let lease = [
            "get",
            "lease",
            "-n",
            NAMESPACE,
            "-o",
            "jsonpath={.items[*].spec.holderIdentity}",
        ];
        self.until("the Lease to be held again", async || {
            Ok(!self.kubectl(&lease).await?.is_empty())
        })
        .await?;
        // A record goes when the name is not wanted any more.
        let without = r#"[{"op": "remove", "path": "/spec/dns"}]"#;
        self.kubectl(&[
            "patch",
            "l2lb",
            "web",
            "-n",
            "shop",
            "--type=json",
            "-p",
            without,
        ])
        .await?;
        let records = ["get", "dnsendpoints", "-n", "shop", "-o", "name"];
        self.until("the record to go", async || {
            Ok(self.kubectl(&records).await?.is_empty())
        })
        .await?;
        self.lab.apply(&web(80, 60)).await?;
        self.everything_works().await
    }

    /// Writes that take too long: the controller looks what became of them.
    async fn answers_get_lost(&self) -> Result<()> {
        let silence = Silence::start()?;
        let steps: [(&str, &str, Step); 6] = [
            ("", "services", Step::Web(81, 60)),
            ("externaldns.k8s.io", "dnsendpoints", Step::Web(81, 61)),
            ("l2lb.io", "l2loadbalancers/status", Step::Cordon),
            ("l2lb.io", "l2addresspools/status", Step::Pool(POOL_LARGER)),
            ("metallb.io", "ipaddresspools", Step::Pool(POOL)),
            ("metallb.io", "l2advertisements", Step::Pool(POOL_ON_ETH0)),
        ];
        for (group, resource, step) in steps {
            let asked = self.lab.requests()?.len();
            silence.over(&self.lab, group, resource).await?;
            match step {
                Step::Web(port, ttl) => self.lab.apply(&web(port, ttl)).await?,
                Step::Cordon => drop(self.kubectl(&["cordon", "node-1"]).await?),
                Step::Pool(pool) => self.lab.apply(pool).await?,
            }
            let kind = resource.split('/').next().unwrap_or_default();
            let what = format!("{kind} to be looked up after a lost answer");
            self.until(&what, async || {
                let requests = self.lab.requests()?;
                Ok(requests[asked..].iter().any(|r| {
                    r.verb == "get" && r.resource == kind && r.user.ends_with(":l2lb-controller")
                }))
            })
            .await?;
            silence.end(&self.lab).await?;
        }
        self.kubectl(&["uncordon", "node-1"]).await?;
        self.lab.apply(&web(80, 60)).await?;
        drop(silence);
        self.everything_works().await
    }

    /// Another pool comes, and goes with everything that was made for it.
    async fn pool_goes(&self) -> Result<()> {
        let other = POOL
            .replace("edge", "other")
            .replace("192.0.2.100-192.0.2.104", "192.0.2.140-192.0.2.147");
        self.lab.apply(&other).await?;
        self.lab
            .apply(&LARGE.replace("NAME", "two").replace("edge", "other"))
            .await?;
        self.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=90s",
            "l2lb/two",
            "-n",
            "shop",
        ])
        .await?;
        self.kubectl(&["delete", "l2lb", "two", "-n", "shop"])
            .await?;
        self.kubectl(&["delete", "l2pool", "other", "--timeout=60s"])
            .await?;
        Ok(())
    }

    async fn ca_bundle(&self) -> Result<String> {
        let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
        let bundle = self
            .kubectl(&["get", "validatingwebhookconfiguration", "l2lb", "-o", path])
            .await?;
        ensure!(!bundle.is_empty(), "there is no caBundle");
        Ok(bundle)
    }

    async fn home(&self, service: &str) -> Result<String> {
        let args = [
            "get",
            "service",
            service,
            "-n",
            "shop",
            "-o",
            "jsonpath={.metadata.labels.l2lb\\.io/home}",
        ];
        self.until(&format!("{service} to have a home"), async || {
            Ok(self.kubectl(&args).await.is_ok_and(|home| !home.is_empty()))
        })
        .await?;
        self.kubectl(&args).await
    }

    /// UID and addresses of each child of `web`.
    async fn children(&self) -> Result<BTreeMap<String, (String, String)>> {
        let selector = "l2lb.io/load-balancer=web";
        let list = self
            .kubectl(&["get", "services", "-A", "-o", "json", "-l", selector])
            .await?;
        let list: Value = serde_json::from_str(&list)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|service| {
                let metadata = &service["metadata"];
                let addresses = text(&metadata["annotations"]["metallb.io/loadBalancerIPs"]);
                (text(&metadata["name"]), (text(&metadata["uid"]), addresses))
            })
            .collect())
    }

    async fn slots(&self) -> Result<Vec<Value>> {
        let lb = self
            .kubectl(&["get", "l2lb", "web", "-n", "shop", "-o", "json"])
            .await?;
        let lb: Value = serde_json::from_str(&lb)?;
        Ok(lb["status"]["slots"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    async fn until_phases(
        &self,
        what: &str,
        good: impl Fn(&BTreeMap<String, String>) -> bool,
    ) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.until(what, async || {
            let slots = self.slots().await?;
            Ok(good(
                &slots
                    .iter()
                    .map(|s| (text(&s["node"]), text(&s["phase"])))
                    .collect(),
            ))
        })
        .await
    }

    /// Waits until so many slots are announced by their homes.
    async fn at_home(&self, count: usize) -> Result<()> {
        self.until_phases("each slot to be at home", |phases| {
            phases.len() == count && phases.values().all(|phase| phase == "Announced")
        })
        .await
    }

    /// Each address of `web` is answered, by the node that its slot names, and serves.
    async fn serves(&self) -> Result<()> {
        for slot in self.slots().await? {
            let address: IpAddr = slot["addresses"][0]
                .as_str()
                .context("no address")?
                .parse()?;
            let node = slot["node"].as_str().context("no node")?;
            self.lab.wait_for_answer(address, node, PATIENCE).await?;
            self.lab.wait_for_http(address, 80, PATIENCE).await?;
        }
        Ok(())
    }

    /// Of all kinds that there are, no object of the release is left but the definitions.
    async fn nothing_is_left_of_the_release(&self) -> Result<()> {
        let kinds = self
            .kubectl(&["api-resources", "--verbs=list", "-o", "name"])
            .await?;
        let kinds: Vec<&str> = kinds
            .lines()
            .filter(|kind| !kind.starts_with("events"))
            .collect();
        let kinds = kinds.join(",");
        let get = [
            "get",
            &kinds,
            "-A",
            "-o",
            "name",
            "-l",
            "app.kubernetes.io/instance=l2lb",
            "--ignore-not-found",
        ];
        self.until("everything of the release to go", async || {
            let left = self.kubectl(&get).await?;
            Ok(left
                .lines()
                .all(|name| name.starts_with("customresourcedefinition")))
        })
        .await
        .with_context(|| "what is left of the release")?;
        let crds = self.kubectl(&["get", "crd", "-o", "name"]).await?;
        ensure!(
            crds.matches(".l2lb.io").count() == 2,
            "the definitions are gone: {crds}"
        );
        let own = [
            "get",
            "leases,secrets,configmaps",
            "-n",
            NAMESPACE,
            "-o",
            "name",
        ];
        let left = self.kubectl(&own).await?;
        let left: Vec<&str> = left
            .lines()
            .filter(|name| !name.ends_with("kube-root-ca.crt"))
            .collect();
        ensure!(left.is_empty(), "left in {NAMESPACE}: {left:?}");
        Ok(())
    }

    async fn until(&self, what: &str, mut good: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !good().await? {
            if start.elapsed() > PATIENCE {
                let web = self
                    .kubectl(&["get", "l2lb,l2pool,services", "-A", "-o", "wide"])
                    .await?;
                bail!("waited {PATIENCE:?} for {what}; there is\n{web}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// What makes the controller write something.
enum Step {
    Web(u16, u16),
    Cordon,
    Pool(&'static str),
}

/// A webhook that never answers, so that a write takes longer than its writer waits.
struct Silence {
    _listener: TcpListener,
}

const SILENT: &str = "silence";

impl Silence {
    fn start() -> Result<Self> {
        // Connections are taken by the kernel, and nobody says a word.
        let listener = TcpListener::bind(("192.0.2.1", 9999))?;
        Ok(Self {
            _listener: listener,
        })
    }

    async fn over(&self, lab: &Lab, group: &str, resource: &str) -> Result<()> {
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": SILENT},
            "webhooks": [{
                "name": "silence.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Ignore", "timeoutSeconds": 10,
                "clientConfig": {"url": "https://192.0.2.1:9999/"},
                "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                    "resources": [resource]}],
                "matchConditions": [{"name": "the-controller",
                    "expression": "request.userInfo.username.endsWith(':l2lb-controller')"}],
            }],
        });
        lab.apply(&configuration.to_string()).await?;
        // The API server hears of it through a watch of its own.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    async fn end(&self, lab: &Lab) -> Result<()> {
        lab.kubectl()
            .run(["delete", "validatingwebhookconfiguration", SILENT])
            .await?;
        Ok(())
    }
}

const POOL: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.104]
  dnsDomains: [example.org]
";
const POOL_LARGER: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.109]
  dnsDomains: [example.org]
";
const POOL_ON_ETH0: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {name: edge}
spec:
  addresses: [192.0.2.100-192.0.2.104]
  dnsDomains: [example.org]
  interfaces: [eth0]
";
const ONE: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {name: one, namespace: shop}
spec:
  addressPool: edge
  maxNodes: 1
  service: {selector: {app: web}, ports: [{port: 80, targetPort: 8090}]}
";
/// On every node.
const LARGE: &str = "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {name: NAME, namespace: shop}
spec:
  addressPool: edge
  service: {selector: {app: web}, ports: [{port: 80, targetPort: 8090}]}
";

fn web(port: u16, ttl: u16) -> String {
    format!(
        "
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {{name: web, namespace: shop}}
spec:
  addressPool: edge
  nodeSelector: {{matchLabels: {{role: edge}}}}
  retirementPeriod: 0s
  dns: {{hostname: web.example.org, ttl: {ttl}}}
  service: {{selector: {{app: web}}, ports: [{{name: http, port: {port}, targetPort: 8090}}]}}
"
    )
}
