//! Events for people, sent beside the loop: they are worth no delay.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::resource;
use crate::plan::PlannedEvent;

/// How many events may wait; more are dropped.
const QUEUE: usize = 256;

/// Where events are handed in.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<PlannedEvent>);

impl Events {
    /// Starts the sender. `instance` is the name of this process.
    pub fn start(client: Client, instance: String) -> Self {
        let (sender, mut receiver) = mpsc::channel::<PlannedEvent>(QUEUE);
        let reporter =
            Reporter { controller: "l2lb.io/controller".to_owned(), instance: Some(instance) };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some(planned) = receiver.recv().await {
                let reference = reference(&planned);
                let event = event(&planned);
                let sent = recorder.publish(&event, &reference);
                let object = planned.object;
                match tokio::time::timeout(Duration::from_secs(5), sent).await {
                    Ok(Ok(())) => debug!(%object, reason = planned.reason, "event"),
                    Ok(Err(error)) => warn!(%object, %error, "event not recorded"),
                    Err(_) => warn!(%object, "event not recorded in time"),
                }
            }
        });
        Self(sender)
    }

    /// Hands in an event.
    pub fn send(&self, event: PlannedEvent) {
        if let Err(error) = self.0.try_send(event) {
            debug!(%error, "event dropped");
        }
    }
}

fn event(planned: &PlannedEvent) -> Event {
    // The API allows 1024 bytes in a note.
    let mut note = planned.note.clone();
    if note.len() > 1000 {
        let end = (0..=1000).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
        note.truncate(end);
        note.push_str("...");
    }
    Event {
        type_: if planned.warning { EventType::Warning } else { EventType::Normal },
        reason: planned.reason.to_owned(),
        note: Some(note),
        action: "Plan".to_owned(),
        secondary: None,
    }
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
