//! Advice on MetalLB's own objects: what one of them would do to ours. It
//! never denies; they belong to somebody else.

use super::{Candidate, Draft, Rule};
use crate::api::L2AddressPool;
use crate::plan::neighbours::{conflicting_advertisement, metallb_ranges, sharing_advertisement};
use crate::plan::pool::{owned_pool, read_spec};
use crate::selector::Selector;
use crate::world::{Observed, Stored, World};

/// What a person should know before an object of MetalLB is stored.
pub(super) fn judge(world: &World, candidate: &Candidate) -> Vec<Draft> {
    if owned_pool(candidate.object.metadata()).is_some() {
        return Vec::new();
    }
    match &candidate.object {
        Observed::IpAddressPool(Stored::Valid(pool)) => {
            let ranges = metallb_ranges(&pool.spec);
            let mut drafts = Vec::new();
            for (name, stored) in &world.pools {
                let Stored::Valid(ours) = stored else {
                    continue;
                };
                let (parsed, _) = read_spec(name, &ours.spec);
                if let Some(range) = parsed.usable.overlap(&ranges) {
                    drafts.push(Draft::warning(
                        Rule::Overlap,
                        "spec.addresses",
                        format!(
                            "{range} is in L2AddressPool {name} of l2lb; MetalLB refuses its whole \
                             configuration when two pools overlap"
                        ),
                    ));
                }
            }
            drafts
        }
        Observed::L2Advertisement(Stored::Valid(_)) => {
            let mut after = world.clone();
            // Another one may spoil it already; this one is what is asked about.
            after.l2_advertisements.clear();
            after.observe(candidate.object.clone());
            let own = candidate.object.object().key.name;
            let conflicts = |pool: &str, ours: &Stored<L2AddressPool>| {
                let nodes = ours
                    .valid()
                    .map(|ours| read_spec(pool, &ours.spec).0.nodes)
                    .unwrap_or_default();
                spoils(&after, pool, &nodes, &own)
            };
            world
                .pools
                .iter()
                .filter(|(pool, ours)| conflicts(pool, ours))
                .map(|(pool, _)| {
                    Draft::warning(
                        Rule::Pin,
                        "spec.ipAddressPools",
                        format!(
                            "this advertisement matches L2AddressPool {pool} of l2lb and would draw \
                             its addresses to other nodes: limit it to its own pools with \
                             spec.ipAddressPools"
                        ),
                    )
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Whether an advertisement would draw addresses of a pool to other nodes:
/// from 0.16.2 on by preferences of its own, before by matching at all.
fn spoils(world: &World, pool: &str, nodes: &Selector, advertisement: &str) -> bool {
    if !world.capabilities.installed || world.capabilities.can_prefer() {
        conflicting_advertisement(world, pool, nodes).is_some_and(|name| name == advertisement)
    } else {
        sharing_advertisement(world, pool).is_some_and(|s| s.name == advertisement)
    }
}
