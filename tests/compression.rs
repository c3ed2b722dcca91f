//! permessage-deflate (RFC 7692), as clients see it: what is agreed, what comes compressed, and
//! what a client may send.
//!
//! The kernel and the clients are the tests' own; so is their DEFLATE, which holds the server to
//! the window that was agreed.

#![cfg(feature = "deflate")]

mod clients;
mod kernel;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use clients::{Format, Frame, Frames, Heard, Offer, Reader, Transport, deflate};
use kernel::{Kernel, Wire};
use tidings::internals::{Command, Commands, Config, EventLoop, Parts};
use tidings::{Access, App, Inbound, Reaction, Request, Stats};

const ANY: Offer = Offer { window_bits: None };

struct Server {
    turns: EventLoop<Kernel>,
    commands: Arc<Commands>,
}

impl Server {
    fn start() -> Server {
        Server::start_with(64 * 1024, None, |_| {})
    }

    fn start_with(send_buffer: usize, app: Option<Box<dyn App>>, adjust: impl FnOnce(&mut Config)) -> Server {
        let mut config = Config::default();
        adjust(&mut config);
        let commands = Arc::new(Commands::new(16, 1024, Box::new(|| {})));
        let mut kernel = Kernel::new(1);
        kernel.send_buffer = send_buffer;
        let parts = Parts { commands: Arc::clone(&commands), app, ..Parts::default() };
        Server { turns: EventLoop::new(kernel, config, parts).expect("good names"), commands }
    }

    fn turn(&mut self) {
        self.turns.turn(Some(Duration::from_millis(1))).expect("the kernel has no faults");
        self.turns.check_invariants();
    }

    fn send(&mut self, wire: Wire, bytes: &[u8]) {
        let mut sent = 0;
        while sent < bytes.len() {
            sent += self.turns.os().send(wire, &bytes[sent..]);
            self.turn();
        }
        self.turn();
    }

    fn open(&mut self, bytes: &[u8]) -> Wire {
        let wire = self.turns.os().connect();
        self.send(wire, bytes);
        wire
    }

    fn subscribe(&mut self, channels: &str, protocol: Option<&str>, offer: Option<Offer>) -> Subscriber {
        let format = if protocol == Some("tidings.raw") { Format::Raw } else { Format::Json };
        Subscriber {
            wire: self.open(&clients::upgrade_with(channels, "", protocol, offer)),
            reader: Reader::new(Transport::WebSocket, format).offering(offer),
        }
    }

    fn publish(&mut self, channel: &str, payload: &[u8]) {
        let wire = self.open(&clients::post(channel, "", "", payload));
        // A thousand subscribers are written to before it is told.
        self.turn();
        let answer = self.turns.os().receive(wire, usize::MAX);
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }

