//! Messages, cursors and gaps as the bytes one kind of subscriber gets.
//!
//! Pure functions: knows the wire formats, but no connection, no cursor of a subscriber, no clock.
//! Invariant: the same form of the same message is the same bytes, always. So a half-sent message
//! is not copied but written again, and what is sent of it is a number.
//! RFC 9112 7.1 (chunks), RFC 6455 5.2 (frames), WHATWG HTML 9.2 (SSE), RFC 2397 (data URLs).

use std::time::Duration;

use crate::cursor::Cursor;
use crate::error::Refusal;
use crate::gap::Gap;
use crate::message::{Message, Payload};
use crate::names::essence;
use crate::protocol::websocket::{Opcode, Window, encode_compressed_frame, encode_frame, frame_head};
use crate::protocol::{json, sse};
use crate::text::{write_base64, write_decimal, write_hex};

/// What a stream's messages look like on the wire. SSE is chunked, one chunk a message, or plain
/// until the connection closes (HTTP/1.0).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// SSE, the payload as data, chunked.
    SseRawChunked,
    /// SSE, the payload as data, plain.
    SseRawPlain,
    /// SSE, the message object as data, chunked.
    SseJsonChunked,
    /// SSE, the message object as data, plain.
    SseJsonPlain,
    /// WebSocket, the message object in a text frame.
    WsJson,
    /// WebSocket, the payload in a text or binary frame.
    WsRaw,
    /// As `WsJson`, or compressed, if that pays and the client's window holds it.
    WsJsonDeflate(Window),
    /// As `WsRaw`, or compressed, in the same way.
    WsRawDeflate(Window),
    /// Long poll, the message object alone; `poll_body` joins them.
    Poll,
}

impl Form {
    /// True for the four forms of SSE.
    pub fn is_sse(self) -> bool {
        use Form::*;
        matches!(self, SseRawChunked | SseRawPlain | SseJsonChunked | SseJsonPlain)
    }

    /// True if the bytes go out in chunks.
    pub fn is_chunked(self) -> bool {
        matches!(self, Form::SseRawChunked | Form::SseJsonChunked)
    }

    /// The same without compression.
    pub fn plain(self) -> Form {
        match self {
            Form::WsJsonDeflate(_) => Form::WsJson,
            Form::WsRawDeflate(_) => Form::WsRaw,
            plain => plain,
        }
    }

    /// The window of the client, if messages may be compressed.
    pub fn window(self) -> Option<Window> {
        match self {
            Form::WsJsonDeflate(window) | Form::WsRawDeflate(window) => Some(window),
            _ => None,
        }
    }

    /// Its number among all, below `COUNT`.
    pub fn number(self) -> usize {
        let windows = Window::ALL.len();
        match self {
            Form::SseRawChunked => 0,
            Form::SseRawPlain => 1,
            Form::SseJsonChunked => 2,
            Form::SseJsonPlain => 3,
            Form::WsJson => 4,
            Form::WsRaw => 5,
            Form::Poll => 6,
            Form::WsJsonDeflate(window) => 7 + window.number(),
            Form::WsRawDeflate(window) => 7 + windows + window.number(),
        }
    }

    /// How many forms there are.
    pub const COUNT: usize = 7 + 2 * Window::ALL.len();
}

/// What a form makes of one byte of payload at most: of a line end, which in SSE has its `data: ` and the
/// end of that line. JSON makes six of a control byte.
pub const GROWTH_MAX: usize = 7;

/// Appends exactly the bytes a subscriber of this form gets for this message, not compressed.
pub fn write(form: Form, message: &Message<'_>, out: &mut Vec<u8>) {
    match form.plain() {
        Form::SseRawChunked | Form::SseRawPlain => sse_block(form, out, |out| write_sse_raw(out, message)),
        Form::SseJsonChunked | Form::SseJsonPlain => sse_block(form, out, |out| write_sse_json(out, message)),
        Form::WsRaw => encode_frame(out, ws_opcode(form, message), message.payload.bytes()),
        Form::Poll => json::write_message(out, message),
        _ => text_frame(out, |out| json::write_message(out, message)),
    }
}

