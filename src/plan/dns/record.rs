//! The DNSEndpoint: what is in one, how one is written, and whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::address::Family;
use crate::api::{Dns, names};
use crate::external_dns::{DnsEndpoint, Endpoint};
use crate::plan::change::{Action, Cause, Change, Stage};
use crate::plan::load_balancer::Served;
use crate::plan::metallb_changes::labels_cover;
use crate::plan::template;
use crate::plan::writing::content_of;
use crate::world::{Key, Kind, ObjectRef, Stored, World};

/// Every address in a DNSEndpoint.
pub(super) fn published(live: Option<&Stored<DnsEndpoint>>) -> BTreeSet<IpAddr> {
    live.and_then(Stored::valid)
        .into_iter()
        .flat_map(|endpoint| &endpoint.spec.endpoints)
        .flat_map(|record| &record.targets)
        .filter_map(|target| target.parse().ok())
        .collect()
}

/// Whether our DNSEndpoint for a load balancer holds a name.
pub(super) fn is_published(world: &World, key: &Key, hostname: &str) -> bool {
    let live = world.dns_endpoints.get(key);
    let ours = live.filter(|live| is_ours(live.metadata(), key));
    ours.and_then(Stored::valid).is_some_and(|endpoint| {
        let mut records = endpoint.spec.endpoints.iter();
        records.any(|record| record.dns_name.eq_ignore_ascii_case(hostname))
    })
}

/// Whether ExternalDNS has read what is there.
pub(super) fn was_read(live: &Stored<DnsEndpoint>) -> bool {
    live.valid().is_some_and(|endpoint| {
        let read = endpoint.status.as_ref().and_then(|s| s.observed_generation);
        read.is_some() && read >= endpoint.metadata.generation
    })
}

fn records(dns: &Dns, targets: &BTreeSet<IpAddr>) -> Vec<Endpoint> {
    let of = |family, record_type: &str| Endpoint {
        dns_name: dns.hostname.to_ascii_lowercase(),
        record_ttl: Some(i64::from(dns.ttl)),
        record_type: record_type.to_owned(),
        targets: targets
            .iter()
            .filter(|a| Family::of(**a) == family)
            .map(ToString::to_string)
            .collect(),
    };
    [of(Family::IPv4, "A"), of(Family::IPv6, "AAAA")]
        .into_iter()
        .filter(|record| !record.targets.is_empty())
        .collect()
}

pub(super) fn manifest(served: &Served, dns: &Dns, targets: &BTreeSet<IpAddr>) -> Value {
    let labels = BTreeMap::from([
        (names::MANAGED_BY, names::MANAGED_BY_VALUE),
        (names::LOAD_BALANCER, served.key.name.as_str()),
        (names::POOL, served.pool.name.as_str()),
    ]);
    let mut metadata = json!({
        "name": served.key.name,
        "namespace": served.key.namespace,
        "labels": labels,
    });
    if let Some(uid) = &served.object.metadata.uid {
        metadata["ownerReferences"] = json!([template::owner(&served.key.name, uid)]);
    }
    json!({
        "apiVersion": "externaldns.k8s.io/v1alpha1",
        "kind": Kind::DnsEndpoint.as_str(),
        "metadata": metadata,
        "spec": {"endpoints": records(dns, targets)},
    })
}

/// The write that makes what exists what is wanted.
pub(super) fn difference(
    world: &World,
    served: &Served,
    ours: Option<&Stored<DnsEndpoint>>,
    wanted: &Value,
) -> Option<Change> {
    let content = content_of(wanted);
    let (action, cause) = match ours {
        None => {
            let namespace = world.namespaces.get(&served.key.namespace);
            if namespace.is_some_and(|n| n.terminating) {
                return None;
            }
            (Action::Create(wanted.clone().into()), Cause::New)
        }
        Some(live) => {
            let meta = live.metadata();
            if meta.deletion_timestamp.is_some() {
                return None;
            }
            let uid = served.object.metadata.uid.as_ref();
            let mut owners = meta.owner_references.iter().flatten();
            let kept =
                uid.is_none_or(|uid| owners.any(|o| o.uid == *uid)) && labels_cover(wanted, meta);
            let same = live
                .valid()
                .is_some_and(|l| json!(l.spec.endpoints) == wanted["spec"]["endpoints"]);
            let cause = match (same, kept) {
                (true, true) => return None,
                (true, false) => Cause::Drift,
                _ => Cause::Dns,
            };
            let mut body = wanted.clone();
            body["metadata"]["resourceVersion"] = json!(meta.resource_version);
            (Action::Apply(body.into()), cause)
        }
    };
    Some(Change {
        stage: Stage::Publish,
        object: reference(&served.key),
        action,
        cause,
        needs: Vec::new(),
        content,
    })
}

pub(super) fn deletion(key: &Key, meta: &ObjectMeta) -> Change {
    Change {
        stage: Stage::Publish,
        object: reference(key),
        action: Action::Delete {
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
        },
        cause: Cause::Unwanted,
        needs: Vec::new(),
        content: 0,
    }
}

pub(super) fn reference(key: &Key) -> ObjectRef {
    ObjectRef {
        kind: Kind::DnsEndpoint,
        key: key.clone(),
    }
}

/// Whether a DNSEndpoint is one that this project made for the load balancer
/// of its name.
pub(super) fn is_ours(meta: &ObjectMeta, key: &Key) -> bool {
    let label = |name: &str| meta.labels.as_ref().and_then(|l| l.get(name));
    let controller = meta
        .owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true));
    label(names::MANAGED_BY).map(String::as_str) == Some(names::MANAGED_BY_VALUE)
        && label(names::LOAD_BALANCER) == Some(&key.name)
        && controller.is_none_or(|o| o.kind == "L2LoadBalancer" && o.name == key.name)
}
