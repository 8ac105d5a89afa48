//! What a load balancer alone decides: the rules of the planner, and those that
//! need the object as it is stored.

use super::{Draft, Rule};
use crate::api::L2LoadBalancer;
use crate::plan::dns::is_hostname;
use crate::plan::pool::Problem;
use crate::plan::{gate, spec};
use crate::world::{Key, World};

/// Everything that is wrong with the object alone.
pub(super) fn judge(key: &Key, object: &L2LoadBalancer) -> Vec<Draft> {
    let mut problems = spec::problems(key, object);
    let dns = object.spec.dns.as_ref();
    if let Some(dns) = dns.filter(|d| !is_hostname(&d.hostname)) {
        problems.push(Problem::new(
            "spec.dns.hostname",
            format!("{:?} is not a full domain name in lower case", dns.hostname),
        ));
    }
    problems.into_iter().map(draft).collect()
}

fn draft(problem: Problem) -> Draft {
    let rule = match problem.field.as_str() {
        "metadata.name" => Rule::Name,
        "spec.nodeSelector" => Rule::Selector,
        "spec.service.labels" | "spec.service.annotations" => Rule::ReservedKey,
        "spec.dns.hostname" => Rule::Dns,
        field if field.starts_with("spec.addresses") => Rule::Range,
        _ => Rule::Field,
    };
    Draft::denial(rule, problem.field, problem.message)
}

/// Fields that must not change.
pub(super) fn unchanged(new: &L2LoadBalancer, old: &L2LoadBalancer) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut say = |field: &str, message: &str| {
        drafts.push(Draft::denial(Rule::Immutable, field, message));
    };
    let (new, old) = (&new.spec, &old.spec);
    if new.address_pool != old.address_pool {
        say(
            "spec.addressPool",
            "it cannot be changed: create another L2LoadBalancer with the new pool and delete this \
             one when clients have moved",
        );
    }
    if new.service.load_balancer_class != old.service.load_balancer_class {
        say(
            "spec.service.loadBalancerClass",
            "it cannot be changed, as on a Service",
        );
    }
    if let (Some(a), Some(b)) = (
        new.service.ip_families.first(),
        old.service.ip_families.first(),
    ) && a != b
    {
        say(
            "spec.service.ipFamilies",
            "the first family cannot be changed, as on a Service",
        );
    }
    drafts
}

/// The first family that is asked for, where the Services have another: theirs
/// cannot be changed, also when `ipFamilies` was taken out in between.
pub(super) fn other_family(
    world: &World,
    key: &Key,
    new: &L2LoadBalancer,
    old: Option<&L2LoadBalancer>,
) -> Option<Draft> {
    let families = |object: &L2LoadBalancer| object.spec.service.ip_families.clone();
    let asked = *families(new).first()?;
    if old.is_some_and(|old| families(old).first() == Some(&asked)) {
        return None;
    }
    let kept = gate::existing_families(
        world,
        key,
        new.metadata.uid.as_ref(),
        &new.spec.address_pool,
    );
    let kept = kept.first().filter(|kept| **kept != asked)?;
    Some(Draft::denial(
        Rule::Immutable,
        "spec.service.ipFamilies",
        format!(
            "the Services have {kept} as their first family, which cannot be changed: name {kept} \
             first, or create another L2LoadBalancer"
        ),
    ))
}
