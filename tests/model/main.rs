//! A model test of the plan loop: the real view, planner and batches against
//! an API server in memory, with late news, late and lost answers, and crashes
//! between any two writes. No address is ever in two child Services, and in
//! the end there is nothing left to do, also for a controller that just began.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod store;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use l2lb::address::AddressRange;
use l2lb::controller::answer::Answer;
use l2lb::controller::batch::Batch;
use l2lb::controller::resource;
use l2lb::controller::view::{LANDING, View};
use l2lb::metallb::Capabilities;
use l2lb::plan::{Change, Planner};
use l2lb::world::{Kind, ObjectRef, Options};
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{METALLB, Store, object};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    CreateLoadBalancer(u8, u8),
    EditLoadBalancer(u8, u16),
    DeleteLoadBalancer(u8),
    CreatePool(u8),
    GrowPool(u8),
    DeletePool(u8),
    AddNode(u8),
    RemoveNode(u8),
    SetReady(u8, bool),
    Cordon(u8, bool),
    Squat(u8),
    Unsquat(u8),
    Quota(bool),
    Tamper(u8),
    MetalLb,
    Collect,
    Deliver(u8, u8),
    Relist(u8),
    Plan,
    Write(Fate),
    Answer,
    Land,
    Crash,
    Pass(u8),
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    AnsweredLater,
    DoneAndLost,
    NotDoneAndLost,
    LostAndDoneLater,
    Unavailable,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Answered),
        4 => Just(Fate::AnsweredLater),
        1 => Just(Fate::DoneAndLost),
        1 => Just(Fate::NotDoneAndLost),
        1 => Just(Fate::LostAndDoneLater),
        1 => Just(Fate::Unavailable),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4u8, 0..4u8).prop_map(|(a, b)| Step::CreateLoadBalancer(a, b)),
        1 => (0..4u8, 1..100u16).prop_map(|(a, b)| Step::EditLoadBalancer(a, b)),
        1 => (0..4u8).prop_map(Step::DeleteLoadBalancer),
        1 => (0..2u8).prop_map(Step::CreatePool),
        1 => (0..2u8).prop_map(Step::GrowPool),
        1 => (0..2u8).prop_map(Step::DeletePool),
        2 => (0..5u8).prop_map(Step::AddNode),
        1 => (0..5u8).prop_map(Step::RemoveNode),
        2 => (0..5u8, any::<bool>()).prop_map(|(n, r)| Step::SetReady(n, r)),
        1 => (0..5u8, any::<bool>()).prop_map(|(n, r)| Step::Cordon(n, r)),
        1 => (0..6u8).prop_map(Step::Squat),
        1 => (0..6u8).prop_map(Step::Unsquat),
        1 => any::<bool>().prop_map(Step::Quota),
        1 => (0..16u8).prop_map(Step::Tamper),
        3 => Just(Step::MetalLb),
        1 => Just(Step::Collect),
        12 => (0..10u8, 1..8u8).prop_map(|(k, n)| Step::Deliver(k, n)),
        1 => (0..10u8).prop_map(Step::Relist),
        10 => Just(Step::Plan),
        30 => fate().prop_map(Step::Write),
        4 => Just(Step::Answer),
        1 => Just(Step::Land),
        1 => Just(Step::Crash),
        3 => (1..60u8).prop_map(Step::Pass),
    ]
}

/// The controller, as the shell around view, planner and batch.
struct Controller {
    view: View,
    planner: Planner,
    batch: Batch,
    stage: VecDeque<Change>,
    answers: VecDeque<(Change, Answer)>,
}

struct Model {
    store: Store,
    controller: Controller,
    /// Writes that were sent and may still be carried out, until a time.
    landing: Vec<(Change, Timestamp)>,
}

fn controller(now: Timestamp, metallb: Capabilities) -> Controller {
    let mut view = View::new(now, Options::default());
    view.hear(Store::definitions(metallb));
    Controller {
        view,
        planner: Planner::default(),
        batch: Batch::default(),
        stage: VecDeque::new(),
        answers: VecDeque::new(),
    }
}

fn load_balancer(number: u8) -> ObjectRef {
    object(Kind::LoadBalancer, "shop", &format!("lb{number}"))
}

