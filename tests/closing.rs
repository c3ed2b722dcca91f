//! The closing handshake, RFC 6455 5.5.1 and 7: who says what, in which order, and how the
//! connection ends below it. Over the fake kernel, and where only a socket shows it, over sockets.

mod clients;
mod common;
mod kernel;
mod wire;

use std::time::Duration;

use clients::{PONG, TEXT, client_frame, close_frame};
use common::TestServer;
use common::websocket as real;
use tidings::{Access, App, Config, Inbound, Operation, Reaction, Request};
use wire::{Server, WebSocket, frame};

const PING: u8 = 9;
/// The default of `close-timeout`.
const CLOSE_TIMEOUT_MS: u64 = 3000;

fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

// The client closes first.

/// protocol: A client's close frame is answered with its code, and what stands behind it is not looked at.
#[test]
fn every_code_is_echoed_or_refused() {
    let mut server = Server::start();
    for code in (0..=5010).chain([0x7fff, 0x8000, 0xffff]) {
        let mut socket = server.websocket("/channels/a", None);
        server.send(socket.wire, &close_frame(code));
        // RFC 6455 7.4.1 and 7.4.2: what may stand in a close frame; 1004 to 1006 and 1015 may not, 1012
        // to 1014 were registered with IANA later. The rest below 3000 is not assigned.
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let want = if valid { code } else { 1002 };
        assert_eq!(socket.codes(&mut server), [format!("close {want}"), "end".to_owned()], "{code}");
        server.turns.os().close_client(socket.wire);
    }
}

#[test]
fn every_form_of_a_close_frame() {
    let long = |bytes: usize| close_payload(1000, "r".repeat(bytes - 2).as_bytes());
    let table: &[(&str, Vec<u8>, &str)] = &[
        ("nothing", frame(0x88, b""), "close"),
        ("a code", frame(0x88, &close_payload(1000, b"")), "close 1000"),
        ("a code and a reason", frame(0x88, &close_payload(1001, "ade, lebt wohl é".as_bytes())), "close 1001"),
        ("the longest reason", frame(0x88, &long(125)), "close 1000"),
        ("a code of ours", frame(0x88, &close_payload(4008, b"")), "close 4008"),
        ("half a code", frame(0x88, b"\x03"), "close 1002"),
        ("too long", frame(0x88, &long(126)), "close 1002"),
        ("a fragment", frame(0x08, &close_payload(1000, b"")), "close 1002"),
        ("unmasked", vec![0x88, 0x02, 0x03, 0xe8], "close 1002"),
        ("unmasked and empty", vec![0x88, 0x00], "close 1002"),
        ("a reserved bit", frame(0xc8, &close_payload(1000, b"")), "close 1002"),
        ("a long form of the length", vec![0x88, 0xfe, 0, 2, 0, 0, 0, 0, 3, 0xe8], "close 1002"),
        ("a reason that is not UTF-8", frame(0x88, &close_payload(1000, b"\xff")), "close 1007"),
        ("a reason with a surrogate", frame(0x88, &close_payload(1000, b"\xed\xa0\x80")), "close 1007"),
        ("a reason that ends in a character", frame(0x88, &close_payload(1000, b"caf\xc3")), "close 1007"),
        ("a bad code and a bad reason", frame(0x88, &close_payload(1005, b"\xff")), "close 1002"),
        ("between fragments", [frame(0x01, b"half"), frame(0x88, b"")].concat(), "close"),
        ("behind a ping", [frame(0x89, b"p"), frame(0x88, b"")].concat(), "pong p, close"),
    ];
    for (what, bytes, want) in table {
        let want = format!("{want}, end");
        let mut server = Server::start();
        let pieces = |cut: usize| [&bytes[..cut], &bytes[cut..]];
        for cut in 0..bytes.len() {
            assert_eq!(say(&mut server, &pieces(cut)), want, "{what}, cut at {cut}");
        }
        assert_eq!(say(&mut server, &bytes.chunks(1).collect::<Vec<_>>()), want, "{what}, byte by byte");
        assert!(server.kept("a").is_empty(), "{what}");
    }
}

/// What a new WebSocket that sends these pieces hears.
fn say(server: &mut Server, pieces: &[&[u8]]) -> String {
    let mut socket = server.websocket("/channels/a", None);
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        server.send(socket.wire, piece);
    }
    let heard = socket.codes(server).join(", ");
    server.turns.os().close_client(socket.wire);
    heard
}

