//! JSON of the contract: the message object, gaps, errors. Writing only; the server reads no JSON.
//!
//! Knows nothing of framing or transports. Invariant: what is written has no raw control
//! character, so it is one line everywhere: one `data:` line, one text frame.
//! RFC 8259: section 7 (strings).

use crate::cursor::Cursor;
use crate::error::Code;
use crate::gap::Gap;
use crate::message::{Message, Payload};
use crate::text::{HEX, position, write_base64, write_cursor, write_decimal};

/// Appends the message object:
/// `{"id":"1766-42","channel":"news","event":"price","type":"text/plain","time":1764000000123,"data":"…"}`.
/// `event` and `type` are left out when not given; a binary payload is in `base64` instead of `data`.
pub fn write_message(out: &mut Vec<u8>, message: &Message<'_>) {
    out.extend_from_slice(b"{\"id\":");
    write_id(out, message.id);
    out.extend_from_slice(b",\"channel\":");
    write_string(out, message.channel);
    if let Some(event) = message.event {
        out.extend_from_slice(b",\"event\":");
        write_string(out, event);
    }
    if let Some(media_type) = message.media_type {
        out.extend_from_slice(b",\"type\":");
        write_string(out, media_type);
    }
    out.extend_from_slice(b",\"time\":");
    write_decimal(out, message.time_ms);
    match message.payload {
        Payload::Text(text) => {
            out.extend_from_slice(b",\"data\":");
            write_string(out, text);
        }
        Payload::Binary(bytes) => {
            out.extend_from_slice(b",\"base64\":\"");
            write_base64(out, bytes);
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// Appends the inner object of a gap: `{"after":"…","through":"…","cursor":"…","reason":"evicted"}`.
pub fn write_gap(out: &mut Vec<u8>, gap: &Gap) {
    write_gap_with(out, gap, write_string);
}

/// Appends the same object in ASCII, for the header `Tidings-Gap`.
pub fn write_gap_ascii(out: &mut Vec<u8>, gap: &Gap) {
    write_gap_with(out, gap, write_string_ascii);
}

fn write_gap_with(out: &mut Vec<u8>, gap: &Gap, write_string: fn(&mut Vec<u8>, &str)) {
    out.extend_from_slice(b"{\"after\":");
    // The only text in it that a client chose.
    write_string(out, &gap.after);
    out.extend_from_slice(b",\"through\":");
    write_id(out, gap.through);
    out.extend_from_slice(b",\"cursor\":");
    write_id(out, gap.cursor);
    out.extend_from_slice(b",\"reason\":\"");
    out.extend_from_slice(gap.reason.as_str().as_bytes());
    out.extend_from_slice(b"\"}");
}

/// Appends the body of an error: `{"error":{"status":413,"code":"message_too_large","message":"…"}}`,
/// and `cursor` in it if there is one.
pub fn write_error(out: &mut Vec<u8>, code: Code, message: &str, cursor: Option<Cursor>) {
    out.extend_from_slice(b"{\"error\":");
    write_error_object(out, code, message, cursor);
    out.push(b'}');
}

/// Appends the inner object of an error.
pub fn write_error_object(out: &mut Vec<u8>, code: Code, message: &str, cursor: Option<Cursor>) {
    out.extend_from_slice(b"{\"status\":");
    write_decimal(out, u64::from(code.status()));
    out.extend_from_slice(b",\"code\":\"");
    out.extend_from_slice(code.name().as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    write_string(out, message);
    if let Some(cursor) = cursor {
        out.extend_from_slice(b",\"cursor\":");
        write_id(out, cursor);
    }
    out.push(b'}');
}

/// Appends the answer to a publish: `{"id":"1766-42","channel":"news","subscribers":3}`.
pub fn write_published(out: &mut Vec<u8>, id: Cursor, channel: &str, subscribers: u32) {
    out.extend_from_slice(b"{\"id\":");
    write_id(out, id);
    out.extend_from_slice(b",\"channel\":");
    write_string(out, channel);
    out.extend_from_slice(b",\"subscribers\":");
    write_decimal(out, u64::from(subscribers));
    out.push(b'}');
}

/// One line of the list of channels.
#[derive(Copy, Clone, Debug)]
pub struct ChannelLine<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its subscribers by WebSocket, SSE and long poll.
    pub subscribers: [u64; 3],
    /// Messages kept.
    pub messages: u64,
    /// Bytes kept, bookkeeping included.
    pub bytes: u64,
    /// The ids of the oldest and the newest message kept, if any is.
    pub ends: Option<(Cursor, Cursor)>,
}

/// Appends a line of the list of channels.
pub fn write_channel(out: &mut Vec<u8>, line: &ChannelLine<'_>) {
    out.extend_from_slice(b"{\"name\":");
    write_string(out, line.name);
    for (label, count) in [",\"subscribers\":{\"websocket\":", ",\"sse\":", ",\"poll\":"].iter().zip(line.subscribers) {
        out.extend_from_slice(label.as_bytes());
        write_decimal(out, count);
    }
    out.extend_from_slice(b"},\"messages\":");
    write_decimal(out, line.messages);
    out.extend_from_slice(b",\"bytes\":");
    write_decimal(out, line.bytes);
    if let Some((oldest, newest)) = line.ends {
        out.extend_from_slice(b",\"oldest\":");
        write_id(out, oldest);
        out.extend_from_slice(b",\"newest\":");
        write_id(out, newest);
    }
    out.push(b'}');
}

/// Appends an id or cursor. It is a string: a JSON number would lose digits in JavaScript.
pub fn write_id(out: &mut Vec<u8>, id: Cursor) {
    out.push(b'"');
    write_cursor(out, id);
    out.push(b'"');
}

/// Appends a string in quotes. RFC 8259 7: "the characters that MUST be escaped: quotation mark,
/// reverse solidus, and the control characters (U+0000 through U+001F)". All others stay UTF-8.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    out.push(b'"');
    while let Some(clean) = position(rest, must_escape) {
        out.extend_from_slice(&rest[..clean]);
        write_escape(out, rest[clean]);
        rest = &rest[clean + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends a string in quotes, in printable ASCII. RFC 8259 7: a character outside the Basic
/// Multilingual Plane is two escapes, "encoding the UTF-16 surrogate pair".
pub fn write_string_ascii(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte) if must_escape(byte) => write_escape(out, byte),
            Ok(byte @ b' '..=b'~') => out.push(byte),
            _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|&unit| write_unicode_escape(out, unit)),
        }
    }
    out.push(b'"');
}

fn must_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => write_unicode_escape(out, u16::from(byte)),
    }
}

