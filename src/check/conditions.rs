//! What the planner itself says of our two kinds, in the world as it is now.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Facts, Findings, Severity};
use crate::api::{ConditionType, Reason};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "load-balancer-condition",
        "a condition of an L2LoadBalancer does not hold",
    ),
    (
        "pool-condition",
        "a condition of an L2AddressPool does not hold",
    ),
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    for (key, planned) in &facts.plan.load_balancers {
        let mut said: Option<&str> = None;
        for condition in planned
            .status
            .conditions
            .iter()
            .filter(|c| c.status == "False")
        {
            let Some(severity) = severity(condition) else {
                continue;
            };
            // The others only repeat that it is not accepted.
            if said == Some(&condition.reason) {
                continue;
            }
            said = Some(&condition.reason);
            found.add(
                severity,
                "load-balancer-condition",
                format!("L2LoadBalancer {key}"),
                format!("{}: {}", condition.reason, condition.message),
                format!("kubectl describe l2lb -n {} {}", key.namespace, key.name),
            );
        }
    }
    for (name, planned) in &facts.plan.pools {
        let mut said: Option<&str> = None;
        for condition in planned
            .status
            .conditions
            .iter()
            .filter(|c| c.status == "False")
        {
            let Some(severity) = severity(condition) else {
                continue;
            };
            if said == Some(&condition.reason) {
                continue;
            }
            said = Some(&condition.reason);
            found.add(
                severity,
                "pool-condition",
                format!("L2AddressPool {name}"),
                format!("{}: {}", condition.reason, condition.message),
                format!("kubectl describe l2pool {name}"),
            );
        }
    }
}

/// How bad it is; `None` for what passes by itself, or another family finds.
fn severity(condition: &Condition) -> Option<Severity> {
    let is = |reason: Reason| condition.reason == reason.as_str();
    // What nodes do is said once for each node; what others' objects do, with them.
    let elsewhere = [
        Reason::Pending,
        Reason::FailedOver,
        Reason::Draining,
        Reason::SpeakerMissing,
        Reason::MemberlistOff,
        Reason::InterfaceMissing,
        Reason::NodeNotIdentifiable,
        Reason::ConflictingAdvertisement,
        Reason::BGPAdvertisementConflict,
        Reason::NotAnnounced,
    ];
    if elsewhere.into_iter().any(is) {
        return None;
    }
    if is(Reason::Retiring) || is(Reason::PoolTerminating) || is(Reason::Uneven) {
        return Some(Severity::Info);
    }
    let telling = [
        ConditionType::Accepted,
        ConditionType::AddressesAllocated,
        ConditionType::Configured,
        ConditionType::Ready,
    ];
    Some(if telling.iter().any(|t| condition.type_ == t.as_str()) {
        Severity::Error
    } else {
        Severity::Warning
    })
}