fn pool(number: u8) -> ObjectRef {
    object(Kind::AddressPool, "", &format!("pool{number}"))
}

fn node(number: u8) -> ObjectRef {
    object(Kind::Node, "", &format!("node{number}"))
}

impl Model {
    fn new(metallb: Capabilities) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut store = Store::default();
        store.now = now;
        store.metallb = metallb;
        store.put(
            &object(Kind::Namespace, "", "shop"),
            json!({"metadata": {}}),
        );
        let kubernetes = object(Kind::Service, "default", "kubernetes");
        store.put(
            &kubernetes,
            json!({"metadata": {}, "spec": {"ipFamilies": ["IPv4"], "clusterIP": "10.96.0.1"}}),
        );
        let mut model = Self {
            store,
            controller: controller(now, metallb),
            landing: Vec::new(),
        };
        for number in 0..3 {
            model.step(&Step::AddNode(number));
        }
        model.step(&Step::CreatePool(0));
        model.relist_all();
        model
    }

    fn relist_all(&mut self) {
        for kind in resource::KINDS {
            self.store.relist(kind);
        }
    }

    fn step(&mut self, step: &Step) {
        let store = &mut self.store;
        match step {
            Step::CreateLoadBalancer(number, kind) => {
                let object = load_balancer(*number);
                if store.get(&object).is_none() {
                    store.put(&object, balancer(*kind));
                }
            }
            Step::EditLoadBalancer(number, port) => {
                let ports = json!([{"port": port, "protocol": "TCP"}]);
                store.edit(&load_balancer(*number), |v| {
                    v["spec"]["service"]["ports"] = ports
                });
            }
            Step::DeleteLoadBalancer(number) => store.delete(&load_balancer(*number)),
            Step::CreatePool(number) => {
                let object = pool(*number);
                if store.get(&object).is_none() {
                    let range = format!("192.0.2.{}-192.0.2.{}", number * 64 + 1, number * 64 + 9);
                    store.put(
                        &object,
                        json!({"metadata": {}, "spec": {"addresses": [range]}}),
                    );
                }
            }
            Step::GrowPool(number) => {
                let range = format!("192.0.2.{}-192.0.2.{}", number * 64 + 1, number * 64 + 20);
                store.edit(&pool(*number), |v| v["spec"]["addresses"] = json!([range]));
            }
            Step::DeletePool(number) => store.delete(&pool(*number)),
            Step::AddNode(number) => {
                let object = node(*number);
                if store.get(&object).is_none() {
                    let value = ready_node(&object.key.name, true, store.now);
                    store.put(&object, value);
                }
            }
            Step::RemoveNode(number) => store.delete(&node(*number)),
            Step::SetReady(number, ready) => {
                let object = node(*number);
                let status = ready_node(&object.key.name, *ready, store.now)["status"].clone();
                store.edit(&object, |v| v["status"] = status);
            }
            Step::Cordon(number, cordoned) => {
                store.edit(&node(*number), |v| {
                    v["spec"]["unschedulable"] = json!(cordoned)
                });
            }
            Step::Squat(number) => squat(store, *number),
            Step::Unsquat(number) => {
                let foreign: Vec<ObjectRef> = foreign_services(store);
                if let Some(object) = foreign.get(usize::from(*number)) {
                    store.delete(object);
                }
            }
            Step::Quota(on) => store.quota = *on,
            Step::Tamper(number) => tamper(store, usize::from(*number)),
            Step::MetalLb => store.metallb(),
            Step::Collect => store.collect_garbage(),
            Step::Deliver(kind, count) => self.deliver(usize::from(*kind), usize::from(*count)),
            Step::Relist(kind) => store.relist(resource::KINDS[usize::from(*kind)]),
            Step::Plan => self.plan(),
            Step::Write(fate) => self.write(*fate),
            Step::Answer => self.answer(1),
            Step::Land => self.land(1),
            Step::Crash => {
                // The Lease of the one that crashed outlives its last write.
                self.land(usize::MAX);
                self.controller = controller(self.store.now, self.store.metallb);
                self.relist_all();
            }
            Step::Pass(seconds) => self.pass(i64::from(*seconds)),
        }
        self.check();
    }

    fn pass(&mut self, seconds: i64) {
        self.store.now += SignedDuration::from_secs(seconds);
        let now = self.store.now;
        self.landing.retain(|(_, until)| *until > now);
    }

    fn deliver(&mut self, kind: usize, count: usize) {
        let queue = self.store.queues.entry(resource::KINDS[kind]).or_default();
        let count = count.min(queue.len());
        let news: Vec<_> = queue.drain(..count).collect();
        self.controller.view.set_time(self.store.now);
        for news in news {
            self.controller.view.hear(news);
        }
    }

    fn deliver_all(&mut self) {
        for kind in 0..resource::KINDS.len() {
            self.deliver(kind, usize::MAX);
        }
    }

    /// What the shell does between two rounds; a round that is under way may
    /// be left at any point.
    fn plan(&mut self) {
        self.answer(usize::MAX);
        let controller = &mut self.controller;
        if !controller.view.missing().is_empty() {
            return;
        }
        let now = self.store.now;
        for question in controller.view.questions(now) {
            controller
                .view
                .settled(&question, self.store.observe(&question.object));
        }
        let round = controller.view.plan(&mut controller.planner, now);
        controller.batch = Batch::new(round.changes);
        controller.stage = VecDeque::new();
    }

    fn write(&mut self, fate: Fate) {
        if self.controller.stage.is_empty() {
            // Every answer of a stage is awaited before the next.
            self.answer(usize::MAX);
            match self.controller.batch.next_stage() {
                Some(stage) => self.controller.stage = stage.into(),
                None => return,
            }
        }
        let Some(change) = self.controller.stage.pop_front() else {
            return;
        };
        let lost = || Answer::Lost("no answer".to_owned());
        let answer = match fate {
            Fate::Answered | Fate::AnsweredLater => self.store.write(&change),
            Fate::DoneAndLost => {
                self.store.write(&change);
                lost()
            }
            Fate::NotDoneAndLost => lost(),
            Fate::LostAndDoneLater => {
                // The server ends it before the client stops to reckon with it.
                let until = self.store.now + LANDING - SignedDuration::from_millis(1);
                self.landing.push((change.clone(), until));
                lost()
            }
            Fate::Unavailable => Answer::Unavailable("busy".to_owned()),
        };
        let controller = &mut self.controller;
        if !answer.is_success() {
            controller.batch.failed(&change);
        }
        if answer.is_outage() {
            controller.batch = Batch::default();
            controller.stage.clear();
        }
        controller.answers.push_back((change, answer));
        if !matches!(fate, Fate::AnsweredLater) {
            self.answer(usize::MAX);
        }
    }

    fn answer(&mut self, count: usize) {
        let controller = &mut self.controller;
        for _ in 0..count.min(controller.answers.len()) {
            if let Some((change, answer)) = controller.answers.pop_front() {
                controller.view.answered(&change, answer, self.store.now);
            }
        }
    }

    fn land(&mut self, count: usize) {
        for _ in 0..count.min(self.landing.len()) {
            let (change, _) = self.landing.remove(0);
            self.store.write(&change);
            self.check();
        }
    }

    /// What must hold at every moment.
    fn check(&mut self) {
        let mut holders: BTreeMap<IpAddr, String> = BTreeMap::new();
        for (key, addresses) in self.store.children() {
            assert_eq!(addresses.len(), 1, "{key} names {addresses:?}");
            for address in addresses {
                if let Some(other) = holders.insert(address, key.to_string()) {
                    panic!("{address} is given to {other} and to {key}");
                }
                let IpAddr::V4(v4) = address else {
                    panic!("{key} has {address}")
                };
                let last = v4.octets()[3] % 64;
                assert!(
                    (1..=20).contains(&last),
                    "{key} has {address}, which is in no pool"
                );
            }
        }
    }

    /// Lets everything come to rest.
    fn rest(&mut self) {
        self.store.quota = false;
        for round in 0..400 {
            self.land(usize::MAX);
            self.store.collect_garbage();
            self.store.metallb();
            self.deliver_all();
            let writes = self.store.writes;
            self.plan();
            while !self.controller.stage.is_empty() || self.has_more() {
                self.write(Fate::Answered);
                self.check();
            }
            self.answer(usize::MAX);
            self.check();
            // Backoffs, hold-downs and retirements pass.
            self.pass(if round % 20 == 19 { 400 } else { 11 });
            if self.store.writes == writes && round > 60 {
                return;
            }
        }
        let changes = self.pending();
        panic!("it does not come to rest: {changes:#?}");
    }

    fn has_more(&mut self) -> bool {
        match self.controller.batch.next_stage() {
            Some(stage) if stage.is_empty() => self.has_more(),
            Some(stage) => {
                self.controller.stage = stage.into();
                true
            }
            None => false,
        }
    }

    fn pending(&mut self) -> Vec<Change> {
        let controller = &mut self.controller;
        controller
            .view
            .plan(&mut controller.planner, self.store.now)
            .changes
    }

    /// At rest, a controller that has just begun has nothing to do either.
    fn check_rest(&mut self) {
        assert_eq!(self.pending(), vec![]);
        self.controller = controller(self.store.now, self.store.metallb);
        self.relist_all();
        self.deliver_all();
        assert_eq!(self.pending(), vec![], "after a restart");
        let owners: Vec<String> = self
            .store
            .all(Kind::LoadBalancer)
            .map(|(o, _)| o.key.name.clone())
            .collect();
        // No two of MetalLB's pools overlap.
        let mut seen = BTreeMap::new();
        for (pool, value) in self.store.all(Kind::IpAddressPool) {
            for text in value["spec"]["addresses"].as_array().into_iter().flatten() {
                let range = AddressRange::parse(text.as_str().unwrap()).unwrap();
                for (other, name) in &seen {
                    assert!(!range.overlaps(other), "{pool} and {name} overlap: {range}");
                }
                seen.insert(range, pool.key.name.clone());
            }
        }
        for (key, _) in self.store.children() {
            let (owner, _) = key.name.rsplit_once('-').unwrap();
            assert!(owners.iter().any(|o| o == owner), "{key} was left behind");
        }
    }
}

