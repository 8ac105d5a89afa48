//! From the world to what should exist: pure, without clock, randomness or
//! I/O. Equal worlds give equal plans, in whatever order they came to be.
//!
//! One plan is for the whole cluster, so that evenness and the ownership of
//! addresses have one owner:
//!
//! 1. `environment`: nodes, pools, sets of candidate nodes;
//! 2. `load_balancer`: the slots of each load balancer, the oldest first,
//!    with their addresses (`address`, `books`) and pins (`pin`);
//! 3. `metallb_objects`: pools and advertisements;
//! 4. `status`: phases, conditions and events;
//! 5. `service_changes`, `metallb_changes`, `status_changes`: the differences
//!    from the world, as [`Change`]s.
//!
//! `planner` goes through the whole world, `one` through these steps for one
//! load balancer.

mod ability;
mod address;
mod announcement;
pub(crate) mod appraisal;
mod books;
mod census;
mod change;
mod claims;
pub(crate) mod dns;
pub(crate) mod electorate;
mod environment;
mod evenness;
pub(crate) mod gate;
mod inference;
mod load_balancer;
mod metallb_changes;
mod metallb_objects;
mod needs;
pub(crate) mod neighbours;
mod one;
pub(crate) mod outlook;
mod own_pool;
mod pin;
mod planner;
pub(crate) mod pool;
mod pool_status;
mod rebalance;
mod service_changes;
pub(crate) mod spec;
mod status;
mod status_changes;
mod template;
mod writing;

pub use census::{Census, NodeCensus, PHASES, Phases, PoolCensus, Shares, census};
pub use change::{Action, Body, Cause, Change, PlannedEvent, Stage};
pub use evenness::EVEN;
pub use load_balancer::SlotPlan;
pub use planner::Planner;
pub use rebalance::{LeftAlone, LeftBecause, Move, Rebalance, Scope, rebalance};

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

use crate::address::AddressRange;
use crate::api::{FamilyCount, L2AddressPoolStatus, L2LoadBalancerStatus};
use crate::world::{Key, World};
use status_changes::status_change;
use template::ServiceTemplate;

/// What should exist, and what must be written to get there.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The load balancers, by key.
    pub load_balancers: BTreeMap<Key, Arc<LoadBalancerPlan>>,
    /// The pools, by name.
    pub pools: BTreeMap<String, PoolPlan>,
    /// What must be written, sorted by stage.
    pub changes: Vec<Change>,
    /// What a person should hear of once the changes are written.
    pub events: Vec<PlannedEvent>,
    /// When to plan again, if nothing happens before.
    pub next_deadline: Option<Timestamp>,
}

/// What is planned for one load balancer.
#[derive(Clone, Debug)]
pub struct LoadBalancerPlan {
    /// Its slots by number.
    pub slots: Vec<SlotPlan>,
    /// Its status.
    pub status: L2LoadBalancerStatus,
    /// Name of its pool, if it has one.
    pub pool: Option<String>,
    /// The DNSEndpoint that should exist, if one should.
    pub dns_endpoint: Option<Value>,
    template: Option<Arc<ServiceTemplate>>,
    changes: Vec<Change>,
    events: Vec<PlannedEvent>,
    deadline: Option<Timestamp>,
    /// Addresses by family.
    held: FamilyCount,
    /// Addresses that nodes which are selected now are still to be given.
    missing: FamilyCount,
    /// Addresses that one more node would take.
    growth: FamilyCount,
    /// Addresses that are held, those outside the pool's ranges at least.
    outside: Vec<AddressRange>,
    /// Some of its Services have addresses of another pool: an earlier load
    /// balancer of its name left them.
    has_strays: bool,
    /// Some of its slots have, or will have, a pool for themselves.
    has_own_pools: bool,
    /// The pools and advertisements that its slots have for themselves.
    own_objects: Vec<Value>,
    set: Option<(String, String)>,
    settled: bool,
}

impl LoadBalancerPlan {
    /// The Services that should exist; none while the load balancer is not accepted.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.template.iter().flat_map(|template| {
            self.slots
                .iter()
                .filter(|s| s.blocked.is_none())
                .map(|slot| template.service(slot))
        })
    }
}

/// What is planned for one pool.
#[derive(Clone, Debug, Default)]
pub struct PoolPlan {
    /// MetalLB's objects that should exist.
    pub objects: Vec<Value>,
    /// Its status.
    pub status: L2AddressPoolStatus,
}

/// Plans a world without memory of an earlier plan.
pub fn plan(world: &World) -> Plan {
    Planner::default().plan(world)
}
