//! Whose an address is.

use std::net::IpAddr;

use crate::address::is_buggy;
use crate::plan;
use crate::plan::neighbours::metallb_ranges;
use crate::plan::outlook::Outlook;
use crate::world::{Child, Stored, World};

/// The child that has or names an address.
pub(in crate::cli::why) fn child_at(world: &World, address: IpAddr) -> Option<&Child> {
    let children = world.holders(address).filter_map(|key| world.child(key));
    let all: Vec<&Child> = children.map(|c| &**c).collect();
    let has = all.iter().find(|c| c.allocated.contains(&address));
    has.or(all.first()).copied()
}

/// Whose an address is: everything that lays a hand on it.
pub(super) fn whose(world: &World, outlook: &Outlook, address: IpAddr) -> Vec<String> {
    let mut found = Vec::new();
    let held = world.is_held(address);
    let by_others = held && child_at(world, address).is_none();
    for holder in world.holders(address) {
        found.push(match world.child(holder) {
            Some(child) => format!(
                "slot {} of L2LoadBalancer {}, from L2AddressPool {} (Service {holder})",
                child.slot,
                child.load_balancer(),
                child.pool
            ),
            None => format!("Service {holder}, which is not one of l2lb"),
        });
    }
    if let Some(node) = outlook.node_with(address) {
        found.push(format!("an address of node {node}, and never given out"));
    }
    for (name, stored) in &world.pools {
        let Some(pool) = stored.valid() else { continue };
        let Ok(spec) = plan::pool::parse_spec(name, &pool.spec) else {
            continue;
        };
        if !spec.all.contains(address) {
            continue;
        }
        if !spec.usable.contains(address) {
            found.push(format!(
                "in L2AddressPool {name}, and excluded there by spec.excludedAddresses"
            ));
        } else if pool.spec.avoid_buggy_ips && is_buggy(address) {
            found.push(format!(
                "in L2AddressPool {name}, and left out by its spec.avoidBuggyIPs"
            ));
        } else if let Some((_, message)) = outlook.pool_refusal(name) {
            found.push(format!(
                "in L2AddressPool {name}, which is not used: {message}"
            ));
        } else if by_others {
            found.push(format!(
                "in L2AddressPool {name}, which does not give it out because others hold it"
            ));
        } else if !held {
            found.push(match outlook.reserved_by(address) {
                Some(key) => format!(
                    "free in L2AddressPool {name}, and reserved by spec.addresses of \
                     L2LoadBalancer {key}"
                ),
                None => format!("free in L2AddressPool {name}"),
            });
        }
    }
    for (name, stored) in &world.ip_address_pools {
        let Stored::Valid(pool) = stored else {
            continue;
        };
        let ours = plan::pool::owned_pool(&pool.metadata).is_some();
        if !ours && metallb_ranges(&pool.spec).contains(address) {
            found.push(format!(
                "in MetalLB's IPAddressPool {name}, which is not one of l2lb"
            ));
        }
    }
    for (name, ranges) in &world.service_cidrs {
        if ranges.iter().any(|r| r.contains(address)) {
            found.push(format!("in ServiceCIDR {name}: a cluster address"));
        }
    }
    if found.is_empty() {
        let pools: Vec<&str> = world.pools.keys().map(String::as_str).collect();
        found.push(if pools.is_empty() {
            "in no pool: there is no L2AddressPool".to_owned()
        } else {
            format!(
                "in none of the L2AddressPools ({}), and no Service has it",
                pools.join(", ")
            )
        });
    }
    found
}
