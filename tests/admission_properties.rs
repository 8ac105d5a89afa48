//! Whatever admission accepts, one after the other, the planner can place:
//! every balancer node has its address, at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use l2lb::admission::{Candidate, review};
use l2lb::plan::Planner;
use l2lb::simulate::Cluster;
use l2lb::world::{Key, Kind, Observed, Stored};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Something that somebody asks for.
#[derive(Clone, Debug)]
enum Ask {
    LoadBalancer {
        name: u8,
        max: Option<u8>,
        edge: bool,
        families: u8,
        reserve: Vec<u8>,
    },
    Delete(u8),
    Pool {
        name: u8,
        first: u8,
        last: u8,
        six: bool,
        edge: bool,
        exclude: Option<u8>,
    },
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        6 => (
            0u8..6,
            prop::option::of(1u8..6),
            any::<bool>(),
            0u8..4,
            prop::collection::vec(0u8..24, 0..3),
        )
            .prop_map(|(name, max, edge, families, reserve)| Ask::LoadBalancer {
                name, max, edge, families, reserve
            }),
        1 => (0u8..6).prop_map(Ask::Delete),
        2 => (0u8..2, 0u8..20, 0u8..20, any::<bool>(), any::<bool>(), prop::option::of(0u8..24))
            .prop_map(|(name, a, b, six, edge, exclude)| Ask::Pool {
                name, first: a.min(b), last: a.max(b), six, edge, exclude
            }),
    ]
}

/// The manifest of what is asked for. The pools are apart: .0 and .100.
fn manifest(ask: &Ask) -> Option<(Kind, Value)> {
    let pool = |n: u8| format!("pool-{}", n % 2);
    match ask {
        Ask::LoadBalancer {
            name,
            max,
            edge,
            families,
            reserve,
        } => {
            let mut spec = json!({"addressPool": pool(*name), "service": {
                "selector": {"app": "x"}, "ports": [{"port": 80}]}});
            if let Some(max) = max {
                spec["maxNodes"] = json!(max);
            }
            if *edge {
                spec["nodeSelector"] = json!({"matchLabels": {"role": "edge"}});
            }
            match families {
                1 => spec["service"]["ipFamilies"] = json!(["IPv6"]),
                2 => spec["service"]["ipFamilyPolicy"] = json!("RequireDualStack"),
                _ => {}
            }
            let base = 100 * (name % 2);
            let reserved: Vec<String> = reserve
                .iter()
                .map(|n| format!("203.0.113.{}", base + n))
                .collect();
            if !reserved.is_empty() {
                spec["addresses"] = json!(reserved);
            }
            Some((
                Kind::LoadBalancer,
                json!({"apiVersion": "l2lb.io/v1alpha1",
                "kind": "L2LoadBalancer",
                "metadata": {"name": format!("lb-{name}"), "namespace": "shop"}, "spec": spec}),
            ))
        }
        Ask::Pool {
            name,
            first,
            last,
            six,
            edge,
            exclude,
        } => {
            let base = 100 * (name % 2);
            let mut addresses = vec![format!(
                "203.0.113.{}-203.0.113.{}",
                base + first,
                base + last
            )];
            if *six {
                addresses.push(format!("2001:db8:{name}::/125"));
            }
            let mut spec = json!({"addresses": addresses});
            if *edge {
                spec["nodeSelector"] = json!({"matchLabels": {"role": "edge"}});
            }
            if let Some(n) = exclude {
                spec["excludedAddresses"] = json!([format!("203.0.113.{}", base + n)]);
            }
            Some((
                Kind::AddressPool,
                json!({"apiVersion": "l2lb.io/v1alpha1",
                "kind": "L2AddressPool", "metadata": {"name": pool(*name)}, "spec": spec}),
            ))
        }
        Ask::Delete(_) => None,
    }
}

fn stored(cluster: &Cluster, kind: Kind, key: &Key) -> Option<Observed> {
    match kind {
        Kind::AddressPool => cluster
            .world
            .pools
            .get(&key.name)
            .cloned()
            .map(Observed::AddressPool),
        _ => cluster
            .world
            .load_balancers
            .get(key)
            .cloned()
            .map(Observed::LoadBalancer),
    }
}

/// The status of conditions by load balancer.
fn conditions(cluster: &Cluster) -> BTreeMap<Key, BTreeMap<String, (String, String)>> {
    cluster
        .world
        .load_balancers
        .iter()
        .filter_map(|(key, lb)| Some((key.clone(), lb.valid()?.status.as_ref()?)))
        .map(|(key, status)| {
            let all = status.conditions.iter();
            let all = all.map(|c| (c.type_.clone(), (c.status.clone(), c.message.clone())));
            (key, all.collect())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_accepted_can_be_placed(
        nodes in 1u8..6,
        edges in 0u8..6,
        asks in prop::collection::vec(ask(), 1..24),
        settles in prop::collection::vec(any::<bool>(), 24),
    ) {
        let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap());
        for n in 0..nodes {
            let role = if n < edges { "edge" } else { "worker" };
            cluster.add_node(&format!("node-{n}"), &[("role", role)]);
        }
        cluster.add_pool("pool-0", &["203.0.113.0-203.0.113.11", "2001:db8:0::/125"]);
        cluster.add_pool("pool-1", &["203.0.113.100-203.0.113.105"]);
        let mut planner = Planner::default();
        let mut accepted = 0;
        for (ask, settle) in asks.iter().zip(&settles) {
            cluster.advance(SignedDuration::from_secs(1));
            let Some((kind, mut new)) = manifest(ask) else {
                if let Ask::Delete(n) = ask {
                    cluster.delete_load_balancer(&Key::new("shop", format!("lb-{n}")));
                }
                continue;
            };
            let object = Observed::read(kind, new.clone()).unwrap();
            let old = stored(&cluster, kind, &object.object().key);
            let object = match &old {
                None => object,
                Some(old) => {
                    new["metadata"]["uid"] = json!(old.metadata().uid);
                    new["metadata"]["creationTimestamp"] =
                        json!(old.metadata().creation_timestamp);
                    new["status"] = match old {
                        Observed::LoadBalancer(Stored::Valid(lb)) => json!(lb.status),
                        _ => Value::Null,
                    };
                    Observed::read(kind, new.clone()).unwrap()
                }
            };
            let verdict = review(&cluster.world, &Candidate { object, old, selects_pods: None });
            if verdict.is_allowed() {
                accepted += 1;
                cluster.put(kind, new).unwrap();
            }
            // The next one may be asked before anything was written.
            if *settle {
                cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
            }
        }
        cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
        for (key, conditions) in conditions(&cluster) {
            for kind in ["Accepted", "AddressesAllocated"] {
                let (status, message) = &conditions[kind];
                let no_nodes = message.contains("no node matches");
                prop_assert!(
                    status == "True" || no_nodes,
                    "{key} was accepted and {kind} is {status}: {message} ({accepted} accepted)"
                );
            }
        }
    }
}
