//! The world as the cluster of the kubeconfig has it, read once.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, Config};
use serde_json::json;

use crate::controller::resource;
use crate::external_dns::Availability;
use crate::metallb::{Capabilities, DEFINITIONS};
use crate::world::{Kind, Observed, Options, World};

/// Reads everything that matters to a plan or a review.
///
/// # Errors
/// A sentence that names the kind that could not be listed.
pub(super) fn world(options: Options) -> Result<World, String> {
    run(async { read(&connect().await?, options).await })
}

/// Runs something that talks to the cluster.
///
/// # Errors
/// That of `work`.
pub(super) fn run<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(work)
}

/// Connects to the cluster of the kubeconfig.
///
/// # Errors
/// A sentence that names it.
pub(super) async fn connect() -> Result<Client, String> {
    let config = Config::infer()
        .await
        .map_err(|error| format!("no cluster is known: {error}; set KUBECONFIG"))?;
    let url = config.cluster_url.clone();
    Client::try_from(config).map_err(|error| format!("cannot connect to {url}: {error}"))
}

/// Reads everything that matters to a plan or a review.
///
/// # Errors
/// A sentence that names the kind that could not be listed.
pub(super) async fn read(client: &Client, options: Options) -> Result<World, String> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut found = Vec::new();
    for name in DEFINITIONS {
        let definition = definitions.get_opt(name).await;
        found.extend(
            definition.map_err(|error| format!("CustomResourceDefinition {name}: {error}"))?,
        );
    }
    let capabilities = Capabilities::from_definitions(&found);
    let namespace = options.metallb_namespace.clone();
    let mut world = World::new(Timestamp::now(), options, capabilities);
    for kind in resource::KINDS
        .into_iter()
        .filter(|k| *k != Kind::ServiceL2Status)
    {
        let resource = resource::api_resource(kind);
        let api: Api<DynamicObject> = if resource::is_metallb(kind) {
            Api::namespaced_with(client.clone(), &namespace, &resource)
        } else {
            Api::all_with(client.clone(), &resource)
        };
        let list = match api.list(&ListParams::default()).await {
            Ok(list) => {
                if kind == Kind::DnsEndpoint {
                    world.set_external_dns(Availability::Served);
                }
                list.items
            }
            // DNS is beside the point where it may not be read.
            Err(kube::Error::Api(status)) if kind == Kind::DnsEndpoint && status.code == 403 => {
                continue;
            }
            // A kind whose definition is not installed.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(format!("{} cannot be listed: {error}", kind.as_str())),
        };
        for item in list {
            let mut value = json!(item);
            // Items of a list lack these.
            value["apiVersion"] = json!(resource.api_version);
            value["kind"] = json!(resource.kind);
            let read = Observed::read(kind, value);
            world.observe(read.map_err(|error| format!("{}: {error}", kind.as_str()))?);
        }
    }
    Ok(world)
}
