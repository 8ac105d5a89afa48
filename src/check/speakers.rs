//! MetalLB's programs: there, of one version, and seeing each other.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Facts, Findings, Severity};
use crate::metallb::Capabilities;
use crate::world::{Version, version_of};

pub(super) const RULES: &[(&str, &str)] = &[
    ("no-speaker-seen", "no speaker of MetalLB is seen at all"),
    (
        "metallb-controller-missing",
        "MetalLB's controller does not run",
    ),
    (
        "metallb-versions-differ",
        "MetalLB's programs are of different versions",
    ),
    (
        "speakers-split",
        "speakers of versions run that do not see each other",
    ),
    (
        "speakers-older-than-definitions",
        "speakers do not know what the definitions promise",
    ),
    (
        "definitions-older-than-speakers",
        "MetalLB's definitions are older than its programs",
    ),
    ("memberlist-off", "speakers run without memberlist"),
    (
        "exclude-label-flag",
        "the speakers' --ignore-exclude-lb and what was said of it differ",
    ),
];

/// Versions at which the key changed by which speakers talk to each other.
const KEY_CHANGES: [Version; 2] = [(0, 14, 5), (0, 16, 2)];

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let world = facts.world;
    let namespace = &world.options.metallb_namespace;
    let about = format!("MetalLB in namespace {namespace}");
    if !facts.could_read("Pod") {
        return;
    }
    let speakers: Vec<_> = world.speakers.running().collect();
    if speakers.is_empty() {
        found.add(
            Severity::Warning,
            "no-speaker-seen",
            &about,
            "no pod is seen that runs and carries a speaker's labels (app.kubernetes.io/component \
             or component: speaker)",
            format!(
                "kubectl get pods -n {namespace}; name MetalLB's namespace by --metallb-namespace"
            ),
        );
        return;
    }
    let mut versions: BTreeMap<Version, Vec<String>> = BTreeMap::new();
    for speaker in &speakers {
        if let Some(version) = speaker.version() {
            versions
                .entry(version)
                .or_default()
                .push(speaker.node.clone());
        }
    }
    split(found, &about, &versions);
    definitions(facts, found, &about, &versions);
    let blind: Vec<&str> = speakers
        .iter()
        .filter(|s| !s.memberlist)
        .map(|s| s.node.as_str())
        .collect();
    if !blind.is_empty() {
        let (severity, then) = if world.capabilities.needs_memberlist() {
            (
                Severity::Error,
                "up to MetalLB 0.14.9 nobody announces any address then",
            )
        } else {
            (
                Severity::Warning,
                "MetalLB never finds out that one is dead, and only l2lb-controller moves its \
                 addresses",
            )
        };
        found.add(
            severity,
            "memberlist-off",
            &about,
            format!(
                "the speakers of {} nodes run without memberlist ({}): {then}",
                blind.len(),
                blind.join(", ")
            ),
            "switch memberlist on (speaker.memberlist.enabled in MetalLB's chart)",
        );
    }
    programs(facts, found, &about, &versions);
}

fn split(found: &mut Findings, about: &str, versions: &BTreeMap<Version, Vec<String>>) {
    let (Some((oldest, _)), Some((newest, _))) =
        (versions.first_key_value(), versions.last_key_value())
    else {
        return;
    };
    if oldest == newest {
        return;
    }
    let each: Vec<String> = versions
        .iter()
        .map(|(v, nodes)| format!("{} on {}", text(*v), nodes.join(", ")))
        .collect();
    let apart = KEY_CHANGES
        .iter()
        .find(|key| oldest < *key && *key <= newest);
    match apart {
        Some(key) => found.add(
            Severity::Error,
            "speakers-split",
            about,
            format!(
                "speakers before and from {} on do not see each other, and both halves announce: {}",
                text(*key),
                each.join("; ")
            ),
            "finish the rollout of the speakers' DaemonSet now",
        ),
        None => found.add(
            Severity::Warning,
            "metallb-versions-differ",
            about,
            format!("speakers of different versions run: {}", each.join("; ")),
            "finish the rollout of the speakers' DaemonSet",
        ),
    }
}

