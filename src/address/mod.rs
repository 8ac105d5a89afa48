//! Addresses and ranges of them. Ranges are never enumerated: a /64 costs
//! what a /24 costs.

mod range;
mod set;

pub use range::{AddressRange, RangeError};
pub use set::RangeSet;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An address family, written as in a Service's `ipFamilies`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Family {
    /// IP version 4.
    IPv4,
    /// IP version 6.
    IPv6,
}

impl Family {
    /// Both, in the order in which they are always listed.
    pub const BOTH: [Self; 2] = [Self::IPv4, Self::IPv6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::IPv4,
            IpAddr::V6(_) => Self::IPv6,
        }
    }

    /// The one that it is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::IPv4 => Self::IPv6,
            Self::IPv6 => Self::IPv4,
        }
    }

    /// The text in `ipFamilies`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }

    /// Bits of an address.
    pub fn bits(self) -> u32 {
        match self {
            Self::IPv4 => 32,
            Self::IPv6 => 128,
        }
    }

    /// The highest address as a number.
    pub(crate) fn highest(self) -> u128 {
        match self {
            Self::IPv4 => u128::from(u32::MAX),
            Self::IPv6 => u128::MAX,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The address as a number, of either family.
pub(crate) fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// The address of a family that a number stands for; the low 32 bits count
/// for IPv4.
pub(crate) fn from_number(family: Family, number: u128) -> IpAddr {
    match family {
        Family::IPv4 => IpAddr::V4(Ipv4Addr::from((number & 0xffff_ffff) as u32)),
        Family::IPv6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// An address that old equipment mistakes for a network or broadcast address
/// (MetalLB's `avoidBuggyIPs`): IPv4 ending in .0 or .255.
pub fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(a) if matches!(a.octets()[3], 0 | 255))
}
