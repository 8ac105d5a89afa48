//! The gauges that describe the cluster, out of a [`Census`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::address::Family;
use crate::plan::{Census, NodeCensus, PHASES, PoolCensus, Shares};
use crate::world::Kind;

/// The last census, if there was one. Clones speak of the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster(Arc<Mutex<Option<Census>>>);

impl Cluster {
    pub fn set(&self, census: Census) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(census);
    }
}

impl Collector for Cluster {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let census = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for gauge in census.iter().flat_map(gauges) {
            if gauge.samples.is_empty() {
                continue;
            }
            let mut encoder =
                encoder.encode_descriptor(gauge.name, gauge.help, None, MetricType::Gauge)?;
            for (labels, value) in &gauge.samples {
                encoder.encode_family(labels)?.encode_gauge(value)?;
            }
        }
        Ok(())
    }
}

/// Labels of one sample.
type Labels = Vec<(&'static str, String)>;

/// A metric with its samples.
struct Gauge {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Labels, f64)>,
}

impl Gauge {
    fn new<const N: usize>(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = ([(&'static str, String); N], f64)>,
    ) -> Self {
        let samples = samples.into_iter().map(|(labels, n)| (labels.into(), n));
        Self {
            name,
            help,
            samples: samples.collect(),
        }
    }
}

/// Every gauge of a census.
fn gauges(census: &Census) -> Vec<Gauge> {
    let mut all = pools(census);
    all.extend(load_balancers(census));
    all.extend(nodes(census));
    all.push(Gauge::new(
        "refused_objects",
        "Objects whose last write the API server refused, by kind; they are tried again",
        census
            .refused
            .iter()
            .map(|(kind, n)| ([("kind", kind.as_str().to_owned())], real(*n))),
    ));
    all
}

fn pools(census: &Census) -> Vec<Gauge> {
    let by_family = || {
        census.pools.iter().flat_map(|(name, pool)| {
            let families = pool.addresses.iter();
            families.map(move |(family, shares)| (name.as_str(), *family, *shares))
        })
    };
    let of = |name: &str, family: Family| {
        [
            ("pool", name.to_owned()),
            ("family", word(family).to_owned()),
        ]
    };
    let states = by_family().flat_map(|(name, family, shares)| {
        let Shares {
            free,
            reserved,
            allocated,
            retiring,
            excluded,
            ..
        } = shares;
        let states = [
            ("free", free),
            ("reserved", reserved),
            ("allocated", allocated),
            ("retiring", retiring),
            ("excluded", excluded),
        ];
        let [pool, family] = of(name, family);
        states.map(|(state, n)| {
            let state = ("state", state.to_owned());
            ([pool.clone(), family.clone(), state], n as f64)
        })
    });
    vec![
        Gauge::new(
            "pool_addresses",
            "Addresses of an L2AddressPool by family and state: free, reserved (by a load \
             balancer, or nodes have them), allocated, retiring (kept for a while after their \
             node left) or excluded",
            states,
        ),
        Gauge::new(
            "pool_missing_addresses",
            "Addresses that balancer nodes lack because the pool has none left",
            by_family().map(|(name, family, s)| (of(name, family), s.missing as f64)),
        ),
        Gauge::new(
            "pool_next_node_addresses",
            "Addresses that one more balancer node would take: one for each load balancer that \
             may grow",
            by_family().map(|(name, family, s)| (of(name, family), s.next_node as f64)),
        ),
        Gauge::new(
            "pool_load_balancers",
            "L2LoadBalancers that name the pool",
            census.pools.iter().map(|(name, pool)| {
                let labels = [("pool", name.clone())];
                (labels, real(pool.load_balancers))
            }),
        ),
        Gauge::new(
            "pool_condition_failed",
            "1 for each condition of an L2AddressPool that is False, with its reason",
            census.failing_pools.iter().map(|[pool, kind, reason]| {
                let labels = [
                    ("pool", pool.clone()),
                    ("condition", kind.clone()),
                    ("reason", reason.clone()),
                ];
                (labels, 1.0)
            }),
        ),
    ]
}

fn load_balancers(census: &Census) -> Vec<Gauge> {
    let phases = census.slots.iter().flat_map(|((namespace, pool), counts)| {
        PHASES.iter().zip(counts).map(move |(phase, n)| {
            let labels = [
                ("lb_namespace", namespace.clone()),
                ("pool", pool.clone()),
                ("phase", format!("{phase:?}")),
            ];
            (labels, real(*n))
        })
    });
    vec![
        Gauge::new(
            "slots",
            "Slots by phase, namespace of their L2LoadBalancer and pool",
            phases,
        ),
        Gauge::new(
            "load_balancers",
            "L2LoadBalancers by condition, its status and reason",
            census
                .load_balancers
                .iter()
                .map(|((kind, status, reason), n)| {
                    let labels = [
                        ("condition", kind.clone()),
                        ("status", status.clone()),
                        ("reason", reason.clone()),
                    ];
                    (labels, real(*n))
                }),
        ),
        Gauge::new(
            "load_balancer_condition_failed",
            "1 for each condition of an L2LoadBalancer that is False, with its reason",
            census
                .failing
                .iter()
                .map(|[namespace, name, kind, reason]| {
                    let labels = [
                        ("lb_namespace", namespace.clone()),
                        ("load_balancer", name.clone()),
                        ("condition", kind.clone()),
                        ("reason", reason.clone()),
                    ];
                    (labels, 1.0)
                }),
        ),
    ]
}

fn nodes(census: &Census) -> Vec<Gauge> {
    let gauge = |name, help, value: fn(&NodeCensus) -> usize| {
        let samples = census.nodes.iter();
        let samples =
            samples.map(|(node, numbers)| ([("node", node.clone())], real(value(numbers))));
        Gauge::new(name, help, samples)
    };
    vec![
        gauge(
            "node_home_slots",
            "Slots that a node is home to, without retiring ones",
            |n| n.homes,
        ),
        gauge(
            "node_pinned_slots",
            "Slots that are pinned to a node",
            |n| n.pins,
        ),
        gauge(
            "node_announced_slots",
            "Slots that a node announces, as MetalLB reports",
            |n| n.announced,
        ),
        gauge(
            "node_away_slots",
            "Slots that a node is home to and does not announce now",
            |n| n.away,
        ),
        gauge(
            "node_able",
            "1 if a node can announce: Ready, with a network and a running MetalLB speaker",
            |n| usize::from(n.able),
        ),
    ]
}

/// A gauge's value; counts are far below what it can hold exactly.
fn real(n: usize) -> f64 {
    n as f64
}

fn word(family: Family) -> &'static str {
    match family {
        Family::IPv4 => "ipv4",
        Family::IPv6 => "ipv6",
    }
}

/// One of everything.
pub(super) fn example() -> Census {
    let text = |s: &str| s.to_owned();
    let pool = PoolCensus {
        addresses: BTreeMap::from([(Family::IPv4, Shares::default())]),
        load_balancers: 1,
    };
    let failed = (text("Ready"), text("False"), text("NotAnnounced"));
    Census {
        pools: BTreeMap::from([(text("edge"), pool)]),
        nodes: BTreeMap::from([(text("node-1"), NodeCensus::default())]),
        slots: BTreeMap::from([((text("shop"), text("edge")), [0; PHASES.len()])]),
        load_balancers: BTreeMap::from([(failed, 1)]),
        failing: vec![["shop", "web", "Ready", "NotAnnounced"].map(text)],
        failing_pools: vec![["edge", "Accepted", "AddressOverlap"].map(text)],
        refused: BTreeMap::from([(Kind::Service, 0)]),
    }
}
