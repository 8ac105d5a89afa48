//! What happens to a made-up cluster: the steps of a history, which can be
//! read from and written to a file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Cluster, ingress_status};
use crate::api::names;
use crate::duration::{self, DurationError};
use crate::world::{Key, Kind, ObjectRef};

/// Something that happens to a cluster. What does not apply (a node that is
/// not there, a load balancer that exists) changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Event {
    /// An L2AddressPool is created or changed.
    Pool(Pool),
    /// A node joins, ready.
    Join(Labelled),
    /// A node's labels become these, `kubernetes.io/hostname` aside.
    Label(Labelled),
    /// A node is deleted.
    Leave(String),
    /// A node is not ready any more.
    Lose(String),
    /// A node is ready again.
    Return(String),
    /// A node is cordoned.
    Cordon(String),
    /// A node is uncordoned.
    Uncordon(String),
    /// A node is annotated to hand over what it announces.
    Drain(String),
    /// That annotation is taken away.
    Undrain(String),
    /// An L2LoadBalancer is created.
    Create(Order),
    /// An L2LoadBalancer is deleted, by `namespace/name`.
    Delete(String),
    /// The application of an L2LoadBalancer has ready pods on these nodes and no
    /// others. It matters with `externalTrafficPolicy: Local`.
    Endpoints(Endpoints),
    /// A Service that is not ours is created or changed.
    Occupy(Occupant),
    /// A Service that is not ours is deleted, by `namespace/name`.
    Vacate(String),
    /// Time passes: a duration as in `90s` or `1h30m`.
    Wait(String),
}

/// A pool of addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its spec, as in a manifest.
    pub spec: Map<String, Value>,
}

/// A node with its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// Its name.
    pub node: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// `namespace/name`.
    pub load_balancer: String,
    /// What its spec has besides a service with one port.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub spec: Map<String, Value>,
}

/// Where the pods of an application are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoints {
    /// `namespace/name` of the L2LoadBalancer, which need not exist yet.
    pub load_balancer: String,
    /// The nodes with a ready pod. On a node that is not ready none is.
    pub nodes: Vec<String>,
}

/// A Service that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Occupant {
    /// `namespace/name`.
    pub service: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// It only asks MetalLB for them, by annotation. Otherwise it has them: a
    /// LoadBalancer from another controller, any other as external addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
    /// Its type.
    #[serde(
        rename = "type",
        default,
        skip_serializing_if = "ServiceType::is_usual"
    )]
    pub kind: ServiceType,
}

/// The type of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// An address within the cluster alone.
    ClusterIP,
    /// A port on every node.
    NodePort,
    /// An address from a load balancer.
    #[default]
    LoadBalancer,
    /// Another name.
    ExternalName,
}

impl ServiceType {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// The pool of load balancers that name none.
pub const DEFAULT_POOL: &str = "edge";

/// A history that cannot be read or played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadHistory(String);

/// Reads a history: a YAML or JSON list of events.
///
/// # Errors
/// Where and why it is none.
pub fn parse(text: &str) -> Result<Vec<Event>, BadHistory> {
    let events: Vec<Event> = serde_saphyr::from_str(text).map_err(|e| BadHistory(e.to_string()))?;
    for (index, event) in events.iter().enumerate() {
        check(event).map_err(|why| BadHistory(format!("event {} ({event}): {why}", index + 1)))?;
    }
    Ok(events)
}

/// Writes a history as it can be read: YAML, one line for each event.
pub fn print(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        // JSON is YAML, and keeps each event on its line.
        let line = match json!(event) {
            Value::Object(map) => map
                .iter()
                .map(|(kind, what)| format!("- {kind}: {what}\n"))
                .collect(),
            other => format!("- {other}\n"),
        };
        text += &line;
    }
    if text.is_empty() {
        "[]\n".to_owned()
    } else {
        text
    }
}

fn check(event: &Event) -> Result<(), String> {
    match event {
        Event::Wait(text) => duration(text).map(drop),
        Event::Create(order) => key(&order.load_balancer).map(drop),
        Event::Delete(name) | Event::Vacate(name) => key(name).map(drop),
        Event::Endpoints(of) => key(&of.load_balancer).map(drop),
        Event::Occupy(by) => key(&by.service).and(addresses(by)).map(drop),
        _ => Ok(()),
    }
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    duration::parse(text).map_err(|error| match error {
        DurationError::Malformed => format!("{text:?} is not a duration as in 90s or 1h30m"),
        DurationError::TooLong => format!("{text:?} is longer than can be waited: use less"),
    })
}

fn key(text: &str) -> Result<Key, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Key::new(namespace, name))
        }
        _ => Err(format!("{text:?} is not of the form namespace/name")),
    }
}

fn addresses(of: &Occupant) -> Result<Vec<IpAddr>, String> {
    let read = |text: &String| {
        text.parse::<IpAddr>()
            .map_err(|_| format!("{text:?} is not an IP address"))
    };
    of.addresses.iter().map(read).collect()
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => write!(f, "pool {}", pool.name),
            Self::Join(node) => write!(f, "{} joins", node.node),
            Self::Label(node) => write!(f, "{} is labelled", node.node),
            Self::Leave(node) => write!(f, "{node} is deleted"),
            Self::Lose(node) => write!(f, "{node} is lost"),
            Self::Return(node) => write!(f, "{node} returns"),
            Self::Cordon(node) => write!(f, "{node} is cordoned"),
            Self::Uncordon(node) => write!(f, "{node} is uncordoned"),
            Self::Drain(node) => write!(f, "{node} is drained"),
            Self::Undrain(node) => write!(f, "{node} is not drained"),
            Self::Create(order) => write!(f, "{} is created", order.load_balancer),
            Self::Delete(name) => write!(f, "{name} is deleted"),
            Self::Endpoints(of) if of.nodes.is_empty() => {
                write!(f, "no pod of {} is ready", of.load_balancer)
            }
            Self::Endpoints(of) => {
                let nodes = of.nodes.join(", ");
                write!(f, "{} has pods on {nodes}", of.load_balancer)
            }
            Self::Occupy(by) => {
                let verb = if by.asks { "asks for" } else { "has" };
                let addresses = by.addresses.join(", ");
                write!(f, "Service {} {verb} {addresses}", by.service)
            }
            Self::Vacate(name) => write!(f, "Service {name} is deleted"),
            Self::Wait(time) => write!(f, "{time} pass"),
        }
    }
}

