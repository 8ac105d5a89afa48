//! A history, played: what each event moved and had written, and how evenly
//! the addresses lay afterwards.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Serialize;

use super::Cluster;
use super::event::Event;
use crate::plan::Planner;
use crate::world::{Evenness, Key, Spread};

/// Addresses that changed hands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Move {
    /// The node that announced them; none for new ones.
    pub from: Option<String>,
    /// The node that announces them; none when they are gone or dark.
    pub to: Option<String>,
    /// How many slots.
    pub slots: usize,
}

/// What one event brought about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Counted from 1; 0 is the beginning.
    pub number: usize,
    /// Seconds since the beginning.
    pub at_seconds: i64,
    /// What happened.
    pub event: String,
    /// Who announces what, as far as it changed.
    pub moves: Vec<Move>,
    /// Writes by kind.
    pub writes: BTreeMap<String, u64>,
    /// How evenly the addresses lie afterwards; the least even pool.
    pub evenness: Evenness,
}

/// What a history comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Nodes at the end.
    pub nodes: usize,
    /// Load balancers at the end.
    pub load_balancers: usize,
    /// Child Services at the end.
    pub services: usize,
    /// Evenness at the beginning.
    pub before: Evenness,
    /// Evenness at the end.
    pub after: Evenness,
    /// What a survivor would take over at a second failure, after the first
    /// was dealt with: the least even of all pairs of nodes.
    pub second_failure: Spread,
    /// Nodes that failed.
    pub failures: usize,
    /// Share of the announced slots that a failure moved, the mean over all failures.
    pub touched: f64,
    /// One divided by the number of announcing nodes, the mean over the same failures.
    pub fair: f64,
    /// All writes by kind.
    pub writes: BTreeMap<String, u64>,
}

/// A history, played.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The beginning and every event.
    pub steps: Vec<Step>,
    /// What it comes to.
    pub summary: Summary,
}

/// Plays a history: the planner comes to rest after each event. `beginning`
/// happens at once, before the first step.
///
/// # Errors
/// A sentence that names the event that cannot happen or was not digested.
pub fn play(
    cluster: &mut Cluster,
    beginning: &[Event],
    history: &[Event],
) -> Result<Report, String> {
    let mut player = Player {
        start: cluster.world.now,
        planner: Planner::default(),
        announced: BTreeMap::new(),
        shares: Vec::new(),
    };
    for event in beginning {
        cluster.happen(event).map_err(|e| e.to_string())?;
    }
    let mut steps = vec![player.step(cluster, 0, "the beginning".to_owned(), false)?];
    for (index, event) in history.iter().enumerate() {
        let was_well = |name: &String| cluster.world.nodes.get(name).is_some_and(|n| n.ready);
        let fails = matches!(event, Event::Lose(name) if was_well(name));
        cluster.happen(event).map_err(|e| e.to_string())?;
        steps.push(player.step(cluster, index + 1, event.to_string(), fails)?);
    }
    let summary = player.summary(cluster, &steps)?;
    Ok(Report { steps, summary })
}

struct Player {
    start: jiff::Timestamp,
    planner: Planner,
    /// Who announces each Service.
    announced: BTreeMap<Key, String>,
    /// Of each failure: the share that moved, and the fair one.
    shares: Vec<(f64, f64)>,
}

impl Player {
    fn step(
        &mut self,
        cluster: &mut Cluster,
        number: usize,
        event: String,
        fails: bool,
    ) -> Result<Step, String> {
        let before = cluster.writes.clone();
        cluster
            .settle(&mut self.planner)
            .map_err(|e| format!("step {number} ({event}): {e}"))?;
        let now: BTreeMap<Key, String> = cluster
            .world
            .children
            .values()
            .flat_map(|slots| slots.values())
            .filter_map(|c| Some((c.key.clone(), cluster.announcer(&c.key)?.to_owned())))
            .collect();
        let moves = moves(&self.announced, &now);
        if fails && !self.announced.is_empty() {
            let moved: usize = moves
                .iter()
                .filter(|m| m.from.is_some())
                .map(|m| m.slots)
                .sum();
            let announcing: std::collections::BTreeSet<_> = self.announced.values().collect();
            self.shares.push((
                ratio(moved, self.announced.len()),
                ratio(1, announcing.len()),
            ));
        }
        self.announced = now;
        let writes = cluster
            .writes
            .iter()
            .map(|(kind, n)| {
                (
                    kind.as_str().to_owned(),
                    n - before.get(kind).copied().unwrap_or(0),
                )
            })
            .filter(|(_, n)| *n > 0)
            .collect();
        Ok(Step {
            number,
            at_seconds: cluster.world.now.duration_since(self.start).as_secs(),
            event,
            moves,
            writes,
            evenness: evenness(cluster, &mut self.planner),
        })
    }

    fn summary(&mut self, cluster: &Cluster, steps: &[Step]) -> Result<Summary, String> {
        let mut second_failure = Spread::default();
        for name in cluster
            .world
            .nodes
            .values()
            .filter(|n| n.ready)
            .map(|n| &n.name)
        {
            let mut after = cluster.clone();
            after
                .happen(&Event::Lose(name.clone()))
                .map_err(|e| e.to_string())?;
            let mut planner = Planner::default();
            after.settle(&mut planner).map_err(|e| e.to_string())?;
            let heirs = evenness(&after, &mut planner).heirs;
            if heirs.width() > second_failure.width() {
                second_failure = heirs;
            }
        }
        let mean = |of: fn(&(f64, f64)) -> f64| {
            let sum: f64 = self.shares.iter().map(of).sum();
            if self.shares.is_empty() {
                0.0
            } else {
                sum / self.shares.len() as f64
            }
        };
        let of = |step: Option<&Step>| step.map(|s| s.evenness.clone()).unwrap_or_default();
        Ok(Summary {
            nodes: cluster.world.nodes.len(),
            load_balancers: cluster.world.load_balancers.len(),
            services: cluster.world.children.values().map(BTreeMap::len).sum(),
            before: of(steps.first()),
            after: of(steps.last()),
            second_failure,
            failures: self.shares.len(),
            touched: mean(|s| s.0),
            fair: mean(|s| s.1),
            writes: cluster
                .writes
                .iter()
                .map(|(kind, n)| (kind.as_str().to_owned(), *n))
                .collect(),
        })
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// That of the least even pool.
fn evenness(cluster: &Cluster, planner: &mut Planner) -> Evenness {
    planner.plan(&cluster.world);
    let pools = planner.evenness().into_values();
    pools
        .reduce(|a, b| {
            let width = |e: &Evenness| e.homes.width().max(e.heirs.width());
            if width(&b) > width(&a) { b } else { a }
        })
        .unwrap_or_default()
}

fn moves(before: &BTreeMap<Key, String>, now: &BTreeMap<Key, String>) -> Vec<Move> {
    let mut counts: BTreeMap<(Option<&String>, Option<&String>), usize> = BTreeMap::new();
    let services: std::collections::BTreeSet<&Key> = before.keys().chain(now.keys()).collect();
    for service in services {
        let (from, to) = (before.get(service), now.get(service));
        if from != to {
            *counts.entry((from, to)).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .map(|((from, to), slots)| Move {
            from: from.cloned(),
            to: to.cloned(),
            slots,
        })
        .collect()
}

/// The time since the beginning, for a person.
pub fn elapsed(seconds: i64) -> String {
    format!("{:#}", SignedDuration::from_secs(seconds))
}
