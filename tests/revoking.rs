//! Tokens that are replaced under readers in every state: over the fake kernel, so that who is
//! blocked with half a message is blocked at a known byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clients;
mod kernel;

use std::sync::Arc;
use std::time::Duration;

use clients::{Format, Heard, Reader, Transport};
use kernel::{Ending, Kernel, Rng, Wire};
use tidings::Tokens;
use tidings::internals::{Command, Commands, Config, EventLoop, Os, Parts};

struct Server {
    turns: EventLoop<Kernel>,
    commands: Arc<Commands>,
}

fn tokens(lines: &str) -> Tokens {
    let mut tokens = Tokens::default();
    tokens.allow_lines(lines.as_bytes()).unwrap();
    tokens
}

impl Server {
    fn start(lines: &str) -> Server {
        Server::start_with(lines, Config::default())
    }

    fn start_with(lines: &str, mut config: Config) -> Server {
        config.tokens = tokens(lines);
        let commands = Arc::new(Commands::new(16, 1024, Box::new(|| {})));
        let parts = Parts { commands: Arc::clone(&commands), ..Parts::default() };
        Server { turns: EventLoop::new(Kernel::new(1), config, parts).unwrap(), commands }
    }

    fn send(&mut self, bytes: &[u8]) -> Wire {
        let wire = self.turns.os().connect();
        self.turn_for(1);
        assert_eq!(self.turns.os().send(wire, bytes), bytes.len());
        self.turn_for(1);
        wire
    }

    fn set_tokens(&mut self, lines: &str) {
        assert!(self.commands.push(Command::SetTokens(tokens(lines))).is_ok());
        self.turn_for(1);
    }

    fn publish(&mut self, body: &[u8]) {
        let wire = self.send(&clients::post("a", "?token=p", "", body));
        assert!(self.receive(wire).starts_with(b"HTTP/1.1 200 "));
    }

    fn turn_for(&mut self, ms: u64) {
        let end = self.turns.os().now_ms() + ms;
        loop {
            let left = end.saturating_sub(self.turns.os_ref().now_ms());
            let more = self.turns.turn(Some(Duration::from_millis(left))).unwrap().more;
            self.turns.check_invariants();
            if left == 0 && !more {
                return;
            }
        }
    }

    fn receive(&mut self, wire: Wire) -> Vec<u8> {
        self.turns.os().receive(wire, usize::MAX)
    }
}

const SSE: &str = "Accept: text/event-stream\r\n";

/// Who was in the middle of a message gets the rest of it, for half a message would break the
/// framing of what ends the stream; and nothing that waited behind it.
#[test]
fn a_blocked_reader_gets_the_rest_of_its_message_and_no_other() {
    for (transport, request, close) in [
        (Transport::Sse, clients::get("a", "?token=s&format=json", SSE), None),
        (Transport::WebSocket, clients::upgrade("a", "?token=s", None), Some(1008)),
    ] {
        let mut server = Server::start("publish p\nsubscribe s");
        server.turns.os().send_buffer = 4096;
        let wire = server.send(&request);
        server.turns.os().send_buffer = 1 << 20;
        for byte in [b'1', b'2', b'3'] {
            server.publish(&[byte; 6000]);
        }
        server.set_tokens("publish p");

        let mut reader = Reader::new(transport, Format::Json);
        let mut heard = Vec::new();
        for _ in 0..20 {
            let bytes = server.receive(wire);
            heard.extend(reader.receive(&bytes).unwrap());
            // A WebSocket's answer to the close frame is waited for.
            server.turn_for(200);
        }
        let payloads: Vec<u8> = heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Message(message) => Some(message.payload[0]),
                _ => None,
            })
            .collect();
        assert_eq!(payloads, b"1", "{transport:?}");
        assert_eq!(heard.last(), Some(&Heard::Done(close)), "{transport:?}");
        assert_eq!(server.turns.os().ending(wire), Some(Ending::Closed), "{transport:?}");
        server.turn_for(10_000);
        assert!(server.turns.os().is_released(wire), "{transport:?}");
    }
}

/// Who reads nothing does not keep its connection for the whole stall timeout.
#[test]
fn who_reads_nothing_is_gone_after_the_close_timeout() {
    let mut server = Server::start("publish p\nsubscribe s");
    server.turns.os().send_buffer = 4096;
    let wires = [clients::get("a", "?token=s", SSE), clients::upgrade("a", "?token=s", None)]
        .map(|request| server.send(&request));
    server.turns.os().send_buffer = 1 << 20;
    server.publish(&[b'x'; 60_000]);
    server.turn_for(1000);
    server.set_tokens("publish p");
    server.turn_for(4000);
    for wire in wires {
        assert!(server.turns.os().is_released(wire));
    }
    assert_eq!(server.turns.engine().stats().output_bytes, 0, "no message is pinned for them");
}

/// A turn writes to so many and no more: whose turn comes only after the close timeout is told as well.
#[test]
fn who_waits_for_its_turn_longer_than_the_close_timeout_is_told() {
    let mut config = Config::default();
    config.writes_per_turn_max = 1;
    let close_timeout_ms = config.close_timeout.as_millis() as u64;
    let mut server = Server::start_with("publish p\nsubscribe s", config);
    let mut readers: Vec<(Wire, Reader)> = Vec::new();
    for _ in 0..100 {
        for (transport, request) in [
            (Transport::Sse, clients::get("a", "?token=s&format=json", SSE)),
            (Transport::WebSocket, clients::upgrade("a", "?token=s", None)),
        ] {
            readers.push((server.send(&request), Reader::new(transport, Format::Json)));
        }
    }
    server.turns.os().working = Some(Rng::new(1));
    let began_ms = server.turns.os().now_ms();
    server.set_tokens("publish p");
    assert!(server.turns.os().now_ms() > began_ms + close_timeout_ms, "some of them had to wait for so long");
    for (nth, (wire, reader)) in readers.iter_mut().enumerate() {
        let bytes = server.receive(*wire);
        let heard = reader.receive(&bytes).unwrap();
        let close = (nth % 2 == 1).then_some(1008);
        assert_eq!(heard.last(), Some(&Heard::Done(close)), "client {nth}");
    }
    server.turns.os().working = None;
    server.turn_for(2 * close_timeout_ms);
    assert!(readers.iter().all(|(wire, _)| server.turns.os().is_released(*wire)), "and no longer than needed");
}

