//! May a load balancer be served? Whatever is wrong is said in a sentence,
//! and what the load balancer has already stays as it is.

use std::sync::Arc;

use super::environment::{CandidateSet, Environment, NodeIds, own_selector};
use super::load_balancer::Served;
use super::pool::Problem;
use crate::address::Family;
use crate::api::condition::Verdict;
use crate::api::{ConditionType, L2LoadBalancer, Reason, names};
use crate::world::{Key, Stored, World};

/// The answer.
#[derive(Clone, Debug)]
pub(super) enum Gate {
    /// It is served.
    Open(Box<Served>),
    /// It is not, and nothing of it is changed.
    Shut {
        verdict: Verdict,
        pool: Option<String>,
        set: Option<Arc<CandidateSet>>,
    },
    /// It is being deleted.
    Leaving,
}

impl Gate {
    /// Whether a plan made behind one is good behind the other.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Open(a), Self::Open(b)) => {
                Arc::ptr_eq(&a.object, &b.object)
                    && Arc::ptr_eq(&a.pool, &b.pool)
                    && Arc::ptr_eq(&a.set, &b.set)
                    && a.families == b.families
                    && a.dns == b.dns
            }
            (Self::Shut { verdict: a, .. }, Self::Shut { verdict: b, .. }) => a == b,
            (Self::Leaving, Self::Leaving) => true,
            _ => false,
        }
    }

    pub fn pool_name(&self) -> Option<String> {
        match self {
            Self::Open(served) => Some(served.pool.name.clone()),
            Self::Shut { pool, .. } => pool.clone(),
            Self::Leaving => None,
        }
    }

    pub fn set_key(&self) -> Option<(String, String)> {
        let set = match self {
            Self::Open(served) => Some(&served.set),
            Self::Shut { set, .. } => set.as_ref(),
            Self::Leaving => None,
        };
        set.map(|s| (s.pool.clone(), s.id.clone()))
    }
}

/// Judges one load balancer.
pub(super) fn judge(
    world: &World,
    environment: &mut Environment,
    previous: &Environment,
    key: &Key,
    ids: &mut NodeIds,
) -> Gate {
    let object = match world.load_balancers.get(key) {
        Some(Stored::Valid(object)) => object,
        Some(Stored::Broken { error, .. }) => {
            return shut(
                Reason::Unreadable,
                format!(
                    "the stored object cannot be read ({error}): write it anew with kubectl replace"
                ),
            );
        }
        None => return Gate::Leaving,
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Gate::Leaving;
    }
    match open(world, environment, previous, key, object, ids) {
        Ok(served) => Gate::Open(Box::new(served)),
        Err((reason, message)) => {
            let mut gate = shut(reason, message);
            if let Gate::Shut { pool, .. } = &mut gate {
                *pool = Some(object.spec.address_pool.clone());
            }
            gate
        }
    }
}

fn shut(reason: Reason, message: String) -> Gate {
    Gate::Shut {
        verdict: Verdict::fails(ConditionType::Accepted, reason, message),
        pool: None,
        set: None,
    }
}

