#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::{L2LoadBalancerStatus, SlotPhase};
use crate::metallb::{Capabilities, election};
use crate::plan::{Plan, Planner};
use crate::simulate::Cluster;
use crate::world::{Key, Kind, ObjectRef, Stored};

const NODES: [&str; 3] = ["a", "b", "c"];

fn start() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

fn metallb(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef {
        kind,
        key: Key::new("metallb-system", name),
    }
}

/// Three nodes with speakers, a pool and a load balancer, at rest.
struct Stage {
    cluster: Cluster,
    planner: Planner,
}

impl Stage {
    fn set(pool: Value, service: Value) -> Self {
        let mut stage = Self {
            cluster: Cluster::new(start()),
            planner: Planner::default(),
        };
        for node in NODES {
            stage.cluster.add_node(node, &[]);
            stage.speaker(node);
        }
        stage.pool(pool);
        let spec = json!({ "service": service });
        stage
            .cluster
            .add_load_balancer(&Key::new("shop", "web"), "edge", &spec);
        stage.settle();
        assert_eq!(stage.reason("Pinned"), "Ok");
        stage
    }

    /// Starts a node's speaker, or starts it anew.
    fn speaker(&mut self, node: &str) {
        let memberlist = json!([{"name": "METALLB_ML_BIND_ADDR", "value": "192.0.2.1"}]);
        self.speaker_with(node, &memberlist);
    }

    fn speaker_with(&mut self, node: &str, environment: &Value) {
        let now = self.cluster.world.now;
        let pod = json!({
            "metadata": {"name": format!("speaker-{node}"), "namespace": "metallb-system",
                "labels": {"app.kubernetes.io/component": "speaker"}},
            "spec": {"nodeName": node, "containers": [{"name": "speaker", "image": "speaker:v0.16.1",
                "env": environment}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "speaker", "image": "",
                "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": now}}}]},
        });
        self.cluster.put(Kind::Pod, pod).unwrap();
    }

    fn stop_speaker(&mut self, node: &str) {
        let pod = metallb(Kind::Pod, &format!("speaker-{node}"));
        self.cluster.world.forget(&pod);
    }

    fn pool(&mut self, more: Value) {
        let mut spec = json!({"addresses": ["192.0.2.100-192.0.2.120"]});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge", "finalizers": ["l2lb.io/addresses-in-use"]},
            "spec": spec});
        self.cluster.put(Kind::AddressPool, pool).unwrap();
    }

    fn settle(&mut self) {
        self.cluster.settle(&mut self.planner).unwrap();
    }

    /// Plans and writes, without MetalLB.
    fn step(&mut self) -> Plan {
        let mut last = self.planner.plan(&self.cluster.world);
        for _ in 0..10 {
            if last.changes.is_empty() {
                return last;
            }
            for change in &last.changes {
                self.cluster.apply(change);
            }
            last = self.planner.plan(&self.cluster.world);
        }
        panic!("not at rest: {:?}", last.changes)
    }

    fn wait(&mut self, time: SignedDuration) {
        self.cluster.advance(time);
        self.settle();
    }

    fn status(&self) -> L2LoadBalancerStatus {
        let key = Key::new("shop", "web");
        let stored = &self.cluster.world.load_balancers[&key];
        stored.valid().unwrap().status.clone().unwrap()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let status = self.status();
        let found = status.conditions.iter().find(|c| c.type_ == kind).unwrap();
        (found.reason.clone(), found.message.clone())
    }

    fn reason(&self, kind: &str) -> String {
        self.condition(kind).0
    }

    /// The Service of a home.
    fn service(&self, home: &str) -> Key {
        let slots = self.status().slots;
        let slot = slots.iter().find(|s| s.node == home).unwrap();
        Key::new("shop", slot.service.clone())
    }

    fn pin(&self, home: &str) -> String {
        let service = self.service(home);
        self.cluster.world.child(&service).unwrap().pin.clone()
    }

    /// The speaker of a node says that it cannot announce the slot of a home.
    fn event(&mut self, home: &str, node: &str) {
        let service = self.service(home);
        let event = json!({
            "metadata": {"name": format!("{}.{node}", service.name), "namespace": "shop"},
            "reason": "announceFailed", "lastTimestamp": self.cluster.world.now,
            "involvedObject": {"kind": "Service", "namespace": "shop", "name": service.name},
            "message": format!("the interfaces specified by LB IP \"192.0.2.100\" doesn't exist \
                in assigned node \"{node}\" with protocol \"layer2\""),
        });
        self.cluster.put(Kind::Event, event).unwrap();
    }

    /// A node reports to announce the slot of a home.
    fn announced(&mut self, home: &str, node: &str) {
        let service = self.service(home);
        let status = json!({"metadata": {"name": format!("l2-shop-{}", service.name),
            "namespace": "metallb-system", "labels": {"metallb.io/node": node,
                "metallb.io/service-name": service.name, "metallb.io/service-namespace": "shop"}}});
        self.cluster.put(Kind::ServiceL2Status, status).unwrap();
    }

    /// A home that does not win by the hash alone, and who does.
    fn loser(&self) -> (String, String) {
        let slots = self.status().slots;
        slots
            .iter()
            .map(|s| {
                (
                    s.node.clone(),
                    election::winner(&s.addresses[0], NODES).unwrap().to_owned(),
                )
            })
            .find(|(home, winner)| home != winner)
            .expect("the hash agrees with every home")
    }

    fn records(&self) -> usize {
        let pool = self.cluster.world.pools["edge"].valid().unwrap();
        pool.status.as_ref().unwrap().missing_interfaces.len()
    }
}

