//! The lab plays scheduler and kubelet.
//!
//! Pods come from the real controllers. A pod is bound to a node, and the
//! program that its image stands for is started in the node's namespace; see
//! [`pod`](crate::pod).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::pod;

/// How often pods that found no node are looked at again.
const RETRY: Duration = Duration::from_millis(300);

/// What the lab tells its kubelets.
pub(crate) enum Order {
    /// The node has lost power: its pods' programs end at once, unsaid.
    PowerOff(String, oneshot::Sender<()>),
    /// The node has power again: its pods are started again.
    PowerOn(String),
}

/// What pods mount.
#[derive(Clone)]
pub(crate) struct Volumes {
    pub secrets: Store<Secret>,
    pub config_maps: Store<ConfigMap>,
}

struct Running {
    node: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Kubelets {
    cluster: Arc<Cluster>,
    volumes: Volumes,
    known: BTreeMap<String, Pod>,
    running: HashMap<String, Running>,
}

/// Plays scheduler and kubelet of every node, for ever.
pub(crate) async fn run(cluster: Arc<Cluster>, mut orders: mpsc::Receiver<Order>) {
    let volumes = watch_volumes(&cluster);
    let mut kubelets = Kubelets {
        cluster,
        volumes,
        known: BTreeMap::new(),
        running: HashMap::new(),
    };
    let pods: Api<Pod> = Api::all(kubelets.cluster.client.clone());
    let mut events = watcher(pods, watcher::Config::default())
        .default_backoff()
        .boxed();
    let mut retry = tokio::time::interval(RETRY);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => kubelets.on_pod(pod).await,
                Some(Ok(watcher::Event::Delete(pod))) => kubelets.on_gone(&pod).await,
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::warn!("watching pods: {error}"),
                None => return,
            },
            order = orders.recv() => match order {
                Some(Order::PowerOff(node, done)) => {
                    kubelets.power_off(&node).await;
                    let _ = done.send(());
                }
                Some(Order::PowerOn(node)) => kubelets.power_on(&node).await,
                None => return,
            },
            _ = retry.tick() => kubelets.retry().await,
        }
    }
}

fn watch_volumes(cluster: &Cluster) -> Volumes {
    let (secrets, writer) = reflector::store();
    let stream = watcher(
        Api::<Secret>::all(cluster.client.clone()),
        watcher::Config::default(),
    )
    .default_backoff()
    .reflect(writer);
    tokio::spawn(stream.for_each(|_| async {}));
    let (config_maps, writer) = reflector::store();
    let stream = watcher(
        Api::<ConfigMap>::all(cluster.client.clone()),
        watcher::Config::default(),
    )
    .default_backoff()
    .reflect(writer);
    tokio::spawn(stream.for_each(|_| async {}));
    Volumes {
        secrets,
        config_maps,
    }
}

impl Kubelets {
    async fn on_pod(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        self.known.insert(uid.clone(), pod.clone());
        if let Err(error) = self.act(&uid, &pod).await {
            tracing::debug!("pod {}: {error:#}", pod.name_any());
        }
    }

    async fn act(&mut self, uid: &str, pod: &Pod) -> Result<()> {
        let Some(node) = node_of(pod) else {
            if pod.metadata.deletion_timestamp.is_some() {
                return self.remove(pod).await;
            }
            let node = self.schedule(pod).await?;
            // The next pod may come before the news of this one's node.
            if let Some(spec) = self.known.get_mut(uid).and_then(|pod| pod.spec.as_mut()) {
                spec.node_name = Some(node);
            }
            return Ok(());
        };
        let powered = self.cluster.place(node).is_some_and(|place| place.powered);
        if !powered {
            return Ok(());
        }
        if pod.metadata.deletion_timestamp.is_some() {
            self.stop(uid).await;
            return self.remove(pod).await;
        }
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if !self.running.contains_key(uid) && !matches!(phase, Some("Succeeded" | "Failed")) {
            let stop = CancellationToken::new();
            let task = tokio::spawn(pod::run(
                self.cluster.clone(),
                self.volumes.clone(),
                pod.clone(),
                node.to_owned(),
                stop.clone(),
            ));
            self.running.insert(
                uid.to_owned(),
                Running {
                    node: node.to_owned(),
                    stop,
                    task,
                },
            );
        }
        Ok(())
    }

