//! Our WebSocket frames against tungstenite's: two readings of RFC 6455, which must agree.
//!
//! Sequences of frames from a seed, sound ones and each with one rule broken, in pieces cut anywhere.
//! Both must hand out the same messages and fail with the same close code. Where they do not,
//! `DIFFERENCES` says who is right and by which words; a difference not listed fails, and so does
//! one that is listed and not met.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use tidings::internals::Spares;
use tidings::internals::http::{NO_HEADERS, decode_head};
use tidings::internals::websocket::{
    CloseCode, Decoder, Error, Limits, Opcode, Received, accept_handshake, encode_close, encode_frame,
};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};
use tungstenite::{Error as Theirs, Message};

const CASES: u64 = 6000;
const MESSAGE_BYTES_MAX: usize = 1000;

/// What one side made of the bytes, one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The last of all.
    Close(Option<u16>, String),
    /// The last of all: the connection fails with this code.
    Fails(u16),
}

/// The end of what we heard, that of tungstenite, and why they may differ.
struct Difference {
    ours: fn(&Ending) -> bool,
    theirs: fn(Option<&Heard>) -> bool,
    why: &'static str,
}

/// How our reading ended.
#[derive(Clone, Debug, Default)]
struct Ending {
    error: Option<Error>,
    close: Option<u16>,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        ours: |ending| ending.error == Some(Error::LengthNotMinimal),
        theirs: |_| true,
        why: "RFC 6455 5.2: \"the minimal number of bytes MUST be used to encode the length\"; tungstenite reads on",
    },
    Difference {
        ours: |ending| ending.error == Some(Error::LengthNegative),
        theirs: |heard| heard == Some(&Heard::Fails(1009)),
        why: "RFC 6455 5.2: \"the most significant bit MUST be 0\"; to tungstenite it is a large message",
    },
    Difference {
        ours: |ending| ending.error == Some(Error::CloseCodeInvalid),
        theirs: |heard| heard == Some(&Heard::Close(Some(1002), "Protocol violation".into())),
        why: "RFC 6455 7.4: both answer 1002; tungstenite tells its user of it as if the peer had sent that",
    },
    Difference {
        ours: |ending| ending.close == Some(1014),
        theirs: |heard| heard == Some(&Heard::Close(Some(1002), "Protocol violation".into())),
        why: "RFC 6455 11.7: 1014 was registered later, with IANA; tungstenite does not know it",
    },
];

#[test]
fn clients_frames_mean_the_same_to_both() {
    let mut met = vec![0; DIFFERENCES.len()];
    let mut endings = Vec::new();
    let mut messages = 0;
    for seed in 0..CASES {
        let mut random = Random(seed);
        let wire = sequence(&mut random);
        let pieces = cut(&mut random, &wire);
        let (ours, ending) = ours(&pieces);
        let theirs = theirs(&pieces);
        messages += ours.len();
        endings.extend(ending.error);

        let shared = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
        if ours.len() == shared && theirs.len() == shared {
            continue;
        }
        let difference = DIFFERENCES.iter().position(|difference| (difference.ours)(&ending));
        let Some(nth) = difference else {
            panic!("seed {seed}: {wire:02x?}\nours   {ours:?}\ntheirs {theirs:?}");
        };
        let Difference { theirs: expected, why, .. } = &DIFFERENCES[nth];
        assert_eq!(shared, ours.len() - 1, "seed {seed}: only the end may differ: {why}");
        assert!(expected(theirs.get(shared)), "seed {seed}: {why}\ntheirs {theirs:?}");
        met[nth] += 1;
    }
    for (difference, met) in DIFFERENCES.iter().zip(met) {
        assert!(met > 0, "not met: {}", difference.why);
    }
    // The sequences are neither all good nor all bad, and each rule was broken.
    assert!(messages > 10_000, "{messages} messages");
    for error in [
        Error::ReservedBits,
        Error::ReservedOpcode,
        Error::NotMasked,
        Error::ControlTooLong,
        Error::ControlFragmented,
        Error::NothingToContinue,
        Error::MessageUnfinished,
        Error::CloseCodeCut,
        Error::NotUtf8,
        Error::MessageTooBig,
    ] {
        assert!(endings.contains(&error), "{error:?} was not met");
    }
}

