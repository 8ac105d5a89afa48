//! What the planner must know of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as KubeNode, NodeCondition};

use crate::api::names;

/// A node, without its images, volumes and capacities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Condition Ready is True.
    pub ready: bool,
    /// Condition NetworkUnavailable is True.
    pub network_unavailable: bool,
    /// It is cordoned.
    pub cordoned: bool,
    /// It carries the annotation `l2lb.io/drain`.
    pub drained: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Since when it is able to announce, or unable, whichever it is now: the
    /// later of its conditions' last transitions and of the change that the
    /// controller itself saw.
    pub since: Option<Timestamp>,
}

impl Node {
    /// Reads a node. `previous` is what was known of it: the time of a change
    /// without a timestamp of its own (uncordoning) is `now`.
    pub fn read(node: &KubeNode, previous: Option<&Self>, now: Timestamp) -> Self {
        let status = node.status.as_ref();
        let spec = node.spec.as_ref();
        let condition = |kind: &str| -> Option<&NodeCondition> {
            status?
                .conditions
                .as_ref()?
                .iter()
                .find(|c| c.type_ == kind)
        };
        let is_true = |kind: &str| condition(kind).is_some_and(|c| c.status == "True");
        let transition = ["Ready", "NetworkUnavailable"]
            .iter()
            .filter_map(|kind| condition(kind)?.last_transition_time.as_ref().map(|t| t.0))
            .max()
            // The kubelet writes it by its own clock. When that is ahead, it
            // changed when it was seen to; otherwise it would be waited for.
            .filter(|at| *at <= now || previous.is_none())
            .map(|at| at.min(now));
        let mut read = Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            created: node.metadata.creation_timestamp.as_ref().map(|t| t.0),
            // A node without conditions (a manifest given to `render`) is well.
            ready: condition("Ready").is_none_or(|c| c.status == "True"),
            network_unavailable: is_true("NetworkUnavailable"),
            cordoned: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            drained: node
                .metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get(names::DRAIN))
                .is_some_and(|v| v != "false"),
            terminating: node.metadata.deletion_timestamp.is_some(),
            addresses: status
                .and_then(|s| s.addresses.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|a| a.address.parse().ok())
                .collect(),
            since: transition,
        };
        read.since = match previous {
            Some(before) if before.standing() == read.standing() => before.since.max(transition),
            Some(_) => Some(now),
            None => transition,
        };
        read
    }

    fn standing(&self) -> (bool, bool, bool, bool) {
        (
            self.ready,
            self.network_unavailable,
            self.cordoned,
            self.drained,
        )
    }

    /// Its name as a label value.
    pub fn value(&self) -> std::borrow::Cow<'_, str> {
        names::node_value(&self.name)
    }

    /// Its label `kubernetes.io/hostname`, by which one node can be selected.
    pub fn hostname(&self) -> Option<&str> {
        self.labels
            .get(names::HOSTNAME)
            .map(String::as_str)
            .filter(|h| !h.is_empty())
    }

    /// Whether it carries Kubernetes' label against use by load balancers.
    pub fn is_excluded(&self) -> bool {
        self.labels.contains_key(names::EXCLUDE_NODE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str, since: &str, label: &str) -> KubeNode {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"some": label}},
            "status": {"conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": since}]},
        }))
        .unwrap()
    }

    /// The clock of its machine was eight hours ahead when it came back.
    #[test]
    fn a_clock_that_is_ahead_is_not_waited_for() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        let lost = Node::read(&node("False", "2025-12-31T23:59:00Z", "x"), None, now);
        assert_eq!(lost.since, Some(later(-60)));
        let ahead = |label| node("True", "2026-01-01T08:00:00Z", label);
        let back = Node::read(&ahead("x"), Some(&lost), later(1));
        assert_eq!(back.since, Some(later(1)));
        let again = Node::read(&ahead("y"), Some(&back), later(9));
        assert_eq!(again.since, Some(later(1)));
        // By a controller that has just started.
        let first = Node::read(&ahead("x"), None, later(20));
        assert_eq!(first.since, Some(later(20)));
        // When the clock was set right it says so itself.
        let right = node("True", "2026-01-01T00:00:30Z", "y");
        let right = Node::read(&right, Some(&again), later(40));
        assert_eq!(right.since, Some(later(30)));
    }
}
