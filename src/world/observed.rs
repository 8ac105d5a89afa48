//! Objects of the API as they are read.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Event, Namespace as KubeNamespace, Node as KubeNode, Pod, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Key, Kind, ObjectRef, Stored};
use crate::api::{L2AddressPool, L2LoadBalancer};
use crate::external_dns::DnsEndpoint;
use crate::metallb::{BgpAdvertisement, IpAddressPool, L2Advertisement};

/// An object of the API, as it was seen.
#[derive(Clone, Debug)]
pub enum Observed {
    /// A node.
    Node(Box<KubeNode>),
    /// A namespace.
    Namespace(Box<KubeNamespace>),
    /// A Service, ours or not.
    Service(Box<Service>),
    /// A pool of ours.
    AddressPool(Stored<L2AddressPool>),
    /// A load balancer.
    LoadBalancer(Stored<L2LoadBalancer>),
    /// MetalLB's pool.
    IpAddressPool(Stored<IpAddressPool>),
    /// MetalLB's L2 advertisement.
    L2Advertisement(Stored<L2Advertisement>),
    /// MetalLB's BGP advertisement.
    BgpAdvertisement(Stored<BgpAdvertisement>),
    /// The labels of a ServiceL2Status, which say all that matters.
    ServiceL2Status(Box<ObjectMeta>),
    /// A network for Services.
    ServiceCidr(Box<ServiceCIDR>),
    /// A record for ExternalDNS.
    DnsEndpoint(Stored<DnsEndpoint>),
    /// A pod in MetalLB's namespace.
    Pod(Box<Pod>),
    /// An event.
    Event(Box<Event>),
    /// Where pods of a Service are.
    EndpointSlice(Box<EndpointSlice>),
}

impl Observed {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Namespace(_) => Kind::Namespace,
            Self::Service(_) => Kind::Service,
            Self::AddressPool(_) => Kind::AddressPool,
            Self::LoadBalancer(_) => Kind::LoadBalancer,
            Self::IpAddressPool(_) => Kind::IpAddressPool,
            Self::L2Advertisement(_) => Kind::L2Advertisement,
            Self::BgpAdvertisement(_) => Kind::BgpAdvertisement,
            Self::ServiceL2Status(_) => Kind::ServiceL2Status,
            Self::ServiceCidr(_) => Kind::ServiceCidr,
            Self::DnsEndpoint(_) => Kind::DnsEndpoint,
            Self::Pod(_) => Kind::Pod,
            Self::Event(_) => Kind::Event,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Node(o) => &o.metadata,
            Self::Namespace(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::AddressPool(o) => o.metadata(),
            Self::LoadBalancer(o) => o.metadata(),
            Self::IpAddressPool(o) => o.metadata(),
            Self::L2Advertisement(o) => o.metadata(),
            Self::BgpAdvertisement(o) => o.metadata(),
            Self::ServiceL2Status(o) => o,
            Self::ServiceCidr(o) => &o.metadata,
            Self::DnsEndpoint(o) => o.metadata(),
            Self::Pod(o) => &o.metadata,
            Self::Event(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
        }
    }

    /// Which object it is.
    pub fn object(&self) -> ObjectRef {
        let meta = self.metadata();
        ObjectRef {
            kind: self.kind(),
            key: Key::new(
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            ),
        }
    }

    /// Reads an object of a kind from JSON. Custom resources that do not
    /// parse become [`Stored::Broken`].
    ///
    /// # Errors
    /// What serde says of a built-in kind, or of metadata, that does not parse.
    pub fn read(kind: Kind, value: Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            Kind::Node => Self::Node(serde_json::from_value(value)?),
            Kind::Namespace => Self::Namespace(serde_json::from_value(value)?),
            Kind::Service => Self::Service(serde_json::from_value(value)?),
            Kind::ServiceCidr => Self::ServiceCidr(serde_json::from_value(value)?),
            Kind::DnsEndpoint => Self::DnsEndpoint(stored(value)?),
            Kind::Pod => Self::Pod(serde_json::from_value(value)?),
            Kind::Event => Self::Event(serde_json::from_value(value)?),
            Kind::EndpointSlice => Self::EndpointSlice(serde_json::from_value(value)?),
            Kind::AddressPool => Self::AddressPool(stored(value)?),
            Kind::LoadBalancer => Self::LoadBalancer(stored(value)?),
            Kind::IpAddressPool => Self::IpAddressPool(stored(value)?),
            Kind::L2Advertisement => Self::L2Advertisement(stored(value)?),
            Kind::BgpAdvertisement => Self::BgpAdvertisement(stored(value)?),
            Kind::ServiceL2Status => {
                let partial: PartialObjectMeta<L2Advertisement> = serde_json::from_value(value)?;
                Self::ServiceL2Status(Box::new(partial.metadata))
            }
        })
    }
}

fn stored<T: DeserializeOwned + kube::Resource>(
    mut value: Value,
) -> Result<Stored<T>, serde_json::Error> {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    match T::deserialize_from(&value) {
        Ok(object) => Ok(Stored::Valid(Arc::new(object))),
        Err(error) => Ok(Stored::Broken {
            error: error.to_string(),
            conditions: value
                .pointer("/status/conditions")
                .cloned()
                .and_then(|c| serde_json::from_value(c).ok())
                .unwrap_or_default(),
            metadata: Arc::new(
                serde_json::from_value::<PartialObjectMeta<L2Advertisement>>(value)?.metadata,
            ),
        }),
    }
}

/// Deserialising from a borrowed value, so that the value is left for another try.
trait DeserializeFrom: Sized {
    fn deserialize_from(value: &Value) -> Result<Self, serde_json::Error>;
}

impl<T: DeserializeOwned> DeserializeFrom for T {
    fn deserialize_from(value: &Value) -> Result<Self, serde_json::Error> {
        T::deserialize(value)
    }
}

/// Reads any manifest of a kind that matters; `None` for the other kinds.
///
/// # Errors
/// As [`Observed::read`].
pub fn observe_manifest(value: Value) -> Result<Option<Observed>, serde_json::Error> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let group = text("apiVersion")
        .split_once('/')
        .map_or("", |(group, _)| group);
    let kind = match (group, text("kind")) {
        ("", "Node") => Kind::Node,
        ("", "Namespace") => Kind::Namespace,
        ("", "Service") => Kind::Service,
        ("", "Pod") => Kind::Pod,
        ("", "Event") => Kind::Event,
        ("discovery.k8s.io", "EndpointSlice") => Kind::EndpointSlice,
        ("networking.k8s.io", "ServiceCIDR") => Kind::ServiceCidr,
        ("l2lb.io", "L2AddressPool") => Kind::AddressPool,
        ("l2lb.io", "L2LoadBalancer") => Kind::LoadBalancer,
        ("metallb.io", "IPAddressPool") => Kind::IpAddressPool,
        ("metallb.io", "L2Advertisement") => Kind::L2Advertisement,
        ("metallb.io", "BGPAdvertisement") => Kind::BgpAdvertisement,
        ("metallb.io", "ServiceL2Status") => Kind::ServiceL2Status,
        ("externaldns.k8s.io", "DNSEndpoint") => Kind::DnsEndpoint,
        _ => return Ok(None),
    };
    Observed::read(kind, value).map(Some)
}
