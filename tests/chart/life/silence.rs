//! Answers that get lost.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Result;
use l2lb_lab::Lab;
use serde_json::json;

/// A webhook that never answers, so that a write takes longer than its writer waits.
pub(super) struct Silence {
    _listener: TcpListener,
}

pub(super) const SILENT: &str = "silence";

impl Silence {
    pub(super) fn start() -> Result<Self> {
        // Connections are taken by the kernel, and nobody says a word.
        let listener = TcpListener::bind(("192.0.2.1", 9999))?;
        Ok(Self {
            _listener: listener,
        })
    }

    pub(super) async fn over(&self, lab: &Lab, group: &str, resource: &str) -> Result<()> {
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": SILENT},
            "webhooks": [{
                "name": "silence.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Ignore", "timeoutSeconds": 10,
                "clientConfig": {"url": "https://192.0.2.1:9999/"},
                "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                    "resources": [resource]}],
                "matchConditions": [{"name": "the-controller",
                    "expression": "request.userInfo.username.endsWith(':l2lb-controller')"}],
            }],
        });
        lab.apply(&configuration.to_string()).await?;
        // The API server hears of it through a watch of its own.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    pub(super) async fn end(&self, lab: &Lab) -> Result<()> {
        lab.kubectl()
            .run(["delete", "validatingwebhookconfiguration", SILENT])
            .await?;
        Ok(())
    }
}
