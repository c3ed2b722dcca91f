//! WebSocket: the handshake, frames and messages in, frames out, compressed or not.

use tidings::internals::Spares;
use tidings::internals::http::{NO_HEADERS, RequestHead, decode_head, head_end};
use tidings::internals::websocket::{
    CloseCode, Decoder, Deflater, Error, Handshake, Inflater, Limits, Opcode, Received, Window, accept_handshake,
    encode_close, encode_compressed_frame, encode_frame, write_handshake_answer,
};

use super::clients::{self, Frame, Frames};
use super::{Input, in_every_way};

/// The one line to change if the handshake takes more than a head.
fn accept(head: &RequestHead<'_>) -> Option<Handshake> {
    accept_handshake(head).ok()
}

/// The input is header lines. What is accepted was asked for, and what is answered was offered.
pub fn handshake(input: &[u8]) {
    let bytes = [b"GET /channels/a HTTP/1.1\r\nHost: a\r\n", input, b"\r\n\r\n"].concat();
    if head_end(&bytes, &mut 0, usize::MAX) != Ok(Some(bytes.len())) {
        return;
    }
    let mut scratch = NO_HEADERS;
    let Ok(head) = decode_head(&bytes, &mut scratch) else { return };
    let Some(handshake) = accept(&head) else { return };
    assert_eq!(accept(&head).as_ref(), Some(&handshake), "the same head is answered the same");

    assert_eq!(head.headers("sec-websocket-version").collect::<Vec<_>>(), [b"13"]);
    assert_eq!(head.headers("sec-websocket-key").count(), 1);
    assert_eq!(head.header("sec-websocket-key").map(<[u8]>::len), Some(24));
    let offers = |name: &str| -> Vec<String> {
        let lines = head.headers(name).map(|line| String::from_utf8_lossy(line).into_owned());
        lines.flat_map(|line| line.split(',').map(|offer| offer.trim().to_owned()).collect::<Vec<_>>()).collect()
    };
    if let Some(bearer) = &handshake.bearer {
        assert!(offers("sec-websocket-protocol").contains(&format!("tidings.bearer.{bearer}")));
        assert!(bearer.len() < 8 || !format!("{handshake:?}").contains(bearer.as_str()), "a token is not shown");
    }

    let mut answer = Vec::new();
    write_handshake_answer(&mut answer, &handshake);
    let answer = String::from_utf8(answer).expect("the answer is ASCII");
    let lines: Vec<(&str, &str)> = answer
        .strip_suffix("\r\n")
        .expect("whole lines")
        .split("\r\n")
        .map(|line| line.split_once(": ").expect("a name and a value"))
        .collect();
    assert!(answer.bytes().all(|byte| byte.is_ascii_graphic() || b" \r\n".contains(&byte)));
    assert_eq!(lines[..2], [("Upgrade", "websocket"), ("Connection", "Upgrade")]);
    let mut agreed = None;
    for (name, value) in &lines[2..] {
        match *name {
            "Sec-WebSocket-Accept" => assert!(value.len() == 28 && value.ends_with('=')),
            "Sec-WebSocket-Protocol" => {
                assert!(["tidings.v1", "tidings.raw"].contains(value));
                assert!(offers("sec-websocket-protocol").iter().any(|offer| offer == value));
            }
            "Sec-WebSocket-Extensions" => agreed = Some((*value).to_owned()),
            _ => panic!("{name}: {value}"),
        }
    }
    let negotiated = negotiate(head.headers("sec-websocket-extensions"));
    assert_eq!(Ok(agreed), negotiated.map(|answer| answer.filter(|_| has_deflate())));
}

/// Without the feature `deflate` nothing is ever compressed, nor agreed.
pub fn has_deflate() -> bool {
    Inflater::default().inflate(b"", 0).is_ok()
}

/// What RFC 7692 7.1 makes of these offers: the value of the answer, none, or a header that is to be
/// refused (RFC 6455 9.1). All by splitting, where the server reads from front to back.
fn negotiate<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<String>, ()> {
    let mut answers = Vec::new();
    for line in lines {
        for offer in split(line, b',').into_iter().filter(|offer| !offer.is_empty()) {
            let mut parts = split(offer, b';').into_iter();
            let name = token(parts.next().unwrap_or_default())?;
            let mut parameters = Vec::new();
            for part in parts {
                parameters.push(match part.iter().position(|&byte| byte == b'=') {
                    Some(at) => (token(part[..at].trim_ascii())?, Some(value(part[at + 1..].trim_ascii())?)),
                    None => (token(part)?, None),
                });
            }
            answers.extend(answer(&name, &parameters));
        }
    }
    Ok(answers.into_iter().next())
}

