//! The view: the world, and how fresh each part of it is.
//!
//! A watch lags behind the writer. Planning on what the watch has shown would
//! give an address twice, so the answer to every write is taken in at once and
//! older news of the same object is ignored from then on. Everything here is
//! synchronous and without I/O: the controller and the model test drive the
//! same code.

mod gone;
mod news;
mod patience;

pub use news::News;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use self::gone::Gone;
use self::patience::Patience;
use super::answer::Answer;
use super::resource;
use crate::plan::{self, Action, Census, Change, PlannedEvent, Planner, Stage};
use crate::world::{Key, Kind, ObjectRef, Observed, Options, ResourceVersion, World};

/// How long a creation without an answer may still come into effect: the
/// deadline that the API server is given for a write, and a margin.
pub const LANDING: SignedDuration = SignedDuration::from_secs(6);

/// What is known of an object that exists.
#[derive(Clone, Debug)]
struct Known {
    uid: Option<String>,
    version: ResourceVersion,
    /// Known from a write or a read of our own; the watch has not shown it yet.
    ahead: bool,
}

/// An object whose state must be asked for.
#[derive(Clone, Debug)]
struct Unsettled {
    /// When it may be asked for.
    not_before: Timestamp,
    /// Until when a write of ours may come into effect.
    lands_until: Option<Timestamp>,
}

/// A question to the API server: what is the state of this object now?
#[derive(Clone, Debug)]
pub struct Question {
    /// The object.
    pub object: ObjectRef,
    version: Option<ResourceVersion>,
}

/// The outcome of planning once.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// What can be written now.
    pub changes: Vec<Change>,
    /// What a person should know, once the changes are written.
    pub events: Vec<PlannedEvent>,
    /// When to plan again even if nothing happens.
    pub next_deadline: Option<Timestamp>,
    /// What there is, if it was asked for.
    pub census: Option<Census>,
}

/// The world and its freshness.
#[derive(Debug)]
pub struct View {
    world: World,
    known: BTreeMap<Kind, HashMap<Key, Known>>,
    gone: Gone,
    /// The objects that a list in progress has shown so far.
    listings: BTreeMap<Kind, HashSet<Key>>,
    listed: BTreeSet<Kind>,
    /// The resource definitions that exist; `None` before they were read.
    definitions: Option<BTreeSet<String>>,
    unsettled: BTreeMap<ObjectRef, Unsettled>,
    patience: Patience,
}

impl View {
    /// An empty view, which knows nothing yet.
    pub fn new(now: Timestamp, options: Options) -> Self {
        Self {
            world: World::new(now, options, crate::metallb::Capabilities::default()),
            known: BTreeMap::new(),
            gone: Gone::default(),
            listings: BTreeMap::new(),
            listed: BTreeSet::new(),
            definitions: None,
            unsettled: BTreeMap::new(),
            patience: Patience::default(),
        }
    }

    /// The world as it is known.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Sets the time, which what is observed from now on is dated with.
    pub fn set_time(&mut self, now: Timestamp) {
        self.world.set_now(now);
    }

