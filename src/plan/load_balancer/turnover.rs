//! Nodes that leave and nodes that join: which slots stay, retire, go, are
//! handed to another node or are new.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Served, Slots};
use crate::api::{Reason, names};
use crate::plan::books::Books;
use crate::plan::environment::{Member, Standing};
use crate::world::{Child, World};

/// The annotation by which an administrator confirms that more than half of
/// the nodes were meant to leave.
pub(in crate::plan) const CONFIRM: &str = "l2lb.io/confirm-retirement";

/// Nodes that leave within this time leave together: a command that changes the
/// label of many writes one node after the other.
const TOGETHER: SignedDuration = SignedDuration::from_secs(60);

/// The shortest time for which a slot stays whose node has left, even with a
/// `retirementPeriod` of zero: when the last of those that leave together goes,
/// the first must still be there to be counted.
const SHORTEST: SignedDuration = SignedDuration::from_secs(10);

/// A slot in the making.
pub(super) struct Draft {
    pub number: u32,
    pub home: String,
    pub retire_at: Option<Timestamp>,
    pub child: Option<Arc<Child>>,
}

/// Whether every balancer node has its slot, and none is too many: then
/// nothing retires or joins. It is so nearly always, and quickly seen.
pub(super) fn is_at_rest(served: &Served, drafts: &[Draft], wanted: usize) -> bool {
    let mut has_slot = vec![false; served.set.members.len()];
    let mut is_first = |draft: &Draft| {
        let member = served.set.position(&draft.home);
        member
            .and_then(|m| has_slot.get_mut(m))
            .is_some_and(|has| !std::mem::replace(has, true))
    };
    drafts.len() == wanted && drafts.iter().all(|d| d.retire_at.is_none() && is_first(d))
}

/// Decides which slots stay, which retire, and drops those whose time has come.
pub(super) fn retire(
    now: Timestamp,
    served: &Served,
    drafts: &mut Vec<Draft>,
    books: &mut Books<'_>,
    result: &mut Slots,
) {
    // A node is home to one slot: of two, the one that is not retiring, then
    // the one that had it when status was last written, then the lower number.
    let mut seen = BTreeSet::new();
    if drafts.iter().all(|d| seen.insert(d.home.as_str())) {
        drafts.sort_by_key(|d| (d.retire_at.is_some(), d.number));
    } else {
        drafts.sort_by_cached_key(|d| (d.retire_at.is_some(), !had_home(served, d), d.number));
    }
    let mut homes: BTreeSet<&str> = BTreeSet::new();
    let (mut staying, mut leaving): (Vec<usize>, Vec<usize>) = (0..drafts.len()).partition(|i| {
        served
            .set
            .member(&drafts[*i].home)
            .is_some_and(|m| homes.insert(&m.value))
    });
    let before = drafts.iter().filter(|d| d.retire_at.is_none()).count();
    // The last ones in that order go first when maxNodes was lowered.
    while staying.len() > result.wanted && staying.len() > 1 {
        leaving.extend(staying.pop());
    }
    for index in &staying {
        if drafts[*index].retire_at.take().is_some() {
            books.note_home(&drafts[*index].home, 1);
        }
    }
    let mut gone: Vec<usize> = leaving
        .iter()
        .copied()
        .filter(|i| drafts[*i].retire_at.is_none() && served.set.member(&drafts[*i].home).is_none())
        .collect();
    let confirmed = served
        .object
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(CONFIRM))
        .is_some_and(|v| v == "true");
    let period = served.own.retirement.max(SHORTEST);
    let just_left = just_left(now, period, served, drafts, &leaving);
    let together = gone.len() + just_left.len();
    let all = before + just_left.len();
    // What was held stays held until all nodes are back: while somebody repairs
    // their labels one after the other, those that are missing still are at some
    // moment no more than half.
    let too_many = together * 2 > all || served.had_reason(Reason::RetirementHeld);
    let hold = all > 1 && !gone.is_empty() && too_many && !confirmed;
    if hold {
        for index in just_left {
            drafts[index].retire_at = None;
            books.note_home(&drafts[index].home, 1);
            gone.push(index);
        }
        gone.sort_unstable();
        result.held = gone.iter().map(|i| drafts[*i].home.clone()).collect();
    }
    for index in leaving {
        let draft = &mut drafts[index];
        // The last slot never retires: better one address than none.
        let last = staying.is_empty() && before <= 1;
        if draft.retire_at.is_none() && !last && !(hold && gone.contains(&index)) {
            draft.retire_at = now.checked_add(period).ok();
            books.note_home(&draft.home, -1);
        }
    }
    let mut left = drafts.len();
    drafts.retain(|draft| match (draft.retire_at, &draft.child) {
        (Some(at), Some(child)) if at <= now && left > 1 => {
            left -= 1;
            result.drop(child);
            false
        }
        _ => true,
    });
}

