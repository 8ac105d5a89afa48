//! Whatever is written as a range: no panic, and what is read means the same
//! when it is written again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| l2lb::admission::fuzz::range(data));
