//! May a load balancer be served? Whatever is wrong is said in a sentence,
//! and what the load balancer has already stays as it is.

use std::sync::Arc;

use super::environment::{CandidateSet, Environment, NodeIds, own_selector};
use super::load_balancer::Served;
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
    Shut { verdict: Verdict, pool: Option<String>, set: Option<Arc<CandidateSet>> },
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
                format!("the stored object cannot be read ({error}): apply it again"),
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
    let pool = environment.pools.get(&object.spec.address_pool).cloned().ok_or_else(|| {
        let mut known: Vec<&str> = environment.pools.keys().map(String::as_str).collect();
        known.truncate(10);
        let known = if known.is_empty() {
            "there is none yet".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        (
            Reason::PoolNotFound,
            format!("L2AddressPool {} does not exist; {known}", object.spec.address_pool),
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
    Ok(Served { key: key.clone(), object: Arc::clone(object), pool, set, families, retirement })
}

/// What the object alone decides; returns its retirement period.
pub(super) fn check_spec(
    key: &Key,
    object: &L2LoadBalancer,
) -> Result<jiff::SignedDuration, String> {
    let name = &key.name;
    let is_dns_label = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-');
    if name.len() > names::MAX_LOAD_BALANCER_NAME || !is_dns_label {
        return Err(format!(
            "the name {name} ({} characters) leaves no room for its Services' names: they are \
             named {name}-0, {name}-1, ... and a Service's name begins with a letter, has only \
             lower-case letters, digits and dashes, and ends at 63 characters. Use a name of at \
             most {} characters",
            name.len(),
            names::MAX_LOAD_BALANCER_NAME
        ));
    }
    let spec = &object.spec;
    for (index, address) in spec.addresses.iter().enumerate() {
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("spec.addresses[{index}]: {address:?} is not an IP address"));
        }
    }
    for (field, map) in
        [("labels", &spec.service.labels), ("annotations", &spec.service.annotations)]
    {
        if let Some(bad) = map.keys().find(|k| names::is_reserved_key(k)) {
            return Err(format!(
                "spec.service.{field}: {bad} is set by the controllers alone: remove it"
            ));
        }
    }
    if spec.service.ports.is_empty() {
        return Err("spec.service.ports is empty: a Service needs at least one port".to_owned());
    }
    spec.retirement_period
        .parse::<kube::core::Duration>()
        .ok()
        .and_then(|d| jiff::SignedDuration::try_from(std::time::Duration::from(d)).ok())
        .ok_or_else(|| {
            format!(
                "spec.retirementPeriod: {:?} is not a duration as in 24h or 1h30m",
                spec.retirement_period
            )
        })
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
        let other = if families[0] == Family::IPv4 { Family::IPv6 } else { Family::IPv4 };
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
