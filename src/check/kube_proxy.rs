//! kube-proxy in IPVS mode: without strictARP every node answers for every address.

use serde_json::Value;

use super::{Facts, Findings, Severity, Snapshot, title};

pub(super) const RULES: &[(&str, &str)] = &[(
    "ipvs-without-strict-arp",
    "kube-proxy runs in IPVS mode without strictARP",
)];

/// Where kubeadm and its like keep kube-proxy's configuration.
pub const CONFIG: (&str, &str) = ("kube-system", "kube-proxy");

/// kube-proxy's configurations, with the object that each is in.
fn configurations(snapshot: &Snapshot) -> impl Iterator<Item = (&Value, Value)> {
    let maps = snapshot.objects.iter().filter(|m| {
        let meta = &m["metadata"];
        m["kind"] == "ConfigMap" && meta["namespace"] == CONFIG.0 && meta["name"] == CONFIG.1
    });
    let texts = maps.flat_map(|map| {
        let data = map["data"].as_object().into_iter().flatten();
        data.filter_map(move |(_, text)| Some((map, text.as_str()?)))
    });
    texts
        .filter_map(|(map, text)| Some((map, serde_saphyr::from_str::<Value>(text).ok()?)))
        .filter(|(_, config)| config["kind"] == "KubeProxyConfiguration")
}

/// Says that strictARP could not be judged, where the configuration is elsewhere.
pub(super) fn unseen(snapshot: &Snapshot) -> Option<(String, String)> {
    let forbidden = snapshot.unread.iter().any(|(what, _)| what == "ConfigMap");
    let (namespace, name) = CONFIG;
    (!forbidden && configurations(snapshot).next().is_none()).then(|| {
        (
            "strictARP of kube-proxy".to_owned(),
            format!(
                "there is no configuration in ConfigMap {namespace}/{name}; where kube-proxy runs in \
                 IPVS mode, see that it has ipvs.strictARP: true"
            ),
        )
    })
}

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    for (map, config) in configurations(facts.snapshot) {
        if config["mode"] == "ipvs" && config["ipvs"]["strictARP"] != true {
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
