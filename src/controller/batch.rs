//! The order in which the changes of one plan are written.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::Answer;
use crate::plan::{Action, Change, Stage};
use crate::world::ObjectRef;

/// From how many writes in a row that the API server gave up on it is taken
/// for the server that is slow, and not for the objects.
const OVERDUE: usize = 32;

/// The changes of one plan, handed out stage by stage.
#[derive(Debug, Default)]
pub struct Batch {
    /// Addresses that move and need nothing for it.
    moves: Vec<Change>,
    stages: BTreeMap<Stage, Vec<Change>>,
    undone: BTreeSet<ObjectRef>,
    overdue: usize,
    outage: bool,
    /// Writes that were done.
    pub done: usize,
    /// Changes that were left out because what they need could not be written.
    pub skipped: usize,
}

impl Batch {
    /// Sorts changes into stages.
    pub fn new(changes: Vec<Change>) -> Self {
        let mut batch = Self::default();
        for change in changes {
            // Moving an address off a dead node comes before everything else:
            // any other write may take as long as the API server lets it.
            if change.cause.is_move() && change.needs.is_empty() {
                batch.moves.push(change);
            } else {
                batch.stages.entry(change.stage).or_default().push(change);
            }
        }
        for changes in batch.stages.values_mut() {
            // Then those that wait for something, and what exists before what is new.
            changes.sort_by_key(|c| (!c.cause.is_move(), matches!(c.action, Action::Create(_))));
        }
        batch
    }

    /// The changes of the next stage, which must all be answered before the one after.
    pub fn next_stage(&mut self) -> Option<Vec<Change>> {
        if !self.moves.is_empty() {
            return Some(std::mem::take(&mut self.moves));
        }
        let (_, changes) = self.stages.pop_first()?;
        let before = changes.len();
        let (ready, waiting): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|c| !c.needs.iter().any(|n| self.undone.contains(n)));
        self.skipped += before - ready.len();
        self.undone.extend(waiting.into_iter().map(|c| c.object));
        Some(ready)
    }

    /// Notes the answer to a change.
    pub fn answered(&mut self, change: &Change, answer: &Answer) {
        if answer.is_success() {
            self.overdue = 0;
            self.done += 1;
            return;
        }
        self.undone.insert(change.object.clone());
        self.overdue += usize::from(matches!(answer, Answer::Overdue(_)));
        self.outage |= answer.is_outage() || self.overdue >= OVERDUE;
    }

    /// Whether further writes would fare no better.
    pub fn is_outage(&self) -> bool {
        self.outage
    }

    /// The objects that were not written.
    pub fn undone(&self) -> &BTreeSet<ObjectRef> {
        &self.undone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Cause;
    use crate::world::{Key, Kind};

    fn object(name: &str) -> ObjectRef {
        ObjectRef {
            kind: Kind::Service,
            key: Key::new("shop", name),
        }
    }

    fn change(stage: Stage, name: &str, cause: Cause, needs: &[&str]) -> Change {
        Change {
            stage,
            object: object(name),
            action: Action::Create(serde_json::json!({}).into()),
            cause,
            needs: needs.iter().map(|n| object(n)).collect(),
            content: 1,
        }
    }

    fn names(stage: Option<Vec<Change>>) -> Vec<String> {
        let changes = stage.unwrap();
        changes.into_iter().map(|c| c.object.key.name).collect()
    }

    fn overdue() -> Answer {
        Answer::Overdue("request did not complete within the allotted timeout".to_owned())
    }

    #[test]
    fn stages_in_order_and_moves_first() {
        let mut batch = Batch::new(vec![
            change(Stage::Pool, "pool", Cause::New, &[]),
            change(Stage::Serve, "new", Cause::New, &["pool"]),
            change(Stage::Serve, "waiting", Cause::Return, &["advertisement"]),
            change(Stage::Serve, "moved", Cause::Failover, &[]),
        ]);
        assert_eq!(names(batch.next_stage()), ["moved"]);
        assert_eq!(names(batch.next_stage()), ["pool"]);
        assert_eq!(names(batch.next_stage()), ["waiting", "new"]);
        assert!(batch.next_stage().is_none());
    }

    #[test]
    fn what_fails_holds_back_what_needs_it_and_nothing_else() {
        let mut batch = Batch::new(vec![
            change(Stage::Pool, "pool", Cause::New, &[]),
            change(Stage::Advertise, "advertisement", Cause::New, &["pool"]),
            change(Stage::Advertise, "other", Cause::New, &[]),
            change(Stage::Serve, "a", Cause::New, &["pool"]),
            // It needs what was not even tried.
            change(Stage::Serve, "b", Cause::New, &["advertisement"]),
            change(Stage::Serve, "c", Cause::New, &["other"]),
            change(Stage::Withdraw, "d", Cause::Unwanted, &[]),
        ]);
        let pool = batch.next_stage().unwrap().remove(0);
        batch.answered(&pool, &overdue());
        assert!(!batch.is_outage());
        assert_eq!(names(batch.next_stage()), ["other"]);
        assert_eq!(names(batch.next_stage()), ["c"]);
        assert_eq!(batch.skipped, 3);
        assert_eq!(names(batch.next_stage()), ["d"]);
    }

    #[test]
    fn many_overdue_in_a_row_are_an_outage() {
        let one = change(Stage::Serve, "a", Cause::New, &[]);
        let mut batch = Batch::default();
        for _ in 0..OVERDUE - 1 {
            batch.answered(&one, &overdue());
        }
        batch.answered(&one, &Answer::Gone);
        batch.answered(&one, &overdue());
        assert!(!batch.is_outage());
        for _ in 0..OVERDUE - 1 {
            batch.answered(&one, &overdue());
        }
        assert!(batch.is_outage());
        let mut batch = Batch::default();
        batch.answered(&one, &Answer::Lost("connection refused".to_owned()));
        assert!(batch.is_outage());
    }
}
