//! Rules for an L2LoadBalancer.

use std::net::IpAddr;
use std::sync::Arc;

use super::{
    Candidate, Draft, Rule, Worlds, about_metallb, count, list, shape, sizing, unreadable,
};
use crate::address::Family;
use crate::api::{L2AddressPool, L2LoadBalancer, Reason};
use crate::plan::appraisal::{self, Appraisal, Appraised, PoolAppraisal, Service};
use crate::plan::dns::{domains_allowed, is_below};
use crate::world::{Key, Observed, Stored, World};

/// Everything there is to say about a new or changed load balancer.
pub(super) fn judge(worlds: &Worlds, candidate: &Candidate) -> Vec<Draft> {
    let object = match &candidate.object {
        Observed::LoadBalancer(Stored::Valid(object)) => object,
        Observed::LoadBalancer(Stored::Broken { error, .. }) => return unreadable(error),
        _ => return Vec::new(),
    };
    let key = candidate.object.object().key;
    let mut drafts = Vec::new();
    let mut before = Vec::new();
    let old = match &candidate.old {
        Some(Observed::LoadBalancer(Stored::Valid(old))) => Some(old),
        _ => None,
    };
    if let Some(old) = old {
        before = findings(&worlds.before, &key, old);
        drafts.extend(shape::unchanged(object, old));
    }
    if let Some(draft) = shape::other_family(&worlds.after, &key, object, old.map(|o| &**o))
        && drafts.iter().all(|d| d.field != draft.field)
    {
        drafts.push(draft);
    }
    let appraisal = appraisal::appraise(&worlds.after, &object.spec.address_pool);
    let after = findings_with(&worlds.after, &key, object, &appraisal);
    drafts.extend(
        after
            .into_iter()
            .filter(|d| d.is_worse_than_any_of(&before)),
    );
    drafts.extend(warnings(worlds, &key, object, &appraisal));
    if candidate.selects_pods == Some(false) {
        let labels: Vec<String> = object
            .spec
            .service
            .selector
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        drafts.push(Draft::warning(
            Rule::Pods,
            "spec.service.selector",
            format!(
                "{} matches no pod in namespace {}",
                labels.join(","),
                key.namespace
            ),
        ));
    }
    drafts
}

/// What denies a load balancer.
fn findings(world: &World, key: &Key, object: &Arc<L2LoadBalancer>) -> Vec<Draft> {
    findings_with(
        world,
        key,
        object,
        &appraisal::appraise(world, &object.spec.address_pool),
    )
}

fn findings_with(
    world: &World,
    key: &Key,
    object: &Arc<L2LoadBalancer>,
    appraisal: &Appraisal,
) -> Vec<Draft> {
    let spec = &object.spec;
    let mut drafts = shape::judge(key, object);
    let alone = !drafts.is_empty();
    let sizes = sizing::shortages(&spec.address_pool, appraisal, Some(key), "spec.addressPool");
    if let Some(pool) = &appraisal.pool {
        if pool.terminating && sizes.is_empty() {
            drafts.push(Draft::denial(
                Rule::Pool,
                "spec.addressPool",
                format!(
                    "L2AddressPool {} is being deleted and gives out no new addresses",
                    spec.address_pool
                ),
            ));
        }
        reserved(world, key, object, (pool, appraisal), &mut drafts);
    }
    if let Some((_, Appraised::Shut(reason, message))) = find(appraisal, key)
        && !alone
    {
        drafts.extend(shut(*reason, message, &key.namespace));
    }
    let pool = world.pools.get(&spec.address_pool).and_then(Stored::valid);
    if let (Some(dns), Some(pool)) = (&spec.dns, pool) {
        hostname(appraisal, key, &dns.hostname, pool, &mut drafts);
    }
    drafts.extend(sizes);
    drafts
}

fn find<'a>(appraisal: &'a Appraisal, key: &Key) -> Option<&'a (Key, Appraised)> {
    appraisal.load_balancers.iter().find(|(k, _)| k == key)
}

