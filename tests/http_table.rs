//! HTTP/1.1 as it stands on the wire: each case of `http_table.txt`, over the whole server.
//!
//! The kernel is the tests' own. Each case is sent whole, byte by byte, and cut at every place, and
//! must come to the same; then the same is asked of bytes that a seed has damaged. What is seen is
//! what a client and an app see: answers, requests with their bodies, and whether the connection
//! stays. With `TIDINGS_HTTP_CASES` set, all of it is written to that file, a line of JSON each, for
//! `tests/foreign/http_oracle.py`, which asks two parsers by others what they make of it.
//!
//! The form of a case, in `http_table.txt`:
//!
//! ```text
//! ## its name [where the rule is, or where the bytes come from]
//! > GET /t HTTP/1.1\r\n        bytes, with Rust's escapes; no line end is implied
//! >40* X: y\r\n                the same forty times
//! < 100                        an answer; of a refusal, its words as far as they are written here
//! < POST /t "abc"              a request that reached the app, with its body
//! = open                       what then becomes of the connection (`Fate`)
//! ```

mod kernel;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kernel::{Ending, Kernel, Rng};
use tidings::internals::{Config, EventLoop, Parts};
use tidings::{App, Request, Response};

const TABLE: &str = include_str!("http_table.txt");

/// What becomes of the connection once everything is sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Another request is served.
    Open,
    /// The server has ended it.
    Closed,
    /// The server waits for the rest of a request.
    Waits,
    /// It is a WebSocket.
    Upgraded,
}

/// What came of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    /// Answers and requests, in order, as `http_table.txt` writes them.
    lines: Vec<String>,
    fate: Fate,
}

impl Outcome {
    /// Without the interim answers, which depend on how much of a body has come (RFC 9110 10.1.1:
    /// a server "MAY omit sending a 100 (Continue) response if it has already received some or all
    /// of the content").
    fn settled(mut self) -> Outcome {
        self.lines.retain(|line| line != "100");
        self
    }
}

struct Case {
    name: String,
    source: String,
    bytes: Vec<u8>,
    want: Outcome,
}

/// Answers every path that is not the server's own, and tells what it was asked.
struct Echo(Arc<Mutex<Vec<Seen>>>);

#[derive(Clone, Debug)]
struct Seen {
    method: String,
    target: String,
    body: Vec<u8>,
}

impl App for Echo {
    fn request(&mut self, request: &Request<'_>) -> Option<Response> {
        let query = request.query().map_or(String::new(), |query| format!("?{query}"));
        let target = format!("{}{query}", request.path());
        let seen = Seen { method: request.method().into(), target, body: request.body().into() };
        self.0.lock().expect("no panic").push(seen);
        let mut response = Response::new("", "").with_status(204);
        response.headers.push(("Echo".into(), "1".into()));
        Some(response)
    }
}

impl Seen {
    fn line(&self) -> String {
        let body = if self.body.is_empty() { String::new() } else { format!(" \"{}\"", self.body.escape_ascii()) };
        format!("{} {}{body}", self.method, self.target)
    }
}

struct Server {
    turns: EventLoop<Kernel>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start() -> Server {
        // Small bounds, so that what reaches them still fits on a page.
        let mut config = Config::default();
        (config.head_bytes_max, config.message_bytes_max) = (1024, 64);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let parts = Parts { loopback: vec![false], app: Some(Box::new(Echo(Arc::clone(&seen)))), ..Parts::default() };
        let turns = EventLoop::new(Kernel::new(1), config, parts).expect("no names are configured");
        Server { turns, seen }
    }

    fn turn(&mut self) {
        loop {
            self.turns.turn(Some(Duration::ZERO)).expect("the kernel has no faults");
            if self.turns.next_timeout() != Some(Duration::ZERO) {
                return;
            }
        }
    }

