//! The plan, measured against serialising the Services that it is about.
//!
//! `make bench` puts these figures beside their baselines and targets.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use l2lb::plan::{Planner, plan};
use l2lb::simulate::Cluster;
use l2lb::world::{Key, World};
use serde_json::json;

/// As in `l2lb-controller`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NODES: usize = 20;

fn cluster(load_balancers: usize, addresses: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(Timestamp::from_second(1_800_000_000).unwrap_or_default());
    for n in 0..NODES {
        cluster.add_node(&format!("node-{n}"), &[]);
    }
    cluster.add_pool("edge", addresses);
    for n in 0..load_balancers {
        cluster.add_load_balancer(&key(n), "edge", &json!({}));
    }
    cluster
}

fn key(n: usize) -> Key {
    Key::new(format!("team-{}", n % 50), format!("lb-{n}"))
}

/// Everything exists and is at rest.
fn settled(load_balancers: usize, addresses: &[&str]) -> Cluster {
    let mut cluster = cluster(load_balancers, addresses);
    if let Err(error) = cluster.settle(&mut Planner::default()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
    cluster
}

fn services(world: &World) -> Vec<Service> {
    plan(world)
        .load_balancers
        .values()
        .flat_map(|lb| lb.services().collect::<Vec<_>>())
        .collect()
}

const WIDE: [&str; 1] = ["10.0.0.0/8"];

/// 1,000 load balancers on 20 nodes.
fn thousand(c: &mut Criterion) {
    let mut group = c.benchmark_group("thousand");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    let nothing = cluster(1000, &WIDE);
    let all = settled(1000, &WIDE);
    let services = services(&all.world);
    assert_eq!(services.len(), 20_000);

    group.bench_function("serialise", |b| {
        b.iter(|| {
            services
                .iter()
                .map(|s| serde_json::to_string(s).map_or(0, |t| t.len()))
                .sum::<usize>()
        });
    });
    // A controller that starts beside a cluster at rest.
    group.bench_function("restart", |b| {
        b.iter(|| black_box(plan(&all.world)).changes.len())
    });
    // Nothing exists: every address is chosen and every Service made.
    group.bench_function("first", |b| {
        b.iter(|| black_box(plan(&nothing.world)).changes.len())
    });

    // One event in a cluster at rest, with the memory of the last plan.
    let mut planner = Planner::default();
    planner.plan(&all.world);
    let mut world = all.world.clone();
    let children: Vec<_> = world
        .children
        .values()
        .flat_map(|s| s.values())
        .take(1000)
        .cloned()
        .collect();
    let mut next = children.iter().cycle();
    let mut flip = false;
    group.bench_function("event", |b| {
        b.iter(|| {
            // Somebody labels a Service, which is nothing to us.
            let Some(child) = next.next() else { return 0 };
            flip = !flip;
            let mut service = child.service.clone();
            let labels = service.metadata.labels.get_or_insert_default();
            labels.insert("seen".to_owned(), flip.to_string());
            let status = json!({"loadBalancer": {"ingress": child.allocated.iter()
                .map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<_>>()}});
            service.status = serde_json::from_value(status).ok();
            world.observe(l2lb::world::Observed::Service(Box::new(service)));
            black_box(planner.plan(&world)).changes.len()
        });
    });
    // One more load balancer, and its removal.
    let mut planner = Planner::default();
    let mut more = all.clone();
    planner.plan(&more.world);
    group.bench_function("create", |b| {
        b.iter(|| {
            let new = Key::new("team-0", "one-more");
            more.add_load_balancer(&new, "edge", &json!({}));
            let changes = black_box(planner.plan(&more.world)).changes.len();
            more.delete_load_balancer(&new);
            changes
        });
    });
    // A node dies: its 1,000 Services are pinned to others, and every load
    // balancer's status says so. That it is back is not measured.
    let mut planner = Planner::default();
    let mut died = all.clone();
    planner.plan(&died.world);
    group.bench_function("death", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                died.set_node("node-7", false, false);
                let start = Instant::now();
                let plan = black_box(planner.plan(&died.world));
                took += start.elapsed();
                let moved = plan.changes.iter().filter(|c| c.action.slot().is_some());
                assert_eq!(moved.count(), 1000);
                died.set_node("node-7", true, false);
                planner.plan(&died.world);
            }
            took
        });
    });
    // A node joins: every load balancer gets a Service with an address chosen
    // for it. That it is taken out again is not measured.
    let mut planner = Planner::default();
    let mut joined = all.clone();
    planner.plan(&joined.world);
    group.bench_function("join", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                joined.add_node("node-new", &[]);
                let start = Instant::now();
                let plan = black_box(planner.plan(&joined.world));
                took += start.elapsed();
                let made = plan.changes.iter().filter(|c| c.action.slot().is_some());
                assert_eq!(made.count(), 1000);
                joined.remove_node("node-new");
                planner.plan(&joined.world);
            }
            took
        });
    });
    group.finish();
}

/// The same, for fewer load balancers: the growth.
fn growth(c: &mut Criterion) {
    let mut group = c.benchmark_group("growth");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(4));
    for count in [125, 250, 500, 1000] {
        let all = settled(count, &WIDE);
        group.bench_with_input(BenchmarkId::from_parameter(count), &all, |b, all| {
            b.iter(|| black_box(plan(&all.world)).changes.len());
        });
    }
    group.finish();
}

/// The same load balancers out of pools of different sizes.
fn pool_size(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    for (name, addresses, families) in [
        ("v4-24", "203.0.113.0/24", "IPv4"),
        ("v4-8", "10.0.0.0/8", "IPv4"),
        ("v6-120", "2001:db8::/120", "IPv6"),
        ("v6-64", "2001:db8::/64", "IPv6"),
    ] {
        let mut cluster = cluster(0, &[addresses]);
        for n in 0..10 {
            let spec = json!({"service": {"ipFamilies": [families]}});
            cluster.add_load_balancer(&key(n), "edge", &spec);
        }
        group.bench_function(name, |b| {
            b.iter(|| black_box(plan(&cluster.world)).changes.len());
        });
    }
    group.finish();
}

criterion_group!(benches, thousand, growth, pool_size);
criterion_main!(benches);
