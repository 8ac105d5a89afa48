//! The order in which MetalLB's speakers would announce an address.
//!
//! Highest preference first; among equals, and always before 0.16.2, the
//! lowest `sha256(node + "#" + address)`. The address is the Service's first
//! by text order, whatever its `ipFamilies` say.
//! Source: MetalLB's `speaker/layer2_controller.go`.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// A node's place in the election for an address: lowest first.
pub type Rank = [u8; 32];

/// The address by which the election of a Service with these addresses is
/// decided, as text. `None` when there is no address.
pub fn deciding_address(addresses: &[IpAddr]) -> Option<String> {
    deciding(addresses).map(|address| address.to_string())
}

/// As [`deciding_address`], but not as text.
pub fn deciding(addresses: &[IpAddr]) -> Option<IpAddr> {
    match addresses {
        [] => None,
        [only] => Some(*only),
        several => several.iter().copied().min_by_key(ToString::to_string),
    }
}

/// A node's rank for an address as text.
pub fn rank(node: &str, address: &str) -> Rank {
    let length = node.len() + 1 + address.len();
    // Nearly every node and address fit one block of SHA-256: then its frame
    // is known, and the planner, which asks millions of times, is spared the
    // general case.
    if length <= 55 {
        let mut block = [0; 64];
        let (name, rest) = block.split_at_mut(node.len());
        name.copy_from_slice(node.as_bytes());
        rest[0] = b'#';
        rest[1..=address.len()].copy_from_slice(address.as_bytes());
        rest[address.len() + 1] = 0x80;
        block[56..].copy_from_slice(&(length as u64 * 8).to_be_bytes());
        let mut state = INITIAL;
        sha2::block_api::compress256(&mut state, &[block]);
        let mut rank = [0; 32];
        for (bytes, word) in rank.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        return rank;
    }
    rank_of_any_length(node, address)
}

/// The initial state of SHA-256 (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

fn rank_of_any_length(node: &str, address: &str) -> Rank {
    let mut hasher = Sha256::new();
    hasher.update(node.as_bytes());
    hasher.update(b"#");
    hasher.update(address.as_bytes());
    hasher.finalize().into()
}

/// The node that wins for an address among candidates of equal preference.
pub fn winner<'a>(address: &str, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nodes.into_iter().min_by_key(|node| rank(node, address))
}

/// The nodes in the order in which they would announce an address.
pub fn order<'a>(address: &str, nodes: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<_> = nodes.into_iter().collect();
    all.sort_by_cached_key(|node| rank(node, address));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orders that were seen on real speakers for these addresses.
    #[test]
    fn agrees_with_real_speakers() {
        let nodes = ["node-1", "node-2", "node-3"];
        assert_eq!(order("192.0.2.100", nodes), ["node-1", "node-3", "node-2"]);
        assert_eq!(order("192.0.2.101", nodes), ["node-2", "node-1", "node-3"]);
        assert_eq!(order("192.0.2.102", nodes), ["node-3", "node-1", "node-2"]);
    }

    #[test]
    fn the_short_way_is_the_long_way() {
        for length in 1..80 {
            let node = "n".repeat(length);
            assert_eq!(
                rank(&node, "203.0.113.7"),
                rank_of_any_length(&node, "203.0.113.7")
            );
        }
    }

    #[test]
    fn the_first_address_is_by_text() {
        let both = [
            "203.0.113.1".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        ];
        assert_eq!(deciding_address(&both).unwrap(), "2001:db8::1");
    }
}
