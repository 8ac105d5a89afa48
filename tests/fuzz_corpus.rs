//! Replays the corpus of the fuzz targets (fuzz/), and what a fuzzer would
//! try first with each of its inputs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use l2lb::admission::fuzz;
use proptest::prelude::*;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert!(
        files.len() >= 10,
        "only {} inputs for {target}",
        files.len()
    );
    files.iter().map(|f| std::fs::read(f).unwrap()).collect()
}

/// Cut short at every length, and with every single byte changed.
fn neighbours(input: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let cut = (0..input.len()).map(|n| input[..n].to_vec());
    let changed = (0..input.len()).flat_map(move |n| {
        [b'0', b'"', b'-', 0xff, input[n].wrapping_add(1)]
            .into_iter()
            .map(move |byte| {
                let mut changed = input.to_vec();
                changed[n] = byte;
                changed
            })
    });
    cut.chain(changed)
}

#[test]
fn ranges() {
    for input in corpus("range") {
        fuzz::range(&input);
        neighbours(&input).for_each(|n| fuzz::range(&n));
    }
}

#[test]
fn durations() {
    for input in corpus("duration") {
        fuzz::duration(&input);
        neighbours(&input).for_each(|n| fuzz::duration(&n));
    }
}

#[test]
fn reviews() {
    for input in corpus("review") {
        fuzz::review(&input);
        neighbours(&input).for_each(|n| fuzz::review(&n));
    }
}

proptest! {
    #[test]
    fn any_text_as_a_duration(text in "([-+]?[0-9]{0,24}(\\.[0-9]{0,24})?(ns|us|ms|s|m|h|d| )?){0,4}") {
        fuzz::duration(text.as_bytes());
    }

    #[test]
    fn any_text_as_a_range(text in "[0-9a-f:./ -]{0,40}") {
        fuzz::range(text.as_bytes());
    }
}
