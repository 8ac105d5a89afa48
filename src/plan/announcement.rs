//! What is seen of a slot's announcement: who announces it, and why it is
//! not whoever should.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::environment::{Environment, Member, Standing};
use super::inference;
use super::load_balancer::{Served, class};
use crate::api::{Reason, names};
use crate::metallb::election;
use crate::world::{Child, HANDOVER, Key, SpeakerState, World};

/// How long another node may announce although home is preferred before it is
/// put down to old speakers: longer than any handover, and than speakers need
/// to read a new configuration.
const SPEAKERS_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The same for a home without a ready pod: longer than a handover.
const ENDPOINT_GRACE: SignedDuration = SignedDuration::from_secs(5);

/// What is seen of a slot's announcement.
pub(super) struct Seen<'a> {
    /// Nodes that say they announce it, and are able to as far as is known.
    pub live: Vec<&'a str>,
    all: Vec<&'a str>,
    pub allocated: bool,
    /// When that is no longer so if nobody says anything.
    pub until: Option<Timestamp>,
}

impl<'a> Seen<'a> {
    pub fn of(
        world: &'a World,
        environment: &'a Environment,
        served: Option<&'a Served>,
        key: &Key,
        child: Option<&Child>,
        addresses: &[IpAddr],
        endpoints: Option<&BTreeSet<&str>>,
    ) -> Self {
        let set = served.map(|s| &*s.set);
        let mut until = None;
        let all: Vec<&str> = if environment.reports_announcers {
            let mut all: Vec<&str> = world.announcers(key).collect();
            if let (true, Some((last, at))) = (all.is_empty(), world.handing_over.get(key)) {
                until = at.checked_add(HANDOVER).ok();
                all.push(last);
            }
            all
        } else {
            child
                .and_then(|c| inference::announcer(environment, served, c, addresses, endpoints))
                .into_iter()
                .collect()
        };
        let live = all
            .iter()
            .copied()
            .filter(|n| {
                let value = names::node_value(n);
                let lost = set
                    .and_then(|s| s.member(&value))
                    .is_some_and(|m| m.trouble.is_some());
                let node = environment.node(&value);
                !lost && node.is_some_and(|n| n.trouble.is_none())
            })
            .collect();
        let allocated = child.is_some_and(|c| {
            !addresses.is_empty() && addresses.iter().all(|a| c.allocated.contains(a))
        });
        Self {
            live,
            all,
            allocated,
            until,
        }
    }

    /// The announcer to show: the pinned node if it says so, else a live one.
    pub fn shown(&self, environment: &Environment, pin: &str) -> Option<String> {
        let pinned = environment.node(pin).map(|n| n.name.as_str());
        let found = pinned
            .filter(|p| self.live.contains(p))
            .or_else(|| self.live.first().copied());
        found
            .or_else(|| self.all.first().copied())
            .map(str::to_owned)
    }
}

/// The nodes with a pod that serves a load balancer's Services, where only
/// those can announce and it is known. A Service that is new has the pods of
/// the others.
pub(super) fn endpoints<'a>(
    world: &'a World,
    served: &Served,
    service: &Key,
) -> Option<BTreeSet<&'a str>> {
    if !served.object.spec.service.is_local() {
        return None;
    }
    let own = world.endpoints.nodes(service);
    own.or_else(|| {
        let children = world.children.get(&served.key)?;
        children
            .values()
            .find_map(|c| world.endpoints.nodes(&c.key))
    })
}

/// Whether a node may announce, as far as pods matter: `endpoints` are the nodes
/// with one, where only those can announce and it is known.
pub(super) fn has_pod(endpoints: Option<&BTreeSet<&str>>, node: &str) -> bool {
    endpoints.is_none_or(|nodes| nodes.contains(node))
}

/// Why another node announces although home is well and preferred, where it
/// can be told, and when to look again.
pub(super) fn overruled(
    world: &World,
    served: &Served,
    child: &Child,
    seen: &Seen<'_>,
    deciding: Option<&str>,
    endpoints: Option<&BTreeSet<&str>>,
) -> (Option<Reason>, Option<Timestamp>) {
    let nothing = (None, None);
    let Some(home) = served.set.member(&child.home) else {
        return nothing;
    };
    let stranger = seen
        .live
        .first()
        .filter(|_| !seen.live.contains(&&*home.name));
    let (Some(stranger), Some(deciding)) = (stranger, deciding) else {
        return nothing;
    };
    if home.standing != Standing::Serving || child.pin != child.home {
        return nothing;
    }
    let is_able = |name: &str| has_pod(endpoints, name);
    let is_local = served.object.spec.service.is_local();
    let (reason, grace) = if is_local && !is_able(&home.name) {
        (Reason::NoLocalEndpoint, SignedDuration::ZERO)
    } else if is_local && endpoints.is_none() {
        (Reason::NoLocalEndpoint, ENDPOINT_GRACE)
    } else if served.pool.prefers
        && !child.has_own_pool()
        && goes_by_hash(world, served, home, stranger, deciding, is_able)
    {
        (Reason::SpeakersTooOld, SPEAKERS_GRACE)
    } else {
        return nothing;
    };
    // A restart of the controller forgets since when it is so, but not that it is.
    if served.had_reason(reason) {
        return (Some(reason), None);
    }
    let since = Some(child.pinned_since)
        .max(home.since)
        .max(world.announced_since.get(&child.key).copied());
    match since.and_then(|s| s.checked_add(grace).ok()) {
        Some(until) if until > world.now => (None, Some(until)),
        _ => (Some(reason), None),
    }
}

/// Whether the announcer is the one whom speakers elect that know no
/// preference. That is only concluded when home's speaker is seen to run.
fn goes_by_hash(
    world: &World,
    served: &Served,
    home: &Member,
    announcer: &str,
    deciding: &str,
    has_pod: impl Fn(&str) -> bool,
) -> bool {
    let members = served.set.members.iter();
    let able = members.filter(|m| m.trouble.is_none() && has_pod(&m.name));
    matches!(world.speakers.on(&home.name), SpeakerState::Running(_))
        && election::winner(deciding, able.map(|m| m.name.as_str())) == Some(announcer)
}

/// Why MetalLB does not give a Service its addresses, where it can be told:
/// no speaker that runs serves its class.
pub(super) fn other_class(world: &World, served: &Served) -> Option<String> {
    let class = class(world, served);
    let classes = world.served_classes();
    if classes.is_empty() || classes.contains(&class) {
        return None;
    }
    let serves = match classes.first() {
        Some(&"") | None => "Services without a loadBalancerClass".to_owned(),
        Some(other) => format!("loadBalancerClass {other} (--lb-class)"),
    };
    let has = if class.is_empty() {
        "none".to_owned()
    } else {
        class.to_owned()
    };
    Some(format!(
        "MetalLB serves {serves}, and the Service has {has}: set spec.service.loadBalancerClass, \
         or spec.loadBalancerClass of L2AddressPool {}, and make the L2LoadBalancer anew, as the \
         class of a Service cannot be changed",
        served.pool.name
    ))
}