fn plain() -> Stage {
    Stage::set(json!({}), json!({}))
}

#[test]
fn without_memberlist_old_speakers_announce_nothing() {
    for (version, announces) in [("0.14.9", false), ("0.15.2", true)] {
        let capabilities = Capabilities::of_version(version).unwrap();
        let mut stage = Stage {
            cluster: Cluster::with_metallb(start(), capabilities),
            planner: Planner::default(),
        };
        for node in NODES {
            stage.cluster.add_node(node, &[]);
            stage.speaker_with(node, &json!([]));
        }
        stage.pool(json!({}));
        let key = Key::new("shop", "web");
        stage.cluster.add_load_balancer(&key, "edge", &json!({}));
        stage.settle();
        assert_eq!(stage.status().slots.len(), 3);
        let (reason, message) = stage.condition("Ready");
        if announces {
            assert_eq!(reason, "Ok", "{version}: {message}");
        } else {
            assert_eq!(reason, "NotAnnounced", "{version}: {message}");
            assert!(message.contains("runs without memberlist"), "{message}");
            assert_eq!(stage.reason("Pinned"), "MemberlistOff");
        }
    }
}

#[test]
fn a_home_without_a_speaker_is_lost_and_comes_back() {
    let mut stage = plain();
    stage.stop_speaker("b");
    stage.wait(seconds(9));
    assert_eq!(stage.pin("b"), "b");
    stage.wait(seconds(1));
    assert_ne!(stage.pin("b"), "b");
    let (reason, message) = stage.condition("Pinned");
    assert_eq!(reason, "SpeakerMissing");
    assert!(
        message.contains("no MetalLB speaker runs on node b"),
        "{message}"
    );
    assert_eq!(stage.reason("Ready"), "Ok");
    // Nobody hands anything to it either.
    assert!(["a", "c"].iter().all(|home| stage.pin(home) == *home));

    stage.speaker("b");
    stage.wait(seconds(9));
    assert_ne!(stage.pin("b"), "b");
    stage.wait(seconds(1));
    assert_eq!(stage.pin("b"), "b");
    assert_eq!(stage.reason("Pinned"), "Ok");
}

#[test]
fn the_deadline_of_the_grace_is_planned_for() {
    let mut stage = plain();
    stage.stop_speaker("b");
    let plan = stage.planner.plan(&stage.cluster.world);
    assert_eq!(
        plan.next_deadline,
        Some(stage.cluster.world.now + seconds(10))
    );
}