fn write_sse_raw(out: &mut Vec<u8>, message: &Message<'_>) {
    write_sse_head(out, message);
    match message.payload {
        Payload::Text(text) => sse::write_data(out, text),
        Payload::Binary(bytes) => sse::write_data_line(out, |out| write_data_url(out, message.media_type, bytes)),
    }
}

fn write_sse_json(out: &mut Vec<u8>, message: &Message<'_>) {
    write_sse_head(out, message);
    sse::write_data_line(out, |out| json::write_message(out, message));
}

fn write_sse_head(out: &mut Vec<u8>, message: &Message<'_>) {
    sse::write_id(out, message.id);
    if let Some(event) = message.event {
        sse::write_event_name(out, event);
    }
}

/// RFC 2397: `dataurl := "data:" [ mediatype ] [ ";base64" ] "," data`.
fn write_data_url(out: &mut Vec<u8>, media_type: Option<&str>, bytes: &[u8]) {
    // A token may have a `#`; in a URL it would begin the fragment.
    let essence = media_type.map(essence).filter(|essence| !essence.contains('#')).unwrap_or(OCTET_STREAM);
    out.extend_from_slice(b"data:");
    out.extend_from_slice(essence.as_bytes());
    out.extend_from_slice(b";base64,");
    write_base64(out, bytes);
}

// SSE

/// Appends the first bytes of a stream: how long to wait before reconnecting, and where the client
/// stands, so that one which never sees a message still resumes exactly. `None` if a gap follows:
/// then the gap brings the cursor.
pub fn sse_first(form: Form, retry_ms: u64, cursor: Option<Cursor>, out: &mut Vec<u8>) {
    sse_block(form, out, |out| {
        sse::write_retry(out, retry_ms);
        if let Some(cursor) = cursor {
            sse::write_id(out, cursor);
        }
    });
}

/// Appends a heartbeat: the cursor if it moved since the last bytes, otherwise a comment.
pub fn sse_heartbeat(form: Form, moved_to: Option<Cursor>, out: &mut Vec<u8>) {
    sse_block(form, out, |out| match moved_to {
        Some(cursor) => sse::write_id(out, cursor),
        None => sse::write_comment(out),
    });
}

/// Appends a gap: the event `gap`, its data the inner object, its id the cursor.
pub fn sse_gap(form: Form, gap: &Gap, out: &mut Vec<u8>) {
    sse_block(form, out, |out| {
        sse::write_event_name(out, "gap");
        sse::write_id(out, gap.cursor);
        sse::write_data_line(out, |out| json::write_gap(out, gap));
    });
}

/// Appends the last bytes of a stream: when to come back, and the end of the body.
pub fn sse_last(form: Form, retry_ms: u64, out: &mut Vec<u8>) {
    sse_block(form, out, |out| sse::write_retry(out, retry_ms));
    if form.is_chunked() {
        out.extend_from_slice(CHUNKS_END);
    }
}

fn sse_block(form: Form, out: &mut Vec<u8>, write_fields: impl FnOnce(&mut Vec<u8>)) {
    debug_assert!(form.is_sse(), "{form:?} has no blocks");
    let write_block = |out: &mut Vec<u8>| {
        write_fields(out);
        sse::end_block(out);
    };
    if form.is_chunked() { write_chunk(out, write_block) } else { write_block(out) }
}

/// Appends what `write` appends as one chunk. RFC 9112 7.1: `chunk = chunk-size CRLF chunk-data CRLF`,
/// the size in hexadecimal. Nothing makes no chunk: one of size 0 would end the body.
pub fn write_chunk(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let length = out.len() - start;
    if length == 0 {
        return;
    }
    put_before(out, start, |out| {
        write_hex(out, length);
        out.extend_from_slice(b"\r\n");
    });
    out.extend_from_slice(b"\r\n");
}

