//! Patience with what cannot be written: refusals, writes that the API server
//! does not finish, and fights with somebody who writes the same object. Each
//! is a matter of one object, which is tried again later and later, and said
//! in a status; nothing else waits for it but what needs it.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::View;
use crate::plan::{Action, Change};
use crate::world::{ObjectRef, Refusal};

/// The longest wait before a write is tried again.
pub(super) const LONGEST_BACKOFF: SignedDuration = SignedDuration::from_mins(5);
/// How often the same content may be written to one object within
/// [`REPEAT_WINDOW`] before something is said to change it back.
pub(super) const REPEATS: u32 = 5;
/// See [`REPEATS`].
const REPEAT_WINDOW: SignedDuration = SignedDuration::from_secs(30);

/// What is remembered of writes, by object.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Objects that are not as planned, because that was refused.
    refused: BTreeSet<ObjectRef>,
    /// Writes without an answer.
    put_off: HashMap<ObjectRef, PutOff>,
    /// Writes that were done.
    repeats: HashMap<ObjectRef, Repeat>,
}

/// Writes of the same content without an answer, in a row.
#[derive(Clone, Debug)]
struct PutOff {
    content: u64,
    attempts: u32,
    retry_at: Timestamp,
}

#[derive(Clone, Debug)]
struct Repeat {
    content: u64,
    count: u32,
    first: Timestamp,
}

impl Patience {
    pub fn is_refused(&self, object: &ObjectRef) -> bool {
        self.refused.contains(object)
    }

    /// The API server does answer for the object.
    pub fn answered(&mut self, object: &ObjectRef) {
        self.put_off.remove(object);
    }

    /// The object is gone.
    pub fn forget(&mut self, object: &ObjectRef) {
        self.refused.remove(object);
        self.put_off.remove(object);
    }
}

impl View {
    /// Until when a change is not tried again, because the same was refused or
    /// not answered.
    pub(super) fn held_back(&self, change: &Change) -> Option<Timestamp> {
        let refusal = self.world.refusals.get(&change.object);
        let refused = refusal.map(|r| (r.content, r.retry_at));
        let put_off = self.patience.put_off.get(&change.object);
        let put_off = put_off.map(|p| (p.content, p.retry_at));
        [refused, put_off]
            .into_iter()
            .flatten()
            .filter(|(content, retry_at)| *content == change.content && *retry_at > self.world.now)
            .map(|(_, retry_at)| retry_at)
            .max()
    }

    /// A write was done.
    pub(super) fn accepted(&mut self, change: &Change, now: Timestamp) {
        let object = &change.object;
        // A Service is steered while its spec cannot be written, which that leaves
        // as it was.
        let refusal = self.world.refusals.get(object);
        if !change.action.steers() || refusal.is_some_and(|r| r.content == change.content) {
            self.world.clear_refusal(object);
            self.patience.refused.remove(object);
        }
        if matches!(change.action, Action::Delete { .. }) {
            return;
        }
        let fresh = Repeat {
            content: change.content,
            count: 0,
            first: now,
        };
        let repeats = &mut self.patience.repeats;
        let repeat = repeats
            .entry(object.clone())
            .or_insert_with(|| fresh.clone());
        if repeat.content != change.content {
            *repeat = fresh;
        }
        repeat.count += 1;
        if repeat.count >= REPEATS {
            let count = repeat.count;
            let retry_at = now + backoff(count);
            self.world.refuse(
                object.clone(),
                Refusal {
                    message: format!(
                        "{object} was written {count} times in a row and still differs: \
                         another controller or a webhook changes it back"
                    ),
                    retry_at,
                    attempts: count,
                    content: change.content,
                    reverted: true,
                },
            );
        }
    }

    /// A write was refused.
    pub(super) fn refuse(&mut self, change: &Change, message: String, now: Timestamp) {
        let object = &change.object;
        let attempts = self
            .world
            .refusals
            .get(object)
            .filter(|refusal| refusal.content == change.content)
            .map_or(1, |refusal| refusal.attempts.saturating_add(1));
        self.patience.refused.insert(object.clone());
        let retry_at = now + backoff(attempts);
        let refusal = Refusal {
            message,
            retry_at,
            attempts,
            content: change.content,
            reverted: false,
        };
        self.world.refuse(object.clone(), refusal);
    }

    /// A write was not answered. Once is chance, and nothing is said of it;
    /// from then on it is as if it were refused.
    pub(super) fn put_off(&mut self, change: &Change, why: &str, now: Timestamp) {
        let object = &change.object;
        let put_off = &mut self.patience.put_off;
        let before = put_off.get(object).filter(|p| p.content == change.content);
        let attempts = before.map_or(1, |p| p.attempts.saturating_add(1));
        let entry = PutOff {
            content: change.content,
            attempts,
            retry_at: now + backoff(attempts),
        };
        put_off.insert(object.clone(), entry);
        if attempts > 1 {
            self.refuse(change, format!("there was no answer in time ({why})"), now);
        }
    }

    /// Forgets what is wanted no more, by the changes of a plan. Returns
    /// whether the plan says something that is not so any more.
    pub(super) fn lose_patience(&mut self, changes: &[Change]) -> bool {
        let now = self.world.now;
        let patience = &mut self.patience;
        patience
            .repeats
            .retain(|_, repeat| now.duration_since(repeat.first) < REPEAT_WINDOW);
        if self.world.refusals.is_empty() && patience.put_off.is_empty() {
            patience.refused.clear();
            return false;
        }
        let refusals = &self.world.refusals;
        let waits = |object: &ObjectRef| {
            let refused = refusals.get(object).map(|r| r.retry_at);
            let put_off = patience.put_off.get(object).map(|p| p.retry_at);
            refused.max(put_off).is_some_and(|at| at > now)
        };
        let mut old: BTreeSet<ObjectRef> = refusals
            .keys()
            .chain(patience.put_off.keys())
            // What became of an unsettled one is not known yet.
            .filter(|object| !waits(object) && !self.unsettled.contains_key(*object))
            .cloned()
            .collect();
        for change in changes {
            old.remove(&change.object);
        }
        let mut any = false;
        for object in &old {
            any |= self.world.refusals.contains_key(object);
            self.world.clear_refusal(object);
            patience.forget(object);
        }
        let refusals = &self.world.refusals;
        patience
            .refused
            .retain(|object| refusals.contains_key(object));
        any
    }
}

/// One second, doubled with each attempt, up to five minutes.
pub(super) fn backoff(attempts: u32) -> SignedDuration {
    let seconds = 1i64 << attempts.saturating_sub(1).min(16);
    SignedDuration::from_secs(seconds).min(LONGEST_BACKOFF)
}
