//! Histories of property tests.

use std::fmt;

use l2lb::simulate::event::{self, Event};

/// A history that prints itself as a file for `kubectl l2lb simulate --events`.
#[derive(Clone)]
pub struct History(pub Vec<Event>);

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a history for --events:\n{}", event::print(&self.0))
    }
}

/// The name of a node.
pub fn node(n: u8) -> String {
    format!("node-{n}")
}
