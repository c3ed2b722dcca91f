//! Server-Sent Events: the fields of an event stream. Writing only.
//!
//! Knows nothing of messages, chunks or HTTP. A block is some fields and an empty line; one with
//! a `data` field fires an event in the client, even if its data is empty. Invariant: whatever the
//! data and the names are, exactly the fields asked for are written, for no value gets a raw CR or LF in.
//! WHATWG HTML 9.2.5 (parsing) and 9.2.6 (interpreting an event stream).

use crate::cursor::Cursor;
use crate::text::{position, write_cursor, write_decimal};

/// Appends `retry: <milliseconds>`: how long the client waits before it connects again.
pub fn write_retry(out: &mut Vec<u8>, milliseconds: u64) {
    out.extend_from_slice(b"retry: ");
    write_decimal(out, milliseconds);
    out.push(b'\n');
}

/// Appends `id: <cursor>`: what the client sends as `Last-Event-ID` when it connects again.
/// 9.2.6 sets it at the end of the block whether or not there is data, so a block of it alone
/// moves the client's cursor without firing an event.
pub fn write_id(out: &mut Vec<u8>, id: Cursor) {
    out.extend_from_slice(b"id: ");
    write_cursor(out, id);
    out.push(b'\n');
}

/// Appends `event: <name>`. A CR or LF, which no name has that passed our rules, becomes `?`.
pub fn write_event_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"event: ");
    let mut rest = name.as_bytes();
    while let Some(end) = position(rest, ends_line) {
        out.extend_from_slice(&rest[..end]);
        out.push(b'?');
        rest = &rest[end + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\n');
}

/// Appends one `data` field per line of the text. 9.2.5: lines end with CR LF, LF or CR; the client
/// joins them with LF.
///
/// 9.2.6 drops one space after the colon, hence we put one there and the text keeps its own; it
/// drops the last LF of the data, hence a text that ends with a line end gets an empty field more,
/// and an empty text one empty field, which fires an event with empty data.
pub fn write_data(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(end) = position(rest, ends_line) {
        write_data_line(out, |out| out.extend_from_slice(&rest[..end]));
        let line_end = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + line_end..];
    }
    write_data_line(out, |out| out.extend_from_slice(rest));
}

/// Appends one `data` field with what `write` appends, which must have no line end.
pub fn write_data_line(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"data: ");
    let start = out.len();
    write(out);
    debug_assert_eq!(position(&out[start..], ends_line), None, "the data is one line");
    out.push(b'\n');
}

/// Appends a comment without words: bytes that show the connection is alive and do nothing else.
pub fn write_comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n");
}

/// Appends the empty line that ends a block.
pub fn end_block(out: &mut Vec<u8>) {
    out.push(b'\n');
}

