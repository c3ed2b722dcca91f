//! What the server writes, read by parsers of others' making: event streams, JSON, every form.

use std::time::Duration;

use tidings::internals::form::{self, Form};
use tidings::internals::websocket::{Deflater, Window};
use tidings::internals::{Gap, GapReason, Message, Payload, json as writer, names};
use tidings::{Code, Cursor, Epoch};

use super::Input;
use super::clients::json::Json;
use super::clients::{EventStream, Frame, Frames, Part, Responses, SseItem, base64_decoded, lines_normalized};

const FORMS: [Form; 7] = [
    Form::SseRawChunked,
    Form::SseRawPlain,
    Form::SseJsonChunked,
    Form::SseJsonPlain,
    Form::WsJson,
    Form::WsRaw,
    Form::Poll,
];

/// A message as the input says it, within the rules that every publish is held to.
struct Scripted<'a> {
    id: Cursor,
    channel: String,
    event: Option<&'a str>,
    media_type: Option<&'a str>,
    time_ms: u64,
    payload: Payload<'a>,
}

impl<'a> Scripted<'a> {
    fn read(input: &mut Input<'a>) -> Scripted<'a> {
        const LETTERS: &[u8] = b"abzAZ019._:~@-";
        let id = cursor(input);
        let channel = input.some().iter().take(128).map(|&byte| LETTERS[usize::from(byte) % LETTERS.len()]);
        let channel: String = std::iter::once(b'c').chain(channel.take(127)).map(char::from).collect();
        let event = names::event_name(input.some()).ok().flatten();
        let media_type = names::media_type(input.some()).ok().flatten();
        // Above 2^53 a number of JSON is no longer exact.
        let time_ms = input.bits() >> 11;
        let bytes = input.take(input.0.len());
        let payload = match std::str::from_utf8(bytes) {
            Ok(text) if names::is_text(bytes, media_type) => Payload::Text(text),
            _ => Payload::Binary(bytes),
        };
        Scripted { id, channel, event, media_type, time_ms, payload }
    }

    fn message(&self) -> Message<'_> {
        Message {
            id: self.id,
            channel: &self.channel,
            event: self.event,
            media_type: self.media_type,
            time_ms: self.time_ms,
            payload: self.payload,
        }
    }

    /// The message object says all of it, and nothing else.
    fn is_said_by(&self, object: &Json) {
        let Json::Object(members) = object else { panic!("{object:?}") };
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let mut want = vec!["id", "channel"];
        want.extend(self.event.map(|_| "event"));
        want.extend(self.media_type.map(|_| "type"));
        want.extend(["time", if matches!(self.payload, Payload::Text(_)) { "data" } else { "base64" }]);
        assert_eq!(names, want);
        let text = |name| object.member(name).map(|value| value.as_text().expect("a string"));
        assert_eq!(text("id"), Some(self.id.to_string().as_str()));
        assert_eq!(text("channel"), Some(self.channel.as_str()));
        assert_eq!((text("event"), text("type")), (self.event, self.media_type));
        assert_eq!(object.number("time"), Ok(self.time_ms));
        match self.payload {
            Payload::Text(data) => assert_eq!(text("data"), Some(data)),
            Payload::Binary(bytes) => assert_eq!(base64_decoded(text("base64").unwrap_or("!")).as_deref(), Ok(bytes)),
        }
    }
}

fn cursor(input: &mut Input<'_>) -> Cursor {
    let epoch = Epoch::from_random(input.bits());
    Cursor { epoch, seq: input.bits() >> (1 + input.number(63)) }
}

fn gap(input: &mut Input<'_>) -> Gap {
    let reasons = [GapReason::Evicted, GapReason::Epoch, GapReason::Future, GapReason::Unknown];
    let reason = reasons[input.number(4)];
    let after = String::from_utf8_lossy(input.some()).into_owned();
    Gap { after, through: cursor(input), cursor: cursor(input), reason }
}

fn is_said(gap: &Gap, object: &Json) {
    assert_eq!(object.text("after"), Ok(gap.after.as_str()));
    assert_eq!(object.text("through"), Ok(gap.through.to_string().as_str()));
    assert_eq!(object.text("cursor"), Ok(gap.cursor.to_string().as_str()));
    assert_eq!(object.text("reason"), Ok(gap.reason.as_str()));
}

