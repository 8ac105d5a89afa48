//! Condition types and reasons: one list, which the documentation repeats.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

macro_rules! condition_types {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal),+ $(,)?) => {
        /// The types of condition that the controller sets.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ConditionType { $($(#[doc = $doc])+ $name),+ }

        impl ConditionType {
            /// Every type with what it means, in the order of the documentation.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, concat!($($doc),+))),+];

            /// The text in `type`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

condition_types! {
    /// The spec is valid and may be served: pool, namespace and names fit.
    Accepted = "Accepted",
    /// Every balancer node has its address.
    AddressesAllocated = "AddressesAllocated",
    /// Every address is announced by its home, with a standby behind it.
    Pinned = "Pinned",
    /// Every allocated address has a live announcer, and no Service waits for its
    /// first one. On a pool: it is accepted and configured.
    Ready = "Ready",
    /// On a pool: MetalLB has been given its IPAddressPool.
    Configured = "Configured",
    /// On a pool: its addresses lie evenly on its nodes, also when one of them fails.
    Even = "Even",
    /// With `spec.dns`: the DNSEndpoint for ExternalDNS is as it should be.
    DnsPublished = "DNSPublished",
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// The reasons in conditions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name),+ }

        impl Reason {
            /// Every reason with what it means, in the order of the documentation.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, concat!($($doc),+))),+];

            /// The text in `reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

reasons! {
    /// The condition holds.
    Ok,
    /// The spec cannot be used; the message names the field and the remedy.
    InvalidSpec,
    /// The stored object cannot be read as this version's type.
    Unreadable,
    /// The named L2AddressPool does not exist.
    PoolNotFound,
    /// The named L2AddressPool is not accepted itself.
    PoolNotAccepted,
    /// The pool is being deleted and gives out no new addresses.
    PoolTerminating,
    /// The pool's namespaceSelector does not select this namespace.
    NamespaceNotAllowed,
    /// The pool overlaps another pool, a MetalLB pool or the Service network.
    AddressOverlap,
    /// A BGPAdvertisement would make MetalLB refuse its whole configuration.
    BGPAdvertisementConflict,
    /// MetalLB's resource definitions are not installed.
    MetalLBMissing,
    /// An address was set up for MetalLB 0.16.2 or later, and an older one is installed now.
    MetalLBTooOld,
    /// The API server, an admission webhook or a quota refused an object.
    Refused,
    /// An object of this name exists and is not ours.
    NameTaken,
    /// No node matches both node selectors.
    NoNodes,
    /// Nodes cannot be told apart by their label kubernetes.io/hostname.
    NodeNotIdentifiable,
    /// The pool has fewer free addresses than are needed; the message says who has the others.
    AddressesExhausted,
    /// An address asked for is outside the pool, excluded or held by another.
    AddressUnavailable,
    /// Work is under way: objects are being written or MetalLB has not acted yet.
    Pending,
    /// An address is announced by a standby because its home cannot.
    FailedOver,
    /// No MetalLB speaker runs on a home, so that a standby announces its address.
    SpeakerMissing,
    /// The speakers run without memberlist, and MetalLB before 0.15 announces nothing then.
    MemberlistOff,
    /// A home lacks the interfaces of the pool, so that a standby announces its address.
    InterfaceMissing,
    /// With externalTrafficPolicy Local a node with a ready pod announces, as the home has none.
    NoLocalEndpoint,
    /// An address was handed over because its home is cordoned or drained.
    Draining,
    /// A home has left; its address is kept until retirement.
    Retiring,
    /// More than half of the nodes left at once; retirement is held until that is confirmed.
    RetirementHeld,
    /// An address has no second node that could take it over.
    NoStandby,
    /// Another L2Advertisement draws our addresses to other nodes.
    ConflictingAdvertisement,
    /// Speakers announce elsewhere than the preferences say: they are older than the definitions.
    SpeakersTooOld,
    /// An allocated address has no live announcer.
    NotAnnounced,
    /// Some nodes have, or would take over, more addresses than others.
    Uneven,
    /// The name asked for in spec.dns lies below none of the pool's dnsDomains.
    DomainNotAllowed,
    /// Another L2LoadBalancer has the same name.
    HostnameTaken,
    /// ExternalDNS's resource definition is not installed.
    ExternalDNSMissing,
}

/// A condition before it has a time: what the planner decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which condition.
    pub kind: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// Why.
    pub reason: Reason,
    /// A sentence for a person.
    pub message: String,
}

impl Verdict {
    /// The condition holds.
    pub fn holds(kind: ConditionType, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds: true,
            reason: Reason::Ok,
            message: message.into(),
        }
    }

    /// The condition does not hold.
    pub fn fails(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds: false,
            reason,
            message: message.into(),
        }
    }

    /// The condition as stored, keeping the transition time of `previous`
    /// while the status stays the same.
    pub fn into_condition(
        self,
        previous: &[Condition],
        now: jiff::Timestamp,
        generation: Option<i64>,
    ) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let since = previous
            .iter()
            .find(|c| c.type_ == self.kind.as_str() && c.status == status)
            .map_or(Time(now), |c| c.last_transition_time.clone());
        Condition {
            type_: self.kind.as_str().to_owned(),
            status: status.to_owned(),
            reason: self.reason.as_str().to_owned(),
            message: self.message,
            last_transition_time: since,
            observed_generation: generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_is_kept_while_the_status_stays() {
        let early = jiff::Timestamp::from_second(100).unwrap();
        let late = jiff::Timestamp::from_second(200).unwrap();
        let first = Verdict::holds(ConditionType::Ready, "").into_condition(&[], early, Some(1));
        let second = Verdict::holds(ConditionType::Ready, "still").into_condition(
            std::slice::from_ref(&first),
            late,
            Some(2),
        );
        assert_eq!(second.last_transition_time, first.last_transition_time);
        let third = Verdict::fails(ConditionType::Ready, Reason::Pending, "").into_condition(
            &[second],
            late,
            Some(2),
        );
        assert_eq!(third.last_transition_time.0, late);
    }
}
