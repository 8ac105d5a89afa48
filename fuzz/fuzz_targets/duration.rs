//! Whatever is written as a duration: no panic, and what is read is no longer
//! than Go's durations are.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| l2lb::admission::fuzz::duration(data));
