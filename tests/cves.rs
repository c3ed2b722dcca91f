//! What once harmed other servers, sent to this one. `docs/security.md` tells the stories, and which
//! test shows the rule; here are those that stand nowhere else, and the proof that each exists.
//!
//! The kernel is the tests' own: what is asserted is what came back, never how long it took.

mod clients;
mod kernel;

use std::fs;
use std::path::Path;
use std::time::Duration;

use clients::{CLOSE, Frame, Frames, TEXT, client_frame};
use kernel::{Kernel, Wire};
use tidings::internals::{Config, EventLoop, Parts};
use tidings::{Access, App, Request};

const KIB: usize = 1024;
/// RFC 6455 7.4.1.
const PROTOCOL_ERROR: u16 = 1002;
const TOO_BIG: u16 = 1009;
const POLICY: u16 = 1008;

struct Server(EventLoop<Kernel>);

impl Server {
    fn start() -> Server {
        Server(EventLoop::new(Kernel::new(1), Config::default(), Parts::default()).expect("no names are configured"))
    }

    fn with_app(app: impl App + 'static) -> Server {
        let parts = Parts { app: Some(Box::new(app)), ..Parts::default() };
        Server(EventLoop::new(Kernel::new(1), Config::default(), parts).expect("no names are configured"))
    }

    /// What comes back over a connection of its own, each piece sent in a turn of its own.
    fn exchange(&mut self, pieces: &[&[u8]]) -> (Wire, Vec<u8>) {
        let wire = self.0.os().connect_reliably();
        let mut back = Vec::new();
        for piece in pieces {
            self.0.os().send(wire, piece);
            // Once to accept it, if it is new; then for as long as something is left to do.
            for _ in 0..3 {
                self.turn();
            }
            while self.0.next_timeout() == Some(Duration::ZERO) {
                self.turn();
            }
            back.extend(self.0.os().receive(wire, usize::MAX));
        }
        (wire, back)
    }

    fn turn(&mut self) {
        self.0.turn(Some(Duration::ZERO)).expect("the kernel has no faults");
        self.0.check_invariants();
    }

    fn text(&mut self, bytes: &[u8]) -> String {
        String::from_utf8_lossy(&self.exchange(&[bytes]).1).into_owned()
    }

    /// The frames that come back for these, behind the first one.
    fn frames(&mut self, protocol: Option<&str>, bytes: &[u8]) -> Vec<Frame> {
        let (_, back) = self.exchange(&[&clients::upgrade("a", "", protocol), bytes]);
        let head = back.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
        assert!(back.starts_with(b"HTTP/1.1 101 "), "{}", back.escape_ascii());
        let mut frames = Frames::default();
        frames.receive(&back[head..]);
        let mut all = Vec::new();
        while let Some(frame) = frames.next_frame().expect("frames that the standard allows") {
            all.push(frame);
        }
        all
    }

    fn closes_with(&mut self, bytes: &[u8]) -> Option<u16> {
        match self.frames(Some("tidings.raw"), bytes).pop() {
            Some(Frame::Close(code, _)) => code,
            _ => None,
        }
    }

    /// How many messages there are in all.
    fn published(&mut self) -> usize {
        self.text(&clients::get("a,b,hidden", "?after=earliest&wait=0", "")).matches("\"id\"").count()
    }
}

