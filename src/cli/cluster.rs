//! The cluster of the kubeconfig: how to reach it, and its world, read once.

use std::path::PathBuf;

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::controller::resource;
use crate::external_dns::Availability;
use crate::metallb::{Capabilities, DEFINITIONS};
use crate::world::{Key, Kind, Observed, Options, World};

/// Which cluster, and where its MetalLB is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Target {
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// File with the kubeconfig [default: KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of MetalLB
    #[arg(long, value_name = "NAME", default_value = "metallb-system")]
    metallb_namespace: String,
    /// Say that MetalLB's speakers run with --ignore-exclude-lb
    #[arg(long)]
    ignore_exclude_lb: bool,
}

impl Target {
    /// The planner's settings.
    pub fn options(&self) -> Options {
        Options {
            metallb_namespace: self.metallb_namespace.clone(),
            ignore_exclude_label: self.ignore_exclude_lb,
            ..Options::default()
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// A sentence that names the cluster.
    pub async fn connect(&self) -> Result<Cluster, String> {
        let unknown = |error: String| {
            format!("no cluster is known: {error}; set KUBECONFIG, or name a file by --kubeconfig")
        };
        let config = if self.context.is_none() && self.kubeconfig.is_none() {
            Config::infer().await.map_err(|e| unknown(e.to_string()))?
        } else {
            let kubeconfig = match &self.kubeconfig {
                Some(path) => Kubeconfig::read_from(path),
                None => Kubeconfig::read(),
            };
            let options = KubeConfigOptions {
                context: self.context.clone(),
                ..KubeConfigOptions::default()
            };
            let kubeconfig = kubeconfig.map_err(|e| unknown(e.to_string()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|e| unknown(e.to_string()))?
        };
        let (url, namespace) = (config.cluster_url.clone(), config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| format!("cannot connect to {url}: {error}"))?;
        Ok(Cluster {
            client,
            namespace,
            options: self.options(),
        })
    }
}

/// A cluster that is connected to.
pub(super) struct Cluster {
    pub client: Client,
    /// The namespace of the kubeconfig's context.
    pub namespace: String,
    pub options: Options,
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

impl Cluster {
    /// Reads everything that matters to a plan or a review.
    ///
    /// # Errors
    /// A sentence that names the kind that could not be listed.
    pub async fn world(&self) -> Result<World, String> {
        let (mut world, lists) = self.objects().await?;
        for (kind, list) in lists {
            for item in list {
                observe(&mut world, kind, item)?;
            }
        }
        Ok(world)
    }

    /// The world, and the objects that are in it.
    ///
    /// # Errors
    /// A sentence that names the kind that could not be listed.
    pub async fn world_and_objects(&self) -> Result<(World, Vec<Value>), String> {
        let (mut world, lists) = self.objects().await?;
        let mut objects = Vec::new();
        for (kind, list) in lists {
            for item in list {
                observe(&mut world, kind, item.clone())?;
                objects.push(item);
            }
        }
        Ok((world, objects))
    }

    /// A world in which nothing is yet, and the objects of each kind that is served.
    async fn objects(&self) -> Result<(World, Vec<(Kind, Vec<Value>)>), String> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let definitions = &definitions;
        let found = try_join_all(DEFINITIONS.map(|name| async move {
            let found = definitions.get_opt(name).await;
            found.map_err(|error| format!("CustomResourceDefinition {name}: {error}"))
        }))
        .await?;
        let capabilities = Capabilities::from_definitions(found.iter().flatten());
        let lists = try_join_all(resource::KINDS.map(|kind| self.list(kind))).await?;
        let mut world = World::new(Timestamp::now(), self.options.clone(), capabilities);
        let mut there = Vec::new();
        for (kind, list) in resource::KINDS.into_iter().zip(lists) {
            let Some(list) = list else { continue };
            if kind == Kind::DnsEndpoint {
                world.set_external_dns(Availability::Served);
            }
            there.push((kind, list));
        }
        Ok((world, there))
    }

    /// The objects of a kind; `None` when its definition is not installed, or
    /// less is known without it.
    async fn list(&self, kind: Kind) -> Result<Option<Vec<Value>>, String> {
        let resource = resource::api_resource(kind);
        let client = self.client.clone();
        let api: Api<DynamicObject> = if resource::is_in_metallb_namespace(kind) {
            Api::namespaced_with(client, &self.options.metallb_namespace, &resource)
        } else {
            Api::all_with(client, &resource)
        };
        let (labels, fields) = resource::selectors(kind);
        let params = ListParams {
            label_selector: labels.map(str::to_owned),
            field_selector: fields,
            ..ListParams::default()
        };
        let beside_the_point = resource::is_optional(kind) || kind == Kind::DnsEndpoint;
        let list = match api.list(&params).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(kube::Error::Api(status)) if beside_the_point && status.code == 403 => {
                return Ok(None);
            }
            Err(error) => return Err(format!("{} cannot be listed: {error}", kind.as_str())),
        };
        let with_type = |item: DynamicObject| {
            let mut value = json!(item);
            // Items of a list lack these.
            value["apiVersion"] = json!(resource.api_version);
            value["kind"] = json!(resource.kind);
            value
        };
        Ok(Some(list.items.into_iter().map(with_type).collect()))
    }
}

/// Takes in an object as the API server has it.
fn observe(world: &mut World, kind: Kind, value: Value) -> Result<(), String> {
    let read = Observed::read(kind, value).map_err(|e| format!("{}: {e}", kind.as_str()))?;
    // A speaker makes its status when it begins to announce.
    let announced = match &read {
        Observed::ServiceL2Status(meta) => {
            let label = |key: &str| meta.labels.as_ref()?.get(key).cloned();
            let service = label(crate::metallb::STATUS_SERVICE);
            let namespace = label(crate::metallb::STATUS_NAMESPACE).unwrap_or_default();
            let since = meta.creation_timestamp.as_ref().map(|t| t.0);
            service.map(|s| Key::new(namespace, s)).zip(since)
        }
        _ => None,
    };
    world.observe(read);
    if let Some((service, since)) = announced
        && world.announcers.contains_key(&service)
    {
        world.announced_since.insert(service, since);
    }
    Ok(())
}
