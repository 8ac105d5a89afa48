//! Where each kind is found in the API.

use kube::core::ApiResource;

use crate::api::names;
use crate::world::{ANNOUNCE_FAILED, Key, Kind};

/// Every kind that is watched.
pub const KINDS: [Kind; 14] = [
    Kind::Node,
    Kind::Namespace,
    Kind::AddressPool,
    Kind::LoadBalancer,
    Kind::Service,
    Kind::IpAddressPool,
    Kind::L2Advertisement,
    Kind::BgpAdvertisement,
    Kind::ServiceL2Status,
    Kind::ServiceCidr,
    Kind::DnsEndpoint,
    Kind::Pod,
    Kind::Event,
    Kind::EndpointSlice,
];

const METALLB_GROUP: &str = "metallb.io";

/// Group, version and plural of a kind.
pub fn api_resource(kind: Kind) -> ApiResource {
    let (group, version, plural) = match kind {
        Kind::Node => ("", "v1", "nodes"),
        Kind::Namespace => ("", "v1", "namespaces"),
        Kind::Service => ("", "v1", "services"),
        Kind::Pod => ("", "v1", "pods"),
        Kind::Event => ("", "v1", "events"),
        Kind::EndpointSlice => ("discovery.k8s.io", "v1", "endpointslices"),
        Kind::ServiceCidr => ("networking.k8s.io", "v1", "servicecidrs"),
        Kind::DnsEndpoint => ("externaldns.k8s.io", "v1alpha1", "dnsendpoints"),
        Kind::AddressPool => (names::GROUP, names::VERSION, "l2addresspools"),
        Kind::LoadBalancer => (names::GROUP, names::VERSION, "l2loadbalancers"),
        Kind::IpAddressPool => (METALLB_GROUP, "v1beta1", "ipaddresspools"),
        Kind::L2Advertisement => (METALLB_GROUP, "v1beta1", "l2advertisements"),
        Kind::BgpAdvertisement => (METALLB_GROUP, "v1beta1", "bgpadvertisements"),
        Kind::ServiceL2Status => (METALLB_GROUP, "v1beta1", "servicel2statuses"),
    };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.as_str().to_owned(),
        plural: plural.to_owned(),
    }
}

/// Name of the definition of a custom kind.
pub fn definition(kind: Kind) -> Option<String> {
    let resource = api_resource(kind);
    (is_ours(kind) || is_metallb(kind) || kind == Kind::DnsEndpoint)
        .then(|| format!("{}.{}", resource.plural, resource.group))
}

/// Whether there is no Kubernetes without the kind.
pub fn is_always_served(kind: Kind) -> bool {
    matches!(kind, Kind::Node | Kind::Namespace | Kind::Service)
}

/// Whether the kind is one of this project.
pub fn is_ours(kind: Kind) -> bool {
    matches!(kind, Kind::AddressPool | Kind::LoadBalancer)
}

/// Whether the kind is one of MetalLB, which lives in MetalLB's namespace.
pub fn is_metallb(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::IpAddressPool
            | Kind::L2Advertisement
            | Kind::BgpAdvertisement
            | Kind::ServiceL2Status
    )
}

/// Whether the kind is of MetalLB's namespace alone.
pub fn is_in_metallb_namespace(kind: Kind) -> bool {
    is_metallb(kind) || kind == Kind::Pod
}

/// Whether planning goes on without the kind when it may not be read: then
/// less is known of who can announce.
pub fn is_optional(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::Event | Kind::EndpointSlice)
}

/// The objects of a kind that are watched, as label and field selector; none: all.
pub fn selectors(kind: Kind) -> (Option<&'static str>, Option<String>) {
    match kind {
        // Every pod of a DaemonSet has it; the speakers' own labels differ
        // between MetalLB's chart and its manifests.
        Kind::Pod => (Some("controller-revision-hash"), None),
        Kind::Event => (None, Some(format!("reason={ANNOUNCE_FAILED}"))),
        // They have the labels of their Service.
        Kind::EndpointSlice => (Some(names::LOCAL_SELECTOR), None),
        _ => (None, None),
    }
}

/// The path of an object in the API.
pub fn path(kind: Kind, key: &Key) -> String {
    let resource = api_resource(kind);
    let root = if resource.group.is_empty() {
        "/api"
    } else {
        "/apis"
    };
    let base = format!("{root}/{}", resource.api_version);
    if key.namespace.is_empty() {
        format!("{base}/{}/{}", resource.plural, key.name)
    } else {
        format!(
            "{base}/namespaces/{}/{}/{}",
            key.namespace, resource.plural, key.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(
            path(Kind::Service, &Key::new("shop", "web-0")),
            "/api/v1/namespaces/shop/services/web-0"
        );
        assert_eq!(
            path(Kind::AddressPool, &Key::new("", "edge")),
            "/apis/l2lb.io/v1alpha1/l2addresspools/edge"
        );
        assert_eq!(
            definition(Kind::IpAddressPool).unwrap(),
            "ipaddresspools.metallb.io"
        );
        assert_eq!(definition(Kind::ServiceCidr), None);
        assert_eq!(
            definition(Kind::DnsEndpoint).unwrap(),
            crate::external_dns::DEFINITION
        );
    }
}