    /// What is answered to a handshake with these header lines: the status line, and the
    /// `Sec-WebSocket-Extensions`.
    fn shake(&mut self, lines: &str) -> (String, Option<String>) {
        let upgrade = String::from_utf8(clients::upgrade("a", "", None)).expect("ASCII");
        let request = upgrade.replace("\r\n\r\n", &format!("\r\n{lines}\r\n"));
        let wire = self.open(request.as_bytes());
        let answer = self.turns.os().receive(wire, usize::MAX);
        let answer = String::from_utf8_lossy(&answer);
        let mut head = answer.split("\r\n");
        let status = head.next().expect("a status line")[9..12].to_owned();
        (status, head.find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: ")).map(str::to_owned))
    }

    fn stats(&mut self) -> Stats {
        let (sender, receiver) = mpsc::channel();
        let tell = Box::new(move |stats| sender.send(stats).expect("somebody asks"));
        assert!(self.commands.push(Command::Stats(tell)).is_ok());
        self.turn();
        receiver.try_recv().expect("commands are served in each turn")
    }

    /// The frames that a client gets who has sent these, permessage-deflate agreed.
    fn frames_for(&mut self, sent: &[u8]) -> Vec<Frame> {
        let wire = self.open(&clients::upgrade_with("a", "", Some("tidings.raw"), Some(ANY)));
        let head = self.turns.os().receive(wire, usize::MAX);
        assert!(head.ends_with(b"\r\n\r\n"));
        self.send(wire, sent);
        let mut frames = Frames::agreed(1 << 15);
        let mut all = Vec::new();
        loop {
            let bytes = self.turns.os().receive(wire, usize::MAX);
            if bytes.is_empty() {
                return all;
            }
            frames.receive(&bytes);
            while let Some(frame) = frames.next_frame().expect("well-formed") {
                all.push(frame);
            }
            self.turn();
        }
    }
}

struct Subscriber {
    wire: Wire,
    reader: Reader,
}

impl Subscriber {
    /// The payloads of the messages that have come, and how many came compressed.
    fn messages(&mut self, server: &mut Server) -> (Vec<Vec<u8>>, u64) {
        let before = self.reader.inflated();
        let mut payloads = Vec::new();
        loop {
            let bytes = server.turns.os().receive(self.wire, usize::MAX);
            if bytes.is_empty() {
                return (payloads, self.reader.inflated() - before);
            }
            for heard in self.reader.receive(&bytes).expect("well-formed") {
                if let Heard::Message(message) = heard {
                    payloads.push(message.payload);
                }
            }
            server.turn();
        }
    }
}

/// So many bytes of text that are worth compressing.
fn text(length: usize) -> Vec<u8> {
    b"tick, tock; ".iter().copied().cycle().take(length).collect()
}

/// One frame of a client with its first byte given, FIN excepted.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    clients::client_frame(first, payload)
}

fn compressed(message: &[u8]) -> Vec<u8> {
    frame(clients::BINARY | clients::COMPRESSED, &deflate::deflate(message, 1))
}

// What is agreed.

/// protocol: `permessage-deflate` (RFC 7692) is agreed if offered (unless `--deflate=no`), always with `server_no_context_takeover` and `client_no_context_takeover`; `server_max_window_bits` of 9 to 15 is kept to and repeated, an offer of 8 or of anything unknown or wrong is passed over for the next, a header that is no list of extensions is 400.
#[test]
fn what_is_agreed() {
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let with = |more: &str| ("101".to_owned(), Some(format!("{agreed}{more}")));
    let mut server = Server::start();
    for (offers, want) in [
        (&[][..], ("101".to_owned(), None)),
        (&["permessage-deflate"], with("")),
        (&["permessage-deflate; client_max_window_bits"], with("")),
        (&["permessage-deflate; server_max_window_bits=9"], with("; server_max_window_bits=9")),
        (&["permessage-deflate; server_max_window_bits=15"], with("; server_max_window_bits=15")),
        (&["permessage-deflate; server_max_window_bits=8"], ("101".to_owned(), None)),
        (&["permessage-deflate; server_max_window_bits=8, permessage-deflate"], with("")),
        (&["permessage-deflate; mystery", "permessage-deflate; client_max_window_bits=10"], with("")),
        (&["x-webkit-deflate-frame"], ("101".to_owned(), None)),
        (&["permessage-deflate;"], ("400".to_owned(), None)),
        (&["permessage-deflate", "\"x\""], ("400".to_owned(), None)),
    ] {
        let lines: String = offers.iter().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).collect();
        assert_eq!(server.shake(&lines), want, "{offers:?}");
    }
    let mut server = Server::start_with(64 * 1024, None, |config| config.deflate = false);
    assert_eq!(server.shake("Sec-WebSocket-Extensions: permessage-deflate\r\n"), ("101".to_owned(), None));
}