#[test]
fn a_rolling_update_moves_no_pin() {
    let mut stage = plain();
    let services = stage.cluster.writes.get(&Kind::Service).copied();
    for node in NODES {
        stage.stop_speaker(node);
        stage.wait(seconds(8));
        stage.speaker(node);
        stage.wait(seconds(20));
    }
    assert_eq!(stage.cluster.writes.get(&Kind::Service).copied(), services);
    assert_eq!(stage.reason("Pinned"), "Ok");
}

#[test]
fn nothing_follows_when_no_speaker_can_be_seen() {
    let mut stage = plain();
    for node in NODES {
        stage.stop_speaker(node);
    }
    stage.wait(seconds(60));
    assert!(NODES.iter().all(|home| stage.pin(home) == *home));
    assert_eq!(stage.reason("Pinned"), "Ok");
}

#[test]
fn a_node_without_the_interface_is_lost_until_its_speaker_starts_anew() {
    let mut stage = Stage::set(json!({"interfaces": ["eth1"]}), json!({}));
    stage.cluster.advance(seconds(60));
    stage.event("b", "b");
    stage.settle();
    assert_ne!(stage.pin("b"), "b");
    let (reason, message) = stage.condition("Pinned");
    assert_eq!(reason, "InterfaceMissing");
    assert!(
        message.contains("node b has no interface eth1"),
        "{message}"
    );
    assert_eq!(stage.reason("Ready"), "Ok");

    // The event ends after an hour, the controller starts anew: it stays so.
    let service = stage.service("b");
    stage.cluster.world.forget(&ObjectRef {
        kind: Kind::Event,
        key: Key::new("shop", format!("{}.b", service.name)),
    });
    stage.planner = Planner::default();
    let writes = stage.cluster.writes.clone();
    stage.wait(seconds(3600 * 2));
    assert_eq!(stage.cluster.writes, writes);
    assert_eq!(
        (stage.records(), stage.reason("Pinned").as_str()),
        (1, "InterfaceMissing")
    );

    stage.speaker("b");
    stage.settle();
    assert_ne!(stage.pin("b"), "b");
    stage.wait(seconds(10));
    assert_eq!(stage.pin("b"), "b");
    assert_eq!(
        (stage.records(), stage.reason("Pinned").as_str()),
        (0, "Ok")
    );
}

#[test]
fn it_is_tried_again_after_a_day() {
    let mut stage = Stage::set(json!({"interfaces": ["eth1"]}), json!({}));
    stage.cluster.advance(seconds(60));
    stage.event("b", "b");
    stage.settle();
    stage.wait(seconds(3600 * 24 - 1));
    assert_ne!(stage.pin("b"), "b");
    stage.wait(seconds(1));
    assert_eq!(stage.pin("b"), "b");
}

#[test]
fn other_interfaces_are_another_matter() {
    let mut stage = Stage::set(json!({"interfaces": ["eht1"]}), json!({}));
    stage.cluster.advance(seconds(60));
    // A misspelt name: nobody has it.
    for node in NODES {
        stage.event("a", node);
    }
    let plan = stage.step();
    // They say it again and again, which is not recorded each time.
    stage.cluster.advance(seconds(60));
    for node in NODES {
        stage.event("a", node);
    }
    stage.step();
    let lb = plan.load_balancers.values().next().unwrap();
    assert!(
        lb.slots.iter().all(|s| s.phase == SlotPhase::Pending),
        "{:?}",
        lb.slots
    );
    assert_eq!(stage.reason("Ready"), "NotAnnounced");
    assert_eq!(stage.reason("Pinned"), "InterfaceMissing");
    stage.pool(json!({"interfaces": ["eth1"]}));
    stage.settle();
    assert!(NODES.iter().all(|home| stage.pin(home) == *home));
    assert_eq!(stage.reason("Ready"), "Ok");
    // The old events are still there.
    let writes = stage.cluster.writes.clone();
    stage.wait(seconds(30));
    assert_eq!(stage.cluster.writes, writes);
    // What is said of the new ones is news.
    stage.event("b", "b");
    stage.settle();
    assert_ne!(stage.pin("b"), "b");
}

