//! Masking: every byte of a client's payload is XORed with one of four key bytes in turn.
//!
//! RFC 6455 5.3. The key is against confused proxies, not against readers; any key is valid, 0 too.

/// Unmasks in place a payload, or a part of one whose first byte meets `mask[0]`. True if it is ASCII.
///
/// Masking is its own inverse. After a part of `n` bytes the next part needs the mask rotated
/// left by `n % 4`.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) -> bool {
    // Two turns of the key are one word, and the compiler makes vectors of the words: a plain
    // loop over bytes with `mask[i % 4]` is many times slower.
    let [a, b, c, d] = mask;
    let key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    // Nearly all text is ASCII: seen on the way, it needs no second look.
    let (mut ones, mut ones_of_rest) = (0, 0);
    for word in words {
        let plain = u64::from_ne_bytes(*word) ^ key;
        ones |= plain;
        *word = plain.to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.to_ne_bytes()) {
        *byte ^= key;
        ones_of_rest |= *byte;
    }
    ones.to_ne_bytes().is_ascii() && ones_of_rest.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RFC 6455 5.3 says it.
    fn unmask_naively(payload: &mut [u8], mask: [u8; 4]) {
        for i in 0..payload.len() {
            payload[i] ^= mask[i % 4];
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn the_example_of_the_standard() {
        // RFC 6455 5.7: "a single-frame masked text message" with "Hello"
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut payload, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(&payload, b"Hello");
    }

    #[test]
    fn equals_the_naive_loop_at_every_length_and_place() {
        for len in (0..=300).chain([1000, 4095, 4096, 4097, 65_535, 65_536, 65_543]).step_by(crate::stride(19)) {
            for offset in (0..16).step_by(crate::stride(5)) {
                let mut fast = bytes(offset + len + 16);
                let mut naive = fast.clone();
                let is_ascii = unmask(&mut fast[offset..offset + len], [0x37, 0xfa, 0x00, 0xff]);
                unmask_naively(&mut naive[offset..offset + len], [0x37, 0xfa, 0x00, 0xff]);
                assert!(fast == naive, "length {len} at {offset}");
                assert_eq!(is_ascii, naive[offset..offset + len].is_ascii(), "length {len} at {offset}");
            }
        }
    }

    #[test]
    fn one_byte_that_is_not_ascii_is_seen_at_every_place() {
        for len in 0..=40 {
            let mask = [0x80, 0xff, 0x00, 0x7f];
            let mut ascii = vec![0x7f; len];
            unmask_naively(&mut ascii, mask);
            assert!(unmask(&mut ascii.clone(), mask), "length {len}");
            for at in 0..len {
                let mut other = ascii.clone();
                other[at] ^= 0x80;
                assert!(!unmask(&mut other, mask), "length {len}, at {at}");
            }
        }
    }

    #[test]
    fn parts_with_a_rotated_mask_equal_the_whole() {
        for len in (0..=40).step_by(crate::stride(9)) {
            let mut whole = bytes(len);
            unmask_naively(&mut whole, [1, 2, 4, 8]);
            for first in 0..=len {
                for second in first..=len {
                    let mut parts = bytes(len);
                    let mut mask = [1, 2, 4, 8];
                    for (from, to) in [(0, first), (first, second), (second, len)] {
                        unmask(&mut parts[from..to], mask);
                        mask.rotate_left((to - from) % 4);
                    }
                    assert_eq!(parts, whole, "{len} cut at {first} and {second}");
                }
            }
        }
    }
}
