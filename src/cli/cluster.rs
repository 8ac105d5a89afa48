//! The world as the cluster of the kubeconfig has it, read once.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, Config};
use serde_json::json;

use crate::controller::resource;
use crate::metallb::{Capabilities, DEFINITIONS};
use crate::world::{Kind, Observed, Options, World};

/// Reads everything that matters to a plan or a review.
///
/// # Errors
/// A sentence that names the kind that could not be listed.
pub(super) fn world(options: Options) -> Result<World, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(read(options))
}

async fn read(options: Options) -> Result<World, String> {
    let config = Config::infer()
        .await
        .map_err(|error| format!("no cluster is known: {error}; set KUBECONFIG"))?;
    let url = config.cluster_url.clone();
    let client =
        Client::try_from(config).map_err(|error| format!("cannot connect to {url}: {error}"))?;
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
            Ok(list) => list.items,
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
