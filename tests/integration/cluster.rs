//! A lab with an API server, and short words for what tests do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use l2lb::api::{L2AddressPool, L2LoadBalancer, SlotStatus, names};
use l2lb::controller::resource;
use l2lb::metallb::{IpAddressPool, L2Advertisement};
use l2lb::world::{Key, Kind};
use l2lb_lab::{Lab, METALLB_NAMESPACE, Process, Spec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How long something may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The field manager of changes that somebody else makes.
pub const SOMEBODY: &str = "somebody";

/// A cluster with the definitions of both kinds and a namespace `shop`.
pub struct Cluster {
    pub lab: Lab,
    pub client: Client,
}

impl Cluster {
    /// Prepares a lab.
    pub async fn new(lab: Lab) -> Result<Self> {
        let cluster = Self {
            client: lab.client(),
            lab,
        };
        cluster.lab.install_product_crds().await?;
        cluster.namespace("shop", json!({})).await?;
        Ok(cluster)
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str, labels: Value) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}});
        self.lab.apply(&namespace.to_string()).await
    }

    /// Has the API server ask a webhook that nobody speaks for about what a rule
    /// selects: each such write takes as long as its writer waits. That ends when
    /// what this returns is dropped, and nobody listens any more.
    pub async fn silence(&self, rule: &str) -> Result<TcpListener> {
        // Connections are taken by the kernel, and nobody says a word.
        let silence = TcpListener::bind(("192.0.2.1", 9999)).await?;
        let configuration = format!(
            "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {{name: silence}}
webhooks:
- name: silence.example.org
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  timeoutSeconds: 10
  clientConfig: {{url: 'https://192.0.2.1:9999/'}}
  rules:
  - {rule}
"
        );
        self.apply(&configuration).await?;
        // The API server hears of it through a watch of its own.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(silence)
    }

    /// Makes nodes that are ready.
    pub async fn nodes(&self, names: impl IntoIterator<Item = &str>) -> Result<()> {
        for name in names {
            self.node(name, json!({names::HOSTNAME: name, "role": "edge"}))
                .await?;
        }
        Ok(())
    }

    /// Makes a node that is ready.
    pub async fn node(&self, name: &str, labels: Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels}});
        nodes
            .patch(name, &PatchParams::apply("lab"), &Patch::Apply(node))
            .await?;
        self.set_ready(name, true).await
    }

    /// Sets a node's condition, as its kubelet would.
    pub async fn set_ready(&self, node: &str, ready: bool) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let now = jiff::Timestamp::now();
        let status = json!({"status": {"conditions": [{
            "type": "Ready", "status": if ready { "True" } else { "Unknown" }, "reason": "Lab",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }]}});
        nodes
            .patch_status(node, &PatchParams::default(), &Patch::Merge(status))
            .await
            .with_context(|| format!("setting the condition of {node}"))?;
        Ok(())
    }

    /// Starts a controller without election, which saves waiting for a Lease.
    pub fn controller(&self) -> Result<Process> {
        self.controller_with("l2lb-controller", &["--no-leader-election"], None)
    }

    /// Starts a controller.
    pub fn controller_with(
        &self,
        name: &str,
        args: &[&str],
        kubeconfig: Option<&std::path::Path>,
    ) -> Result<Process> {
        let mut spec = Spec::new(name, env!("CARGO_BIN_EXE_l2lb-controller"))
            .args(["--hold-down=1s"])
            .args(args)
            .env("POD_NAME", name);
        if !args.iter().any(|a| a.starts_with("--listen=")) {
            spec = spec.args(["--listen=0"]);
        }
        if let Some(path) = kubeconfig {
            spec = spec.env("KUBECONFIG", path.display().to_string());
        }
        self.lab.start(spec)
    }

    /// Applies manifests as a person would.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.lab.apply(manifests).await
    }

    /// A pool named `edge`.
    pub async fn pool(&self, addresses: &str) -> Result<()> {
        self.apply(&pool("edge", addresses)).await
    }

    /// A load balancer in namespace `shop` on pool `edge`.
    pub async fn load_balancer(&self, name: &str) -> Result<()> {
        self.apply(&load_balancer("shop", name, "edge")).await
    }

    pub fn services(&self, namespace: &str) -> Api<Service> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub fn load_balancers(&self, namespace: &str) -> Api<L2LoadBalancer> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub fn pools(&self) -> Api<L2AddressPool> {
        Api::all(self.client.clone())
    }

    pub fn metallb_pools(&self) -> Api<IpAddressPool> {
        Api::namespaced(self.client.clone(), METALLB_NAMESPACE)
    }

    pub fn advertisements(&self) -> Api<L2Advertisement> {
        Api::namespaced(self.client.clone(), METALLB_NAMESPACE)
    }

    /// An object as it is stored.
    pub async fn raw(&self, kind: Kind, namespace: &str, name: &str) -> Result<Value> {
        let path = resource::path(kind, &Key::new(namespace, name));
        let request = Request::get(path).body(Vec::new())?;
        self.client
            .request(request)
            .await
            .with_context(|| format!("reading {namespace}/{name}"))
    }

    /// The children of a load balancer by name.
    pub async fn children(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, Service>> {
        let selector = ListParams::default().labels(&format!("{}={name}", names::LOAD_BALANCER));
        let list = self.services(namespace).list(&selector).await?;
        Ok(list.items.into_iter().map(|s| (s.name_any(), s)).collect())
    }

    /// Waits until a load balancer's status lists that many slots with
    /// addresses, and their Services exist.
    pub async fn slots(
        &self,
        namespace: &str,
        name: &str,
        count: usize,
    ) -> Result<BTreeMap<String, Service>> {
        let start = Instant::now();
        loop {
            let lb = self.load_balancers(namespace).get_opt(name).await?;
            let slots = slots_of(lb.as_ref());
            let children = self.children(namespace, name).await?;
            let is_there = slots.len() == count && slots.iter().all(|s| !s.addresses.is_empty());
            if is_there && children.len() == count {
                return Ok(children);
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "waited {PATIENCE:?} for {count} slots; there are {:?} for {}",
                children.keys(),
                shown(lb.as_ref())
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Plays MetalLB for a load balancer: allocates what its Services name,
    /// and announces each from the node that it is pinned to.
    pub async fn announce(&self, namespace: &str, name: &str) -> Result<()> {
        for (service, child) in self.children(namespace, name).await? {
            let ingress: Vec<Value> = addresses(&child)
                .iter()
                .map(|a| json!({"ip": a, "ipMode": "VIP"}))
                .collect();
            let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
            self.services(namespace)
                .patch_status(&service, &PatchParams::default(), &Patch::Merge(status))
                .await?;
            let node = label(&child, names::PIN);
            self.announced_by(namespace, &service, &node).await?;
        }
        Ok(())
    }

    /// Plays the speaker of a node, which says that it announces a Service.
    pub async fn announced_by(&self, namespace: &str, service: &str, node: &str) -> Result<()> {
        let status = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status",
            "metadata": {
                "name": format!("l2-{namespace}-{service}"), "namespace": METALLB_NAMESPACE,
                "labels": {
                    l2lb::metallb::STATUS_NODE: node,
                    l2lb::metallb::STATUS_SERVICE: service,
                    l2lb::metallb::STATUS_NAMESPACE: namespace,
                },
            },
        });
        let kind = Kind::ServiceL2Status;
        let name = format!("l2-{namespace}-{service}");
        let path = resource::path(kind, &Key::new(METALLB_NAMESPACE, name));
        let request = Request::patch(format!("{path}?fieldManager=speaker&force=true"))
            .header("content-type", "application/apply-patch+yaml")
            .body(serde_json::to_vec(&status)?)?;
        self.client
            .request::<Value>(request)
            .await
            .context("writing a ServiceL2Status")?;
        Ok(())
    }

    /// Changes an object as somebody else.
    pub async fn change<K>(&self, api: &Api<K>, name: &str, change: Value) -> Result<K>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let params = PatchParams {
            field_manager: Some(SOMEBODY.into()),
            ..PatchParams::default()
        };
        api.patch(name, &params, &Patch::Merge(change))
            .await
            .with_context(|| format!("changing {name}"))
    }

    /// Deletes an object, without waiting.
    pub async fn delete<K>(&self, api: &Api<K>, name: &str) -> Result<()>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        api.delete(name, &DeleteParams::background())
            .await
            .with_context(|| format!("deleting {name}"))?;
        Ok(())
    }

    /// Waits until an object, or its absence, is as wanted.
    pub async fn until<K>(
        &self,
        api: &Api<K>,
        name: &str,
        what: &str,
        good: impl Fn(Option<&K>) -> bool,
    ) -> Result<Option<K>>
    where
        K: Clone + DeserializeOwned + Debug + Serialize,
    {
        let start = Instant::now();
        loop {
            let found = api
                .get_opt(name)
                .await
                .with_context(|| format!("reading {name}"))?;
            if good(found.as_ref()) {
                return Ok(found);
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "waited {PATIENCE:?} for {what}; {name} is {}",
                    shown(found.as_ref())
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a load balancer's condition has a reason, and returns it.
    pub async fn condition(
        &self,
        namespace: &str,
        name: &str,
        kind: &str,
        reason: &str,
    ) -> Result<Condition> {
        let what = format!("{kind} to be {reason}");
        let has = |lb: Option<&L2LoadBalancer>| condition(conditions_of(lb), kind, reason);
        let lb = self
            .until(&self.load_balancers(namespace), name, &what, |lb| {
                has(lb).is_some()
            })
            .await?;
        has(lb.as_ref()).context("the condition is there")
    }

    /// Waits until a pool's condition has a reason, and returns it.
    pub async fn pool_condition(&self, name: &str, kind: &str, reason: &str) -> Result<Condition> {
        let what = format!("{kind} to be {reason}");
        let has = |pool: Option<&L2AddressPool>| {
            let status = pool.and_then(|p| p.status.as_ref());
            condition(status.map_or(&[], |s| &s.conditions), kind, reason)
        };
        let pool = self
            .until(&self.pools(), name, &what, |pool| has(pool).is_some())
            .await?;
        has(pool.as_ref()).context("the condition is there")
    }

    /// What the controllers wrote so far, Leases and Events aside, as the API
    /// server counted it.
    pub fn writes(&self) -> Result<Vec<l2lb_lab::Request>> {
        let mut writes = self.lab.writes()?;
        writes.retain(|w| {
            w.user_agent.starts_with("l2lb-controller/")
                && w.resource != "leases"
                && w.resource != "events"
        });
        Ok(writes)
    }
}

/// A pool's manifest.
pub fn pool(name: &str, addresses: &str) -> String {
    format!(
        "---
apiVersion: l2lb.io/v1alpha1
kind: L2AddressPool
metadata: {{name: {name}}}
spec: {{addresses: [{addresses}]}}
"
    )
}

/// A load balancer's manifest.
pub fn load_balancer(namespace: &str, name: &str, pool: &str) -> String {
    format!(
        "---
apiVersion: l2lb.io/v1alpha1
kind: L2LoadBalancer
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  addressPool: {pool}
  service:
    selector: {{app: {name}}}
    ports: [{{name: http, port: 80, targetPort: 8080}}]
"
    )
}

/// The slots in a load balancer's status.
pub fn slots_of(lb: Option<&L2LoadBalancer>) -> &[SlotStatus] {
    lb.and_then(|lb| lb.status.as_ref())
        .map_or(&[], |status| &status.slots)
}

/// The conditions of a load balancer.
pub fn conditions_of(lb: Option<&L2LoadBalancer>) -> &[Condition] {
    lb.and_then(|lb| lb.status.as_ref())
        .map_or(&[], |status| &status.conditions)
}

fn condition(conditions: &[Condition], kind: &str, reason: &str) -> Option<Condition> {
    conditions
        .iter()
        .find(|c| c.type_ == kind && c.reason == reason)
        .cloned()
}

/// The addresses that a child names.
pub fn addresses(child: &Service) -> Vec<String> {
    let named = child.annotations().get(names::METALLB_IPS);
    named
        .into_iter()
        .flat_map(|list| list.split(','))
        .map(str::to_owned)
        .collect()
}

/// A label of an object.
pub fn label<K: Resource>(object: &K, key: &str) -> String {
    object.labels().get(key).cloned().unwrap_or_default()
}

/// UID and addresses of each child: what must survive everything.
pub fn identities(children: &BTreeMap<String, Service>) -> BTreeMap<String, (String, Vec<String>)> {
    let identity = |s: &Service| (s.uid().unwrap_or_default(), addresses(s));
    children
        .iter()
        .map(|(name, service)| (name.clone(), identity(service)))
        .collect()
}

/// Fails if one of the children is not as it was, or is not there.
pub fn ensure_same(
    before: &BTreeMap<String, Service>,
    after: &BTreeMap<String, Service>,
) -> Result<()> {
    let (before, after) = (identities(before), identities(after));
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

/// Fails if two Services name one address.
pub fn ensure_distinct<'a>(children: impl IntoIterator<Item = &'a Service>) -> Result<usize> {
    let mut seen = BTreeSet::new();
    for child in children {
        for address in addresses(child) {
            ensure!(
                seen.insert(address.clone()),
                "{address} was given twice: {}",
                child.name_any()
            );
        }
    }
    Ok(seen.len())
}

fn shown<K: Serialize>(object: Option<&K>) -> String {
    match object {
        Some(object) => {
            let mut value = json!(object);
            if let Some(metadata) = value["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            format!("{value:#}")
        }
        None => "missing".to_owned(),
    }
}
