//! MetalLB's speakers: on which nodes one runs, and what it said it cannot do.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Event, Pod};

use super::{Key, Node, World};

/// How long a speaker may be away before its node counts as lost: longer than
/// memberlist needs to find out and to elect another (5.7 to 6.8 s), so that
/// the pin follows whoever was elected, and than a restart takes, which then
/// moves no pin.
pub const SPEAKER_GRACE: SignedDuration = SignedDuration::from_secs(10);

/// A speaker's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// Its node.
    pub node: String,
    /// Its program runs and was not asked to end.
    pub running: bool,
    /// Since when it is running, or not: the start of its program, or the
    /// change that the controller itself saw.
    pub since: Option<Timestamp>,
    /// When its program was started last.
    pub started: Option<Timestamp>,
    /// The image that it runs.
    pub image: String,
    /// The class of Services that it serves (`--lb-class`); empty: those without one.
    pub load_balancer_class: String,
    /// It finds dead nodes by itself.
    pub memberlist: bool,
    /// It speaks BGP itself, and not through FRR.
    pub native_bgp: bool,
}

impl Speaker {
    /// From this version on a speaker's ServiceL2Status can be believed.
    const REPORTS: Version = (0, 16, 0);

    /// The version by its image's tag, where that is one.
    pub fn version(&self) -> Option<Version> {
        version_of(&self.image)
    }

    /// Reads a pod; `None` when it is no speaker, or has no node yet.
    pub fn read(pod: &Pod, previous: Option<&Self>, now: Timestamp) -> Option<Self> {
        let labels = pod.metadata.labels.as_ref()?;
        // The chart's label, and that of MetalLB's manifests and operator.
        ["app.kubernetes.io/component", "component"]
            .iter()
            .find(|key| labels.get(**key).is_some_and(|v| v == "speaker"))?;
        let spec = pod.spec.as_ref()?;
        let node = spec.node_name.clone().filter(|n| !n.is_empty())?;
        let status = pod.status.as_ref();
        let container = spec
            .containers
            .iter()
            .find(|c| c.name == "speaker")
            .or(spec.containers.first());
        let state = status
            .and_then(|s| s.container_statuses.as_ref())
            .and_then(|all| {
                all.iter()
                    .find(|s| container.is_some_and(|c| c.name == s.name))
            });
        let phase = status.and_then(|s| s.phase.as_deref());
        let running = pod.metadata.deletion_timestamp.is_none()
            && match state {
                Some(state) => is_running(state),
                None => phase == Some("Running"),
            };
        let started = state
            .and_then(|s| s.state.as_ref()?.running.as_ref()?.started_at.as_ref())
            .or(status.and_then(|s| s.start_time.as_ref()))
            .map(|t| t.0);
        // By the node's own clock, which may be ahead.
        let before = previous.filter(|before| before.running == running);
        let before = before.and_then(|before| before.started);
        let started = started.map(|at| if at > now { before.unwrap_or(now) } else { at });
        let since = match previous {
            Some(before) if before.running == running => before.since.max(started),
            Some(_) => Some(now),
            None if running => started,
            None => pod
                .metadata
                .deletion_timestamp
                .as_ref()
                .map(|t| t.0.min(now)),
        };
        Some(Self {
            node,
            running,
            since,
            started,
            image: container.and_then(|c| c.image.clone()).unwrap_or_default(),
            load_balancer_class: container
                .and_then(|c| argument(c, "--lb-class="))
                .unwrap_or_default(),
            memberlist: container.is_some_and(has_memberlist),
            native_bgp: container.is_none_or(has_native_bgp),
        })
    }
}

/// A version as MetalLB's images carry it.
pub type Version = (u32, u32, u32);

