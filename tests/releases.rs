//! Clusters as each release left them, in `testdata/releases/VERSION`: this
//! version takes them over without moving an address, a home or a pin.
//!
//! A release freezes what it writes:
//! `FREEZE_RELEASE=1 cargo test --workspace --test releases` makes the folder of
//! the workspace's version, once. What a later version writes anew in such a
//! cluster stands in `STORY.changes`, which `UPDATE_GOLDEN=1` brings up to date;
//! read the difference, for each line is a write in every cluster that upgrades.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use l2lb::metallb::Capabilities;
use l2lb::plan::{Plan, Planner};
use l2lb::simulate::Cluster;
use l2lb::world::{Key, Kind, Options, Stored, World};
use l2lb::{manifest, render};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/releases")
}

/// What happened in a cluster, and with which MetalLB.
struct Story {
    name: &'static str,
    metallb: &'static str,
    tell: fn(&mut Told),
}

const STORIES: [Story; 3] = [
    Story {
        name: "shared-pool",
        metallb: "0.16.2",
        tell: everything,
    },
    Story {
        name: "own-pools",
        metallb: "0.15.2",
        tell: everything,
    },
    Story {
        name: "own-pools-upgraded",
        metallb: "0.14.9",
        tell: upgraded,
    },
];

/// A cluster with the manifests of its nodes, which a world keeps in part only.
struct Told {
    cluster: Cluster,
    planner: Planner,
    metallb: &'static str,
    nodes: Vec<Value>,
}

impl Told {
    fn of(story: &Story) -> Self {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let metallb = Capabilities::of_version(story.metallb).unwrap();
        let mut told = Self {
            cluster: Cluster::with_metallb(start, metallb),
            planner: Planner::default(),
            metallb: story.metallb,
            nodes: Vec::new(),
        };
        (story.tell)(&mut told);
        told
    }

    fn node(&mut self, name: &str, ready: bool, cordoned: bool) {
        let status = if ready { "True" } else { "False" };
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"unschedulable": cordoned},
            "status": {"conditions": [{"type": "Ready", "status": status,
                "lastTransitionTime": self.cluster.world.now}]}});
        self.nodes.retain(|n| n["metadata"]["name"] != name);
        self.nodes.push(node.clone());
        self.cluster.put(Kind::Node, node).unwrap();
    }

    fn node_leaves(&mut self, name: &str) {
        self.nodes.retain(|n| n["metadata"]["name"] != name);
        self.cluster.remove_node(name);
    }

    fn settle(&mut self) {
        self.cluster.settle(&mut self.planner).unwrap();
        self.cluster.advance(SignedDuration::from_mins(2));
        self.cluster.settle(&mut self.planner).unwrap();
    }

    /// Everything in the cluster, as an API server would hand it out.
    fn text(&self) -> String {
        fn valid<'a, K: Ord + 'a, T: kube::Resource + serde::Serialize + 'a>(
            all: &'a std::collections::BTreeMap<K, Stored<T>>,
        ) -> impl Iterator<Item = Value> + 'a {
            all.values().map(|s| json!(&**s.valid().unwrap()))
        }
        let world = &self.cluster.world;
        let children = world.children.values().flat_map(|slots| slots.values());
        let mut all = self.nodes.clone();
        all.extend(valid(&world.pools));
        all.extend(valid(&world.load_balancers));
        all.extend(children.clone().map(|child| {
            let mut service = json!(child.service);
            let ingress = child
                .allocated
                .iter()
                .map(|ip| json!({"ip": ip.to_string()}));
            service["status"]["loadBalancer"]["ingress"] = ingress.collect();
            service
        }));
        all.extend(valid(&world.ip_address_pools));
        all.extend(valid(&world.l2_advertisements));
        all.extend(valid(&world.dns_endpoints));
        all.extend(children.flat_map(|child| {
            let nodes = world.announcers(&child.key);
            nodes.map(|node| {
                json!({"apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status",
                    "metadata": {"namespace": "metallb-system",
                        "name": format!("l2-{}-{}", child.key.namespace, child.key.name),
                        "labels": {"metallb.io/node": node,
                            "metallb.io/service-name": child.key.name,
                            "metallb.io/service-namespace": child.key.namespace}}})
            })
        }));
        format!(
            "# metallb: {}\n# now: {}\n{}",
            self.metallb,
            world.now,
            manifest::to_yaml(&all).unwrap()
        )
    }
}