/// An event stream of heartbeats, a message and a gap fires these two events with these values and
/// nothing else, whatever is in them.
pub fn sse(input: &[u8]) {
    let mut input = Input(input);
    let gap = gap(&mut input);
    let scripted = Scripted::read(&mut input);
    for form in FORMS.into_iter().filter(|form| form.is_sse()) {
        let mut wire = Vec::new();
        form::sse_first(form, 2000, Some(gap.through), &mut wire);
        form::write(form, &scripted.message(), &mut wire);
        form::sse_heartbeat(form, None, &mut wire);
        form::sse_gap(form, &gap, &mut wire);
        form::sse_heartbeat(form, Some(gap.through), &mut wire);
        form::sse_last(form, 3000, &mut wire);

        let items = EventStream::default().receive(&body(form, &wire)).expect("an event stream is UTF-8");
        let [
            SseItem::Retry(2000),
            SseItem::Id(first),
            message,
            SseItem::Comment(comment),
            told,
            SseItem::Id(moved),
            SseItem::Retry(3000),
        ] = &items[..]
        else {
            panic!("{items:?}")
        };
        assert_eq!((first, moved), (&gap.through.to_string(), &gap.through.to_string()));
        assert_eq!(comment, "");
        let SseItem::Event { id, event, data } = message else { panic!("{message:?}") };
        assert_eq!((id, event.as_str()), (&scripted.id.to_string(), scripted.event.unwrap_or("message")));
        match (form, scripted.payload) {
            (Form::SseJsonChunked | Form::SseJsonPlain, _) => scripted.is_said_by(&Json::parse(data).expect("JSON")),
            (_, Payload::Text(text)) => assert_eq!(data.as_bytes(), lines_normalized(text.as_bytes())),
            (_, Payload::Binary(bytes)) => {
                let url = data.strip_prefix("data:").and_then(|url| url.split_once(";base64,"));
                let (media_type, encoded) = url.expect("RFC 2397");
                assert!(media_type.contains('/') && !media_type.contains(['#', ';', ',', ' ']), "{data}");
                assert_eq!(base64_decoded(encoded).as_deref(), Ok(bytes));
            }
        }
        let SseItem::Event { id, event, data } = told else { panic!("{told:?}") };
        assert_eq!((id, event.as_str()), (&gap.cursor.to_string(), "gap"));
        is_said(&gap, &Json::parse(data).expect("JSON"));
    }
}

/// The body of an answer, its chunks joined.
fn body(form: Form, wire: &[u8]) -> Vec<u8> {
    if !form.is_chunked() {
        return wire.to_vec();
    }
    let mut responses = Responses::default();
    responses.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    responses.receive(wire);
    let mut body = Vec::new();
    loop {
        match responses.next_part() {
            Ok(Some(Part::Head(_))) => {}
            Ok(Some(Part::Body(bytes))) => body.extend(bytes),
            Ok(Some(Part::End)) => break,
            end => panic!("{end:?}"),
        }
    }
    assert!(responses.is_between(), "bytes after the last chunk");
    body
}

/// Any text is one line of JSON that says it, and in ASCII where that is asked for.
pub fn json(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for (write_string, is_ascii) in [
        (writer::write_string as fn(&mut Vec<u8>, &str), false),
        (writer::write_string_ascii as fn(&mut Vec<u8>, &str), true),
    ] {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        assert!(out.iter().all(|byte| !byte.is_ascii_control() || *byte == 0x7f));
        assert!(!is_ascii || out.iter().all(|byte| (b' '..=b'~').contains(byte)));
        assert_eq!(parse(&out), Json::Text(text.clone().into_owned()));
    }

    let mut input = Input(input);
    let gap = gap(&mut input);
    for write_gap in [writer::write_gap as fn(&mut Vec<u8>, &Gap), writer::write_gap_ascii] {
        let mut out = Vec::new();
        write_gap(&mut out, &gap);
        is_said(&gap, &parse(&out));
    }
    let code = Code::ALL[input.number(Code::ALL.len())];
    let mut out = Vec::new();
    writer::write_error(&mut out, code, &text, Some(gap.cursor));
    let answer = parse(&out);
    let error = answer.member("error").expect("an error");
    assert_eq!(error.number("status"), Ok(code.status().into()));
    assert_eq!((error.text("code"), error.text("message")), (Ok(code.name()), Ok(&*text)));
    assert_eq!(error.text("cursor"), Ok(gap.cursor.to_string().as_str()));

    let scripted = Scripted::read(&mut input);
    let mut out = Vec::new();
    writer::write_message(&mut out, &scripted.message());
    scripted.is_said_by(&parse(&out));
    let mut out = Vec::new();
    writer::write_published(&mut out, scripted.id, &scripted.channel, 7);
    let published = parse(&out);
    assert_eq!(published.text("id"), Ok(scripted.id.to_string().as_str()));
    assert_eq!(published.text("channel"), Ok(scripted.channel.as_str()));
    assert_eq!(published.number("subscribers"), Ok(7));
}