#[test]
fn our_frames_are_read_by_their_client() {
    let lengths = [0, 1, 124, 125, 126, 127, 255, 256, 65_534, 65_535, 65_536, 70_000];
    let mut random = Random(7);
    for length in lengths {
        let text = "é€x".repeat(length / 6) + &"a".repeat(length % 6);
        let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        let short = &bytes[..length.min(125)];
        let mut wire = Vec::new();
        encode_frame(&mut wire, Opcode::Text, text.as_bytes());
        encode_frame(&mut wire, Opcode::Binary, &bytes);
        encode_frame(&mut wire, Opcode::Ping, short);
        encode_frame(&mut wire, Opcode::Pong, short);
        encode_close(&mut wire, CloseCode::RESTART, &text);
        let mut client = WebSocket::from_raw_socket(Pieces::of(&cut(&mut random, &wire)), Role::Client, None);
        let heard: Vec<Heard> = std::iter::from_fn(|| hear(&mut client)).collect();
        let [rest @ .., Heard::Close(code, reason)] = &heard[..] else { panic!("{length} bytes: {heard:?}") };
        let want = [
            Heard::Text(text.clone()),
            Heard::Binary(bytes.clone()),
            Heard::Ping(short.to_vec()),
            Heard::Pong(short.to_vec()),
        ];
        assert!(rest == want, "{length} bytes");
        assert_eq!(*code, Some(1012));
        assert!(text.starts_with(reason.as_str()) && (reason == &text || reason.len() > 120), "{reason:?}");
    }
}

#[test]
fn their_clients_frames_are_read_by_us() {
    let mut random = Random(11);
    for length in [0, 1, 125, 126, 127, 999, 1000] {
        let text = "a".repeat(length);
        let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        let short = &bytes[..length.min(125)];
        let close = CloseFrame { code: 1000.into(), reason: "bye".into() };
        let mut client = WebSocket::from_raw_socket(Pieces::of(&[]), Role::Client, None);
        for message in [
            Message::text(&text),
            Message::binary(bytes.clone()),
            Message::Ping(short.to_vec().into()),
            Message::Close(Some(close)),
        ] {
            client.send(message).expect("there is room");
        }
        let wire = std::mem::take(&mut client.get_mut().written);
        let (heard, _) = ours(&cut(&mut random, &wire));
        let want = [
            Heard::Text(text),
            Heard::Binary(bytes.clone()),
            Heard::Ping(short.to_vec()),
            Heard::Close(Some(1000), "bye".into()),
        ];
        assert_eq!(heard, want, "{length} bytes");
    }
}

#[test]
fn keys_are_accepted_by_the_same_answer() {
    let mut random = Random(3);
    for _ in 0..100 {
        let letter = |random: &mut Random| random.pick(b"ABCXYZabcxyz0189+/");
        let key: String = (0..21).map(|_| char::from(letter(&mut random))).chain("A==".chars()).collect();
        let head = format!(
            "GET /channels/a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        let mut scratch = NO_HEADERS;
        let head = decode_head(head.as_bytes(), &mut scratch).expect("a head");
        let handshake = accept_handshake(&head).expect("a handshake");
        assert_eq!(handshake.accept, derive_accept_key(key.as_bytes()).as_bytes(), "{key}");
    }
}

/// Reads as a connection does, up to a close or an error.
fn ours(pieces: &[Vec<u8>]) -> (Vec<Heard>, Ending) {
    let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, fragments_max: 1000 };
    let mut decoder = Decoder::default();
    let (mut input, mut heard) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (received, consumed) = match decoder.decode(&mut input, limits, None, &mut Spares::default()) {
                Ok((None, consumed)) => (None, consumed),
                Ok((Some(received), consumed)) => {
                    let received = match received {
                        Received::Text(text) => Heard::Text(std::str::from_utf8(text).expect("text").into()),
                        Received::Binary(bytes) => Heard::Binary(bytes.into()),
                        Received::Gathered(message) if message.is_binary() => Heard::Binary(message.payload().into()),
                        Received::Gathered(message) => {
                            Heard::Text(std::str::from_utf8(message.payload()).expect("text").into())
                        }
                        Received::Ping(bytes) => Heard::Ping(bytes.into()),
                        Received::Pong(bytes) => Heard::Pong(bytes.into()),
                        Received::Close(code, reason) => {
                            let close = code.map(CloseCode::number);
                            heard.push(Heard::Close(close, reason.into()));
                            return (heard, Ending { error: None, close });
                        }
                    };
                    (Some(received), consumed)
                }
                Err(error) => {
                    heard.push(Heard::Fails(error.close_code().number()));
                    return (heard, Ending { error: Some(error), close: None });
                }
            };
            input.drain(..consumed);
            match received {
                Some(received) => heard.push(received),
                None => break,
            }
        }
    }
    (heard, Ending::default())
}

