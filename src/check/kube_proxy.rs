//! kube-proxy in IPVS mode: without strictARP every node answers for every address.

use super::{Facts, Findings, Severity, title};

pub(super) const RULES: &[(&str, &str)] = &[(
    "ipvs-without-strict-arp",
    "kube-proxy runs in IPVS mode without strictARP",
)];

/// Where kubeadm and its like keep kube-proxy's configuration.
pub const CONFIG: (&str, &str) = ("kube-system", "kube-proxy");

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let maps = facts
        .of_kind("ConfigMap")
        .filter(|m| m["metadata"]["namespace"] == CONFIG.0 && m["metadata"]["name"] == CONFIG.1);
    for map in maps {
        let data = map["data"].as_object().into_iter().flatten();
        for text in data.filter_map(|(_, text)| text.as_str()) {
            let Ok(config) = serde_saphyr::from_str::<serde_json::Value>(text) else {
                continue;
            };
            if config["kind"] == "KubeProxyConfiguration"
                && config["mode"] == "ipvs"
                && config["ipvs"]["strictARP"] != true
            {
                found.add(
                    Severity::Error,
                    "ipvs-without-strict-arp",
                    title(map),
                    "mode is ipvs and ipvs.strictARP is not true: every node answers ARP for every \
                     address, whoever announces it",
                    "set ipvs.strictARP: true there, then kubectl -n kube-system rollout restart \
                     daemonset kube-proxy",
                );
            }
        }
    }
}
