//! One range of addresses, never empty and of one family.

use std::fmt;
use std::net::IpAddr;

use super::{Family, from_number, to_number};

/// A range of addresses, both ends included: never empty, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Why a text is no range of usable addresses. Each message is a sentence
/// that names the text and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not a CIDR, range or address at all.
    #[error(
        "{0:?} is not a CIDR (203.0.113.0/28), a range (203.0.113.10-203.0.113.40) or an address"
    )]
    Malformed(String),
    /// Bits behind the prefix.
    #[error(
        "{text:?} has bits set behind its prefix: write {network} for the whole network, or a range"
    )]
    HostBits {
        /// As written.
        text: String,
        /// The network that it lies in.
        network: String,
    },
    /// Two families in one range.
    #[error("{0:?} begins in one address family and ends in the other")]
    MixedFamilies(String),
    /// The last address is before the first.
    #[error("{text:?} ends before it begins: write {last}-{first}")]
    Reversed {
        /// As written.
        text: String,
        /// Its first address.
        first: IpAddr,
        /// Its last address.
        last: IpAddr,
    },
    /// Addresses that no host may have.
    #[error("{text:?} holds {what} addresses, which cannot be given to a Service")]
    Unusable {
        /// As written.
        text: String,
        /// Their kind.
        what: &'static str,
    },
}

/// Networks whose addresses no Service may have.
const UNUSABLE: [(Family, u128, u128, &str); 8] = [
    (Family::IPv4, 0, 0x00ff_ffff, "unspecified"),
    (Family::IPv4, 0x7f00_0000, 0x7fff_ffff, "loopback"),
    (Family::IPv4, 0xe000_0000, 0xefff_ffff, "multicast"),
    (
        Family::IPv4,
        0xf000_0000,
        0xffff_ffff,
        "reserved or broadcast",
    ),
    (Family::IPv6, 0, 0, "unspecified"),
    (Family::IPv6, 1, 1, "loopback"),
    // An IPv4 address in IPv6 clothes: MetalLB would print it as IPv4.
    (
        Family::IPv6,
        0xffff_0000_0000,
        0xffff_ffff_ffff,
        "IPv4-mapped",
    ),
    (Family::IPv6, 0xff << 120, u128::MAX, "multicast"),
];

impl AddressRange {
    /// The range of one address.
    pub fn single(address: IpAddr) -> Self {
        let number = to_number(address);
        Self {
            family: Family::of(address),
            first: number,
            last: number,
        }
    }

    /// The range between two addresses, in either order; `None` when their
    /// families differ.
    pub fn between(a: IpAddr, b: IpAddr) -> Option<Self> {
        (Family::of(a) == Family::of(b)).then(|| {
            let (a_number, b_number) = (to_number(a), to_number(b));
            Self {
                family: Family::of(a),
                first: a_number.min(b_number),
                last: a_number.max(b_number),
            }
        })
    }

    pub(super) fn from_numbers(family: Family, first: u128, last: u128) -> Self {
        debug_assert!(first <= last && last <= family.highest());
        Self {
            family,
            first,
            last,
        }
    }