impl Cluster {
    /// Lets something happen. The planner has not acted yet.
    ///
    /// # Errors
    /// Why it cannot happen at all, in a sentence.
    pub fn happen(&mut self, event: &Event) -> Result<(), BadHistory> {
        self.try_happen(event)
            .map_err(|why| BadHistory(format!("{event}: {why}")))
    }

    fn try_happen(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Pool(pool) => {
                let known = self.world.pools.get(&pool.name);
                // Whoever changes a spec leaves them.
                let finalizers = known.and_then(|p| p.metadata().finalizers.clone());
                let manifest = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
                    "metadata": {"name": pool.name, "finalizers": finalizers},
                    "spec": pool.spec});
                self.put(Kind::AddressPool, manifest)
                    .map_err(|e| e.to_string())?;
            }
            Event::Join(node) if self.world.nodes.contains_key(&node.node) => {}
            Event::Join(node) => {
                let labels: Vec<(&str, &str)> = node
                    .labels
                    .iter()
                    .map(|(k, v)| (k.as_str(), v.as_str()))
                    .collect();
                self.add_node(&node.node, &labels);
            }
            Event::Label(node) => self.change_node(&node.node, |labels, state| {
                labels.retain(|key, _| key == names::HOSTNAME);
                labels.extend(node.labels.clone());
                state
            }),
            Event::Leave(node) => self.remove_node(node),
            Event::Lose(node) => self.change_node(node, |_, s| State { ready: false, ..s }),
            Event::Return(node) => self.change_node(node, |_, s| State { ready: true, ..s }),
            Event::Cordon(node) => self.change_node(node, |_, s| State {
                cordoned: true,
                ..s
            }),
            Event::Uncordon(node) => self.change_node(node, |_, s| State {
                cordoned: false,
                ..s
            }),
            Event::Drain(node) => self.change_node(node, |_, s| State { drained: true, ..s }),
            Event::Undrain(node) => self.change_node(node, |_, s| State {
                drained: false,
                ..s
            }),
            Event::Create(order) => {
                let key = key(&order.load_balancer)?;
                if !self.world.load_balancers.contains_key(&key) {
                    let pool = order.spec.get("addressPool").and_then(Value::as_str);
                    let pool = pool.unwrap_or(DEFAULT_POOL);
                    self.add_load_balancer(&key, pool, &json!(order.spec));
                }
            }
            Event::Delete(name) => self.delete_load_balancer(&key(name)?),
            Event::Endpoints(of) => {
                self.put_pods(&key(&of.load_balancer)?, of.nodes.iter().cloned());
            }
            Event::Occupy(by) => self.occupy(by)?,
            Event::Vacate(name) => {
                let key = key(name)?;
                if self.world.foreign_services.contains_key(&key) {
                    let kind = Kind::Service;
                    self.world.forget(&ObjectRef { kind, key });
                }
            }
            Event::Wait(time) => self.advance(duration(time)?),
        }
        Ok(())
    }

    /// Puts somebody else's Service where there is none of ours.
    fn occupy(&mut self, by: &Occupant) -> Result<(), String> {
        let key = key(&by.service)?;
        if self.world.child(&key).is_some() {
            return Ok(());
        }
        let addresses = addresses(by)?;
        let mut manifest = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "spec": {"type": by.kind, "ports": [{"port": 80}]}});
        if by.asks {
            let asked = by.addresses.join(",");
            manifest["metadata"]["annotations"] = json!({names::METALLB_IPS: asked});
        } else if by.kind != ServiceType::LoadBalancer {
            manifest["spec"]["externalIPs"] = json!(addresses);
        } else {
            manifest["spec"]["loadBalancerClass"] = json!("example.org/other");
            manifest["status"] = ingress_status(&addresses);
        }
        let put = self.put(Kind::Service, manifest);
        put.map(drop).map_err(|e| e.to_string())
    }

    /// Changes a node that exists.
    fn change_node(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut BTreeMap<String, String>, State) -> State,
    ) {
        let Some(node) = self.world.nodes.get(name) else {
            return;
        };
        let mut labels = node.labels.clone();
        let (was_ready, since) = (node.ready, node.since);
        let state = change(
            &mut labels,
            State {
                ready: node.ready,
                cordoned: node.cordoned,
                drained: node.drained,
            },
        );
        let since = since
            .filter(|_| was_ready == state.ready)
            .unwrap_or(self.world.now);
        let annotations = if state.drained {
            json!({names::DRAIN: "true"})
        } else {
            json!({})
        };
        let manifest = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"unschedulable": state.cordoned},
            "status": {"conditions": [{"type": "Ready",
                "status": if state.ready { "True" } else { "False" },
                "lastTransitionTime": since}]},
        });
        // Built above, so it can be read.
        let _: Result<ObjectRef, _> = self.put(Kind::Node, manifest);
    }
}

/// What changes about a node.
#[derive(Clone, Copy)]
struct State {
    ready: bool,
    cordoned: bool,
    drained: bool,
}

#[cfg(test)]
mod tests;
