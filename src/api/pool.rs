//! `L2AddressPool`: the administrator's range of public addresses.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::address::Family;

/// A range of public addresses on one L2 segment, and who may use it.
///
/// Cluster-scoped and the administrator's. The controller keeps one MetalLB
/// IPAddressPool for it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "l2lb.io",
    version = "v1alpha1",
    kind = "L2AddressPool",
    plural = "l2addresspools",
    shortname = "l2pool",
    status = "L2AddressPoolStatus",
    doc = "A range of public addresses on one L2 segment, and who may use it.",
    derive = "PartialEq",
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Capacity", type_ = "integer", json_path = ".status.capacity.ipv4"),
    printcolumn(name = "Free", type_ = "integer", json_path = ".status.free.ipv4"),
    printcolumn(name = "Free6", type_ = "integer", json_path = ".status.free.ipv6", priority = 1),
    printcolumn(name = "LBs", type_ = "integer", json_path = ".status.loadBalancers"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 58").message("the name of an L2AddressPool is at most 58 characters long: MetalLB's pool is named l2lb-NAME and must fit a label value"),
)]
#[serde(rename_all = "camelCase")]
pub struct L2AddressPoolSpec {
    /// Addresses of the pool: CIDRs (`203.0.113.0/28`), ranges
    /// (`203.0.113.10-203.0.113.40`) or single addresses. Both families may be
    /// listed, one in each entry.
    #[schemars(length(min = 1, max = 256), inner(length(min = 2, max = 90)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new("self.all(a, isCIDR(a) || isIP(a) || (a.split('-').size() == 2 && a.split('-').all(p, isIP(p.trim()))))").message("each of addresses is a CIDR (203.0.113.0/28), a range (203.0.113.10-203.0.113.40) or a single address"),
        validation = rules::no_host_bits("addresses"),
        validation = rules::one_family("addresses"),
        validation = rules::host_addresses("addresses"),
        validation = rules::host_networks("addresses"),
    )]
    pub addresses: Vec<String>,

    /// Addresses inside the pool that are never given out: gateways, other
    /// hosts. Same forms as in `addresses`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 2, max = 90)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new("self.all(a, isCIDR(a) || isIP(a) || (a.split('-').size() == 2 && a.split('-').all(p, isIP(p.trim()))))").message("each of excludedAddresses is a CIDR, a range or a single address"),
        validation = rules::no_host_bits("excludedAddresses"),
        validation = rules::one_family("excludedAddresses"),
        validation = rules::host_addresses("excludedAddresses"),
        validation = rules::host_networks("excludedAddresses"),
    )]
    pub excluded_addresses: Vec<String>,

    /// Leave out IPv4 addresses that end in .0 or .255, which some old
    /// equipment drops, as MetalLB's field of the same name does.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Nodes that are attached to this segment. Absent: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules::bounded_selector)]
    pub node_selector: Option<LabelSelector>,

    /// Network interfaces that announce the addresses. Absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 15)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub interfaces: Vec<String>,

    /// Namespaces whose L2LoadBalancers may use the pool. Absent: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules::bounded_selector)]
    pub namespace_selector: Option<LabelSelector>,

    /// `loadBalancerClass` of the Services of load balancers that name none,
    /// for a MetalLB that runs with `--lb-class`. Services that exist keep theirs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub load_balancer_class: String,

    /// What cordoning a node means: `Handover` moves its addresses to standbys
    /// before the node goes; `Ignore` leaves them, for those who cordon nodes
    /// without rebooting them.
    #[serde(default)]
    pub on_cordon: OnCordon,

    /// Domains below which tenants may ask for names in `spec.dns`. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(d, d.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?[.])*[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))").message("each of dnsDomains is a domain in lower case, as in example.org; names below it are allowed with it"))]
    pub dns_domains: Vec<String>,
}

/// What cordoning a node means for the addresses that it announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnCordon {
    /// Hand the addresses over to standbys, and back afterwards.
    #[default]
    Handover,
    /// Leave them where they are.
    Ignore,
}

/// A number of addresses of each family; saturates at the largest signed
/// 64-bit number, as a /64 alone has more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FamilyCount {
    /// IPv4 addresses.
    #[serde(default)]
    pub ipv4: i64,
    /// IPv6 addresses.
    #[serde(default)]
    pub ipv6: i64,
}

impl FamilyCount {
    /// Whether there is none of either family.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// That of one family.
    pub fn of(&self, family: Family) -> i64 {
        match family {
            Family::IPv4 => self.ipv4,
            Family::IPv6 => self.ipv6,
        }
    }
}

impl FromIterator<Family> for FamilyCount {
    fn from_iter<T: IntoIterator<Item = Family>>(families: T) -> Self {
        let mut count = Self::default();
        for family in families {
            match family {
                Family::IPv4 => count.ipv4 += 1,
                Family::IPv6 => count.ipv6 += 1,
            }
        }
        count
    }
}

/// A node that lacks a pool's interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissingInterfaces {
    /// The node.
    pub node: String,
    /// The pool's interfaces when its speaker said so, sorted.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub interfaces: Vec<String>,
    /// When the speaker said so last.
    pub since: Time,
}

/// What the controller reports of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2AddressPoolStatus {
    /// Addresses that the pool can give out in all.
    #[serde(default)]
    pub capacity: FamilyCount,
    /// Addresses that Services hold.
    #[serde(default)]
    pub allocated: FamilyCount,
    /// Addresses that no Service has and that are kept all the same: for the
    /// L2LoadBalancer that names them in `spec.addresses`, or because nodes
    /// have them.
    #[serde(default, skip_serializing_if = "FamilyCount::is_zero")]
    pub reserved: FamilyCount,
    /// Addresses that can still be given out: `capacity` without `allocated`
    /// and `reserved`.
    #[serde(default)]
    pub free: FamilyCount,
    /// L2LoadBalancers that name this pool.
    #[serde(default)]
    pub load_balancers: i64,
    /// Nodes whose speaker was elected and had none of `spec.interfaces`: they
    /// count as lost for this pool until their speaker starts anew,
    /// `spec.interfaces` changes, or a day has passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub missing_interfaces: Vec<MissingInterfaces>,
    /// `Accepted`, `Configured`, `Ready` and `Even`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