fn write_unicode_escape(out: &mut Vec<u8>, unit: u16) {
    let digit = |nth: u16| HEX[usize::from(unit >> (4 * nth) & 0xf)];
    out.extend_from_slice(&[b'\\', b'u', digit(3), digit(2), digit(1), digit(0)]);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cursor::Epoch;
    use crate::gap::GapReason;

    fn cursor(seq: u64) -> Cursor {
        Cursor { epoch: Epoch::new(1766).unwrap(), seq }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// Reads a JSON string by the grammar of RFC 8259 7, nothing laxer; what follows it is the rest.
    pub(crate) fn read_string(json: &str) -> Option<(String, &str)> {
        let mut chars = json.strip_prefix('"')?.chars();
        let mut units = Vec::new(); // UTF-16, so that surrogate pairs meet
        loop {
            let unit = match chars.next()? {
                '"' => return Some((String::from_utf16(&units).ok()?, chars.as_str())),
                '\\' => match chars.next()? {
                    'u' => {
                        let digits = chars.as_str().get(..4)?;
                        chars = chars.as_str()[4..].chars();
                        digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
                        units.push(u16::from_str_radix(digits, 16).ok()?);
                        continue;
                    }
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    itself @ ('"' | '\\' | '/') => itself,
                    _ => return None,
                },
                '\0'..'\u{20}' => return None,
                other => other,
            };
            units.extend_from_slice(unit.encode_utf16(&mut [0; 2]));
        }
    }

    /// Reads a flat object of strings and whole numbers, without white space; in order.
    pub(crate) fn read_object(json: &str) -> Option<(Vec<(String, String)>, &str)> {
        let mut rest = json.strip_prefix('{')?;
        let mut members = Vec::new();
        loop {
            let (name, value) = read_string(rest)?;
            let value = value.strip_prefix(':')?;
            let (value, after) = read_string(value).or_else(|| {
                let end = value.find(|c: char| !c.is_ascii_digit())?;
                (end > 0).then(|| (value[..end].to_owned(), &value[end..]))
            })?;
            members.push((name, value));
            rest = match after.strip_prefix(',') {
                Some(rest) => rest,
                None => return Some((members, after.strip_prefix('}')?)),
            };
        }
    }

    fn check_string(text: &str) {
        let json = written(|out| write_string(out, text));
        assert_eq!(read_string(&json), Some((text.to_owned(), "")), "{json}");
        let ascii = written(|out| write_string_ascii(out, text));
        assert_eq!(read_string(&ascii), Some((text.to_owned(), "")), "{ascii}");
        assert!(ascii.bytes().all(|b| matches!(b, b' '..=b'~')), "{ascii}");
    }

    #[test]
    fn strings() {
        for (text, want) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("a\"b\\c/d", r#""a\"b\\c/d""#),
            ("\r\n\t", r#""\r\n\t""#),
            ("\0\u{8}\u{b}\u{1f}", r#""\u0000\u0008\u000b\u001f""#),
            ("é日😀\u{7f}\u{2028}", "\"é日😀\u{7f}\u{2028}\""),
        ] {
            assert_eq!(written(|out| write_string(out, text)), want);
        }
        let ascii = written(|out| write_string_ascii(out, "a\"\né😀\u{7f}\u{ffff}~"));
        assert_eq!(ascii, r#""a\"\n\u00e9\ud83d\ude00\u007f\uffff~""#);
    }

    #[test]
    fn every_character_comes_back() {
        for character in ('\0'..=char::MAX).step_by(crate::stride(9973)) {
            check_string(character.encode_utf8(&mut [0; 4]));
        }
    }

    #[test]
    fn what_is_escaped_comes_back_at_every_place_and_length() {
        for length in (0..40).step_by(crate::stride(39)) {
            for place in (0..=length).step_by(crate::stride(13)) {
                for special in ["\"", "\\", "\0", "\u{1f}", "é", "\"\\\n"] {
                    let text = format!("{}{special}{}", "a".repeat(place), "b".repeat(length - place));
                    check_string(&text);
                }
            }
        }
    }

    #[test]
    fn a_message_object_has_the_members_of_the_contract_in_its_order() {
        let message = Message {
            id: cursor(42),
            channel: "news",
            event: Some("price"),
            media_type: Some("application/json"),
            time_ms: 1_764_000_000_123,
            payload: Payload::Text("{\"eur\":3}"),
        };
        assert_eq!(
            written(|out| write_message(out, &message)),
            r#"{"id":"1766-42","channel":"news","event":"price","type":"application/json","time":1764000000123,"data":"{\"eur\":3}"}"#
        );
        let message = Message { event: None, media_type: None, payload: Payload::Binary(b"\xff\xfe"), ..message };
        assert_eq!(
            written(|out| write_message(out, &message)),
            r#"{"id":"1766-42","channel":"news","time":1764000000123,"base64":"//4="}"#
        );
        let message = Message {
            event: Some("\"},{"),
            media_type: Some("a/b; c=\"\td\""),
            payload: Payload::Text("\"}\r\n"),
            ..message
        };
        let json = written(|out| write_message(out, &message));
        let (members, rest) = read_object(&json).unwrap();
        let want = [
            ("id", "1766-42"),
            ("channel", "news"),
            ("event", "\"},{"),
            ("type", "a/b; c=\"\td\""),
            ("time", "1764000000123"),
            ("data", "\"}\r\n"),
        ];
        assert_eq!(members, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(rest, "");
    }

    #[test]
    fn gaps() {
        let mut gap = Gap { after: "1766-3".into(), through: cursor(7), cursor: cursor(9), reason: GapReason::Evicted };
        let want = r#"{"after":"1766-3","through":"1766-7","cursor":"1766-9","reason":"evicted"}"#;
        assert_eq!(written(|out| write_gap(out, &gap)), want);
        assert_eq!(written(|out| write_gap_ascii(out, &gap)), want);
        gap.after = "\"é\r\n\u{fffd}".into();
        gap.reason = GapReason::Unknown;
        assert_eq!(
            written(|out| write_gap_ascii(out, &gap)),
            r#"{"after":"\"\u00e9\r\n\ufffd","through":"1766-7","cursor":"1766-9","reason":"unknown"}"#
        );
    }

    #[test]
    fn lines_of_the_list() {
        let mut line = ChannelLine {
            name: "a\"",
            subscribers: [1, 20, 300],
            messages: 4,
            bytes: 500,
            ends: Some((cursor(3), cursor(9))),
        };
        let want = r#"{"name":"a\"","subscribers":{"websocket":1,"sse":20,"poll":300},"messages":4,"bytes":500"#;
        assert_eq!(
            written(|out| write_channel(out, &line)),
            format!(r#"{want},"oldest":"1766-3","newest":"1766-9"}}"#)
        );
        line.ends = None;
        assert_eq!(written(|out| write_channel(out, &line)), format!("{want}}}"));
    }

    #[test]
    fn answers() {
        assert_eq!(
            written(|out| write_error(out, Code::MessageTooLarge, "the \"limit\" is 3", None)),
            r#"{"error":{"status":413,"code":"message_too_large","message":"the \"limit\" is 3"}}"#
        );
        assert_eq!(
            written(|out| write_error(out, Code::ChannelMoved, "moved", Some(cursor(0)))),
            r#"{"error":{"status":412,"code":"channel_moved","message":"moved","cursor":"1766-0"}}"#
        );
        assert_eq!(
            written(|out| write_published(out, cursor(42), "news", 3)),
            r#"{"id":"1766-42","channel":"news","subscribers":3}"#
        );
    }
}