/// The last chunk and no trailers: the end of a chunked body.
pub const CHUNKS_END: &[u8] = b"0\r\n\r\n";

// WebSocket

/// Appends what the frame of a message holds in one of the forms of WebSocket.
pub fn ws_payload(form: Form, message: &Message<'_>, out: &mut Vec<u8>) {
    match form.plain() {
        Form::WsRaw => out.extend_from_slice(message.payload.bytes()),
        _ => json::write_message(out, message),
    }
}

/// Appends the frame of a message whose payload is given compressed.
pub fn ws_compressed(form: Form, message: &Message<'_>, compressed: &[u8], out: &mut Vec<u8>) {
    encode_compressed_frame(out, ws_opcode(form, message), compressed);
}

fn ws_opcode(form: Form, message: &Message<'_>) -> Opcode {
    match (form.plain(), message.payload) {
        (Form::WsRaw, Payload::Binary(_)) => Opcode::Binary,
        _ => Opcode::Text,
    }
}

/// Appends the first frame: `{"cursor":"…","heartbeat":25}`. The cursor is where the client
/// stands, or the asked one if a gap follows, or `None` if the asked one is no cursor at all.
pub fn ws_first(cursor: Option<Cursor>, ping: Duration, out: &mut Vec<u8>) {
    text_frame(out, |out| {
        out.push(b'{');
        if let Some(cursor) = cursor {
            out.extend_from_slice(b"\"cursor\":");
            json::write_id(out, cursor);
            out.push(b',');
        }
        out.extend_from_slice(b"\"heartbeat\":");
        write_seconds(out, ping);
        out.push(b'}');
    });
}

/// Appends the frame of a cursor that moved: `{"cursor":"…"}`.
pub fn ws_cursor(cursor: Cursor, out: &mut Vec<u8>) {
    text_frame(out, |out| {
        out.extend_from_slice(b"{\"cursor\":");
        json::write_id(out, cursor);
        out.push(b'}');
    });
}

/// Appends the frame of a gap: `{"gap":{…}}`.
pub fn ws_gap(gap: &Gap, out: &mut Vec<u8>) {
    text_frame(out, |out| {
        out.extend_from_slice(b"{\"gap\":");
        json::write_gap(out, gap);
        out.push(b'}');
    });
}

/// Appends the answer to `subscribe` and `unsubscribe`: `{"subscribed":[…],"cursor":"…","ref":"…"}`.
pub fn ws_subscribed<'a>(
    channels: impl Iterator<Item = &'a str>,
    cursor: Cursor,
    reference: Option<&str>,
    out: &mut Vec<u8>,
) {
    ws_answer(reference, out, |out| {
        out.extend_from_slice(b"\"subscribed\":[");
        for (nth, channel) in channels.enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            json::write_string(out, channel);
        }
        out.extend_from_slice(b"],\"cursor\":");
        json::write_id(out, cursor);
    });
}

/// Appends the answer to `publish`: `{"published":{"id":"…","channel":"…","subscribers":3},"ref":"…"}`.
pub fn ws_published(id: Cursor, channel: &str, subscribers: u32, reference: Option<&str>, out: &mut Vec<u8>) {
    ws_answer(reference, out, |out| {
        out.extend_from_slice(b"\"published\":");
        json::write_published(out, id, channel, subscribers);
    });
}

/// Appends the answer to a command that failed: `{"error":{…},"ref":"…"}`.
pub fn ws_error(refusal: &Refusal, reference: Option<&str>, out: &mut Vec<u8>) {
    ws_answer(reference, out, |out| {
        out.extend_from_slice(b"\"error\":");
        json::write_error_object(out, refusal.code, &refusal.message, refusal.cursor);
    });
}