    /// Sends the pieces over a connection of its own, a turn each; what came of it, and the
    /// requests.
    fn exchange<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Outcome, Vec<Seen>) {
        let wire = self.turns.os().connect_reliably();
        self.turn();
        for piece in pieces {
            self.turns.os().send(wire, piece);
            self.turn();
        }
        self.turns.check_invariants();
        let answers = self.turns.os().receive(wire, usize::MAX);
        let seen = self.take_seen();
        let lines = lines(&answers, &seen);
        let fate = match self.turns.os().ending(wire) {
            _ if lines.iter().any(|line| line == "101") => Fate::Upgraded,
            Some(Ending::Closed) => Fate::Closed,
            Some(Ending::Reset) => panic!("a reset"),
            None => {
                self.turns.os().send(wire, b"GET /probe HTTP/1.1\r\nHost: localhost\r\n\r\n");
                self.turn();
                let probed = self.take_seen();
                if probed.len() == 1 && probed[0].line() == "GET /probe" { Fate::Open } else { Fate::Waits }
            }
        };
        self.turns.os().receive(wire, usize::MAX);
        self.turns.os().close_client(wire);
        self.turn();
        (Outcome { lines, fate }, seen)
    }

    fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().expect("no panic"))
    }

    /// The outcome of bytes sent byte by byte.
    fn byte_by_byte(&mut self, bytes: &[u8]) -> Outcome {
        self.exchange(bytes.chunks(1)).0
    }
}

/// The answers on the wire, as `http_table.txt` writes them. The app's own stand for the requests
/// that it saw; each is answered once, in order.
fn lines(mut bytes: &[u8], seen: &[Seen]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut requests = seen.iter();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is ASCII");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("a status line");
        let header = |name| head.split_once(name).and_then(|(_, rest)| rest.split("\r\n").next());
        if header("\r\nEcho: ").is_some() {
            lines.push(requests.next().expect("it saw what it answered").line());
            bytes = &bytes[end..];
            continue;
        }
        let length = header("\r\nContent-Length: ").map_or(0, |digits| digits.parse().expect("a length"));
        let body = std::str::from_utf8(&bytes[end..end + length]).expect("the server's own words are UTF-8");
        let member = |name| body.split_once(name).map(|(_, rest)| rest.split("\"").next().unwrap_or_default());
        lines.push(match (member("\"code\":\""), member("\"message\":\"")) {
            (Some(code), Some(message)) => format!("{status} {code}: {message}"),
            _ => status.to_owned(),
        });
        // Behind a 101 there are frames.
        bytes = if status == "101" { &[] } else { &bytes[end + length..] };
    }
    assert!(requests.next().is_none(), "a request was seen and not answered");
    lines
}

#[test]
fn the_table_whole_byte_by_byte_and_cut_at_every_place() {
    let cases = cases();
    assert!(cases.len() >= 300, "{} cases", cases.len());
    let mut server = Server::start();
    let mut failed = 0;
    for case in &cases {
        let single = server.byte_by_byte(&case.bytes);
        let agrees = single.fate == case.want.fate
            && single.lines.len() == case.want.lines.len()
            && single.lines.iter().zip(&case.want.lines).all(|(line, want)| is_as_wanted(line, want));
        if !agrees {
            failed += 1;
            eprintln!("{} [{}]\n  wanted {:?}\n  got    {single:?}", case.name, case.source, case.want);
            continue;
        }
        let settled = single.settled();
        let whole = server.exchange([&case.bytes[..]]).0.settled();
        assert_eq!(whole, settled, "whole: {}", case.name);
        for split in 1..case.bytes.len() {
            let cut = server.exchange([&case.bytes[..split], &case.bytes[split..]]).0.settled();
            assert_eq!(cut, settled, "cut at {split}: {}", case.name);
        }
    }
    assert_eq!(failed, 0, "of {} cases", cases.len());
}

/// Refusals are compared as far as the table writes them, everything else to the end.
fn is_as_wanted(line: &str, want: &str) -> bool {
    if is_answer(want) { line.starts_with(want) } else { line == want }
}

/// True for an answer, false for a request, whose target begins with no letter.
fn is_answer(line: &str) -> bool {
    let (status, rest) = line.split_at(3);
    status.bytes().all(|byte| byte.is_ascii_digit()) && rest.as_bytes().get(1).is_none_or(u8::is_ascii_lowercase)
}

