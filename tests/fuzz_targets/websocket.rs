//! WebSocket: the handshake, frames and messages in, frames out.

use tidings::internals::http::{NO_HEADERS, RequestHead, decode_head, head_end};
use tidings::internals::websocket::{
    CloseCode, Decoder, Error, Handshake, Limits, Opcode, Received, accept_handshake, encode_close, encode_frame,
    write_handshake_answer,
};

use super::clients::{Frame, Frames};
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
    assert_eq!(head.header_count("sec-websocket-key"), 1);
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
    for (name, value) in &lines[2..] {
        match *name {
            "Sec-WebSocket-Accept" => assert!(value.len() == 28 && value.ends_with('=')),
            "Sec-WebSocket-Protocol" => {
                assert!(["tidings.v1", "tidings.raw"].contains(value));
                assert!(offers("sec-websocket-protocol").iter().any(|offer| offer == value));
            }
            "Sec-WebSocket-Extensions" => check_extension(value, &offers("sec-websocket-extensions")),
            _ => panic!("{name}: {value}"),
        }
    }
}

/// RFC 7692 7.1: what is agreed was offered, with parameters of its own, each once and in range.
fn check_extension(answer: &str, offers: &[String]) {
    let mut parts = answer.split(';').map(str::trim);
    let name = parts.next().expect("split gives one part at least");
    assert_eq!(name, "permessage-deflate");
    let offered = offers.iter().any(|offer| offer.split(';').next().map(str::trim) == Some(name));
    assert!(offered, "{answer} was not among {offers:?}");
    let mut seen = Vec::new();
    for parameter in parts {
        let (parameter, value) = match parameter.split_once('=') {
            Some((parameter, value)) => (parameter, Some(value)),
            None => (parameter, None),
        };
        assert!(!seen.contains(&parameter), "{answer}");
        seen.push(parameter);
        match (parameter, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            ("server_max_window_bits" | "client_max_window_bits", Some(bits)) => {
                assert!(bits.parse().is_ok_and(|bits: u8| (8..=15).contains(&bits)) && !bits.starts_with('0'));
                // 7.1.2.2: the client's window may be bounded only if the client said it can.
                let known = offers.iter().any(|offer| offer.contains(parameter));
                assert!(known || parameter == "server_max_window_bits", "{answer}");
            }
            _ => panic!("{answer}"),
        }
    }
}

const LIMITS: Limits = Limits { message_bytes_max: 300, fragments_max: 6 };

/// Everything received, as it prints, and the error that ended it.
type Outcome = (Vec<String>, Option<Error>);

/// The same messages however the bytes come; memory follows them; never more than 130 bytes wait.
pub fn message(input: &[u8]) {
    in_every_way(input, decode);
}

/// Decodes with one decoder, and with a new one whenever it is idle: both say the same.
fn decode(pieces: &[&[u8]]) -> Outcome {
    let kept = decode_with(pieces, |_| {});
    assert_eq!(decode_with(pieces, |decoder| *decoder = Decoder::default()), kept);
    kept
}

/// Decodes as a connection does: what is not consumed stays in front of the next piece, and
/// nothing follows a close.
fn decode_with(pieces: &[&[u8]], when_idle: impl Fn(&mut Decoder)) -> Outcome {
    let mut decoder = Decoder::default();
    let (mut input, mut out) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (received, consumed) = match decoder.decode(&mut input, LIMITS, None) {
                Ok((received, consumed)) => (received.map(show), consumed),
                Err(error) => return (out, Some(error)),
            };
            input.drain(..consumed);
            assert!(decoder.buffered() <= LIMITS.message_bytes_max);
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
    let (length, bound) = match received {
        Received::Text(text) => (text.len(), LIMITS.message_bytes_max),
        Received::Binary(bytes) => (bytes.len(), LIMITS.message_bytes_max),
        Received::Ping(bytes) | Received::Pong(bytes) => (bytes.len(), 125),
        Received::Close(_, reason) => (reason.len(), 123),
    };
    assert!(length <= bound, "{received:?}");
    format!("{received:?}")
}

/// The input is a script of frames, most of them sound. The decoder says what a model of RFC 6455
/// says that sees whole frames and keeps everything; and our own frames read back.
pub fn frame(input: &[u8]) {
    let mut script = Input(input);
    let count = script.number(4);
    let cuts = script.take(count);
    let mut model = Model::default();
    let mut wire = Vec::new();
    while !script.is_over() {
        let frame = Scripted::read(&mut script);
        frame.write(&mut wire);
        model.receive(&frame);
        encoded_reads_back(frame.first & 0x0f, frame.payload);
    }
    let stream = [&[count as u8], cuts, &wire].concat();
    let (out, error) = in_every_way(&stream, decode);
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

/// What RFC 6455 makes of whole frames.
#[derive(Default)]
struct Model {
    text: bool,
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
        if frame.first & 0x70 != 0 || !matches!(opcode, 0..=2 | 8..=10) || !frame.masked || frame.wide {
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
            _ => self.take_data(fin, opcode, payload)?,
        }
        Ok(())
    }

    fn take_data(&mut self, fin: bool, opcode: u8, payload: &[u8]) -> Result<(), u16> {
        // 5.4: a continuation has something to continue, and nothing else comes before its end.
        if (opcode == 0) != self.message.is_some() {
            return Err(1002);
        }
        if opcode > 0 {
            self.text = opcode == 1;
        }
        let (fragments, mut bytes) = self.message.take().unwrap_or_default();
        bytes.extend_from_slice(payload);
        if bytes.len() > LIMITS.message_bytes_max {
            return Err(1009);
        }
        if fragments >= LIMITS.fragments_max {
            return Err(1008);
        }
        // 8.1: what can become no text fails at once, what is cut only at its end.
        match std::str::from_utf8(&bytes) {
            Err(error) if self.text && (fin || error.error_len().is_some()) => return Err(1007),
            Ok(text) if self.text && fin => self.out.push(format!("{:?}", Received::Text(text))),
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

/// The input is the payload of a close frame: what the standard makes of it, and ours reads back,
/// its reason cut at a character.
pub fn close(input: &[u8]) {
    let payload = &input[..input.len().min(125)];
    let mut wire = Vec::new();
    Scripted { first: 0x88, masked: true, wide: false, mask: [1, 2, 3, 4], payload }.write(&mut wire);
    let (out, error) = decode(&[&wire]);
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
