//! Rules for an L2AddressPool.

use std::net::IpAddr;

use super::load_balancer::spoiled;
use super::{Candidate, Draft, Rule, Worlds, about_metallb, list, sizing, unreadable};
use crate::address::{Family, RangeSet, is_buggy};
use crate::api::{L2AddressPool, Reason};
use crate::plan::appraisal::{self, Appraisal, Appraised};
use crate::plan::dns::is_below;
use crate::plan::neighbours::{self, bgp};
use crate::plan::pool::{ParsedSpec, Problem, read_spec};
use crate::selector::is_dns_subdomain;
use crate::world::{Key, Observed, Stored, World};

/// Everything there is to say about a new or changed pool.
pub(super) fn judge(worlds: &Worlds, candidate: &Candidate) -> Vec<Draft> {
    let pool = match &candidate.object {
        Observed::AddressPool(Stored::Valid(pool)) => pool,
        Observed::AddressPool(Stored::Broken { error, .. }) => return unreadable(error),
        _ => return Vec::new(),
    };
    let name = candidate.object.object().key.name;
    let old = match &candidate.old {
        Some(Observed::AddressPool(Stored::Valid(old))) => Some(old),
        _ => None,
    };
    let (new_spec, problems) = read_spec(&name, &pool.spec);
    let (old_spec, old_problems) = match old {
        Some(old) => read_spec(&name, &old.spec),
        None => read_spec(&name, &Default::default()),
    };
    let mut drafts: Vec<Draft> = problems
        .into_iter()
        .chain(bad_domains(pool))
        .filter(|p| old.is_none() || !old_problems.iter().any(|o| o.message == p.message))
        .map(draft)
        .collect();
    if drafts.is_empty() {
        overlaps(&worlds.after, &name, &new_spec, &old_spec, &mut drafts);
    }
    let before = appraisal::appraise(&worlds.before, &name);
    if let Some(old) = old {
        let unreadable = drafts
            .iter()
            .any(|d| matches!(d.rule, Rule::Range | Rule::Name));
        if !unreadable {
            let lost = lost(old, &old_spec, pool, &new_spec);
            in_use(&worlds.after, &name, &before, &lost, &mut drafts);
        }
    }
    let after = appraisal::appraise(&worlds.after, &name);
    if drafts.is_empty() {
        served(&name, &before, &after, old.is_some(), &mut drafts);
    }
    if let Some(old) = old {
        drafts.extend(other_class(&worlds.after, &name, old, pool));
    }
    warnings(worlds, &name, pool, &after, &mut drafts);
    drafts
}

/// Those that exist keep their class, as a Service's cannot be changed.
fn other_class(
    world: &World,
    name: &str,
    old: &L2AddressPool,
    new: &L2AddressPool,
) -> Option<Draft> {
    if old.spec.load_balancer_class == new.spec.load_balancer_class {
        return None;
    }
    let children = world.children.values().flat_map(|slots| slots.values());
    let keep = children.filter(|child| child.pool == name).count();
    (keep > 0).then(|| {
        let message = format!(
            "the class of a Service cannot be changed: {keep} Services of this pool keep what they \
             have until their L2LoadBalancers are made anew"
        );
        Draft::warning(Rule::Field, "spec.loadBalancerClass", message)
    })
}

fn draft(problem: Problem) -> Draft {
    let rule = match problem.field.as_str() {
        "metadata.name" => Rule::Name,
        "spec.nodeSelector" | "spec.namespaceSelector" => Rule::Selector,
        field if field.starts_with("spec.dnsDomains") => Rule::Dns,
        _ => Rule::Range,
    };
    Draft::denial(rule, problem.field, problem.message)
}

fn bad_domains(pool: &L2AddressPool) -> Vec<Problem> {
    let domains = pool.spec.dns_domains.iter().enumerate();
    domains
        .filter(|(_, domain)| !is_dns_subdomain(domain))
        .map(|(index, domain)| {
            Problem::new(
                format!("spec.dnsDomains[{index}]"),
                format!(
                    "{domain:?} is not a domain in lower case, as in example.org; names below it \
                     are allowed with it"
                ),
            )
        })
        .collect()
}