    async fn on_gone(&mut self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        self.known.remove(&uid);
        self.stop(&uid).await;
    }

    async fn stop(&mut self, uid: &str) {
        if let Some(running) = self.running.remove(uid) {
            running.stop.cancel();
            let _ = running.task.await;
        }
    }

    /// Deletes a pod for good, as its kubelet does when the programs have ended.
    async fn remove(&self, pod: &Pod) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(
            self.cluster.client.clone(),
            &pod.namespace().unwrap_or_default(),
        );
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        pods.delete(&pod.name_any(), &parameters)
            .await
            .context("removing the pod")?;
        Ok(())
    }

    async fn power_off(&mut self, node: &str) {
        let uids: Vec<String> = self
            .running
            .iter()
            .filter(|(_, r)| r.node == node)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in uids {
            self.stop(&uid).await;
        }
    }

    async fn power_on(&mut self, node: &str) {
        let pods: Vec<Pod> = self
            .known
            .values()
            .filter(|pod| node_of(pod) == Some(node))
            .cloned()
            .collect();
        for pod in pods {
            self.on_pod(pod).await;
        }
    }

    async fn retry(&mut self) {
        let waiting: Vec<Pod> = self
            .known
            .values()
            .filter(|pod| node_of(pod).is_none())
            .cloned()
            .collect();
        for pod in waiting {
            self.on_pod(pod).await;
        }
    }

    async fn schedule(&self, pod: &Pod) -> Result<String> {
        let nodes: Api<Node> = Api::all(self.cluster.client.clone());
        let nodes = nodes
            .list(&kube::api::ListParams::default())
            .await
            .context("listing nodes")?
            .items;
        let load = |name: &str| {
            self.known
                .values()
                .filter(|other| node_of(other) == Some(name))
                .count()
        };
        // Pods that stay apart, on the same node: the programs of all pods
        // of a node share its ports.
        let company = |name: &str| {
            self.known
                .values()
                .filter(|other| node_of(other) == Some(name) && stays_apart(pod, other))
                .count()
        };
        let chosen = nodes
            .iter()
            .filter(|node| fits(pod, node))
            .min_by_key(|node| {
                let name = node.name_any();
                (company(&name), load(&name), name)
            })
            .context("no node fits")?;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod.name_any()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": chosen.name_any()},
        });
        let pods: Api<Pod> = Api::namespaced(
            self.cluster.client.clone(),
            &pod.namespace().unwrap_or_default(),
        );
        let _: serde_json::Value = pods
            .create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding)
            .await
            .context("binding the pod")?;
        Ok(chosen.name_any())
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// Whether a pod may go to a node: nodeSelector, taints, and the node that
/// a DaemonSet names.
fn fits(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let labels = node.labels();
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let wanted = daemon_node(pod).is_none_or(|name| name == node.name_any());
    let tolerated = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
        .all(|taint| {
            taint.effect == "PreferNoSchedule"
                || spec.tolerations.iter().flatten().any(|toleration| {
                    toleration.key.as_ref().is_none_or(|key| *key == taint.key)
                        && toleration
                            .effect
                            .as_ref()
                            .is_none_or(|effect| *effect == taint.effect)
                        && (toleration.operator.as_deref() == Some("Exists")
                            || toleration.value == taint.value)
                })
        });
    selected && wanted && tolerated
}

/// Whether a pod would rather not be on a node with another one.
fn stays_apart(pod: &Pod, other: &Pod) -> bool {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let terms = apart.into_iter().flat_map(|apart| {
        let preferred = apart
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .map(|weighted| &weighted.pod_affinity_term);
        preferred.chain(
            apart
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten(),
        )
    });
    let labels = other.labels();
    pod.namespace() == other.namespace()
        && terms
            .filter_map(|term| term.label_selector.as_ref()?.match_labels.as_ref())
            .any(|wanted| {
                wanted
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            })
}

/// The node that the DaemonSet controller made a pod for.
fn daemon_node(pod: &Pod) -> Option<String> {
    let terms = pod
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?;
    let terms = terms
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    terms
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten())
        .find(|field| field.key == "metadata.name")
        .and_then(|field| field.values.as_ref()?.first().cloned())
}
