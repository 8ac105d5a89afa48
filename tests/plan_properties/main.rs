//! The promises of the planner, over random histories of a made-up cluster.
//! Their numbers are those of docs/architecture.md.

#![allow(clippy::unwrap_used, clippy::panic)]

mod addresses;
mod announcers;
mod broken;
mod choices;
mod events;
mod slots;

use jiff::SignedDuration;
use l2lb::plan::{Plan, Planner, plan};
use l2lb::simulate::{Cluster, METALLB_VERSIONS};
use l2lb::world::{Kind, ObjectRef};
use proptest::prelude::*;

use announcers::{somebody_announces, standbys_stand_by};
use events::{Event, happen, history, key};
use slots::{who_stays_keeps_its_own, wrong_homes};

fn settle(cluster: &mut Cluster, planner: &mut Planner) -> Result<(), TestCaseError> {
    let settled = cluster.settle(planner);
    settled
        .map(drop)
        .map_err(|e| TestCaseError::fail(e.to_string()))
}

/// MetalLB accepted whatever was written, no Service lost an address that it
/// wanted to keep, and what is others' was left.
fn no_harm_is_done(cluster: &Cluster) {
    assert_eq!(cluster.rejected, Vec::<String>::new());
    assert_eq!(cluster.taken, vec![]);
    assert_eq!(cluster.trespasses, vec![]);
}

/// What a Service that is not ours merely asks for, of whatever type it is, moves
/// no address and withholds none: the plan is the same without it.
fn wishes_change_nothing(cluster: &Cluster, planned: &Plan) {
    let mut world = cluster.world.clone();
    for (key, service) in &cluster.world.foreign_services {
        if service.addresses.is_empty() {
            let (kind, key) = (Kind::Service, key.clone());
            world.forget(&ObjectRef { kind, key });
        }
    }
    assert_eq!(plan(&world).changes, planned.changes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn promises_hold_through_any_history(history in history()) {
        let mut cluster = history.start();
        let mut planner = Planner::default();
        for event in &history.events {
            let before = cluster.clone();
            happen(&mut cluster, event);
            let others = cluster.world.foreign_services.clone();

            // A plan with memory is the plan without.
            let fresh = plan(&cluster.world);
            let remembered = planner.plan(&cluster.world);
            prop_assert_eq!(&fresh.changes, &remembered.changes);
            prop_assert_eq!(&fresh.events, &remembered.events);
            prop_assert_eq!(fresh.next_deadline, remembered.next_deadline);
            wishes_change_nothing(&cluster, &fresh);

            settle(&mut cluster, &mut planner)?;
            let upgraded = matches!(event, Event::Definitions(_));
            if upgraded || wrong_homes(&cluster).is_some() {
                // Pools that nobody uses any more are given a moment, and whoever
                // needs their addresses waits for it.
                cluster.advance(SignedDuration::from_secs(10));
                settle(&mut cluster, &mut planner)?;
            }
            addresses::are_right(&before, &cluster);
            prop_assert_eq!(wrong_homes(&cluster), None);
            somebody_announces(&cluster);
            who_stays_keeps_its_own(&before, &cluster);
            no_harm_is_done(&cluster);
            prop_assert_eq!(&cluster.world.foreign_services, &others);

            // Promise 5: nothing is written while nothing happens.
            let mut calm = cluster.clone();
            calm.advance(SignedDuration::from_secs(1));
            let due = planner.plan(&cluster.world).next_deadline;
            if due.is_none_or(|at| at > calm.world.now) {
                prop_assert_eq!(plan(&calm.world).changes, vec![]);
            }
        }

        standbys_stand_by(&cluster);

        // Promise 6: nothing is left.
        let others = cluster.world.foreign_services.clone();
        for n in 0..5 {
            cluster.delete_load_balancer(&key(n));
        }
        cluster.delete_pool("edge");
        settle(&mut cluster, &mut planner)?;
        // A MetalLB that reports nothing is given a moment.
        cluster.advance(SignedDuration::from_secs(60));
        settle(&mut cluster, &mut planner)?;
        prop_assert!(cluster.world.children.is_empty());
        prop_assert_eq!(cluster.world.ip_address_pools.keys().collect::<Vec<_>>(), ["everybodys"]);
        prop_assert!(cluster.world.l2_advertisements.is_empty());
        prop_assert!(cluster.world.pools.is_empty());
        prop_assert_eq!(&cluster.world.foreign_services, &others);
        no_harm_is_done(&cluster);
    }
}

/// What is tried here is what can be replayed, and what the lab runs.
#[test]
fn the_versions_of_the_simulation_are_those_of_the_lab() {
    assert_eq!(METALLB_VERSIONS, l2lb_lab::METALLB_VERSIONS);
    assert_eq!(l2lb::simulate::METALLB, l2lb_lab::METALLB);
}
