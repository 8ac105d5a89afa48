//! Reads a snapshot of a cluster for the rules.

use futures::future::join_all;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::check::{KUBE_PROXY, LEASE, LEASE_LABELS, Snapshot, lease_name};
use crate::cli::cluster::{Cluster, list_all};
use crate::controller::resource;
use crate::world::Kind;

/// Where something is that the planner does not see.
#[derive(Clone)]
struct Place<'a> {
    kind: &'a str,
    /// What is missing when it may not be read, if not the kind as such.
    part: Option<&'a str>,
    api_version: &'a str,
    plural: &'a str,
    namespace: Option<&'a str>,
    labels: Option<&'a str>,
    fields: Option<String>,
}

impl Place<'_> {
    const fn of(kind: &'static str, api_version: &'static str, plural: &'static str) -> Self {
        Self {
            kind,
            part: None,
            api_version,
            plural,
            namespace: None,
            labels: None,
            fields: None,
        }
    }
}

fn slices() -> Place<'static> {
    Place::of("EndpointSlice", "discovery.k8s.io/v1", "endpointslices")
}

fn leases() -> Place<'static> {
    Place::of("Lease", "coordination.k8s.io/v1", "leases")
}

fn named(name: &str) -> Option<String> {
    Some(format!("metadata.name={name}"))
}

/// What is looked at in every cluster.
fn usual(metallb: &str) -> Vec<Place<'_>> {
    let metallb = Some(metallb);
    vec![
        Place::of(
            "CustomResourceDefinition",
            "apiextensions.k8s.io/v1",
            "customresourcedefinitions",
        ),
        Place::of(
            "ValidatingWebhookConfiguration",
            "admissionregistration.k8s.io/v1",
            "validatingwebhookconfigurations",
        ),
        Place {
            labels: Some(LEASE_LABELS),
            ..leases()
        },
        Place {
            fields: named(LEASE),
            ..leases()
        },
        Place::of(
            "PrometheusRule",
            "monitoring.coreos.com/v1",
            "prometheusrules",
        ),
        Place {
            namespace: Some(KUBE_PROXY.0),
            fields: named(KUBE_PROXY.1),
            ..Place::of("ConfigMap", "v1", "configmaps")
        },
        Place {
            namespace: metallb,
            ..Place::of("Pod", "v1", "pods")
        },
        Place {
            namespace: metallb,
            ..Place::of(
                "ConfigurationState",
                "metallb.io/v1beta1",
                "configurationstates",
            )
        },
        Place {
            namespace: metallb,
            ..Place::of("AddressPool", "metallb.io/v1beta1", "addresspools")
        },
        Place {
            fields: Some("reason=AllocationFailed".to_owned()),
            ..Place::of("Event", "v1", "events")
        },
        // EndpointSlices have the labels of their Service.
        Place {
            labels: Some(crate::api::names::LOAD_BALANCER),
            ..slices()
        },
        Place {
            namespace: Some("default"),
            labels: Some("kubernetes.io/service-name=kubernetes"),
            ..slices()
        },
    ]
}

