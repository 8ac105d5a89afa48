//! Taking the finalizers of L2AddressPools off, when no controller will run
//! any more: `l2lb-controller --release-pools`, which the chart runs after it
//! was uninstalled.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::resource;
use crate::api::names::POOL_FINALIZER;
use crate::world::Kind;

/// A controller that was just told to end may put a finalizer back: nothing
/// may have changed for this long.
const QUIET: Duration = Duration::from_secs(3);
/// How often is looked.
const TICK: Duration = Duration::from_secs(1);
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes our finalizer off every pool, and leaves everything else as it is:
/// what a pool gave out stays in use.
///
/// # Errors
/// A sentence with the remedy.
pub async fn release_pools(client: Client) -> Result<(), String> {
    let pools = Api::all_with(client, &resource::api_resource(Kind::AddressPool));
    let start = Instant::now();
    let mut last_change = start;
    let mut released = 0;
    loop {
        match pass(&pools).await {
            Ok(0) if last_change.elapsed() >= QUIET => {
                info!(released, "no L2AddressPool is held any more");
                return Ok(());
            }
            Ok(0) => {}
            Ok(count) => {
                released += count;
                last_change = Instant::now();
            }
            Err(error) => {
                warn!(%error, "the pools are not released yet");
                last_change = Instant::now();
            }
        }
        if start.elapsed() > PATIENCE {
            return Err(format!(
                "after {} s L2AddressPools still get or have the finalizer {POOL_FINALIZER}: \
                 see that no controller runs and that l2addresspools may be listed and patched",
                PATIENCE.as_secs()
            ));
        }
        sleep(TICK).await;
    }
}

/// Looks at every pool once; returns how many had the finalizer.
async fn pass(pools: &Api<DynamicObject>) -> Result<usize, kube::Error> {
    let all = match pools.list(&ListParams::default()).await {
        Ok(all) => all,
        // The definition has gone, and the pools with it.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut count = 0;
    for pool in all {
        let Some(patch) = without_ours(&pool) else {
            continue;
        };
        count += 1;
        let name = pool.metadata.name.as_deref().unwrap_or_default();
        let patch = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
        let patch: Patch<()> = Patch::Json(patch);
        match pools.patch(name, &PatchParams::default(), &patch).await {
            Ok(_) => info!(pool = name, "released"),
            // It has gone, or somebody changed it: it is looked at again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// The patch that takes our finalizer off an object, if it has it.
fn without_ours(pool: &DynamicObject) -> Option<Value> {
    let position = pool
        .metadata
        .finalizers
        .iter()
        .flatten()
        .position(|finalizer| finalizer == POOL_FINALIZER)?;
    let path = format!("/metadata/finalizers/{position}");
    Some(json!([
        {"op": "test", "path": path, "value": POOL_FINALIZER},
        {"op": "remove", "path": path},
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(finalizers: &[&str]) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "l2lb.io/v1alpha1", "kind": "L2AddressPool",
            "metadata": {"name": "edge", "finalizers": finalizers},
        }))
        .unwrap()
    }

    #[test]
    fn only_our_finalizer_is_taken_off() {
        assert_eq!(without_ours(&pool(&["example.org/theirs"])), None);
        let patch = without_ours(&pool(&["example.org/theirs", POOL_FINALIZER])).unwrap();
        assert_eq!(
            patch,
            json!([
                {"op": "test", "path": "/metadata/finalizers/1", "value": POOL_FINALIZER},
                {"op": "remove", "path": "/metadata/finalizers/1"},
            ])
        );
    }
}
