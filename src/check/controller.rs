//! Whether our controller works.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Facts, Findings, Severity, title};
use crate::world::Stored;

pub(super) const RULES: &[(&str, &str)] = &[
    ("controller-never-ran", "there is no Lease of a controller"),
    ("controller-stopped", "nobody renews the controller's Lease"),
    (
        "controllers-compete",
        "two installations of l2lb work on one cluster",
    ),
    (
        "status-behind",
        "an object has changed, and the controller has not judged it since",
    ),
];

/// How long the controller may take to judge a change.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// Name of the Lease, where neither the chart nor a flag gives it another.
pub const LEASE: &str = "l2lb-controller";

/// The labels of the Lease, whatever its name: the chart's, and the controller's.
pub const LEASE_LABELS: &str = "app.kubernetes.io/name=l2lb,app.kubernetes.io/component=controller";

/// The flag that names another Lease, in the arguments of the Deployment.
const LEASE_FLAG: &str = "--lease-name=";

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    leases(facts, found);
    behind(facts, found);
}

fn leases(facts: &Facts<'_>, found: &mut Findings) {
    let leases: Vec<&Value> = facts.of_kind("Lease").collect();
    let remedy = "kubectl get pods -A -l app.kubernetes.io/name=l2lb, and the log of \
                  l2lb-controller; traffic and MetalLB's failover go on meanwhile";
    if leases.is_empty() {
        if facts.could_read("Lease") {
            found.add(
                Severity::Error,
                "controller-never-ran",
                format!("Lease {}", expected(facts)),
                "it does not exist: no controller of l2lb runs, or it runs without leader election",
                remedy,
            );
        }
        return;
    }
    let held: Vec<String> = leases
        .iter()
        .filter(|lease| stopped(facts, lease).is_none())
        .map(|lease| title(lease))
        .collect();
    if let [first, _, ..] = held.as_slice() {
        found.add(
            Severity::Error,
            "controllers-compete",
            first.as_str(),
            format!(
                "{} are held at once: controllers of two installations write the same objects",
                held.join(" and ")
            ),
            "uninstall one of them; what is served stays, as the other one has the same objects",
        );
    }
    // What an earlier installation left behind harms nobody.
    if !held.is_empty() {
        return;
    }
    for lease in leases {
        let since = stopped(facts, lease).unwrap_or_default();
        found.add(
            Severity::Error,
            "controller-stopped",
            title(lease),
            format!("{since}: no controller of l2lb works, and nothing new is served or steered"),
            remedy,
        );
    }
}

/// Since when nobody holds a Lease; `None` when somebody does.
fn stopped(facts: &Facts<'_>, lease: &Value) -> Option<String> {
    let renewed: Option<Timestamp> = lease["spec"]["renewTime"]
        .as_str()
        .and_then(|t| t.parse().ok());
    let duration = lease["spec"]["leaseDurationSeconds"].as_i64().unwrap_or(15);
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let Some(away) = renewed.map(|at| facts.now().duration_since(at)) else {
        return Some("nobody holds it".to_owned());
    };
    // The clocks of two machines differ by a little.
    (away.as_secs() > 2 * duration || holder.is_empty())
        .then(|| format!("it was renewed {} s ago last", away.as_secs()))
}

/// The Lease that there should be, as the Deployment says.
fn expected(facts: &Facts<'_>) -> String {
    facts
        .of_kind("Deployment")
        .find_map(|deployment| Some((deployment, lease_name(deployment)?)))
        .map_or_else(
            || LEASE.to_owned(),
            |(deployment, name)| {
                let namespace = deployment["metadata"]["namespace"].as_str();
                format!("{}/{name}", namespace.unwrap_or_default())
            },
        )
}

/// The Lease that a controller's Deployment names.
pub fn lease_name(deployment: &Value) -> Option<&str> {
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    let mut args = containers
        .as_array()?
        .iter()
        .filter_map(|c| c["args"].as_array())
        .flatten();
    args.find_map(|a| a.as_str()?.strip_prefix(LEASE_FLAG))
}

fn behind(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    let load_balancers = world.load_balancers.iter().filter_map(|(key, stored)| {
        let Stored::Valid(lb) = stored else {
            return None;
        };
        let seen = lb.status.as_ref().and_then(|s| s.observed_generation);
        Some((format!("L2LoadBalancer {key}"), &lb.metadata, seen))
    });
    let pools = world.pools.iter().filter_map(|(name, stored)| {
        let Stored::Valid(pool) = stored else {
            return None;
        };
        let seen = pool.status.as_ref().and_then(|s| s.observed_generation);
        Some((format!("L2AddressPool {name}"), &pool.metadata, seen))
    });
    let changes = ["L2LoadBalancer", "L2AddressPool"].into_iter();
    let changes = changes.flat_map(|kind| facts.of_kind(kind));
    let changes: BTreeMap<String, Timestamp> = changes
        .filter_map(|object| Some((title(object), changed(object)?)))
        .collect();
    for (about, meta, seen) in load_balancers.chain(pools) {
        let created = meta.creation_timestamp.as_ref().map(|t| t.0);
        let since = changes.get(&about).copied().max(created);
        let age = since.map(|at| facts.now().duration_since(at));
        if seen == meta.generation || age.is_some_and(|age| age < PATIENCE) {
            continue;
        }
        found.add(
            Severity::Warning,
            "status-behind",
            about,
            "its spec has changed, and the controller has not judged it since",
            "wait a moment; if it stays, look at the log of l2lb-controller",
        );
    }
}

/// When somebody wrote more of an object than its status last, where that is known.
fn changed(object: &Value) -> Option<Timestamp> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    let entries = entries
        .iter()
        .filter(|e| e["subresource"].as_str().is_none_or(str::is_empty));
    let times = entries.filter_map(|e| e["time"].as_str()?.parse().ok());
    times.max()
}