fn balancer(kind: u8) -> Value {
    let mut spec = json!({
        "addressPool": format!("pool{}", kind % 2),
        "retirementPeriod": "60s",
        "service": {"selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    if kind >= 2 {
        spec["maxNodes"] = json!(2);
        spec["nodeSelector"] = json!({"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node0"]}]});
    }
    json!({"metadata": {"generation": 1}, "spec": spec})
}

fn ready_node(name: &str, ready: bool, now: Timestamp) -> Value {
    json!({
        "metadata": {"labels": {"kubernetes.io/hostname": name}},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "Unknown" },
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}]},
    })
}

/// Somebody else's Service takes a name or an address that we may want.
fn squat(store: &mut Store, number: u8) {
    let (name, address) = match number {
        0 => ("lb0-1", "192.0.2.200"),
        1 => ("lb1-0", "192.0.2.201"),
        2 => ("foreign", "192.0.2.3"),
        _ => ("other", "192.0.2.68"),
    };
    let service = object(Kind::Service, "shop", name);
    let used = store
        .children()
        .iter()
        .any(|(_, a)| a.iter().any(|a| a.to_string() == address));
    if store.get(&service).is_none() && !used {
        let status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        store.put(
            &service,
            json!({"metadata": {}, "spec": {}, "status": status}),
        );
    }
}

