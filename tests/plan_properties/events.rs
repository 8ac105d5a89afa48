//! What happens to a cluster in a random history, and how such a history prints
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use l2lb::metallb::Capabilities;
use l2lb::simulate::Cluster;
use l2lb::simulate::event::{self, DEFAULT_POOL, Labelled, Occupant, Pool, ServiceType};
use l2lb::world::{Key, Kind};
use l2lb_lab::METALLB_VERSIONS;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
pub enum Event {
    Join(u8),
    Leave(u8),
    Ready(u8, bool),
    Cordon(u8, bool),
    Label(u8, bool),
    Create(Order),
    Delete(u8),
    Wait(u32),
    /// The pool has these addresses and exclusions from now on.
    Pool {
        ranges: u8,
        excluded: u8,
    },
    /// A load balancer asks for every address that others name, with a pool that
    /// does not exist.
    Squat,
    /// A Service that is not ours has addresses, or asks for them.
    Occupy {
        service: u8,
        addresses: BTreeSet<u8>,
        asks: bool,
        kind: ServiceType,
    },
    Vacate(u8),
    /// The application of a load balancer has ready pods on these nodes.
    Endpoints(u8, BTreeSet<u8>),
    /// Another MetalLB's resource definitions are installed.
    Definitions(u8),
    /// The MetalLB that belongs to the definitions runs.
    Rollout,
}

/// A load balancer.
#[derive(Clone, Debug)]
pub struct Order {
    name: u8,
    max_nodes: Option<u8>,
    everywhere: bool,
    dual: bool,
    local: bool,
    /// Its `spec.addresses`.
    pinned: BTreeSet<u8>,
}

/// What the pool may consist of. Whatever is in use or reserved, a history has
/// fewer events than would exhaust the smallest of these, at seven addresses for
/// each: so no slot is ever missing for want of an address.
const RANGES: [&[&str]; 4] = [
    &["10.0.0.0/22", "2001:db8::/64"],
    &["10.0.0.0/23", "2001:db8::/65"],
    &["10.0.2.0/23", "2001:db8:0:0:8000::/65"],
    &["10.0.1.0-10.0.2.255", "2001:db8::/64"],
];

/// What it may leave out.
const EXCLUDED: [&[&str]; 4] = [
    &[],
    &["10.0.0.0/29", "10.0.2.0-10.0.2.3"],
    &["10.0.0.9", "10.0.1.0/25", "2001:db8::/126"],
    &["10.0.2.0/25", "2001:db8:0:0:8000::/120"],
];

/// How many addresses are named by load balancers and held by others.
const NAMED: u8 = 24;

/// One of the addresses that load balancers name and others hold: those that
/// are given out first, and some that no pool has.
fn address(n: u8) -> IpAddr {
    let text = match n {
        0..8 => format!("10.0.0.{n}"),
        8..16 => format!("10.0.2.{}", n - 8),
        16..20 => format!("2001:db8::{}", n - 16),
        _ => format!("10.9.0.{n}"),
    };
    text.parse().unwrap()
}

fn texts(addresses: &BTreeSet<u8>) -> Vec<String> {
    addresses.iter().map(|n| address(*n).to_string()).collect()
}

/// One of the versions of MetalLB that differ in what matters here.
pub fn version(n: u8) -> Capabilities {
    Capabilities::of_version(METALLB_VERSIONS[usize::from(n)]).unwrap()
}

pub fn node(n: u8) -> String {
    format!("node-{n}")
}

pub fn key(n: u8) -> Key {
    Key::new("shop", format!("lb-{n}"))
}

/// A Service that is not ours.
fn foreign(n: u8) -> Key {
    Key::new("others", format!("service-{n}"))
}

fn labelled(n: u8, role: &str) -> Labelled {
    Labelled {
        node: node(n),
        labels: BTreeMap::from([("role".to_owned(), role.to_owned())]),
    }
}

