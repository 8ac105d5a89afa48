//! One write to the API server, by server-side apply with a field manager of
//! its own.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tracing::{debug, error, info, warn};

use super::answer::{self, Answer, Judgement};
use super::lease::Leadership;
use super::metrics::Metrics;
use super::resource;
use crate::api::names::FIELD_MANAGER;
use crate::plan::{Action, Change};
use crate::world::{ObjectRef, Observed};

/// How long to wait for an answer.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The deadline that the server is told: after it a write does not come into effect.
const SERVER_TIMEOUT: &str = "timeout=4s";

/// Writes changes and reads single objects.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    metrics: Metrics,
}

impl Writer {
    /// A writer that writes only while `leadership` is held.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics) -> Self {
        Self {
            client,
            leadership,
            metrics,
        }
    }

    /// Writes one change.
    pub async fn write(&self, change: &Change) -> Answer {
        let started = std::time::Instant::now();
        let answer = if self.leadership.holds_for(TIMEOUT) {
            self.send_change(change).await
        } else {
            Answer::Unavailable("the Lease is not held for long enough".to_owned())
        };
        let done = answer.is_success();
        self.metrics
            .wrote(change, answer.outcome(), done, started.elapsed());
        log(change, &answer);
        answer
    }

    /// Reads one object; `None` if there is none.
    ///
    /// # Errors
    /// A sentence, when there was no clear answer.
    pub async fn read(&self, object: &ObjectRef) -> Result<Option<Observed>, String> {
        let path = resource::path(object.kind, &object.key);
        let (status, body) = self.send(Method::GET, &path, None, None).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            s if s.is_success() => {
                let mut value: Value =
                    serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                answer::complete(object, &mut value);
                Observed::read(object.kind, value)
                    .map(Some)
                    .map_err(|error| error.to_string())
            }
            _ => Err(answer::sentence(status, &body)),
        }
    }

    async fn send_change(&self, change: &Change) -> Answer {
        let object = &change.object;
        let path = resource::path(object.kind, &object.key);
        let sent = match &change.action {
            Action::Create(body) => self.apply(&path, &body.to_json(), false).await,
            Action::Apply(body) => self.apply(&path, &body.to_json(), true).await,
            Action::Patch(body) => {
                let path = format!("{path}?fieldManager={FIELD_MANAGER}&{SERVER_TIMEOUT}");
                let merge = Some("application/merge-patch+json");
                self.send(Method::PATCH, &path, merge, Some(&body.to_json()))
                    .await
            }
            Action::ApplyStatus(body) => {
                self.apply(&format!("{path}/status"), &body.to_json(), true)
                    .await
            }
            Action::Delete {
                uid,
                resource_version,
            } => {
                let options = json!({
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "preconditions": {"uid": uid, "resourceVersion": resource_version},
                });
                let path = format!("{path}?{SERVER_TIMEOUT}");
                self.send(
                    Method::DELETE,
                    &path,
                    Some("application/json"),
                    Some(&options),
                )
                .await
            }
        };
        let (status, body) = match sent {
            Ok(sent) => sent,
            Err(why) => return Answer::Lost(why),
        };
        match answer::judge(change, status, &body) {
            Judgement::Final(answer) => answer,
            Judgement::Trespass(metadata) => {
                self.withdraw(object, &path, &metadata).await;
                answer::taken(object, "it was created at the same time")
            }
        }
    }

    /// Takes our fields out of an object of somebody else: an apply of nothing.
    async fn withdraw(&self, object: &ObjectRef, path: &str, metadata: &Value) {
        let kind = resource::api_resource(object.kind);
        let mut nothing = json!({
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": object.key.name, "uid": metadata.get("uid")},
        });
        if !object.key.namespace.is_empty() {
            nothing["metadata"]["namespace"] = json!(object.key.namespace);
        }
        match self.apply(path, &nothing, false).await {
            Ok((status, _)) if status.is_success() => {
                warn!(%object, "it was created by somebody else at the same time; our fields were taken out");
            }
            Ok((status, body)) => {
                let why = answer::sentence(status, &body);
                error!(%object, why, "our fields could not be taken out of somebody else's object");
            }
            Err(why) => {
                error!(%object, why, "our fields could not be taken out of somebody else's object");
            }
        }
    }

    async fn apply(
        &self,
        path: &str,
        body: &Value,
        force: bool,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&force={force}&{SERVER_TIMEOUT}");
        self.send(
            Method::PATCH,
            &path,
            Some("application/apply-patch+yaml"),
            Some(body),
        )
        .await
    }

    /// Sends a request and waits for the whole answer. An error means that
    /// nothing is known.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::ACCEPT, "application/json");
        if let Some(content) = content {
            request = request.header(header::CONTENT_TYPE, content);
        }
        let bytes = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| error.to_string())?,
            None => Vec::new(),
        };
        let request = request
            .body(Body::from(bytes))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self
                .client
                .send(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status();
            let bytes = response
                .into_body()
                .collect_bytes()
                .await
                .map_err(|error| error.to_string())?;
            Ok((status, bytes.to_vec()))
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} seconds", TIMEOUT.as_secs())),
        }
    }
}

/// Says what was written and why, and of a slot, whose addresses are where now.
fn log(change: &Change, answer: &Answer) {
    let (object, cause) = (&change.object, change.cause.as_str());
    let (verb, outcome) = (change.action.verb(), answer.outcome());
    let slot = change.action.slot();
    let home = slot.map(|s| s.home.as_str());
    let pin = slot.map(|s| s.pin.as_str());
    let addresses = slot.map(|s| {
        let addresses = s.addresses.iter().map(ToString::to_string);
        addresses.collect::<Vec<_>>().join(", ")
    });
    let trouble = slot.and_then(|s| s.trouble);
    match (answer, answer.message()) {
        (_, None) if verb == "status" => debug!(%object, verb, cause, "written"),
        (_, None) => info!(%object, verb, cause, home, pin, addresses, trouble, "written"),
        (Answer::Outdated(_), Some(why)) => {
            info!(%object, verb, cause, home, pin, addresses, trouble, why, "outdated");
        }
        (_, Some(why)) => warn!(
            %object, verb, cause, home, pin, addresses, trouble, outcome, why, "not written"
        ),
    }
}

#[cfg(test)]
mod tests;
