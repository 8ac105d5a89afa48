//! What was deleted.

use std::collections::{HashSet, VecDeque};

/// How many deleted objects are remembered by UID.
const REMEMBERED: usize = 16_384;

/// UIDs of objects that were deleted. A UID never returns, so that news of
/// one is old news.
#[derive(Debug, Default)]
pub(super) struct Gone {
    uids: HashSet<String>,
    order: VecDeque<String>,
}

impl Gone {
    pub fn contains(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }

    pub fn insert(&mut self, uid: String) {
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