/// Why it would not be served, if that is for the person who wrote it to change.
fn shut(reason: Reason, message: &str, namespace: &str) -> Option<Draft> {
    let (rule, field) = match reason {
        Reason::NamespaceNotAllowed => (Rule::Namespace, "metadata.namespace"),
        Reason::InvalidSpec => (Rule::Field, "spec.service.ipFamilies"),
        Reason::PoolNotAccepted => (Rule::Pool, "spec.addressPool"),
        _ => return None,
    };
    Some(Draft::denial(rule, field, message).about(format!("{namespace} {message}"), 0))
}

/// Addresses that it names in `spec.addresses`.
fn reserved(
    world: &World,
    key: &Key,
    object: &L2LoadBalancer,
    (pool, appraisal): (&PoolAppraisal, &Appraisal),
    drafts: &mut Vec<Draft>,
) {
    let name = &object.spec.address_pool;
    let mut seen: Vec<IpAddr> = Vec::new();
    for (index, text) in object.spec.addresses.iter().enumerate() {
        let Ok(address) = text.parse::<IpAddr>() else {
            continue;
        };
        let mut say = |message: String| {
            let field = format!("spec.addresses[{index}]");
            drafts.push(Draft::denial(Rule::Reserved, field, message));
        };
        if seen.contains(&address) {
            say(format!("{address} is listed twice"));
            continue;
        }
        seen.push(address);
        if pool.refused.is_none() && !pool.offers(address) {
            say(outside(world, address, name));
        }
        let others = appraisal.reservations.iter();
        for (_, other) in others.filter(|(a, other)| *a == address && other != key) {
            say(format!(
                "{address} is reserved by L2LoadBalancer {other} already"
            ));
        }
        let own = |service: &Key| {
            service.namespace == key.namespace
                && world.child(service).is_some()
                && service
                    .name
                    .rsplit_once('-')
                    .is_some_and(|(lb, _)| lb == key.name)
        };
        if let Some(holder) = world.holders(address).find(|h| !own(h)) {
            say(format!("{address} is in use by Service {holder}"));
        }
        if let Some(node) = world
            .nodes
            .values()
            .find(|n| n.addresses.contains(&address))
        {
            say(format!("{address} is the address of node {}", node.name));
        }
    }
}

/// Why a pool does not give out an address.
fn outside(world: &World, address: IpAddr, pool: &str) -> String {
    let Some(Stored::Valid(object)) = world.pools.get(pool) else {
        return format!("{address} is not in L2AddressPool {pool}");
    };
    let (parsed, _) = crate::plan::pool::read_spec(pool, &object.spec);
    if parsed.usable.contains(address) {
        format!(
            "{address} ends in .0 or .255, which L2AddressPool {pool} leaves out (avoidBuggyIPs)"
        )
    } else if parsed.all.contains(address) {
        format!("{address} is one of spec.excludedAddresses of L2AddressPool {pool}")
    } else {
        format!(
            "{address} is not in L2AddressPool {pool}, which has {}",
            list(&object.spec.addresses)
        )
    }
}

/// A name that the tenant asks for.
fn hostname(
    appraisal: &Appraisal,
    key: &Key,
    hostname: &str,
    pool: &L2AddressPool,
    drafts: &mut Vec<Draft>,
) {
    let field = "spec.dns.hostname";
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    if !is_below(hostname, &pool.spec.dns_domains) {
        let domains = domains_allowed(name, &pool.spec.dns_domains);
        drafts.push(Draft::denial(
            Rule::Dns,
            field,
            format!("{hostname} may not be used: {domains}"),
        ));
    }
    if let Some(other) = same_name(appraisal, key, hostname).find(|o| o.namespace != key.namespace)
    {
        drafts.push(Draft::denial(
            Rule::Dns,
            field,
            format!("{hostname} is used by L2LoadBalancer {other}, which is in another namespace"),
        ));
    }
}

/// The other load balancers that claim a name.
fn same_name<'a>(
    appraisal: &'a Appraisal,
    key: &'a Key,
    hostname: &'a str,
) -> impl Iterator<Item = &'a Key> {
    let claims = appraisal.names.iter();
    claims
        .filter(move |(name, other)| other != key && name.eq_ignore_ascii_case(hostname))
        .map(|(_, other)| other)
}

