//! The webhook under a real API server.
fn main() {}
