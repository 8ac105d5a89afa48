//! The controller, as the shell around view, planner and batch, and the
//! cluster that it works on.

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
use serde_json::json;

use super::people::{
    balancer, foreign_services, load_balancer, node, pool, ready_node, squat, tamper,
};
use super::step::{Course, Fate, Step};
use super::store::{Store, object};
use super::tally::Tally;

/// The controller.
pub struct Controller {
    pub view: View,
    planner: Planner,
    batch: Batch,
    pub stage: VecDeque<Change>,
    answers: VecDeque<(Change, Answer)>,
}

/// Everything.
pub struct Model {
    pub store: Store,
    pub controller: Controller,
    /// Writes that were sent and may still be carried out, until a time.
    pub landing: Vec<(Change, Timestamp)>,
    /// What happened.
    pub tally: Tally,
}

pub fn controller(now: Timestamp, metallb: Capabilities) -> Controller {
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

impl Model {
    /// Three nodes and a pool, and a controller whose lists are complete.
    pub fn new(metallb: Capabilities) -> Self {
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
            tally: Tally::default(),
        };
        for number in 0..3 {
            model.step(&Step::AddNode(number));
        }
        model.step(&Step::CreatePool(0));
        model.relist_all();
        model.deliver_all();
        model
    }

    pub fn relist_all(&mut self) {
        for kind in resource::KINDS {
            self.store.relist(kind);
        }
    }

    pub fn step(&mut self, step: &Step) {
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
            Step::Deny(kind) => store.denied = *kind,
            Step::Tamper(number) => tamper(store, usize::from(*number)),
            Step::MetalLb => store.metallb(),
            Step::Collect => store.collect_garbage(),
            Step::Deliver(kind, count) => self.deliver(*kind, usize::from(*count)),
            Step::DeliverAll => self.deliver_all(),
            Step::Relist(kind) => store.relist(*kind),
            Step::Round(writes) => {
                self.deliver_all();
                self.round(usize::from(*writes));
            }
            Step::Plan(asks) => self.plan(*asks),
            Step::Write(fate) => self.write(*fate),
            Step::Answer => self.answer(1),
            Step::Land => self.land(1),
            Step::Crash(complete) => self.crash(*complete),
            Step::Pass(seconds) => self.pass(i64::from(*seconds)),
        }
        self.check();
    }

    /// The Lease of the one that crashed outlives its last write.
    fn crash(&mut self, complete: bool) {
        self.land(usize::MAX);
        let controller = &self.controller;
        let at_work = !controller.stage.is_empty() || !controller.answers.is_empty();
        self.tally.crashes += 1;
        self.tally.crashes_at_work += usize::from(at_work);
        self.begin();
        if complete {
            self.deliver_all();
        }
    }

    /// A controller that knows nothing yet.
    pub fn begin(&mut self) {
        self.controller = controller(self.store.now, self.store.metallb);
        self.relist_all();
    }

    pub fn pass(&mut self, seconds: i64) {
        self.store.now += SignedDuration::from_secs(seconds);
        let now = self.store.now;
        self.landing.retain(|(_, until)| *until > now);
    }

    fn deliver(&mut self, kind: Kind, count: usize) {
        let queue = self.store.queues.entry(kind).or_default();
        let count = count.min(queue.len());
        let news: Vec<_> = queue.drain(..count).collect();
        self.controller.view.set_time(self.store.now);
        for news in news {
            self.controller.view.hear(news);
        }
    }

    pub fn deliver_all(&mut self) {
        for kind in resource::KINDS {
            self.deliver(kind, usize::MAX);
        }
    }

    /// What the shell does between two rounds; a round that is under way may
    /// be left at any point.
    pub fn plan(&mut self, asks: bool) {
        self.answer(usize::MAX);
        let controller = &mut self.controller;
        if !controller.view.missing().is_empty() {
            return;
        }
        let now = self.store.now;
        for question in controller.view.questions(now) {
            self.tally.questions += 1;
            if asks {
                let found = self.store.observe(&question.object);
                controller.view.settled(&question, found);
            } else {
                let later = now + SignedDuration::from_secs(2);
                controller.view.postpone(&question, later);
            }
        }
        let round = controller.view.plan(&mut controller.planner, now);
        self.tally.plans += 1;
        self.tally.plans_to_write += usize::from(!round.changes.is_empty());
        controller.batch = Batch::new(round.changes);
        controller.stage = VecDeque::new();
    }

    pub fn write(&mut self, fate: Fate) {
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
        let answer = match fate {
            Fate::Answered | Fate::AnsweredLater => self.store.write(&change),
            Fate::Lost(course) => {
                self.go_silent(&change, course);
                Answer::Lost("no answer".to_owned())
            }
            Fate::Overdue(course) => {
                self.go_silent(&change, course);
                Answer::Overdue("it did not complete in time".to_owned())
            }
            Fate::Unavailable => Answer::Unavailable("busy".to_owned()),
        };
        self.tally.answered(&change, &answer);
        let controller = &mut self.controller;
        controller.batch.answered(&change, &answer);
        if controller.batch.is_outage() {
            controller.batch = Batch::default();
            controller.stage.clear();
        }
        controller.answers.push_back((change, answer));
        if !matches!(fate, Fate::AnsweredLater) {
            self.answer(usize::MAX);
        }
    }

    fn go_silent(&mut self, change: &Change, course: Course) {
        match course {
            Course::Done => drop(self.store.write(change)),
            Course::NotDone => {}
            Course::DoneLater => {
                // The server ends it before the client stops to reckon with it.
                let until = self.store.now + LANDING - SignedDuration::from_millis(1);
                self.landing.push((change.clone(), until));
            }
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
            let done = self.store.write(&change).is_success();
            self.tally.landed += usize::from(done);
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
    pub fn rest(&mut self) {
        self.store.quota = false;
        self.store.denied = None;
        for round in 0..400 {
            self.land(usize::MAX);
            self.store.collect_garbage();
            self.store.metallb();
            self.deliver_all();
            let writes = self.store.writes;
            self.round(usize::MAX);
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

    /// Plans, and writes as much of it.
    fn round(&mut self, mut writes: usize) {
        self.plan(true);
        while writes > 0 && (!self.controller.stage.is_empty() || self.has_more()) {
            self.write(Fate::Answered);
            self.check();
            writes -= 1;
        }
        self.answer(usize::MAX);
    }

    pub fn has_more(&mut self) -> bool {
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
    pub fn check_rest(&mut self) {
        assert_eq!(self.pending(), vec![]);
        self.begin();
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