/// What the addresses that are added belong to already.
fn overlaps(
    world: &World,
    name: &str,
    new: &ParsedSpec,
    old: &ParsedSpec,
    drafts: &mut Vec<Draft>,
) {
    let field = "spec.addresses";
    let mut say = |message: String| drafts.push(Draft::denial(Rule::Overlap, field, message));
    let added = new.all.minus(&old.all);
    let usable = new.usable.minus(&old.usable);
    for (other, stored) in &world.pools {
        let Some(stored) = stored.valid().filter(|_| other != name) else {
            continue;
        };
        let (theirs, _) = read_spec(other, &stored.spec);
        // The smaller of the two ranges says more.
        if let Some(range) = theirs.all.overlap(&added).and_then(|r| common(&r, &added)) {
            say(format!(
                "{range} is also in L2AddressPool {other}: take it out of one of them"
            ));
        }
    }
    neighbours::overlaps(world, name, &added, &usable, &[])
        .into_iter()
        .for_each(&mut say);
    for node in world.nodes.values() {
        for address in node.addresses.iter().filter(|a| usable.contains(**a)) {
            say(format!(
                "{address} is the address of node {}: list it in spec.excludedAddresses",
                node.name
            ));
        }
    }
    if let Some(message) = bgp::forbids_prefixes(world, name, &usable) {
        say(message);
    }
    if let Some(message) = bgp::forbids_pairs(world, name, &usable) {
        say(message);
    }
    // Which mode MetalLB's BGP runs in, the webhook does not see; the planner does.
    if let Some(message) = bgp::forbids_ipv6(world, name, &usable) {
        drafts.push(Draft::warning(Rule::Overlap, field, message));
    }
}

/// The part of a range that is in a set.
fn common(range: &crate::address::AddressRange, set: &RangeSet) -> Option<String> {
    let whole: RangeSet = std::iter::once(*range).collect();
    let both = whole.minus(&whole.minus(set));
    both.ranges().first().map(|r| {
        if r.len() == 1 {
            r.first().to_string()
        } else {
            r.to_string()
        }
    })
}

/// Whether an address could be given out before and cannot now.
fn lost(
    old: &L2AddressPool,
    old_spec: &ParsedSpec,
    new: &L2AddressPool,
    new_spec: &ParsedSpec,
) -> impl Fn(IpAddr) -> bool {
    let (old_buggy, new_buggy) = (old.spec.avoid_buggy_ips, new.spec.avoid_buggy_ips);
    let (old_set, new_set) = (old_spec.usable.clone(), new_spec.usable.clone());
    move |address| {
        let offers = |set: &RangeSet, avoid| set.contains(address) && !(avoid && is_buggy(address));
        offers(&old_set, old_buggy) && !offers(&new_set, new_buggy)
    }
}

/// Addresses in use, or reserved, that the pool would lose.
fn in_use(
    world: &World,
    name: &str,
    before: &Appraisal,
    lost: &impl Fn(IpAddr) -> bool,
    drafts: &mut Vec<Draft>,
) {
    let mut used: Vec<(IpAddr, &Key)> = world
        .children
        .values()
        .flat_map(|slots| slots.values())
        .filter(|child| child.pool == name)
        .flat_map(|child| child.all_addresses().into_iter().map(|a| (a, &child.key)))
        .filter(|(address, _)| lost(*address))
        .collect();
    used.sort_unstable();
    if !used.is_empty() {
        let named: Vec<String> = used
            .iter()
            .map(|(a, service)| format!("{a} (Service {service})"))
            .collect();
        drafts.push(Draft::denial(
            Rule::InUse,
            "spec.addresses",
            format!(
                "the pool would lose {} in use: {}. Take nodes or load balancers away first",
                super::count(named.len() as u128, "address"),
                list(&named)
            ),
        ));
    }
    let free = |a: &IpAddr| lost(*a) && used.iter().all(|(u, _)| u != a);
    let reserved = before.reservations.iter();
    let reserved = reserved.filter(|(a, key)| free(a) && is_of_pool(world, key, name));
    let mut reserved: Vec<&(IpAddr, Key)> = reserved.collect();
    if !reserved.is_empty() {
        reserved.sort_unstable();
        let named: Vec<String> = reserved
            .iter()
            .map(|(a, key)| format!("{a} (L2LoadBalancer {key})"))
            .collect();
        drafts.push(Draft::denial(
            Rule::InUse,
            "spec.addresses",
            format!(
                "the pool would lose {} reserved in spec.addresses: {}",
                super::count(named.len() as u128, "address"),
                list(&named)
            ),
        ));
    }
}

