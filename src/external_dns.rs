//! The part of ExternalDNS's kind that matters here: what is read of a
//! DNSEndpoint, ours or not. Every field has a default, so that an object of
//! another release of ExternalDNS does not fail to parse.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Name of the kind's resource definition.
pub const DEFINITION: &str = "dnsendpoints.externaldns.k8s.io";

/// Spec of a DNSEndpoint.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "externaldns.k8s.io",
    version = "v1alpha1",
    kind = "DNSEndpoint",
    root = "DnsEndpoint",
    plural = "dnsendpoints",
    namespaced,
    status = "DnsEndpointStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct DnsEndpointSpec {
    /// Records that should exist.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its name.
    #[serde(default)]
    pub dns_name: String,
    /// Seconds that resolvers may keep it.
    #[serde(default, rename = "recordTTL", skip_serializing_if = "Option::is_none")]
    pub record_ttl: Option<i64>,
    /// `A` or `AAAA`.
    #[serde(default)]
    pub record_type: String,
    /// Addresses.
    #[serde(default)]
    pub targets: Vec<String>,
}

/// What ExternalDNS reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsEndpointStatus {
    /// The generation that it has read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Whether DNSEndpoints can be read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    /// The API server has not said yet.
    #[default]
    Unknown,
    /// The definition is not installed.
    Missing,
    /// They are served, and those that exist are known.
    Served,
}
