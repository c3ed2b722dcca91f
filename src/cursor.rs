//! A place in the log: `<epoch>-<seq>`, and where a subscriber asks to start.
//!
//! Knows nothing of channels, messages or transports. Invariant: every text that parses prints
//! back to the same bytes, so a cursor may be compared as text or as numbers.

use std::fmt;
use std::num::NonZeroU32;

/// One life of the log. Two cursors of different epochs cannot be compared.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(NonZeroU32);

impl Epoch {
    /// The epoch with this number; `None` for 0, which names no life.
    pub fn new(number: u32) -> Option<Epoch> {
        NonZeroU32::new(number).map(Epoch)
    }

    /// An epoch from random bits. The one value that is no epoch becomes 1.
    pub fn from_random(bits: u64) -> Epoch {
        Epoch(NonZeroU32::new((bits >> 32) as u32).unwrap_or(NonZeroU32::MIN))
    }

    /// The number, 1 to 2^32-1.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

/// The place just after message `seq` of `epoch`; "after C" means every message numbered higher.
///
/// Its text is `<epoch>-<seq>`, at most 30 bytes: decimal, no sign, no leading zero.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The life of the log this place belongs to.
    pub epoch: Epoch,
    /// The number of the last message before this place; 0 is before the first.
    pub seq: u64,
}

/// The highest number a message may have: 2^63-1.
pub const SEQ_MAX: u64 = i64::MAX as u64;

impl Cursor {
    /// Reads `<epoch>-<seq>`. Anything that is not exactly that form is `None`.
    pub fn parse(text: &[u8]) -> Option<Cursor> {
        let dash = text.iter().position(|&b| b == b'-')?;
        let epoch = parse_decimal(&text[..dash], u64::from(u32::MAX))?;
        let seq = parse_decimal(&text[dash + 1..], SEQ_MAX)?;
        Some(Cursor { epoch: Epoch::new(epoch as u32)?, seq })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch.number(), self.seq)
    }
}

/// Where a subscriber wants to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// The head at this moment; never has a gap.
    Now,
    /// Before the oldest message kept; never has a gap.
    Earliest,
    /// After this place.
    At(Cursor),
    /// A `Last-Event-ID` that is no cursor of ours, cut to 32 bytes: told as a gap, for an
    /// EventSource could never mend an error.
    Unknown(String),
}

impl After {
    /// Reads a query's `after=`: a cursor, `now` or `earliest`; anything else is `None`.
    pub fn parse(text: &[u8]) -> Option<After> {
        match text {
            b"now" => Some(After::Now),
            b"earliest" => Some(After::Earliest),
            _ => Cursor::parse(text).map(After::At),
        }
    }

    /// Reads a non-empty `Last-Event-ID`: what `parse` refuses becomes `Unknown`, cut to 32
    /// bytes at a character boundary, bytes that are no UTF-8 as U+FFFD.
    pub fn from_last_event_id(text: &[u8]) -> After {
        After::parse(text).unwrap_or_else(|| {
            let mut shown = String::from_utf8_lossy(text).into_owned();
            let mut end = shown.len().min(UNKNOWN_BYTES_MAX);
            while !shown.is_char_boundary(end) {
                end -= 1;
            }
            shown.truncate(end);
            After::Unknown(shown)
        })
    }
}

/// How much of a text that is no cursor is told, in bytes. Every cursor is shorter.
const UNKNOWN_BYTES_MAX: usize = 32;

/// Of 2^63-1, and no number of so many is too large for 64 bits.
const DIGITS_MAX: usize = 19;

/// Digits only, no leading zero but for 0 itself, at most `max`.
fn parse_decimal(digits: &[u8], max: u64) -> Option<u64> {
    if !(1..=DIGITS_MAX).contains(&digits.len()) || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut number = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    (number <= max).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(epoch: u32, seq: u64) -> Cursor {
        Cursor { epoch: Epoch::new(epoch).unwrap(), seq }
    }

    #[test]
    fn what_parses_prints_back() {
        for (text, want) in [
            ("1-0", cursor(1, 0)),
            ("1766-42", cursor(1766, 42)),
            ("4294967295-9223372036854775807", cursor(u32::MAX, SEQ_MAX)),
        ] {
            assert_eq!(Cursor::parse(text.as_bytes()), Some(want), "{text}");
            assert_eq!(want.to_string(), text);
        }
    }

    #[test]
    fn every_other_form_is_refused() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "0-1",
            "01-1",
            "1-01",
            "1-00",
            "+1-1",
            "1-+1",
            "1--1",
            "1-1-1",
            " 1-1",
            "1-1 ",
            "1-1\n",
            "4294967296-1",
            "1-9223372036854775808",
            "1-18446744073709551616",
            "a-1",
            "1-a",
            "1_1",
            "١-١",
            "1-00000000000000000000000000000001",
        ] {
            assert_eq!(Cursor::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn an_epoch_takes_the_upper_half_of_random_bits() {
        assert_eq!(Epoch::from_random(0x1234_5678_9abc_def0).number(), 0x1234_5678);
        assert_eq!(Epoch::from_random(0x9abc_def0).number(), 1);
    }

    #[test]
    fn cursor_words() {
        assert_eq!(After::parse(b"now"), Some(After::Now));
        assert_eq!(After::parse(b"earliest"), Some(After::Earliest));
        assert_eq!(After::parse(b"Now"), None);
        assert_eq!(After::parse(b""), None);
        assert_eq!(After::from_last_event_id(b"7-1"), After::At(cursor(7, 1)));
    }

    #[test]
    fn an_unknown_last_event_id_is_cut_at_a_character() {
        let long = "é".repeat(20);
        let After::Unknown(shown) = After::from_last_event_id(long.as_bytes()) else { panic!() };
        assert_eq!(shown, "é".repeat(16));
        let long = format!("x{}", "é".repeat(20));
        let After::Unknown(shown) = After::from_last_event_id(long.as_bytes()) else { panic!() };
        assert_eq!(shown, format!("x{}", "é".repeat(15)));
        assert_eq!(After::from_last_event_id(b"a\xffb"), After::Unknown("a\u{fffd}b".into()));
    }
}