    /// The kinds that have not been listed yet, by name; empty when planning may begin.
    pub fn missing(&self) -> Vec<&'static str> {
        if self.definitions.is_none() {
            return vec!["CustomResourceDefinition"];
        }
        resource::KINDS
            .iter()
            // DNS is not worth waiting for: until it is known it is left alone.
            .filter(|k| **k != Kind::DnsEndpoint && !self.listed.contains(k))
            .map(|k| k.as_str())
            .collect()
    }

    /// Plans, and holds back what must not be written yet: changes to objects
    /// whose state is uncertain or that must be waited for, and what needs them.
    pub fn plan(&mut self, planner: &mut Planner, now: Timestamp) -> Round {
        self.plan_and_count(planner, now, |_| false)
    }

    /// The same, with a census when `count` says so of the number of changes.
    pub fn plan_and_count(
        &mut self,
        planner: &mut Planner,
        now: Timestamp,
        count: impl Fn(usize) -> bool,
    ) -> Round {
        self.world.set_now(now);
        let mut plan = planner.plan(&self.world);
        if self.lose_patience(&plan.changes) {
            plan = planner.plan(&self.world);
        }
        let at_rest = plan.changes.is_empty() && self.unsettled.is_empty();
        if at_rest && self.world.set_evenness(planner.evenness()) {
            plan = planner.plan(&self.world);
        }
        let census = count(plan.changes.len()).then(|| plan::census(&self.world, &plan));
        let settle = self.unsettled.values().map(|u| u.not_before).min();
        // Also when what was refused is wanted no more, that must be said.
        let refused = self.world.refusals.values().map(|r| r.retry_at);
        let refused = refused.filter(|at| *at > now).min();
        let mut deadline = [plan.next_deadline, settle, refused]
            .into_iter()
            .flatten()
            .min();
        let mut withheld = BTreeSet::new();
        let mut changes = Vec::with_capacity(plan.changes.len());
        // What is needed comes before what needs it.
        for change in plan.changes {
            let until = self.held_back(&change);
            deadline = deadline.into_iter().chain(until).min();
            let mut needs = change.needs.iter();
            if until.is_some()
                || self.unsettled.contains_key(&change.object)
                || needs.any(|n| withheld.contains(n) || self.is_in_doubt(n))
            {
                if matches!(change.stage, Stage::Pool | Stage::Advertise) {
                    withheld.insert(change.object);
                }
            } else {
                changes.push(change);
            }
        }
        Round {
            changes,
            events: plan.events,
            next_deadline: deadline,
            census,
        }
    }

    /// Whether an object may not be as planned, although nothing is planned for it.
    fn is_in_doubt(&self, object: &ObjectRef) -> bool {
        self.unsettled.contains_key(object) || self.patience.is_refused(object)
    }

    /// Takes in the answer to a write.
    pub fn answered(&mut self, change: &Change, answer: Answer, now: Timestamp) {
        self.world.set_now(now);
        let object = &change.object;
        if !matches!(
            answer,
            Answer::Lost(_) | Answer::Overdue(_) | Answer::Unavailable(_)
        ) {
            self.patience.answered(object);
        }
        match answer {
            Answer::Stored(observed) => {
                self.store(*observed, true);
                self.unsettled.remove(object);
                self.accepted(change, now);
            }
            Answer::Gone => {
                let uid = match &change.action {
                    Action::Delete { uid, .. } => uid.clone(),
                    _ => None,
                };
                self.remove(object, uid);
                self.accepted(change, now);
            }
            Answer::Outdated(_) => self.unsettle(object, now),
            Answer::Taken(message) => {
                self.refuse(change, message, now);
                self.unsettle(object, now);
            }
            Answer::Refused(message) => {
                self.refuse(change, message, now);
                // The refusal may come from a state that is not the known one.
                if !matches!(change.action, Action::Create(_)) {
                    self.unsettle(object, now);
                }
            }
            Answer::Lost(why) | Answer::Overdue(why) => {
                self.lost(change, now);
                self.put_off(change, &why, now);
            }
            Answer::Unavailable(_) => {}
        }
    }

    /// What must be asked of the API server before the next plan.
    pub fn questions(&self, now: Timestamp) -> Vec<Question> {
        self.unsettled
            .iter()
            .filter(|(_, unsettled)| unsettled.not_before <= now)
            .map(|(object, _)| Question {
                object: object.clone(),
                version: self.known(object).map(|k| k.version),
            })
            .collect()
    }

    /// Takes in the answer to a question: the object, or that there is none.
    pub fn settled(&mut self, question: &Question, found: Option<Observed>) {
        let object = &question.object;
        if self.unsettled.remove(object).is_none() {
            return;
        }
        match found {
            Some(observed) => {
                self.store(observed, true);
            }
            // News that came in the meantime is at least as good.
            None if self.known(object).map(|k| k.version) == question.version => {
                self.remove(object, None);
            }
            None => {}
        }
    }

    /// Leaves a question that could not be answered for later.
    pub fn postpone(&mut self, question: &Question, until: Timestamp) {
        if let Some(unsettled) = self.unsettled.get_mut(&question.object) {
            unsettled.not_before = until;
        }
    }

    /// Whether a write may still come into effect: the Lease must not be handed on yet.
    pub fn has_writes_in_flight(&self, now: Timestamp) -> bool {
        self.unsettled
            .values()
            .any(|u| u.lands_until.is_some_and(|until| until > now))
    }

    fn known(&self, object: &ObjectRef) -> Option<&Known> {
        self.known.get(&object.kind)?.get(&object.key)
    }

    /// Takes in a state of an object unless a newer one is known. `ahead`:
    /// the watch has yet to show it.
    fn store(&mut self, observed: Observed, ahead: bool) {
        let object = observed.object();
        let uid = observed.metadata().uid.clone();
        let version = ResourceVersion::parse(observed.metadata().resource_version.as_deref());
        if uid.as_ref().is_some_and(|uid| self.gone.contains(uid)) {
            return;
        }
        let known = self.known.entry(object.kind).or_default();
        if let Some(known) = known.get_mut(&object.key) {
            if version < known.version {
                return;
            }
            known.ahead &= ahead;
            if version == known.version && known.uid == uid && version.0 != 0 {
                // A watch that was opened under an older definition drops the
                // fields that came with a newer one; a fresh answer has them.
                if ahead {
                    self.world.observe(observed);
                }
                return;
            }
        }
        known.insert(
            object.key.clone(),
            Known {
                uid,
                version,
                ahead,
            },
        );
        if !ahead {
            self.unsettled.remove(&object);
        }
        self.world.observe(observed);
    }

    /// Takes an object out of the world for good.
    fn remove(&mut self, object: &ObjectRef, uid: Option<String>) {
        let known = self
            .known
            .get_mut(&object.kind)
            .and_then(|k| k.remove(&object.key));
        for uid in known.and_then(|k| k.uid).into_iter().chain(uid) {
            self.gone.insert(uid);
        }
        self.unsettled.remove(object);
        self.patience.forget(object);
        self.world.forget(object);
    }

    fn unsettle(&mut self, object: &ObjectRef, not_before: Timestamp) {
        let unsettled = Unsettled {
            not_before,
            lands_until: None,
        };
        self.unsettled.insert(object.clone(), unsettled);
    }

    /// A write without an answer may have happened, may not have, or may yet.
    fn lost(&mut self, change: &Change, now: Timestamp) {
        let creation = match &change.action {
            Action::Create(body) => Some(body),
            _ => None,
        };
        // Every other write names the state that it is for: a late one does
        // no harm.
        let not_before = if creation.is_some() {
            now + LANDING
        } else {
            now
        };
        let unsettled = Unsettled {
            not_before,
            lands_until: Some(now + LANDING),
        };
        self.unsettled.insert(change.object.clone(), unsettled);
        let Some(body) = creation else { return };
        // Until it can no longer come into effect its addresses are in use.
        if change.object.kind == Kind::Service
            && self.known(&change.object).is_none()
            && let Ok(presumed) = Observed::read(Kind::Service, body.to_json())
        {
            self.world.observe(presumed);
        }
    }
}

#[cfg(test)]
mod tests;
