//! What a cluster has: its lists, and the world that they make.

use std::fmt::Debug;

use futures::future::{join, join_all};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Cluster;
use crate::controller::resource;
use crate::external_dns::Availability;
use crate::metallb::{Capabilities, DEFINITIONS};
use crate::world::{Key, Kind, Observed, World};

/// How many objects a page of a list has, as with kubectl.
const PAGE: u32 = 500;

/// How fresh a list must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Freshness {
    /// As it is stored.
    Newest,
    /// As the API server that answers has it in memory, which may be a moment
    /// behind, and costs the storage nothing.
    Remembered,
}

/// What could not be read, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::cli) struct Unread {
    pub what: String,
    pub why: String,
}

/// Why a world could not be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(in crate::cli) enum Unreadable {
    /// Somebody lacks rights: what may not be read, at least one kind.
    #[error("{}", missing_rights(.0))]
    Forbidden(Vec<Unread>),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Failed(String),
}

impl From<Unreadable> for String {
    fn from(why: Unreadable) -> Self {
        why.to_string()
    }
}

fn missing_rights(unread: &[Unread]) -> String {
    let first = unread.first().map_or("", |u| u.why.as_str());
    format!(
        "this needs the right to read {}, which you lack ({first}); the chart's ClusterRole for \
         operators has it (docs/cli.md), and kubectl l2lb status -n NAMESPACE shows what may be \
         seen without it",
        kinds(unread)
    )
}

/// The names of what could not be read.
pub(in crate::cli) fn kinds(unread: &[Unread]) -> String {
    let names: Vec<&str> = unread.iter().map(|u| u.what.as_str()).collect();
    names.join(", ")
}

/// The objects of a cluster.
pub(in crate::cli) struct Lists {
    /// A world with the cluster's MetalLB in which nothing is yet.
    pub empty: World,
    /// The objects of each kind that is served.
    pub of_kinds: Vec<(Kind, Vec<Value>)>,
}

impl Cluster {
    /// Reads everything that matters to a plan or a review.
    ///
    /// # Errors
    /// What may not be listed, or a sentence that names what could not be.
    pub async fn world(&self) -> Result<World, Unreadable> {
        let lists = self.lists().await?;
        let mut world = lists.empty;
        for (kind, list) in lists.of_kinds {
            observe_all(&mut world, kind, list)?;
        }
        Ok(world)
    }

    /// The world, and the objects that are in it.
    ///
    /// # Errors
    /// As [`Self::world`].
    pub async fn world_and_objects(&self) -> Result<(World, Vec<Value>), Unreadable> {
        let lists = self.lists().await?;
        let mut world = lists.empty;
        let mut objects = Vec::new();
        for (kind, list) in lists.of_kinds {
            observe_all(&mut world, kind, list.clone())?;
            objects.extend(list);
        }
        Ok((world, objects))
    }

    /// A world of load balancers, of one namespace or all, and of their pools
    /// where those may be read: what their statuses report is all there is.
    ///
    /// # Errors
    /// That load balancers may not be listed, or a sentence.
    pub async fn reports(&self, namespace: Option<&str>) -> Result<World, Unreadable> {
        let mut world = World::new(
            Timestamp::now(),
            self.options.clone(),
            Capabilities::default(),
        );
        let kind = Kind::LoadBalancer;
        match self.list_in(kind, namespace, None, Freshness::Newest).await {
            Ok(list) => observe_all(&mut world, kind, list.unwrap_or_default())?,
            Err(error) => return Err(unreadable(kind.as_str(), &error)),
        }
        let kind = Kind::AddressPool;
        match self.list(kind, None, Freshness::Newest).await {
            Ok(list) => observe_all(&mut world, kind, list.unwrap_or_default())?,
            Err(error) if is_forbidden(&error) => {}
            Err(error) => return Err(unreadable(kind.as_str(), &error)),
        }
        Ok(world)
    }

