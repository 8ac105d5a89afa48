//! AdmissionReview, version `admission.k8s.io/v1`: bytes in, bytes out.
//! Whatever comes in is answered; nothing of it is trusted to be well formed.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Candidate, Finding, Verdict, review};
use crate::world::{Kind, Observed, World, observe_manifest};

/// How many findings a message shows.
const SHOWN: usize = 20;
/// Warnings longer than this may be cut by the API server.
const LONGEST_WARNING: usize = 2048;

/// A request that can be answered.
#[derive(Debug)]
pub struct Request {
    /// Identifies the request in the answer.
    pub uid: String,
    /// `CREATE`, `UPDATE` or something without rules.
    pub operation: String,
    /// The kind that it is about, as the API server names it.
    pub kind: String,
    body: Result<Option<Box<Candidate>>, String>,
}

/// Why no answer in the form of a review is possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an AdmissionReview of admission.k8s.io/v1: {0}")]
pub struct Malformed(String);

/// An answer, and what is to be counted.
#[derive(Debug)]
pub struct Answer {
    /// The AdmissionReview to send.
    pub body: Value,
    /// What was found.
    pub verdict: Verdict,
    /// `allowed`, `denied` or `malformed`.
    pub outcome: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Body>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    uid: String,
    kind: GroupVersionKind,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Deserialize)]
struct GroupVersionKind {
    kind: String,
}

impl Request {
    /// Reads a review.
    ///
    /// # Errors
    /// [`Malformed`] when it has no uid to answer to.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let review: Review =
            serde_json::from_slice(bytes).map_err(|error| Malformed(error.to_string()))?;
        if review.kind != "AdmissionReview" || review.api_version != "admission.k8s.io/v1" {
            return Err(Malformed(format!(
                "it is a {} of {}",
                review.kind, review.api_version
            )));
        }
        let body = review
            .request
            .ok_or_else(|| Malformed("it has no request".to_owned()))?;
        if body.uid.is_empty() {
            return Err(Malformed("its request has no uid".to_owned()));
        }
        Ok(Self {
            uid: body.uid.clone(),
            operation: body.operation.clone(),
            kind: body.kind.kind.clone(),
            body: body.candidate().map(|c| c.map(Box::new)),
        })
    }

    /// The object that is asked about, where there are rules for it.
    pub fn object(&self) -> Option<&Observed> {
        self.body
            .as_ref()
            .ok()?
            .as_ref()
            .map(|candidate| &candidate.object)
    }

    /// The selector of the pods that a load balancer is for, with its
    /// namespace: for whoever can look whether there are any.
    pub fn pods(&self) -> Option<(String, String)> {
        let Ok(Some(candidate)) = &self.body else {
            return None;
        };
        let Observed::LoadBalancer(stored) = &candidate.object else {
            return None;
        };
        let selector = &stored.valid()?.spec.service.selector;
        let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        (!labels.is_empty()).then(|| (candidate.object.object().key.namespace, labels.join(",")))
    }

    /// Notes whether there are such pods.
    pub fn set_selects_pods(&mut self, found: Option<bool>) {
        if let Ok(Some(candidate)) = &mut self.body {
            candidate.selects_pods = found;
        }
    }

    /// Judges what is asked.
    pub fn answer(&self, world: &World) -> Answer {
        match &self.body {
            Ok(None) => self.respond(Verdict::default()),
            Ok(Some(candidate)) => self.respond(review(world, candidate)),
            Err(why) => Answer {
                body: response(&self.uid, false, 400, why, &[]),
                verdict: Verdict::default(),
                outcome: "malformed",
            },
        }
    }

    fn respond(&self, verdict: Verdict) -> Answer {
        let warnings: Vec<String> = verdict.warnings.iter().map(warning).collect();
        let allowed = verdict.is_allowed();
        let message = message(&verdict.denials);
        Answer {
            body: response(&self.uid, allowed, 403, &message, &warnings),
            outcome: if allowed { "allowed" } else { "denied" },
            verdict,
        }
    }
}

impl Body {
    /// The object to judge; `None` where there are no rules.
    fn candidate(self) -> Result<Option<Candidate>, String> {
        if !self.sub_resource.is_empty() {
            return Ok(None);
        }
        let namespace = self.namespace.clone();
        match self.operation.as_str() {
            "CREATE" => {
                let object = read(self.object, "object", namespace.as_deref())?;
                Ok(object.map(Candidate::created))
            }
            "UPDATE" => {
                // Compared before anything is read: an object that cannot be
                // read any more can still lose its finalizers.
                if !self.object["spec"].is_null() && self.object["spec"] == self.old_object["spec"]
                {
                    return Ok(None);
                }
                let object = read(self.object, "object", namespace.as_deref())?;
                let old = read(self.old_object, "oldObject", namespace.as_deref())?;
                Ok(object
                    .zip(old)
                    .map(|(object, old)| Candidate::changed(object, old)))
            }
            _ => Ok(None),
        }
    }
}