/// CVE-2021-32640: white space in a list of subprotocols took a regular expression seconds. And an
/// extension named `constructor` was looked up in an object that has one.
#[test]
fn lists_of_tokens_are_read_in_one_go() {
    let mut server = Server::start();
    for list in [" ".repeat(12 * KIB), " ,".repeat(6 * KIB), "a,".repeat(6 * KIB), "\t \t,".repeat(3 * KIB)] {
        let answer = server.text(&clients::upgrade("a", "", Some(&list)));
        assert!(answer.starts_with("HTTP/1.1 101 ") && !answer.contains("Sec-WebSocket-Protocol"), "{answer}");
    }
    for (extension, status) in [
        ("constructor", 101),
        ("__proto__", 101),
        ("toString; hasOwnProperty=1", 101),
        (&"a,".repeat(6 * KIB), 101),
        (&"a;b,".repeat(3 * KIB), 101),
        (&"a;".repeat(6 * KIB), 400),
    ] {
        let request = String::from_utf8(clients::upgrade("a", "", None)).expect("ASCII");
        let lines = format!("\r\nSec-WebSocket-Extensions: {extension}\r\n\r\n");
        let answer = server.text(request.replace("\r\n\r\n", &lines).as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(!answer.contains("Sec-WebSocket-Extensions: "), "{answer}");
    }
}

/// Opens a WebSocket on every path that it is asked about.
struct Open;

impl App for Open {
    fn upgrade(&mut self, _request: &Request<'_>) -> Option<Access> {
        Some(Access::Allow)
    }
}

/// Cross-site WebSocket hijacking (CVE-2024-26135 is one of many): a page of another site opens a WebSocket
/// with its visitor's rights, for no browser asks before. So the Origin is checked wherever one can be opened.
#[test]
fn a_page_of_another_site_opens_no_websocket() {
    let mut server = Server::with_app(Open);
    for path in ["/", "/own", "/tidings.js", "/channels/a", "/channels", "/metrics", "/healthz", "/readyz", "*"] {
        for (origin, is_ours) in [("https://b.example", false), ("null", false), ("http://localhost", true)] {
            let request = String::from_utf8(clients::upgrade("a", "", None)).expect("ASCII");
            let request = request.replacen("/channels/a", path, 1);
            let request = request.replacen("\r\n", &format!("\r\nOrigin: {origin}\r\n"), 1);
            let answer = server.text(request.as_bytes());
            let may_open = is_ours && ["/", "/own", "/channels/a"].contains(&path);
            assert_eq!(answer.starts_with("HTTP/1.1 101 "), may_open, "{path} from {origin}: {answer}");
        }
    }
}

/// CVE-2025-4366, CVE-2020-35863, RUSTSEC-2020-0093: a request was refused, its body left where it
/// was, and read as the next request of the connection.
#[test]
fn an_unread_body_is_never_a_request() {
    let mut server = Server::start();
    let hidden = clients::post("hidden", "", "", b"x");
    let length = format!("Content-Length: {}\r\n", hidden.len());
    for head in [
        format!("POST /channels/! HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"),
        format!("POST /channels/a HTTP/1.1\r\nHost: localhost\r\nOrigin: https://b.example\r\n{length}\r\n"),
        format!("POST /channels/a HTTP/1.1\r\nHost: b.example\r\n{length}\r\n"),
        format!("PUT /channels/a HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"),
        format!("HEAD /channels/a HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"),
        format!("GET /channels/a?transport=websocket HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"),
        format!(
            "POST /channels/! HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            hidden.len()
        ),
    ] {
        for pieces in [&[head.as_bytes(), &hidden][..], &[&[head.as_bytes(), &hidden].concat()]] {
            let (_, back) = server.exchange(pieces);
            assert_eq!(back.windows(8).filter(|window| window == b"\r\nDate: ").count(), 1, "{}", back.escape_ascii());
        }
    }
    assert_eq!(server.published(), 0);
}

/// CVE-2022-35922: room was made for a message as long as its frame said. CVE-2020-27813: the sum of
/// two lengths overflowed.
#[test]
fn a_frame_may_announce_what_it_likes() {
    let mut server = Server::start();
    for (length, code) in [(u64::MAX >> 1, TOO_BIG), (1 << 62, TOO_BIG), (1 << 31, TOO_BIG), (u64::MAX, PROTOCOL_ERROR)]
    {
        let frame = [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(server.closes_with(&frame), Some(code), "{length:#x}");
        // And behind a fragment, where it is added to what has come.
        let fragment = [&[0x02, 0x81, 0, 0, 0, 0, b'x', 0x80, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(server.closes_with(&fragment), Some(code), "{length:#x} behind a fragment");
    }
}

/// GHSA-96hv-2xvq-fx4p: a message of 131,000 fragments of a byte each took fifteen times its size.
#[test]
fn fragments_without_end_are_ended() {
    let mut server = Server::start();
    let byte = [0x00, 0x81, 0, 0, 0, 0, b'x'];
    let fragments = [&[0x01, 0x81, 0, 0, 0, 0, b'x'][..], &byte.repeat(131_000)].concat();
    assert_eq!(server.closes_with(&fragments), Some(POLICY));
}

/// A ping of more than 125 bytes came back as a pong that the client took for several frames; and
/// pongs were queued for a peer that sent pings and read nothing.
#[test]
fn pings_are_short_and_their_answers_bounded() {
    let mut server = Server::start();
    let long = [&[0x89, 0xfe, 0, 126][..], &[0; 4 + 126]].concat();
    assert_eq!(server.closes_with(&long), Some(PROTOCOL_ERROR));
    // Now for a peer that reads nothing and has room for little.
    server.0.os().send_buffer = 512;
    let wire = server.0.os().connect();
    server.0.os().send(wire, &clients::upgrade("a", "", Some("tidings.raw")));
    for _ in 0..3 {
        server.turn();
    }
    let ping = client_frame(9, &[b'p'; 125]);
    for _ in 0..1000 {
        server.0.os().send(wire, &ping.repeat(100));
        server.turn();
    }
    assert!(server.0.os().receive(wire, usize::MAX).len() <= 512, "what its kernel holds");
    server.turn();
    let queued = server.0.os().receive(wire, usize::MAX).len();
    assert!(queued < KIB, "{queued} bytes were queued");
}

/// RFC 6455 5.1: what is not masked may be read as HTTP by a proxy that is not in the know.
#[test]
fn a_frame_that_is_not_masked_is_refused() {
    let mut server = Server::start();
    assert_eq!(server.closes_with(b"\x81\x01x"), Some(PROTOCOL_ERROR));
    assert_eq!(server.published(), 0);
}

/// Frames behind a close frame crashed one server, and were answered by a second close by another.
#[test]
fn behind_a_close_frame_there_is_nothing() {
    let mut server = Server::start();
    let close = client_frame(CLOSE, &1000u16.to_be_bytes());
    let bytes = [&close[..], &client_frame(TEXT, b"x"), &client_frame(9, b""), &close].concat();
    let frames = server.frames(Some("tidings.raw"), &bytes);
    assert_eq!(frames, [Frame::Close(Some(1000), String::new())]);
    assert_eq!(server.published(), 0);
}

/// CVE-2014-4671 and others: a callback's name, first in an answer, was a Flash file or a script.
#[test]
fn there_is_no_jsonp() {
    let mut server = Server::start();
    for query in ["?wait=0&callback=alert", "?wait=0&jsonp=alert", "?wait=0&format=raw&callback=alert"] {
        let answer = server.text(&clients::get("a", query, ""));
        assert!(answer.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{answer}");
        assert!(!answer.contains("alert") && !answer.contains("javascript"), "{answer}");
    }
}

/// Line ends in a name became fields of the event stream, and lines of the head.
#[test]
fn no_name_carries_a_line_end() {
    let mut server = Server::start();
    for (query, extra, code) in [
        ("?event=a%0d%0aid:%209", "", "bad_event"),
        ("?event=a%0ddata:%20x", "", "bad_event"),
        ("?event=a%0aevent:%20gap", "", "bad_event"),
        ("?event=a%00", "", "bad_event"),
        ("", "Content-Type: text/plain; a=\"\u{85}\"\r\n", "bad_type"),
        ("", "Content-Type: text/plain\u{2028}\r\n", "bad_type"),
        ("", "Idempotency-Key: a\tb\r\n", "bad_key"),
    ] {
        let answer = server.text(&clients::post("a", query, extra, b"x"));
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{query}{extra}: {answer}");
    }
    let answer = server.text(&clients::post("a%0d%0aX:%20y", "", "", b"x"));
    assert!(answer.contains("\"code\":\"bad_channel\"") && !answer.contains("X: y"), "{answer}");
}

// The page.

/// A test that is named is there, each story names one, and each number that the table of HTTP
/// names as a source has its story.
#[test]
fn each_story_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let page = read("docs/security.md");
    let mut named = 0;
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && !["| class ", "| --- "].iter().any(|head| line.starts_with(head)))
    {
        let tests = row.split('`').filter_map(|words| words.split_once(": ")).filter(|(file, _)| file.contains('/'));
        let mut of_this_row = 0;
        for (file, name) in tests {
            let text = read(file);
            let is_there = if file.ends_with(".rs") {
                text.contains(&format!("fn {name}("))
            } else {
                text.contains(&format!("\n## {name} ["))
            };
            assert!(is_there, "{file} has no {name}");
            of_this_row += 1;
        }
        assert!(of_this_row > 0, "a story without a test: {row}");
        named += of_this_row;
    }
    assert!(named > 50, "only {named} tests are named");
    for title in read("tests/http_table.txt").lines().filter(|line| line.starts_with("## ")) {
        let source = title.rsplit_once(" [").map_or("", |(_, source)| source.trim_end_matches(']'));
        if source.starts_with("CVE-") || source.starts_with("RUSTSEC-") {
            assert!(page.contains(source), "{title}: not told in docs/security.md");
        }
    }
}