/// RFC 7692 6: RSV1 is for the first frame of a message, and for who agreed.
#[test]
fn rsv1_elsewhere_is_a_protocol_error() {
    let hello = deflate::deflate(b"Hello", 1);
    let closed = |frames: Vec<Frame>| match &frames[..] {
        [Frame::Close(Some(code), _)] => *code,
        other => panic!("{other:?}"),
    };
    let mut first = frame(clients::TEXT | clients::COMPRESSED, &hello[..2]);
    first[0] &= 0x7f;
    for sent in [
        frame(0x49, b""),
        frame(0x4a, b""),
        frame(0x48, b""),
        frame(0x21, b""),
        [&first[..], &frame(0x40, &hello[2..])].concat(),
    ] {
        assert_eq!(closed(Server::start().frames_for(&sent)), 1002, "{sent:02x?}");
    }
    let mut server = Server::start_with(64 * 1024, None, |config| config.deflate = false);
    assert_eq!(closed(server.frames_for(&frame(clients::TEXT | clients::COMPRESSED, &hello))), 1002);
}

// What the server sends.

#[test]
fn a_message_is_compressed_once_for_a_thousand_subscribers() {
    let mut server = Server::start();
    let windows = [None, Some(9), Some(10), Some(11), Some(12), Some(13), Some(14), Some(15)];
    let mut subscribers: Vec<Subscriber> = (0..1000)
        .map(|nth| {
            let protocol = [None, Some("tidings.raw"), Some("tidings.v1")][nth % 3];
            // Some read a second channel: those have batches of their own.
            let channels = ["a", "a,b"][nth % 7 / 6];
            server.subscribe(channels, protocol, Some(Offer { window_bits: windows[nth % 8] }))
        })
        .collect();
    for subscriber in &mut subscribers {
        subscriber.messages(&mut server);
    }
    assert_eq!(server.stats().compressed, 0);
    for payload in [text(700), text(900)] {
        server.publish("a", &payload);
        let mut inflated = 0;
        for subscriber in &mut subscribers {
            let (messages, count) = subscriber.messages(&mut server);
            assert_eq!(messages, [&payload[..]]);
            inflated += count;
        }
        // Those with a window of 512 bytes get it as it is.
        assert_eq!(inflated, 875);
    }
    assert_eq!(server.stats().compressed, 4, "two messages, each as an object and by itself");
}

/// protocol: What is compressed is the server's choice for each message
#[test]
fn what_pays_and_fits_is_compressed() {
    let noise: Vec<u8> = {
        let mut rng = kernel::Rng::new(1);
        (0..2000).map(|_| rng.bits() as u8).collect()
    };
    for (window_bits, payload, want) in [
        (None, text(511), 0),
        (None, text(512), 1),
        (None, text(100_000), 1),
        (None, noise.clone(), 0),
        (Some(9), text(512), 1),
        (Some(9), text(513), 0),
        (Some(10), text(1024), 1),
        (Some(10), text(1025), 0),
        (Some(14), text(16_384), 1),
        (Some(14), text(16_385), 0),
        (Some(15), text(100_000), 1),
    ] {
        let mut server = Server::start();
        let mut subscriber = server.subscribe("a", Some("tidings.raw"), Some(Offer { window_bits }));
        let mut other = server.subscribe("a", Some("tidings.raw"), None);
        server.publish("a", &payload);
        assert_eq!(other.messages(&mut server), (vec![payload.clone()], 0));
        let length = payload.len();
        assert_eq!(subscriber.messages(&mut server), (vec![payload], want), "{length} bytes for {window_bits:?}");
    }
}

#[test]
fn deflate_bytes_min_is_the_least_that_is_compressed() {
    let mut server = Server::start_with(64 * 1024, None, |config| config.deflate_bytes_min = 100);
    let mut subscriber = server.subscribe("a", None, Some(ANY));
    for (length, want) in [(0, 0), (99, 0), (100, 1)] {
        server.publish("a", &text(length));
        assert_eq!(subscriber.messages(&mut server), (vec![text(length)], want));
    }
}

