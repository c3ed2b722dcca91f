//! A gap is always said, never silent: every transport, format and reason, as a wire trace.
//!
//! Each case is bytes to the server and bytes from it. `{e}` stands for the epoch of the run,
//! `{o}` for another one. The parts of an answer that say nothing about gaps are left out.

mod clients;
mod kernel;

use std::time::Duration;

use kernel::{Ending, Kernel, Wire};
use tidings::internals::{Config, EventLoop, Parts};

/// A server with this history: channel `a` has lost 1, 2 and 4, keeps 5 and 6; channel `b` keeps 3;
/// nothing was ever published in `quiet`. The head is 6.
struct Server {
    engine: EventLoop<Kernel>,
    epoch: u32,
}

impl Server {
    fn start() -> Server {
        Server::start_with(64 * 1024, |_| {})
    }

    fn start_with(send_buffer: usize, adjust: impl Fn(&mut Config)) -> Server {
        let mut config = Config::default();
        config.history_messages = 2;
        adjust(&mut config);
        let mut kernel = Kernel::new(7);
        kernel.send_buffer = send_buffer;
        let mut server = Server {
            engine: EventLoop::new(kernel, config, Parts::default()).expect("the names of the configuration are names"),
            epoch: 0,
        };
        for (channel, payload) in
            [("a", "one"), ("a", "two"), ("b", "three"), ("a", "four"), ("a", "five"), ("a", "six")]
        {
            server.publish(channel, payload.as_bytes());
        }
        server
    }

    fn publish(&mut self, channel: &str, payload: &[u8]) {
        let answer = self.exchange(&clients::post(channel, "", "", payload));
        let id = answer.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id");
        self.epoch = clients::Place::parse(id).expect("a cursor").epoch;
    }

    /// Sends these bytes on a fresh connection and returns what comes back at once.
    fn exchange(&mut self, bytes: &[u8]) -> String {
        let wire = self.open(bytes);
        self.read(wire)
    }

    fn open(&mut self, bytes: &[u8]) -> Wire {
        let wire = self.engine.os().connect();
        assert_eq!(self.engine.os().send(wire, bytes), bytes.len());
        self.turn();
        wire
    }

    /// Everything this wire has to say, as text; other bytes as `\x..`.
    fn read(&mut self, wire: Wire) -> String {
        let mut text = String::new();
        let mut quiet = 0;
        while quiet < 3 {
            let bytes = self.engine.os().receive(wire, usize::MAX);
            quiet = if bytes.is_empty() { quiet + 1 } else { 0 };
            text.push_str(&readable(&bytes));
            self.turn();
        }
        text
    }

    fn turn(&mut self) {
        for _ in 0..3 {
            self.engine.turn(Some(Duration::ZERO)).expect("the kernel has no faults");
            self.engine.check_invariants();
        }
    }

    /// `{e}` is this epoch, `{o}` another.
    fn fill_in(&self, text: &str) -> String {
        let other = if self.epoch == 1 { 2 } else { self.epoch - 1 };
        text.replace("{e}", &self.epoch.to_string()).replace("{o}", &other.to_string())
    }
}

fn readable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&byte| match byte {
            b'\r' | b'\n' | b' '..=b'~' => char::from(byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect()
}

/// One question, and what its answer must and must not contain, in order.
struct Case {
    name: &'static str,
    channels: &'static str,
    after: &'static str,
    gap: &'static str,
    /// The payloads that follow the gap.
    then: &'static [&'static str],
    cursor: &'static str,
}

