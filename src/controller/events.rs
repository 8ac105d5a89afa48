//! Events for people, sent beside the loop: they are worth no delay.
//!
//! The same sentence about the same object becomes one Event with a count.
//! kube's own recorder counts by reason alone, and would hide every second
//! slot behind the sentence about the first.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::resource;
use crate::plan::PlannedEvent;
use crate::world::ObjectRef;

/// How many events may wait; more are dropped.
const QUEUE: usize = 1024;
/// How long an Event is counted up instead of created anew.
const SERIES: SignedDuration = SignedDuration::from_mins(6);
/// Who reports.
const CONTROLLER: &str = "l2lb.io/controller";
/// Longest note that the API takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Where events are handed in.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<PlannedEvent>);

impl Events {
    /// Starts the sender. `instance` is the name of this process.
    pub fn start(client: Client, instance: String) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(
            Recorder {
                client,
                instance,
                recent: HashMap::new(),
            }
            .run(receiver),
        );
        Self(sender)
    }

    /// Hands in an event.
    pub fn send(&self, event: PlannedEvent) {
        if let Err(error) = self.0.try_send(event) {
            debug!(%error, "event dropped");
        }
    }
}

/// What makes two events the same.
type Sameness = (ObjectRef, Option<String>, &'static str, String);

struct Recorder {
    client: Client,
    instance: String,
    recent: HashMap<Sameness, Sent>,
}

struct Sent {
    name: String,
    count: i32,
    at: Timestamp,
}

impl Recorder {
    async fn run(mut self, mut receiver: mpsc::Receiver<PlannedEvent>) {
        while let Some(planned) = receiver.recv().await {
            let (object, reason) = (planned.object.clone(), planned.reason);
            match (planned.warning, planned.note.as_str()) {
                (true, note) => warn!(%object, reason, note, "event"),
                (false, note) => info!(%object, reason, note, "event"),
            }
            let sent = self.record(planned, Timestamp::now());
            match tokio::time::timeout(Duration::from_secs(5), sent).await {
                Ok(Ok(())) => debug!(%object, reason, "event recorded"),
                Ok(Err(error)) => warn!(%object, reason, %error, "event not recorded"),
                Err(_) => warn!(%object, reason, "event not recorded in time"),
            }
        }
    }

    async fn record(&mut self, planned: PlannedEvent, now: Timestamp) -> Result<(), kube::Error> {
        self.recent
            .retain(|_, sent| now.duration_since(sent.at) < SERIES);
        let namespace = match planned.object.key.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let key = (
            planned.object.clone(),
            planned.uid.clone(),
            planned.reason,
            planned.note.clone(),
        );
        if let Some(sent) = self.recent.get_mut(&key) {
            sent.count += 1;
            sent.at = now;
            let series = EventSeries {
                count: sent.count,
                last_observed_time: MicroTime(now),
            };
            let patch = serde_json::json!({"series": series});
            api.patch(&sent.name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
            return Ok(());
        }
        let event = self.event(&planned, namespace, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        self.recent.insert(
            key,
            Sent {
                name,
                count: 1,
                at: now,
            },
        );
        Ok(())
    }

    fn event(&self, planned: &PlannedEvent, namespace: &str, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{:x}",
                    planned.object.key.name,
                    now.as_nanosecond()
                )),
                namespace: Some(namespace.to_owned()),
                ..Default::default()
            },
            action: Some("Plan".to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(shortened(&planned.note)),
            reason: Some(planned.reason.to_owned()),
            regarding: Some(reference(planned)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if planned.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Default::default()
        }
    }
}

fn shortened(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    let end = (0..=LONGEST_NOTE - 3)
        .rev()
        .find(|i| note.is_char_boundary(*i))
        .unwrap_or(0);
    format!("{}...", &note[..end])
}

fn reference(planned: &PlannedEvent) -> ObjectReference {
    let key = &planned.object.key;
    let resource = resource::api_resource(planned.object.kind);
    ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(resource.kind),
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()).filter(|n| !n.is_empty()),
        uid: planned.uid.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Key, Kind};
    use http::{Request, Response};
    use kube::client::Body;

    fn planned(note: &str) -> PlannedEvent {
        PlannedEvent {
            object: ObjectRef {
                kind: Kind::AddressPool,
                key: Key::new("", "edge"),
            },
            uid: None,
            warning: false,
            reason: "SlotAdded",
            note: note.to_owned(),
        }
    }

    #[tokio::test]
    async fn one_sentence_is_counted_and_another_is_new() {
        let (service, mut server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let events = Events::start(Client::new(service, "x"), "me".to_owned());
        for note in ["web-0", "web-1", "web-0"] {
            events.send(planned(note));
        }
        let mut methods = Vec::new();
        for _ in 0..3 {
            let (request, send) = server.next_request().await.unwrap();
            methods.push(request.method().to_string());
            assert!(
                request
                    .uri()
                    .path()
                    .starts_with("/apis/events.k8s.io/v1/namespaces/default/")
            );
            send.send_response(Response::new(Body::from(b"{\"metadata\": {}}".to_vec())));
        }
        assert_eq!(methods, ["POST", "POST", "PATCH"]);
    }

    #[test]
    fn notes_are_shortened_between_characters() {
        let note = shortened(&"ä".repeat(1000));
        assert!(note.len() <= LONGEST_NOTE && note.ends_with("ä..."));
    }
}
