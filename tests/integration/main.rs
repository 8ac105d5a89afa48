//! What the controller does to a real API server. MetalLB is played by the
//! tests, so that each of its moves can be chosen; `tests/demo.rs` has the
//! real one.

mod cluster;
mod controllers;
mod dns;
mod fan_out;
mod leaving;
mod metallb;
mod overdue;
mod plugin;
mod rebalance;
mod refusals;
mod rights;
mod schema;
mod steady;
mod stored;

use std::process::ExitCode;
use std::time::Duration;

use l2lb_lab::{LabConfig, harness};

fn main() -> ExitCode {
    let api = LabConfig::api_only;
    // Nodes here have no heartbeat, and are well for as long as a test takes.
    let with_garbage_collector = || LabConfig {
        controller_manager: true,
        node_monitor_grace: Duration::from_secs(600),
        ..LabConfig::api_only()
    };
    harness::run(vec![
        harness::trial(
            "objects_are_as_rendered",
            api(),
            fan_out::objects_are_as_rendered,
        ),
        harness::trial("two_pools", api(), fan_out::two_pools),
        harness::trial(
            "advertisements_are_shared",
            api(),
            fan_out::advertisements_are_shared,
        ),
        harness::trial(
            "no_write_in_a_steady_state",
            api(),
            steady::no_write_in_a_steady_state,
        ),
        harness::trial("drift_is_repaired", api(), steady::drift_is_repaired),
        harness::trial(
            "what_goes_missing_returns",
            api(),
            steady::what_goes_missing_returns,
        ),
        harness::trial("foreign_service", api(), refusals::foreign_service),
        harness::trial("refused_services", api(), refusals::refused_services),
        harness::trial(
            "foreign_metallb_pool",
            api(),
            refusals::foreign_metallb_pool,
        ),
        harness::trial("allowed_namespaces", api(), refusals::allowed_namespaces),
        harness::trial("quota", with_garbage_collector(), refusals::quota),
        harness::trial(
            "terminating_namespace",
            api(),
            refusals::terminating_namespace,
        ),
        harness::trial(
            "metallb_denies_a_pool",
            api(),
            refusals::metallb_denies_a_pool,
        ),
        harness::trial("a_pool_hangs", api(), overdue::a_pool_hangs),
        harness::trial(
            "broken_stored_objects",
            api(),
            stored::broken_stored_objects,
        ),
        harness::trial("metallb_is_missing", api(), metallb::is_missing),
        harness::trial(
            "nodes_fail_and_return",
            api(),
            metallb::nodes_fail_and_return,
        ),
        harness::trial(
            "schema_refuses_bad_objects",
            api(),
            schema::refuses_bad_objects,
        ),
        harness::trial("schema_for_people", api(), schema::for_people),
        harness::trial(
            "restart_keeps_addresses",
            api(),
            controllers::restart_keeps_addresses,
        ),
        harness::trial(
            "killed_again_and_again",
            api(),
            controllers::killed_again_and_again,
        ),
        harness::trial("one_leader", api(), controllers::one_leader),
        harness::trial("second_signal", api(), controllers::second_signal),
        harness::trial(
            "pool_waits_for_its_addresses",
            api(),
            leaving::pool_waits_for_its_addresses,
        ),
        harness::trial(
            "dns_record_follows_the_nodes",
            api(),
            dns::record_follows_the_nodes,
        ),
        harness::trial(
            "dns_refused_names",
            with_garbage_collector(),
            dns::refused_names,
        ),
        harness::trial(
            "rebalance_evens_homes_out",
            api(),
            rebalance::homes_are_evened_out,
        ),
        harness::trial("plugin_looks", api(), plugin::looks),
        harness::trial("plugin_compares", api(), plugin::compares),
        harness::trial("plugin_drains", api(), plugin::drains),
        harness::trial("plugin_watches", api(), plugin::watches),
        harness::trial(
            "plugin_rights",
            LabConfig {
                tools: vec!["helm".to_owned()],
                ..LabConfig::api_only()
            },
            rights::of_people,
        ),
        harness::trial("deletion_background", api(), leaving::background),
        harness::trial(
            "deletion_foreground",
            with_garbage_collector(),
            leaving::foreground,
        ),
        harness::trial("deletion_orphan", with_garbage_collector(), leaving::orphan),
    ])
}