/// protocol: A client's close frame is answered with its code, and what stands behind it is not looked at.
#[test]
fn nothing_behind_a_close_frame_is_looked_at() {
    let behind: &[(&str, Vec<u8>)] = &[
        ("a message", client_frame(TEXT, b"too late")),
        ("a ping", client_frame(PING, b"?")),
        ("another close frame", close_frame(1001)),
        ("no frame at all", b"\xff\xff\xff\xff".to_vec()),
        ("a request", clients::post("a", "", "", b"too late")),
        ("the rest of a message", frame(0x80, b"late")),
    ];
    for (what, bytes) in behind {
        for in_one_piece in [true, false] {
            for protocol in [None, Some("tidings.raw")] {
                let mut server = Server::start();
                let mut socket = server.websocket("/channels/a", protocol);
                let front = [frame(0x01, b"too "), close_frame(1000)].concat();
                if in_one_piece {
                    server.send(socket.wire, &[&front[..], bytes].concat());
                } else {
                    server.send(socket.wire, &front);
                    server.send(socket.wire, bytes);
                }
                assert_eq!(socket.codes(&mut server), ["close 1000", "end"], "{what}");
                assert!(server.kept("a").is_empty(), "{what}");
            }
        }
    }
    let mut server = Server::start();
    let mut socket = server.websocket("/channels/a", Some("tidings.v1"));
    let publish = client_frame(TEXT, b"publish a\ntoo late");
    server.send(socket.wire, &[close_frame(1000), publish].concat());
    assert_eq!(socket.codes(&mut server), ["close 1000", "end"]);
    assert!(server.kept("a").is_empty());
}

#[test]
fn messages_of_the_channel_end_with_the_close_frame() {
    let mut server = Server::start();
    let mut socket = server.websocket("/channels/a", Some("tidings.raw"));
    let publisher = server.connect();
    server.put(publisher, &clients::post("a", "", "", b"before"));
    server.put(socket.wire, &close_frame(1000));
    server.settle();
    server.send(publisher, &clients::post("a", "", "", b"after"));
    let heard = socket.codes(&mut server);
    assert!(heard == ["close 1000", "end"] || heard == ["text before", "close 1000", "end"], "{heard:?}");
}

/// What was asked for before is answered before: publishes wait for the log, and the end for them.
#[test]
fn commands_are_answered_before_the_end() {
    for (what, last, want) in [
        ("a close frame", close_frame(1000), "close 1000"),
        ("a broken frame", frame(0xf1, b""), "close 1002"),
        ("text that is not UTF-8", client_frame(TEXT, b"\xff"), "close 1007"),
        ("a message too large", frame(0x81, &[b'x'; 262_144 + 4097])[..14].to_vec(), "close 1009"),
    ] {
        let mut server = Server::start();
        let mut socket = server.websocket("/channels/b", Some("tidings.v1"));
        let publish = client_frame(TEXT, b"publish a ref=1\nx");
        let subscribe = client_frame(TEXT, b"subscribe c ref=2");
        server.send(socket.wire, &[&publish[..], &publish, &subscribe, &publish, &last, &publish].concat());
        let heard = socket.codes(&mut server);
        let kinds: Vec<&str> = heard.iter().map(|frame| &frame[..frame.len().min(12)]).collect();
        let published = "text {\"publi";
        let answers = [published, published, "text {\"subsc", published, want, "end"];
        assert_eq!(kinds, answers, "{what}");
        assert_eq!(server.kept("a").len(), 3, "{what}");
    }
}

// The server closes first.

/// A WebSocket that the server has just closed: the code it said, and what it may have been sent
/// before that.
struct Way {
    name: &'static str,
    code: u16,
    close: fn(&mut Server, &WebSocket),
    target: &'static str,
    protocol: Option<&'static str>,
}

/// Every way in which the server closes a connection that did nothing against RFC 6455.
const WAYS: &[Way] = &[
    Way {
        name: "a message for several channels",
        code: 1008,
        close: |server, socket| server.send(socket.wire, &client_frame(TEXT, b"to which?")),
        target: "/channels/a,b",
        protocol: None,
    },
    Way {
        name: "the app's wish",
        code: 4321,
        close: |server, socket| server.send(socket.wire, &client_frame(TEXT, b"4321")),
        target: "/channels/app",
        protocol: None,
    },
    Way {
        name: "the server leaves",
        code: 1012,
        close: |server, _| {
            server.turns.drain();
            server.pass(200);
        },
        target: "/channels/a",
        protocol: Some("tidings.v1"),
    },
    Way {
        name: "messages are lost to a raw reader",
        code: 4008,
        // By its handshake already.
        close: |_, _| {},
        target: "/channels/a?after=1-1",
        protocol: Some("tidings.raw"),
    },
    Way {
        name: "too many unfinished messages",
        code: 1013,
        close: |server, socket| server.send(socket.wire, &frame(0x02, &[b'x'; 200_000])),
        target: "/channels/a",
        protocol: None,
    },
];