#[test]
fn who_announces_has_the_interface() {
    let mut stage = Stage::set(json!({"interfaces": ["eth1"]}), json!({}));
    stage.cluster.advance(seconds(60));
    for node in NODES {
        stage.event("a", node);
        stage.cluster.advance(seconds(2));
    }
    stage.step();
    let stays = stage.pin("a");
    stage.announced(
        "a",
        NODES[(NODES.iter().position(|n| *n == stays).unwrap() + 1) % 3],
    );
    stage.announced("a", &stays);
    stage.step();
    let Stored::Valid(pool) = &stage.cluster.world.pools["edge"] else {
        panic!("unreadable")
    };
    let records = &pool.status.as_ref().unwrap().missing_interfaces;
    let cleared = records.iter().find(|r| r.node == stays).unwrap();
    assert!(cleared.interfaces.is_empty(), "{records:?}");
}

#[test]
fn events_about_pools_without_interfaces_mean_nothing() {
    let mut stage = plain();
    stage.cluster.advance(seconds(60));
    stage.event("b", "b");
    let writes = stage.cluster.writes.clone();
    stage.settle();
    assert_eq!(stage.cluster.writes, writes);
}

#[test]
fn speakers_older_than_the_definitions_are_named() {
    let mut stage = plain();
    let (home, winner) = stage.loser();
    stage.cluster.advance(seconds(600));
    stage.announced(&home, &winner);
    stage.step();
    assert_eq!(stage.reason("Pinned"), "FailedOver");
    stage.cluster.advance(seconds(59));
    stage.step();
    assert_eq!(stage.reason("Pinned"), "FailedOver");
    stage.cluster.advance(seconds(1));
    stage.step();
    let (reason, message) = stage.condition("Pinned");
    assert_eq!(reason, "SpeakersTooOld");
    assert!(message.contains("speaker:v0.16.1"), "{message}");
    assert_eq!(stage.reason("Ready"), "Ok");

    // A restart of the controller writes nothing.
    let again = stage.cluster.world.clone();
    assert!(Planner::default().plan(&again).changes.is_empty());

    // A foreign weight explains it as well, and comes first.
    stage
        .cluster
        .put(
            Kind::L2Advertisement,
            json!({"apiVersion": "metallb.io/v1beta1",
            "kind": "L2Advertisement", "metadata": {"name": "all", "namespace": "metallb-system"},
            "spec": {"preferredNodeSelectors": [{"weight": 100, "preference":
                {"matchLabels": {"kubernetes.io/hostname": winner}}}]}}),
        )
        .unwrap();
    stage.step();
    assert_eq!(stage.reason("Pinned"), "ConflictingAdvertisement");
}

#[test]
fn others_are_not_taken_for_old_speakers() {
    // Not the winner by the hash.
    let mut stage = plain();
    let (home, winner) = stage.loser();
    let third = NODES.iter().find(|n| **n != home && **n != winner).unwrap();
    stage.announced(&home, third);
    stage.step();
    stage.cluster.advance(seconds(300));
    stage.step();
    assert_eq!(stage.reason("Pinned"), "FailedOver");
    // Home's speaker has gone a moment ago.
    let mut stage = plain();
    let (home, winner) = stage.loser();
    stage.announced(&home, &winner);
    stage.step();
    stage.cluster.advance(seconds(300));
    stage.stop_speaker(&home);
    stage.step();
    assert_eq!(stage.reason("Pinned"), "FailedOver");
}

#[test]
fn a_home_without_pods_is_not_to_blame() {
    let mut stage = Stage::set(json!({}), json!({"externalTrafficPolicy": "Local"}));
    let (home, winner) = stage.loser();
    stage.announced(&home, &winner);
    stage.step();
    stage.cluster.advance(seconds(5));
    stage.step();
    let (reason, message) = stage.condition("Pinned");
    assert_eq!(reason, "NoLocalEndpoint");
    assert!(message.contains("with a ready pod"), "{message}");
    assert_eq!(
        (stage.reason("Ready").as_str(), stage.pin(&home)),
        ("Ok", home.clone())
    );
    let writes = stage.cluster.writes.clone();
    stage.cluster.advance(seconds(3600));
    stage.step();
    assert_eq!(stage.cluster.writes, writes);
}
