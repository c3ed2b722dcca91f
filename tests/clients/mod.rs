//! Clients as byte parsers, written from `docs/protocol.md` and the standards alone: they share
//! no code with the server, so that no mistake can agree with itself.
//!
//! `Reader` turns the bytes of one response, of any transport, into what the client heard
//! (`Heard`). Everything is strict: a byte that the standard does not allow is an error.
//! Standards: RFC 9112 (HTTP/1.1), WHATWG HTML 9.2 (event streams), RFC 6455, RFC 8259.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

pub mod deflate;
pub mod json;

use json::Json;

/// What went wrong, for the person who reads the failing test.
pub type Result<T> = std::result::Result<T, String>;

// Requests.

/// A POST of this body. `extra` is header lines, each with its CRLF.
pub fn post(channel: &str, query: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST /channels/{channel}{query} HTTP/1.1\r\nHost: localhost\r\n{extra}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A GET of a set. `extra` is header lines, each with its CRLF.
pub fn get(set: &str, query: &str, extra: &str) -> Vec<u8> {
    format!("GET /channels/{set}{query} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n").into_bytes()
}

/// A WebSocket handshake, with the key of RFC 6455 1.3.
pub fn upgrade(set: &str, query: &str, protocol: Option<&str>) -> Vec<u8> {
    upgrade_with(set, query, protocol, None)
}

/// The same with an offer of permessage-deflate, if there is one.
pub fn upgrade_with(set: &str, query: &str, protocol: Option<&str>, offer: Option<Offer>) -> Vec<u8> {
    let offer = offer.map_or(String::new(), |offer| format!("Sec-WebSocket-Extensions: {}\r\n", offer.text()));
    let protocol = protocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    let lines = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}{offer}"
    );
    get(set, query, &lines)
}

/// An offer of permessage-deflate, RFC 7692 7.1.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// `server_max_window_bits`, if it is asked for.
    pub window_bits: Option<u32>,
}

impl Offer {
    fn text(self) -> String {
        let asked = self.window_bits.map_or(String::new(), |bits| format!("; server_max_window_bits={bits}"));
        format!("permessage-deflate; client_max_window_bits{asked}")
    }

    /// What a server that agrees answers: no window outlives a message.
    fn answer(self) -> String {
        let asked = self.window_bits.map_or(String::new(), |bits| format!("; server_max_window_bits={bits}"));
        format!("permessage-deflate; server_no_context_takeover; client_no_context_takeover{asked}")
    }

    /// Bytes that the server may refer back.
    fn window(self) -> usize {
        1 << self.window_bits.unwrap_or(15)
    }
}

/// The answer to that key (RFC 6455 1.3).
const SAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

// HTTP responses.

/// A response head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header that may come once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "the header {name} comes twice");
        value
    }
}

/// A piece of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Head(Head),
    Body(Vec<u8>),
    End,
}

/// Parses the responses of one connection, however many, in whatever pieces they come.
#[derive(Debug, Default)]
pub struct Responses {
    bytes: Vec<u8>,
    body: Body,
}

#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum Body {
    #[default]
    Head,
    Length(usize),
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    UntilClose,
    /// After 101 the bytes are no longer HTTP.
    Switched,
}