/// protocol: or after `close-timeout` (default 3 s, from when the frame was written) without one.
///
/// Whoever is told only just before its deadline has the whole close timeout from then on, to read it and to
/// answer.
#[test]
fn who_is_told_late_has_the_whole_close_timeout() {
    for request in [clients::get("a", "?token=s", SSE), clients::upgrade("a", "?token=s", None)] {
        let mut config = Config::default();
        config.writes_per_turn_max = 1;
        let close_timeout_ms = config.close_timeout.as_millis() as u64;
        let mut server = Server::start_with("publish p\nsubscribe s", config);
        let wires = [(); 2].map(|()| server.send(&request));
        let _ = wires.map(|wire| server.receive(wire));
        assert!(server.commands.push(Command::SetTokens(tokens("publish p"))).is_ok());
        server.turns.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(wires.map(|wire| server.receive(wire).is_empty()), [false, true], "one of them is written to");
        // The server stands still until just before the deadline.
        let os = server.turns.os();
        let end_ms = os.now_ms() + close_timeout_ms - 50;
        os.wait(Some(Duration::from_millis(end_ms - os.now_ms())), &mut Vec::new()).unwrap();
        server.turns.turn(Some(Duration::ZERO)).unwrap();
        assert!(!server.receive(wires[1]).is_empty(), "now the other");
        server.turn_for(close_timeout_ms - 50);
        assert!(!server.turns.os().is_released(wires[1]), "its time is not over");
        server.turn_for(200);
        assert!(server.turns.os().is_released(wires[1]), "and now it is");
    }
}

/// What is published in the turn in which the token goes is not delivered to its holder any more.
#[test]
fn a_message_of_the_same_turn_comes_too_late() {
    for request in [
        clients::get("a", "?token=s", SSE),
        clients::get("a", "?token=s", ""),
        clients::get("a", "?token=s&format=raw", ""),
        clients::upgrade("a", "?token=s", None),
        clients::upgrade("a", "?token=s", Some("tidings.raw")),
    ] {
        let mut server = Server::start("publish p\nsubscribe s");
        let wire = server.send(&request);
        server.receive(wire);
        let publisher = server.turns.os().connect();
        server.turn_for(1);
        server.turns.os().send(publisher, &clients::post("a", "?token=p", "", b"late"));
        server.set_tokens("publish p");
        assert!(server.receive(publisher).starts_with(b"HTTP/1.1 200 "));
        let last = server.receive(wire);
        assert!(!last.is_empty() && !last.windows(4).any(|four| four == b"late"), "{}", last.escape_ascii());
    }
}

/// A body under way when its token goes is refused when it is there.
#[test]
fn a_body_is_judged_when_it_is_whole() {
    let mut server = Server::start("publish p\npublish q");
    let request = clients::post("a", "?token=p", "", b"12345");
    let (head, body) = request.split_at(request.len() - 5);
    let wire = server.send(head);
    server.set_tokens("publish q");
    server.turns.os().send(wire, body);
    server.turn_for(1);
    let answer = String::from_utf8(server.receive(wire)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("token_wrong"), "{answer}");
    assert_eq!(server.turns.engine().stats().head, 0);
}

/// A command that waits for the log when its connection is closed is let go of, and its bytes with it:
/// they were counted in `intake-bytes-max` for ever, until every sender was told `busy`.
#[test]
fn a_command_that_waits_goes_with_its_connection() {
    let mut server = Server::start("publish p");
    let wire = server.send(&clients::upgrade("a", "?token=p", Some("tidings.v1")));
    server.receive(wire);
    // In one read: the second may not overtake the first, which the log decides on at the turn's end.
    let commands = [&b"publish a\nfirst"[..], b"subscribe b"];
    let frames = commands.map(|command| clients::client_frame(clients::TEXT, command)).concat();
    server.turns.os().send(wire, &frames);
    server.set_tokens("publish q");
    let answer = server.receive(wire);
    assert!(answer.starts_with(b"\x88") && answer[2..4] == 1008u16.to_be_bytes(), "{}", answer.escape_ascii());
    assert_eq!(server.turns.engine().stats().intake_bytes, 0);
}

/// An index names one connection after the other: nobody inherits a token.
#[test]
fn the_next_connection_of_an_index_does_not_inherit_its_token() {
    let mut server = Server::start("publish p");
    for (query, may) in [("?token=p", true), ("", false), ("?token=p", true), ("", false)] {
        let wire = server.send(&clients::upgrade("a", query, Some("tidings.raw")));
        server.receive(wire);
        server.turns.os().send(wire, &clients::client_frame(clients::TEXT, b"x"));
        server.turn_for(1);
        let answer = server.receive(wire);
        assert_eq!(answer.starts_with(b"\x81\x01x"), may, "{}", answer.escape_ascii());
        server.turns.os().close_client(wire);
        server.turn_for(10_000);
        assert_eq!(server.turns.engine().stats().connections, 0);
    }
}
