//! Numbers, cursors and base64 as ASCII, and the search for the next byte that needs care.
//!
//! What the wire formats share; knows none of them. Numbers are written without `fmt`, which takes
//! several times as long: there are four of them in each form of each message.
//! RFC 4648 section 4 (base64).

use base64::engine::{Engine, general_purpose::STANDARD};

use crate::cursor::Cursor;

/// Appends `<epoch>-<seq>`.
pub fn write_cursor(out: &mut Vec<u8>, cursor: Cursor) {
    write_decimal(out, u64::from(cursor.epoch.number()));
    out.push(b'-');
    write_decimal(out, cursor.seq);
}

/// Appends a number in decimal, without leading zeros.
pub fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20]; // u64::MAX has 20
    let mut start = digits.len();
    while number >= 10 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    if number > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b'0' + number as u8;
    }
    out.extend_from_slice(&digits[start..]);
}

/// Two digits at a time take half as many divisions.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Appends a number in lower-case hexadecimal, without leading zeros.
pub fn write_hex(out: &mut Vec<u8>, number: usize) {
    let digits = number.checked_ilog(16).unwrap_or(0) + 1;
    for nth in (0..digits).rev() {
        out.push(HEX[(number >> (4 * nth)) & 0xf]);
    }
}

/// The digits of `write_hex`.
pub const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends bytes in base64, with padding: RFC 4648 section 4.
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("three bytes make four characters");
}

/// The place of the first special byte: only the block with it, or the rest, is walked.
pub fn position(bytes: &[u8], is_special: impl Fn(u8) -> bool) -> Option<usize> {
    let clean = clean_blocks(bytes, &is_special);
    let nth = bytes[clean..].iter().position(|&byte| is_special(byte))?;
    Some(clean + nth)
}

/// How many bytes there are in the whole blocks before the first one with a special byte.
///
/// Looks at whole blocks without leaving one early, which the compiler turns into vector
/// instructions, if what is special is told without a branch.
pub fn clean_blocks(bytes: &[u8], is_special: impl Fn(u8) -> bool) -> usize {
    let mut clean = 0;
    for block in bytes.chunks_exact(16) {
        if block.iter().fold(false, |any, &byte| any | is_special(byte)) {
            break;
        }
        clean += block.len();
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Epoch, SEQ_MAX};

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"<".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_fmt_writes_them() {
        let around = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        let powers = (0..20).flat_map(|n| [10u64.pow(n) - 1, 10u64.pow(n)]);
        for number in around.chain(powers).chain([u64::MAX]) {
            assert_eq!(written(|out| write_decimal(out, number)), format!("<{number}"));
            let number = number as usize;
            assert_eq!(written(|out| write_hex(out, number)), format!("<{number:x}"));
        }
    }

    #[test]
    fn cursors_are_written_as_they_print() {
        for (epoch, seq) in [(1, 0), (1766, 42), (u32::MAX, SEQ_MAX)] {
            let cursor = Cursor { epoch: Epoch::new(epoch).unwrap(), seq };
            assert_eq!(written(|out| write_cursor(out, cursor)), format!("<{cursor}"));
        }
    }

    #[test]
    fn base64_of_rfc_4648_section_10() {
        for (bytes, want) in [
            ("", "<"),
            ("f", "<Zg=="),
            ("fo", "<Zm8="),
            ("foo", "<Zm9v"),
            ("foob", "<Zm9vYg=="),
            ("fooba", "<Zm9vYmE="),
            ("foobar", "<Zm9vYmFy"),
        ] {
            assert_eq!(written(|out| write_base64(out, bytes.as_bytes())), want);
        }
        // The standard alphabet, not the one for URLs.
        assert_eq!(written(|out| write_base64(out, &[0xfb, 0xff])), "<+/8=");
    }

    #[test]
    fn the_first_special_byte_is_found_at_every_place_and_length() {
        for length in 0..70 {
            let mut bytes = vec![b'a'; length];
            assert_eq!(position(&bytes, |b| b == b'!'), None, "{length}");
            for place in (0..length).rev() {
                // Those behind it stay, so that the first must win.
                bytes[place] = b'!';
                assert_eq!(position(&bytes, |b| b == b'!'), Some(place), "{length}");
            }
        }
    }
}
