//! Are there enough addresses? With the numbers, the nodes, and what would fit.

use super::{Draft, Rule, count, list};
use crate::address::Family;
use crate::plan::appraisal::{Appraisal, Appraised, Need, Service};
use crate::world::Key;

/// What is missing, for every load balancer of the pool. `of` is the load
/// balancer that is judged, if it is one.
pub(super) fn shortages(
    pool: &str,
    appraisal: &Appraisal,
    of: Option<&Key>,
    field: &str,
) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (key, service) in served(appraisal) {
        for (family, need) in &service.needs {
            if need.shortage() == 0 {
                continue;
            }
            let own = of == Some(key);
            let message = if appraisal.pool.as_ref().is_some_and(|p| p.terminating) {
                format!(
                    "L2AddressPool {pool} is being deleted and gives out no new addresses; \
                     L2LoadBalancer {key} needs one for {}",
                    list(&need.nodes)
                )
            } else {
                sentence(pool, key, service, *family, need, own)
            };
            // The smallest change that helps is to the number of nodes.
            let field = if own && service.nodes.len() > 1 {
                "spec.maxNodes"
            } else {
                field
            };
            drafts.push(
                Draft::denial(Rule::Sizing, field, message)
                    .about(format!("{key} {family}"), need.shortage()),
            );
        }
    }
    drafts
}

pub(super) fn served(appraisal: &Appraisal) -> impl Iterator<Item = (&Key, &Service)> {
    appraisal
        .load_balancers
        .iter()
        .filter_map(|(key, appraised)| match appraised {
            Appraised::Served(service) => Some((key, &**service)),
            _ => None,
        })
}

fn sentence(
    pool: &str,
    key: &Key,
    service: &Service,
    family: Family,
    need: &Need,
    own: bool,
) -> String {
    let needed = need.nodes.len() as u128;
    let change = if own { "" } else { "with this change " };
    let reserved = match need.reserved {
        0 => String::new(),
        n => format!(" (and {n} reserved by other load balancers)"),
    };
    let nodes = list(&need.nodes);
    let what = if service.has == 0 && needed > 1 {
        format!("{needed} (one for each of {needed} nodes: {nodes})")
    } else if service.has == 0 {
        format!("{needed} (for node {nodes})")
    } else {
        let word = if needed == 1 { "node" } else { "nodes" };
        format!("{needed} more (for {word} {nodes})")
    };
    let missing = count(need.shortage(), &format!("more {family} address"));
    let fits = fitting(service);
    let remedy = if fits == 0 {
        format!("add {missing} to the pool")
    } else {
        format!("spec.maxNodes: {fits} would fit, or {missing} in the pool")
    };
    format!(
        "{change}L2AddressPool {pool} has {}{reserved}, L2LoadBalancer {key} needs {what}; {remedy}",
        count(need.free, &format!("free {family} address"))
    )
}

/// For how many nodes there are addresses of each family.
fn fitting(service: &Service) -> u128 {
    let wanted = service.wanted as u128;
    let shortage = service
        .needs
        .values()
        .map(Need::shortage)
        .max()
        .unwrap_or(0);
    wanted.saturating_sub(shortage)
}

/// Little room: one more balancer node would find too few addresses.
pub(super) fn headroom(
    pool: &str,
    appraisal: &Appraisal,
    families: &[Family],
    field: &str,
) -> Option<Draft> {
    let left = &appraisal.pool.as_ref().filter(|p| !p.terminating)?.left;
    families.iter().find_map(|family| {
        let short =
            served(appraisal).any(|(_, s)| s.needs.get(family).is_some_and(|n| n.shortage() > 0));
        let growing = served(appraisal)
            .filter(|(_, s)| s.grows && s.families.contains(family))
            .count() as u128;
        let free = left.get(family).copied()?;
        (!short && free < growing).then(|| {
            let each = match growing {
                1 => "1".to_owned(),
                n => format!("{n}, one for each load balancer that takes every node"),
            };
            Draft::warning(
                Rule::Headroom,
                field,
                format!(
                    "L2AddressPool {pool} has {} left: one more balancer node would need {each}",
                    count(free, &format!("{family} address"))
                ),
            )
        })
    })
}
