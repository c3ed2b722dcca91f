//! The log on standard error: one line per event, without colour, in words.
//!
//! Carries no time: what runs a service (systemd, a container) adds its own. Invariant: whatever
//! a peer sent, one event is one line, and no control byte reaches a terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};

/// Starts the log, of this program and of the library.
pub(crate) fn start(level: LevelFilter) {
    // Fails only if a logger was set before; then that one serves.
    if log::set_logger(&StandardError).is_ok() {
        log::set_max_level(level);
    }
}

struct StandardError;

impl Log for StandardError {
    /// `log` has asked for the level already.
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    /// One write, so that lines of several threads do not mix. If it fails there is nobody to tell.
    fn log(&self, record: &Record<'_>) {
        let message = record.args().to_string();
        let line = format!("{:<5} {}\n", record.level(), printable(&message, &[]));
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// The text with every control character but the `kept` ones escaped as in Rust. The two Unicode
/// line separators count as such, for some viewers break lines there, and so do the characters that
/// turn the direction of text (UAX 9, 2), for they show it in another order than it has.
pub(crate) fn printable<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let turns = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2066}'..='\u{2069}');
    let forges = |c: char| (c.is_control() || matches!(c, '\u{2028}'..='\u{202e}') || turns(c)) && !kept.contains(&c);
    if !text.contains(forges) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if forges(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_peer_sends_starts_a_line_or_reaches_the_terminal() {
        for (text, shown) in [
            ("plain, \"quoted\" \\ é", "plain, \"quoted\" \\ é"),
            ("a\nERROR forged", "a\\nERROR forged"),
            ("a\r\tb", "a\\r\\tb"),
            ("\x1b[31mred\x07", "\\u{1b}[31mred\\u{7}"),
            ("\u{9b}31m\x7f\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\\u{202e}b\\u{2066}c\\u{200f}"),
        ] {
            assert_eq!(printable(text, &[]), shown, "{text:?}");
        }
        assert_eq!(printable("a\nb\r", &['\n']), "a\nb\\r");
    }
}
