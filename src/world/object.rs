//! Objects of the API by name and kind, and whether what is stored can be read.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

/// Namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The kinds of object that the planner reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A node.
    Node,
    /// A namespace.
    Namespace,
    /// `l2lb.io` L2AddressPool.
    AddressPool,
    /// `l2lb.io` L2LoadBalancer.
    LoadBalancer,
    /// A Service, ours or not.
    Service,
    /// `metallb.io` IPAddressPool.
    IpAddressPool,
    /// `metallb.io` L2Advertisement.
    L2Advertisement,
    /// `metallb.io` BGPAdvertisement.
    BgpAdvertisement,
    /// `metallb.io` ServiceL2Status.
    ServiceL2Status,
    /// `networking.k8s.io` ServiceCIDR.
    ServiceCidr,
    /// `externaldns.k8s.io` DNSEndpoint.
    DnsEndpoint,
    /// A pod of MetalLB's: its speakers matter.
    Pod,
    /// An event by which a speaker says that it cannot announce.
    Event,
    /// Where the pods of a child Service with `externalTrafficPolicy: Local` are.
    EndpointSlice,
}

impl Kind {
    /// The kind as in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::AddressPool => "L2AddressPool",
            Self::LoadBalancer => "L2LoadBalancer",
            Self::Service => "Service",
            Self::IpAddressPool => "IPAddressPool",
            Self::L2Advertisement => "L2Advertisement",
            Self::BgpAdvertisement => "BGPAdvertisement",
            Self::ServiceL2Status => "ServiceL2Status",
            Self::ServiceCidr => "ServiceCIDR",
            Self::DnsEndpoint => "DNSEndpoint",
            Self::Pod => "Pod",
            Self::Event => "Event",
            Self::EndpointSlice => "EndpointSlice",
        }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.key)
    }
}

/// An object as stored, or what can be said of one that cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored<T> {
    /// Readable.
    Valid(Arc<T>),
    /// Stored by another version or with validation switched off: nothing of
    /// it is used, nothing that belongs to it is changed.
    Broken {
        /// Why it cannot be read.
        error: String,
        /// Its metadata, which always can.
        metadata: Arc<ObjectMeta>,
        /// Its conditions, as far as they can be read.
        conditions: Vec<Condition>,
    },
}

impl<T: kube::Resource> Stored<T> {
    /// The object, if it can be read.
    pub fn valid(&self) -> Option<&Arc<T>> {
        match self {
            Self::Valid(object) => Some(object),
            Self::Broken { .. } => None,
        }
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Valid(object) => object.meta(),
            Self::Broken { metadata, .. } => metadata,
        }
    }
}
