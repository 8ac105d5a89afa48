//! What has become of the addresses of a pool that has none left.

use std::net::IpAddr;

use super::list;
use crate::address::Family;
use crate::plan::environment::Environment;
use crate::plan::load_balancer::{Served, Slots, Unmet};
use crate::world::World;

/// Who has the addresses of the pool, and who needs more; the numbers add up.
pub(super) fn sentence(
    world: &World,
    environment: &Environment,
    served: &Served,
    slots: &Slots,
    unmet: &Unmet,
) -> String {
    let pool = &served.pool;
    let family = unmet.families.first().copied().unwrap_or(Family::IPv4);
    let capacity = pool.capacity(family);
    let mut left = capacity.saturating_sub(unmet.in_use as u128);
    let unused = |a: &IpAddr| Family::of(*a) == family && pool.offers(*a) && !world.is_held(*a);
    let nodes = environment.node_addresses.keys();
    let nodes = nodes.filter(|a| unused(a)).count() as u128;
    let is_node = |a: &IpAddr| environment.node_addresses.contains_key(a);
    let reserved = environment
        .reserved
        .iter()
        .filter(|(a, by)| **by != served.key && unused(a) && !is_node(a))
        .count() as u128;
    // One that was given out just now counts as in use, and is reserved still.
    let mut take = |wanted: u128| {
        let taken = wanted.min(left);
        left -= taken;
        taken
    };
    let (nodes, reserved) = (take(nodes), take(reserved));
    let mut parts = format!("{capacity} in all, {} in use", unmet.in_use);
    for (number, what) in [
        (reserved, "reserved for other load balancers"),
        (nodes, "of nodes"),
        (left, "not released by MetalLB yet"),
    ] {
        if number > 0 {
            parts.push_str(&format!(", {number} {what}"));
        }
    }
    let homes: Vec<&str> = slots.unmet.iter().map(|u| u.node.as_str()).collect();
    format!(
        "L2AddressPool {} has no free {family} address ({parts}): {} needs {} more, for {} {}; \
         add addresses to the pool or lower spec.maxNodes",
        pool.name,
        served.key,
        homes.len(),
        if homes.len() == 1 { "node" } else { "nodes" },
        list(&homes)
    )
}
