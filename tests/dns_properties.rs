//! What is promised of names, over random histories (docs/dns.md).

#![allow(clippy::unwrap_used, clippy::panic)]

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use l2lb::plan::{Planner, plan};
use l2lb::simulate::Cluster;
use l2lb::simulate::event::{self, Event, Labelled, Order};
use l2lb::world::{Child, Key};
use proptest::prelude::*;
use serde_json::json;

use history::{History, node};

fn order(n: u8, name: u8, dual: bool, max_nodes: Option<u8>) -> Event {
    let hostname = match name {
        0 => None,
        1 => Some("shared.example.org".to_owned()),
        2 => Some(format!("lb-{n}.badexample.org")),
        _ => Some(format!("lb-{n}.example.org")),
    };
    let mut spec = serde_json::Map::new();
    if let Some(hostname) = hostname {
        spec.insert("dns".to_owned(), json!({"hostname": hostname}));
    }
    if let Some(max) = max_nodes {
        spec.insert("maxNodes".to_owned(), json!(max));
    }
    if dual {
        spec.insert(
            "service".to_owned(),
            json!({"ipFamilyPolicy": "RequireDualStack"}),
        );
    }
    Event::Create(Order {
        load_balancer: format!("shop/lb-{n}"),
        spec,
    })
}

fn anything() -> impl Strategy<Value = Event> {
    let name = || (0u8..6).prop_map(node);
    let created = (0u8..6, 0u8..6, any::<bool>(), prop::option::of(1u8..4));
    prop_oneof![
        3 => (0u8..6).prop_map(|n| Event::Join(Labelled { node: node(n), labels: BTreeMap::new() })),
        3 => name().prop_map(Event::Lose),
        3 => name().prop_map(Event::Return),
        1 => name().prop_map(Event::Cordon),
        2 => name().prop_map(Event::Uncordon),
        1 => name().prop_map(Event::Leave),
        5 => created.prop_map(|(n, name, dual, max)| order(n, name, dual, max)),
        1 => (0u8..6).prop_map(|n| Event::Delete(format!("shop/lb-{n}"))),
        3 => prop_oneof![Just("5s"), Just("15s"), Just("90s"), Just("25h")]
            .prop_map(|t| Event::Wait(t.to_owned())),
    ]
}

fn history() -> impl Strategy<Value = History> {
    prop::collection::vec(anything(), 1..40).prop_map(|events| {
        let pool = "[{pool: {name: edge, spec: {dnsDomains: [example.org], addresses: \
                    ['10.0.0.0/24', '2001:db8::/112']}}}]";
        let mut all = event::parse(pool).unwrap();
        all.extend(events);
        History(all)
    })
}

/// The addresses in a load balancer's records, with the records' types.
fn published(cluster: &Cluster, key: &Key) -> Vec<(String, IpAddr)> {
    let endpoint = cluster.world.dns_endpoints.get(key).and_then(|e| e.valid());
    endpoint
        .into_iter()
        .flat_map(|e| e.spec.endpoints.clone())
        .flat_map(|r| {
            let kind = r.record_type.clone();
            r.targets
                .into_iter()
                .map(move |t| (kind.clone(), t.parse().unwrap()))
        })
        .collect()
}

fn names_are_right(cluster: &Cluster) {
    let mut names = BTreeSet::new();
    for (key, stored) in &cluster.world.dns_endpoints {
        for record in &stored.valid().unwrap().spec.endpoints {
            assert!(!record.targets.is_empty(), "{key}: an empty record");
            let name = (record.dns_name.clone(), record.record_type.clone());
            assert!(record.dns_name.ends_with(".example.org"), "{name:?}");
            assert!(names.insert(name.clone()), "{name:?} is published twice");
        }
    }
    for (key, stored) in &cluster.world.load_balancers {
        let lb = stored.valid().unwrap();
        let conditions = lb.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let condition = conditions.iter().find(|c| c.type_ == "DNSPublished");
        assert_eq!(condition.is_some(), lb.spec.dns.is_some(), "{key}");
        let published = published(cluster, key);
        let empty = BTreeMap::new();
        let children = cluster.world.children.get(key).unwrap_or(&empty);
        let own: BTreeSet<IpAddr> = children
            .values()
            .flat_map(|c| c.allocated.clone())
            .collect();
        for (kind, address) in &published {
            assert!(
                own.contains(address),
                "{key}: {address} is not one of {own:?}"
            );
            assert_eq!(kind == "A", address.is_ipv4(), "{address}");
        }
        let refused = ["DomainNotAllowed", "HostnameTaken"];
        let Some(condition) = condition.filter(|c| !refused.contains(&c.reason.as_str())) else {
            assert_eq!(published, [], "{key}");
            continue;
        };
        families(cluster, key, children, &published, &condition.message);
    }
}

/// Each family for itself: who is at home is in, who is not is out, and
/// something that is announced is in.
fn families(
    cluster: &Cluster,
    key: &Key,
    children: &BTreeMap<u32, std::sync::Arc<Child>>,
    published: &[(String, IpAddr)],
    message: &str,
) {
    let world = &cluster.world;
    let by = |c: &Child| cluster.announcer(&c.key).map(str::to_owned);
    let is_well = |name: &String| {
        world
            .nodes
            .get(name)
            .is_some_and(|n| n.ready && !n.cordoned)
    };
    let is_home = |c: &Child| by(c).as_ref() == Some(&c.home) && is_well(&c.home);
    let stays = |c: &Child| c.retire_at.is_none();
    for v4 in [true, false] {
        let of = |c: &Child| c.addresses.iter().copied().find(|a| a.is_ipv4() == v4);
        let is_in = |c: &Child| published.iter().any(|(_, a)| Some(*a) == of(c));
        let with: Vec<&Child> = children
            .values()
            .map(|c| c.as_ref())
            .filter(|c| of(c).is_some())
            .collect();
        let at_home: Vec<&&Child> = with.iter().filter(|c| stays(c) && is_home(c)).collect();
        for child in &at_home {
            assert!(
                is_in(child),
                "{key}: {} is at home and left out: {message}",
                child.key
            );
        }
        if !at_home.is_empty() {
            for child in with.iter().filter(|c| !stays(c) || !is_well(&c.home)) {
                assert!(
                    !is_in(child),
                    "{key}: {} is away and published: {message}",
                    child.key
                );
            }
        }
        let announced = with.iter().any(|c| by(c).is_some());
        assert!(
            !announced || with.iter().any(|c| is_in(c)),
            "{key}: something is announced and nothing published: {message}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn records_follow_what_is_announced(history in history()) {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let mut cluster = Cluster::new(start);
        let mut planner = Planner::default();
        for event in &history.0 {
            cluster.happen(event).unwrap();
            // A plan with memory is the plan without.
            let remembered = planner.plan(&cluster.world);
            prop_assert_eq!(&plan(&cluster.world).changes, &remembered.changes);
            cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
            names_are_right(&cluster);
            // Nothing is written while nothing happens.
            let due = planner.plan(&cluster.world).next_deadline;
            cluster.advance(SignedDuration::from_secs(1));
            if due.is_none_or(|at| at > cluster.world.now) {
                prop_assert_eq!(planner.plan(&cluster.world).changes, vec![]);
            }
        }
        for n in 0..6 {
            cluster.happen(&Event::Delete(format!("shop/lb-{n}"))).unwrap();
        }
        cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(cluster.world.dns_endpoints.is_empty());
    }
}