/// The same by tungstenite.
fn theirs(pieces: &[Vec<u8>]) -> Vec<Heard> {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut server = WebSocket::from_raw_socket(Pieces::of(pieces), Role::Server, Some(config));
    let mut heard = Vec::new();
    while let Some(one) = hear(&mut server) {
        heard.push(one);
        if let Some(Heard::Close(..) | Heard::Fails(_)) = heard.last() {
            break;
        }
    }
    heard
}

/// What tungstenite hears next; `None`: it would wait for more, or the connection is over.
fn hear(socket: &mut WebSocket<Pieces>) -> Option<Heard> {
    Some(match socket.read() {
        Ok(Message::Text(text)) => Heard::Text(text.as_str().to_owned()),
        Ok(Message::Binary(bytes)) => Heard::Binary(bytes.to_vec()),
        Ok(Message::Ping(bytes)) => Heard::Ping(bytes.to_vec()),
        Ok(Message::Pong(bytes)) => Heard::Pong(bytes.to_vec()),
        Ok(Message::Close(None)) => Heard::Close(None, String::new()),
        Ok(Message::Close(Some(CloseFrame { code, reason }))) => {
            Heard::Close(Some(code.into()), reason.as_str().to_owned())
        }
        Ok(Message::Frame(frame)) => panic!("a raw frame: {frame}"),
        Err(Theirs::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
        Err(Theirs::ConnectionClosed) => return None,
        Err(Theirs::Protocol(_)) => Heard::Fails(1002),
        Err(Theirs::Utf8(_)) => Heard::Fails(1007),
        Err(Theirs::Capacity(_)) => Heard::Fails(1009),
        Err(error) => panic!("{error}"),
    })
}

/// A stream that gives one piece a read and then would block.
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl Pieces {
    fn of(pieces: &[Vec<u8>]) -> Pieces {
        Pieces { pieces: pieces.iter().cloned().collect(), written: Vec::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.front_mut() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        piece.drain(..length);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Ok(length)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pieces of one byte up to all of them; none is empty, for an empty read is the end.
fn cut(random: &mut Random, wire: &[u8]) -> Vec<Vec<u8>> {
    let most = random.pick(&[1, 3, 10, 100, 100_000]);
    let (mut pieces, mut rest) = (Vec::new(), wire);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + random.below(most)).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = behind;
    }
    pieces
}

/// Some frames of a client: messages, whole or in fragments, with controls between; perhaps a
/// close; and in most sequences, somewhere, one rule broken.
fn sequence(random: &mut Random) -> Vec<u8> {
    let mut wire = Vec::new();
    // The kind of the message under way and how many bytes it has.
    let mut open: Option<u8> = None;
    for _ in 0..1 + random.below(12) {
        if random.one_in(8) {
            broken(random, open, &mut wire);
            break;
        }
        if random.one_in(4) {
            let opcode = random.pick(&[PING, PONG]);
            let length = random.pick(&[0, 1, 7, 124, 125]);
            frame(random, FIN | opcode, &vec![b'p'; length], &mut wire);
            continue;
        }
        if random.one_in(20) {
            let payload = close(random);
            frame(random, FIN | CLOSE, &payload, &mut wire);
            continue;
        }
        let kind = open.unwrap_or_else(|| random.pick(&[TEXT, BINARY]));
        let opcode = if open.is_some() { CONTINUATION } else { kind };
        let fin = random.one_in(2);
        let payload = payload(random, kind);
        frame(random, if fin { FIN } else { 0 } | opcode, &payload, &mut wire);
        open = (!fin).then_some(kind);
    }
    wire
}

/// A frame that would be sound but for one thing.
fn broken(random: &mut Random, open: Option<u8>, wire: &mut Vec<u8>) {
    // The opcode that may come now, and the one that may not.
    let (due, wrong) = if open.is_some() { (CONTINUATION, BINARY) } else { (BINARY, CONTINUATION) };
    match random.below(11) {
        0 => {
            let reserved = random.pick(&[0x10, 0x20, 0x40]);
            frame(random, FIN | reserved | due, b"abc", wire);
        }
        1 => {
            let opcode = random.pick(&[3, 4, 5, 6, 7, 11, 12, 13, 14, 15]);
            frame(random, FIN | opcode, b"", wire);
        }
        2 => wire.extend([FIN | due, 3, b'a', b'b', b'c']),
        3 => wire.extend([FIN | due, 0x80 | 126, 0, 3, 0, 0, 0, 0, b'a', b'b', b'c']),
        4 => wire.extend([FIN | due, 0x80 | 127, 0x80 | random.below(128) as u8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3, 4]),
        5 => {
            let (opcode, length) = (random.pick(&[PING, PONG, CLOSE]), 126 + random.below(200));
            frame(random, FIN | opcode, &vec![b'x'; length], wire);
        }
        6 => {
            let opcode = random.pick(&[PING, PONG, CLOSE]);
            frame(random, opcode, b"", wire);
        }
        7 => frame(random, FIN | wrong, b"abc", wire),
        8 => frame(random, FIN | CLOSE, b"\x03", wire),
        9 => {
            let payload = random.pick(&[&b"\xff"[..], b"a\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]);
            match open {
                None => frame(random, FIN | TEXT, payload, wire),
                Some(_) => frame(random, FIN | CLOSE, &[b"\x03\xe8", payload].concat(), wire),
            }
        }
        _ => {
            let length = MESSAGE_BYTES_MAX + 1 + random.below(100);
            frame(random, FIN | due, &vec![b'x'; length], wire);
        }
    }
}

/// A frame in the shortest form, masked.
fn frame(random: &mut Random, first: u8, payload: &[u8], wire: &mut Vec<u8>) {
    wire.push(first);
    match payload.len() {
        length @ 0..126 => wire.push(0x80 | length as u8),
        length => {
            wire.push(0x80 | 126);
            wire.extend((length as u16).to_be_bytes());
        }
    }
    let mask: [u8; 4] = if random.one_in(8) { [0; 4] } else { (random.bits() as u32).to_be_bytes() };
    wire.extend(mask);
    wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// What a message, or a fragment of one, may have. A text's fragment may end inside a character,
/// which the next may complete or break.
fn payload(random: &mut Random, kind: u8) -> Vec<u8> {
    if kind == TEXT {
        let parts =
            [&b""[..], b"a", b"plain text", b"\xc3\xa9", b"\xe2\x82\xac", b"\xf0\x9f\x98\x80", b"\xe2", b"\x82\xac"];
        let whole = if random.one_in(6) { parts.len() } else { parts.len() - 2 };
        return (0..random.below(4)).flat_map(|_| random.pick(&parts[..whole])).copied().collect();
    }
    let length = random.pick(&[0, 1, 5, 125, 126, 127, 300, 700]);
    (0..length).map(|_| random.below(256) as u8).collect()
}

/// The payload of a close frame: any code, sent or not, and a reason.
fn close(random: &mut Random) -> Vec<u8> {
    let code: u16 = match random.below(4) {
        0 => return Vec::new(),
        1 => 999 + random.below(20) as u16,
        2 => random.pick(&[0, 999, 1000, 2999, 3000, 3999, 4000, 4999, 5000, 65_535]),
        _ => random.bits() as u16,
    };
    let reason = random.pick(&["", "bye", "é€", "a reason of many words, but not of too many"]);
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Splitmix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
