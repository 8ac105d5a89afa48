//! What happened in the random steps: a model in which nothing does holds
//! every promise.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use l2lb::controller::answer::Answer;
use l2lb::plan::Change;

/// Counts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub plans: usize,
    pub plans_to_write: usize,
    pub questions: usize,
    pub crashes: usize,
    /// While writes or their answers were outstanding.
    pub crashes_at_work: usize,
    /// Writes without an answer that came into effect later.
    pub landed: usize,
    /// Writes by what was done and answered.
    pub writes: BTreeMap<(&'static str, &'static str), usize>,
    /// Addresses that moved.
    pub moves: usize,
}

impl Tally {
    pub fn answered(&mut self, change: &Change, answer: &Answer) {
        let outcome = match answer {
            Answer::Overdue(_) => "overdue",
            other => other.outcome(),
        };
        let key = (change.action.verb(), outcome);
        *self.writes.entry(key).or_default() += 1;
        self.moves += usize::from(answer.is_success() && change.cause.is_move());
    }

    /// Writes that were answered so, whatever was done.
    pub fn with(&self, outcome: &str) -> usize {
        let writes = self.writes.iter();
        writes
            .filter(|((_, o), _)| *o == outcome)
            .map(|(_, n)| n)
            .sum()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.plans += other.plans;
        self.plans_to_write += other.plans_to_write;
        self.questions += other.questions;
        self.crashes += other.crashes;
        self.crashes_at_work += other.crashes_at_work;
        self.landed += other.landed;
        self.moves += other.moves;
        for (key, count) in other.writes {
            *self.writes.entry(key).or_default() += count;
        }
    }
}