/// The rest of a half-sent message is made anew when the socket takes more: from one byte read to
/// the next it must be the same bytes.
#[test]
fn a_half_sent_compressed_message_goes_on_where_it_stopped() {
    let payload: Vec<u8> = {
        let mut rng = kernel::Rng::new(2);
        (0..5000).map(|_| b'a' + (rng.bits() % 16) as u8).collect()
    };
    for protocol in [None, Some("tidings.raw")] {
        let mut server = Server::start_with(90, None, |_| {});
        let mut subscriber = server.subscribe("a", protocol, Some(ANY));
        subscriber.messages(&mut server);
        let wire = server.turns.os().connect_reliably();
        server.send(wire, &clients::post("a", "", "", &payload));
        let mut payloads = Vec::new();
        for nth in 0..100_000 {
            let bytes = server.turns.os().receive(subscriber.wire, 1 + nth % 7);
            for heard in subscriber.reader.receive(&bytes).expect("well-formed") {
                if let Heard::Message(message) = heard {
                    payloads.push(message.payload);
                }
            }
            if !payloads.is_empty() {
                break;
            }
            server.turn();
        }
        assert_eq!(payloads, [&payload[..]]);
        assert_eq!(subscriber.reader.inflated(), 1);
        assert_eq!(server.stats().compressed, 1, "what was compressed is kept for a while");
    }
}

/// One turn compresses what takes some 15 ms; the rest comes with the turns after it.
#[test]
fn a_flood_of_messages_is_compressed_over_several_turns() {
    let mut server = Server::start_with(64 * 1024, None, |config| config.history_messages = 10_000);
    let mut subscriber = server.subscribe("a", Some("tidings.raw"), Some(ANY));
    subscriber.messages(&mut server);
    let flood = clients::post("a", "", "", &text(600)).repeat(3000);
    let publisher = server.turns.os().connect_reliably();
    let mut sent = 0;
    let mut heard = 0;
    let mut compressed = 0;
    while heard < 3000 {
        sent += server.turns.os().send(publisher, &flood[sent..]);
        server.turns.os().receive(publisher, usize::MAX);
        let bytes = server.turns.os().receive(subscriber.wire, usize::MAX);
        heard += subscriber.reader.receive(&bytes).expect("well-formed").len();
        let now = server.stats().compressed;
        // 4 MiB, at 600 and 4096 bytes each, and one batch.
        assert!(now - compressed <= 893 + 110, "{} in one turn", now - compressed);
        compressed = now;
    }
    assert_eq!(compressed, 3000);
}

/// What compresses well fits into one batch by the dozen: the turn's share ends it before.
#[test]
fn a_batch_of_large_messages_is_compressed_over_several_turns() {
    let mut server = Server::start();
    for _ in 0..100 {
        server.publish("a", &text(200_000));
    }
    assert_eq!(server.stats().compressed, 0);
    let wire = server.turns.os().connect();
    server.turns.os().send(wire, &clients::upgrade_with("a", "?after=earliest", None, Some(ANY)));
    let mut reader = Reader::new(Transport::WebSocket, Format::Json).offering(Some(ANY));
    let (mut heard, mut compressed) = (0, 0);
    while heard < 100 {
        let now = server.stats().compressed;
        // 4 MiB, at 200,000 bytes and more each, and one message.
        assert!(now - compressed <= 21, "{} in one turn", now - compressed);
        compressed = now;
        let bytes = server.turns.os().receive(wire, usize::MAX);
        let items = reader.receive(&bytes).expect("well-formed");
        heard += items.iter().filter(|item| matches!(item, Heard::Message(_))).count();
    }
    assert_eq!(server.stats().compressed, 100);
}

struct Echo;

impl App for Echo {
    fn upgrade(&mut self, _request: &Request<'_>) -> Option<Access> {
        Some(Access::Allow)
    }

    fn message(&mut self, message: &Inbound<'_>) -> Reaction {
        match message.payload {
            b"reply" => Reaction::Reply(text(1000)),
            b"binary" => Reaction::ReplyBinary(text(1000)),
            _ => Reaction::Echo,
        }
    }
}

