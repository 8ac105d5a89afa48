//! MetalLB's own word on its configuration: what it refused is not in effect,
//! and neither is anything that was changed since.

use super::{Facts, Findings, Severity};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "metallb-configuration-stale",
        "a component of MetalLB has refused its configuration",
    ),
    (
        "allocation-failed",
        "MetalLB could not give a Service its address lately",
    ),
];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    for state in facts.of_kind("ConfigurationState") {
        let status = &state["status"];
        if status["result"] != "Invalid" {
            continue;
        }
        let labels = &state["metadata"]["labels"];
        let component = labels["metallb.io/component-type"]
            .as_str()
            .unwrap_or("component");
        let node = labels["metallb.io/node-name"].as_str();
        let on = node.map_or_else(String::new, |node| format!(" on node {node}"));
        let summary = status["errorSummary"]
            .as_str()
            .unwrap_or("it does not say why");
        found.add(
            Severity::Error,
            "metallb-configuration-stale",
            format!("MetalLB's {component}{on}"),
            format!("it has refused its configuration, and works on with the last one that it took: {summary}"),
            "correct or delete the object that it names; the findings on pools and advertisements may be the cause",
        );
    }
    for event in facts
        .of_kind("Event")
        .filter(|e| e["reason"] == "AllocationFailed")
    {
        let object = &event["involvedObject"];
        let (namespace, name) = (object["namespace"].as_str(), object["name"].as_str());
        let (Some(namespace), Some(name)) = (namespace, name) else {
            continue;
        };
        let key = crate::world::Key::new(namespace, name);
        // Of ours, only while it still waits.
        let waits = facts
            .world
            .child(&key)
            .is_some_and(|c| c.allocated.is_empty());
        if waits {
            found.add(
                Severity::Warning,
                "allocation-failed",
                format!("Service {key}"),
                event["message"]
                    .as_str()
                    .unwrap_or("MetalLB could not allocate"),
                format!("kubectl describe service -n {namespace} {name}"),
            );
        }
    }
}
