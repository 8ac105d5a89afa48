//! How evenly addresses lie on nodes, as the planner found it.

use serde::Serialize;

/// The smallest and the largest of some counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub least: usize,
    /// The largest.
    pub most: usize,
}

impl Spread {
    /// The difference.
    pub fn width(self) -> usize {
        self.most - self.least
    }

    /// That of some counts; of none, zero.
    pub fn of(counts: impl IntoIterator<Item = usize>) -> Self {
        let mut counts = counts.into_iter();
        let Some(first) = counts.next() else {
            return Self::default();
        };
        let start = Self {
            least: first,
            most: first,
        };
        counts.fold(start, |spread, count| Self {
            least: spread.least.min(count),
            most: spread.most.max(count),
        })
    }
}

/// How evenly the addresses of a pool lie on its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evenness {
    /// Slots that a node is home to, where they differ most.
    pub homes: Spread,
    /// Slots that a node takes over when `failing` fails and nobody steers.
    pub heirs: Spread,
    /// The node whose failure would be spread least evenly.
    pub failing: Option<String>,
    /// Slots of the nodes of `homes` that could have another home, were it not
    /// for a MetalLB pool of their own.
    pub bound: usize,
    /// A slot that can get another home is where there are too many of them.
    pub movable: bool,
    /// Slots that live nodes have.
    pub slots: usize,
    /// Those for which another live node stands by.
    pub standbys: usize,
}
