//! The promises of the planner, over random histories of a made-up cluster.
//! Their numbers are those of docs/architecture.md.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use l2lb::address::AddressRange;
use l2lb::metallb::Capabilities;
use l2lb::plan::{Planner, plan};
use l2lb::simulate::Cluster;
use l2lb::simulate::event;
use l2lb::world::{Key, Kind, Node};
use l2lb_lab::METALLB_VERSIONS;
use proptest::prelude::*;
use serde_json::json;

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Join(u8),
    Leave(u8),
    Ready(u8, bool),
    Cordon(u8, bool),
    Label(u8, bool),
    Create {
        name: u8,
        max_nodes: Option<u8>,
        everywhere: bool,
        dual: bool,
    },
    Delete(u8),
    Wait(u32),
    /// Another MetalLB's resource definitions are installed.
    Definitions(u8),
    /// The MetalLB that belongs to the definitions runs.
    Rollout,
}

/// One of the versions of MetalLB that differ in what matters here.
fn version(n: u8) -> Capabilities {
    Capabilities::of_version(METALLB_VERSIONS[usize::from(n)]).unwrap()
}

/// A history that prints itself as a file for `kubectl l2lb simulate --events`.
#[derive(Clone)]
struct History(Vec<Event>);

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pool = event::parse(&format!(
            "[{{pool: {{name: edge, spec: {{addresses: ['{RANGE}', '{RANGE6}']}}}}}}]"
        ));
        let mut all = pool.unwrap();
        all.extend(self.0.iter().filter_map(replayable));
        // Some events are of no interest there.
        let (all, events) = (event::print(&all), &self.0);
        write!(f, "{events:?}; as a history for --events:\n{all}")
    }
}

/// The event as the simulation knows it.
fn replayable(event: &Event) -> Option<event::Event> {
    use event::Event as Other;
    let labelled = |n: &u8, role: &str| event::Labelled {
        node: node(*n),
        labels: BTreeMap::from([("role".to_owned(), role.to_owned())]),
    };
    Some(match event {
        Event::Join(n) => Other::Join(labelled(n, "edge")),
        Event::Leave(n) => Other::Leave(node(*n)),
        Event::Ready(n, true) => Other::Return(node(*n)),
        Event::Ready(n, false) => Other::Lose(node(*n)),
        Event::Cordon(n, true) => Other::Cordon(node(*n)),
        Event::Cordon(n, false) => Other::Uncordon(node(*n)),
        Event::Label(n, true) => Other::Label(labelled(n, "edge")),
        Event::Label(n, false) => Other::Label(labelled(n, "worker")),
        Event::Create {
            name,
            max_nodes,
            everywhere,
            dual,
        } => Other::Create(event::Order {
            load_balancer: key(*name).to_string(),
            spec: order(*max_nodes, *everywhere, *dual),
        }),
        Event::Delete(n) => Other::Delete(key(*n).to_string()),
        Event::Wait(seconds) => Other::Wait(format!("{seconds}s")),
        // The simulation has one MetalLB from beginning to end.
        Event::Definitions(_) | Event::Rollout => return None,
    })
}

/// What a load balancer's spec has besides the minimum.
fn order(
    max_nodes: Option<u8>,
    everywhere: bool,
    dual: bool,
) -> serde_json::Map<String, serde_json::Value> {
    let mut spec = serde_json::Map::new();
    if let Some(max) = max_nodes {
        spec.insert("maxNodes".to_owned(), json!(max));
    }
    if !everywhere {
        spec.insert(
            "nodeSelector".to_owned(),
            json!({"matchLabels": {"role": "edge"}}),
        );
    }
    if dual {
        spec.insert(
            "service".to_owned(),
            json!({"ipFamilyPolicy": "RequireDualStack"}),
        );
    }
    spec
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0u8..7;
    prop_oneof![
        4 => node.clone().prop_map(Event::Join),
        1 => node.clone().prop_map(Event::Leave),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, r)| Event::Ready(n, r)),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, c)| Event::Cordon(n, c)),
        1 => (node, any::<bool>()).prop_map(|(n, l)| Event::Label(n, l)),
        4 => (0u8..5, prop::option::of(1u8..4), any::<bool>(), any::<bool>()).prop_map(
            |(name, max_nodes, everywhere, dual)| Event::Create { name, max_nodes, everywhere, dual }
        ),
        1 => (0u8..5).prop_map(Event::Delete),
        2 => prop_oneof![Just(1u32), Just(11), Just(3600), Just(90_000)].prop_map(Event::Wait),
        1 => (0u8..6).prop_map(Event::Definitions),
        1 => Just(Event::Rollout),
    ]
}