impl Order {
    /// What its spec has besides the minimum.
    fn spec(&self) -> Map<String, Value> {
        let (mut spec, mut service) = (Map::new(), Map::new());
        if let Some(max) = self.max_nodes {
            spec.insert("maxNodes".to_owned(), json!(max));
        }
        if !self.everywhere {
            let selector = json!({"matchLabels": {"role": "edge"}});
            spec.insert("nodeSelector".to_owned(), selector);
        }
        if !self.pinned.is_empty() {
            spec.insert("addresses".to_owned(), json!(texts(&self.pinned)));
        }
        if self.dual {
            let policy = json!("RequireDualStack");
            service.insert("ipFamilyPolicy".to_owned(), policy);
        }
        if self.local {
            let policy = json!("Local");
            service.insert("externalTrafficPolicy".to_owned(), policy);
        }
        if !service.is_empty() {
            spec.insert("service".to_owned(), Value::Object(service));
        }
        spec
    }
}

/// The pool's spec.
fn pool(ranges: u8, excluded: u8) -> Map<String, Value> {
    let (ranges, excluded) = (usize::from(ranges), usize::from(excluded));
    let mut spec = Map::new();
    spec.insert("addresses".to_owned(), json!(RANGES[ranges]));
    spec.insert("excludedAddresses".to_owned(), json!(EXCLUDED[excluded]));
    spec
}

impl Event {
    /// The same as the simulation knows it; nothing for what it does not, as
    /// one MetalLB runs there from beginning to end.
    fn simulated(&self) -> Vec<event::Event> {
        use event::Event as Other;
        let one = match self {
            Self::Join(n) => Other::Join(labelled(*n, "edge")),
            Self::Leave(n) => Other::Leave(node(*n)),
            Self::Ready(n, true) => Other::Return(node(*n)),
            Self::Ready(n, false) => Other::Lose(node(*n)),
            Self::Cordon(n, true) => Other::Cordon(node(*n)),
            Self::Cordon(n, false) => Other::Uncordon(node(*n)),
            Self::Label(n, true) => Other::Label(labelled(*n, "edge")),
            Self::Label(n, false) => Other::Label(labelled(*n, "worker")),
            Self::Create(order) => {
                let create = Other::Create(event::Order {
                    load_balancer: key(order.name).to_string(),
                    spec: order.spec(),
                });
                // Of two load balancers one is always older.
                return vec![Other::Wait("1s".to_owned()), create];
            }
            Self::Squat => {
                let all = texts(&(0..NAMED).collect());
                let mut spec = Map::new();
                spec.insert("addressPool".to_owned(), json!("none"));
                spec.insert("addresses".to_owned(), json!(all));
                Other::Create(event::Order {
                    load_balancer: "evil/squatter".to_owned(),
                    spec,
                })
            }
            Self::Delete(n) => Other::Delete(key(*n).to_string()),
            Self::Wait(seconds) => Other::Wait(format!("{seconds}s")),
            Self::Pool { ranges, excluded } => Other::Pool(Pool {
                name: DEFAULT_POOL.to_owned(),
                spec: pool(*ranges, *excluded),
            }),
            Self::Occupy {
                service,
                addresses,
                asks,
                kind,
            } => Other::Occupy(Occupant {
                service: foreign(*service).to_string(),
                addresses: texts(addresses),
                asks: *asks,
                kind: *kind,
            }),
            Self::Vacate(n) => Other::Vacate(foreign(*n).to_string()),
            Self::Endpoints(n, nodes) => Other::Endpoints(event::Endpoints {
                load_balancer: key(*n).to_string(),
                nodes: nodes.iter().map(|n| node(*n)).collect(),
            }),
            Self::Definitions(_) | Self::Rollout => return Vec::new(),
        };
        vec![one]
    }
}

fn order() -> impl Strategy<Value = Order> {
    let pinned = prop::collection::btree_set(0..NAMED, 0..4);
    let limit = prop::option::of(1u8..4);
    let local = prop::bool::weighted(0.4);
    (0u8..5, limit, any::<bool>(), any::<bool>(), local, pinned).prop_map(
        |(name, max_nodes, everywhere, dual, local, pinned)| Order {
            name,
            max_nodes,
            everywhere,
            dual,
            local,
            pinned,
        },
    )
}

fn service_type() -> impl Strategy<Value = ServiceType> {
    prop_oneof![
        3 => Just(ServiceType::LoadBalancer),
        1 => Just(ServiceType::ClusterIP),
        1 => Just(ServiceType::NodePort),
        1 => Just(ServiceType::ExternalName),
    ]
}

