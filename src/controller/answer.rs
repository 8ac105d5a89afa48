//! What the API server's answer to a write means.

use http::StatusCode;
use kube::core::Status;
use serde_json::Value;

use crate::api::names::FIELD_MANAGER;
use crate::plan::{Action, Change};
use crate::world::{ObjectRef, Observed};

/// What became of a write.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It was done, and this is the object now.
    Stored(Box<Observed>),
    /// The object does not exist any more.
    Gone,
    /// The object is not in the state that the write was for: look at it.
    Outdated(String),
    /// An object of somebody else has the name of one to be created.
    Taken(String),
    /// It was refused, with the reason.
    Refused(String),
    /// There was no answer: it was done, or not, or will be.
    Lost(String),
    /// The API server gave up on it: it was done, or not, or will be. Writes of
    /// other objects may fare better.
    Overdue(String),
    /// It was not done, because the API server is busy or gone or we may not write now.
    Unavailable(String),
}

impl Answer {
    /// One word for logs and metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Stored(_) => "stored",
            Self::Gone => "gone",
            Self::Outdated(_) => "outdated",
            Self::Taken(_) => "taken",
            Self::Refused(_) => "refused",
            Self::Lost(_) | Self::Overdue(_) => "lost",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// Whether the write was done.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Stored(_) | Self::Gone)
    }

    /// Whether further writes would fare the same.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Unavailable(_))
    }

    /// What went wrong.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Stored(_) | Self::Gone => None,
            Self::Outdated(m)
            | Self::Taken(m)
            | Self::Refused(m)
            | Self::Lost(m)
            | Self::Overdue(m)
            | Self::Unavailable(m) => Some(m),
        }
    }
}

/// What an answer calls for.
#[derive(Debug)]
pub(super) enum Judgement {
    /// Nothing more.
    Final(Answer),
    /// A creation met an object of somebody else: our fields must be taken
    /// out of it again. The object's metadata as it is now.
    Trespass(Value),
}

/// Reads the answer to a write.
pub(super) fn judge(change: &Change, status: StatusCode, body: &[u8]) -> Judgement {
    if status.is_success() {
        return succeeded(change, status, body);
    }
    Judgement::Final(failed(change, status, body))
}

fn succeeded(change: &Change, status: StatusCode, body: &[u8]) -> Judgement {
    let done = |answer| Judgement::Final(answer);
    let mut value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return done(Answer::Lost(format!("the answer is no JSON: {error}"))),
    };
    let metadata = value.get("metadata");
    let has = |field: &str| {
        metadata
            .and_then(|m| m.get(field))
            .is_some_and(|f| !f.is_null())
    };
    match &change.action {
        // A finalizer holds it, or the answer is the object that was.
        Action::Delete { .. } if !has("deletionTimestamp") => return done(Answer::Gone),
        // It went with the finalizer that was taken from it.
        Action::Apply(_) if has("deletionTimestamp") && !has("finalizers") => {
            return done(Answer::Gone);
        }
        Action::Create(_) if status != StatusCode::CREATED && is_shared(&value) => {
            return Judgement::Trespass(metadata.cloned().unwrap_or_default());
        }
        _ => {}
    }
    complete(&change.object, &mut value);
    done(match Observed::read(change.object.kind, value) {
        Ok(observed) => Answer::Stored(Box::new(observed)),
        Err(error) => Answer::Outdated(format!("the answer cannot be read: {error}")),
    })
}

fn failed(change: &Change, status: StatusCode, body: &[u8]) -> Answer {
    let message = sentence(status, body);
    let creating = matches!(change.action, Action::Create(_));
    match status.as_u16() {
        404 if matches!(change.action, Action::Delete { .. }) => Answer::Gone,
        // A webhook or a policy may give its refusal any code.
        400..=599 if is_final(&message) => Answer::Refused(message),
        // The namespace or the definition is missing, as nothing else can be.
        404 if creating => Answer::Refused(message),
        404 => Answer::Outdated(message),
        409 if creating => taken(&change.object, &message),
        409 => Answer::Outdated(message),
        401 | 408 | 429 | 503 => Answer::Unavailable(message),
        // Something between us and the API server.
        502 => Answer::Lost(message),
        500..=599 => Answer::Overdue(message),
        _ => Answer::Refused(message),
    }
}

/// What would come again, and to this object alone: an admission webhook that
/// does not answer or that denies it, a policy that does, and a stored object that
/// does not fit its definition. Others may be a store that was slow.
fn is_final(message: &str) -> bool {
    // With what no name of an object has in it.
    let signs = [
        "admission webhook \"",
        "calling webhook \"",
        "conversion webhook for ",
        "AdmissionPolicy '",
        "failed to create typed ",
    ];
    signs.iter().any(|sign| message.contains(sign))
}

/// The refusal of a creation because the name is in use.
pub(super) fn taken(object: &ObjectRef, detail: &str) -> Answer {
    let name = &object.key.name;
    Answer::Taken(format!(
        "{object} exists and is not ours: it stays untouched; rename or delete it to free the name {name} ({detail})"
    ))
}

/// Whether an object that should have been new has a spec by somebody else.
/// Our own, created by a write whose answer was lost, has not.
fn is_shared(object: &Value) -> bool {
    let managers = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    managers.into_iter().flatten().any(|entry| {
        let is = |field: &str, text: &str| entry.get(field).and_then(Value::as_str) == Some(text);
        !(is("manager", FIELD_MANAGER) && is("operation", "Apply"))
            && entry.get("subresource").is_none()
            && entry.pointer("/fieldsV1/f:spec").is_some()
    })
}

/// Items of a list of built-in kinds lack these.
pub(super) fn complete(object: &ObjectRef, value: &mut Value) {
    let resource = super::resource::api_resource(object.kind);
    if let Some(map) = value.as_object_mut() {
        map.entry("apiVersion")
            .or_insert(Value::String(resource.api_version));
        map.entry("kind").or_insert(Value::String(resource.kind));
    }
}

/// What the server says, or its status line.
pub(super) fn sentence(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<Status>(body) {
        Ok(said) if !said.message.is_empty() => said.message,
        _ => format!("the API server answers {status}"),
    }
}