fn open(
    world: &World,
    environment: &mut Environment,
    previous: &Environment,
    key: &Key,
    object: &Arc<L2LoadBalancer>,
    ids: &mut NodeIds,
) -> Result<Served, (Reason, String)> {
    let retirement = check_spec(key, object).map_err(|message| (Reason::InvalidSpec, message))?;
    let own = own_selector(object)
        .map_err(|e| (Reason::InvalidSpec, format!("spec.nodeSelector: {e}")))?;
    let pool = environment
        .pools
        .get(&object.spec.address_pool)
        .cloned()
        .ok_or_else(|| {
            let mut known: Vec<&str> = environment.pools.keys().map(String::as_str).collect();
            known.truncate(10);
            let known = if known.is_empty() {
                "there is none yet".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            (
                Reason::PoolNotFound,
                format!(
                    "L2AddressPool {} does not exist; {known}",
                    object.spec.address_pool
                ),
            )
        })?;
    if let Some(selector) = &pool.namespace_selector {
        let labels = world.namespaces.get(&key.namespace).map(|n| &n.labels);
        let allowed = match labels {
            Some(labels) => selector.matches(labels),
            None => selector.matches(&std::collections::BTreeMap::new()),
        };
        if !allowed {
            return Err((
                Reason::NamespaceNotAllowed,
                format!(
                    "namespace {} is not selected by spec.namespaceSelector of L2AddressPool {}: \
                     label the namespace or use another pool",
                    key.namespace, pool.name
                ),
            ));
        }
    }
    pool.usable()?;
    let families = families(world, object, &pool)?;
    let set = environment.candidates(&pool, &own, previous, ids);
    let dns = super::dns::permission(key, object, &pool, &environment.names);
    Ok(Served {
        key: key.clone(),
        object: Arc::clone(object),
        pool,
        set,
        families,
        retirement,
        dns,
    })
}

/// What the object alone decides; returns its retirement period.
fn check_spec(key: &Key, object: &L2LoadBalancer) -> Result<jiff::SignedDuration, String> {
    let (retirement, problems) = read_spec(key, object);
    match problems.first() {
        None => Ok(retirement),
        Some(problem) => Err(problem.text()),
    }
}

/// Everything that is wrong with the object alone, and its retirement period.
pub(crate) fn read_spec(
    key: &Key,
    object: &L2LoadBalancer,
) -> (jiff::SignedDuration, Vec<Problem>) {
    let mut problems = Vec::new();
    let name = &key.name;
    let is_dns_label = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-');
    if name.len() > names::MAX_LOAD_BALANCER_NAME || !is_dns_label {
        problems.push(Problem::new(
            "metadata.name",
            format!(
                "the name {name} ({} characters) leaves no room for its Services' names: they are \
                 named {name}-0, {name}-1, ... and a Service's name begins with a letter, has only \
                 lower-case letters, digits and dashes, and ends at 63 characters. Use a name of \
                 at most {} characters",
                name.len(),
                names::MAX_LOAD_BALANCER_NAME
            ),
        ));
    }
    let spec = &object.spec;
    for (index, address) in spec.addresses.iter().enumerate() {
        if address.parse::<std::net::IpAddr>().is_err() {
            problems.push(Problem::new(
                format!("spec.addresses[{index}]"),
                format!("{address:?} is not an IP address"),
            ));
        }
    }
    for (field, map) in [
        ("labels", &spec.service.labels),
        ("annotations", &spec.service.annotations),
    ] {
        for bad in map.keys().filter(|k| names::is_reserved_key(k)) {
            problems.push(Problem::new(
                format!("spec.service.{field}"),
                format!("{bad} is set by the controllers alone: remove it"),
            ));
        }
    }
    if spec.service.ports.is_empty() {
        problems.push(Problem::new(
            "spec.service.ports",
            "the list is empty: a Service needs at least one port",
        ));
    }
    let retirement = spec
        .retirement_period
        .parse::<kube::core::Duration>()
        .ok()
        // The conversion would drop the sign.
        .filter(|_| !spec.retirement_period.trim_start().starts_with('-'))
        .and_then(|d| jiff::SignedDuration::try_from(std::time::Duration::from(d)).ok());
    if retirement.is_none() {
        problems.push(Problem::new(
            "spec.retirementPeriod",
            format!(
                "{:?} is not a duration as in 24h or 1h30m",
                spec.retirement_period
            ),
        ));
    }
    (retirement.unwrap_or_default(), problems)
}

/// The families of the Services, the primary one first.
fn families(
    world: &World,
    object: &L2LoadBalancer,
    pool: &super::pool::PoolView,
) -> Result<Vec<Family>, (Reason, String)> {
    let service = &object.spec.service;
    let dual = service.ip_family_policy.as_deref() == Some("RequireDualStack");
    let has = |family| pool.ranges.has(family);
    let mut families = service.ip_families.clone();
    if families.is_empty() {
        let primary = world.primary_family.unwrap_or(Family::IPv4);
        let first = match (has(Family::IPv4), has(Family::IPv6)) {
            (true, false) => Family::IPv4,
            (false, true) => Family::IPv6,
            _ => primary,
        };
        families.push(if dual { primary } else { first });
    }
    if dual && families.len() == 1 {
        let other = if families[0] == Family::IPv4 {
            Family::IPv6
        } else {
            Family::IPv4
        };
        families.push(other);
    }
    for family in &families {
        if !has(*family) {
            return Err((
                Reason::InvalidSpec,
                format!(
                    "spec.service asks for {family} and L2AddressPool {} has no {family} \
                     addresses: change ipFamilies or add addresses to the pool",
                    pool.name
                ),
            ));
        }
    }
    Ok(families)
}