struct Closes;

impl App for Closes {
    fn upgrade(&mut self, _request: &Request<'_>) -> Option<Access> {
        Some(Access::Allow)
    }

    fn authorize_command(&mut self, _user: u64, _operation: Operation, _channels: &[&str]) -> Access {
        Access::Allow
    }

    /// Closes with the code that the message is; publishes any other.
    fn message(&mut self, message: &Inbound<'_>) -> Reaction {
        match std::str::from_utf8(message.payload).map(str::parse) {
            Ok(Ok(code)) => Reaction::Close(code, "as you wish".to_owned()),
            _ => Reaction::Publish,
        }
    }
}

fn config(config: &mut Config) {
    config.drain = Duration::from_millis(50);
    config.drain_grace = Duration::from_secs(3600);
    config.intake_bytes_max = 100_000;
}

/// Every way, and the socket that was closed in it. The close frame is heard; the connection stays.
fn each_way(test: impl Fn(&Way, &mut Server, &mut WebSocket)) {
    for way in WAYS {
        let mut server = Server::start_with(config, Some(Box::new(Closes)));
        let wire = server.connect();
        let mut socket = server.upgrade(wire, way.target, way.protocol);
        (way.close)(&mut server, &socket);
        let mut heard = socket.codes(&mut server);
        heard.retain(|frame| !frame.starts_with("text {\"cursor\""));
        assert_eq!(heard, [format!("close {}", way.code)], "{}: and no end yet", way.name);
        test(way, &mut server, &mut socket);
    }
}

/// protocol: A client answers a close frame of the server, which waits for that answer, throws away what comes before it, and then ends the connection
#[test]
fn the_server_ends_its_side_behind_the_answer() {
    each_way(|way, server, socket| {
        server.pass(1000);
        assert_eq!(socket.heard(server), [""; 0], "{}", way.name);
        server.send(socket.wire, &close_frame(way.code));
        assert_eq!(socket.heard(server), ["end"], "{}: and no second close frame", way.name);
        server.turns.os().half_close(socket.wire);
        server.settle();
        assert!(server.turns.os().is_released(socket.wire), "{}", way.name);
    });
}

#[test]
fn any_close_frame_is_an_answer() {
    for answer in
        [frame(0x88, b""), close_frame(1000), close_frame(1005), frame(0x88, b"\x03"), frame(0x88, b"\x03\xe8\xff")]
    {
        each_way(|way, server, socket| {
            // Byte by byte: not half of it is one.
            for &byte in &answer {
                assert_eq!(socket.heard(server), [""; 0], "{}", way.name);
                server.send(socket.wire, &[byte]);
            }
            assert_eq!(socket.heard(server), ["end"], "{}", way.name);
        });
    }
}

/// protocol: throws away what comes before it
#[test]
fn what_comes_before_the_answer_is_thrown_away() {
    let noise = [
        client_frame(TEXT, b"too late"),
        client_frame(TEXT, b"publish a\ntoo late"),
        client_frame(PING, b"?"),
        client_frame(PONG, b"!"),
        frame(0x02, &[b'x'; 70_000]),
        frame(0x80, b""),
        // Data is not looked at any more, however wrong: neither its text nor its order.
        client_frame(TEXT, b"\xff"),
        frame(0x80, b""),
        frame(0x01, &[b'x'; 300]),
        frame(0x01, b"4000"),
    ]
    .concat();
    each_way(|way, server, socket| {
        for _ in 0..10 {
            server.send(socket.wire, &noise);
        }
        assert_eq!(socket.heard(server), [""; 0], "{}", way.name);
        server.send(socket.wire, &[&noise[..], &close_frame(way.code), &noise].concat());
        assert_eq!(socket.heard(server), ["end"], "{}", way.name);
        // With the unfinished message went its memory.
        assert!(server.turns.engine().stats().intake_bytes < 1000, "{}", way.name);
        if way.code != 1012 {
            assert!(server.kept("a").is_empty(), "{}", way.name);
        }
    });
}