/// The reasons of protocol.md, and where delivery goes on.
const CASES: &[Case] = &[
    Case {
        name: "evicted",
        channels: "a",
        after: "{e}-1",
        gap: r#"{"after":"{e}-1","through":"{e}-4","cursor":"{e}-4","reason":"evicted"}"#,
        then: &["five", "six"],
        cursor: "{e}-6",
    },
    Case {
        name: "evicted in one channel of a set: the kept ones of the other still follow",
        channels: "b,a",
        after: "{e}-0",
        gap: r#"{"after":"{e}-0","through":"{e}-4","cursor":"{e}-2","reason":"evicted"}"#,
        then: &["three", "five", "six"],
        cursor: "{e}-6",
    },
    Case {
        name: "another epoch",
        channels: "a",
        after: "{o}-5",
        gap: r#"{"after":"{o}-5","through":"{e}-4","cursor":"{e}-4","reason":"epoch"}"#,
        then: &["five", "six"],
        cursor: "{e}-6",
    },
    Case {
        name: "another epoch, nothing lost",
        channels: "b",
        after: "{o}-9",
        gap: r#"{"after":"{o}-9","through":"{e}-0","cursor":"{e}-2","reason":"epoch"}"#,
        then: &["three"],
        cursor: "{e}-6",
    },
    Case {
        name: "the future",
        channels: "a",
        after: "{e}-7",
        gap: r#"{"after":"{e}-7","through":"{e}-4","cursor":"{e}-4","reason":"future"}"#,
        then: &["five", "six"],
        cursor: "{e}-6",
    },
    Case {
        name: "the future of a quiet channel",
        channels: "quiet",
        after: "{e}-9223372036854775807",
        gap: r#"{"after":"{e}-9223372036854775807","through":"{e}-0","cursor":"{e}-6","reason":"future"}"#,
        then: &[],
        cursor: "{e}-6",
    },
    Case {
        name: "unknown",
        channels: "a",
        after: "yesterday",
        gap: r#"{"after":"yesterday","through":"{e}-4","cursor":"{e}-4","reason":"unknown"}"#,
        then: &["five", "six"],
        cursor: "{e}-6",
    },
];

/// Checks that `parts` stand in `text` in this order.
fn assert_in_order(text: &str, parts: &[String], case: &str) {
    let mut rest = text;
    for part in parts {
        let Some((_, after)) = rest.split_once(part.as_str()) else {
            panic!("{case}: expected\n{part}\nafter what came before it, in\n{text}");
        };
        rest = after;
    }
}

/// `after=` for a cursor, `Last-Event-ID` for what only a header may say.
fn start(server: &Server, case: &Case, format: &str) -> (String, String) {
    let after = server.fill_in(case.after);
    if case.name == "unknown" {
        (format!("?wait=0&format={format}"), format!("Last-Event-ID: {after}\r\n"))
    } else {
        (format!("?wait=0&format={format}&after={after}"), String::new())
    }
}

#[test]
fn long_poll_json() {
    for case in CASES {
        let mut server = Server::start();
        let (query, lines) = start(&server, case, "json");
        let answer = server.exchange(&clients::get(case.channels, &query, &lines));
        let cursor = server.fill_in(case.cursor);
        let gap = format!("\"gap\":{}", server.fill_in(case.gap));
        assert!(answer.contains(&gap), "{}: {answer}", case.name);
        let mut parts = vec!["HTTP/1.1 200 OK\r\n".into(), format!("Tidings-Cursor: {cursor}\r\n"), "\r\n\r\n".into()];
        parts.push(format!("{{\"cursor\":\"{cursor}\","));
        parts.push("\"messages\":[".into());
        parts.extend(case.then.iter().map(|payload| format!("\"data\":\"{payload}\"")));
        assert_in_order(&answer, &parts, case.name);
        assert_eq!(answer.matches("\"data\":").count(), case.then.len(), "{}: {answer}", case.name);
    }
}

#[test]
fn long_poll_raw() {
    for case in CASES {
        let mut server = Server::start();
        let (query, lines) = start(&server, case, "raw");
        let answer = server.exchange(&clients::get(case.channels, &query, &lines));
        let gap = format!("Tidings-Gap: {}\r\n", server.fill_in(case.gap));
        assert!(answer.contains(&gap), "{}: {answer}", case.name);
        match case.then.first() {
            Some(payload) => {
                assert_in_order(&answer, &["HTTP/1.1 200 OK\r\n".into(), format!("\r\n\r\n{payload}")], case.name);
            }
            None => assert_in_order(&answer, &["HTTP/1.1 204 No Content\r\n".into()], case.name),
        }
    }
}

#[test]
fn sse() {
    for format in ["json", "raw"] {
        for case in CASES {
            let mut server = Server::start();
            let (query, lines) = start(&server, case, format);
            let lines = format!("Accept: text/event-stream\r\n{lines}");
            let stream = server.exchange(&clients::get(case.channels, &query.replace("wait=0&", ""), &lines));
            let gap = server.fill_in(case.gap);
            let cursor = gap.split("\"cursor\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a cursor");
            let mut parts = vec!["HTTP/1.1 200 OK\r\n".into(), "\r\n\r\n".into(), "retry: ".into()];
            parts.push(format!("event: gap\nid: {cursor}\ndata: {gap}\n\n"));
            parts.extend(case.then.iter().map(|payload| match format {
                "raw" => format!("data: {payload}\n\n"),
                _ => format!("\"data\":\"{payload}\"}}\n\n"),
            }));
            assert_in_order(&stream, &parts, case.name);
            // "then the first block has no `id`": it would be the end of a cursor that means nothing here.
            let before_gap = stream.split("event: gap").next().expect("split gives one part at least");
            assert!(!before_gap.contains("id: "), "{}: {stream}", case.name);
            assert_eq!(stream.matches("event: gap").count(), 1, "{}: {stream}", case.name);
        }
    }
}