/// Whether a load balancer asks for a pool.
fn is_of_pool(world: &World, key: &Key, pool: &str) -> bool {
    let lb = world.load_balancers.get(key).and_then(Stored::valid);
    lb.is_some_and(|lb| lb.spec.address_pool == pool)
}

/// What the change means for the load balancers of the pool.
fn served(
    name: &str,
    before: &Appraisal,
    after: &Appraisal,
    existed: bool,
    drafts: &mut Vec<Draft>,
) {
    let field = "spec.addresses";
    let mut found = sizing::shortages(name, after, None, field);
    let known = sizing::shortages(name, before, None, field);
    found.retain(|d| d.is_worse_than_any_of(&known));
    for (key, appraised) in &after.load_balancers {
        let Appraised::Shut(reason, message) = appraised else {
            continue;
        };
        let was_served = before
            .load_balancers
            .iter()
            .any(|(k, a)| k == key && matches!(a, Appraised::Served(_)));
        let field = match reason {
            Reason::NamespaceNotAllowed => "spec.namespaceSelector",
            Reason::InvalidSpec => field,
            _ => continue,
        };
        if was_served || !existed {
            found.push(Draft::denial(
                Rule::Pool,
                field,
                format!("L2LoadBalancer {key} would not be served: {message}"),
            ));
        }
    }
    if !existed {
        // Load balancers that waited for the pool are no reason against it.
        found.iter_mut().for_each(|d| d.denies = false);
    }
    drafts.extend(found);
}

fn warnings(
    worlds: &Worlds,
    name: &str,
    pool: &L2AddressPool,
    after: &Appraisal,
    drafts: &mut Vec<Draft>,
) {
    drafts.extend(about_metallb(worlds.capabilities, "metadata.name"));
    let mut warn = |rule, field: &str, message: String| {
        drafts.push(Draft::warning(rule, field, message));
    };
    if let Ok(selector) = crate::selector::Selector::parse(pool.spec.node_selector.as_ref())
        && !worlds
            .after
            .nodes
            .values()
            .any(|n| selector.matches(&n.labels))
    {
        warn(
            Rule::Nodes,
            "spec.nodeSelector",
            "no node of the cluster is selected: nothing is served until one is".to_owned(),
        );
    }
    let Some(appraised) = &after.pool else { return };
    if let Some((_, why)) = &appraised.unconfigured {
        warn(Rule::MetalLB, "metadata.name", why.clone());
    }
    if let Some(advertisement) = &appraised.conflict {
        warn(Rule::Pin, "metadata.name", spoiled(advertisement, name));
    }
    for (key, stored) in &worlds.after.load_balancers {
        let Some(lb) = stored.valid().filter(|lb| lb.spec.address_pool == name) else {
            continue;
        };
        if let Some(dns) = &lb.spec.dns
            && !is_below(&dns.hostname, &pool.spec.dns_domains)
        {
            warn(
                Rule::Dns,
                "spec.dnsDomains",
                format!(
                    "L2LoadBalancer {key} uses {}, which is below none of them",
                    dns.hostname
                ),
            );
        }
    }
    let families: Vec<Family> = appraised.left.keys().copied().collect();
    drafts.extend(sizing::headroom(name, after, &families, "spec.addresses"));
}