/// The answer to one offer, if it can be met.
fn answer(name: &str, parameters: &[(String, Option<String>)]) -> Option<String> {
    const BITS: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];
    let mut names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let are_met = parameters.iter().all(|(name, value)| match (name.as_str(), value.as_deref()) {
        ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => true,
        ("client_max_window_bits", Some(bits)) => BITS.contains(&bits),
        // 8 is declined: few peers can have it.
        ("server_max_window_bits", Some(bits)) => BITS[1..].contains(&bits),
        _ => false,
    });
    if name != "permessage-deflate" || names.len() < parameters.len() || !are_met {
        return None;
    }
    let mut answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
    if let Some((name, Some(bits))) = parameters.iter().find(|(name, _)| name == "server_max_window_bits") {
        answer += &format!("; {name}={bits}");
    }
    Some(answer)
}

/// The parts between these separators outside of quotes, without the space around them.
fn split(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|&byte| {
        let is_escape = quoted && !escaped && byte == b'\\';
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = is_escape;
        byte == separator && !quoted
    });
    parts.map(<[u8]>::trim_ascii).collect()
}

/// RFC 9110 5.6.2.
fn token(text: &[u8]) -> Result<String, ()> {
    let is_token = text.iter().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte));
    if is_token && !text.is_empty() { Ok(text.iter().map(|&byte| char::from(byte)).collect()) } else { Err(()) }
}

/// A token, or one in quotes.
fn value(text: &[u8]) -> Result<String, ()> {
    let Some(text) = text.strip_prefix(b"\"") else { return token(text) };
    let mut rest = text.strip_suffix(b"\"").ok_or(())?;
    let mut plain = Vec::new();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        if *byte == b'\\' {
            let [escaped, behind @ ..] = rest else { return Err(()) };
            plain.push(*escaped);
            rest = behind;
        } else {
            plain.push(*byte);
        }
    }
    token(&plain)
}

const LIMITS: Limits = Limits { message_bytes_max: 300, fragments_max: 6 };
/// A compressed message may come a sixteenth longer, and 16 bytes.
const COMPRESSED_BYTES_MAX: usize = 334;

/// Everything received, as it prints, and the error that ended it.
type Outcome = (Vec<String>, Option<Error>);

/// The same messages however the bytes come; memory follows them; never more than 130 bytes wait.
pub fn message(input: &[u8]) {
    in_every_way(input, |pieces| decode(pieces, false));
    in_every_way(input, |pieces| decode(pieces, has_deflate()));
}

/// Decodes with one decoder, and with a new one whenever it is idle: both say the same.
fn decode(pieces: &[&[u8]], agreed: bool) -> Outcome {
    let kept = decode_with(pieces, agreed, |_| {});
    assert_eq!(decode_with(pieces, agreed, |decoder| *decoder = Decoder::default()), kept);
    kept
}

/// Decodes as a connection does: what is not consumed stays in front of the next piece, and
/// nothing follows a close.
fn decode_with(pieces: &[&[u8]], agreed: bool, when_idle: impl Fn(&mut Decoder)) -> Outcome {
    let mut decoder = Decoder::default();
    let mut inflater = Inflater::default();
    let mut spares = Spares::default();
    let (mut input, mut out) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let inflater = agreed.then_some(&mut inflater);
            let (received, consumed) = match decoder.decode(&mut input, LIMITS, inflater, &mut spares) {
                Ok((received, consumed)) => (received.map(show), consumed),
                Err(error) => return (out, Some(error)),
            };
            input.drain(..consumed);
            assert!(decoder.buffered() <= if agreed { COMPRESSED_BYTES_MAX } else { LIMITS.message_bytes_max });
            if decoder.idle() {
                assert_eq!(decoder.buffered(), 0);
                when_idle(&mut decoder);
            }
            let Some(received) = received else { break };
            out.push(received);
            if out.last().is_some_and(|last| last.starts_with("Close")) {
                return (out, None);
            }
        }
        assert!(input.len() <= 130, "{} bytes wait", input.len());
    }
    (out, None)
}

/// How it prints, and that it is within its bound.
fn show(received: Received<'_>) -> String {
    if let Received::Gathered(message) = &received {
        return show(match message.is_binary() {
            true => Received::Binary(message.payload()),
            false => Received::Text(message.payload()),
        });
    }
    let (length, bound) = match &received {
        Received::Gathered(message) => (message.payload().len(), LIMITS.message_bytes_max),
        Received::Text(text) => (text.len(), LIMITS.message_bytes_max),
        Received::Binary(bytes) => (bytes.len(), LIMITS.message_bytes_max),
        Received::Ping(bytes) | Received::Pong(bytes) => (bytes.len(), 125),
        Received::Close(_, reason) => (reason.len(), 123),
    };
    assert!(length <= bound, "{received:?}");
    format!("{received:?}")
}