fn read(
    mut value: Value,
    field: &str,
    namespace: Option<&str>,
) -> Result<Option<Observed>, String> {
    let wrong = |what: &str| format!("request.{field} cannot be read: {what}");
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Err(wrong("it has no metadata"));
    };
    if let Some(namespace) = namespace.filter(|n| !n.is_empty()) {
        metadata
            .entry("namespace")
            .or_insert_with(|| json!(namespace));
    }
    // Filled in by the API server after admission, where it was left to it.
    let generated = metadata
        .get("generateName")
        .and_then(Value::as_str)
        .map(|n| format!("{n}00000"));
    if let Some(generated) = generated {
        let name = metadata.entry("name").or_insert_with(|| json!(""));
        if name.as_str().is_none_or(str::is_empty) {
            *name = json!(generated);
        }
    }
    let observed = observe_manifest(value).map_err(|error| wrong(&error.to_string()))?;
    Ok(observed.filter(|o| {
        matches!(
            o.kind(),
            Kind::AddressPool | Kind::LoadBalancer | Kind::IpAddressPool | Kind::L2Advertisement
        )
    }))
}

/// The denials as one message for a person.
pub fn message(denials: &[Finding]) -> String {
    if let [only] = denials {
        return only.to_string();
    }
    let mut text = format!("{} problems:", denials.len());
    for finding in denials.iter().take(SHOWN) {
        text.push_str(&format!("\n- {finding}"));
    }
    if denials.len() > SHOWN {
        text.push_str(&format!("\n- and {} more", denials.len() - SHOWN));
    }
    text
}

fn warning(finding: &Finding) -> String {
    let text = format!("{}: {finding}", finding.object);
    match text.char_indices().nth(LONGEST_WARNING) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

fn response(uid: &str, allowed: bool, code: u16, message: &str, warnings: &[String]) -> Value {
    let mut response = json!({"uid": uid, "allowed": allowed});
    if !allowed {
        let reason = if code == 400 {
            "BadRequest"
        } else {
            "Forbidden"
        };
        response["status"] = json!({"code": code, "reason": reason, "message": message});
    }
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review_of(request: Value) -> Vec<u8> {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": request});
        serde_json::to_vec(&review).unwrap()
    }

    fn pool(addresses: &[&str]) -> Value {
        json!({"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge"}, "spec": {"addresses": addresses}})
    }

    #[test]
    fn answers_carry_uid_and_reason() {
        let bytes = review_of(json!({"uid": "u", "kind": {"kind": "L2AddressPool"},
            "operation": "CREATE", "object": pool(&["10.0.0.5/24", "127.0.0.1"])}));
        let answer = Request::parse(&bytes).unwrap().answer(&World::default());
        let response = &answer.body["response"];
        assert_eq!(response["uid"], "u");
        assert_eq!(response["allowed"], false);
        let message = response["status"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("2 problems:\n- spec.addresses[0]: "),
            "{message}"
        );
        assert_eq!(answer.outcome, "denied");
    }

    #[test]
    fn what_is_malformed_is_answered() {
        for bytes in [
            &b""[..],
            b"{}",
            b"null",
            b"[1]",
            b"{\"kind\":\"AdmissionReview\"}",
            b"\xff",
        ] {
            assert!(Request::parse(bytes).is_err());
        }
        let cases = [
            json!({"uid": "u", "kind": {"kind": "x"}, "operation": "CREATE", "object": 3}),
            json!({"uid": "u", "kind": {"kind": "x"}, "operation": "UPDATE", "object": {"metadata": {}}}),
            json!({"uid": "u", "kind": {"kind": "x"}, "operation": "CREATE",
                "object": {"apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
                    "metadata": {"name": 7}}}),
        ];
        for case in cases {
            let answer = Request::parse(&review_of(case))
                .unwrap()
                .answer(&World::default());
            assert_eq!(answer.outcome, "malformed");
            assert_eq!(answer.body["response"]["allowed"], false);
        }
    }

    #[test]
    fn other_operations_and_subresources_are_allowed() {
        for request in [
            json!({"uid": "u", "kind": {"kind": "x"}, "operation": "DELETE"}),
            json!({"uid": "u", "kind": {"kind": "x"}, "operation": "UPDATE",
                "subResource": "status", "object": 3}),
            json!({"uid": "u", "kind": {"kind": "x"}, "operation": "UPDATE",
                "object": pool(&["no"]), "oldObject": pool(&["no"])}),
        ] {
            let answer = Request::parse(&review_of(request))
                .unwrap()
                .answer(&World::default());
            assert_eq!(answer.outcome, "allowed");
        }
    }
}
