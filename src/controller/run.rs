//! The loop of the leader: news, plan, writes, and again until there is
//! nothing left to write.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::batch::Batch;
use super::events::Events;
use super::http::Health;
use super::lease::{Leadership, Standing};
use super::metrics::Metrics;
use super::view::{News, Round, View};
use super::write::Writer;
use crate::plan::Planner;
use crate::world::Options;

/// How the loop paces itself.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// News is gathered until none came for this long,
    pub quiet: Duration,
    /// but never for longer than this.
    pub longest: Duration,
    /// Writes of one stage under way at the same time.
    pub concurrency: usize,
    /// A round that takes longer than this is cut short when there is news,
    /// so that a long rollout does not keep a dead node's addresses waiting.
    pub round: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(20),
            longest: Duration::from_millis(200),
            concurrency: 16,
            round: Duration::from_secs(1),
        }
    }
}

/// How often the loop shows that it lives, whatever happens.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The longest wait after an outage of the API server.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The longest wait after rounds of which all was refused. Each object has its own
/// patience; this is for what would get round that.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// While there is something to write, what there is is counted this often.
const CENSUS: Duration = Duration::from_secs(1);
/// How long a question that was not answered is left alone.
const POSTPONE: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// Everything that the loop works with.
pub struct Loop {
    view: View,
    planner: Planner,
    news: mpsc::Receiver<News>,
    parts: Parts,
    /// The world's revision that the last plan found nothing to do for.
    at_rest: Option<u64>,
    deadline: Option<Timestamp>,
    /// Rounds in a row in which nothing was written.
    fruitless: u32,
    waiting_for: Vec<&'static str>,
    /// When what there is was counted last.
    counted: Option<Instant>,
}

/// What the loop is connected to.
pub struct Parts {
    /// Writes to the cluster.
    pub writer: Writer,
    /// Whether this process may write.
    pub leadership: Leadership,
    /// Counts plans.
    pub metrics: Metrics,
    /// Is told of readiness and life.
    pub health: Health,
    /// Takes events for people.
    pub events: Events,
    /// Asks the loop to end.
    pub drain: CancellationToken,
    /// The pace.
    pub pace: Pace,
}

/// What became of a round.
enum Written {
    /// At least one write was done.
    Something,
    /// All were refused, or their objects had changed.
    Nothing,
    /// The API server does not answer.
    Outage,
}

/// Why gathering news ended.
enum Gathered {
    News,
    Drain,
    Lost(String),
}

impl Loop {
    /// A loop that knows nothing yet.
    pub fn new(options: Options, news: mpsc::Receiver<News>, parts: Parts) -> Self {
        Self {
            view: View::new(Timestamp::now(), options),
            planner: Planner::default(),
            news,
            parts,
            at_rest: None,
            deadline: None,
            fruitless: 0,
            waiting_for: Vec::new(),
            counted: None,
        }
    }

    /// Whether a write may still come into effect.
    pub fn has_writes_in_flight(&self) -> bool {
        self.view.has_writes_in_flight(Timestamp::now())
    }

    /// Works until asked to end.
    ///
    /// # Errors
    /// A sentence, when leadership or the watches are lost.
    pub async fn run(&mut self) -> Result<(), String> {
        let mut wake = Some(Instant::now());
        loop {
            match self.gather(wake).await {
                Gathered::News => {}
                Gathered::Drain => return Ok(()),
                Gathered::Lost(why) => return Err(why),
            }
            self.beat();
            wake = self.step().await;
        }
    }

    fn beat(&self) {
        self.parts.health.beat();
        self.parts.metrics.beat(Timestamp::now());
    }

    /// Plans and writes once; returns when to do so again without news.
    async fn step(&mut self) -> Option<Instant> {
        if !self.is_complete() {
            return Some(Instant::now() + HEARTBEAT);
        }
        self.settle().await;
        let now = Timestamp::now();
        let due = self.deadline.is_some_and(|deadline| deadline <= now);
        if !due && self.at_rest == Some(self.view.world().revision()) {
            return self.next_wake();
        }
        let round = self.plan(now);
        self.deadline = round.next_deadline;
        if round.changes.is_empty() {
            round
                .events
                .into_iter()
                .for_each(|event| self.parts.events.send(event));
            self.at_rest = Some(self.view.world().revision());
            // A deadline that has passed and left nothing to do is not due again at once.
            self.deadline = self
                .deadline
                .map(|d| d.max(now + jiff::SignedDuration::from_millis(100)));
            self.fruitless = 0;
            return self.next_wake();
        }
        self.at_rest = None;
        let (step, longest) = match self.write(round).await {
            Written::Something => {
                self.fruitless = 0;
                return Some(Instant::now());
            }
            Written::Nothing => (Duration::from_millis(50), LONGEST_PAUSE),
            Written::Outage => (Duration::from_millis(250), LONGEST_WAIT),
        };
        let wait = (step * (1 << self.fruitless.min(8))).min(longest);
        self.fruitless += 1;
        Some(Instant::now() + wait)
    }

