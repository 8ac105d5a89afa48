//! What fuzzing checks, here so that the corpus is replayed by ordinary tests.

use crate::address::{AddressRange, Family, RangeSet};
use crate::duration;
use crate::metallb::Capabilities;
use crate::plan;
use crate::world::{Options, World};

use super::wire::Request;

/// Reads a range, and checks that what was read holds together.
pub fn range(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let strict = AddressRange::parse(text);
    let Ok(range) = AddressRange::parse_leniently(text) else {
        assert!(
            strict.is_err(),
            "{text:?} is read by the strict parser alone"
        );
        return;
    };
    if let Ok(strict) = strict {
        assert_eq!(strict, range);
    }
    assert!(range.first() <= range.last() && !range.is_empty());
    assert!(range.contains(range.first()) && range.contains(range.last()));
    assert_eq!(AddressRange::parse_leniently(&range.to_string()), Ok(range));
    assert!(range.shortest_prefix() <= range.family().bits());
    let set: RangeSet = std::iter::once(range).collect();
    let first: RangeSet = std::iter::once(AddressRange::single(range.first())).collect();
    let rest = set.minus(&first);
    assert!(!rest.contains(range.first()));
    assert_eq!(rest.plus([AddressRange::single(range.first())]), set);
    for family in Family::BOTH {
        assert!(set.count_buggy(family) <= set.len(family));
    }
}

/// Reads a duration, and checks that it means the same when it is written in
/// the smallest unit.
pub fn duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(read) = duration::parse(text) {
        assert!(!read.is_negative(), "{text:?} is read as {read}");
        let again = duration::parse(&format!("{}ns", read.as_nanos()));
        assert_eq!(again, Ok(read), "{text:?}");
    }
}

/// A cluster of two nodes, a pool and a load balancer, for reviews to be about.
const WORLD: &str = include_str!("fuzz.yaml");

/// Answers a review, and plans the world with what was allowed in it.
pub fn review(data: &[u8]) {
    let Ok(request) = Request::parse(data) else {
        return;
    };
    let mut world = World::new(
        jiff::Timestamp::UNIX_EPOCH,
        Options::default(),
        Capabilities::CURRENT,
    );
    for manifest in crate::manifest::parse("fuzz.yaml", WORLD).unwrap_or_default() {
        if let Ok(Some(observed)) = crate::world::observe_manifest(manifest.value) {
            world.observe(observed);
        }
    }
    let answer = request.answer(&world);
    let response = &answer.body["response"];
    assert_eq!(response["uid"], request.uid.as_str());
    assert_eq!(response["allowed"] == true, answer.outcome == "allowed");
    if let Some(object) = request.object() {
        world.observe(object.clone());
        plan::plan(&world);
    }
}
