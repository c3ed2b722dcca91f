//! How many connections each address has, for `connections_per_address_max`.
//!
//! Knows no sockets. An IPv6 address counts by its first 64 bits: a single host may take any
//! address that begins with them (RFC 4291 2.5.4, RFC 6177 2). With the limit off nothing is kept.
//!
//! Invariant: a connection is counted from `enter` to `leave`, once.

use std::collections::BTreeMap;

use crate::os::IpAddr;

/// Connections of one address over its limit that are still answered, to be told so.
const RESERVE: u32 = 4;

/// Who may have no address of its own: a local socket, or an index without a connection.
const NONE: u64 = u64::MAX;

/// Where a newcomer stands among those of its address.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is room.
    Within,
    /// It is one too many, and is to be told so.
    Over,
    /// Too many are being told already.
    Beyond,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    max: u32,
    /// A tree and no hash: peers choose the keys.
    counts: BTreeMap<u64, u32>,
    /// By index of connection.
    of: Vec<u64>,
}

impl Addresses {
    /// At most so many connections an address; 0 is no limit.
    pub(super) fn new(max: usize) -> Addresses {
        Addresses { max: u32::try_from(max).unwrap_or(u32::MAX), ..Addresses::default() }
    }

    /// Counts a new connection.
    pub(super) fn enter(&mut self, index: u32, peer: Option<IpAddr>) -> Standing {
        let Some(peer) = peer.filter(|_| self.max > 0) else { return Standing::Within };
        let address = key(peer);
        if self.of.len() <= index as usize {
            self.of.resize(index as usize + 1, NONE);
        }
        self.of[index as usize] = address;
        let count = self.counts.entry(address).or_insert(0);
        *count += 1;
        match *count {
            count if count <= self.max => Standing::Within,
            count if count - self.max <= RESERVE => Standing::Over,
            _ => Standing::Beyond,
        }
    }

    /// The connection is closed.
    pub(super) fn leave(&mut self, index: u32) {
        let Some(address) = self.of.get_mut(index as usize).map(|of| std::mem::replace(of, NONE)) else { return };
        if let Some(count) = self.counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&address);
            }
        }
    }

    /// Panics if the counts and the connections differ.
    pub(super) fn check_invariants(&self) {
        let mut counts = BTreeMap::new();
        for &address in self.of.iter().filter(|&&address| address != NONE) {
            *counts.entry(address).or_insert(0) += 1;
        }
        assert_eq!(counts, self.counts, "each connection counts once, for its own address");
    }
}

/// An IPv4 address as its number, an IPv6 address as its first 64 bits. They never meet: what
/// begins with 32 zero bits is no IPv6 address of a peer (RFC 4291 4), but for `::1`, which is 0.
fn key(peer: IpAddr) -> u64 {
    match peer.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(addresses: &mut Addresses, index: u32, peer: &str) -> Standing {
        let standing = addresses.enter(index, Some(peer.parse().unwrap()));
        addresses.check_invariants();
        standing
    }

    #[test]
    fn an_address_has_so_many_and_a_few_are_told() {
        let mut addresses = Addresses::new(2);
        let peers = ["192.0.2.1"; 7];
        let standings: Vec<Standing> =
            peers.iter().zip(0..).map(|(peer, index)| enter(&mut addresses, index, peer)).collect();
        use Standing::{Beyond, Over, Within};
        assert_eq!(standings, [Within, Within, Over, Over, Over, Over, Beyond]);
        assert_eq!(enter(&mut addresses, 7, "192.0.2.2"), Within, "another address");
        for index in 1..8 {
            addresses.leave(index);
            addresses.leave(index);
        }
        assert_eq!(enter(&mut addresses, 3, "192.0.2.1"), Within);
        assert_eq!(enter(&mut addresses, 4, "192.0.2.1"), Over);
        for index in [0, 3, 4, 99] {
            addresses.leave(index);
        }
        addresses.check_invariants();
        assert!(addresses.counts.is_empty(), "who is gone leaves nothing");
    }

    #[test]
    fn whose_address_counts_as_whose() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::1", "127.0.0.1", false),
        ] {
            let mut addresses = Addresses::new(1);
            enter(&mut addresses, 0, one);
            assert_eq!(enter(&mut addresses, 1, other) == Standing::Over, same, "{one} {other}");
        }
    }

    #[test]
    fn without_a_limit_or_an_address_nothing_is_kept() {
        let mut addresses = Addresses::new(0);
        assert_eq!(enter(&mut addresses, 0, "192.0.2.1"), Standing::Within);
        assert_eq!((addresses.counts.len(), addresses.of.len()), (0, 0));
        let mut addresses = Addresses::new(1);
        for index in 0..3 {
            assert_eq!(addresses.enter(index, None), Standing::Within);
        }
        addresses.leave(1);
        addresses.check_invariants();
    }
}
