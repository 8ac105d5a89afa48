//! From the world to what should exist: pure, without clock, randomness or I/O.

mod change;

pub use change::{Action, Cause, Change, PlannedEvent, Stage};
