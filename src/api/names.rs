//! Labels, annotations and names on the objects that the controller makes.
//!
//! The child Service is the durable record of an allocation: whatever the
//! controller must still know after a restart is one of these.

use std::borrow::Cow;
use std::net::IpAddr;

/// The API group.
pub const GROUP: &str = "l2lb.io";
/// The API version that is served and stored.
pub const VERSION: &str = "v1alpha1";
/// Field manager of every server-side apply of the controller.
pub const FIELD_MANAGER: &str = "l2lb";

/// On every object of ours, with [`MANAGED_BY_VALUE`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGED_BY_VALUE: &str = "l2lb";
/// On a child Service: name of its L2LoadBalancer, which is in the same namespace.
pub const LOAD_BALANCER: &str = "l2lb.io/load-balancer";
/// On a child Service: its slot number, decimal.
pub const SLOT: &str = "l2lb.io/slot";
/// On a child Service, IPAddressPool and L2Advertisement: name of the L2AddressPool.
pub const POOL: &str = "l2lb.io/pool";
/// On a child Service: the node that the slot belongs to (see [`node_value`]).
pub const HOME: &str = "l2lb.io/home";
/// On a child Service and an L2Advertisement: the node that is preferred as announcer now.
pub const PIN: &str = "l2lb.io/pin";
/// On a child Service and an L2Advertisement: which set of candidate nodes may announce.
pub const CANDIDATES: &str = "l2lb.io/candidates";

/// On a child Service: its `externalTrafficPolicy`, where that is `Local`. Its
/// EndpointSlices have the label, too, and are watched by it.
pub const TRAFFIC_POLICY: &str = "l2lb.io/traffic-policy";
/// The selector of what has that label.
pub const LOCAL_SELECTOR: &str = "l2lb.io/traffic-policy=Local";

/// On a child Service, IPAddressPool and L2Advertisement: hash of what was
/// wanted. It changes when a field is taken out, which a comparison of the
/// wanted fields with the present ones would not see.
pub const TEMPLATE: &str = "l2lb.io/template";
/// On a child Service: when a slot whose home left is deleted, RFC 3339.
pub const RETIRE_AT: &str = "l2lb.io/retire-at";
/// On a Node, with any value but `false`: hand over what it announces.
pub const DRAIN: &str = "l2lb.io/drain";
/// On an L2AddressPool: held until none of its addresses is in use.
pub const POOL_FINALIZER: &str = "l2lb.io/addresses-in-use";

/// MetalLB's choice of pool on a Service.
pub const METALLB_POOL: &str = "metallb.io/address-pool";
/// MetalLB's choice of addresses on a Service, comma separated.
pub const METALLB_IPS: &str = "metallb.io/loadBalancerIPs";
/// [`METALLB_POOL`] as MetalLB up to 0.14.8 reads it.
pub const METALLB_OLD_POOL: &str = "metallb.universe.tf/address-pool";
/// [`METALLB_IPS`] as MetalLB up to 0.14.8 reads it.
pub const METALLB_OLD_IPS: &str = "metallb.universe.tf/loadBalancerIPs";
/// By which Services share an address; MetalLB asks for one of them, whatever it says.
pub const METALLB_SHARED: [&str; 2] = [
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
];

/// What MetalLB up to 0.14.8 notes on a Service: the pool that it allocated from.
pub const METALLB_OLD_ALLOCATED: &str = "metallb.universe.tf/ip-allocated-from-pool";
/// [`METALLB_OLD_ALLOCATED`] as later ones write it.
pub const METALLB_ALLOCATED: &str = "metallb.io/ip-allocated-from-pool";

/// Kubernetes' label for a node that load balancers must not use.
pub const EXCLUDE_NODE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The label by which a single node is selected.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Prefixes of label and annotation keys that a tenant may not set on the
/// children: they steer MetalLB, ExternalDNS or this controller. ExternalDNS
/// takes another prefix by a flag, so that all that look like its own are meant.
pub const RESERVED_PREFIXES: [&str; 4] = [
    "l2lb.io/",
    "metallb.io/",
    "metallb.universe.tf/",
    "external-dns.",
];

/// Longest name of an L2LoadBalancer: a Service's name ends at 63 characters
/// and ours adds a dash and a slot number of up to four digits.
pub const MAX_LOAD_BALANCER_NAME: usize = 58;
/// Longest name of an L2AddressPool: `l2lb-` and it must fit a label value.
pub const MAX_POOL_NAME: usize = 58;
/// Slot numbers are below this.
pub const MAX_SLOTS: u32 = 10_000;

/// Whether a tenant may not set this label or annotation key.
pub fn is_reserved_key(key: &str) -> bool {
    key == MANAGED_BY || RESERVED_PREFIXES.iter().any(|p| key.starts_with(p))
}

/// Name of the child Service for a slot.
pub fn service_name(load_balancer: &str, slot: u32) -> String {
    format!("{load_balancer}-{slot}")
}