impl Responses {
    pub fn receive(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Said after a head, by a client that does not know what was asked: if another response follows
    /// at once, the head answered HEAD, and no body belongs to it (RFC 9112 6.3, rule 1).
    pub fn another_follows(&mut self) {
        if self.bytes.starts_with(b"HTTP/1.1 ") {
            self.body = Body::Length(0);
        }
    }

    /// The next piece; `None`: more bytes are needed.
    pub fn next_part(&mut self) -> Result<Option<Part>> {
        loop {
            match self.body {
                Body::Head => {
                    let Some(end) = find(&self.bytes, b"\r\n\r\n") else { return Ok(None) };
                    let head = parse_head(&self.bytes[..end + 2])?;
                    self.bytes.drain(..end + 4);
                    self.body = body_of(&head)?;
                    return Ok(Some(Part::Head(head)));
                }
                Body::Length(0) => {
                    self.body = Body::Head;
                    return Ok(Some(Part::End));
                }
                Body::Length(left) if !self.bytes.is_empty() => {
                    let taken = left.min(self.bytes.len());
                    self.body = Body::Length(left - taken);
                    return Ok(Some(Part::Body(self.bytes.drain(..taken).collect())));
                }
                Body::ChunkSize => {
                    let Some(end) = find(&self.bytes, b"\r\n") else { return Ok(None) };
                    let text = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
                    let size = usize::from_str_radix(&text, 16).map_err(|_| format!("the chunk size {text:?}"))?;
                    if size == 0 {
                        if self.bytes.len() < end + 4 {
                            return Ok(None);
                        }
                        if &self.bytes[end + 2..end + 4] != b"\r\n" {
                            return Err("trailers, or something else after the last chunk".into());
                        }
                        self.bytes.drain(..end + 4);
                        self.body = Body::Head;
                        return Ok(Some(Part::End));
                    }
                    self.bytes.drain(..end + 2);
                    self.body = Body::Chunk(size);
                }
                Body::Chunk(0) => self.body = Body::ChunkEnd,
                Body::Chunk(left) if !self.bytes.is_empty() => {
                    let taken = left.min(self.bytes.len());
                    self.body = Body::Chunk(left - taken);
                    return Ok(Some(Part::Body(self.bytes.drain(..taken).collect())));
                }
                Body::ChunkEnd if self.bytes.len() >= 2 => {
                    if !self.bytes.starts_with(b"\r\n") {
                        return Err("a chunk is longer than its size".into());
                    }
                    self.bytes.drain(..2);
                    self.body = Body::ChunkSize;
                }
                Body::UntilClose | Body::Switched if !self.bytes.is_empty() => {
                    return Ok(Some(Part::Body(std::mem::take(&mut self.bytes))));
                }
                Body::Length(_) | Body::Chunk(_) | Body::ChunkEnd | Body::UntilClose | Body::Switched => {
                    return Ok(None);
                }
            }
        }
    }

    /// True between two responses.
    pub fn is_between(&self) -> bool {
        self.body == Body::Head && self.bytes.is_empty()
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(bytes).map_err(|_| "a head that is no UTF-8".to_string())?;
    let mut lines = text.strip_suffix("\r\n").ok_or("a head without an end")?.split("\r\n");
    let status_line = lines.next().ok_or("a head without a status line")?;
    let status = Some(status_line)
        .filter(|line| line.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| format!("the status line {status_line:?}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("the header line {line:?}"))?;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) || value.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err(format!("the header line {line:?}"));
        }
        headers.push((name.to_string(), value.to_string()));
    }
    Ok(Head { status, headers })
}

/// RFC 9112 6.3.
fn body_of(head: &Head) -> Result<Body> {
    let length = head.header("Content-Length");
    let coding = head.header("Transfer-Encoding");
    Ok(match (head.status, coding, length) {
        (101, None, None) => Body::Switched,
        (100..=199 | 204 | 304, None, None) => Body::Length(0),
        (100..=199 | 204, ..) => return Err(format!("a {} with a body", head.status)),
        (_, Some("chunked"), None) => Body::ChunkSize,
        (_, None, Some(length)) => Body::Length(length.parse().map_err(|_| format!("the length {length:?}"))?),
        (_, None, None) => Body::UntilClose,
        _ => return Err("a length and a coding, or another coding".into()),
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

// Event streams.

/// What an event stream says. WHATWG HTML 9.2.6 fires only `Event`; the others are there for the test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SseItem {
    /// `id` is the last event id at that moment.
    Event {
        id: String,
        event: String,
        data: String,
    },
    /// A block that fired nothing but moved the last event id.
    Id(String),
    Retry(u64),
    Comment(String),
}

/// An event stream parser, line by line as WHATWG HTML 9.2.5 and 9.2.6 say.
#[derive(Debug, Default)]
pub struct EventStream {
    line: Vec<u8>,
    after_cr: bool,
    started: bool,
    event: String,
    data: String,
    id: String,
    id_in_block: bool,
}

impl EventStream {
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<SseItem>> {
        let mut items = Vec::new();
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            let after_cr = std::mem::replace(&mut self.after_cr, first == b'\r');
            match first {
                b'\n' if after_cr => rest = &rest[1..],
                b'\n' | b'\r' => {
                    rest = &rest[1..];
                    let line = std::mem::take(&mut self.line);
                    // The standard replaces what is no UTF-8; a server has no reason to send it.
                    let line = String::from_utf8(line).map_err(|_| "a line that is no UTF-8")?;
                    self.line_ends(line, &mut items);
                }
                _ => {
                    let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                    let (within, behind) = rest.split_at(end.unwrap_or(rest.len()));
                    self.line.extend_from_slice(within);
                    rest = behind;
                }
            }
        }
        Ok(items)
    }

    fn line_ends(&mut self, line: String, items: &mut Vec<SseItem>) {
        let line = match line.strip_prefix('\u{feff}') {
            Some(rest) if !self.started => rest.to_string(),
            _ => line,
        };
        self.started = true;
        if line.is_empty() {
            return self.dispatch(items);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => items.push(SseItem::Comment(value.to_string())),
            "event" => self.event = value.to_string(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => {
                self.id = value.to_string();
                self.id_in_block = true;
            }
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                items.push(SseItem::Retry(value.parse().unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, items: &mut Vec<SseItem>) {
        let id_in_block = std::mem::take(&mut self.id_in_block);
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        if data.is_empty() {
            if id_in_block {
                items.push(SseItem::Id(self.id.clone()));
            }
            return;
        }
        data.pop();
        let event = if event.is_empty() { "message".to_string() } else { event };
        items.push(SseItem::Event { id: self.id.clone(), event, data });
    }
}

// WebSocket.

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// Parses a server's frames; it need not fragment, and this parser holds it to that.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// A close frame has come: it is the last.
    closed: bool,
    /// Messages may be compressed, with this window.
    window: Option<usize>,
    /// How many of them were.
    pub inflated: u64,
}

impl Frames {
    /// Frames of a server that agreed to permessage-deflate with this window.
    pub fn agreed(window: usize) -> Frames {
        Frames { window: Some(window), ..Frames::default() }
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        // RFC 6455 5.5.1: "The application MUST NOT send any more data frames after sending a Close frame."
        if self.closed && !self.bytes.is_empty() {
            return Err(format!("{:02x?} behind a close frame", self.bytes));
        }
        let [first, second, ..] = self.bytes[..] else { return Ok(None) };
        // RFC 7692 6: RSV1 on the first frame of a message, never of a control frame.
        let compressed = self.window.filter(|_| first & 0xf0 == 0xc0 && first & 0x0f < 8);
        if first & 0xf0 != 0x80 && compressed.is_none() {
            return Err(format!("a first byte of {first:#04x}: not final, or a reserved bit"));
        }
        if second & 0x80 != 0 {
            return Err("a masked frame from a server (RFC 6455 5.1)".into());
        }
        let (head, length) = match second {
            126 => {
                let Some(bytes) = self.bytes.get(2..4) else { return Ok(None) };
                (4, bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
            }
            127 => {
                let Some(bytes) = self.bytes.get(2..10) else { return Ok(None) };
                (10, bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
            }
            short => (2, u64::from(short)),
        };
        // RFC 6455 5.2: "the minimal number of bytes MUST be used to encode the length".
        let least = match head {
            2 => 0,
            4 => 126,
            _ => 65536,
        };
        if length < least {
            return Err(format!("the length {length} in a longer form than needed"));
        }
        let end = head + length as usize;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let mut payload: Vec<u8> = self.bytes.drain(..end).skip(head).collect();
        if let Some(window) = compressed {
            payload = deflate::inflate(&payload, window)?;
            self.inflated += 1;
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| "text that is no UTF-8".to_string());
        let opcode = first & 0x0f;
        self.closed = opcode == CLOSE;
        if opcode >= 8 && length > 125 {
            return Err("a control frame of more than 125 bytes".into());
        }
        Ok(Some(match opcode {
            1 => Frame::Text(text(&payload)?),
            2 => Frame::Binary(payload),
            8 => match payload[..] {
                [] => Frame::Close(None, String::new()),
                [high, low, ref reason @ ..] => Frame::Close(Some(u16::from_be_bytes([high, low])), text(reason)?),
                [_] => return Err("a close frame of one byte".into()),
            },
            9 => Frame::Ping(payload),
            10 => Frame::Pong(payload),
            other => return Err(format!("the opcode {other}")),
        }))
    }
}

/// Opcodes of the frames a client sends.
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PONG: u8 = 10;

/// The first byte of a compressed message, beside its opcode.
pub const COMPRESSED: u8 = 0x40;

/// One unfragmented frame, masked.
pub fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A close frame, masked.
pub fn close_frame(code: u16) -> Vec<u8> {
    client_frame(CLOSE, &code.to_be_bytes())
}

// What a subscriber hears, whatever the transport.

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    Poll,
    Sse,
    WebSocket,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Raw,
}

/// A place in the log, as its text.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub epoch: u32,
    pub seq: u64,
}

impl Place {
    /// `<epoch>-<seq>`: no sign, no leading zero.
    pub fn parse(text: &str) -> Result<Place> {
        let place = text
            .split_once('-')
            .and_then(|(epoch, seq)| Some(Place { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? }));
        place.filter(|place| place.to_string() == text).ok_or_else(|| format!("{text:?} is no cursor"))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// A message as far as its form shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub id: Option<Place>,
    /// `None`: this form does not say.
    pub channel: Option<String>,
    /// `Some(None)`: said, and none was given.
    pub event: Option<Option<String>>,
    pub media_type: Option<Option<String>>,
    pub time_ms: Option<u64>,
    pub payload: Vec<u8>,
    /// The form replaced each line end by LF.
    pub lines_normalized: bool,
}

impl Default for Place {
    fn default() -> Place {
        Place { epoch: 1, seq: 0 }
    }
}

/// A gap as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub after: String,
    pub through: Place,
    pub cursor: Place,
    pub reason: String,
}

/// One thing a subscriber heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The stream stands here: nothing of the set is between what came before and this.
    Cursor(Place),
    Message(Message),
    Gap(Gap),
    Subscribed {
        channels: Vec<String>,
        cursor: Place,
    },
    Published {
        id: Place,
        channel: String,
        reference: Option<String>,
    },
    CommandFailed {
        code: String,
        reference: Option<String>,
    },
    /// A refusal: the status and `error.code`.
    Refused(u16, String),
    /// The peer wants this pong.
    Ping(Vec<u8>),
    /// A comment, a first block without a cursor: it shows only that the server lives.
    Alive,
    /// A poll is answered; a stream ended as it should; a WebSocket was closed with this code.
    Done(Option<u16>),
}

/// Reads one response of a subscription.
#[derive(Debug)]
pub struct Reader {
    transport: Transport,
    format: Format,
    responses: Responses,
    head: Option<Head>,
    body: Vec<u8>,
    events: EventStream,
    frames: Frames,
    offer: Option<Offer>,
}

impl Reader {
    pub fn new(transport: Transport, format: Format) -> Reader {
        Reader {
            transport,
            format,
            responses: Responses::default(),
            head: None,
            body: Vec::new(),
            events: EventStream::default(),
            frames: Frames::default(),
            offer: None,
        }
    }

    /// The request has offered this.
    pub fn offering(self, offer: Option<Offer>) -> Reader {
        Reader { offer, ..self }
    }

    /// True if the server agreed to permessage-deflate.
    pub fn may_compress(&self) -> bool {
        self.frames.window.is_some()
    }

    /// How many messages came compressed.
    pub fn inflated(&self) -> u64 {
        self.frames.inflated
    }

    /// The head of the response now being read.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// True if a cut here loses no bytes of a message.
    pub fn is_at_boundary(&self) -> bool {
        self.responses.is_between() && self.frames.bytes.is_empty()
    }

    /// What these bytes say. A poll's answer counts when it is whole.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Heard>> {
        self.responses.receive(bytes);
        let mut heard = Vec::new();
        while let Some(part) = self.responses.next_part()? {
            match part {
                Part::Head(head) => self.starts(head)?,
                Part::Body(bytes) => match (self.status(), self.transport) {
                    (101, _) => {
                        self.frames.receive(&bytes);
                        while let Some(frame) = self.frames.next_frame()? {
                            heard.push(self.frame(frame)?);
                        }
                    }
                    (200, Transport::Sse) => {
                        for item in self.events.receive(&bytes)? {
                            heard.push(self.item(item)?);
                        }
                    }
                    _ => self.body.extend_from_slice(&bytes),
                },
                Part::End => self.answered(&mut heard)?,
            }
        }
        Ok(heard)
    }

    fn status(&self) -> u16 {
        self.head.as_ref().map_or(0, |head| head.status)
    }

    fn starts(&mut self, head: Head) -> Result<()> {
        let expect = |name: &str, value: &str| match head.header(name) {
            Some(found) if found.eq_ignore_ascii_case(value) => Ok(()),
            found => Err(format!("{name} is {found:?}, and should be {value:?}")),
        };
        if head.header("Date").is_none() {
            return Err("an answer without a date".into());
        }
        match (self.transport, head.status) {
            (Transport::WebSocket, 101) => {
                expect("Upgrade", "websocket")?;
                expect("Connection", "upgrade")?;
                expect("Sec-WebSocket-Accept", SAMPLE_ACCEPT)?;
                if let Some(answer) = head.header("Sec-WebSocket-Extensions") {
                    let offer = self.offer.filter(|offer| offer.answer() == answer);
                    self.frames.window = Some(offer.ok_or(format!("{answer} was not offered"))?.window());
                }
            }
            (Transport::Sse, 200) => {
                expect("Content-Type", "text/event-stream")?;
                expect("Cache-Control", "no-store, no-transform")?;
                expect("X-Accel-Buffering", "no")?;
                expect("X-Content-Type-Options", "nosniff")?;
            }
            _ => {
                expect("Cache-Control", "no-store")?;
                expect("X-Content-Type-Options", "nosniff")?;
            }
        }
        self.head = Some(head);
        Ok(())
    }

    fn frame(&self, frame: Frame) -> Result<Heard> {
        Ok(match frame {
            Frame::Ping(payload) => Heard::Ping(payload),
            Frame::Pong(_) => Heard::Alive,
            Frame::Close(code, _) => Heard::Done(code),
            Frame::Text(text) if self.format == Format::Raw => payload_only(text.into_bytes()),
            Frame::Binary(bytes) if self.format == Format::Raw => payload_only(bytes),
            Frame::Binary(_) => return Err("a binary frame among JSON".into()),
            Frame::Text(text) => {
                let json = Json::parse(&text)?;
                let reference = json.text("ref").ok().map(str::to_string);
                if let Some(gap) = json.member("gap") {
                    Heard::Gap(gap_of(gap)?)
                } else if let Some(published) = json.member("published") {
                    let (id, channel) = (Place::parse(published.text("id")?)?, published.text("channel")?.to_string());
                    published.number("subscribers")?;
                    Heard::Published { id, channel, reference }
                } else if let Some(error) = json.member("error") {
                    Heard::CommandFailed { code: error.text("code")?.to_string(), reference }
                } else if let Some(list) = json.member("subscribed") {
                    let channels = list.list()?.iter().map(|name| name.as_text().map(str::to_string));
                    let cursor = Place::parse(json.text("cursor")?)?;
                    Heard::Subscribed { channels: channels.collect::<Result<_>>()?, cursor }
                } else if json.member("id").is_some() {
                    Heard::Message(message_of(&json)?)
                } else if json.member("cursor").is_some() {
                    Heard::Cursor(Place::parse(json.text("cursor")?)?)
                } else if json.member("heartbeat").is_some() {
                    Heard::Alive
                } else {
                    return Err(format!("a frame of unknown meaning: {text}"));
                }
            }
        })
    }

    fn item(&self, item: SseItem) -> Result<Heard> {
        Ok(match item {
            SseItem::Retry(_) | SseItem::Comment(_) => Heard::Alive,
            SseItem::Id(id) => Heard::Cursor(Place::parse(&id)?),
            SseItem::Event { id, event, data } if event == "gap" => {
                let gap = gap_of(&Json::parse(&data)?)?;
                if id != gap.cursor.to_string() {
                    return Err(format!("a gap with the id {id} and the cursor {}", gap.cursor));
                }
                Heard::Gap(gap)
            }
            SseItem::Event { id, event, data } => {
                let id = Place::parse(&id)?;
                let mut message = match self.format {
                    Format::Json => message_of(&Json::parse(&data)?)?,
                    Format::Raw => raw_event(data)?,
                };
                let event = Some(event).filter(|event| event != "message");
                if message.id.replace(id).is_some_and(|inner| inner != id) {
                    return Err(format!("an event with the id {id} and another inside"));
                }
                if message.event.replace(event.clone()).is_some_and(|inner| inner != event) {
                    return Err(format!("an event named {event:?} and another name inside"));
                }
                Heard::Message(message)
            }
        })
    }

    fn answered(&mut self, heard: &mut Vec<Heard>) -> Result<()> {
        let head = self.head.take().ok_or("an end without a head")?;
        let body = std::mem::take(&mut self.body);
        let stream = self.transport == Transport::Sse;
        match head.status {
            200 if stream => {}
            200 if self.format == Format::Json => poll_answer(&head, &body, heard)?,
            200 | 204 if self.transport == Transport::Poll => raw_poll_answer(&head, body, heard)?,
            status => heard.push(refusal(status, &body)?),
        }
        heard.push(Heard::Done(None));
        Ok(())
    }
}

/// The status and code of an error answer.
pub fn refusal(status: u16, body: &[u8]) -> Result<Heard> {
    let json = Json::parse(std::str::from_utf8(body).map_err(|_| "an error that is no UTF-8")?)?;
    let error = json.member("error").ok_or("an error without `error`")?;
    if error.number("status")? != u64::from(status) || error.text("message")?.is_empty() {
        return Err(format!("an error whose body does not fit its status {status}"));
    }
    Ok(Heard::Refused(status, error.text("code")?.to_string()))
}

fn payload_only(payload: Vec<u8>) -> Heard {
    Heard::Message(Message { payload, ..Message::default() })
}

fn poll_answer(head: &Head, body: &[u8], heard: &mut Vec<Heard>) -> Result<()> {
    let json = Json::parse(std::str::from_utf8(body).map_err(|_| "an answer that is no UTF-8")?)?;
    if let Some(gap) = json.member("gap") {
        heard.push(Heard::Gap(gap_of(gap)?));
    }
    for message in json.member("messages").ok_or("an answer without `messages`")?.list()? {
        heard.push(Heard::Message(message_of(message)?));
    }
    let cursor = json.text("cursor")?;
    if head.header("Tidings-Cursor") != Some(cursor) {
        return Err(format!("the header Tidings-Cursor is not {cursor}"));
    }
    heard.push(Heard::Cursor(Place::parse(cursor)?));
    Ok(())
}

fn raw_poll_answer(head: &Head, body: Vec<u8>, heard: &mut Vec<Heard>) -> Result<()> {
    if let Some(gap) = head.header("Tidings-Gap") {
        heard.push(Heard::Gap(gap_of(&Json::parse(gap)?)?));
    }
    if let Some(id) = head.header("Tidings-Id") {
        if head.header("Content-Security-Policy") != Some("sandbox; default-src 'none'") {
            return Err("a raw answer that may run script".into());
        }
        heard.push(Heard::Message(Message {
            id: Some(Place::parse(id)?),
            channel: Some(head.header("Tidings-Channel").ok_or("no Tidings-Channel")?.to_string()),
            event: Some(head.header("Tidings-Event").map(percent_decoded)),
            payload: body,
            ..Message::default()
        }));
    } else if !body.is_empty() {
        return Err("a payload without an id".into());
    }
    heard.push(Heard::Cursor(Place::parse(head.header("Tidings-Cursor").ok_or("no Tidings-Cursor")?)?));
    Ok(())
}

fn gap_of(json: &Json) -> Result<Gap> {
    Ok(Gap {
        after: json.text("after")?.to_string(),
        through: Place::parse(json.text("through")?)?,
        cursor: Place::parse(json.text("cursor")?)?,
        reason: json.text("reason")?.to_string(),
    })
}

fn message_of(json: &Json) -> Result<Message> {
    let optional = |name: &str| json.member(name).map(|value| value.as_text().map(str::to_string)).transpose();
    let payload = match (json.member("data"), json.member("base64")) {
        (Some(data), None) => data.as_text()?.as_bytes().to_vec(),
        (None, Some(base64)) => base64_decoded(base64.as_text()?)?,
        _ => return Err("a message with both or neither of data and base64".into()),
    };
    Ok(Message {
        id: Some(Place::parse(json.text("id")?)?),
        channel: Some(json.text("channel")?.to_string()),
        event: Some(optional("event")?),
        media_type: Some(optional("type")?),
        time_ms: Some(json.number("time")?),
        payload,
        lines_normalized: false,
    })
}

/// Raw SSE: the text itself, or binary as one data URL. Text that begins like one is told apart by
/// nothing in the form; the tests send none.
fn raw_event(data: String) -> Result<Message> {
    let url = data.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    Ok(match url {
        Some((_, encoded)) => Message { payload: base64_decoded(encoded)?, ..Message::default() },
        None => Message { payload: data.into_bytes(), lines_normalized: true, ..Message::default() },
    })
}

/// Every line end as LF, as `data:` lines carry it.
pub fn lines_normalized(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len());
    for (at, &byte) in payload.iter().enumerate() {
        match byte {
            b'\n' if at > 0 && payload[at - 1] == b'\r' => {}
            b'\r' => out.push(b'\n'),
            _ => out.push(byte),
        }
    }
    out
}

/// RFC 4648 4, with padding.
pub fn base64_decoded(text: &str) -> Result<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if !text.len().is_multiple_of(4) {
        return Err("base64 of no multiple of four".into());
    }
    let mut out = Vec::new();
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 {
        return Err("base64 with three paddings".into());
    }
    let (mut bits, mut count) = (0u32, 0);
    for byte in digits.bytes() {
        let value = ALPHABET.iter().position(|&letter| letter == byte).ok_or("a byte that is no base64")?;
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Ok(out)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        match code.and_then(|code| u8::from_str_radix(&String::from_utf8_lossy(code), 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
