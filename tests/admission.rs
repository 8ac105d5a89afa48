//! The cases of testdata/admission: what is denied and what passes, with
//! every sentence. `UPDATE_GOLDEN=1 cargo test --test admission` writes the
//! expectations anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use l2lb::admission::{Candidate, Verdict, review};
use l2lb::plan::Planner;
use l2lb::simulate::Cluster;
use l2lb::world::{Key, Kind, ObjectRef, Observed, observe_manifest};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/admission")
}

fn list(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// Completes the shorthand of the cases to a manifest.
fn manifest(short: &Value) -> Value {
    let mut object = if let Some(name) = short["pool"].as_str() {
        json!({"kind": "L2AddressPool", "metadata": {"name": name}, "spec": short["spec"]})
    } else if let Some(name) = short["load balancer"].as_str() {
        let (namespace, name) = name.split_once('/').unwrap();
        let mut spec = short["spec"].clone();
        let mut service = json!({"selector": {"app": name}, "ports": [{"port": 80}]});
        if let Some(more) = spec["service"].as_object() {
            service.as_object_mut().unwrap().extend(more.clone());
        }
        spec["service"] = service;
        json!({"kind": "L2LoadBalancer",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    } else if short["object"].is_object() {
        short["object"].clone()
    } else {
        short.clone()
    };
    let version = match object["kind"].as_str().unwrap() {
        "L2AddressPool" | "L2LoadBalancer" => "l2lb.io/v1alpha1",
        "IPAddressPool" | "L2Advertisement" | "BGPAdvertisement" => "metallb.io/v1beta1",
        "ServiceCIDR" => "networking.k8s.io/v1",
        _ => "v1",
    };
    object["apiVersion"] = json!(version);
    object
}

fn observed(short: &Value) -> Observed {
    observe_manifest(manifest(short)).unwrap().unwrap()
}

fn put(cluster: &mut Cluster, short: &Value) {
    if let Some(name) = short["remove"].as_str() {
        match short["kind"].as_str() {
            Some("L2AddressPool") => cluster.delete_pool(name),
            _ => {
                let (namespace, name) = name.split_once('/').unwrap();
                let key = Key::new(namespace, name);
                cluster.world.forget(&ObjectRef {
                    kind: Kind::Service,
                    key,
                });
            }
        }
        return;
    }
    cluster
        .put(observed(short).kind(), manifest(short))
        .unwrap();
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new("2026-01-01T00:00:00Z".parse().unwrap());
    for object in list("world.yaml") {
        put(&mut cluster, &object);
    }
    cluster.settle(&mut Planner::default()).unwrap();
    cluster
}

fn judge(cluster: &Cluster, case: &Value) -> Verdict {
    let mut cluster = cluster.clone();
    for more in case["more"].as_array().into_iter().flatten() {
        cluster.advance(jiff::SignedDuration::from_secs(1));
        put(&mut cluster, more);
        if more["remove"].is_null() {
            cluster.settle(&mut Planner::default()).unwrap();
        }
    }
    let object = observed(case);
    let name = object.object();
    let old = match &case["old"] {
        Value::Null => None,
        Value::String(_) => Some(match name.kind {
            Kind::AddressPool => Observed::AddressPool(cluster.world.pools[&name.key.name].clone()),
            _ => Observed::LoadBalancer(cluster.world.load_balancers[&name.key].clone()),
        }),
        spec => {
            let mut before = manifest(case);
            before["spec"] = spec.clone();
            cluster.put(name.kind, before).unwrap();
            for more in case["more"].as_array().into_iter().flatten() {
                put(&mut cluster, more);
            }
            cluster.settle(&mut Planner::default()).unwrap();
            Some(Observed::AddressPool(
                cluster.world.pools[&name.key.name].clone(),
            ))
        }
    };
    // As the API server sends it: with the identity of what is stored.
    let object = match &old {
        None => object,
        Some(old) => {
            let mut new = manifest(case);
            new["metadata"]["uid"] = json!(old.metadata().uid);
            new["metadata"]["creationTimestamp"] = json!(old.metadata().creation_timestamp);
            observe_manifest(new).unwrap().unwrap()
        }
    };
    review(
        &cluster.world,
        &Candidate {
            object,
            old,
            selects_pods: None,
        },
    )
}

fn run(name: &str, at_least: usize, denied: bool) {
    let cluster = cluster();
    let cases = list(&format!("{name}.yaml"));
    assert!(cases.len() >= at_least, "only {} cases", cases.len());
    let (mut text, mut wrong) = (String::new(), Vec::new());
    for case in &cases {
        let title = case["name"].as_str().unwrap();
        let verdict = judge(&cluster, case);
        if verdict.is_allowed() == denied {
            wrong.push(format!("{title}: {verdict:?}"));
        }
        writeln!(text, "{title}").unwrap();
        for (word, findings) in [("denied", &verdict.denials), ("warning", &verdict.warnings)] {
            for finding in findings {
                writeln!(text, "  {word} [{}] {finding}", finding.rule).unwrap();
            }
        }
    }
    let path = folder().join(format!("{name}.expected"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = text.lines().zip(wanted.lines()).find(|(a, b)| a != b);
    assert!(
        text == wanted,
        "{} differs: {difference:?}\nIf the new one is right: UPDATE_GOLDEN=1 cargo test --test \
         admission",
        path.display()
    );
}

#[test]
fn bad_inputs_are_denied() {
    run("bad", 40, true);
}

#[test]
fn near_misses_pass() {
    run("near-misses", 15, false);
}

/// A review of a cluster with 3,000 child Services takes a small part of the
/// API server's patience, also without optimisation.
#[test]
fn reviews_are_quick_in_a_large_cluster() {
    let mut cluster = Cluster::new("2026-01-01T00:00:00Z".parse().unwrap());
    for n in 0..10 {
        cluster.add_node(&format!("node-{n}"), &[]);
    }
    cluster.add_pool("edge", &["10.0.0.0/16"]);
    for n in 0..300 {
        cluster.add_load_balancer(&Key::new("shop", format!("lb-{n}")), "edge", &json!({}));
    }
    cluster.settle(&mut Planner::default()).unwrap();
    let case = json!({"load balancer": "shop/new", "spec": {"addressPool": "edge"}});
    let candidate = Candidate::created(observed(&case));
    let started = std::time::Instant::now();
    assert!(review(&cluster.world, &candidate).is_allowed());
    let took = started.elapsed();
    println!("a review among 3,000 Services takes {took:?}");
    assert!(took.as_millis() < 2_000, "{took:?}");
}
