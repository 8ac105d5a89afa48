//! Where a slot is pinned: at home, or at the standby that stands in.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::ability::Trouble;
use super::announcement::has_pod;
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
    /// Only nodes with a pod can announce, and there is none.
    pub no_pods: bool,
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
                if self.no_pods
                    && let Some(away) = away
                {
                    // Wherever the next pod is, a move now would be for nothing.
                    return at(&away.value);
                }
                if !self.can_announce(home)
                    && (self.own || able_away.is_some() || self.draining_wins())
                {
                    // Without preferences whoever comes before it in MetalLB's
                    // order is not listed, and may be the only one with a pod;
                    // with them, MetalLB elects a node that is about to stop.
                    let able = able_away.or_else(|| match self.own {
                        true => self.able_standby(books),
                        false => self.heir(),
                    });
                    let last = || {
                        self.last_resort()
                            .filter(|m| self.own && self.can_announce(m))
                    };
                    let able = able.or_else(last);
                    return at(able.map_or(self.home, |m| &m.value));
                }
                let back = home.since.and_then(|s| s.checked_add(self.hold_down).ok());
                // Under Local an address is not kept from a home with a pod by a
                // standby without one.
                let able = away.filter(|m| self.can_announce(m) || !self.can_announce(home));
                match (able, back) {
                    (Some(away), Some(back)) if back > self.now => Pin {
                        to: away.value.to_string(),
                        until: Some(back),
                    },
                    _ => at(self.home),
                }
            }
            Some(home) if home.standing == Standing::Draining => {
                // MetalLB has left a silenced node already.
                let heir = || home.silenced.then(|| self.heir()).flatten();
                match able_away.or_else(heir).or_else(|| self.able_standby(books)) {
                    Some(standby) => at(&standby.value),
                    None => at(self.home),
                }
            }
            home => {
                let announcer = self.announcer.filter(serving);
                let announcer = announcer.filter(|m| self.can_announce(m));
                // What MetalLB acts upon itself.
                let is_out = home.is_none_or(|h| h.trouble == Some(Trouble::NetworkUnavailable));
                match able_away
                    .or(announcer)
                    .or_else(|| is_out.then(|| self.heir()).flatten())
                    .or_else(|| self.able_standby(books))
                    .or_else(|| self.last_resort().filter(|m| self.can_announce(m)))
                    .or(away)
                    .or_else(|| self.standby(books))
                    .or_else(|| self.last_resort())
                {
                    Some(standby) => at(&standby.value),
                    None => at(self.pin.unwrap_or(self.home)),
                }
            }
        }
    }

    /// Whether a node may announce, as far as pods matter.
    fn can_announce(&self, member: &Member) -> bool {
        has_pod(self.endpoints, &member.name)
    }

    /// The candidates but home that are in a standing.
    fn others(&self, standing: Standing) -> impl Iterator<Item = &Member> {
        let others = self.set.members.iter();
        others.filter(move |m| *m.value != *self.home && m.standing == standing)
    }

    /// A node that is about to stop, where no other is left.
    fn last_resort(&self) -> Option<&Member> {
        self.others(Standing::Draining)
            .min_by_key(|m| (!self.can_announce(m), self.rank(m)))
    }

    /// Whether MetalLB, where the pin has no pod, elects a node that is about to stop.
    fn draining_wins(&self) -> bool {
        let able = self.set.members.iter();
        able.filter(|m| m.trouble.is_none() && !m.silenced && self.can_announce(m))
            .min_by_key(|m| self.rank(m))
            .is_some_and(|m| m.standing == Standing::Draining)
    }

    fn able_standby(&self, books: &mut Books<'_>) -> Option<&Member> {
        self.standby(books).filter(|m| self.can_announce(m))
    }

    /// Whom MetalLB elects itself the moment that the pin is no candidate any
    /// more, which is before anybody can steer: another choice would move the
    /// address once more.
    fn heir(&self) -> Option<&Member> {
        let deciding = self.deciding?;
        // With a pool of its own only those after the pin stand by.
        let listed_after = match self.pin {
            Some(pin) if self.own => Some(election::rank(pin, deciding)),
            _ => None,
        };
        self.others(Standing::Serving)
            .filter(|m| self.can_announce(m))
            .filter(|m| listed_after.is_none_or(|pin| self.rank(m) > pin))
            .min_by_key(|m| self.rank(m))
            .filter(|m| !self.own || self.has_standby(m))
    }

    /// The serving candidate with the fewest pins, of those that have a pod and
    /// a standby behind them if there are such; among equals the one that MetalLB
    /// would elect itself.
    fn standby(&self, books: &mut Books<'_>) -> Option<&Member> {
        self.others(Standing::Serving).min_by_key(|m| {
            (
                !self.can_announce(m),
                self.own && !self.has_standby(m),
                books.pins(m),
                self.rank(m),
            )
        })
    }

    /// Whether a serving node that can announce comes after this one in MetalLB's order.
    fn has_standby(&self, member: &Member) -> bool {
        let rank = self.rank(member);
        self.others(Standing::Serving)
            .any(|m| self.can_announce(m) && self.rank(m) > rank)
    }

    fn rank(&self, member: &Member) -> election::Rank {
        election::rank(&member.name, self.deciding.unwrap_or_default())
    }
}