#[test]
fn answers_of_an_app_follow_the_same_rule() {
    for (sent, want, inflated) in [
        (&b"reply"[..], Frame::Text(String::from_utf8(text(1000)).expect("ASCII")), 1),
        (b"binary", Frame::Binary(text(1000)), 1),
        (&text(1000), Frame::Binary(text(1000)), 1),
        (&text(500), Frame::Binary(text(500)), 0),
    ] {
        let mut server = Server::start_with(64 * 1024, Some(Box::new(Echo)), |_| {});
        let wire = server.open(&clients::upgrade_with("a", "", Some("tidings.raw"), Some(ANY)));
        server.turns.os().receive(wire, usize::MAX);
        server.send(wire, &compressed(sent));
        let mut frames = Frames::agreed(1 << 15);
        frames.receive(&server.turns.os().receive(wire, usize::MAX));
        assert_eq!(frames.next_frame(), Ok(Some(want)));
        assert_eq!(frames.inflated, inflated);
    }
}

// What the client sends.

/// protocol: a message counts by its size before compression, both ways.
#[test]
fn a_bomb_costs_no_more_than_the_limit() {
    let (payload, length) = deflate::bomb(250);
    assert!(payload.len() * 900 < length, "{} bytes for {length}", payload.len());
    let whole = frame(clients::BINARY | clients::COMPRESSED, &payload);
    let mut first = frame(clients::BINARY | clients::COMPRESSED, &payload[..100]);
    first[0] &= 0x7f;
    let fragments = [&first[..], &frame(0, &payload[100..])].concat();
    for sent in [whole, fragments] {
        for (limit, want) in [(length, None), (length - 1, Some(1009)), (1000, Some(1009)), (1, Some(1009))] {
            let mut server = Server::start_with(64 * 1024, None, |config| config.message_bytes_max = limit);
            match (&server.frames_for(&sent)[..], want) {
                ([Frame::Binary(bytes)], None) => assert!(*bytes == vec![0; length]),
                ([Frame::Close(Some(code), _)], Some(want)) => assert_eq!(*code, want),
                (other, _) => panic!("with a limit of {limit}: {} frames", other.len()),
            }
        }
    }
    // 10 MB of payload, 10 GB of zeros: refused before it is all here.
    let huge = frame(clients::BINARY | clients::COMPRESSED, &deflate::bomb(10_000_000).0);
    let frames = Server::start().frames_for(&huge[..100_000]);
    assert!(matches!(frames[..], [Frame::Close(Some(1009), _)]), "{frames:?}");
}

/// What inflates counts in the budget of a turn as if it had come so: otherwise one read of bombs
/// would make a turn of gigabytes.
#[test]
fn a_flood_of_bombs_is_spread_over_turns() {
    let mut server = Server::start_with(64 * 1024, None, |config| config.history_messages = 10_000);
    let wire = server.open(&clients::upgrade_with("a", "", Some("tidings.raw"), Some(ANY)));
    let (payload, length) = deflate::bomb(250);
    let bombs = frame(clients::BINARY | clients::COMPRESSED, &payload).repeat(200);
    assert_eq!(server.turns.os().send(wire, &bombs), bombs.len());
    let mut head = 0;
    while head < 200 {
        let now = server.stats().head;
        assert!((now - head) as usize <= 1 + 4 * 1024 * 1024 / length, "{} in one turn", now - head);
        head = now;
    }
}

#[test]
fn what_does_not_inflate_closes_with_1007() {
    for (first, payload) in [
        (clients::TEXT, &b"\x07"[..]),
        (clients::BINARY, b"\xf2\x48\xcd"),
        // Not UTF-8, which only its inflated form shows.
        (clients::TEXT, b"\x00\x01\x00\xfe\xff\xff\x00"),
    ] {
        let frames = Server::start().frames_for(&frame(first | clients::COMPRESSED, payload));
        assert!(matches!(frames[..], [Frame::Close(Some(1007), _)]), "{payload:02x?}: {frames:?}");
    }
}

#[test]
fn a_compressed_message_is_a_message() {
    for length in [0, 1, 5, 700, 70_000] {
        let payload = text(length);
        for way in 0..deflate::WAYS {
            let sent = frame(clients::TEXT | clients::COMPRESSED, &deflate::deflate(&payload, way));
            let want = Frame::Text(String::from_utf8(payload.clone()).expect("ASCII"));
            assert_eq!(Server::start().frames_for(&sent), [want], "{length} bytes, way {way}");
        }
    }
}
