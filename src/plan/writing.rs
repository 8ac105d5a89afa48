//! Bodies of writes, and the patience with writes that were refused.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use serde_json::Value;

use super::change::Change;
use crate::world::World;

/// A digest of a body, to tell whether a refused write is the same again.
pub(super) fn content_of(body: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    hasher.finish()
}

/// The change, unless the same was refused and its time has not come; then
/// that time.
pub(super) fn hold_back(world: &World, change: Change) -> (Option<Change>, Option<Timestamp>) {
    match world.refusals.get(&change.object) {
        Some(refusal) if refusal.content == change.content && refusal.retry_at > world.now => {
            (None, Some(refusal.retry_at))
        }
        _ => (Some(change), None),
    }
}