const RANGE: &str = "203.0.113.0-203.0.113.200";
const RANGE6: &str = "2001:db8::/64";

fn node(n: u8) -> String {
    format!("node-{n}")
}

fn key(n: u8) -> Key {
    Key::new("shop", format!("lb-{n}"))
}

fn start() -> Cluster {
    start_with(Capabilities::CURRENT)
}

fn start_with(metallb: Capabilities) -> Cluster {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut cluster = Cluster::with_metallb(now, metallb);
    cluster.add_pool("edge", &[RANGE, RANGE6]);
    // Whoever names no pool gets an address of this one.
    let everybodys = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "everybodys", "namespace": "metallb-system"},
        "spec": {"addresses": ["198.51.100.0/24"]}});
    cluster.put(Kind::IpAddressPool, everybodys).unwrap();
    cluster
}

fn happen(cluster: &mut Cluster, event: &Event) {
    match event {
        Event::Join(n) if !cluster.world.nodes.contains_key(&node(*n)) => {
            cluster.add_node(&node(*n), &[("role", "edge")]);
        }
        Event::Join(_) => {}
        Event::Leave(n) => cluster.remove_node(&node(*n)),
        Event::Ready(n, ready) => {
            let cordoned = cluster
                .world
                .nodes
                .get(&node(*n))
                .is_some_and(|n| n.cordoned);
            cluster.set_node(&node(*n), *ready, cordoned);
        }
        Event::Cordon(n, cordoned) => {
            let ready = cluster.world.nodes.get(&node(*n)).is_some_and(|n| n.ready);
            cluster.set_node(&node(*n), ready, *cordoned);
        }
        Event::Label(n, edge) => {
            if let Some(existing) = cluster.world.nodes.get(&node(*n)).cloned() {
                cluster.remove_node(&node(*n));
                let role = if *edge { "edge" } else { "worker" };
                cluster.add_node(&node(*n), &[("role", role)]);
                cluster.set_node(&node(*n), existing.ready, existing.cordoned);
            }
        }
        Event::Create {
            name,
            max_nodes,
            everywhere,
            dual,
        } => {
            if cluster.world.load_balancers.contains_key(&key(*name)) {
                return;
            }
            let spec = order(*max_nodes, *everywhere, *dual);
            cluster.add_load_balancer(&key(*name), "edge", &json!(spec));
        }
        Event::Delete(n) => cluster.delete_load_balancer(&key(*n)),
        Event::Wait(seconds) => cluster.advance(SignedDuration::from_secs(i64::from(*seconds))),
        Event::Definitions(n) => cluster.install_definitions(version(*n)),
        Event::Rollout => cluster.running = cluster.world.capabilities,
    }
}

/// MetalLB accepted whatever was written, and no Service lost an address that
/// it wanted to keep.
fn no_harm_is_done(cluster: &Cluster) {
    assert_eq!(cluster.rejected, Vec::<String>::new());
    assert_eq!(cluster.taken, vec![]);
}

/// Promise 1: no address twice, each in its pool, each family as asked.
fn addresses_are_right(cluster: &Cluster) {
    let ranges: Vec<AddressRange> = [RANGE, RANGE6]
        .iter()
        .map(|t| AddressRange::parse(t).unwrap())
        .collect();
    for (address, services) in cluster.named() {
        assert_eq!(services.len(), 1, "{address} is named by {services:?}");
        assert!(
            ranges.iter().any(|r| r.contains(address)),
            "{address} is outside the pool"
        );
    }
    for child in cluster.world.children.values().flat_map(|s| s.values()) {
        let families = child
            .service
            .spec
            .as_ref()
            .unwrap()
            .ip_families
            .as_ref()
            .unwrap();
        assert_eq!(child.addresses.len(), families.len(), "{}", child.key);
        assert_eq!(child.addresses, child.allocated, "{}", child.key);
    }
}