fn ends_line(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cursor::Epoch;

    /// What an EventSource hears of a stream.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Heard {
        /// Type, data and last event id of each event fired.
        pub(crate) events: Vec<(String, String, String)>,
        /// What the next `Last-Event-ID` would be.
        pub(crate) last_event_id: String,
        pub(crate) retry: Option<u64>,
    }

    /// An EventSource's reading of a stream, written from WHATWG HTML 9.2.5 and 9.2.6 alone.
    pub(crate) fn listen(stream: &[u8]) -> Heard {
        // 9.2.5: "decoded using UTF-8 decode", which strips one leading byte order mark.
        let stream = String::from_utf8_lossy(stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream));
        let mut heard = Heard::default();
        let (mut data, mut event_type, mut id) = (String::new(), String::new(), String::new());
        // "Lines must be separated by either CRLF, LF, or CR"; an unfinished last line is discarded.
        let mut rest = &*stream;
        while let Some(end) = rest.find(['\r', '\n']) {
            let line = &rest[..end];
            rest = rest[end..].strip_prefix("\r\n").unwrap_or(&rest[end + 1..]);
            if line.is_empty() {
                // Dispatch the event.
                heard.last_event_id.clone_from(&id);
                let name = std::mem::take(&mut event_type);
                let mut data = std::mem::take(&mut data);
                // "If the data buffer is an empty string, set the data buffer and the event type
                // buffer to the empty string and return."
                if data.is_empty() {
                    continue;
                }
                if data.ends_with('\n') {
                    data.pop();
                }
                let name = if name.is_empty() { "message".to_owned() } else { name };
                heard.events.push((name, data, heard.last_event_id.clone()));
                continue;
            }
            let (field, value) = match line.split_once(':') {
                Some(("", _)) => continue, // a comment
                Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
                None => (line, ""),
            };
            match field {
                "event" => value.clone_into(&mut event_type),
                "data" => {
                    data.push_str(value);
                    data.push('\n');
                }
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                "retry" if value.bytes().all(|b| b.is_ascii_digit()) => heard.retry = value.parse().ok(),
                _ => {}
            }
        }
        heard
    }

    /// What the contract says reaches the client of a text: each line end as LF.
    pub(crate) fn with_lf(text: &str) -> String {
        text.replace("\r\n", "\n").replace('\r', "\n")
    }

    /// Every text of up to four pieces that have broken event streams before.
    pub(crate) fn hostile_texts() -> Vec<String> {
        let pieces =
            ["\r", "\n", " ", "\0", "\u{feff}", ":", "data: x", "\nid: 9-9\n", "\r\revent: gap\r", "\u{2028}é"];
        let mut texts = vec![String::new()];
        let mut longest = 0..1;
        for _ in 0..4 / crate::stride(2) {
            let end = texts.len();
            for nth in longest {
                texts.extend(pieces.map(|piece| format!("{}{piece}", texts[nth])));
            }
            longest = end..texts.len();
        }
        // And each of the pieces around the end of a block of the fast search.
        for length in 12..36 {
            texts.extend(pieces.map(|piece| format!("{}{piece}{}", "a".repeat(length), "b".repeat(length))));
        }
        texts.into_iter().step_by(crate::stride(29)).collect()
    }

    fn cursor(seq: u64) -> Cursor {
        Cursor { epoch: Epoch::new(1766).unwrap(), seq }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields() {
        assert_eq!(written(|out| write_retry(out, 2500)), "retry: 2500\n");
        assert_eq!(written(|out| write_id(out, cursor(42))), "id: 1766-42\n");
        assert_eq!(written(|out| write_event_name(out, "price")), "event: price\n");
        assert_eq!(written(|out| write_event_name(out, " a\r\nb\u{2028}")), "event:  a??b\u{2028}\n");
        assert_eq!(written(write_comment), ":\n");
        assert_eq!(written(end_block), "\n");
    }

    #[test]
    fn data_is_split_at_every_line_end() {
        for (text, want) in [
            ("", "data: \n"),
            ("a", "data: a\n"),
            (" a", "data:  a\n"),
            ("a\nb", "data: a\ndata: b\n"),
            ("a\rb", "data: a\ndata: b\n"),
            ("a\r\nb", "data: a\ndata: b\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n"),
            ("\n", "data: \ndata: \n"),
            ("a\r\n", "data: a\ndata: \n"),
            ("a\r", "data: a\ndata: \n"),
            ("\u{85}\u{2028}\u{b}", "data: \u{85}\u{2028}\u{b}\n"),
        ] {
            assert_eq!(written(|out| write_data(out, text)), want, "{text:?}");
        }
    }

    #[test]
    fn the_client_hears_one_event_and_every_line_whatever_the_data_is() {
        for text in hostile_texts() {
            let stream = written(|out| {
                write_id(out, cursor(1));
                write_data(out, &text);
                end_block(out);
            });
            let want = ("message".to_owned(), with_lf(&text), "1766-1".to_owned());
            assert_eq!(listen(stream.as_bytes()).events, [want], "{text:?}");
        }
    }

    #[test]
    fn the_client_hears_one_event_whatever_its_name_is() {
        for name in hostile_texts().into_iter().filter(|name| !name.is_empty()) {
            let stream = written(|out| {
                write_id(out, cursor(1));
                write_event_name(out, &name);
                write_data(out, "x");
                end_block(out);
            });
            let want = (name.replace(['\r', '\n'], "?"), "x".to_owned(), "1766-1".to_owned());
            assert_eq!(listen(stream.as_bytes()).events, [want], "{name:?}");
        }
    }

    #[test]
    fn a_block_without_data_moves_the_cursor_and_fires_nothing() {
        let stream = written(|out| {
            write_retry(out, 2500);
            write_id(out, cursor(42));
            end_block(out);
            write_comment(out);
            end_block(out);
        });
        let want = Heard { events: Vec::new(), last_event_id: "1766-42".into(), retry: Some(2500) };
        assert_eq!(listen(stream.as_bytes()), want);
    }
}
