//! Keeps the certificate's Secret and the caBundle of the webhook
//! configurations. Several replicas do the same; a write names the version
//! that it is for, so one wins and the others read what it wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::Current;
use super::bundle::{Bundle, Step, Terms};

/// Renewals that replicas race for are decided in a few rounds.
const ROUNDS: usize = 8;

/// Keeps the certificate.
pub struct Keeper {
    secrets: Api<Secret>,
    secret: String,
    configurations: Api<ValidatingWebhookConfiguration>,
    names: Vec<String>,
    terms: Terms,
    current: Current,
    known: Option<Bundle>,
}

impl Keeper {
    /// A keeper that has not looked at anything yet.
    pub fn new(
        client: &Client,
        namespace: &str,
        secret: &str,
        configurations: &[String],
        terms: Terms,
        current: Current,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            secret: secret.to_owned(),
            configurations: Api::all(client.clone()),
            names: configurations.to_vec(),
            terms,
            current,
            known: None,
        }
    }

    /// Looks after everything for ever.
    pub async fn run(mut self, every: Duration, errors: &Counter) {
        loop {
            let wait = match self.look().await {
                Ok(until) => {
                    let left = until.duration_since(Timestamp::now());
                    Duration::try_from(left)
                        .unwrap_or_default()
                        .clamp(every / 4, every)
                }
                Err(why) => {
                    errors.inc();
                    warn!(why, "the certificate is not in order");
                    every / 4
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Brings everything in order once; returns when something is next due.
    async fn look(&mut self) -> Result<Timestamp, String> {
        for _ in 0..ROUNDS {
            let stored = self.read().await?;
            let now = Timestamp::now();
            let (bundle, version) = match stored {
                Some((Some(bundle), version)) => (bundle, version),
                Some((None, version)) => {
                    let bundle = self.fresh(now)?;
                    self.write(&bundle, version, "the Secret could not be read")
                        .await?;
                    continue;
                }
                None => {
                    let bundle = self.fresh(now)?;
                    self.write(&bundle, None, "there was no Secret").await?;
                    continue;
                }
            };
            // The CA is known before a certificate of it is shown.
            let published = self.publish(&bundle, now).await?;
            if self.known.as_ref() != Some(&bundle) {
                self.current.set(&bundle.leaf.pem, &bundle.leaf_key)?;
                info!(until = %bundle.leaf.until(), "the certificate is in use");
                self.known = Some(bundle.clone());
            }
            match bundle
                .next(now, published, &self.terms)
                .map_err(|e| e.to_string())?
            {
                Step::Keep(until) => return Ok(until),
                Step::Write(next, why) => self.write(&next, version, why).await?,
            }
        }
        Err("the Secret is changed by somebody all the time".to_owned())
    }

    /// What was in use before, if it can be: so that a Secret that was
    /// deleted disturbs nobody.
    fn fresh(&self, now: Timestamp) -> Result<Bundle, String> {
        match &self.known {
            Some(bundle) if bundle.leaf.until() > now => Ok(bundle.clone()),
            _ => Bundle::new(now, &self.terms).map_err(|error| error.to_string()),
        }
    }

    /// The Secret's content, if it can be read, and its version.
    async fn read(&self) -> Result<Option<(Option<Bundle>, Option<String>)>, String> {
        let secret = self
            .secrets
            .get_opt(&self.secret)
            .await
            .map_err(|error| format!("Secret {} cannot be read: {error}", self.secret))?;
        Ok(secret.map(|secret| {
            let data: BTreeMap<String, Vec<u8>> = secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(k, v)| (k, v.0))
                .collect();
            let bundle = Bundle::read(&data).map_err(|error| {
                // A Secret that was applied empty is filled.
                if !data.is_empty() {
                    warn!(secret = self.secret, %error, "a new certificate is made");
                }
            });
            (bundle.ok(), secret.metadata.resource_version)
        }))
    }

    /// Writes the Secret unless somebody else did meanwhile.
    async fn write(
        &self,
        bundle: &Bundle,
        version: Option<String>,
        why: &str,
    ) -> Result<(), String> {
        let data: BTreeMap<String, ByteString> = bundle
            .data()
            .into_iter()
            .map(|(k, v)| (k, ByteString(v)))
            .collect();
        let written = match version {
            None => {
                let mut secret = Secret {
                    data: Some(data),
                    ..Secret::default()
                };
                secret.metadata.name = Some(self.secret.clone());
                let labels = [("app.kubernetes.io/name", "l2lb-webhook")];
                secret.metadata.labels =
                    Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
                self.secrets.create(&PostParams::default(), &secret).await
            }
            Some(version) => {
                // Labels and annotations that others put there stay.
                let patch = json!({"metadata": {"resourceVersion": version}, "data": data});
                let params = PatchParams::default();
                self.secrets
                    .patch(&self.secret, &params, &Patch::Merge(patch))
                    .await
            }
        };
        match written {
            Ok(_) => {
                info!(secret = self.secret, why, "the certificate is renewed");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(format!("Secret {} cannot be written: {error}", self.secret)),
        }
    }

    /// Puts the CAs into every configuration that exists; returns whether the
    /// newest is in all of them.
    async fn publish(&self, bundle: &Bundle, now: Timestamp) -> Result<bool, String> {
        let mut everywhere = true;
        for name in &self.names {
            let found = self
                .configurations
                .get_opt(name)
                .await
                .map_err(|error| format!("ValidatingWebhookConfiguration {name}: {error}"))?;
            let Some(found) = found else { continue };
            let (patch, published) = patch(&found, bundle, now);
            everywhere &= published;
            let Some(patch) = patch else { continue };
            // Whether it took effect is seen when it is read again.
            everywhere = false;
            let patch: Patch<()> =
                Patch::Json(serde_json::from_value(patch).map_err(|error| error.to_string())?);
            match self
                .configurations
                .patch(name, &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => info!(configuration = name, "caBundle is written"),
                // It was changed meanwhile; the next look is soon.
                Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => {}
                Err(error) => {
                    return Err(format!("ValidatingWebhookConfiguration {name}: {error}"));
                }
            }
        }
        Ok(everywhere)
    }
}

/// The JSON patch that brings a configuration's caBundles in order, and
/// whether the newest CA is in all of them already.
fn patch(
    configuration: &ValidatingWebhookConfiguration,
    bundle: &Bundle,
    now: Timestamp,
) -> (Option<Value>, bool) {
    let mut operations = vec![json!({"op": "test", "path": "/metadata/resourceVersion",
        "value": configuration.metadata.resource_version})];
    let mut published = true;
    for (index, webhook) in configuration.webhooks.iter().flatten().enumerate() {
        let present = webhook
            .client_config
            .ca_bundle
            .as_ref()
            .map(|b| b.0.clone());
        let present = present
            .and_then(|b| String::from_utf8(b).ok())
            .unwrap_or_default();
        published &= bundle.is_published_in(&present);
        let wanted = bundle.ca_bundle(&present, now);
        if wanted != present {
            operations.push(json!({"op": "add",
                "path": format!("/webhooks/{index}/clientConfig/caBundle"),
                "value": ByteString(wanted.into_bytes())}));
        }
    }
    ((operations.len() > 1).then(|| json!(operations)), published)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_the_version_and_changes_the_ca_bundle_alone() {
        let terms = Terms {
            leaf: Duration::from_secs(100),
            ca: Duration::from_secs(1000),
            settle: Duration::from_secs(1),
            names: vec!["a.b.svc".to_owned()],
        };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let bundle = Bundle::new(now, &terms).unwrap();
        let mut configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": "l2lb", "resourceVersion": "7"},
            "webhooks": [{"name": "a.l2lb.io", "sideEffects": "None",
                "admissionReviewVersions": ["v1"], "clientConfig": {}}]}))
        .unwrap();
        let (operations, published) = patch(&configuration, &bundle, now);
        let operations = operations.unwrap();
        assert!(!published);
        assert_eq!(operations[0]["value"], "7");
        assert_eq!(operations[1]["path"], "/webhooks/0/clientConfig/caBundle");
        let ca = bundle.ca_bundle("", now).into_bytes();
        configuration.webhooks.as_mut().unwrap()[0]
            .client_config
            .ca_bundle = Some(ByteString(ca));
        assert_eq!(patch(&configuration, &bundle, now), (None, true));
    }
}
