//! Admission: ours keeps impossible objects out, MetalLB's keeps broken ones out.

use serde_json::Value;

use super::{Facts, Findings, Severity, title};

pub(super) const RULES: &[(&str, &str)] = &[
    (
        "webhook-missing",
        "the admission webhook of l2lb is not installed",
    ),
    (
        "webhook-without-ca",
        "the API server has no certificate authority for the webhook of l2lb",
    ),
    ("webhook-ignored", "the webhook of l2lb may be passed by"),
    ("webhook-down", "no pod of the webhook of l2lb serves"),
    (
        "metallb-webhook-missing",
        "MetalLB's own webhook is missing or may be passed by",
    ),
];

/// Ours judges our two kinds.
const OURS: &str = "admission.l2lb.io";

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    if !facts.could_read("ValidatingWebhookConfiguration") {
        return;
    }
    let all: Vec<(&Value, &Value)> = facts
        .of_kind("ValidatingWebhookConfiguration")
        .flat_map(|c| {
            let hooks = c["webhooks"].as_array().into_iter().flatten();
            hooks.map(move |hook| (c, hook))
        })
        .collect();
    let ours: Vec<_> = all
        .iter()
        .filter(|(_, hook)| hook["name"] == OURS)
        .collect();
    if ours.is_empty() {
        found.add(
            Severity::Warning,
            "webhook-missing",
            "ValidatingWebhookConfiguration l2lb",
            "no webhook of l2lb is installed: objects that cannot be served are accepted, and \
             refused by a condition afterwards",
            "install the chart with its webhook",
        );
    }
    for (configuration, hook) in ours {
        judge_ours(facts, found, configuration, hook);
    }
    metallb(facts, found, &all);
}

fn judge_ours(facts: &Facts<'_>, found: &mut Findings, configuration: &Value, hook: &Value) {
    let about = title(configuration);
    let client = &hook["clientConfig"];
    if client["caBundle"].as_str().unwrap_or_default().is_empty() {
        found.add(
            Severity::Error,
            "webhook-without-ca",
            &about,
            "its caBundle is empty: L2AddressPools and L2LoadBalancers cannot be created or changed",
            "look at the log of l2lb-webhook, which writes it; a GitOps tool may take it away again \
             (docs/gitops.md)",
        );
    }
    if hook["failurePolicy"] == "Ignore" {
        found.add(
            Severity::Warning,
            "webhook-ignored",
            &about,
            "its failurePolicy is Ignore: while it is down, objects that cannot be served are accepted",
            "set webhook.failurePolicy to Fail again",
        );
    }
    let service = &client["service"];
    let (namespace, name) = (service["namespace"].as_str(), service["name"].as_str());
    let (Some(namespace), Some(name)) = (namespace, name) else {
        return;
    };
    let mut slices = facts.of_kind("EndpointSlice").filter(|s| {
        let meta = &s["metadata"];
        meta["namespace"] == namespace && meta["labels"]["kubernetes.io/service-name"] == name
    });
    let serves = slices.any(|slice| {
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        endpoints
            .map(|e| &e["conditions"])
            .any(|c| c["ready"] != false)
    });
    if !serves && facts.could_read("EndpointSlice") && hook["failurePolicy"] != "Ignore" {
        found.add(
            Severity::Error,
            "webhook-down",
            &about,
            format!(
                "no pod of Service {namespace}/{name} is ready: L2AddressPools and L2LoadBalancers \
                 cannot be created or changed"
            ),
            format!("kubectl get pods,endpointslices -n {namespace}"),
        );
    }
}

fn metallb(facts: &Facts<'_>, found: &mut Findings, all: &[(&Value, &Value)]) {
    if !facts.world.capabilities.installed {
        return;
    }
    let judges_pools = |hook: &Value| {
        let rules = hook["rules"].as_array().into_iter().flatten();
        rules.into_iter().any(|rule| {
            let has = |field: &str, wanted: &str| {
                let list = rule[field].as_array().into_iter().flatten();
                list.into_iter().any(|v| v == wanted)
            };
            has("apiGroups", "metallb.io") && has("resources", "ipaddresspools")
        })
    };
    // Ours advises on them too.
    let theirs: Vec<_> = all
        .iter()
        .filter(|(_, hook)| judges_pools(hook))
        .filter(|(_, hook)| {
            !hook["name"]
                .as_str()
                .unwrap_or_default()
                .ends_with(".l2lb.io")
        })
        .collect();
    let message = match theirs.first() {
        None => "no webhook of MetalLB judges IPAddressPools",
        Some((_, hook)) if hook["failurePolicy"] == "Ignore" => {
            "MetalLB's webhook for IPAddressPools has failurePolicy Ignore"
        }
        Some(_) => return,
    };
    found.add(
        Severity::Warning,
        "metallb-webhook-missing",
        format!(
            "MetalLB in namespace {}",
            facts.world.options.metallb_namespace
        ),
        format!("{message}: an overlap that slips through makes its whole configuration stale"),
        "install MetalLB with its webhook, failurePolicy Fail",
    );
}