#[test]
fn the_answer_is_found_at_every_split() {
    let noise = [frame(0x82, &[0x88; 130]), client_frame(PING, b"\x88\x80"), frame(0x01, b"\x88\x82")].concat();
    let bytes = [&noise[..], &close_frame(1008)].concat();
    for cut in 0..bytes.len() {
        let mut server = Server::start();
        let mut socket = server.websocket("/channels/a,b", None);
        server.send(socket.wire, &[&client_frame(TEXT, b"to which?"), &bytes[..cut]].concat());
        assert_eq!(socket.codes(&mut server), ["close 1008"], "cut at {cut}");
        server.send(socket.wire, &bytes[cut..]);
        assert_eq!(socket.heard(&mut server), ["end"], "cut at {cut}");
    }
}

/// Both say close at once: each frame is the other's answer.
#[test]
fn two_close_frames_that_cross_are_one_each() {
    let mut server = Server::start();
    let mut socket = server.websocket("/channels/a,b", None);
    server.send(socket.wire, &[client_frame(TEXT, b"to which?"), close_frame(1000)].concat());
    assert_eq!(socket.codes(&mut server), ["close 1008", "end"]);
}

/// protocol: waits for that answer, throws away what comes before it, and then ends the connection, or after `close-timeout` (default 3 s
#[test]
fn a_client_that_never_answers_is_not_waited_for_longer() {
    each_way(|way, server, socket| {
        let noise = client_frame(TEXT, b"I do not listen");
        let mut waited = 0;
        while socket.heard(server).is_empty() {
            server.send(socket.wire, &noise);
            server.pass(50);
            waited += 50;
        }
        assert!((CLOSE_TIMEOUT_MS - 200..=CLOSE_TIMEOUT_MS + 200).contains(&waited), "{}: {waited} ms", way.name);
        assert!(server.turns.os().is_released(socket.wire), "{}: with the end goes all of it", way.name);
    });
}

/// One deadline holds for the answer and for the client's own end together.
#[test]
fn a_client_that_answers_late_has_what_is_left_of_the_time() {
    for late in [500, 2500] {
        each_way(|way, server, socket| {
            server.pass(late);
            server.send(socket.wire, &close_frame(way.code));
            assert_eq!(socket.heard(server), ["end"], "{}", way.name);
            let mut took = late;
            while !server.turns.os().is_released(socket.wire) {
                server.pass(50);
                took += 50;
            }
            assert!((CLOSE_TIMEOUT_MS - 200..=CLOSE_TIMEOUT_MS + 200).contains(&took), "{}: {took} ms", way.name);
        });
    }
}

#[test]
fn a_client_that_ends_instead_of_an_answer_is_let_go() {
    each_way(|way, server, socket| {
        server.turns.os().half_close(socket.wire);
        server.settle();
        assert!(server.turns.os().is_released(socket.wire), "{}", way.name);
        assert_eq!(socket.heard(server), ["end"], "{}", way.name);
    });
}

#[test]
fn a_client_that_sends_without_end_is_cut() {
    let flood = client_frame(TEXT, &[b'x'; 1 << 20]);
    each_way(|way, server, socket| {
        let mut sent = 0;
        while !server.turns.os().is_released(socket.wire) {
            assert!(sent <= 33, "{}: {sent} MiB", way.name);
            server.send(socket.wire, &flood);
            sent += 1;
        }
        assert!(sent >= 32, "{}: {sent} MiB", way.name);
    });
}

/// Whoever is closed gets whole messages before the close frame, never half of one.
#[test]
fn the_close_frame_waits_for_a_message_that_is_half_out() {
    let mut server = Server::start_with(config, None);
    server.turns.os().send_buffer = 1000;
    let wire = server.turns.os().connect();
    server.settle();
    let mut socket = server.upgrade(wire, "/channels/a", Some("tidings.raw"));
    assert_eq!(socket.heard(&mut server), [""; 0]);
    let publisher = server.connect();
    let payload = "x".repeat(5000);
    server.send(publisher, &clients::post("a", "", "", payload.as_bytes()));
    server.turns.drain();
    server.pass(400);
    let mut heard = Vec::new();
    for _ in 0..20 {
        heard.extend(socket.codes(&mut server));
        server.settle();
    }
    assert_eq!(heard, [format!("text {payload}"), "close 1012".to_owned()]);
    server.send(wire, &close_frame(1012));
    assert_eq!(socket.heard(&mut server), ["end"]);
}

/// The moment to leave may come in the turn that has read a command, before the log is asked.
#[test]
fn a_server_that_leaves_answers_what_was_asked_before() {
    let mut server = Server::start_with(
        |config| {
            config.drain = Duration::ZERO;
            config.drain_grace = Duration::from_secs(3600);
        },
        None,
    );
    let mut socket = server.websocket("/channels/b", Some("tidings.v1"));
    let the_only_connection = 0;
    server.turns.engine().received(the_only_connection, &mut client_frame(TEXT, b"publish a\nx"), false);
    server.turns.engine().drain();
    server.settle();
    let heard = socket.codes(&mut server);
    assert!(heard[0].starts_with("text {\"published\""), "{heard:?}");
    assert_eq!(heard[1..], ["close 1012"]);
}

