use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{ClientIPConfig, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::address::Family;
use crate::api::{Dns, L2AddressPoolSpec, L2LoadBalancerSpec, OnCordon, ServicePort, ServiceSpec};
use crate::cli::golden::Scene;
use crate::plan::Planner;
use crate::simulate::Cluster;
use crate::world::{Kind, observe_manifest};

#[derive(clap::Parser)]
struct Parser {
    #[command(flatten)]
    args: Args,
}

fn everything(world: &World) -> Vec<Value> {
    let args = <Parser as clap::Parser>::parse_from(["export", "-A"]).args;
    let (objects, notes) = objects(world, &args, "default").unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    objects
}

fn named(world: &World) -> Vec<(String, BTreeSet<IpAddr>)> {
    let all = world.children.iter();
    all.map(|(key, slots)| {
        let addresses = slots.values().flat_map(|c| c.addresses.iter().copied());
        (key.to_string(), addresses.collect())
    })
    .collect()
}

/// Another cluster, in which a load balancer that is older there came first.
#[test]
fn a_cluster_that_is_rebuilt_has_the_same_addresses() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cli/at-home");
    let world = Scene::of(&case).snapshot.world;
    let objects = everything(&world);
    let mut rebuilt = Cluster::new(world.now);
    let mut planner = Planner::default();
    for node in ["x", "y", "z"] {
        rebuilt.add_node(node, &[("role", "edge")]);
    }
    // The other way round: without spec.addresses they would differ.
    for value in objects.into_iter().rev() {
        let kind = observe_manifest(value.clone()).unwrap().unwrap().kind();
        assert!(matches!(kind, Kind::AddressPool | Kind::LoadBalancer));
        rebuilt.put(kind, value).unwrap();
    }
    rebuilt.settle(&mut planner).unwrap();
    assert_eq!(named(&rebuilt.world), named(&world));
}

/// Without its labels a selector selects everything.
#[test]
fn labels_with_empty_values_stay() {
    let pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
        "metadata": {"name": "edge", "labels": {"site": ""}, "annotations": {"note": ""}},
        "spec": {"addresses": ["192.0.2.8/29"],
            "nodeSelector": {"matchLabels": {"node-role.kubernetes.io/edge": ""}},
            "namespaceSelector": {"matchLabels": {"edge-allowed": ""}}}});
    let load_balancer = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"addressPool": "edge",
            "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": [""]}]},
            "service": {"selector": {"app": "web", "canary": ""}, "ports": [{"port": 80}],
                "labels": {"team": ""}, "annotations": {"note": ""}}}});
    let mut world = World::default();
    for object in [&pool, &load_balancer] {
        world.observe(observe_manifest(object.clone()).unwrap().unwrap());
    }
    let exported = everything(&world);
    for (before, after) in [(&pool, &exported[0]), (&load_balancer, &exported[1])] {
        for path in [
            "/metadata/labels",
            "/metadata/annotations",
            "/spec/nodeSelector",
            "/spec/namespaceSelector",
            "/spec/service/selector",
            "/spec/service/labels",
            "/spec/service/annotations",
        ] {
            assert_eq!(before.pointer(path), after.pointer(path), "{path}");
        }
    }
}

/// Argo CD would take the object for one of its own, and prune it.
#[test]
fn labels_by_which_tools_track_objects_go() {
    let label = |key: &str| (key.to_owned(), "x".to_owned());
    let meta = ObjectMeta {
        name: Some("edge".to_owned()),
        labels: Some(BTreeMap::from([
            label("app.kubernetes.io/instance"),
            label("app.kubernetes.io/managed-by"),
            label("app.kubernetes.io/part-of"),
            label("argocd.argoproj.io/instance"),
            label("helm.sh/chart"),
        ])),
        ..ObjectMeta::default()
    };
    let object = bare("L2AddressPool", &meta, json!({}));
    assert_eq!(
        object["metadata"]["labels"],
        json!({"app.kubernetes.io/part-of": "x"})
    );
}

/// A spec as it comes back out of a file.
fn reread<T: Serialize + DeserializeOwned>(spec: &T, output: Output) -> T {
    let meta = ObjectMeta {
        name: Some("x".to_owned()),
        ..ObjectMeta::default()
    };
    let object = bare("L2LoadBalancer", &meta, json!(spec));
    let text = text(&[object], output).unwrap();
    let mut read = manifest::parse("test", &text).unwrap();
    serde_json::from_value(read.remove(0).value["spec"].take()).unwrap()
}