#[test]
fn websocket_json() {
    for case in CASES {
        // A WebSocket has no `Last-Event-ID` in a browser; others may send it, and it wins.
        let mut server = Server::start();
        let after = server.fill_in(case.after);
        let mut request = clients::upgrade(case.channels, &format!("?after={after}"), None);
        if case.name == "unknown" {
            let lines = format!("Last-Event-ID: {after}\r\n\r\n");
            request = clients::upgrade(case.channels, "", None);
            request.truncate(request.len() - 2);
            request.extend_from_slice(lines.as_bytes());
        }
        let stream = server.exchange(&request);
        let mut parts = vec!["HTTP/1.1 101 Switching Protocols\r\n".into(), "\r\n\r\n".into()];
        if case.name == "unknown" {
            parts.push("{\"heartbeat\":".into());
        } else {
            parts.push(format!("{{\"cursor\":\"{after}\",\"heartbeat\":"));
        }
        parts.push(format!("{{\"gap\":{}}}", server.fill_in(case.gap)));
        parts.extend(case.then.iter().map(|payload| format!("\"data\":\"{payload}\"}}")));
        assert_in_order(&stream, &parts, case.name);
        assert_eq!(stream.matches("{\"gap\":").count(), 1, "{}: {stream}", case.name);
    }
}

#[test]
fn websocket_raw_cannot_say_it_and_closes() {
    for case in CASES.iter().filter(|case| case.name != "unknown") {
        let mut server = Server::start();
        let after = server.fill_in(case.after);
        let request = clients::upgrade(case.channels, &format!("?after={after}"), Some("tidings.raw"));
        let stream = server.exchange(&request);
        let frames = stream.split_once("\r\n\r\n").map(|(_, frames)| frames);
        // A close frame with 4008 (0x0fa8), and nothing before it.
        let frames = frames.unwrap_or_else(|| panic!("{}: {stream}", case.name));
        assert!(frames.starts_with("\\x88") && frames.contains("\\x0f\\xa8"), "{}: {stream}", case.name);
        assert!(case.then.iter().all(|payload| !frames.contains(payload)), "{}: {stream}", case.name);
    }
}

#[test]
fn no_gap_is_said_where_nothing_is_missing() {
    for (channels, after) in
        [("a", "{e}-4"), ("a", "{e}-6"), ("b", "{e}-0"), ("b", "{e}-2"), ("quiet", "{e}-0"), ("a,b", "{e}-5")]
    {
        let mut server = Server::start();
        let query = server.fill_in(&format!("?wait=0&after={after}"));
        let answer = server.exchange(&clients::get(channels, &query, ""));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("gap"), "{channels} {after}: {answer}");
    }
    for word in ["now", "earliest"] {
        let mut server = Server::start();
        let answer = server.exchange(&clients::get("a,b", &format!("?wait=0&after={word}"), ""));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("gap"), "{word}: {answer}");
    }
}

#[test]
fn a_forgotten_channel_counts_as_having_lost_what_it_may_have_lost() {
    // Room for two channels: `a` and `b`; both are emptied, then forgotten for `c` and `d`.
    let mut server = Server::start_with(64 * 1024, |config| {
        config.channels_max = 2;
        config.history_age = Duration::from_secs(1);
    });
    for _ in 0..40 {
        server.engine.turn(Some(Duration::from_millis(100))).expect("the kernel has no faults");
        server.engine.check_invariants();
    }
    server.publish("c", b"seven");
    server.publish("d", b"eight");
    for _ in 0..40 {
        server.engine.turn(Some(Duration::from_millis(100))).expect("the kernel has no faults");
    }
    // 5 and 6 of `a` are too old; its name is gone with its marks, but not the fact of a loss.
    for (after, has_gap) in [("{e}-4", true), ("{e}-8", false)] {
        let query = server.fill_in(&format!("?wait=0&after={after}"));
        let answer = server.exchange(&clients::get("a", &query, ""));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let gap = answer.contains(&format!("\"gap\":{{\"after\":\"{}\"", server.fill_in(after)));
        assert_eq!(gap, has_gap, "after {after}: {answer}");
        assert_eq!(answer.contains("\"reason\":\"evicted\""), has_gap, "after {after}: {answer}");
    }
}