    /// Reads `203.0.113.0/28`, `203.0.113.10-203.0.113.40` or `203.0.113.7`
    /// and refuses what no Service can use.
    ///
    /// # Errors
    /// [`RangeError`], a sentence for the person who wrote the text.
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let range = Self::parse_leniently(text)?;
        if let Ok(net) = text.trim().parse::<ipnet::IpNet>()
            && net.addr() != net.network()
        {
            return Err(RangeError::HostBits {
                text: text.to_owned(),
                network: net.trunc().to_string(),
            });
        }
        for (family, first, last, what) in UNUSABLE {
            if range.overlaps(&Self {
                family,
                first,
                last,
            }) {
                return Err(RangeError::Unusable {
                    text: text.to_owned(),
                    what,
                });
            }
        }
        Ok(range)
    }

    /// Reads what MetalLB's own pools may hold: as [`Self::parse`], but a CIDR
    /// may have bits behind its prefix (MetalLB masks them) and any address is
    /// accepted.
    ///
    /// # Errors
    /// [`RangeError`] where there is no range in the text.
    pub fn parse_leniently(text: &str) -> Result<Self, RangeError> {
        let trimmed = text.trim();
        let malformed = || RangeError::Malformed(text.to_owned());
        if trimmed.contains('/') {
            let net: ipnet::IpNet = trimmed.parse().map_err(|_| malformed())?;
            return Self::between(net.network(), net.broadcast()).ok_or_else(malformed);
        }
        if let Some((a, b)) = trimmed.split_once('-') {
            let first: IpAddr = a.trim().parse().map_err(|_| malformed())?;
            let last: IpAddr = b.trim().parse().map_err(|_| malformed())?;
            if Family::of(first) != Family::of(last) {
                return Err(RangeError::MixedFamilies(text.to_owned()));
            }
            if to_number(first) > to_number(last) {
                return Err(RangeError::Reversed {
                    text: text.to_owned(),
                    first,
                    last,
                });
            }
            return Self::between(first, last).ok_or_else(malformed);
        }
        trimmed.parse().map(Self::single).map_err(|_| malformed())
    }

    /// The family of every address in it.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        from_number(self.family, self.first)
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        from_number(self.family, self.last)
    }

    pub(super) fn numbers(&self) -> (u128, u128) {
        (self.first, self.last)
    }

    /// Number of addresses, saturating.
    pub fn len(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Always false: a range has at least one address.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family && (self.first..=self.last).contains(&to_number(address))
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// The shortest prefix length among the CIDRs that make up the range.
    /// MetalLB compares it with a BGPAdvertisement's `aggregationLength`.
    pub fn shortest_prefix(&self) -> u32 {
        let bits = self.family.bits();
        let mut shortest = bits;
        let mut at = self.first;
        loop {
            // The largest aligned block that starts here and does not overrun.
            let aligned = if at == 0 {
                bits
            } else {
                at.trailing_zeros().min(bits)
            };
            let mut size = aligned;
            while size > 0 && (size >= 128 || self.last - at < (1u128 << size) - 1) {
                if size >= 128 && at == 0 && self.last == u128::MAX {
                    return 0;
                }
                size -= 1;
            }
            shortest = shortest.min(bits - size);
            match at.checked_add(1u128 << size) {
                Some(next) if next <= self.last => at = next,
                _ => return shortest,
            }
        }
    }
}

impl fmt::Display for AddressRange {
    /// As MetalLB's pools take it: always `first-last`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first(), self.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        AddressRange::parse(text).unwrap()
    }

    #[test]
    fn reads_every_form() {
        assert_eq!(
            range("203.0.113.0/28").to_string(),
            "203.0.113.0-203.0.113.15"
        );
        assert_eq!(range("203.0.113.10 - 203.0.113.12").len(), 3);
        assert_eq!(range("2001:db8::1").len(), 1);
        assert_eq!(range("2001:db8::/64").len(), 1 << 64);
    }

    #[test]
    fn refuses_with_a_sentence() {
        for (text, part) in [
            ("10.0.0.5/24", "10.0.0.0/24"),
            ("203.0.113.9-203.0.113.1", "203.0.113.1-203.0.113.9"),
            ("203.0.113.1-2001:db8::1", "family"),
            ("127.0.0.1", "loopback"),
            ("224.0.0.0/8", "multicast"),
            ("0.0.0.0/0", "unspecified"),
            ("::ffff:1.2.3.4", "IPv4-mapped"),
            ("fe80::1-ff02::1", "multicast"),
            ("", "not a CIDR"),
            ("203.0.113.1-", "not a CIDR"),
            ("203.0.113.0/33", "not a CIDR"),
            ("203.0.113.256", "not a CIDR"),
            ("fe80::1%eth0", "not a CIDR"),
        ] {
            let error = AddressRange::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn shortest_prefix_is_of_the_largest_block() {
        assert_eq!(range("203.0.113.0/24").shortest_prefix(), 24);
        assert_eq!(range("203.0.113.10-203.0.113.40").shortest_prefix(), 28);
        assert_eq!(range("203.0.113.7").shortest_prefix(), 32);
        assert_eq!(range("2001:db8::/64").shortest_prefix(), 64);
        let all = AddressRange::parse_leniently("::/0").unwrap();
        assert_eq!(all.shortest_prefix(), 0);
        let end = AddressRange::parse_leniently("255.255.255.254-255.255.255.255").unwrap();
        assert_eq!(end.shortest_prefix(), 31);
    }
}