/// Promise 2: each balancer node is home to one slot of each load balancer.
fn homes_are_right(cluster: &Cluster) {
    for (key, lb) in &cluster.world.load_balancers {
        let spec = &lb.valid().unwrap().spec;
        let eligible: BTreeSet<&str> = cluster
            .world
            .nodes
            .values()
            .filter(|n| {
                spec.node_selector.is_none()
                    || n.labels.get("role").map(String::as_str) == Some("edge")
            })
            .map(|n| n.name.as_str())
            .collect();
        let wanted = eligible
            .len()
            .min(spec.max_nodes.map_or(usize::MAX, |m| m as usize));
        let empty = BTreeMap::new();
        let slots = cluster.world.children.get(key).unwrap_or(&empty);
        let homes: Vec<&str> = slots
            .values()
            .filter(|c| c.retire_at.is_none() && eligible.contains(c.home.as_str()))
            .map(|c| c.home.as_str())
            .collect();
        let distinct: BTreeSet<&str> = homes.iter().copied().collect();
        assert_eq!(
            homes.len(),
            distinct.len(),
            "{key}: two slots with one home: {homes:?}"
        );
        assert_eq!(
            distinct.len(),
            wanted,
            "{key}: homes {distinct:?} of {eligible:?}"
        );
    }
}

/// Promise 3: a live announcer for every address while a candidate is alive.
fn somebody_announces(cluster: &Cluster) {
    for (key, slots) in &cluster.world.children {
        let Some(lb) = cluster.world.load_balancers.get(key) else {
            continue;
        };
        let everywhere = lb.valid().unwrap().spec.node_selector.is_none();
        let alive = cluster
            .world
            .nodes
            .values()
            .any(|n| is_candidate(cluster, n, everywhere));
        for child in slots.values().filter(|_| alive) {
            let announcer = cluster.announcer(&child.key);
            assert!(announcer.is_some(), "{} is dark", child.key);
            let node = &cluster.world.nodes[announcer.unwrap()];
            assert!(node.ready, "{} is announced by a dead node", child.key);
        }
    }
}

/// Whether a node can announce, as MetalLB sees it.
fn is_candidate(cluster: &Cluster, node: &Node, everywhere: bool) -> bool {
    let silenced = node.cordoned && cluster.running.cordon_silences();
    let selected = everywhere || node.labels.get("role").map(String::as_str) == Some("edge");
    node.ready && selected && !silenced
}

/// Promise 3: whichever node dies, and nobody steers, another one that is
/// alive takes over, or `Pinned` has said that none would.
fn standbys_stand_by(cluster: &Cluster) {
    // While definitions and speakers differ, nobody can know what they do.
    if cluster.running != cluster.world.capabilities {
        return;
    }
    for dead in cluster.world.nodes.keys() {
        let mut after = cluster.clone();
        after.set_node(dead, false, false);
        after.play_metallb();
        for (key, slots) in &after.world.children {
            let Some(lb) = after.world.load_balancers.get(key) else {
                continue;
            };
            let lb = lb.valid().unwrap();
            let everywhere = lb.spec.node_selector.is_none();
            let mut alive = after.world.nodes.values();
            if !alive.any(|n| is_candidate(&after, n, everywhere)) {
                continue;
            }
            let mut conditions = lb.status.iter().flat_map(|s| &s.conditions);
            let pinned = conditions.find(|c| c.type_ == "Pinned").unwrap();
            for child in slots.values().filter(|c| after.announcer(&c.key).is_none()) {
                let (key, reason) = (&child.key, &pinned.reason);
                // A mistake in labels is said first.
                let said = reason == "NoStandby" || reason == "RetirementHeld";
                assert!(said, "{key} is dark without {dead}: {pinned:?}");
            }
        }
    }
}

/// What a slot keeps for life, for the slots whose home is a balancer node:
/// any other slot may be inherited by a node that joins.
fn slots(cluster: &Cluster) -> BTreeMap<Key, (String, Vec<IpAddr>)> {
    let mut all = BTreeMap::new();
    for (key, children) in &cluster.world.children {
        let lb = cluster
            .world
            .load_balancers
            .get(key)
            .and_then(|lb| lb.valid());
        let everywhere = lb.is_some_and(|lb| lb.spec.node_selector.is_none());
        for child in children.values().filter(|c| c.retire_at.is_none()) {
            let home = cluster.world.nodes.get(&child.home);
            let is_edge = |l: &BTreeMap<_, _>| l.get("role").map(String::as_str) == Some("edge");
            if home.is_some_and(|n| everywhere || is_edge(&n.labels)) {
                all.insert(
                    child.key.clone(),
                    (child.home.clone(), child.addresses.clone()),
                );
            }
        }
    }
    all
}