    /// Every object that matters.
    ///
    /// # Errors
    /// As [`Self::world`].
    pub async fn lists(&self) -> Result<Lists, Unreadable> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let found = DEFINITIONS.map(|name| definitions.get_opt(name));
        let lists = resource::KINDS.map(|kind| self.list(kind, None, Freshness::Newest));
        let (found, lists) = join(join_all(found), join_all(lists)).await;
        let mut failures = Failures::default();
        let found = found
            .into_iter()
            .filter_map(|found| failures.take("CustomResourceDefinition", found).flatten());
        let found: Vec<_> = found.collect();
        let capabilities = Capabilities::from_definitions(&found);
        let mut empty = World::new(Timestamp::now(), self.options.clone(), capabilities);
        let mut of_kinds = Vec::new();
        for (kind, list) in resource::KINDS.into_iter().zip(lists) {
            let beside_the_point = resource::is_optional(kind) || kind == Kind::DnsEndpoint;
            let list = match list {
                Err(error) if beside_the_point && is_forbidden(&error) => None,
                other => failures.take(kind.as_str(), other).flatten(),
            };
            let Some(list) = list else { continue };
            if kind == Kind::DnsEndpoint {
                empty.set_external_dns(Availability::Served);
            }
            of_kinds.push((kind, list));
        }
        failures.none()?;
        Ok(Lists { empty, of_kinds })
    }

    /// The objects of a kind that are watched, or of those the ones that a
    /// label selector selects; `None` when its definition is not installed.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn list(
        &self,
        kind: Kind,
        labels: Option<&str>,
        freshness: Freshness,
    ) -> Result<Option<Vec<Value>>, kube::Error> {
        let namespace = resource::is_in_metallb_namespace(kind)
            .then_some(self.options.metallb_namespace.as_str());
        self.list_in(kind, namespace, labels, freshness).await
    }

    async fn list_in(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        labels: Option<&str>,
        freshness: Freshness,
    ) -> Result<Option<Vec<Value>>, kube::Error> {
        let resource = resource::api_resource(kind);
        let client = self.client.clone();
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let (usual, fields) = resource::selectors(kind);
        let params = ListParams {
            label_selector: labels.or(usual).map(str::to_owned),
            field_selector: fields,
            ..ListParams::default()
        };
        let list = match freshness {
            Freshness::Newest => list_all(&api, params).await,
            // There are no pages of it.
            Freshness::Remembered => api.list(&params.match_any()).await.map(|l| l.items),
        };
        let list = match list {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            other => other?,
        };
        let with_type = |item: DynamicObject| {
            let mut value = json!(item);
            // Items of a list lack these.
            value["apiVersion"] = json!(resource.api_version);
            value["kind"] = json!(resource.kind);
            value
        };
        Ok(Some(list.into_iter().map(with_type).collect()))
    }
}

/// What could not be read, of several things.
#[derive(Default)]
struct Failures {
    forbidden: Vec<Unread>,
    /// What went wrong first otherwise.
    failed: Option<Unreadable>,
}

impl Failures {
    /// The answer, if it is one.
    fn take<T>(&mut self, what: &str, answer: Result<T, kube::Error>) -> Option<T> {
        match answer.map_err(|error| unreadable(what, &error)) {
            Ok(answer) => return Some(answer),
            Err(Unreadable::Forbidden(unread)) => {
                let known = |u: &Unread| self.forbidden.iter().any(|f| f.what == u.what);
                let new: Vec<Unread> = unread.into_iter().filter(|u| !known(u)).collect();
                self.forbidden.extend(new);
            }
            Err(failed) => self.failed = self.failed.take().or(Some(failed)),
        }
        None
    }

    /// What went wrong comes before what is forbidden: that may be tried again.
    fn none(self) -> Result<(), Unreadable> {
        match self.failed {
            Some(failed) => Err(failed),
            None if self.forbidden.is_empty() => Ok(()),
            None => Err(Unreadable::Forbidden(self.forbidden)),
        }
    }
}

/// Whether rights lack.
pub(in crate::cli) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// What the API server said when something was read.
fn unreadable(what: &str, error: &kube::Error) -> Unreadable {
    if let kube::Error::Api(status) = error
        && status.code == 403
    {
        let (what, why) = (what.to_owned(), status.message.clone());
        return Unreadable::Forbidden(vec![Unread { what, why }]);
    }
    Unreadable::Failed(format!("{what} cannot be read: {error}"))
}

/// Everything that a list has, page by page.
///
/// # Errors
/// What the API server says.
pub(in crate::cli) async fn list_all<K>(
    api: &Api<K>,
    params: ListParams,
) -> Result<Vec<K>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        match api.list(&params).await {
            Ok(page) => {
                all.extend(page.items);
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params.continue_token = Some(token),
                    None => return Ok(all),
                }
            }
            // Pages are of one moment, which the API server forgets after a
            // while: then all at once, as kubectl does.
            Err(kube::Error::Api(status))
                if status.code == 410 && params.continue_token.is_some() =>
            {
                params.limit = None;
                params.continue_token = None;
                return api.list(&params).await.map(|list| list.items);
            }
            Err(error) => return Err(error),
        }
    }
}

fn observe_all(world: &mut World, kind: Kind, list: Vec<Value>) -> Result<(), Unreadable> {
    list.into_iter()
        .try_for_each(|item| observe(world, kind, item).map_err(Unreadable::Failed))
}

/// Takes in an object as the API server has it.
pub(in crate::cli) fn observe(world: &mut World, kind: Kind, value: Value) -> Result<(), String> {
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

#[cfg(test)]
pub(super) mod tests;