/// A frame with an object of these members, and `ref` if the command had one.
fn ws_answer(reference: Option<&str>, out: &mut Vec<u8>, write_members: impl FnOnce(&mut Vec<u8>)) {
    text_frame(out, |out| {
        out.push(b'{');
        write_members(out);
        if let Some(reference) = reference {
            out.extend_from_slice(b",\"ref\":");
            json::write_string(out, reference);
        }
        out.push(b'}');
    });
}

fn text_frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let length = out.len() - start;
    put_before(out, start, |out| frame_head(out, Opcode::Text, length));
}

/// Seconds as a JSON number: 25, or 0.250.
fn write_seconds(out: &mut Vec<u8>, duration: Duration) {
    write_decimal(out, duration.as_secs());
    let thousandths = duration.subsec_millis();
    if thousandths > 0 {
        out.extend_from_slice(format!(".{thousandths:03}").as_bytes());
    }
}

// Long poll

/// Appends the body of a long poll, `{"cursor":"…","gap":{…},"messages":[…]}`, with all messages
/// whose objects fit in `bytes_max` together, at least one. Returns the cursor in it, `caught_up`
/// if all of them did fit, otherwise that of the last which did; and how many messages are in it.
pub fn poll_body<'a>(
    caught_up: Cursor,
    gap: Option<&Gap>,
    messages: impl Iterator<Item = Message<'a>>,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> (Cursor, usize) {
    let start = out.len();
    let mut cursor = caught_up;
    let mut last = None;
    let (mut bytes, mut count) = (0, 0);
    for message in messages {
        let end = out.len();
        if last.is_some() {
            out.push(b',');
        }
        let object = out.len();
        json::write_message(out, &message);
        bytes += out.len() - object;
        if let Some(last) = last.filter(|_| bytes > bytes_max) {
            out.truncate(end);
            cursor = last;
            break;
        }
        last = Some(message.id);
        count += 1;
    }
    // The cursor comes first but is known last.
    put_before(out, start, |out| {
        out.extend_from_slice(b"{\"cursor\":");
        json::write_id(out, cursor);
        if let Some(gap) = gap {
            out.extend_from_slice(b",\"gap\":");
            json::write_gap(out, gap);
        }
        out.extend_from_slice(b",\"messages\":[");
    });
    out.extend_from_slice(b"]}");
    (cursor, count)
}

/// The `Content-Type` of a raw answer: the message's own, or what its payload is.
pub fn content_type<'a>(message: &Message<'a>) -> &'a str {
    match (message.media_type, message.payload) {
        (Some(media_type), _) => media_type,
        (None, Payload::Text(_)) => "text/plain; charset=utf-8",
        (None, Payload::Binary(_)) => OCTET_STREAM,
    }
}

/// True if a raw answer of this type must be `Content-Disposition: attachment`: a publisher must
/// not run script on this origin, so a browser shows only what cannot hold any.
pub fn needs_attachment(content_type: &str) -> bool {
    let essence = essence(content_type).to_ascii_lowercase();
    let is_shown = match essence.split_once('/') {
        Some(("image" | "audio" | "video", subtype)) => {
            // SVG runs script; so does any other XML, in an XHTML element.
            !subtype.starts_with("svg") && !subtype.ends_with("+xml")
        }
        Some(("text", "plain") | ("application", "json")) => true,
        Some((_, subtype)) => subtype.ends_with("+json"),
        None => false,
    };
    !is_shown
}

const OCTET_STREAM: &str = "application/octet-stream";