fn foreign_services(store: &Store) -> Vec<ObjectRef> {
    let children: Vec<_> = store.children().into_iter().map(|(key, _)| key).collect();
    store
        .all(Kind::Service)
        .map(|(o, _)| o.clone())
        .filter(|o| o.key.namespace == "shop" && !children.contains(&o.key))
        .collect()
}

/// Somebody changes or deletes something of ours.
fn tamper(store: &mut Store, number: usize) {
    let children: Vec<_> = store.children().into_iter().map(|(key, _)| key).collect();
    if number < 12 {
        let Some(key) = children.get(number / 3) else {
            return;
        };
        let service = ObjectRef {
            kind: Kind::Service,
            key: key.clone(),
        };
        match number % 3 {
            0 => store.delete(&service),
            1 => store.edit(&service, |v| {
                v["spec"]["selector"] = json!({"app": "other"})
            }),
            _ => store.edit(&service, |v| {
                v["metadata"]["labels"]["l2lb.io/pin"] = json!("node9")
            }),
        }
        return;
    }
    let kind = if number.is_multiple_of(2) {
        Kind::IpAddressPool
    } else {
        Kind::L2Advertisement
    };
    let ours: Vec<_> = store.all(kind).map(|(o, _)| o.clone()).collect();
    if let Some(object) = ours.first() {
        assert_eq!(object.key.namespace, METALLB);
        store.delete(object);
    }
}