/// Damaged cases: where they are cut makes no difference either.
#[test]
fn damaged_bytes_come_to_the_same_however_they_are_cut() {
    let mut server = Server::start();
    let mut rng = Rng::new(20);
    for bytes in damaged(&cases(), 1500) {
        let whole = server.exchange([&bytes[..]]).0.settled();
        let split = rng.below(bytes.len() as u64 + 1) as usize;
        let cut = server.exchange([&bytes[..split], &bytes[split..]]).0.settled();
        assert_eq!(cut, whole, "cut at {split}: {}", bytes.escape_ascii());
        assert_eq!(server.byte_by_byte(&bytes).settled(), whole, "byte by byte: {}", bytes.escape_ascii());
    }
}

/// The ways in which smuggler.py (defparam/smuggler) hides a Transfer-Encoding: every byte in every
/// place around it. It is either chunked, or refused; never is it overlooked.
#[test]
fn no_hidden_transfer_encoding_is_overlooked() {
    let mut server = Server::start();
    let mut chunked = 0;
    for bytes in hidden_codings() {
        let (outcome, seen) = server.exchange([&bytes[..]]);
        match &seen[..] {
            [] => assert_eq!((outcome.lines.len(), outcome.fate), (1, Fate::Closed), "{}", bytes.escape_ascii()),
            // The byte was harmless: the chunk was read, or the line is not that header any more.
            [post] if post.body == b"abc" => chunked += 1,
            [post, ..] => {
                assert!(post.body.is_empty(), "{}", bytes.escape_ascii());
                assert!(!bytes.windows(19).any(|name| name == b"\nTransfer-Encoding:"), "{}", bytes.escape_ascii());
            }
        }
    }
    assert!(chunked > 10, "only {chunked} were chunked");
}

/// Requests whose Transfer-Encoding has one byte too many, anywhere about it.
fn hidden_codings() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for byte in 0..=255u8 {
        for (before, after) in [
            ("Transfer-Encoding:", "chunked"),
            ("Transfer-Encoding", ": chunked"),
            ("", "Transfer-Encoding: chunked"),
            ("Transfer", "-Encoding: chunked"),
            ("Transfer-Encoding: chunked", ""),
            ("Transfer-Encoding: ", "chunked"),
            ("Transfer-Encoding: chun", "ked"),
            ("X: X", "Transfer-Encoding: chunked"),
            ("X: X", "\r\nTransfer-Encoding: chunked"),
            ("X: X\r", "Transfer-Encoding: chunked"),
            ("X: X", "\nTransfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", "X: X"),
            ("Transfer-Encoding: chunked\r", "X: X"),
            ("Transfer-Encoding: chunked", "\nX: X"),
        ] {
            let line = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            all.push([b"POST /t HTTP/1.1\r\nHost: a\r\n", &line[..], b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"].concat());
        }
    }
    all
}

/// Cases with bytes flipped, put in, taken out and doubled.
fn damaged(cases: &[Case], count: usize) -> impl Iterator<Item = Vec<u8>> {
    const WORDS: &[&[u8]] = &[
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"\"",
        b"0",
        b"1",
        b"+",
        b"-",
        b"0x",
        b"\x0b",
        b"\x7f",
        b"\xa0",
        b"\xff",
        b"chunked",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: x\r\n",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"GET /n HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
    ];
    let short: Vec<Vec<u8>> =
        cases.iter().map(|case| case.bytes.clone()).filter(|bytes| (1..500).contains(&bytes.len())).collect();
    let mut rng = Rng::new(9112);
    (0..count).map(move |_| {
        let mut bytes = rng.pick(&short.iter().collect::<Vec<_>>()).clone();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            let length = 1 + rng.below(12.min((bytes.len() - at) as u64)) as usize;
            match rng.below(5) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes[at] = rng.below(256) as u8,
                2 => drop(bytes.splice(at..at, rng.pick(WORDS).iter().copied())),
                3 if bytes.len() > length => drop(bytes.drain(at..at + length)),
                _ => {
                    let copy = bytes[at..at + length].to_vec();
                    drop(bytes.splice(at..at, copy));
                }
            }
        }
        bytes
    })
}