/// The slots whose nodes left a short while ago, and that retire since.
fn just_left(
    now: Timestamp,
    period: SignedDuration,
    served: &Served,
    drafts: &[Draft],
    leaving: &[usize],
) -> Vec<usize> {
    let is_recent = |at: Timestamp| {
        let age = period - at.duration_since(now);
        !age.is_negative() && age < TOGETHER
    };
    let mut recent = leaving.to_vec();
    recent.retain(|i| {
        let draft = &drafts[*i];
        draft.retire_at.is_some_and(is_recent) && served.set.member(&draft.home).is_none()
    });
    recent
}

/// Gives the nodes that have no slot one: a retiring slot, else a new one.
pub(super) fn join(
    world: &World,
    served: &Served,
    drafts: &mut Vec<Draft>,
    books: &mut Books<'_>,
    result: &mut Slots,
) {
    let homes: BTreeSet<&str> = drafts
        .iter()
        .filter(|d| d.retire_at.is_none())
        .map(|d| d.home.as_str())
        .collect();
    let settled = homes
        .iter()
        .filter(|h| served.set.member(h).is_some())
        .count();
    let need = result.wanted.saturating_sub(settled);
    if need == 0 {
        return;
    }
    let mut joining: Vec<&Member> = served
        .set
        .members
        .iter()
        .filter(|m| !homes.contains(&*m.value))
        .collect();
    if need < joining.len() {
        // One whose Service somebody deleted comes first: the slot comes back.
        joining.sort_by_cached_key(|m| {
            (
                m.standing != Standing::Serving,
                remembered(served, &m.value).is_none(),
                books.homes(m),
                m.name.clone(),
            )
        });
        joining.truncate(need);
    }
    // Whoever had a slot before, by the status that was last written, gets
    // the same number again.
    joining.sort_by_cached_key(|m| (remembered(served, &m.value).is_none(), m.name.clone()));
    let taken = world.children.get(&served.key);
    for member in joining {
        books.note_home(&member.value, 1);
        let heirless = drafts
            .iter_mut()
            .filter(|d| served.set.member(&d.home).is_none() || d.retire_at.is_some())
            .min_by_key(|d| d.number);
        if let Some(draft) = heirless {
            if draft.retire_at.take().is_none() {
                books.note_home(&draft.home, -1);
                result.held.retain(|h| *h != draft.home);
            }
            draft.home = member.value.to_string();
            continue;
        }
        let is_taken = |number: u32| {
            drafts.iter().any(|d| d.number == number)
                || taken.is_some_and(|t| t.contains_key(&number))
        };
        let number = remembered(served, &member.value)
            .and_then(|s| s.service.rsplit_once('-')?.1.parse().ok())
            .filter(|n| *n < names::MAX_SLOTS && !is_taken(*n))
            .or_else(|| (0..names::MAX_SLOTS).find(|n| !is_taken(*n)));
        if let Some(number) = number {
            drafts.push(Draft {
                number,
                home: member.value.to_string(),
                retire_at: None,
                child: None,
            });
        }
    }
}

/// Whether a slot had its home when status was last written.
fn had_home(served: &Served, draft: &Draft) -> bool {
    let slot = draft.child.as_ref().map(|c| c.key.name.as_str());
    remembered(served, &draft.home).is_some_and(|s| Some(s.service.as_str()) == slot)
}

/// The slot of a node in the status that was last written.
fn remembered<'a>(served: &'a Served, home: &str) -> Option<&'a crate::api::SlotStatus> {
    let status = served.object.status.as_ref()?;
    status
        .slots
        .iter()
        .find(|s| names::node_value(&s.node) == home)
}