    /// Whether every watch has answered.
    fn is_complete(&mut self) -> bool {
        let missing = self.view.missing();
        if missing == self.waiting_for && !missing.is_empty() {
            return false;
        }
        if missing.is_empty() {
            if !self.waiting_for.is_empty() {
                info!("every watch has answered");
            }
            self.parts.health.set(true, "leading");
        } else {
            debug!(kinds = missing.join(", "), "waiting for watches");
            self.parts
                .health
                .set(false, format!("waiting for {}", missing.join(", ")));
        }
        self.parts.metrics.waits_for(missing.len());
        self.waiting_for = missing;
        self.waiting_for.is_empty()
    }

    fn next_wake(&self) -> Option<Instant> {
        let until = self.deadline?.duration_since(Timestamp::now());
        Some(Instant::now() + Duration::try_from(until).unwrap_or(Duration::ZERO))
    }

    /// Waits for news, a time or an end, then for a moment of quiet.
    async fn gather(&mut self, wake: Option<Instant>) -> Gathered {
        let limit = Instant::now() + HEARTBEAT;
        let wake = wake.map_or(limit, |wake| wake.min(limit));
        let mut end: Option<Instant> = None;
        let mut until = wake;
        loop {
            if let Standing::Lost { why } = self.parts.leadership.standing() {
                return Gathered::Lost(why);
            }
            tokio::select! {
                biased;
                () = self.parts.drain.cancelled() => return Gathered::Drain,
                () = self.parts.leadership.changed() => {}
                news = self.news.recv() => {
                    let Some(news) = news else {
                        return Gathered::Lost("the watches have ended".to_owned());
                    };
                    self.view.set_time(Timestamp::now());
                    self.view.hear(news);
                    let now = Instant::now();
                    let end = *end.get_or_insert(now + self.parts.pace.longest);
                    if now >= end {
                        return Gathered::News;
                    }
                    until = end.min(now + self.parts.pace.quiet);
                }
                () = sleep_until(until) => return Gathered::News,
            }
        }
    }

    /// Asks for the state of every object that is not certain. Without an
    /// answer it stays uncertain, and is not written.
    async fn settle(&mut self) {
        let questions = self.view.questions(Timestamp::now());
        let writer = self.parts.writer.clone();
        let mut answers = futures::stream::iter(questions)
            .map(|question| {
                let writer = writer.clone();
                async move {
                    let found = writer.read(&question.object).await;
                    (question, found)
                }
            })
            .buffer_unordered(self.parts.pace.concurrency);
        while let Some((question, found)) = answers.next().await {
            let now = Timestamp::now();
            self.view.set_time(now);
            match found {
                Ok(found) => self.view.settled(&question, found),
                Err(why) => {
                    warn!(object = %question.object, why, "its state is not known");
                    self.view.postpone(&question, now + POSTPONE);
                }
            }
        }
    }

    fn plan(&mut self, now: Timestamp) -> Round {
        let started = std::time::Instant::now();
        let (view, planner) = (&mut self.view, &mut self.planner);
        let due = self.counted.is_none_or(|at| at.elapsed() > CENSUS);
        let count = |changes| changes == 0 || due;
        let mut round = tokio::task::block_in_place(|| view.plan_and_count(planner, now, count));
        let took = started.elapsed();
        self.parts.metrics.planned(took, now);
        if let Some(census) = round.census.take() {
            self.parts.metrics.counted(census);
            self.counted = Some(Instant::now());
        }
        debug!(changes = round.changes.len(), ?took, "planned");
        round
    }

    /// Writes a round, taking in news meanwhile.
    async fn write(&mut self, round: Round) -> Written {
        let pace = self.parts.pace;
        let mut batch = Batch::new(round.changes);
        let started = Instant::now();
        let (mut heard, mut cut) = (false, false);
        while !batch.is_outage() && !cut {
            let Some(stage) = batch.next_stage() else {
                break;
            };
            let mut queue = VecDeque::from(stage);
            let mut pending = FuturesUnordered::new();
            loop {
                while !batch.is_outage()
                    && !cut
                    && pending.len() < pace.concurrency
                    && let Some(change) = queue.pop_front()
                {
                    let writer = self.parts.writer.clone();
                    pending.push(async move {
                        let answer = writer.write(&change).await;
                        (change, answer)
                    });
                }
                tokio::select! {
                    biased;
                    written = pending.next() => {
                        let Some((change, answer)) = written else { break };
                        batch.answered(&change, &answer);
                        self.beat();
                        self.view.answered(&change, answer, Timestamp::now());
                    }
                    Some(news) = self.news.recv() => {
                        self.view.set_time(Timestamp::now());
                        self.view.hear(news);
                        heard = true;
                    }
                }
                cut = started.elapsed() > pace.round && (heard || self.parts.drain.is_cancelled());
            }
        }
        if batch.skipped > 0 {
            info!(
                changes = batch.skipped,
                "left out: what they need could not be written"
            );
        }
        if !batch.is_outage() && !cut {
            for event in round.events {
                if !batch.undone().contains(&event.object) {
                    self.parts.events.send(event);
                }
            }
        }
        self.beat();
        match batch.is_outage() {
            true => Written::Outage,
            false if batch.done == 0 => Written::Nothing,
            false => Written::Something,
        }
    }
}
