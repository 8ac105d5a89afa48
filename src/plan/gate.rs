//! May a load balancer be served? Whatever is wrong is said in a sentence,
//! and what the load balancer has already stays as it is.

use std::sync::Arc;

use super::claims;
use super::environment::{CandidateSet, Environment, NodeIds};
use super::load_balancer::{Served, first_slot};
use super::pool::PoolView;
use super::spec::{self, OwnSpec};
use crate::address::Family;
use crate::api::condition::Verdict;
use crate::api::{ConditionType, L2LoadBalancer, Reason};
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

/// Judges one load balancer. `before` is the gate of the last plan: what was read
/// of the same object need not be read again, which is most of the work.
pub(super) fn judge(
    world: &World,
    environment: &mut Environment,
    previous: &Environment,
    key: &Key,
    ids: &mut NodeIds,
    before: Option<&Gate>,
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
    let own = match before {
        Some(Gate::Open(served)) if Arc::ptr_eq(&served.object, object) => {
            Ok(Arc::clone(&served.own))
        }
        _ => spec::parse(key, object)
            .map(Arc::new)
            .map_err(|message| (Reason::InvalidSpec, message)),
    };
    match own.and_then(|own| open(world, environment, previous, key, object, own, ids)) {
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
    own: Arc<OwnSpec>,
    ids: &mut NodeIds,
) -> Result<Served, (Reason, String)> {
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
    if !claims::admits(world, &pool, &key.namespace) {
        return Err((
            Reason::NamespaceNotAllowed,
            format!(
                "namespace {} is not selected by spec.namespaceSelector of L2AddressPool {}: \
                 label the namespace or use another pool",
                key.namespace, pool.name
            ),
        ));
    }
    pool.usable()?;
    let families = families(world, key, object, &pool)?;
    let set = environment.candidates(&pool, &own.nodes, previous, ids);
    let dns = super::dns::permission(key, object, &pool, &environment.names);
    Ok(Served {
        key: key.clone(),
        object: Arc::clone(object),
        pool,
        set,
        families,
        own,
        dns,
    })
}

/// The families of the Services, the primary one first. The API server never
/// changes the first family of a Service, so that where there are Services
/// theirs stays, whatever has become of the pool or of `ipFamilies`: to ask for
/// another one would only be refused, with everything else that is asked for in
/// the same write.
fn families(
    world: &World,
    key: &Key,
    object: &L2LoadBalancer,
    pool: &PoolView,
) -> Result<Vec<Family>, (Reason, String)> {
    let service = &object.spec.service;
    let dual = service.ip_family_policy.as_deref() == Some("RequireDualStack");
    let has = |family| pool.ranges.has(family);
    let existing = existing_families(world, key, object.metadata.uid.as_ref(), &pool.name);
    let named = existing.first().or(service.ip_families.first());
    let first = named.copied().unwrap_or_else(|| {
        let primary = world.primary_family.unwrap_or(Family::IPv4);
        match (has(Family::IPv4), has(Family::IPv6)) {
            (true, false) if !dual => Family::IPv4,
            (false, true) if !dual => Family::IPv6,
            _ => primary,
        }
    });
    let families = if dual {
        vec![first, first.other()]
    } else {
        vec![first]
    };
    let lacking = |family: &&Family| !existing.contains(family) && !has(**family);
    if let Some(family) = families.iter().find(lacking) {
        return Err((
            Reason::InvalidSpec,
            format!(
                "spec.service asks for {family} and L2AddressPool {} has no {family} \
                 addresses: change ipFamilies or add addresses to the pool",
                pool.name
            ),
        ));
    }
    Ok(families)
}

/// The families of the Services that a load balancer has, the primary one
/// first. `uid` is its own; Services of another one of the same name go.
pub(crate) fn existing_families(
    world: &World,
    key: &Key,
    uid: Option<&String>,
    pool: &str,
) -> Vec<Family> {
    let first = first_slot(world, key, uid, pool);
    first.map_or_else(Vec::new, |child| child.families())
}

#[cfg(test)]
mod tests;
