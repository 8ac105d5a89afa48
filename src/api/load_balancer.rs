//! `L2LoadBalancer`: the order for one Service on each balancer node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SessionAffinityConfig;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::address::Family;

/// Orders one LoadBalancer Service for each balancer node, each with an
/// address of its own that its own node announces while every other balancer
/// node stands by.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "l2lb.io",
    version = "v1alpha1",
    kind = "L2LoadBalancer",
    plural = "l2loadbalancers",
    namespaced,
    shortname = "l2lb",
    status = "L2LoadBalancerStatus",
    doc = "Orders one LoadBalancer Service for each balancer node, each with an address of its own that its own node announces while every other balancer node stands by.",
    derive = "PartialEq",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.addressPool"),
    printcolumn(name = "Slots", type_ = "string", json_path = ".status.slotsReady"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".status.publicAddresses"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Pinned",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Pinned\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 58 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name of an L2LoadBalancer is at most 58 characters long, begins with a letter and has only lower-case letters, digits and dashes: its Services are named NAME-0, NAME-1, ... and a Service's name ends at 63 characters"),
)]
#[serde(rename_all = "camelCase")]
pub struct L2LoadBalancerSpec {
    /// Name of the L2AddressPool that the addresses come from. Cannot be changed.
    #[schemars(length(min = 1, max = 58))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("addressPool cannot be changed: create another L2LoadBalancer with the new pool and delete this one when clients have moved"))]
    pub address_pool: String,

    /// Nodes that get an address each, out of the pool's nodes. Absent: all of
    /// the pool's nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = rules::bounded_selector)]
    pub node_selector: Option<LabelSelector>,

    /// At most this many nodes get an address: those that can announce it now
    /// come first, and among them those with the fewest homes. A node that has
    /// an address keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000), extend("format" = "int32"))]
    pub max_nodes: Option<u32>,

    /// Addresses to take first and keep reserved for this load balancer, so
    /// that a cluster rebuilt from its manifests has the same A records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 2, max = 45)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(
        validation = Rule::new("self.all(a, isIP(a))").message("each of addresses is a single IPv4 or IPv6 address"),
        validation = rules::host_addresses("addresses"),
    )]
    pub addresses: Vec<String>,

    /// How long the address of a node that has left keeps working, on a
    /// standby, before it is freed: a duration as in `24h` or `1h30m`.
    #[serde(default = "default_retirement_period")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(\\\\.[0-9]+)?(ms|s|m|h))+$') && duration(self) <= duration('8760h')").message("retirementPeriod is a duration between 0s and 8760h (a year), as in 24h or 1h30m"))]
    pub retirement_period: String,

    /// What each of the Services is, in the words of a Service's own spec.
    #[x_kube(
        validation = Rule::new("!has(self.sessionAffinityConfig) || (has(self.sessionAffinity) && self.sessionAffinity == 'ClientIP')").message("sessionAffinityConfig needs sessionAffinity: ClientIP"),
        validation = Rule::new("!has(self.ipFamilies) || !has(self.ipFamilyPolicy) || self.ipFamilyPolicy != 'SingleStack' || self.ipFamilies.size() == 1").message("ipFamilyPolicy SingleStack has one entry in ipFamilies"),
        validation = Rule::new("!has(self.ipFamilies) || self.ipFamilies.size() == 1 || (has(self.ipFamilyPolicy) && self.ipFamilyPolicy == 'RequireDualStack')").message("two ipFamilies need ipFamilyPolicy: RequireDualStack"),
        validation = Rule::new("(has(self.loadBalancerClass) ? self.loadBalancerClass : '') == (has(oldSelf.loadBalancerClass) ? oldSelf.loadBalancerClass : '')").message("loadBalancerClass cannot be changed, as on a Service"),
        validation = Rule::new("!has(self.ipFamilies) || !has(oldSelf.ipFamilies) || self.ipFamilies[0] == oldSelf.ipFamilies[0]").message("the first of ipFamilies cannot be changed, as on a Service"),
    )]
    pub service: ServiceSpec,

    /// Publish the addresses under a name, by a DNSEndpoint for ExternalDNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
}

fn default_retirement_period() -> String {
    "24h".to_owned()
}