/// Each kind of slot: at home, handed over, failed over, retiring; in one
/// family and in both; with and without a record.
fn everything(told: &mut Told) {
    for node in ["a", "b", "c", "d", "e"] {
        told.node(node, true, false);
    }
    let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
        "metadata": {"name": "edge"}, "spec": {"dnsDomains": ["example.org"],
            "addresses": ["203.0.113.0/25", "2001:db8::/112"]}});
    told.cluster.put(Kind::AddressPool, pool).unwrap();
    let both = json!({"dns": {"hostname": "web.example.org"}, "addresses": ["203.0.113.77"],
        "service": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}});
    for (name, spec) in [
        ("web", both),
        ("few", json!({"maxNodes": 2})),
        ("plain", json!({})),
    ] {
        told.cluster
            .add_load_balancer(&Key::new("shop", name), "edge", &spec);
    }
    told.settle();
    told.node("b", true, true);
    told.node("c", false, false);
    told.settle();
    told.node_leaves("e");
    told.settle();
}

/// Slots that have pools of their own, under a MetalLB that came later.
fn upgraded(told: &mut Told) {
    everything(told);
    told.metallb = "0.16.2";
    let later = Capabilities::of_version(told.metallb).unwrap();
    told.cluster.install_metallb(later);
    told.settle();
}

/// A frozen cluster, read again.
fn frozen(file: &Path) -> World {
    let text = std::fs::read_to_string(file).unwrap();
    let head = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        line.unwrap_or_else(|| panic!("{} has no line {key}", file.display()))
            .to_owned()
    };
    let manifests = manifest::parse(&file.display().to_string(), &text).unwrap();
    let metallb = Capabilities::of_version(&head("# metallb: ")).unwrap();
    let now = head("# now: ").parse().unwrap();
    let read = render::world_of(manifests, now, Options::default(), metallb).unwrap();
    assert!(read.ignored.is_empty(), "{:?}", read.ignored);
    read.world
}

/// What a controller that starts beside the cluster writes.
fn taken_over(world: &World) -> Plan {
    let mut world = world.clone();
    let mut planner = Planner::default();
    planner.plan(&world);
    world.set_evenness(planner.evenness());
    planner.plan(&world)
}

fn changes(plan: &Plan) -> String {
    plan.changes.iter().fold(String::new(), |mut text, change| {
        let verb = change.action.verb();
        writeln!(text, "{verb} {}", change.object).unwrap();
        text
    })
}

/// Service, home, pin and addresses of each slot.
type Slots = Vec<(String, String, String, Vec<IpAddr>)>;

fn stored(world: &World) -> Slots {
    let children = world.children.values().flat_map(|slots| slots.values());
    children
        .map(|c| {
            (
                c.key.to_string(),
                c.home.clone(),
                c.pin.clone(),
                c.addresses.clone(),
            )
        })
        .collect()
}

fn planned(plan: &Plan) -> Slots {
    let slots = plan.load_balancers.iter().flat_map(|(key, lb)| {
        lb.slots.iter().map(move |s| {
            let mut addresses = s.addresses.clone();
            addresses.sort_unstable();
            let service = format!("{key}-{}", s.number);
            (service, s.home.clone(), s.pin.clone(), addresses)
        })
    });
    slots.collect()
}

#[test]
fn what_earlier_releases_left_is_taken_over_as_it_is() {
    let version = root().join(env!("CARGO_PKG_VERSION"));
    if std::env::var_os("FREEZE_RELEASE").is_some() {
        assert!(
            !version.exists(),
            "{} is frozen: a release is frozen once",
            version.display()
        );
        std::fs::create_dir_all(&version).unwrap();
        for story in &STORIES {
            let file = version.join(story.name).with_extension("yaml");
            std::fs::write(file, Told::of(story).text()).unwrap();
        }
    }
    let mut count = 0;
    for release in std::fs::read_dir(root()).unwrap() {
        for file in std::fs::read_dir(release.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            count += 1;
            let world = frozen(&file);
            let before = stored(&world);
            assert!(before.len() >= 10, "{} slots", before.len());
            let plan = taken_over(&world);
            let mut after = planned(&plan);
            after.sort();
            let mut wanted = before.clone();
            wanted.sort();
            assert_eq!(after, wanted, "{}: something moved", file.display());
            let services = plan
                .changes
                .iter()
                .filter(|c| c.object.kind == Kind::Service);
            for change in services {
                assert!(
                    !matches!(change.action.verb(), "create" | "delete"),
                    "{}: {} is made anew or goes",
                    file.display(),
                    change.object
                );
            }
            let (told, expected) = (changes(&plan), file.with_extension("changes"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&expected, &told).unwrap();
            }
            let expected = std::fs::read_to_string(&expected).unwrap_or_default();
            assert_eq!(told, expected, "{}", file.display());
        }
    }
    assert!(count >= STORIES.len(), "only {count} clusters were found");
}

/// The stories have in them what they are for.
#[test]
fn each_phase_is_in_the_stories() {
    for story in &STORIES {
        let text = Told::of(story).text();
        for phase in ["Announced", "Draining", "FailedOver", "Retiring"] {
            let line = format!("phase: {phase}");
            assert!(text.contains(&line), "{}: no {phase}", story.name);
        }
        let own = text.contains("name: l2lb.shop.");
        assert_eq!(own, story.name.starts_with("own"), "{}", story.name);
    }
}