fn parse(json: &[u8]) -> Json {
    Json::parse(std::str::from_utf8(json).expect("JSON is UTF-8")).expect("JSON")
}

/// The same form of the same message is the same bytes, wherever they are appended; frames and
/// poll bodies say the message; a poll keeps to its bound and its cursor says how far it came.
pub fn form(input: &[u8]) {
    let mut input = Input(input);
    let (gap, bytes_max) = (gap(&mut input), input.bits() as usize % 1000);
    let before = input.some();
    let scripted = Scripted::read(&mut input);
    let message = scripted.message();
    for form in FORMS {
        let mut alone = Vec::new();
        form::write(form, &message, &mut alone);
        let mut appended = before.to_vec();
        form::write(form, &message, &mut appended);
        assert_eq!(appended, [before, &alone].concat(), "{form:?}");
        match form {
            Form::WsJson => {
                let Frame::Text(text) = frame(&alone) else { panic!("{alone:?}") };
                scripted.is_said_by(&Json::parse(&text).expect("JSON"));
            }
            Form::WsRaw => match scripted.payload {
                Payload::Text(text) => assert_eq!(frame(&alone), Frame::Text(text.to_owned())),
                Payload::Binary(bytes) => assert_eq!(frame(&alone), Frame::Binary(bytes.to_vec())),
            },
            Form::Poll => scripted.is_said_by(&parse(&alone)),
            _ => {}
        }
    }
    let window = Window::ALL[before.len() % Window::ALL.len()];
    let mut deflater = Deflater::default();
    compressed(Form::WsJson, Form::WsJsonDeflate(window), window, &message, &mut deflater);
    compressed(Form::WsRaw, Form::WsRawDeflate(window), window, &message, &mut deflater);

    let mut object = Vec::new();
    form::write(Form::Poll, &message, &mut object);
    let mut out = before.to_vec();
    let (cursor, count) =
        form::poll_body(gap.through, Some(&gap), std::iter::repeat_n(message, 3), bytes_max, &mut out);
    let body = parse(&out[before.len()..]);
    let messages = body.member("messages").expect("messages").list().expect("a list");
    assert_eq!([messages.len(), count], [(bytes_max / object.len()).clamp(1, 3); 2]);
    messages.iter().for_each(|message| scripted.is_said_by(message));
    assert_eq!(cursor, if messages.len() == 3 { gap.through } else { scripted.id });
    assert_eq!(body.text("cursor"), Ok(cursor.to_string().as_str()));
    is_said(&gap, body.member("gap").expect("a gap"));

    let mut first = Vec::new();
    form::ws_first(Some(gap.cursor), Duration::from_millis(gap.through.seq >> 8), &mut first);
    let Frame::Text(first) = frame(&first) else { panic!("{first:?}") };
    assert_eq!(Json::parse(&first).expect("JSON").text("cursor"), Ok(gap.cursor.to_string().as_str()));
}

/// A form that may be compressed says what the plain one says, compressed or not.
fn compressed(plain: Form, form: Form, window: Window, message: &Message<'_>, deflater: &mut Deflater) {
    let (mut want, mut alone, mut payload, mut deflated) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    form::write(plain, message, &mut want);
    form::write(form, message, &mut alone);
    assert_eq!((form.plain(), form.window(), &alone), (plain, Some(window), &want));
    form::ws_payload(form, message, &mut payload);
    if window.holds(payload.len()) && deflater.deflate(&payload, &mut deflated) {
        let mut out = b"before".to_vec();
        form::ws_compressed(form, message, &deflated, &mut out);
        assert!(out.len() < 6 + want.len());
        assert_eq!(frame_of(Frames::agreed(1 << window as u8), &out[6..]), frame(&want));
    }
}

fn frame(wire: &[u8]) -> Frame {
    frame_of(Frames::default(), wire)
}

fn frame_of(mut frames: Frames, wire: &[u8]) -> Frame {
    frames.receive(wire);
    let frame = frames.next_frame().expect("a frame by the standard").expect("a whole frame");
    assert_eq!(frames.next_frame(), Ok(None), "one frame");
    frame
}