/// Texts that YAML or a careless hand could take for something else, or for nothing.
fn text_like() -> impl Strategy<Value = String> {
    let all = [
        "",
        " ",
        "a",
        "null",
        "~",
        "true",
        "no",
        "0",
        "1e3",
        "0x10",
        "-",
        "#",
        "a: b",
        "[]",
        "{}",
        "203.0.113.1",
        "2001:db8::1",
        "1:20",
        "2026-01-01",
        "a\nb",
        "'",
        "\"",
        "*",
        "&a",
        "!",
    ];
    select(all.map(str::to_owned).to_vec())
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text_like(), text_like(), 0..3)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text_like(), 0..3)
}

fn selector() -> impl Strategy<Value = Option<LabelSelector>> {
    let requirement =
        (text_like(), text_like(), option::of(texts())).prop_map(|(key, operator, values)| {
            LabelSelectorRequirement {
                key,
                operator,
                values,
            }
        });
    let selector = (option::of(labels()), option::of(vec(requirement, 0..3)));
    option::of(
        selector.prop_map(|(match_labels, match_expressions)| LabelSelector {
            match_labels,
            match_expressions,
        }),
    )
}

fn pool() -> impl Strategy<Value = L2AddressPoolSpec> {
    let lists = (texts(), texts(), texts(), texts());
    let cordon = prop_oneof![Just(OnCordon::Handover), Just(OnCordon::Ignore)];
    let rest = (any::<bool>(), text_like(), cordon);
    (lists, selector(), selector(), rest).prop_map(
        |(
            (addresses, excluded_addresses, interfaces, dns_domains),
            node_selector,
            namespace_selector,
            (avoid_buggy_ips, load_balancer_class, on_cordon),
        )| L2AddressPoolSpec {
            addresses,
            excluded_addresses,
            avoid_buggy_ips,
            node_selector,
            interfaces,
            namespace_selector,
            load_balancer_class,
            on_cordon,
            dns_domains,
        },
    )
}

fn port() -> impl Strategy<Value = ServicePort> {
    let target = prop_oneof![
        any::<i32>().prop_map(IntOrString::Int),
        text_like().prop_map(IntOrString::String)
    ];
    let optional = option::of(text_like());
    (
        optional,
        any::<i32>(),
        text_like(),
        option::of(target),
        option::of(text_like()),
    )
        .prop_map(
            |(name, port, protocol, target_port, app_protocol)| ServicePort {
                name,
                port,
                protocol,
                target_port,
                app_protocol,
            },
        )
}

fn service() -> impl Strategy<Value = ServiceSpec> {
    let maps = (labels(), labels(), labels());
    let text = || option::of(text_like());
    let policies = (text(), text(), text(), text(), text(), text());
    let affinity = option::of(option::of(option::of(any::<i32>())));
    let families = vec(select(vec![Family::IPv4, Family::IPv6]), 0..3);
    let lists = (vec(port(), 0..3), texts(), families);
    (
        maps,
        policies,
        affinity,
        lists,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(maps, policies, affinity, lists, node_ports, not_ready)| ServiceSpec {
                selector: maps.0,
                labels: maps.1,
                annotations: maps.2,
                external_traffic_policy: policies.0,
                internal_traffic_policy: policies.1,
                traffic_distribution: policies.2,
                session_affinity: policies.3,
                ip_family_policy: policies.4,
                load_balancer_class: policies.5,
                session_affinity_config: affinity.map(|client_ip| SessionAffinityConfig {
                    client_ip: client_ip.map(|timeout_seconds| ClientIPConfig { timeout_seconds }),
                }),
                ports: lists.0,
                load_balancer_source_ranges: lists.1,
                ip_families: lists.2,
                allocate_load_balancer_node_ports: node_ports,
                publish_not_ready_addresses: not_ready,
            },
        )
}

fn load_balancer() -> impl Strategy<Value = L2LoadBalancerSpec> {
    let dns = (text_like(), any::<u32>()).prop_map(|(hostname, ttl)| Dns { hostname, ttl });
    let texts = (text_like(), texts(), text_like());
    let numbers = (option::of(any::<u32>()), option::of(dns));
    (texts, selector(), numbers, service()).prop_map(
        |(
            (address_pool, addresses, retirement_period),
            node_selector,
            (max_nodes, dns),
            service,
        )| L2LoadBalancerSpec {
            address_pool,
            node_selector,
            max_nodes,
            addresses,
            retirement_period,
            service,
            dns,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_exported_of_a_pool_is_all_of_it(spec in pool()) {
        prop_assert_eq!(&reread(&spec, Output::Yaml), &spec);
        prop_assert_eq!(&reread(&spec, Output::Json), &spec);
    }

    #[test]
    fn what_is_exported_of_a_load_balancer_is_all_of_it(spec in load_balancer()) {
        prop_assert_eq!(&reread(&spec, Output::Yaml), &spec);
        prop_assert_eq!(&reread(&spec, Output::Json), &spec);
    }
}
