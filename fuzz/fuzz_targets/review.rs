//! Whatever is sent as a review, and stored if it is allowed: no panic, an
//! answer to every uid, and a planner that can work with the result.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| l2lb::admission::fuzz::review(data));