/// Reads everything that the rules look at.
///
/// # Errors
/// A sentence that names what the planner needs and could not be listed.
pub(super) async fn snapshot(cluster: &Cluster) -> Result<Snapshot, String> {
    let (world, objects) = cluster.world_and_objects().await?;
    let kept = [
        Kind::Service,
        Kind::Node,
        Kind::ServiceL2Status,
        // Their managed fields say when they were changed, which the world leaves out.
        Kind::LoadBalancer,
        Kind::AddressPool,
    ]
    .map(Kind::as_str);
    let mut snapshot = Snapshot {
        objects: objects
            .into_iter()
            .filter(|o| o["kind"].as_str().is_some_and(|k| kept.contains(&k)))
            .collect(),
        world,
        ..Snapshot::default()
    };
    let metallb = cluster.options.metallb_namespace.as_str();
    let mut places = usual(metallb);
    let hooks = services_of_webhooks(cluster).await;
    let selectors: Vec<(String, String)> = hooks
        .into_iter()
        .map(|(namespace, name)| (namespace, format!("kubernetes.io/service-name={name}")))
        .collect();
    for (namespace, selector) in &selectors {
        places.push(Place {
            namespace: Some(namespace),
            labels: Some(selector),
            ..slices()
        });
    }
    // What MetalLB does not look at.
    let elsewhere = format!("metadata.namespace!={metallb}");
    let ignored = [
        Kind::IpAddressPool,
        Kind::L2Advertisement,
        Kind::BgpAdvertisement,
    ]
    .map(resource::api_resource);
    places.extend(ignored.iter().map(|resource| Place {
        kind: &resource.kind,
        part: Some("MetalLB's objects outside its namespace"),
        api_version: &resource.api_version,
        plural: &resource.plural,
        namespace: None,
        labels: None,
        fields: Some(elsewhere.clone()),
    }));
    // The chart's Leases have labels; of an older controller only the
    // Deployment knows the name.
    let deployments = Place {
        labels: Some(LEASE_LABELS),
        ..Place::of("Deployment", "apps/v1", "deployments")
    };
    let deployments = list(cluster, &deployments).await.unwrap_or_default();
    for deployment in &deployments {
        places.extend(lease_name(deployment).map(|name| Place {
            namespace: deployment["metadata"]["namespace"].as_str(),
            fields: named(name),
            ..leases()
        }));
    }
    let answers = join_all(places.iter().map(|place| list(cluster, place))).await;
    for (place, answer) in places.iter().zip(answers) {
        match answer {
            Ok(list) => {
                for object in list {
                    // A Lease may be found in more ways than one, and be
                    // renewed in between.
                    let known = |o: &Value| {
                        o["kind"] == "Lease" && o["metadata"]["uid"] == object["metadata"]["uid"]
                    };
                    if place.kind != "Lease" || !snapshot.objects.iter().any(known) {
                        snapshot.objects.push(object);
                    }
                }
            }
            Err(why) => {
                let unread = (place.part.unwrap_or(place.kind).to_owned(), why);
                if !snapshot.unread.contains(&unread) {
                    snapshot.unread.push(unread);
                }
            }
        }
    }
    snapshot.objects.extend(deployments);
    Ok(snapshot)
}

/// Namespace and name of the Services that our webhooks are called at. What
/// may not be read is said when the configurations are listed.
async fn services_of_webhooks(cluster: &Cluster) -> Vec<(String, String)> {
    let place = Place::of(
        "ValidatingWebhookConfiguration",
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
    );
    let configurations = list(cluster, &place).await.unwrap_or_default();
    let hooks = configurations
        .iter()
        .flat_map(|c| c["webhooks"].as_array().into_iter().flatten());
    let ours = hooks.filter(|h| h["name"].as_str().is_some_and(|n| n.ends_with(".l2lb.io")));
    let mut services: Vec<(String, String)> = ours
        .filter_map(|hook| {
            let service = &hook["clientConfig"]["service"];
            let namespace = service["namespace"].as_str()?;
            Some((namespace.to_owned(), service["name"].as_str()?.to_owned()))
        })
        .collect();
    services.sort();
    services.dedup();
    services
}

/// The objects of a place; none where the kind is not served.
async fn list(cluster: &Cluster, place: &Place<'_>) -> Result<Vec<Value>, String> {
    let (group, version) = place
        .api_version
        .split_once('/')
        .unwrap_or(("", place.api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: place.api_version.to_owned(),
        kind: place.kind.to_owned(),
        plural: place.plural.to_owned(),
    };
    let client = cluster.client.clone();
    let api: Api<DynamicObject> = match place.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let params = ListParams {
        label_selector: place.labels.map(str::to_owned),
        field_selector: place.fields.clone(),
        ..ListParams::default()
    };
    match list_all(&api, params).await {
        Ok(list) => Ok(list
            .into_iter()
            .map(|item| {
                let mut value = json!(item);
                // Items of a list lack these.
                value["apiVersion"] = json!(place.api_version);
                value["kind"] = json!(place.kind);
                value
            })
            .collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}
