//! The resource definitions: which kinds exist, and what the installed
//! MetalLB can do. Only their metadata is watched; the few that tell MetalLB's
//! versions apart are read whole when one of them changes.

use std::collections::BTreeSet;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Backoff, Source, WATCH_SECONDS, is_expired};
use crate::controller::view::News;
use crate::external_dns;
use crate::metallb::{Capabilities, DEFINITIONS};

/// Follows the definitions of this project, of MetalLB and of ExternalDNS for ever. `changed`
/// is told after each change, so that watches of kinds that just appeared start.
pub async fn follow_definitions(source: Source, changed: watch::Sender<()>) {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(source.client.clone());
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut stream = std::pin::pin!(watcher(api, config));
    let mut present = BTreeSet::new();
    let mut listing = false;
    let mut errors = Backoff::default();
    let mut last = None;
    while let Some(event) = stream.next().await {
        let relevant = match event {
            Ok(Event::Init) => {
                present.clear();
                listing = true;
                false
            }
            Ok(Event::InitDone) => {
                listing = false;
                true
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                let name = object.metadata.name.unwrap_or_default();
                // Its objects are being deleted, and new ones would hold that up.
                if object.metadata.deletion_timestamp.is_some() && name.ends_with(".metallb.io") {
                    present.remove(&name)
                } else {
                    matters(&name) && (present.insert(name.clone()) || is_telling(&name))
                }
            }
            Ok(Event::Delete(object)) => present.remove(&object.metadata.name.unwrap_or_default()),
            Err(error) => {
                if !is_expired(&error) {
                    warn!(kind = "CustomResourceDefinition", %error, "watch failed");
                    source.metrics.failed_to_watch("CustomResourceDefinition");
                }
                tokio::time::sleep(errors.next()).await;
                continue;
            }
        };
        if relevant && !listing {
            errors = Backoff::default();
            if !announce(&source, &present, &mut last).await {
                return;
            }
            changed.send_replace(());
        }
    }
}

fn matters(name: &str) -> bool {
    name.ends_with(".l2lb.io") || name.ends_with(".metallb.io") || name == external_dns::DEFINITION
}

fn is_telling(name: &str) -> bool {
    DEFINITIONS.contains(&name)
}

/// Reads what matters and tells it; `false` when nobody listens any more.
async fn announce(
    source: &Source,
    present: &BTreeSet<String>,
    last: &mut Option<Capabilities>,
) -> bool {
    let mut errors = Backoff::default();
    let capabilities = loop {
        match read(source, present).await {
            Ok(capabilities) => break capabilities,
            Err(error) => {
                warn!(%error, "MetalLB's resource definitions cannot be read");
                tokio::time::sleep(errors.next()).await;
            }
        }
    };
    if last.replace(capabilities) != Some(capabilities) {
        info!(
            installed = capabilities.installed,
            preferred_nodes = capabilities.preferred_nodes,
            service_selectors = capabilities.service_selectors,
            "MetalLB's resource definitions"
        );
    }
    source
        .news
        .send(News::Definitions {
            present: present.clone(),
            capabilities,
        })
        .await
        .is_ok()
}

async fn read(source: &Source, present: &BTreeSet<String>) -> Result<Capabilities, kube::Error> {
    let api: Api<CustomResourceDefinition> = Api::all(source.client.clone());
    let mut found = Vec::new();
    for name in DEFINITIONS.iter().filter(|name| present.contains(**name)) {
        found.extend(api.get_opt(name).await?);
    }
    Ok(Capabilities::from_definitions(&found))
}