/// What a person should know of a load balancer that may be stored.
fn warnings(
    worlds: &Worlds,
    key: &Key,
    object: &L2LoadBalancer,
    appraisal: &Appraisal,
) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let name = &object.spec.address_pool;
    drafts.extend(about_metallb(worlds.capabilities, "spec.addressPool"));
    let mut warn = |rule, field: &str, message: String| {
        drafts.push(Draft::warning(rule, field, message));
    };
    match find(appraisal, key) {
        Some((_, Appraised::Served(service))) => {
            selected(&worlds.after, name, service, &mut warn);
            for family in unused_families(object, service) {
                let what = format!("no {family} address is used: spec.service asks for none");
                warn(Rule::Reserved, "spec.addresses", what);
            }
            for why in &service.blocked {
                warn(Rule::Services, "metadata.name", why.clone());
            }
        }
        Some((
            _,
            Appraised::Shut(
                Reason::PoolNotFound
                | Reason::NameTaken
                | Reason::Refused
                | Reason::MetalLBMissing
                | Reason::MetalLBTooOld,
                message,
            ),
        )) => {
            warn(
                Rule::Pool,
                "spec.addressPool",
                format!("{message}; nothing is served until then"),
            );
        }
        _ => {}
    }
    if let Some(advertisement) = appraisal.pool.as_ref().and_then(|p| p.conflict.as_ref()) {
        warn(Rule::Pin, "spec.addressPool", spoiled(advertisement, name));
    }
    if let Some(dns) = &object.spec.dns
        && let Some(other) =
            same_name(appraisal, key, &dns.hostname).find(|o| o.namespace == key.namespace)
    {
        let message = format!(
            "{} is used by L2LoadBalancer {other} as well: the addresses of one of them alone \
             are published",
            dns.hostname
        );
        warn(Rule::Dns, "spec.dns.hostname", message);
    }
    let own_families = match find(appraisal, key) {
        Some((_, Appraised::Served(service))) => service.families.clone(),
        _ => Vec::new(),
    };
    drafts.extend(sizing::headroom(
        name,
        appraisal,
        &own_families,
        "spec.addressPool",
    ));
    drafts
}

pub(super) fn spoiled(advertisement: &str, pool: &str) -> String {
    format!(
        "L2Advertisement {advertisement} matches L2AddressPool {pool} and may draw its addresses \
         to other nodes: limit it to its own pools with spec.ipAddressPools"
    )
}

fn unused_families(object: &L2LoadBalancer, service: &Service) -> Vec<Family> {
    let named: Vec<Family> = object
        .spec
        .addresses
        .iter()
        .filter_map(|a| a.parse().ok())
        .map(Family::of)
        .collect();
    let mut unused: Vec<Family> = named
        .into_iter()
        .filter(|f| !service.families.contains(f))
        .collect();
    unused.dedup();
    unused
}

/// The nodes that are selected, where that is likely not what was meant.
fn selected(
    world: &World,
    pool: &str,
    service: &Service,
    warn: &mut impl FnMut(Rule, &str, String),
) {
    let field = "spec.nodeSelector";
    let selected = service.nodes.len() + service.unidentifiable.len();
    if selected == 0 {
        warn(
            Rule::Nodes,
            field,
            format!(
                "no node matches both this selector and that of L2AddressPool {pool}: nothing is \
                 served until one does"
            ),
        );
    } else if let [only] = service.nodes.as_slice() {
        let message = format!(
            "only node {only} is selected: no other node can take its address over when it fails"
        );
        warn(Rule::Nodes, field, message);
    } else if service.wanted == world.nodes.len() {
        let message = format!(
            "all {} of the cluster are selected; use a nodeSelector here or in L2AddressPool \
             {pool} if only some are meant",
            count(selected as u128, "node")
        );
        warn(Rule::Nodes, field, message);
    }
    if !service.unidentifiable.is_empty() {
        let message = format!(
            "{} cannot be told apart from other nodes and gets no address: each node needs a label \
             kubernetes.io/hostname of its own",
            list(&service.unidentifiable)
        );
        warn(Rule::Nodes, field, message);
    }
    if !service.held.is_empty() {
        let message = format!(
            "more than half of its nodes leave ({}): their addresses are kept until annotation \
             l2lb.io/confirm-retirement=true is set",
            list(&service.held)
        );
        warn(Rule::Nodes, field, message);
    }
}