/// The definitions say what the speakers are taken to know.
fn definitions(
    facts: &Facts<'_>,
    found: &mut Findings,
    about: &str,
    versions: &BTreeMap<Version, Vec<String>>,
) {
    let told = facts.world.capabilities;
    for (version, nodes) in versions {
        let Some(runs) = Capabilities::of_version(&text(*version)) else {
            continue;
        };
        if told.can_prefer() && !runs.can_prefer() {
            found.add(
                Severity::Error,
                "speakers-older-than-definitions",
                about,
                format!(
                    "the definitions know preferredNodeSelectors (0.16.2) and the speakers of {} \
                     are {}: they announce by the hash alone, wherever addresses are pinned",
                    nodes.join(", "),
                    text(*version)
                ),
                "upgrade the speakers to the version of the definitions",
            );
        } else if told.installed && runs.can_prefer() && !told.can_prefer() {
            found.add(
                Severity::Warning,
                "definitions-older-than-speakers",
                about,
                format!(
                    "the speakers of {} are {} and the definitions are older: l2lb works as for an \
                     older MetalLB",
                    nodes.join(", "),
                    text(*version)
                ),
                "upgrade MetalLB's definitions; Helm does not do it for charts that keep them in crds/",
            );
        }
    }
}

/// What only the pods themselves tell.
fn programs(
    facts: &Facts<'_>,
    found: &mut Findings,
    about: &str,
    versions: &BTreeMap<Version, Vec<String>>,
) {
    let options = &facts.world.options;
    let pods: Vec<&Value> = facts
        .of_kind("Pod")
        .filter(|p| p["metadata"]["namespace"] == options.metallb_namespace.as_str())
        .collect();
    let component = |pod: &Value, wanted: &str| {
        let labels = &pod["metadata"]["labels"];
        labels["app.kubernetes.io/component"] == wanted || labels["component"] == wanted
    };
    let controllers = pods.iter().filter(|p| component(p, "controller"));
    let running: Vec<_> = controllers
        .filter(|p| p["status"]["phase"] == "Running")
        .collect();
    if running.is_empty() {
        found.add(
            Severity::Error,
            "metallb-controller-missing",
            about,
            "its controller does not run: no new Service gets its address",
            format!("kubectl get pods -n {}", options.metallb_namespace),
        );
    }
    for controller in running {
        let image = controller["spec"]["containers"][0]["image"]
            .as_str()
            .unwrap_or_default();
        if let (Some(version), Some((speaker, _))) = (version_of(image), versions.last_key_value())
            && version != *speaker
        {
            found.add(
                Severity::Warning,
                "metallb-versions-differ",
                about,
                format!(
                    "its controller is {} and speakers are {}",
                    text(version),
                    text(*speaker)
                ),
                "finish the upgrade of MetalLB",
            );
        }
    }
    let ignores = pods.iter().filter(|p| component(p, "speaker")).any(|pod| {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        containers
            .flat_map(|c| c["args"].as_array().into_iter().flatten())
            .any(|a| {
                matches!(
                    a.as_str(),
                    Some("--ignore-exclude-lb" | "--ignore-exclude-lb=true")
                )
            })
    });
    if ignores != options.ignore_exclude_label {
        let (message, remedy) = if ignores {
            (
                "the speakers run with --ignore-exclude-lb: nodes labelled against load balancers \
                 announce, and count as nodes that have left unless l2lb-controller is told",
                "run l2lb-controller with --ignore-exclude-lb too, and kubectl l2lb check with it",
            )
        } else {
            (
                "--ignore-exclude-lb was said, and the speakers run without it: nodes labelled \
                 against load balancers announce nothing",
                "leave the flag out, here and for l2lb-controller",
            )
        };
        found.add(
            Severity::Warning,
            "exclude-label-flag",
            about,
            message,
            remedy,
        );
    }
}

fn text((major, minor, patch): Version) -> String {
    format!("{major}.{minor}.{patch}")
}
