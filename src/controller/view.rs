//! The view: the world, and how fresh each part of it is.
//!
//! A watch lags behind the writer. Planning on what the watch has shown would
//! give an address twice, so the answer to every write is taken in at once and
//! older news of the same object is ignored from then on. Everything here is
//! synchronous and without I/O: the controller and the model test drive the
//! same code.

mod news;

pub use news::News;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::answer::Answer;
use super::resource;
use crate::plan::{self, Action, Census, Change, PlannedEvent, Planner, Stage};
use crate::world::{Key, Kind, ObjectRef, Observed, Options, Refusal, ResourceVersion, World};

/// How long a creation without an answer may still come into effect: the
/// deadline that the API server is given for a write, and a margin.
pub const LANDING: SignedDuration = SignedDuration::from_secs(6);
/// The longest wait before a refused write is tried again.
const LONGEST_BACKOFF: SignedDuration = SignedDuration::from_mins(5);
/// How often the same content may be written to one object within
/// [`REPEAT_WINDOW`] before something is said to change it back.
const REPEATS: u32 = 5;
/// See [`REPEATS`].
const REPEAT_WINDOW: SignedDuration = SignedDuration::from_secs(30);
/// How many deleted objects are remembered by UID.
const REMEMBERED: usize = 16_384;

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
    /// The L2AddressPool whose Services must wait for it.
    pool: Option<String>,
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

