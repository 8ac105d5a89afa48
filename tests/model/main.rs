//! A model test of the plan loop: the real view, planner and batches against
//! an API server in memory, with late news, late and lost answers, and crashes
//! between any two writes. No address is ever in two child Services, and in
//! the end there is nothing left to do, also for a controller that just began.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;
mod others;
mod people;
mod step;
mod store;
mod tally;

use std::cell::RefCell;

use l2lb::metallb::Capabilities;
use l2lb::world::Kind;
use model::Model;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use step::{Course, Fate, Step, step};
use tally::Tally;

/// One without preferences: each slot has a pool and an advertisement.
fn older_metallb() -> Capabilities {
    Capabilities::of_version("0.15.2").unwrap()
}

/// Returns what happened before all came to rest.
fn run(metallb: Capabilities, steps: &[Step]) -> Tally {
    let mut model = Model::new(metallb);
    for step in steps {
        model.step(step);
    }
    let tally = model.tally.clone();
    model.rest();
    model.check_rest();
    tally
}

#[test]
fn no_address_is_given_twice_and_all_comes_to_rest() {
    let config = ProptestConfig {
        max_shrink_iters: 4000,
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let count = usize::try_from(config.cases).unwrap();
    let cases = (any::<bool>(), prop::collection::vec(step(), 1..220));
    let total = RefCell::new(Tally::default());
    let outcome = TestRunner::new(config).run(&cases, |(older, steps)| {
        let metallb = if older {
            older_metallb()
        } else {
            Capabilities::CURRENT
        };
        *total.borrow_mut() += run(metallb, &steps);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let total = total.into_inner();
    happened(&total, count);
}

/// Everything that is tried happened, and often enough that chance does not
/// make this fail: a quarter of what is usual.
fn happened(total: &Tally, cases: usize) {
    for (what, count) in [
        ("plans", total.plans / 4),
        ("plans with something to write", total.plans_to_write / 3),
        ("questions", total.questions * 4),
        ("moves", total.moves * 16),
        ("crashes", total.crashes * 3),
        ("crashes while writing", total.crashes_at_work * 64),
        ("late writes that came into effect", total.landed * 32),
        ("stored", total.with("stored") / 4),
        ("outdated", total.with("outdated") * 32),
        ("refused", total.with("refused") * 16),
        ("lost", total.with("lost") * 8),
        ("overdue", total.with("overdue") * 8),
        ("unavailable", total.with("unavailable") * 16),
    ] {
        assert!(count >= cases, "too few {what}: {total:#?}");
    }
    for verb in ["create", "apply", "status", "delete"] {
        let stored = |outcome| total.writes.get(&(verb, outcome)).copied().unwrap_or(0);
        let done = stored("stored") + stored("gone");
        assert!(done * 4 >= cases, "too few of {verb}: {total:#?}");
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
    model.step(&Step::Plan(true));
    // Everything but the Services is written; then those are lost.
    for _ in 0..100 {
        if model.controller.stage.is_empty() && !model.has_more() {
            model.step(&Step::Plan(true));
            continue;
        }
        let is_service = model.controller.stage[0].object.kind == Kind::Service;
        let fate = if is_service {
            Fate::Lost(Course::DoneLater)
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
        model.step(&Step::Plan(true));
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
