//! Where a slot is pinned: at home, or at the standby that stands in.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::books::Books;
use super::environment::{CandidateSet, Member, Standing};
use crate::metallb::election;

/// What the decision is made from.
pub(super) struct Situation<'a> {
    pub set: &'a CandidateSet,
    pub home: &'a str,
    /// Where it is pinned now; `None` for a new slot.
    pub pin: Option<&'a str>,
    /// A live candidate that reports to announce it.
    pub announcer: Option<&'a Member>,
    /// The address that decides MetalLB's election.
    pub deciding: Option<&'a str>,
    /// It has a pool of its own: only those after the pin stand by.
    pub own: bool,
    /// The nodes with a pod that serves, where only those can announce and it is known.
    pub endpoints: Option<&'a BTreeSet<&'a str>>,
    pub now: Timestamp,
    pub hold_down: SignedDuration,
}

/// The decision.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// The node, as a label value.
    pub to: String,
    /// When to decide again, if nothing happens before.
    pub until: Option<Timestamp>,
}

impl Situation<'_> {
    /// Decides. Home is the rule; while it cannot announce, or is about to
    /// stop, a standby stands in, and an address never moves twice for one
    /// failure: whoever announces it already keeps it.
    pub fn decide(&self, books: &mut Books<'_>) -> Pin {
        let at = |to: &str| Pin {
            to: to.to_owned(),
            until: None,
        };
        let current = self.pin.and_then(|pin| self.set.member(pin));
        let serving = |member: &&Member| member.standing == Standing::Serving;
        let away = current.filter(serving).filter(|c| *c.value != *self.home);
        let able_away = away.filter(|m| self.can_announce(m));
        match self.set.member(self.home) {
            Some(home) if home.standing == Standing::Serving => {
                if self.own && !self.can_announce(home) {
                    // Whoever comes before it in MetalLB's order is not listed,
                    // and may be the only one with a pod.
                    let able = able_away.or_else(|| self.able_standby(books));
                    return at(able.map_or(self.home, |m| &m.value));
                }
                let back = home.since.and_then(|s| s.checked_add(self.hold_down).ok());
                match (away, back) {
                    (Some(away), Some(back)) if back > self.now => Pin {
                        to: away.value.to_string(),
                        until: Some(back),
                    },
                    _ => at(self.home),
                }
            }
            Some(home) if home.standing == Standing::Draining => {
                match able_away.or_else(|| self.able_standby(books)) {
                    Some(standby) => at(&standby.value),
                    None => at(self.home),
                }
            }
            _ => {
                let announcer = self.announcer.filter(serving);
                let last_resort = || {
                    self.set
                        .members
                        .iter()
                        .filter(|m| *m.value != *self.home && m.standing == Standing::Draining)
                        .min_by_key(|m| (!self.can_announce(m), self.rank(m)))
                };
                match able_away
                    .or(announcer)
                    .or_else(|| self.able_standby(books))
                    .or_else(|| last_resort().filter(|m| self.can_announce(m)))
                    .or(away)
                    .or_else(|| self.standby(books))
                    .or_else(last_resort)
                {
                    Some(standby) => at(&standby.value),
                    None => at(self.pin.unwrap_or(self.home)),
                }
            }
        }
    }

    /// Whether a node may announce, as far as pods matter.
    fn can_announce(&self, member: &Member) -> bool {
        self.endpoints
            .is_none_or(|nodes| nodes.contains(&*member.name))
    }

    fn able_standby(&self, books: &mut Books<'_>) -> Option<&Member> {
        self.standby(books).filter(|m| self.can_announce(m))
    }

    /// The serving candidate with the fewest pins, of those that have a pod and
    /// a standby behind them if there are such; among equals the one that MetalLB
    /// would elect itself.
    fn standby(&self, books: &mut Books<'_>) -> Option<&Member> {
        self.set
            .members
            .iter()
            .filter(|m| *m.value != *self.home && m.standing == Standing::Serving)
            .min_by_key(|m| {
                (
                    !self.can_announce(m),
                    self.own && !self.has_standby(m),
                    books.pins(m),
                    self.rank(m),
                )
            })
    }

    /// Whether a serving node comes after this one in MetalLB's order.
    fn has_standby(&self, member: &Member) -> bool {
        let rank = self.rank(member);
        self.set.members.iter().any(|m| {
            *m.value != *self.home && m.standing == Standing::Serving && self.rank(m) > rank
        })
    }

    fn rank(&self, member: &Member) -> election::Rank {
        election::rank(&member.name, self.deciding.unwrap_or_default())
    }
}