/// Puts a head, which depends on the length of what follows, before what follows:
///
/// ```text
/// … | body          body is written
/// … | body head     the head is appended
/// … | head body     and turned to the front: one move of the body, nothing allocated
/// ```
fn put_before(out: &mut Vec<u8>, start: usize, write_head: impl FnOnce(&mut Vec<u8>)) {
    let end = out.len();
    write_head(out);
    let head = out.len() - end;
    out[start..].rotate_right(head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Epoch;
    use crate::error::Code;
    use crate::gap::GapReason;
    use crate::protocol::json::tests::read_object;
    use crate::protocol::sse::tests::{hostile_texts, listen, with_lf};

    const STREAM_FORMS: [Form; 6] =
        [Form::SseRawChunked, Form::SseRawPlain, Form::SseJsonChunked, Form::SseJsonPlain, Form::WsJson, Form::WsRaw];

    fn hello() -> Message<'static> {
        Message {
            id: cursor(42),
            channel: "news",
            event: None,
            media_type: None,
            time_ms: 1_764_000_000_123,
            payload: Payload::Text("hello"),
        }
    }

    fn cursor(seq: u64) -> Cursor {
        Cursor { epoch: Epoch::new(1766).unwrap(), seq }
    }

    fn gap() -> Gap {
        Gap { after: "1766-3".into(), through: cursor(7), cursor: cursor(9), reason: GapReason::Evicted }
    }

    /// What counts a form's bytes relies on it.
    #[test]
    fn no_form_makes_more_of_a_byte_than_it_may() {
        const NAMES_AND_NUMBERS: usize = 500;
        for unit in ["\n", "\r", "\0", "\u{7f}", "\"", "<", "x", "\u{2028}"] {
            let text = unit.repeat(30_000 / unit.len());
            for payload in [Payload::Text(&text), Payload::Binary(text.as_bytes())] {
                for form in STREAM_FORMS.into_iter().chain([Form::Poll]) {
                    let bytes = written(|out| write(form, &Message { payload, ..hello() }, out)).len();
                    assert!(bytes <= GROWTH_MAX * text.len() + NAMES_AND_NUMBERS, "{form:?} {unit:?}: {bytes}");
                }
            }
        }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    /// The bytes of a chunked body, and whether its last chunk came.
    fn dechunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap();
            let size = usize::from_str_radix(str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
            body.extend_from_slice(&bytes[end + 2..][..size]);
            bytes = bytes[end + 2 + size..].strip_prefix(b"\r\n").unwrap();
            if size == 0 {
                assert_eq!(bytes, b"", "bytes after the last chunk");
                return (body, true);
            }
        }
        (body, false)
    }

    /// First byte and payload of each frame, read by RFC 6455 5.2.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let [first, length, rest @ ..] = bytes {
            let (length, rest) = match length {
                126 => (u16::from_be_bytes(rest[..2].try_into().unwrap()) as usize, &rest[2..]),
                127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
                _ => (*length as usize, rest),
            };
            frames.push((*first, rest[..length].to_vec()));
            bytes = &rest[length..];
        }
        assert_eq!(bytes, b"");
        frames
    }

    #[test]
    fn one_message_in_every_form() {
        let json = r#"{"id":"1766-42","channel":"news","event":"é","time":1764000000123,"data":"a\nb"}"#;
        let message = Message { event: Some("é"), payload: Payload::Text("a\nb"), ..hello() };
        for (form, want) in [
            (Form::SseRawPlain, "id: 1766-42\nevent: é\ndata: a\ndata: b\n\n".to_owned()),
            (Form::SseRawChunked, "27\r\nid: 1766-42\nevent: é\ndata: a\ndata: b\n\n\r\n".to_owned()),
            (Form::SseJsonPlain, format!("id: 1766-42\nevent: é\ndata: {json}\n\n")),
            (Form::SseJsonChunked, format!("6f\r\nid: 1766-42\nevent: é\ndata: {json}\n\n\r\n")),
            (Form::WsJson, format!("\u{1}\u{51}{json}")),
            (Form::WsRaw, "\u{1}\u{3}a\nb".to_owned()),
            (Form::Poll, json.to_owned()),
        ] {
            let mut want = want.into_bytes();
            if matches!(form, Form::WsJson | Form::WsRaw) {
                want[0] |= 0x80; // FIN
            }
            let out = written(|out| write(form, &message, out));
            assert_eq!(out, want, "{form:?} {:?}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn binary_is_a_data_url_base64_or_a_binary_frame() {
        let data_url = |media_type| {
            let message = Message { media_type, payload: Payload::Binary(b"\xff\xfe"), ..hello() };
            text(written(|out| write(Form::SseRawPlain, &message, out)))
        };
        assert_eq!(data_url(None), "id: 1766-42\ndata: data:application/octet-stream;base64,//4=\n\n");
        assert_eq!(data_url(Some("image/png")), "id: 1766-42\ndata: data:image/png;base64,//4=\n\n");
        assert_eq!(data_url(Some("Audio/ogg ; codecs=\"a,b\"")), "id: 1766-42\ndata: data:Audio/ogg;base64,//4=\n\n");
        assert_eq!(data_url(Some("a/b#c")), "id: 1766-42\ndata: data:application/octet-stream;base64,//4=\n\n");

        let message = Message { payload: Payload::Binary(b"\xff\xfe"), ..hello() };
        assert_eq!(written(|out| write(Form::WsRaw, &message, out)), b"\x82\x02\xff\xfe");
        assert_eq!(
            text(written(|out| write(Form::Poll, &message, out))),
            r#"{"id":"1766-42","channel":"news","time":1764000000123,"base64":"//4="}"#
        );
    }

    #[test]
    fn an_empty_message_is_an_event_and_a_frame() {
        let message = Message { payload: Payload::Text(""), ..hello() };
        let stream = written(|out| write(Form::SseRawPlain, &message, out));
        assert_eq!(listen(&stream).events, [("message".into(), String::new(), "1766-42".into())]);
        assert_eq!(written(|out| write(Form::WsRaw, &message, out)), b"\x81\x00");
    }

    #[test]
    fn any_text_arrives_as_one_message_in_every_form() {
        let texts = hostile_texts();
        for form in STREAM_FORMS {
            // All in one stream: what one message lets leak would be heard in the next.
            let mut stream = Vec::new();
            let mut whole = Vec::new();
            for (seq, payload) in (1..).zip(&texts) {
                let message =
                    Message { id: cursor(seq), event: Some("e:v"), payload: Payload::Text(payload), ..hello() };
                let start = stream.len();
                write(form, &message, &mut stream);
                whole.clear();
                write(form, &message, &mut whole);
                assert_eq!(stream[start..], whole, "the same bytes, wherever they are written");
            }
            let data: Vec<String> = match form {
                Form::WsJson | Form::WsRaw => frames(&stream)
                    .into_iter()
                    .map(|(first, payload)| {
                        assert_eq!(first, 0x81);
                        text(payload)
                    })
                    .collect(),
                _ => {
                    let body = if form.is_chunked() { dechunk(&stream).0 } else { stream };
                    let events = listen(&body).events.into_iter().zip(1..);
                    events
                        .map(|((name, data, id), seq)| {
                            assert_eq!((name, id), ("e:v".to_owned(), cursor(seq).to_string()));
                            data
                        })
                        .collect()
                }
            };
            assert_eq!(data.len(), texts.len(), "{form:?}");
            for ((data, payload), seq) in data.iter().zip(&texts).zip(1..) {
                match form {
                    Form::WsRaw => assert_eq!(data, payload),
                    Form::SseRawChunked | Form::SseRawPlain => assert_eq!(*data, with_lf(payload)),
                    _ => {
                        let (members, rest) = read_object(data).unwrap();
                        assert_eq!(members[0], ("id".to_owned(), cursor(seq).to_string()));
                        assert_eq!(members[4], ("data".to_owned(), payload.clone()));
                        assert_eq!(rest, "");
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_are_right_around_every_width_of_a_head() {
        for length in (0..300).chain(3900..4200).chain(65_400..65_600) {
            let payload = "x".repeat(length);
            let message = Message { payload: Payload::Text(&payload), ..hello() };
            let object = text(written(|out| write(Form::Poll, &message, out)));
            let framed = written(|out| write(Form::WsJson, &message, out));
            assert_eq!(frames(&framed), [(0x81, object.clone().into_bytes())]);
            let plain = written(|out| write(Form::SseRawPlain, &message, out));
            let chunk = written(|out| write(Form::SseRawChunked, &message, out));
            assert_eq!(chunk, [format!("{:x}\r\n", plain.len()).as_bytes(), &plain, b"\r\n"].concat());
        }
    }

    #[test]
    fn an_empty_chunk_is_not_written() {
        assert_eq!(written(|out| write_chunk(out, |_| {})), b"");
        assert_eq!(written(|out| write_chunk(out, |out| out.push(b'x'))), b"1\r\nx\r\n");
    }

    #[test]
    fn around_the_messages_of_sse() {
        let form = Form::SseRawPlain;
        for (want, out) in [
            ("retry: 2000\nid: 1766-5\n\n", written(|out| sse_first(form, 2000, Some(cursor(5)), out))),
            ("retry: 2000\n\n", written(|out| sse_first(form, 2000, None, out))),
            ("id: 1766-6\n\n", written(|out| sse_heartbeat(form, Some(cursor(6)), out))),
            (":\n\n", written(|out| sse_heartbeat(form, None, out))),
            (":\n\n", dechunk(&written(|out| sse_heartbeat(Form::SseJsonChunked, None, out))).0),
            ("retry: 4000\n\n", written(|out| sse_last(form, 4000, out))),
            (
                concat!(
                    "event: gap\nid: 1766-9\n",
                    r#"data: {"after":"1766-3","through":"1766-7","cursor":"1766-9","reason":"evicted"}"#,
                    "\n\n"
                ),
                written(|out| sse_gap(form, &gap(), out)),
            ),
        ] {
            assert_eq!(text(out), want);
        }
        let last = written(|out| sse_last(Form::SseRawChunked, 4000, out));
        assert_eq!(last, b"d\r\nretry: 4000\n\n\r\n0\r\n\r\n");
        assert_eq!(dechunk(&last), (b"retry: 4000\n\n".to_vec(), true));
    }

    #[test]
    fn a_stream_with_a_gap_has_no_id_before_it() {
        let mut stream = Vec::new();
        sse_first(Form::SseRawPlain, 2000, None, &mut stream);
        assert_eq!(listen(&stream).last_event_id, "");
        sse_gap(Form::SseRawPlain, &Gap { after: "\r\nid: 1\n\n".into(), ..gap() }, &mut stream);
        let heard = listen(&stream);
        assert_eq!((heard.retry, heard.last_event_id), (Some(2000), "1766-9".to_owned()));
        let [(name, data, _)] = &heard.events[..] else { panic!("{:?}", heard.events) };
        assert_eq!(name, "gap");
        let (members, _) = read_object(data).unwrap();
        assert_eq!(members[0], ("after".to_owned(), "\r\nid: 1\n\n".to_owned()));
    }

    #[test]
    fn around_the_messages_of_websocket() {
        let second = Duration::from_secs(1);
        let names = || ["a", "b"].into_iter();
        let refusal = Refusal::new(Code::BadCommand, "no");
        for (want, out) in [
            (r#"{"cursor":"1766-5","heartbeat":25}"#, written(|out| ws_first(Some(cursor(5)), 25 * second, out))),
            (r#"{"heartbeat":25}"#, written(|out| ws_first(None, 25 * second, out))),
            (r#"{"heartbeat":0.050}"#, written(|out| ws_first(None, second / 20, out))),
            (r#"{"cursor":"1766-6"}"#, written(|out| ws_cursor(cursor(6), out))),
            (
                r#"{"gap":{"after":"1766-3","through":"1766-7","cursor":"1766-9","reason":"evicted"}}"#,
                written(|out| ws_gap(&gap(), out)),
            ),
            (
                r#"{"subscribed":["a","b"],"cursor":"1766-6","ref":"\"1\""}"#,
                written(|out| ws_subscribed(names(), cursor(6), Some("\"1\""), out)),
            ),
            (
                r#"{"subscribed":[],"cursor":"1766-6"}"#,
                written(|out| ws_subscribed(names().take(0), cursor(6), None, out)),
            ),
            (
                r#"{"published":{"id":"1766-7","channel":"a","subscribers":3},"ref":"x"}"#,
                written(|out| ws_published(cursor(7), "a", 3, Some("x"), out)),
            ),
            (
                r#"{"error":{"status":400,"code":"bad_command","message":"no"},"ref":"x"}"#,
                written(|out| ws_error(&refusal, Some("x"), out)),
            ),
            (
                r#"{"error":{"status":400,"code":"bad_command","message":"no"}}"#,
                written(|out| ws_error(&refusal, None, out)),
            ),
        ] {
            assert_eq!(frames(&out), [(0x81, want.as_bytes().to_vec())], "{want}");
        }
    }

    #[test]
    fn a_poll_answers_all_that_fits_and_at_least_one() {
        let message =
            |seq| Message { id: cursor(seq), channel: "c", time_ms: 0, payload: Payload::Text("x"), ..hello() };
        let objects = [1, 2, 3].map(|seq| text(written(|out| write(Form::Poll, &message(seq), out))));
        let size = objects[0].len();
        for (count, bytes_max, fit, want_cursor) in [
            (0, 0, 0, cursor(9)),
            (0, size, 0, cursor(9)),
            (1, 0, 1, cursor(9)),
            (2, 0, 1, cursor(1)),
            (3, size, 1, cursor(1)),
            (3, 2 * size - 1, 1, cursor(1)),
            (3, 2 * size, 2, cursor(2)),
            (3, 3 * size - 1, 2, cursor(2)),
            (3, 3 * size, 3, cursor(9)),
        ] {
            let mut out = b"head".to_vec();
            let messages = (1..).take(count).map(message);
            assert_eq!(poll_body(cursor(9), None, messages, bytes_max, &mut out), (want_cursor, fit));
            let want = format!(r#"head{{"cursor":"{want_cursor}","messages":[{}]}}"#, objects[..fit].join(","));
            assert_eq!(text(out), want, "{count} messages in {bytes_max} bytes");
        }
    }

    #[test]
    fn a_poll_tells_a_gap_beside_the_messages() {
        let body = written(|out| {
            poll_body(cursor(42), Some(&gap()), [hello()].into_iter(), 1000, out);
        });
        assert_eq!(
            text(body),
            concat!(
                r#"{"cursor":"1766-42","gap":{"after":"1766-3","through":"1766-7","cursor":"1766-9","reason":"evicted"},"#,
                r#""messages":[{"id":"1766-42","channel":"news","time":1764000000123,"data":"hello"}]}"#
            )
        );
    }

    #[test]
    fn content_types() {
        let binary = Message { payload: Payload::Binary(b"\xff"), ..hello() };
        assert_eq!(content_type(&hello()), "text/plain; charset=utf-8");
        assert_eq!(content_type(&binary), "application/octet-stream");
        assert_eq!(content_type(&Message { media_type: Some("image/png; a=b"), ..binary }), "image/png; a=b");
    }

    #[test]
    fn only_what_cannot_hold_script_is_shown() {
        for shown in [
            "text/plain",
            "Text/Plain; charset=utf-8",
            "application/json",
            "APPLICATION/JSON;a=b",
            "application/vnd.api+json",
            "image/png",
            "image/jpeg; a=\"svg\"",
            "audio/ogg",
            "video/mp4",
        ] {
            assert!(!needs_attachment(shown), "{shown}");
        }
        for saved in [
            "text/html",
            "application/octet-stream",
            "application/xml",
            "text/xml",
            "application/xhtml+xml",
            "image/svg+xml",
            "Image/SVG+XML; charset=utf-8",
            "image/svg",
            "image/x+xml",
            "text/javascript",
            "application/pdf",
            "multipart/mixed",
            "text/html; a=text/plain",
            "application/jsonp",
            "",
        ] {
            assert!(needs_attachment(saved), "{saved}");
        }
    }
}