/// Writes what came of the table, of the hidden codings and of damaged bytes, for parsers by others
/// to judge.
#[test]
fn what_others_are_to_judge() {
    let cases = cases();
    let (path, count) = match std::env::var_os("TIDINGS_HTTP_CASES") {
        Some(path) => (Some(path), 60_000),
        None => (None, 100),
    };
    let named = cases.iter().map(|case| (case.name.clone(), case.bytes.clone()));
    let hidden = hidden_codings().into_iter().map(|bytes| ("hidden coding".to_owned(), bytes));
    let damaged = damaged(&cases, count).map(|bytes| ("damaged".to_owned(), bytes));
    let mut server = Server::start();
    let mut out = String::new();
    for (name, bytes) in named.chain(hidden).chain(damaged) {
        let (outcome, seen) = server.exchange([&bytes[..]]);
        json_line(&mut out, &name, &bytes, &outcome, &seen);
    }
    assert!(out.lines().count() > count + cases.len());
    if let Some(path) = path {
        std::fs::write(path, out).expect("the file can be written");
    }
}

/// `{"name","bytes","got":[...],"fate"}`: each of `got` is an answer as text, or a request as method,
/// target and body. Bytes are in hex.
fn json_line(out: &mut String, name: &str, bytes: &[u8], outcome: &Outcome, seen: &[Seen]) {
    let mut requests = seen.iter();
    let got: Vec<String> = outcome
        .lines
        .iter()
        .map(|line| {
            if is_answer(line) {
                return format!("\"{}\"", line.replace(['\\', '"'], ""));
            }
            let Seen { method, target, body } = requests.next().expect("as many as lines");
            format!("[\"{method}\",\"{}\",\"{}\"]", hex(target.as_bytes()), hex(body))
        })
        .collect();
    let (bytes, got) = (hex(bytes), got.join(","));
    writeln!(out, "{{\"name\":\"{name}\",\"bytes\":\"{bytes}\",\"got\":[{got}],\"fate\":\"{:?}\"}}", outcome.fate)
        .expect("memory");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// The table.

fn cases() -> Vec<Case> {
    let blocks = TABLE.split("\n## ").skip(1);
    let cases: Vec<Case> = blocks.map(case).collect();
    for (nth, case) in cases.iter().enumerate() {
        assert!(cases[..nth].iter().all(|other| other.name != case.name), "{:?} is there twice", case.name);
    }
    cases
}

fn case(block: &str) -> Case {
    let mut rows = block.lines();
    let title = rows.next().expect("a title");
    let (name, source) =
        title.strip_suffix(']').and_then(|title| title.split_once(" [")).unwrap_or_else(|| panic!("{title}"));
    let mut case = Case {
        name: name.into(),
        source: source.into(),
        bytes: Vec::new(),
        want: Outcome { lines: Vec::new(), fate: Fate::Waits },
    };
    let mut fate = None;
    for row in rows.take_while(|row| !row.is_empty()) {
        match row.split_at(2) {
            ("> ", text) => case.bytes.extend(unescaped(text)),
            ("< ", line) => case.want.lines.push(line.into()),
            ("= ", word) => {
                fate = Some(match word {
                    "open" => Fate::Open,
                    "closed" => Fate::Closed,
                    "waits" => Fate::Waits,
                    "upgraded" => Fate::Upgraded,
                    _ => panic!("{name}: {row}"),
                });
            }
            _ => {
                let (times, text) = row[1..].split_once("* ").unwrap_or_else(|| panic!("{name}: {row}"));
                case.bytes.extend(unescaped(text).repeat(times.parse().expect("a number")));
            }
        }
    }
    case.want.fate = fate.unwrap_or_else(|| panic!("{name}: what becomes of the connection?"));
    case
}

/// Bytes from Rust's escapes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'x') => {
                    let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.expect("a digit")));
                    u8::from_str_radix(&String::from_iter(digits), 16).expect("two hex digits")
                }
                Some(byte) => byte,
                None => panic!("{text:?} ends in its escape"),
            },
            _ => byte,
        });
    }
    bytes
}