/// The part of a Service's spec that a load balancer's children share.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Labels of the pods that serve.
    #[schemars(extend("minProperties" = 1))]
    pub selector: BTreeMap<String, String>,

    /// Ports that every address offers.
    #[schemars(length(min = 1, max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port", "protocol"]))]
    #[x_kube(validation = Rule::new("self.size() == 1 || self.all(p, has(p.name))").message("with more than one port every port needs a name"))]
    pub ports: Vec<ServicePort>,

    /// `Cluster` (the default) or `Local`, which keeps the client's address
    /// and announces only from nodes that run a ready pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Cluster", "Local"]))]
    pub external_traffic_policy: Option<String>,

    /// `Cluster` or `Local`, for traffic from inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Cluster", "Local"]))]
    pub internal_traffic_policy: Option<String>,

    /// How traffic prefers endpoints, as in a Service: `PreferSameZone`, `PreferSameNode` or `PreferClose`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub traffic_distribution: Option<String>,

    /// Client networks that may connect. Absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 2, max = 49)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = Rule::new("self.all(s, isCIDR(s))").message("each of loadBalancerSourceRanges is a CIDR, as in 198.51.100.0/24"))]
    pub load_balancer_source_ranges: Vec<String>,

    /// `None` or `ClientIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["None", "ClientIP"]))]
    pub session_affinity: Option<String>,

    /// How long a client stays with its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfig>,

    /// `IPv4`, `IPv6` or both. Absent: the pool's family, or with both in the
    /// pool the cluster's first family, and both under RequireDualStack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = Rule::new("self.size() < 2 || self[0] != self[1]").message("ipFamilies names each family once"))]
    pub ip_families: Vec<Family>,

    /// `SingleStack` (the default) or `RequireDualStack`. PreferDualStack is
    /// not offered: with an address of its own named for each Service MetalLB
    /// could not allocate it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["SingleStack", "RequireDualStack"]))]
    pub ip_family_policy: Option<String>,

    /// Allocate node ports too. Not needed by MetalLB, so false unless said.
    #[serde(default)]
    pub allocate_load_balancer_node_ports: bool,

    /// Send traffic to pods that are not ready.
    #[serde(default)]
    pub publish_not_ready_addresses: bool,

    /// For a MetalLB that runs with `--lb-class`. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,

    /// Labels for each Service. Keys of this project, MetalLB and ExternalDNS are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = rules::no_reserved_key("labels", ""))]
    pub labels: BTreeMap<String, String>,

    /// Annotations for each Service. Keys of this project, MetalLB and ExternalDNS are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = rules::no_reserved_key("annotations", "; for a name use spec.dns"))]
    pub annotations: BTreeMap<String, String>,
}

impl ServiceSpec {
    /// Whether only nodes that run a ready pod announce.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.external_traffic_policy.as_deref() == Some("Local")
    }
}

/// One port of the Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name of the port; needed with more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: Option<String>,
    /// Port that clients connect to.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(default = "tcp")]
    #[schemars(extend("enum" = ["TCP", "UDP", "SCTP"]))]
    pub protocol: String,
    /// Port of the pods, a number or a name. Absent: the same as `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// Protocol hint, as in a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub app_protocol: Option<String>,
}

fn tcp() -> String {
    "TCP".to_owned()
}

/// A name for the addresses.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// The name, below one of the pool's `dnsDomains`; it may begin with `*.`.
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^(\*\.)?([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
        )
    )]
    #[x_kube(validation = Rule::new("self.split('.').all(label, label.size() <= 63)").message("each part of hostname has at most 63 characters"))]
    pub hostname: String,
    /// Seconds that resolvers may keep an answer.
    #[serde(default = "default_ttl")]
    #[schemars(range(min = 1, max = 86400), extend("format" = "int32"))]
    pub ttl: u32,
}

fn default_ttl() -> u32 {
    60
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SlotPhase {
    /// Not announced yet.
    #[default]
    Pending,
    /// Announced by its home.
    Announced,
    /// Announced by a standby because its home cannot.
    FailedOver,
    /// Handed over to a standby because its home is cordoned or drained.
    Draining,
    /// Its home has left; a standby announces it until it is deleted.
    Retiring,
}

/// One slot: a child Service with its addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    /// Name of the Service.
    pub service: String,
    /// Its home.
    #[serde(default)]
    pub node: String,
    /// Its addresses, as allocated.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The node that announces them, as MetalLB reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_by: Option<String>,
    /// Where the slot is in its life.
    #[serde(default)]
    pub phase: SlotPhase,
    /// What a person should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What the controller reports of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2LoadBalancerStatus {
    /// Every address that clients may use, sorted: the A and AAAA records.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub public_addresses: Vec<String>,
    /// Slots with a live announcer, out of those wanted, as in `3/3`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub slots_ready: String,
    /// The slots, by number.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["service"]))]
    pub slots: Vec<SlotStatus>,
    /// `Accepted`, `AddressesAllocated`, `Pinned`, `Ready` and, with
    /// `spec.dns`, `DNSPublished`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