#[derive(Clone, Debug)]
struct Repeat {
    content: u64,
    count: u32,
    first: Timestamp,
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
    /// Refused objects that the Services of a pool need.
    refused_pools: BTreeMap<ObjectRef, String>,
    repeats: HashMap<ObjectRef, Repeat>,
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
            refused_pools: BTreeMap::new(),
            repeats: HashMap::new(),
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
    /// whose state is uncertain, and Services whose pool is not in order.
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
        self.repeats
            .retain(|_, repeat| now.duration_since(repeat.first) < REPEAT_WINDOW);
        let mut plan = planner.plan(&self.world);
        let at_rest = plan.changes.is_empty() && self.unsettled.is_empty();
        if at_rest && self.world.set_evenness(planner.evenness()) {
            plan = planner.plan(&self.world);
        }
        self.drop_old_refusals(&plan.changes);
        let census = count(plan.changes.len()).then(|| plan::census(&self.world, &plan));
        let settle = self.unsettled.values().map(|u| u.not_before).min();
        let unsettled = self.unsettled.iter();
        let missing: Vec<(&ObjectRef, &String)> = unsettled
            .filter_map(|(object, u)| Some((object, u.pool.as_ref()?)))
            .chain(&self.refused_pools)
            .collect();
        let pools: BTreeSet<&String> = missing.iter().map(|(_, pool)| *pool).collect();
        // An advertisement needs the pool, and no other advertisement: one that
        // was refused must be tried again.
        let without_pool: BTreeSet<&String> = missing
            .iter()
            .filter(|(object, _)| object.kind == Kind::IpAddressPool)
            .map(|(_, pool)| *pool)
            .collect();
        let mut deadline = plan.next_deadline.into_iter().chain(settle).min();
        let changes = plan
            .changes
            .into_iter()
            .filter(|change| match self.held_back(change) {
                Some(until) => {
                    deadline = deadline.into_iter().chain([until]).min();
                    false
                }
                None => true,
            })
            .filter(|change| !self.unsettled.contains_key(&change.object))
            .filter(|change| {
                let missing = match change.stage {
                    Stage::Advertise => &without_pool,
                    _ => &pools,
                };
                !(needs_pool(change.stage)
                    && change.pool.as_ref().is_some_and(|p| missing.contains(p)))
            })
            .collect();
        Round {
            changes,
            events: plan.events,
            next_deadline: deadline,
            census,
        }
    }

    /// Until when a change is not tried again, because the same was refused.
    fn held_back(&self, change: &Change) -> Option<Timestamp> {
        let refusal = self.world.refusals.get(&change.object)?;
        (refusal.content == change.content && refusal.retry_at > self.world.now)
            .then_some(refusal.retry_at)
    }

    /// Takes in the answer to a write.
    pub fn answered(&mut self, change: &Change, answer: Answer, now: Timestamp) {
        self.world.set_now(now);
        let object = &change.object;
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
            Answer::Outdated(_) => self.unsettle(change, now),
            Answer::Taken(message) => {
                self.refuse(change, message, now);
                self.unsettle(change, now);
            }
            Answer::Refused(message) => {
                self.refuse(change, message, now);
                // The refusal may come from a state that is not the known one.
                if !matches!(change.action, Action::Create(_)) {
                    self.unsettle(change, now);
                }
            }
            Answer::Lost(_) => self.lost(change, now),
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
        self.refused_pools.remove(object);
        self.world.forget(object);
    }

    fn unsettle(&mut self, change: &Change, not_before: Timestamp) {
        let pool = change.pool.clone().filter(|_| is_for_pool(change.stage));
        let unsettled = Unsettled {
            not_before,
            lands_until: None,
            pool,
        };
        self.unsettled.insert(change.object.clone(), unsettled);
    }

    /// A write without an answer may have happened, may not have, or may yet.
    fn lost(&mut self, change: &Change, now: Timestamp) {
        let creation = match &change.action {
            Action::Create(body) => Some(body),
            _ => None,
        };
        // Every other write names the state that it is for: a late one does
        // no harm.
        self.unsettle(
            change,
            if creation.is_some() {
                now + LANDING
            } else {
                now
            },
        );
        if let Some(unsettled) = self.unsettled.get_mut(&change.object) {
            unsettled.lands_until = Some(now + LANDING);
        }
        let Some(body) = creation else { return };
        // Until it can no longer come into effect its addresses are in use.
        if change.object.kind == Kind::Service
            && self.known(&change.object).is_none()
            && let Ok(presumed) = Observed::read(Kind::Service, body.to_json())
        {
            self.world.observe(presumed);
        }
    }

    fn accepted(&mut self, change: &Change, now: Timestamp) {
        let object = &change.object;
        self.world.clear_refusal(object);
        self.refused_pools.remove(object);
        if matches!(change.action, Action::Delete { .. }) {
            return;
        }
        let fresh = Repeat {
            content: change.content,
            count: 0,
            first: now,
        };
        let repeat = self
            .repeats
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
                },
            );
        }
    }

    fn refuse(&mut self, change: &Change, message: String, now: Timestamp) {
        let object = &change.object;
        let attempts = self
            .world
            .refusals
            .get(object)
            .filter(|refusal| refusal.content == change.content)
            .map_or(1, |refusal| refusal.attempts.saturating_add(1));
        if let Some(pool) = change.pool.as_ref().filter(|_| is_for_pool(change.stage)) {
            self.refused_pools.insert(object.clone(), pool.clone());
        }
        let retry_at = now + backoff(attempts);
        let refusal = Refusal {
            message,
            retry_at,
            attempts,
            content: change.content,
        };
        self.world.refuse(object.clone(), refusal);
    }

    /// A refusal of something that is wanted no more is of no interest.
    fn drop_old_refusals(&mut self, changes: &[Change]) {
        let now = self.world.now;
        let mut old: BTreeSet<ObjectRef> = self
            .world
            .refusals
            .iter()
            .filter(|(_, refusal)| refusal.retry_at <= now)
            .map(|(object, _)| object.clone())
            .collect();
        for change in changes {
            old.remove(&change.object);
        }
        for object in &old {
            self.world.clear_refusal(object);
        }
        let refusals = &self.world.refusals;
        self.refused_pools
            .retain(|object, _| refusals.contains_key(object));
    }
}

/// One second, doubled with each attempt, up to five minutes.
fn backoff(attempts: u32) -> SignedDuration {
    let seconds = 1i64 << attempts.saturating_sub(1).min(16);
    SignedDuration::from_secs(seconds).min(LONGEST_BACKOFF)
}

/// Whether other changes of the pool need what is written in this stage.
pub(super) fn is_for_pool(stage: Stage) -> bool {
    matches!(stage, Stage::Pool | Stage::Advertise)
}

/// Whether what is written in this stage needs the pool to be in order.
pub(super) fn needs_pool(stage: Stage) -> bool {
    matches!(stage, Stage::Advertise | Stage::Serve)
}

/// UIDs of objects that were deleted. A UID never returns, so that news of
/// one is old news.
#[derive(Debug, Default)]
struct Gone {
    uids: HashSet<String>,
    order: VecDeque<String>,
}

impl Gone {
    fn contains(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }

    fn insert(&mut self, uid: String) {
        if self.uids.insert(uid.clone()) {
            self.order.push_back(uid);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.uids.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
