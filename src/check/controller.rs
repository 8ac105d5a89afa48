//! Whether our controller works.

use jiff::{SignedDuration, Timestamp};

use super::{Facts, Findings, Severity, title};
use crate::world::Stored;

pub(super) const RULES: &[(&str, &str)] = &[
    ("controller-never-ran", "there is no Lease of a controller"),
    ("controller-stopped", "nobody renews the controller's Lease"),
    (
        "status-behind",
        "an object has changed, and the controller has not judged it since",
    ),
];

/// How long the controller may take to judge a change.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// Name of the Lease.
pub const LEASE: &str = "l2lb-controller";

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let leases: Vec<_> = facts.of_kind("Lease").collect();
    let remedy = "kubectl get pods -A -l app.kubernetes.io/name=l2lb, and the log of \
                  l2lb-controller; traffic and MetalLB's failover go on meanwhile";
    if leases.is_empty() && facts.could_read("Lease") {
        found.add(
            Severity::Error,
            "controller-never-ran",
            format!("Lease {LEASE}"),
            "it does not exist: no controller of l2lb runs, or it runs without leader election",
            remedy,
        );
    }
    for lease in leases {
        let renewed: Option<Timestamp> = lease["spec"]["renewTime"]
            .as_str()
            .and_then(|t| t.parse().ok());
        let duration = lease["spec"]["leaseDurationSeconds"].as_i64().unwrap_or(15);
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let away = renewed.map(|at| facts.now().duration_since(at));
        // The clocks of two machines differ by a little.
        if away.is_none_or(|away| away.as_secs() > 2 * duration) || holder.is_empty() {
            let since = away.map_or_else(
                || "nobody holds it".to_owned(),
                |away| format!("it was renewed {} s ago last", away.as_secs()),
            );
            found.add(
                Severity::Error,
                "controller-stopped",
                title(lease),
                format!(
                    "{since}: no controller of l2lb works, and nothing new is served or steered"
                ),
                remedy,
            );
        }
    }
    behind(facts, found);
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
    for (about, meta, seen) in load_balancers.chain(pools) {
        let age = meta
            .creation_timestamp
            .as_ref()
            .map(|t| facts.now().duration_since(t.0));
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
