//! A set of addresses as sorted, disjoint ranges.

use std::net::IpAddr;

use super::{AddressRange, Family, from_number, to_number};

/// A set of addresses of both families, kept as sorted ranges that neither
/// overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<AddressRange>,
}

impl FromIterator<AddressRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(iter: I) -> Self {
        let mut all: Vec<_> = iter.into_iter().collect();
        all.sort_unstable();
        let mut ranges: Vec<AddressRange> = Vec::with_capacity(all.len());
        for range in all {
            let (first, last) = range.numbers();
            if let Some(top) = ranges.last_mut() {
                let (top_first, top_last) = top.numbers();
                if top.family() == range.family() && first <= top_last.saturating_add(1) {
                    *top = AddressRange::from_numbers(top.family(), top_first, top_last.max(last));
                    continue;
                }
            }
            ranges.push(range);
        }
        Self { ranges }
    }
}

impl RangeSet {
    /// The ranges, sorted: IPv4 first.
    pub fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether it has addresses of a family.
    pub fn has(&self, family: Family) -> bool {
        self.ranges.iter().any(|r| r.family() == family)
    }

    /// Number of addresses of a family, saturating.
    pub fn len(&self, family: Family) -> u128 {
        self.of(family)
            .fold(0, |sum, r| sum.saturating_add(r.len()))
    }

    fn of(&self, family: Family) -> impl Iterator<Item = &AddressRange> {
        self.ranges.iter().filter(move |r| r.family() == family)
    }

    /// Whether an address is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        let key = (Family::of(address), to_number(address));
        let after = self
            .ranges
            .partition_point(|r| (r.family(), r.numbers().0) <= key);
        after > 0 && self.ranges[after - 1].contains(address)
    }

    /// The first range of `other` that has an address of this set.
    pub fn overlap(&self, other: &Self) -> Option<AddressRange> {
        let (mut a, mut b) = (
            self.ranges.iter().peekable(),
            other.ranges.iter().peekable(),
        );
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            if x.overlaps(y) {
                return Some(**y);
            }
            if (x.family(), x.numbers().1) < (y.family(), y.numbers().1) {
                a.next();
            } else {
                b.next();
            }
        }
        None
    }

    /// This set without the addresses of `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let (mut first, last) = range.numbers();
            let mut done = false;
            for cut in other.of(range.family()) {
                let (cut_first, cut_last) = cut.numbers();
                if cut_last < first || cut_first > last {
                    continue;
                }
                if cut_first > first {
                    left.push(AddressRange::from_numbers(
                        range.family(),
                        first,
                        cut_first - 1,
                    ));
                }
                if cut_last >= last {
                    done = true;
                    break;
                }
                first = cut_last + 1;
            }
            if !done {
                left.push(AddressRange::from_numbers(range.family(), first, last));
            }
        }
        Self { ranges: left }
    }

    /// This set and the addresses of `other`.
    #[must_use]
    pub fn plus(&self, other: impl IntoIterator<Item = AddressRange>) -> Self {
        self.ranges.iter().copied().chain(other).collect()
    }

    /// Number of addresses of a family that end in .0 or .255, saturating.
    /// There are none in IPv6.
    pub fn count_buggy(&self, family: Family) -> u128 {
        if family == Family::IPv6 {
            return 0;
        }
        // Among 0..=n those with low byte 0 or 255.
        let up_to = |n: u128| (n / 256) * 2 + if n % 256 == 255 { 2 } else { 1 };
        self.of(family)
            .map(|r| {
                let (first, last) = r.numbers();
                up_to(last) - if first == 0 { 0 } else { up_to(first - 1) }
            })
            .sum()
    }

    /// The addresses of a family in rising order, from `from` on if given.
    /// Lazy: nothing is enumerated ahead.
    pub fn iter(&self, family: Family, from: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        let start = from.map_or(0, to_number);
        self.of(family)
            .filter(move |r| r.numbers().1 >= start)
            .flat_map(move |r| {
                let (first, last) = r.numbers();
                (first.max(start)..=last).map(move |n| from_number(family, n))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(texts: &[&str]) -> RangeSet {
        texts
            .iter()
            .map(|t| AddressRange::parse_leniently(t).unwrap())
            .collect()
    }

    #[test]
    fn joins_what_touches() {
        let joined = set(&["203.0.113.4-203.0.113.9", "203.0.113.0/30", "2001:db8::1"]);
        assert_eq!(joined.ranges().len(), 2);
        assert_eq!(joined.len(Family::IPv4), 10);
    }

    #[test]
    fn a_64_is_not_enumerated() {
        let big = set(&["2001:db8::/64", "10.0.0.0/8"]);
        let less = big.minus(&set(&["2001:db8::5"]));
        assert_eq!(less.len(Family::IPv6), (1 << 64) - 1);
        assert_eq!(big.count_buggy(Family::IPv4), 2 * 65536);
        assert_eq!(
            big.iter(Family::IPv6, None).nth(3).unwrap().to_string(),
            "2001:db8::3"
        );
    }

    /// Small sets of 203.0.113.x against plain sets of numbers.
    fn small() -> impl Strategy<Value = Vec<(u8, u8)>> {
        prop::collection::vec((any::<u8>(), 0u8..40), 0..6)
    }

    fn build(pairs: &[(u8, u8)]) -> (RangeSet, std::collections::BTreeSet<u8>) {
        let spans = pairs.iter().map(|&(a, n)| (a, a.saturating_add(n)));
        let ranges = spans
            .clone()
            .map(|(a, b)| {
                AddressRange::parse_leniently(&format!("203.0.113.{a}-203.0.113.{b}")).unwrap()
            })
            .collect();
        (ranges, spans.flat_map(|(a, b)| a..=b).collect())
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set(a in small(), b in small()) {
            let (ranges_a, plain_a) = build(&a);
            let (ranges_b, plain_b) = build(&b);
            let minus = ranges_a.minus(&ranges_b);
            prop_assert_eq!(minus.len(Family::IPv4), plain_a.difference(&plain_b).count() as u128);
            let plus = ranges_a.plus(ranges_b.ranges().iter().copied());
            prop_assert_eq!(plus.len(Family::IPv4), plain_a.union(&plain_b).count() as u128);
            prop_assert_eq!(ranges_a.overlap(&ranges_b).is_some(), !plain_a.is_disjoint(&plain_b));
            for n in 0..=255u8 {
                let address: IpAddr = format!("203.0.113.{n}").parse().unwrap();
                prop_assert_eq!(ranges_a.contains(address), plain_a.contains(&n));
                prop_assert_eq!(minus.contains(address), plain_a.contains(&n) && !plain_b.contains(&n));
            }
            let buggy = plain_a.iter().filter(|n| matches!(n, 0 | 255)).count() as u128;
            prop_assert_eq!(ranges_a.count_buggy(Family::IPv4), buggy);
            let listed: Vec<u8> = ranges_a.iter(Family::IPv4, None)
                .map(|a| match a { IpAddr::V4(v) => v.octets()[3], IpAddr::V6(_) => 0 }).collect();
            prop_assert_eq!(listed, plain_a.into_iter().collect::<Vec<_>>());
        }
    }
}