/// The input is a script of frames, most of them sound, and whether compression is agreed. The
/// decoder says what a model of RFC 6455 and RFC 7692 says that sees whole frames and keeps
/// everything; and our own frames read back.
pub fn frame(input: &[u8]) {
    let mut script = Input(input);
    let wishes = script.number(8);
    let (count, agreed) = (wishes % 4, wishes >= 4 && has_deflate());
    let cuts = script.take(count);
    let mut model = Model { agreed, ..Model::default() };
    let mut wire = Vec::new();
    while !script.is_over() {
        let frame = Scripted::read(&mut script);
        frame.write(&mut wire);
        model.receive(&frame);
        encoded_reads_back(frame.first & 0x0f, frame.payload);
    }
    let stream = [&[count as u8], cuts, &wire].concat();
    let (out, error) = in_every_way(&stream, |pieces| decode(pieces, agreed));
    assert_eq!((out, error.map(|error| error.close_code().number())), (model.out, model.code));
}

/// A frame as a script says it: often right, sometimes not.
struct Scripted<'a> {
    first: u8,
    masked: bool,
    /// The length is written in more bytes than it needs.
    wide: bool,
    mask: [u8; 4],
    payload: &'a [u8],
}

impl<'a> Scripted<'a> {
    fn read(script: &mut Input<'a>) -> Scripted<'a> {
        let first = script.byte();
        let oddity = script.byte();
        let mask = [script.byte(), oddity, 0x21, 0x3d];
        Scripted { first, masked: oddity != 0xff, wide: oddity == 0xfe, mask, payload: script.some() }
    }

    fn write(&self, wire: &mut Vec<u8>) {
        let bit = if self.masked { 0x80 } else { 0 };
        wire.push(self.first);
        match self.payload.len() {
            length if self.wide => {
                wire.push(bit | 127);
                wire.extend((length as u64).to_be_bytes());
            }
            length @ 0..126 => wire.push(bit | length as u8),
            length => {
                wire.push(bit | 126);
                wire.extend((length as u16).to_be_bytes());
            }
        }
        if self.masked {
            wire.extend(self.mask);
            wire.extend(self.payload.iter().zip(self.mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            wire.extend(self.payload);
        }
    }
}

/// What RFC 6455 makes of whole frames, and RFC 7692 if compression is agreed.
#[derive(Default)]
struct Model {
    agreed: bool,
    text: bool,
    compressed: bool,
    /// The frames and the bytes of the message under way.
    message: Option<(u32, Vec<u8>)>,
    out: Vec<String>,
    code: Option<u16>,
    closed: bool,
}

impl Model {
    fn receive(&mut self, frame: &Scripted<'_>) {
        if self.closed || self.code.is_some() {
            return;
        }
        self.code = self.take(frame).err();
    }

    fn take(&mut self, frame: &Scripted<'_>) -> Result<(), u16> {
        let (fin, opcode, payload) = (frame.first & 0x80 != 0, frame.first & 0x0f, frame.payload);
        // 5.1, 5.2, 5.5: what a head alone can break.
        let is_control = opcode >= 8;
        let is_short = !frame.wide && payload.len() <= 125;
        // RFC 7692 6: RSV1 is for the first frame of a message, once agreed.
        let reserved = if self.agreed && matches!(opcode, 1..=7) { 0x30 } else { 0x70 };
        if frame.first & reserved != 0 || !matches!(opcode, 0..=2 | 8..=10) || !frame.masked || frame.wide {
            return Err(1002);
        }
        if is_control && !(fin && is_short) {
            return Err(1002);
        }
        match opcode {
            8 => {
                self.out.push(format!("{:?}", closed(payload)?));
                self.closed = true;
            }
            9 => self.out.push(format!("{:?}", Received::Ping(payload))),
            10 => self.out.push(format!("{:?}", Received::Pong(payload))),
            _ => self.take_data(fin, opcode, frame.first & 0x40 != 0, payload)?,
        }
        Ok(())
    }

    fn take_data(&mut self, fin: bool, opcode: u8, compressed: bool, payload: &[u8]) -> Result<(), u16> {
        // 5.4: a continuation has something to continue, and nothing else comes before its end.
        if (opcode == 0) != self.message.is_some() {
            return Err(1002);
        }
        if opcode > 0 {
            self.text = opcode == 1;
            self.compressed = compressed;
        }
        let (fragments, mut bytes) = self.message.take().unwrap_or_default();
        bytes.extend_from_slice(payload);
        if bytes.len() > if self.compressed { COMPRESSED_BYTES_MAX } else { LIMITS.message_bytes_max } {
            return Err(1009);
        }
        if fragments >= LIMITS.fragments_max {
            return Err(1008);
        }
        if self.compressed {
            if !fin {
                self.message = Some((fragments + 1, bytes));
                return Ok(());
            }
            // `deflate` says whether that is right.
            let mut inflater = Inflater::default();
            let inflated = inflater.inflate(&bytes, LIMITS.message_bytes_max);
            bytes = inflated.map_err(|error| error.close_code().number())?.to_vec();
        }
        // 8.1: what can become no text fails at once, what is cut only at its end.
        match std::str::from_utf8(&bytes) {
            Err(error) if self.text && (fin || error.error_len().is_some()) => return Err(1007),
            Ok(text) if self.text && fin => self.out.push(format!("{:?}", Received::Text(text.as_bytes()))),
            _ if fin => self.out.push(format!("{:?}", Received::Binary(&bytes))),
            _ => self.message = Some((fragments + 1, bytes)),
        }
        Ok(())
    }
}

/// The payload of a close frame, by RFC 6455 5.5.1 and 7.4, or the code it is answered with.
fn closed(payload: &[u8]) -> Result<Received<'_>, u16> {
    let [high, low, reason @ ..] = payload else {
        return if payload.is_empty() { Ok(Received::Close(None, "")) } else { Err(1002) };
    };
    let number = u16::from_be_bytes([*high, *low]);
    let may_be_sent = (1000..=1014).contains(&number) && !(1004..=1006).contains(&number);
    if !may_be_sent && !(3000..=4999).contains(&number) {
        return Err(1002);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| 1007u16)?;
    Ok(Received::Close(CloseCode::new(number), reason))
}

/// A frame of ours is one frame to another reader, and says the same.
fn encoded_reads_back(opcode: u8, payload: &[u8]) {
    let short = &payload[..payload.len().min(125)];
    let text = String::from_utf8_lossy(payload).into_owned();
    let (opcode, payload, want) = match opcode {
        1 => (Opcode::Text, text.as_bytes(), Frame::Text(text.clone())),
        9 => (Opcode::Ping, short, Frame::Ping(short.to_vec())),
        10 => (Opcode::Pong, short, Frame::Pong(short.to_vec())),
        _ => (Opcode::Binary, payload, Frame::Binary(payload.to_vec())),
    };
    let mut wire = Vec::new();
    encode_frame(&mut wire, opcode, payload);
    assert_eq!(only_frame(&wire), want);
}

fn only_frame(wire: &[u8]) -> Frame {
    let mut frames = Frames::default();
    frames.receive(wire);
    let frame = frames.next_frame().expect("a frame by the standard").expect("a whole frame");
    assert_eq!(frames.next_frame(), Ok(None), "one frame");
    let mut cut_short = Frames::default();
    cut_short.receive(&wire[..wire.len() - 1]);
    assert_eq!(cut_short.next_frame(), Ok(None), "and no less");
    frame
}

/// The input is a limit in two bytes, and a compressed message. It comes to the same in one frame, in
/// fragments of a byte, and in others; never to more than the limit; and where it comes to something,
/// to what a naive reading of RFC 1951 says. The other way round it is a message: what we make of it
/// reads back, and so does what a client might make of it.
pub fn deflate(input: &[u8]) {
    if !has_deflate() {
        return;
    }
    let input = &input[..input.len().min(1024)];
    let (limit, input) = input.split_at(input.len().min(2));
    let limit = limit.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let outcome = in_every_way(input, |pieces| fragments_inflated(pieces, limit));
    let (_, payload) = super::cut(input);
    let mut inflater = Inflater::default();
    let inflated = inflater.inflate(payload, limit).map(<[u8]>::to_vec);
    assert!(inflater.take_spent() <= limit + 1);
    // What is too long before it inflates is not looked at.
    let is_too_long = payload.len() > limit + limit / 16 + 16;
    assert_eq!(outcome, if is_too_long { Err(Error::MessageTooBig) } else { inflated.clone() });
    match (inflated, naively_inflated(payload)) {
        (Ok(message), naive) => assert_eq!(naive, Ok(message)),
        (Err(Error::MessageTooBig), naive) => assert!(naive.map_or(true, |message| message.len() > limit)),
        (Err(error), _) => assert_eq!(error, Error::NotDeflate),
    }

    // One of them for a run: a new one is 300 KB to clear.
    let mut deflater = Deflater::default();
    let long = payload.repeat(1 + limit % 16);
    for (message, ways) in [(payload, 0..clients::deflate::WAYS), (&long, 0..1)] {
        for way in ways {
            let payload = clients::deflate::deflate(message, way);
            assert_eq!(inflater.inflate(&payload, message.len()), Ok(message), "way {way}");
        }
        compressed_reads_back(message, &mut deflater, &mut inflater);
    }
}

/// The payload of a message that comes in these fragments, through frames.
fn fragments_inflated(pieces: &[&[u8]], limit: usize) -> Result<Vec<u8>, Error> {
    let limits = Limits { message_bytes_max: limit, fragments_max: u32::MAX };
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    // Of nothing, no byte by byte.
    let pieces = if pieces.is_empty() { &[&b""[..]] } else { pieces };
    for (nth, payload) in pieces.iter().enumerate() {
        let fin = if nth + 1 == pieces.len() { 0x80 } else { 0 };
        let first = fin | if nth == 0 { clients::COMPRESSED | clients::BINARY } else { 0 };
        let mut wire = Vec::new();
        Scripted { first, masked: true, wide: false, mask: [7, 6, 5, 4], payload }.write(&mut wire);
        match decoder.decode(&mut wire, limits, Some(&mut inflater), &mut Spares::default())? {
            (Some(Received::Binary(message)), _) => return Ok(message.to_vec()),
            (None, consumed) => assert_eq!(consumed, wire.len()),
            (other, _) => panic!("{other:?}"),
        }
    }
    panic!("the last fragment ends the message");
}

/// What comes of a payload by the book. A sender that ends it with its last block owes an empty one.
fn naively_inflated(payload: &[u8]) -> Result<Vec<u8>, String> {
    let owed = [payload, b"\0"].concat();
    [payload, &owed]
        .into_iter()
        .map(|payload| clients::deflate::inflate(payload, 1 << 15))
        .reduce(Result::or)
        .expect("two readings")
}

/// What we compress is smaller, is the message to another reader, and keeps to every window that
/// holds it.
fn compressed_reads_back(message: &[u8], deflater: &mut Deflater, inflater: &mut Inflater) {
    let mut compressed = b"before".to_vec();
    if !deflater.deflate(message, &mut compressed) {
        return assert_eq!(compressed, b"before");
    }
    let compressed = &compressed[6..];
    assert!(compressed.len() < message.len());
    assert_eq!(inflater.inflate(compressed, message.len()), Ok(message));
    assert_eq!(inflater.inflate(compressed, message.len() - 1), Err(Error::MessageTooBig));
    let mut wire = Vec::new();
    encode_compressed_frame(&mut wire, Opcode::Binary, compressed);
    // What keeps to the least keeps to the others.
    let window = Window::ALL.into_iter().find(|window| window.holds(message.len())).expect("the last one does");
    let mut frames = Frames::agreed(1 << window as u8);
    frames.receive(&wire);
    assert_eq!(frames.next_frame(), Ok(Some(Frame::Binary(message.to_vec()))), "{window:?}");
    assert_eq!((frames.next_frame(), frames.inflated), (Ok(None), 1));
}

/// The input is the payload of a close frame: what the standard makes of it, and ours reads back,
/// its reason cut at a character.
pub fn close(input: &[u8]) {
    let payload = &input[..input.len().min(125)];
    let mut wire = Vec::new();
    Scripted { first: 0x88, masked: true, wide: false, mask: [1, 2, 3, 4], payload }.write(&mut wire);
    let (out, error) = decode(&[&wire], false);
    match closed(payload) {
        Ok(close) => assert_eq!((out, error), (vec![format!("{close:?}")], None)),
        Err(code) => assert_eq!((out, error.map(|error| error.close_code().number())), (vec![], Some(code))),
    }

    let mut input = Input(input);
    let number = u16::from_be_bytes([input.byte(), input.byte()]);
    let Some(code) = CloseCode::new(number) else { return };
    let reason = String::from_utf8_lossy(input.0);
    let mut wire = Vec::new();
    encode_close(&mut wire, code, &reason);
    let Frame::Close(Some(read), kept) = only_frame(&wire) else { panic!("{wire:02x?}") };
    assert_eq!(read, number);
    assert!(reason.starts_with(&kept) && (kept.len() >= 120 || kept == reason), "{reason:?} became {kept:?}");
}