/// The version in an image's tag.
pub fn version_of(image: &str) -> Option<Version> {
    let (_, tag) = image.split('@').next()?.rsplit_once(':')?;
    let tag = tag.trim_start_matches('v');
    let end = tag
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(tag.len());
    let mut parts = tag[..end].split('.').map(|p| p.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn is_running(state: &ContainerStatus) -> bool {
    state.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn argument(container: &Container, flag: &str) -> Option<String> {
    container
        .args
        .iter()
        .flatten()
        .find_map(|a| a.strip_prefix(flag))
        .map(str::to_owned)
}

/// The speaker starts it when it is told an address to bind to.
fn has_memberlist(container: &Container) -> bool {
    let bound = |v: &k8s_openapi::api::core::v1::EnvVar| {
        v.name == "METALLB_ML_BIND_ADDR"
            && (v.value_from.is_some() || v.value.as_ref().is_some_and(|v| !v.is_empty()))
    };
    container.env.iter().flatten().any(bound) || argument(container, "--ml-bindaddr=").is_some()
}

/// It does unless it is told otherwise.
fn has_native_bgp(container: &Container) -> bool {
    let mut variables = container.env.iter().flatten();
    let mode = variables.find(|v| v.name == "METALLB_BGP_TYPE");
    mode.and_then(|v| v.value.as_deref())
        .is_none_or(|mode| mode == "native")
}

/// What is known of the speaker of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeakerState<'a> {
    /// No speaker is seen on any node: its pods may not be read, or carry
    /// other labels. Nothing follows from that.
    Unknown,
    /// It runs.
    Running(&'a Speaker),
    /// There is none, or it does not run, since then.
    Away(Option<Timestamp>),
}

/// Every speaker that is seen.
#[derive(Clone, Debug, Default)]
pub struct Speakers {
    pods: BTreeMap<String, Speaker>,
    /// When a node's last speaker went.
    left: BTreeMap<String, Timestamp>,
}

impl Speakers {
    /// Takes in a pod of MetalLB's; returns whether anything changed.
    pub(super) fn observe(&mut self, pod: &Pod, now: Timestamp) -> bool {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let known = self.pods.get(&name);
        match Speaker::read(pod, known, now) {
            Some(read) if known == Some(&read) => false,
            Some(read) => {
                self.pods.insert(name, read);
                true
            }
            None => self.forget(&name, now),
        }
    }

    /// Takes out a pod; returns whether it was a speaker.
    pub(super) fn forget(&mut self, name: &str, now: Timestamp) -> bool {
        let Some(gone) = self.pods.remove(name) else {
            return false;
        };
        // One that was asked to end has been away since then.
        let since = if gone.running { None } else { gone.since };
        self.left.insert(gone.node, since.unwrap_or(now));
        true
    }

    /// What is known of the speaker of a node.
    pub fn on(&self, node: &str) -> SpeakerState<'_> {
        if self.pods.is_empty() {
            return SpeakerState::Unknown;
        }
        let here = || self.pods.values().filter(|s| s.node == node);
        match here().find(|s| s.running) {
            Some(speaker) => SpeakerState::Running(speaker),
            None => SpeakerState::Away(
                here()
                    .map(|s| s.since)
                    .max()
                    .unwrap_or_else(|| self.left.get(node).copied()),
            ),
        }
    }

    /// The speakers that run.
    pub fn running(&self) -> impl Iterator<Item = &Speaker> {
        self.pods.values().filter(|s| s.running)
    }

    /// Since when a node counts as lost because no speaker runs on it, or
    /// from when on it will.
    pub fn lost_at(&self, node: &Node) -> Option<Timestamp> {
        let SpeakerState::Away(since) = self.on(&node.name) else {
            return None;
        };
        // A node that has just joined or come back gets its speaker in a moment.
        let since = since.max(node.since).max(node.created);
        // Without memberlist nobody else moves the address.
        let grace = if self.pods.values().any(|s| s.memberlist) {
            SPEAKER_GRACE
        } else {
            SignedDuration::ZERO
        };
        let since = since.unwrap_or(Timestamp::MIN);
        Some(since.checked_add(grace).unwrap_or(since))
    }

    /// Forgets when the speakers of nodes went that are no more.
    pub(super) fn forget_node(&mut self, node: &str) {
        self.left.remove(node);
    }
}

/// A speaker was elected for an address and has none of the interfaces that
/// the advertisements name: it does not announce, and nobody else does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFailure {
    /// The Service whose address is dark.
    pub service: Key,
    /// The node.
    pub node: String,
    /// When the speaker said so last, to the second.
    pub at: Timestamp,
}

/// The reason of the events that [`InterfaceFailure::read`] understands.
pub const ANNOUNCE_FAILED: &str = "announceFailed";

impl InterfaceFailure {
    /// Reads an event of MetalLB's, whose message names the node:
    /// `... doesn't exist in assigned node "NODE" with protocol "layer2"`.
    pub fn read(event: &Event) -> Option<Self> {
        let about = &event.involved_object;
        if event.reason.as_deref() != Some(ANNOUNCE_FAILED)
            || about.kind.as_deref() != Some("Service")
        {
            return None;
        }
        let (_, rest) = event
            .message
            .as_deref()?
            .split_once("in assigned node \"")?;
        let (node, _) = rest.split_once('"')?;
        let at = event
            .last_timestamp
            .as_ref()
            .or(event.first_timestamp.as_ref())
            .map(|t| t.0)
            .or(event.event_time.as_ref().map(|t| t.0))?;
        Some(Self {
            service: Key::new(
                about.namespace.clone().unwrap_or_default(),
                about.name.clone().unwrap_or_default(),
            ),
            node: node.to_owned(),
            at,
        })
    }
}

impl World {
    /// Whether the speakers say what they announce, and can be believed. While
    /// MetalLB is upgraded its definitions know ServiceL2Status and some
    /// speakers do not yet: nothing follows then from what is not said.
    pub fn reports_announcers(&self) -> bool {
        let is_old = |s: &Speaker| s.version().is_some_and(|v| v < Speaker::REPORTS);
        self.capabilities.reports_announcers() && !self.speakers.running().any(is_old)
    }

    /// Whether MetalLB's BGP may be the native one: unless every speaker that
    /// runs says otherwise.
    pub fn bgp_may_be_native(&self) -> bool {
        let mut running = self.speakers.running().peekable();
        running.peek().is_none() || running.any(|s| s.native_bgp)
    }

    /// The classes of Services that the running speakers serve, sorted.
    pub fn served_classes(&self) -> Vec<&str> {
        let mut classes: Vec<&str> = self
            .speakers
            .running()
            .map(|s| s.load_balancer_class.as_str())
            .collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn versions_are_in_tags() {
        assert_eq!(
            version_of("quay.io/metallb/speaker:v0.16.2"),
            Some((0, 16, 2))
        );
        assert_eq!(
            version_of("host:5000/speaker:0.14.9-debian@sha256:00"),
            Some((0, 14, 9))
        );
        assert_eq!(version_of("host:5000/speaker"), None);
        assert_eq!(version_of("speaker:latest"), None);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str, node: &str, running: bool) -> Pod {
        let state = if running {
            json!({"running": {"startedAt": "1970-01-01T00:00:10Z"}})
        } else {
            json!({"waiting": {"reason": "CrashLoopBackOff"}})
        };
        read(json!({
            "metadata": {"name": name, "labels": {"app.kubernetes.io/component": "speaker"}},
            "spec": {"nodeName": node, "containers": [{
                "name": "speaker", "image": "speaker:v1", "args": ["--port=1", "--lb-class=edge"],
                "env": [{"name": "METALLB_ML_BIND_ADDR", "value": "192.0.2.1"}],
            }]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "speaker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": state,
            }]},
        }))
    }

    fn read(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn pods_of_chart_and_manifests_are_speakers() {
        let chart = Speaker::read(&pod("a", "n", true), None, at(20)).unwrap();
        assert!(chart.running && chart.memberlist);
        assert_eq!(
            (chart.load_balancer_class.as_str(), chart.since),
            ("edge", Some(at(10)))
        );
        let mut manifests = pod("a", "n", true);
        manifests.metadata.labels = Some([("component".into(), "speaker".into())].into());
        assert!(Speaker::read(&manifests, None, at(20)).is_some());
        manifests.metadata.labels = Some([("component".into(), "controller".into())].into());
        assert!(Speaker::read(&manifests, None, at(20)).is_none());
    }

    #[test]
    fn nothing_follows_from_no_speaker_at_all() {
        let mut speakers = Speakers::default();
        assert_eq!(speakers.on("n"), SpeakerState::Unknown);
        speakers.observe(&pod("a", "n", true), at(20));
        assert!(matches!(speakers.on("n"), SpeakerState::Running(_)));
        assert_eq!(speakers.on("m"), SpeakerState::Away(None));
        speakers.forget("a", at(30));
        assert_eq!(speakers.on("n"), SpeakerState::Unknown);
    }

    #[test]
    fn a_restart_is_shorter_than_the_grace() {
        let node = Node {
            name: "n".into(),
            ..Node::default()
        };
        let mut speakers = Speakers::default();
        speakers.observe(&pod("other", "m", true), at(20));
        speakers.observe(&pod("a", "n", true), at(20));
        assert_eq!(speakers.lost_at(&node), None);
        speakers.observe(&pod("a", "n", false), at(30));
        assert_eq!(speakers.lost_at(&node), Some(at(30) + SPEAKER_GRACE));
        // Gone altogether, it has been away since it stopped.
        speakers.forget("a", at(35));
        assert_eq!(speakers.lost_at(&node), Some(at(30) + SPEAKER_GRACE));
        speakers.observe(&pod("b", "n", true), at(36));
        assert_eq!(speakers.lost_at(&node), None);
    }

    #[test]
    fn the_event_names_node_and_service() {
        let event = |reason: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {"name": "x"}, "reason": reason,
                "involvedObject": {"kind": "Service", "namespace": "shop", "name": "web-0"},
                "message": "the interfaces specified by LB IP \"192.0.2.1\" doesn't exist in \
                    assigned node \"node-1\" with protocol \"layer2\"",
                "lastTimestamp": "1970-01-01T00:00:10Z",
            }))
            .unwrap()
        };
        assert_eq!(
            InterfaceFailure::read(&event(ANNOUNCE_FAILED)).unwrap(),
            InterfaceFailure {
                service: Key::new("shop", "web-0"),
                node: "node-1".into(),
                at: at(10),
            }
        );
        assert_eq!(InterfaceFailure::read(&event("nodeAssigned")), None);
    }
}
