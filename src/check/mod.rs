//! What keeps addresses from being announced as they should, or will one day:
//! rules over a snapshot of a cluster. Pure; `kubectl l2lb check` reads the
//! snapshot.

mod addresses;
mod advertisements;
mod bgp;
mod conditions;
mod controller;
mod definitions;
mod elsewhere;
mod kube_proxy;
mod nodes;
mod others;
mod parser;
mod pools;
mod probe;
mod services;
mod speakers;
mod stale;
mod webhooks;

pub use controller::{LEASE, LEASE_LABELS, lease_name};
pub use kube_proxy::CONFIG as KUBE_PROXY;
pub use probe::{
    Neighbour, Probe, addresses as probe_addresses, doubtful as probe_again,
    read_table as read_neighbours,
};

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::plan::outlook::Outlook;
use crate::plan::{self, Plan};
use crate::world::{World, observe_manifest};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// An address is dark or goes elsewhere, or MetalLB or l2lb does not work.
    Error,
    /// It works, and will not when something else happens.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The rule that found it: stays the same, for scripts.
    pub rule: &'static str,
    /// The object that it is about, as `Kind namespace/name`.
    pub object: String,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Everything that is looked at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What the planner sees.
    pub world: World,
    /// Objects as the API has them: of kinds that the planner does not see,
    /// and Services, Nodes and Pods, of which it sees but a part.
    pub objects: Vec<Value>,
    /// What could not be read, and why.
    pub unread: Vec<(String, String)>,
    /// Who answers on the segment, if that was asked for.
    pub probe: Option<Probe>,
}

impl Snapshot {
    /// Takes in an object.
    ///
    /// # Errors
    /// What serde says of an object of the planner that cannot be read.
    pub fn add(&mut self, value: Value) -> Result<(), serde_json::Error> {
        if !self.is_ignored(&value)
            && let Some(observed) = observe_manifest(value.clone())?
        {
            self.world.observe(observed);
        }
        self.objects.push(value);
        Ok(())
    }

    /// Whether MetalLB ignores an object of its own because of its namespace.
    fn is_ignored(&self, value: &Value) -> bool {
        let namespace = value["metadata"]["namespace"].as_str();
        let kind = value["kind"].as_str().unwrap_or_default();
        elsewhere::KINDS.contains(&kind)
            && namespace.is_some_and(|n| n != self.world.options.metallb_namespace)
    }

    /// What could not be looked at, and why: what could not be read, and what
    /// is not where it is looked for.
    pub fn not_looked_at(&self) -> Vec<(String, String)> {
        let mut all = self.unread.clone();
        all.extend(kube_proxy::unseen(self));
        if let Some(probe) = &self.probe {
            all.extend(probe::unseen(&self.world, probe));
        }
        all
    }
}

/// The snapshot with what the planner makes of it.
struct Facts<'a> {
    snapshot: &'a Snapshot,
    world: &'a World,
    outlook: Outlook,
    plan: Plan,
}

impl<'a> Facts<'a> {
    /// The objects of a kind.
    fn of_kind(&self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let objects = self.snapshot.objects.iter();
        objects.filter(move |o| o["kind"].as_str() == Some(kind))
    }

    /// Whether a kind could be looked at.
    fn could_read(&self, kind: &str) -> bool {
        !self.snapshot.unread.iter().any(|(what, _)| what == kind)
    }

    fn now(&self) -> Timestamp {
        self.world.now
    }

    /// Whether MetalLB, as it runs, cares for a Service.
    fn is_metallbs(&self, service: &Value) -> bool {
        let spec = &service["spec"];
        let class = spec["loadBalancerClass"].as_str().unwrap_or_default();
        let served = self.world.served_classes();
        spec["type"].as_str().is_none_or(|t| t == "LoadBalancer")
            && (served.is_empty() || served.contains(&class))
    }
}

/// Name of an object of the API.
fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Kind, namespace and name of an object of the API.
fn title(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{}", name(object)),
        None => format!("{kind} {}", name(object)),
    }
}

/// The labels of an object of the API.
fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object();
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The addresses that a Service has.
fn ingress(service: &Value) -> impl Iterator<Item = IpAddr> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    ingress
        .into_iter()
        .flatten()
        .filter_map(|i| i["ip"].as_str()?.parse().ok())
}

/// What is found, family by family.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Finding {
            severity,
            rule,
            object: object.into(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }
}

/// Every rule: its name, and what it is about.
pub const RULES: &[(&str, &[(&str, &str)])] = &[
    ("addresses", addresses::RULES),
    ("advertisements", advertisements::RULES),
    ("bgp", bgp::RULES),
    ("conditions", conditions::RULES),
    ("controller", controller::RULES),
    ("definitions", definitions::RULES),
    ("elsewhere", elsewhere::RULES),
    ("kube-proxy", kube_proxy::RULES),
    ("nodes", nodes::RULES),
    ("others", others::RULES),
    ("pools", pools::RULES),
    ("probe", probe::RULES),
    ("services", services::RULES),
    ("speakers", speakers::RULES),
    ("stale", stale::RULES),
    ("webhooks", webhooks::RULES),
];

/// Applies every rule: the worst first, each object's together.
pub fn check(snapshot: &Snapshot) -> Vec<Finding> {
    let facts = Facts {
        snapshot,
        world: &snapshot.world,
        outlook: Outlook::of(&snapshot.world),
        plan: plan::plan(&snapshot.world),
    };
    let mut found = Findings(Vec::new());
    for family in [
        addresses::check,
        advertisements::check,
        bgp::check,
        conditions::check,
        controller::check,
        definitions::check,
        elsewhere::check,
        kube_proxy::check,
        nodes::check,
        others::check,
        pools::check,
        probe::check,
        services::check,
        speakers::check,
        stale::check,
        webhooks::check,
    ] {
        family(&facts, &mut found);
    }
    let mut found = found.0;
    found.sort_by(|a, b| (a.severity, a.rule, &a.object).cmp(&(b.severity, b.rule, &b.object)));
    found.dedup();
    found
}

#[cfg(test)]
mod tests;
