//! What is seen of a slot's announcement: who announces it, and why it is
//! not whoever should.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::environment::{Environment, Member, Standing};
use super::inference;
use super::load_balancer::Served;
use crate::api::{Reason, names};
use crate::metallb::election;
use crate::world::{Child, Key, SpeakerState, World};

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
}

impl<'a> Seen<'a> {
    pub fn of(
        world: &'a World,
        environment: &'a Environment,
        served: Option<&'a Served>,
        key: &Key,
        child: Option<&Child>,
        addresses: &[IpAddr],
    ) -> Self {
        let set = served.map(|s| &*s.set);
        let all: Vec<&str> = if world.capabilities.reports_announcers() {
            world.announcers(key).collect()
        } else {
            child
                .and_then(|c| inference::announcer(environment, served, c, addresses))
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

/// Why another node announces although home is well and preferred, where it
/// can be told, and when to look again.
pub(super) fn overruled(
    world: &World,
    served: &Served,
    child: &Child,
    seen: &Seen<'_>,
    deciding: Option<&str>,
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
    let policy = served
        .object
        .spec
        .service
        .external_traffic_policy
        .as_deref();
    let (reason, grace) = if policy == Some("Local") {
        (Reason::NoLocalEndpoint, ENDPOINT_GRACE)
    } else if served.pool.prefers
        && !child.has_own_pool()
        && goes_by_hash(world, served, home, stranger, deciding)
    {
        (Reason::SpeakersTooOld, SPEAKERS_GRACE)
    } else {
        return nothing;
    };
    // A restart of the controller forgets since when it is so, but not that it is.
    let mut known = served.object.status.iter().flat_map(|s| &s.conditions);
    if known.any(|c| c.reason == reason.as_str()) {
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
) -> bool {
    let able = served.set.members.iter().filter(|m| m.trouble.is_none());
    matches!(world.speakers.on(&home.name), SpeakerState::Running(_))
        && election::winner(deciding, able.map(|m| m.name.as_str())) == Some(announcer)
}

/// Why MetalLB does not give a Service its addresses, where it can be told:
/// no speaker that runs serves its class.
pub(super) fn other_class(world: &World, served: &Served) -> Option<String> {
    let own = served.object.spec.service.load_balancer_class.as_deref();
    let class = own.unwrap_or(&served.pool.load_balancer_class);
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