fn anything() -> impl Strategy<Value = Event> {
    let node = || 0u8..7;
    let addresses = prop::collection::btree_set(0..NAMED, 1..4);
    let nodes = prop::collection::btree_set(0u8..7, 0..5);
    let index = || 0u8..4;
    prop_oneof![
        8 => node().prop_map(Event::Join),
        2 => node().prop_map(Event::Leave),
        4 => (node(), any::<bool>()).prop_map(|(n, r)| Event::Ready(n, r)),
        4 => (node(), any::<bool>()).prop_map(|(n, c)| Event::Cordon(n, c)),
        2 => (node(), any::<bool>()).prop_map(|(n, l)| Event::Label(n, l)),
        8 => order().prop_map(Event::Create),
        3 => (0u8..5).prop_map(Event::Delete),
        4 => prop_oneof![Just(1u32), Just(11), Just(3600), Just(90_000)].prop_map(Event::Wait),
        3 => (index(), index()).prop_map(|(ranges, excluded)| Event::Pool { ranges, excluded }),
        4 => (0u8..3, addresses, any::<bool>(), service_type()).prop_map(
            |(service, addresses, asks, kind)| Event::Occupy { service, addresses, asks, kind }
        ),
        1 => (0u8..3).prop_map(Event::Vacate),
        4 => (0u8..5, nodes).prop_map(|(n, nodes)| Event::Endpoints(n, nodes)),
        2 => (0u8..6).prop_map(Event::Definitions),
        2 => Just(Event::Rollout),
    ]
}

/// A history, and the MetalLB that is there when it begins.
#[derive(Clone)]
pub struct History {
    metallb: u8,
    pub events: Vec<Event>,
}

/// A random one.
pub fn history() -> impl Strategy<Value = History> {
    let events = prop::collection::vec(anything(), 1..40);
    (0u8..6, events).prop_map(|(metallb, events)| History { metallb, events })
}

impl History {
    /// The squatter is older than all others.
    const BEGINNING: [Event; 2] = [
        Event::Pool {
            ranges: 0,
            excluded: 0,
        },
        Event::Squat,
    ];

    /// The cluster in which it begins.
    pub fn start(&self) -> Cluster {
        let mut cluster = bare(version(self.metallb));
        for event in &Self::BEGINNING {
            happen(&mut cluster, event);
        }
        cluster
    }
}

impl fmt::Debug for History {
    /// With a file for `kubectl l2lb simulate --events`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beginning = Self::BEGINNING;
        let all = beginning.iter().chain(&self.events);
        let file: Vec<_> = all.flat_map(Event::simulated).collect();
        let version = METALLB_VERSIONS[usize::from(self.metallb)];
        write!(
            f,
            "{:?}\nwhich is, but for upgrades of MetalLB, \
             kubectl l2lb simulate --metallb {version} --events FILE, with this in FILE:\n{}",
            self.events,
            event::print(&file)
        )
    }
}

/// A cluster without a pool of ours.
pub fn bare(metallb: Capabilities) -> Cluster {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut cluster = Cluster::with_metallb(now, metallb);
    // Whoever names no pool gets an address of this one.
    let everybodys = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "everybodys", "namespace": "metallb-system"},
        "spec": {"addresses": ["198.51.100.0/24"]}});
    cluster.put(Kind::IpAddressPool, everybodys).unwrap();
    cluster
}

pub fn happen(cluster: &mut Cluster, event: &Event) {
    match event {
        Event::Definitions(n) => cluster.install_definitions(version(*n)),
        Event::Rollout => cluster.running = cluster.world.capabilities,
        _ => {
            for event in event.simulated() {
                cluster.happen(&event).unwrap();
            }
        }
    }
    if let Event::Occupy {
        service,
        addresses,
        asks,
        ..
    } = event
    {
        // The judges go by what the world says.
        let named: BTreeSet<IpAddr> = addresses.iter().map(|n| address(*n)).collect();
        let (held, asked) = if *asks {
            (BTreeSet::new(), named)
        } else {
            (named, BTreeSet::new())
        };
        let seen = &cluster.world.foreign_services[&foreign(*service)];
        assert_eq!((&seen.addresses, &seen.asked), (&held, &asked));
    }
}