/// Promise 4: what happens to a node leaves the others' slots alone.
fn others_keep_theirs(
    before: &BTreeMap<Key, (String, Vec<IpAddr>)>,
    after: &BTreeMap<Key, (String, Vec<IpAddr>)>,
    affected: &str,
) {
    for (service, (home, addresses)) in before {
        if home == affected {
            continue;
        }
        let now = after.get(service);
        assert!(
            now.is_some(),
            "{service} of {home} is gone though only {affected} changed"
        );
        let (new_home, new_addresses) = now.unwrap();
        assert_eq!(addresses, new_addresses, "{service}");
        assert_eq!(home, new_home, "{service} though only {affected} changed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn promises_hold_through_any_history(
        metallb in 0u8..6, history in prop::collection::vec(event(), 1..40).prop_map(History)
    ) {
        let mut cluster = start_with(version(metallb));
        let mut planner = Planner::default();
        for event in &history.0 {
            let before = slots(&cluster);
            happen(&mut cluster, event);

            // A plan with memory is the plan without.
            let fresh = plan(&cluster.world);
            let remembered = planner.plan(&cluster.world);
            prop_assert_eq!(&fresh.changes, &remembered.changes);
            prop_assert_eq!(&fresh.events, &remembered.events);
            prop_assert_eq!(fresh.next_deadline, remembered.next_deadline);

            cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
            if let Event::Definitions(_) = event {
                // Pools that other definitions leave without use are given a
                // moment, and whoever needs their addresses waits for it.
                cluster.advance(SignedDuration::from_secs(10));
                cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
            }
            addresses_are_right(&cluster);
            homes_are_right(&cluster);
            somebody_announces(&cluster);
            no_harm_is_done(&cluster);
            if let Event::Join(n) | Event::Leave(n) | Event::Ready(n, _) | Event::Cordon(n, _)
                | Event::Label(n, _) = event
                && cluster.world.load_balancers.values().all(|lb| lb.valid().unwrap().spec.max_nodes.is_none())
            {
                others_keep_theirs(&before, &slots(&cluster), &node(*n));
            }

            // Promise 5: nothing is written while nothing happens.
            let mut calm = cluster.clone();
            calm.advance(SignedDuration::from_secs(1));
            if planner.plan(&calm.world).next_deadline.is_none_or(|at| at > calm.world.now) {
                prop_assert_eq!(plan(&calm.world).changes, vec![]);
            }
        }

        standbys_stand_by(&cluster);

        // Promise 6: nothing is left.
        for n in 0..5 {
            cluster.delete_load_balancer(&key(n));
        }
        cluster.delete_pool("edge");
        cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
        // A MetalLB that reports nothing is given a moment.
        cluster.advance(SignedDuration::from_secs(60));
        cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(cluster.world.children.is_empty());
        prop_assert_eq!(cluster.world.ip_address_pools.keys().collect::<Vec<_>>(), ["everybodys"]);
        prop_assert!(cluster.world.l2_advertisements.is_empty());
        prop_assert!(cluster.world.pools.is_empty());
    }

    /// Promise 2 with maxNodes: a new choice takes the nodes with the fewest homes.
    #[test]
    fn new_choices_go_where_homes_are_fewest(
        metallb in 4u8..6, nodes in 2u8..7, limits in prop::collection::vec(1u8..7, 1..12)
    ) {
        let mut cluster = start_with(version(metallb));
        for n in 0..nodes {
            cluster.add_node(&node(n), &[]);
        }
        let mut planner = Planner::default();
        for (index, limit) in limits.iter().enumerate() {
            let before = cluster.homes();
            let key = Key::new("shop", format!("lb-{index}"));
            cluster.add_load_balancer(&key, "edge", &json!({"maxNodes": limit}));
            cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let chosen: BTreeSet<&str> =
                cluster.world.children[&key].values().map(|c| c.home.as_str()).collect();
            let most = chosen.iter().map(|n| before[*n]).max().unwrap();
            let passed_over = before.iter().filter(|(n, _)| !chosen.contains(n.as_str()));
            for (name, homes) in passed_over {
                prop_assert!(*homes >= most, "{name} has {homes}, chosen were {chosen:?}");
            }
            let homes = cluster.homes();
            let spread = homes.values().max().unwrap() - homes.values().min().unwrap();
            prop_assert!(spread <= 1, "{homes:?}");
        }
    }

    /// Evenness without the controller: when a node dies, MetalLB's own order
    /// spreads its addresses over the survivors.
    #[test]
    fn heirs_are_spread_evenly(metallb in 0u8..6, nodes in 3u8..7, load_balancers in 4u8..30) {
        let mut cluster = start_with(version(metallb));
        for n in 0..nodes {
            cluster.add_node(&node(n), &[]);
        }
        let mut planner = Planner::default();
        let key = |n: u8| Key::new("shop", format!("many-{n}"));
        for n in 0..load_balancers.min(100 / nodes) {
            cluster.add_load_balancer(&key(n), "edge", &json!({}));
            cluster.settle(&mut planner).map_err(|e| TestCaseError::fail(e.to_string()))?;
        }
        for dead in 0..nodes {
            let mut after = cluster.clone();
            let before = after.announced();
            after.set_node(&node(dead), false, false);
            // No plan is made: only MetalLB acts.
            after.play_metallb();
            let gains: Vec<usize> = after
                .announced()
                .iter()
                .filter(|(n, _)| **n != node(dead))
                .map(|(n, count)| count - before[n])
                .collect();
            let spread = gains.iter().max().unwrap() - gains.iter().min().unwrap();
            prop_assert!(spread <= 2, "{gains:?}");
        }
    }

    /// Equal worlds in any order give equal plans.
    #[test]
    fn the_order_of_observation_does_not_matter(
        order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle()
    ) {
        let mut manifests = vec![json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge"}, "spec": {"addresses": [RANGE, RANGE6]}})];
        for n in 0..6 {
            manifests.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                "name": node(n), "labels": {"kubernetes.io/hostname": node(n)}}}));
        }
        for n in 0..5 {
            manifests.push(json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
                "metadata": {"name": format!("lb-{n}"), "namespace": "shop"},
                "spec": {"addressPool": "edge", "maxNodes": n + 1, "service": {
                    "selector": {"app": "x"}, "ports": [{"port": 80}]}}}));
        }
        let build = |order: &mut dyn Iterator<Item = usize>| {
            let mut world = start().world;
            for index in order {
                let observed = l2lb::world::observe_manifest(manifests[index].clone());
                world.observe(observed.unwrap().unwrap());
            }
            plan(&world).changes
        };
        prop_assert_eq!(build(&mut order.into_iter()), build(&mut (0..12)));
    }

    /// Promise 8: whatever is stored, nothing panics, and what is sound is served.
    #[test]
    fn broken_objects_stop_nobody(
        texts in prop::collection::vec("[-a-z0-9./: ]{0,24}", 6),
        number in any::<i32>(),
        field in 0usize..12,
    ) {
        let mut cluster = start();
        for n in 0..3 {
            cluster.add_node(&node(n), &[]);
        }
        let mut pool = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "bad"}, "spec": {"addresses": [texts[0], "198.51.100.0/28"]}});
        let mut lb = json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2LoadBalancer",
            "metadata": {"name": "bad", "namespace": "shop"}, "spec": {"addressPool": "bad",
            "service": {"selector": {"app": "x"}, "ports": [{"port": 80}]}}});
        match field {
            0 => pool["spec"]["addresses"] = json!(texts),
            1 => pool["spec"] = json!(texts[1]),
            2 => pool["spec"]["nodeSelector"] = json!({"matchLabels": {texts[1].clone(): texts[2]}}),
            3 => pool["spec"]["interfaces"] = json!(number),
            4 => lb["spec"]["addresses"] = json!(texts),
            5 => lb["spec"]["retirementPeriod"] = json!(texts[3]),
            6 => lb["spec"]["maxNodes"] = json!(number),
            7 => lb["spec"]["service"] = json!({}),
            8 => lb["spec"]["nodeSelector"] = json!({"matchExpressions": [
                {"key": texts[1], "operator": texts[2], "values": [texts[3]]}]}),
            9 => lb["status"] = json!({"slots": texts}),
            10 => lb["spec"]["service"]["ports"] = json!([{"port": number}]),
            _ => lb["spec"]["addressPool"] = json!(texts[4]),
        }
        cluster.put(Kind::AddressPool, pool).unwrap();
        cluster.put(Kind::LoadBalancer, lb).unwrap();
        cluster.add_load_balancer(&key(0), "edge", &json!({}));
        let mut planner = Planner::default();
        // A broken status is written once with conditions and then compared
        // by them; either way the sound one is served.
        let _ = cluster.settle(&mut planner);
        prop_assert_eq!(cluster.world.children[&key(0)].len(), 3);
        somebody_announces_one(&cluster, &key(0));
    }
}

fn somebody_announces_one(cluster: &Cluster, key: &Key) {
    for child in cluster.world.children[key].values() {
        assert_eq!(cluster.announcer(&child.key), Some(child.home.as_str()));
    }
}