/// One without preferences: each slot has a pool and an advertisement.
fn older_metallb() -> Capabilities {
    Capabilities::of_version("0.15.2").unwrap()
}

fn run(metallb: Capabilities, steps: &[Step]) {
    let mut model = Model::new(metallb);
    for step in steps {
        model.step(step);
    }
    model.rest();
    model.check_rest();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_address_is_given_twice_and_all_comes_to_rest(
        older in any::<bool>(), steps in prop::collection::vec(step(), 1..220)
    ) {
        run(if older { older_metallb() } else { Capabilities::CURRENT }, &steps);
    }
}

/// The plain course, so that the model is known to do something.
#[test]
fn a_load_balancer_gets_its_services() {
    gets_its_services(Capabilities::CURRENT, 1 + 3);
    gets_its_services(older_metallb(), 3 + 3);
}

fn gets_its_services(metallb: Capabilities, objects: usize) {
    let mut model = Model::new(metallb);
    model.step(&Step::CreateLoadBalancer(0, 0));
    model.rest();
    model.check_rest();
    assert_eq!(model.store.children().len(), 3);
    let creations = model.store.writes;
    assert!(
        creations >= 3 + objects,
        "Services, pool and advertisements: {creations}"
    );
    model.step(&Step::DeleteLoadBalancer(0));
    model.step(&Step::DeletePool(0));
    model.rest();
    assert_eq!(model.store.children().len(), 0);
    for kind in [
        Kind::IpAddressPool,
        Kind::L2Advertisement,
        Kind::AddressPool,
    ] {
        assert_eq!(model.store.all(kind).count(), 0, "{kind:?}");
    }
}

/// What is planned and cannot be written counts as taken, also for a planner
/// that remembers its last plan.
#[test]
fn a_plan_does_not_depend_on_memory() {
    use Step::*;
    run(
        Capabilities::CURRENT,
        &[
            CreateLoadBalancer(0, 1),
            AddNode(3),
            Squat(0),
            CreateLoadBalancer(3, 1),
            CreateLoadBalancer(1, 2),
            Pass(1),
            CreateLoadBalancer(2, 3),
            CreatePool(1),
            AddNode(4),
        ],
    );
}

/// A creation without an answer, of a load balancer that is gone by now, comes
/// into effect after the addresses were planned anew.
#[test]
fn an_address_is_not_given_again_while_its_creation_may_come_late() {
    let mut model = Model::new(Capabilities::CURRENT);
    model.rest();
    model.step(&Step::CreateLoadBalancer(0, 0));
    model.deliver_all();
    model.step(&Step::Plan);
    // Everything but the Services is written; then those are lost.
    for _ in 0..100 {
        if model.controller.stage.is_empty() && !model.has_more() {
            model.step(&Step::Plan);
            continue;
        }
        let is_service = model.controller.stage[0].object.kind == Kind::Service;
        let fate = if is_service {
            Fate::LostAndDoneLater
        } else {
            Fate::Answered
        };
        model.step(&Step::Write(fate));
    }
    assert_eq!(model.landing.len(), 3);
    model.step(&Step::DeleteLoadBalancer(0));
    model.step(&Step::CreateLoadBalancer(1, 0));
    for _ in 0..5 {
        model.deliver_all();
        model.step(&Step::Plan);
        while model.has_more() {
            while !model.controller.stage.is_empty() {
                model.step(&Step::Write(Fate::Answered));
            }
        }
    }
    assert_eq!(
        model.store.children().len(),
        3,
        "the new load balancer is served meanwhile"
    );
    model.step(&Step::Land);
    model.step(&Step::Land);
    model.step(&Step::Land);
    model.rest();
    model.check_rest();
}
