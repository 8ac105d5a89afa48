//! The order in which the changes of one plan are written.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{is_for_pool, needs_pool};
use crate::plan::{Action, Change, Stage};
use crate::world::ObjectRef;

/// The changes of one plan, handed out stage by stage.
#[derive(Debug, Default)]
pub struct Batch {
    stages: BTreeMap<Stage, Vec<Change>>,
    blocked: BTreeSet<String>,
    failed: BTreeSet<ObjectRef>,
    /// Changes that were left out because their pool could not be written.
    pub skipped: usize,
}

impl Batch {
    /// Sorts changes into stages.
    pub fn new(changes: Vec<Change>) -> Self {
        let mut batch = Self::default();
        for change in changes {
            batch.stages.entry(change.stage).or_default().push(change);
        }
        for changes in batch.stages.values_mut() {
            // Moving an address off a dead node comes before everything else,
            // and what exists before what is new.
            changes.sort_by_key(|c| (!c.cause.is_move(), matches!(c.action, Action::Create(_))));
        }
        batch
    }

    /// The changes of the next stage, which must all be answered before the one after.
    pub fn next_stage(&mut self) -> Option<Vec<Change>> {
        let (stage, mut changes) = self.stages.pop_first()?;
        if needs_pool(stage) {
            let before = changes.len();
            changes.retain(|c| !c.pool.as_ref().is_some_and(|p| self.blocked.contains(p)));
            self.skipped += before - changes.len();
        }
        Some(changes)
    }

    /// Notes that a change could not be written.
    pub fn failed(&mut self, change: &Change) {
        if is_for_pool(change.stage)
            && let Some(pool) = &change.pool
        {
            self.blocked.insert(pool.clone());
        }
        self.failed.insert(change.object.clone());
    }

    /// The objects that could not be written.
    pub fn failures(&self) -> &BTreeSet<ObjectRef> {
        &self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Cause;
    use crate::world::{Key, Kind};

    fn change(stage: Stage, name: &str, cause: Cause, pool: Option<&str>) -> Change {
        Change {
            stage,
            object: ObjectRef {
                kind: Kind::Service,
                key: Key::new("shop", name),
            },
            action: Action::Create(serde_json::json!({}).into()),
            cause,
            pool: pool.map(str::to_owned),
            content: 1,
        }
    }

    #[test]
    fn stages_in_order_and_pins_first() {
        let mut batch = Batch::new(vec![
            change(Stage::Serve, "new", Cause::New, Some("edge")),
            change(Stage::Serve, "moved", Cause::Failover, Some("edge")),
            change(Stage::Pool, "pool", Cause::New, Some("edge")),
        ]);
        assert_eq!(batch.next_stage().unwrap()[0].object.key.name, "pool");
        let serve = batch.next_stage().unwrap();
        assert_eq!(serve[0].object.key.name, "moved");
        assert_eq!(serve.len(), 2);
        assert!(batch.next_stage().is_none());
    }

    #[test]
    fn a_failed_pool_holds_back_its_services_only() {
        let mut batch = Batch::new(vec![
            change(Stage::Pool, "pool", Cause::New, Some("edge")),
            change(Stage::Serve, "a", Cause::New, Some("edge")),
            change(Stage::Serve, "b", Cause::New, Some("other")),
            change(Stage::Withdraw, "c", Cause::Unwanted, Some("edge")),
        ]);
        let pool = batch.next_stage().unwrap().remove(0);
        batch.failed(&pool);
        assert_eq!(batch.next_stage().unwrap()[0].object.key.name, "b");
        assert_eq!(batch.skipped, 1);
        assert_eq!(batch.next_stage().unwrap()[0].object.key.name, "c");
    }
}