/// A reader that stalls in the middle of a message while the log moves past it.
fn stalled(request: &[u8], payload: &[u8]) -> (Server, Wire, String) {
    let mut server = Server::start_with(400, |_| {});
    let wire = server.open(request);
    let mut text = server.read(wire);
    for _ in 0..6 {
        server.publish("a", payload);
    }
    // It reads again.
    text.push_str(&server.read(wire));
    (server, wire, text)
}

#[test]
fn mid_stream_the_half_sent_message_is_ended_and_then_the_gap_said() {
    // 7 is half sent when 7 to 10 are evicted; 11 and 12 are kept.
    let payload = [b'x'; 1000];
    let whole = "x".repeat(1000);
    let gap = r#"{"after":"{e}-7","through":"{e}-10","cursor":"{e}-10","reason":"evicted"}"#;
    let sse = "Accept: text/event-stream\r\n";
    let cases: [(&str, Vec<u8>, &str); 3] = [
        ("SSE raw", clients::get("a", "", sse), "id: {e}-"),
        ("SSE json", clients::get("a", "?format=json", sse), "data: {\"id\":\"{e}-"),
        ("WebSocket", clients::upgrade("a", "", None), "{\"id\":\"{e}-"),
    ];
    for (name, request, id) in cases {
        let (server, _, text) = stalled(&request, &payload);
        let message = |seq: u64| server.fill_in(&format!("{id}{seq}"));
        let parts =
            [message(7), whole.clone(), server.fill_in(gap), message(11), whole.clone(), message(12), whole.clone()];
        assert_in_order(&text, &parts, name);
        assert_eq!(text.matches(&whole).count(), 3, "{name}: {text}");
    }
}

#[test]
fn mid_stream_the_raw_websocket_is_closed_between_two_messages() {
    let (mut server, wire, text) = stalled(&clients::upgrade("a", "", Some("tidings.raw")), &[b'x'; 1000]);
    let (_, frames) = text.split_once("\r\n\r\n").expect("the head of a 101");
    let expected = format!("\\x81~\\x03\\xe8{}\\x88", "x".repeat(1000));
    assert!(frames.starts_with(&expected) && frames.contains("\\x0f\\xa8"), "{frames}");
    server.engine.os().close_client(wire);
    server.turn();
    assert!(server.engine.os().is_released(wire) || server.engine.os().ending(wire) == Some(Ending::Reset));
}

#[test]
fn after_earliest_a_new_loss_is_said_though_an_older_one_is_higher() {
    // `earliest` stands before 3, and `a` had lost 4 already: no gap. Then 3 of `b` goes, unread.
    let mut server = Server::start_with(60, |_| {});
    let wire = server.open(&clients::get("a,b", "?after=earliest", "Accept: text/event-stream\r\n"));
    server.publish("b", b"seven");
    server.publish("b", b"eight");
    let text = server.read(wire);
    let gap = server.fill_in(r#"{"after":"{e}-2","through":"{e}-4","cursor":"{e}-4","reason":"evicted"}"#);
    let mut parts = vec![gap];
    parts.extend(["five", "six", "seven", "eight"].map(|payload| format!("data: {payload}\n\n")));
    assert_in_order(&text, &parts, "earliest");
    assert!(!text.contains("three"), "{text}");
}

#[test]
fn between_two_polls_the_next_one_says_it() {
    for (format, sign) in [("json", "\"gap\":{"), ("raw", "Tidings-Gap: {")] {
        let mut server = Server::start();
        server.publish("a", b"seven"); // 5 is gone
        let query = server.fill_in(&format!("?wait=0&format={format}&after={{e}}-4"));
        let answer = server.exchange(&clients::get("a", &query, ""));
        let gap = server.fill_in(r#""after":"{e}-4","through":"{e}-5","cursor":"{e}-5","reason":"evicted"}"#);
        assert!(answer.contains(&format!("{sign}{gap}")), "{format}: {answer}");
    }
}