// A connection that failed.

/// protocol: After a frame that breaks RFC 6455 it does not wait.
///
/// RFC 6455 7.1.7: "An endpoint MUST NOT continue to attempt to process data (including a responding
/// Close frame) from the remote endpoint after being instructed to _Fail the WebSocket Connection_."
#[test]
fn a_failed_connection_ends_at_once() {
    for (what, bytes, code) in [
        ("a reserved bit", frame(0xc1, b"x"), 1002),
        ("a reserved opcode", frame(0x83, b""), 1002),
        ("not masked", vec![0x81, 0x00], 1002),
        ("a length in more bytes than it needs", vec![0x82, 0xfe, 0, 1], 1002),
        ("a negative length", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("a ping that is too long", vec![0x89, 0xfe], 1002),
        ("a ping in fragments", vec![0x09], 1002),
        ("nothing to continue", frame(0x80, b""), 1002),
        ("a message inside another", [frame(0x01, b""), frame(0x81, b"")].concat(), 1002),
        ("text that is not UTF-8", client_frame(TEXT, b"\xc0\x80"), 1007),
        ("too large", frame(0x82, &[0; 262_145])[..14].to_vec(), 1009),
        ("too many fragments", [frame(0x01, b""), frame(0x00, b"").repeat(6000)].concat(), 1008),
    ] {
        let mut server = Server::start();
        let mut socket = server.websocket("/channels/a", None);
        server.send(socket.wire, &[&bytes[..], &client_frame(TEXT, b"late"), &close_frame(code)].concat());
        assert_eq!(socket.codes(&mut server), [format!("close {code}"), "end".to_owned()], "{what}");
        server.send(socket.wire, &[client_frame(PING, b""), close_frame(code)].concat());
        assert_eq!(socket.heard(&mut server), ["end"], "{what}");
        assert!(server.kept("a").is_empty(), "{what}");
        server.turns.os().half_close(socket.wire);
        server.settle();
        assert!(server.turns.os().is_released(socket.wire), "{what}");
    }
}

// Codes of our own.

/// RFC 6455 7.4.1: 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame by
/// an endpoint". An app that wants another code than may be sent gets 1000.
#[test]
fn an_app_closes_with_codes_that_may_be_sent() {
    let mut server = Server::start_with(config, Some(Box::new(Closes)));
    for code in (0..=5010).chain([0x7fff, 0xffff]) {
        let mut socket = server.websocket("/elsewhere", None);
        server.send(socket.wire, &client_frame(TEXT, code.to_string().as_bytes()));
        let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let want = if valid { code } else { 1000 };
        assert_eq!(socket.heard(&mut server), [format!("close {want} as you wish")], "{code}");
        server.turns.os().close_client(socket.wire);
    }
}

// Over sockets.

/// A close frame that is sent arrives, though the client is in the middle of sending: a socket
/// closed with unread bytes would be reset, and take the frame with it (RFC 1122 4.2.2.13).
#[test]
fn a_close_frame_is_not_destroyed_by_what_the_client_still_sends() {
    const ROUNDS: usize = 25;
    let server = TestServer::start();
    for (what, target, first, code) in [
        ("refused", "/channels/a,b", real::masked(0x81, b"to which?"), 1008),
        ("failed", "/channels/a", real::masked(0x83, b""), 1002),
        ("too large", "/channels/a", real::masked(0x82, &vec![0; 262_145]), 1009),
        ("closed by the client", "/channels/a", real::masked(0x88, &1000_u16.to_be_bytes()), 1000),
    ] {
        let behind = real::masked(0x82, &vec![b'x'; 256 * 1024]);
        for round in 0..ROUNDS {
            let mut socket = server.websocket(target, &[]);
            socket.next_json();
            socket.client.send(&first);
            for _ in 0..4 {
                socket.client.send(&behind);
            }
            socket.send_close(1000, "");
            let closed = socket.next_frame();
            assert!(
                matches!(closed, Some(real::Frame::Close(Some(got), _)) if got == code),
                "{what}, round {round}: {closed:?}"
            );
            assert_eq!(socket.next_frame(), None, "{what}, round {round}");
        }
    }
    assert!(server.poll("a", "earliest")["messages"].array().is_empty());
}
