//! The watches: one for each kind, each telling its news to the view.
//!
//! Objects are read from plain JSON, so that a stored object which does not
//! fit its type is news like any other and does not stop the watch.

mod definitions;

pub use definitions::follow_definitions;

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource};
use kube::core::{DynamicResourceScope, PartialObjectMeta};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::metrics::Metrics;
use super::resource;
use super::view::News;
use crate::world::{Key, Kind, ObjectRef, Observed, ResourceVersion};

/// Length of one watch request. A connection that died without a word is
/// found out after this and five seconds.
const WATCH_SECONDS: u32 = 55;
/// The longest wait after an error.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// An object as plain JSON, with its metadata read.
#[derive(Clone, Debug)]
struct Raw {
    metadata: ObjectMeta,
    body: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut body = Value::deserialize(deserializer)?;
        spare(&mut body);
        let metadata = match body.get("metadata") {
            Some(metadata) => ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?,
            None => ObjectMeta::default(),
        };
        Ok(Self { metadata, body })
    }
}

/// Drops what nobody looks at and what is large.
fn spare(body: &mut Value) {
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(status) = body.get_mut("status").and_then(Value::as_object_mut) {
        for field in ["images", "volumesAttached", "volumesInUse"] {
            status.remove(field);
        }
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn group(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.group.as_str().into()
    }

    fn version(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.version.as_str().into()
    }

    fn kind(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.kind.as_str().into()
    }

    fn plural(dt: &ApiResource) -> std::borrow::Cow<'_, str> {
        dt.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What a watch needs.
#[derive(Clone)]
pub struct Source {
    /// The cluster.
    pub client: Client,
    /// The namespace of MetalLB's objects.
    pub metallb_namespace: String,
    /// Where news goes.
    pub news: mpsc::Sender<News>,
    /// Counts the news.
    pub metrics: Metrics,
}

/// Starts the watches of some kinds and of the resource definitions.
pub fn start(source: &Source, kinds: impl IntoIterator<Item = Kind>) -> tokio::task::JoinSet<()> {
    let (changed, poke) = watch::channel(());
    let mut tasks = tokio::task::JoinSet::new();
    source.metrics.watches("CustomResourceDefinition");
    for kind in kinds {
        source.metrics.watches(kind.as_str());
        tasks.spawn(follow_kind(source.clone(), kind, poke.clone()));
    }
    tasks.spawn(follow_definitions(source.clone(), changed));
    tasks
}

async fn follow_kind(source: Source, kind: Kind, poke: watch::Receiver<()>) {
    let resource = resource::api_resource(kind);
    let (client, namespace) = (source.client.clone(), source.metallb_namespace.as_str());
    if kind == Kind::ServiceL2Status {
        let api: Api<PartialObjectMeta<Raw>> = Api::namespaced_with(client, namespace, &resource);
        let read = |mut partial: PartialObjectMeta<Raw>| {
            partial.metadata.managed_fields = None;
            Ok(Observed::ServiceL2Status(Box::new(partial.metadata)))
        };
        follow(&source, kind, api, read, poke).await;
        return;
    }
    let api: Api<Raw> = if resource::is_in_metallb_namespace(kind) {
        Api::namespaced_with(client, namespace, &resource)
    } else {
        Api::all_with(client, &resource)
    };
    let read = move |raw: Raw| {
        let object = reference(kind, &raw.metadata);
        let mut body = raw.body;
        super::answer::complete(&object, &mut body);
        Observed::read(kind, body).map_err(|error| (object, error.to_string()))
    };
    follow(&source, kind, api, read, poke).await;
}

fn reference(kind: Kind, metadata: &ObjectMeta) -> ObjectRef {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    ObjectRef {
        kind,
        key: Key::new(namespace, metadata.name.clone().unwrap_or_default()),
    }
}

/// Follows one kind for ever. When its definition comes or goes (`poke`) an
/// error is not waited out.
async fn follow<K>(
    source: &Source,
    kind: Kind,
    api: Api<K>,
    read: impl Fn(K) -> Result<Observed, (ObjectRef, String)>,
    mut poke: watch::Receiver<()>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut errors = Backoff::default();
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    let (labels, fields) = resource::selectors(kind);
    config.label_selector = labels.map(str::to_owned);
    config.field_selector = fields;
    loop {
        let mut stream = std::pin::pin!(watcher(api.clone(), config.clone()));
        while let Some(event) = stream.next().await {
            let error = match event {
                Ok(event) => {
                    // The mark that a list begins comes before any answer.
                    if !matches!(event, Event::Init) {
                        errors = Backoff::default();
                    }
                    if !tell(source, kind, event, &read).await {
                        return;
                    }
                    continue;
                }
                Err(error) => error,
            };
            let forbidden = resource::is_optional(kind) && answers(&error, 403);
            let missing = answers(&error, 404) || forbidden;
            if !missing && !is_expired(&error) {
                source.metrics.failed_to_watch(kind.as_str());
            }
            if missing {
                if forbidden && errors.count == 0 {
                    warn!(kind = kind.as_str(), %error, "may not be read: less is known of who can announce");
                } else if errors.count == 0 {
                    info!(kind = kind.as_str(), "not served by the API server");
                }
                if source.news.send(News::NotServed(kind)).await.is_err() {
                    return;
                }
            } else if !is_expired(&error) {
                warn!(kind = kind.as_str(), %error, "watch failed");
            }
            tokio::select! {
                () = tokio::time::sleep(errors.next()) => {}
                poked = poke.changed() => match poked {
                    Ok(()) => errors = Backoff::default(),
                    Err(_) => return,
                }
            }
            if missing {
                // The stream would go on from where it was before the kind went.
                break;
            }
        }
    }
}

/// Tells an event; `false` when nobody listens any more.
async fn tell<K: Resource>(
    source: &Source,
    kind: Kind,
    event: Event<K>,
    read: impl Fn(K) -> Result<Observed, (ObjectRef, String)>,
) -> bool {
    let (what, object) = match event {
        Event::Init => {
            debug!(kind = kind.as_str(), "listing");
            return source.news.send(News::ListStarted(kind)).await.is_ok();
        }
        Event::InitDone => {
            debug!(kind = kind.as_str(), "listed");
            return source.news.send(News::ListDone(kind)).await.is_ok();
        }
        Event::Delete(object) => {
            let metadata = object.meta();
            let news = News::Deleted {
                object: reference(kind, metadata),
                uid: metadata.uid.clone(),
                version: ResourceVersion::parse(metadata.resource_version.as_deref()),
            };
            source.metrics.heard(kind.as_str(), "deleted");
            return source.news.send(news).await.is_ok();
        }
        Event::InitApply(object) => ("listed", object),
        Event::Apply(object) => ("applied", object),
    };
    source.metrics.heard(kind.as_str(), what);
    let news = match read(object) {
        Ok(observed) if what == "listed" => News::Listed(Box::new(observed)),
        Ok(observed) => News::Applied(Box::new(observed)),
        Err((object, error)) => {
            warn!(%object, error, "cannot be read; what is known of it stays");
            News::Unreadable(object)
        }
    };
    source.news.send(news).await.is_ok()
}

/// Whether the API server refused to list or watch with this status.
fn answers(error: &watcher::Error, code: u16) -> bool {
    // A group that is not served is answered by plain text, which
    // `Status::is_not_found` does not take for an answer.
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == code,
        _ => false,
    }
}

/// The watch fell behind and lists anew by itself.
fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

/// Half a second, doubled with each error in a row.
#[derive(Debug, Default)]
struct Backoff {
    count: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(500 << self.count.min(8)).min(LONGEST_WAIT);
        self.count += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_idle_parts_are_dropped() {
        let raw: Raw = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "x"}]},
            "status": {"images": [{"names": ["x"]}], "addresses": []},
        }))
        .unwrap();
        assert_eq!(raw.body["status"], serde_json::json!({"addresses": []}));
        assert!(raw.body["metadata"].get("managedFields").is_none());
        assert!(raw.metadata.managed_fields.is_none());
    }

    #[test]
    fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next()).collect();
        assert_eq!(waits[0], Duration::from_millis(500));
        assert_eq!(waits[8], LONGEST_WAIT);
    }
}