/// Name of MetalLB's IPAddressPool for an L2AddressPool.
pub fn ip_address_pool_name(pool: &str) -> String {
    format!("l2lb-{pool}")
}

/// A regular expression for the names of all our IPAddressPools, as MetalLB's
/// chart takes one for pools that its alerts leave out. It has no backslash,
/// which would mean something to YAML and to PromQL.
pub const IP_ADDRESS_POOLS: &str = "l2lb[-.].*";

/// What the names of slots' own pools begin with. No other name of ours has
/// a dot in its place.
const OWN_POOL: &str = "l2lb.";

/// Name of the IPAddressPool, and of its L2Advertisement, that a slot has for
/// itself where MetalLB knows no preferences: `l2lb.NAMESPACE.SERVICE.ADDRESS`,
/// the address in hexadecimal digits. Neither of the first two holds a dot, so
/// that no two names are the same, and the name of a Service that was made
/// anew with another address is another one.
pub fn own_pool_name(namespace: &str, service: &str, address: IpAddr) -> String {
    let address = match address {
        IpAddr::V4(v4) => format!("{:08x}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{:032x}", v6.to_bits()),
    };
    format!("{OWN_POOL}{namespace}.{service}.{address}")
}

/// What the names of a Service's own pools begin with.
pub fn own_pool_prefix(namespace: &str, service: &str) -> String {
    format!("{OWN_POOL}{namespace}.{service}.")
}

/// Whether an IPAddressPool or L2Advertisement of ours of this name is for one
/// slot alone.
pub fn is_own_pool(name: &str) -> bool {
    name.starts_with(OWN_POOL)
}

/// Namespace and name of the Service that an own pool is for.
pub fn own_pool_service(name: &str) -> Option<(&str, &str)> {
    let (rest, _) = name.strip_prefix(OWN_POOL)?.rsplit_once('.')?;
    rest.split_once('.')
}

/// Name of the L2Advertisement that prefers `node` (a [`node_value`]) for
/// the Services of `pool` whose candidates are `candidates`.
pub fn advertisement_name(pool: &str, candidates: &str, node: &str) -> String {
    let name = format!("l2lb-{pool}-{candidates}-{node}");
    // A label value may hold capitals and underscores, an object's name may
    // not; the digest keeps two such nodes apart.
    if name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
    {
        name
    } else {
        format!("l2lb-{pool}-{candidates}-{}", short_digest(node))
    }
}

/// A node's name as a label value: the name itself, or `h-` and a digest
/// for the rare name above 63 characters.
pub fn node_value(node: &str) -> Cow<'_, str> {
    if node.len() <= 63 {
        Cow::Borrowed(node)
    } else {
        Cow::Owned(format!("h-{}", short_digest(node)))
    }
}

/// Ten hexadecimal digits that stand for `text` in a name or label.
pub fn short_digest(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes())
        .iter()
        .take(5)
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_their_limits() {
        assert!(service_name(&"a".repeat(MAX_LOAD_BALANCER_NAME), MAX_SLOTS - 1).len() <= 63);
        assert!(ip_address_pool_name(&"a".repeat(MAX_POOL_NAME)).len() <= 63);
        let long = "n".repeat(253);
        assert!(node_value(&long).len() <= 63);
        assert!(advertisement_name(&"p".repeat(58), "0123456789", &node_value(&long)).len() <= 253);
    }

    #[test]
    fn own_pools_are_told_from_all_others() {
        let name = own_pool_name("shop", "web-3", [203, 0, 113, 7].into());
        assert_eq!(name, "l2lb.shop.web-3.cb007107");
        assert_eq!(own_pool_service(&name), Some(("shop", "web-3")));
        assert!(name.starts_with(&own_pool_prefix("shop", "web-3")));
        assert!(!is_own_pool(&ip_address_pool_name("shop.web-3.cb007107")));
        let longest = own_pool_name(&"n".repeat(63), &"s".repeat(63), IpAddr::from([0; 16]));
        assert!(longest.len() <= 253 && crate::selector::is_dns_subdomain(&longest));
    }

    #[test]
    fn one_expression_is_for_all_pools() {
        let pools = regex::Regex::new(&format!("^(?:{IP_ADDRESS_POOLS})$")).unwrap();
        assert!(pools.is_match(&ip_address_pool_name("edge")));
        assert!(pools.is_match(&own_pool_name("shop", "web-3", [203, 0, 113, 7].into())));
        assert!(!pools.is_match("public") && !pools.is_match("l2lbish"));
    }

    #[test]
    fn reserved_keys() {
        assert!(is_reserved_key("metallb.io/loadBalancerIPs"));
        assert!(is_reserved_key(MANAGED_BY));
        assert!(is_reserved_key("external-dns.alpha.kubernetes.io/hostname"));
        assert!(is_reserved_key("external-dns.example.org/hostname"));
        assert!(!is_reserved_key("app.kubernetes.io/name"));
    }
}
