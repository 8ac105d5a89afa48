//! Who announces an address, where no speaker says so reliably (MetalLB before
//! 0.16 has no ServiceL2Status, or one that goes stale): whoever wins MetalLB's
//! election among the nodes that are well.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::announcement::has_pod;
use super::environment::Environment;
use super::load_balancer::Served;
use super::own_pool;
use crate::api::names;
use crate::metallb::election;
use crate::world::Child;

/// What is said after a sentence that rests on this.
pub(super) const INFERRED: &str =
    "; who announces is inferred: the installed MetalLB (before 0.16) does not report it reliably";

/// The node that announces a child's addresses, by name. `served` is absent
/// for a load balancer that is left as it is; `endpoints` are the nodes with a
/// pod, where only those announce and it is known.
pub(super) fn announcer<'a>(
    environment: &'a Environment,
    served: Option<&'a Served>,
    child: &Child,
    addresses: &[IpAddr],
    endpoints: Option<&BTreeSet<&str>>,
) -> Option<&'a str> {
    if child.allocated.is_empty() {
        return None;
    }
    let well = |value: &str| {
        environment
            .node(value)
            .filter(|n| n.trouble.is_none() && !n.silenced)
            .filter(|n| has_pod(endpoints, &n.name))
    };
    let Some(served) = served else {
        return well(&child.pin).map(|n| n.name.as_str());
    };
    let deciding = election::deciding_address(addresses)?;
    let pin = if child.has_own_pool() {
        &*child.pin
    } else {
        ""
    };
    let listed = own_pool::listed(&served.set, pin, &deciding);
    let shared = served.pool.shared.iter().flat_map(|s| &s.nodes);
    listed
        .into_iter()
        .map(|m| &*m.value)
        .filter_map(well)
        .chain(shared.filter_map(|name| well(&names::node_value(name))))
        .map(|n| n.name.as_str())
        .min_by_key(|name| election::rank(name, &deciding))
}
