//! The contract, section "A gap is always said, never silent", and what history keeps.

mod common;

use std::time::{Duration, Instant};

use common::trace::{EVENT_STREAM, Server, UPGRADE, data};
use common::{PATIENCE, json, other_epoch, parts};

/// A server with numbers 1 to 4 on channel `a`, of which it keeps 3 and 4.
fn two_of_four() -> Server {
    let server = Server::start_with(|config| config.history_messages = 2);
    for payload in ["1", "2", "3", "4"] {
        server.publish("a", payload);
    }
    server
}

/// The inner object of a gap.
fn gap(after: &str, through: &str, cursor: &str, reason: &str) -> String {
    format!(r#"{{"after":"{after}","through":"{through}","cursor":"{cursor}","reason":"{reason}"}}"#)
}

fn object(id: &str, channel: &str, data: &str) -> String {
    format!(r#"{{"id":"{id}","channel":"{channel}","time":0,"data":"{data}"}}"#)
}

// Which reasons there are, and what they say.

/// protocol: the client is told at once, in the stream, before any further message; then the kept messages follow, all of them, in order
/// protocol: Long poll: a `"gap"` member beside `"messages"`, answered at once.
#[test]
fn every_reason_and_the_messages_that_follow() {
    let server = two_of_four();
    let other = other_epoch(&server.show("E-3"));
    for (after, want) in [
        // Nothing lost.
        ("earliest", None),
        ("E-2", None),
        // Something lost.
        ("E-0", Some(gap("E-0", "E-2", "E-2", "evicted"))),
        ("E-1", Some(gap("E-1", "E-2", "E-2", "evicted"))),
        ("E-5", Some(gap("E-5", "E-2", "E-2", "future"))),
        ("E-9223372036854775807", Some(gap("E-9223372036854775807", "E-2", "E-2", "future"))),
        (&other, Some(gap(&other, "E-2", "E-2", "epoch"))),
    ] {
        let gap = want.map(|gap| format!(r#""gap":{gap},"#)).unwrap_or_default();
        let messages = [object("E-3", "a", "3"), object("E-4", "a", "4")].join(",");
        let want = format!(r#"{{"cursor":"E-4",{gap}"messages":[{messages}]}}"#);
        assert_eq!(server.get(&format!("/channels/a?after={after}")).text(), want, "{after}");
    }
    for after in ["now", "E-3", "E-4"] {
        assert!(!server.get(&format!("/channels/a?after={after}&wait=0")).json().has("gap"), "{after}");
    }
}

/// protocol: `reason`: `evicted`, `epoch`, `future`, `unknown`.
/// protocol: everything kept follows: `cursor` is just before the oldest kept message of the set, or the head; `through` is the highest number these channels have lost in this epoch, `<epoch>-0` if none
#[test]
fn the_other_reasons_begin_before_everything_kept() {
    let server = Server::start_with(|config| config.history_messages = 1);
    for channel in ["b", "a", "a", "b", "c"] {
        server.publish(channel, "x");
    }
    for (set, through, cursor, kept) in [
        ("a", "E-2", "E-2", 1),
        ("b", "E-1", "E-3", 1),
        ("a,b", "E-2", "E-2", 2),
        ("c", "E-0", "E-4", 1),
        ("c,d", "E-0", "E-4", 1),
        // Nothing kept: the head.
        ("d", "E-0", "E-5", 0),
    ] {
        for (after, reason) in [("E-99", "future"), ("4294967295-3", "epoch")] {
            let answer = server.get(&format!("/channels/{set}?after={after}"));
            let want = format!(r#"{{"cursor":"E-5","gap":{},"messages":["#, gap(after, through, cursor, reason));
            assert!(answer.text().starts_with(&want), "{set}: {}\n{want}", answer.text());
            assert_eq!(answer.json()["messages"].array().len(), kept, "{set}");
        }
        let answer = server.ask(&format!("GET /channels/{set}"), "Last-Event-ID: x\r\n");
        let want = format!(r#"{{"cursor":"E-5","gap":{},"messages":["#, gap("x", through, cursor, "unknown"));
        assert!(answer.text().starts_with(&want), "{set}: {}\n{want}", answer.text());
    }
}

/// protocol: For `evicted`, `cursor` is just before the oldest kept message of the set that is after the asked cursor, or the head if there is none.
#[test]
fn after_an_eviction_delivery_goes_on_before_the_oldest_kept() {
    let server = Server::start_with(|config| config.history_messages = 2);
    for (channel, payload) in [("b", "1"), ("a", "2"), ("a", "3"), ("c", "x"), ("a", "5"), ("b", "6"), ("a", "7")] {
        server.publish(channel, payload);
    }
    // Kept: a 5 and 7, b 1 and 6, c 4. Lost: a 2 and 3.
    for (set, after, cursor, messages) in [
        ("a", "E-0", "E-4", "57"),
        ("a", "E-2", "E-4", "57"),
        ("a,b", "E-0", "E-0", "1567"),
        ("a,b", "E-1", "E-4", "567"),
        ("a,c", "E-1", "E-3", "x57"),
    ] {
        let answer = server.get(&format!("/channels/{set}?after={after}"));
        let want = format!(r#"{{"cursor":"E-7","gap":{},"messages":["#, gap(after, "E-3", cursor, "evicted"));
        assert!(answer.text().starts_with(&want), "{set} {after}: {}\n{want}", answer.text());
        assert_eq!(data(&answer), messages, "{set} {after}");
    }
    let server = Server::start_with(|config| config.history_messages = 0);
    server.publish("a", "1");
    server.publish("b", "2");
    let want = format!(r#"{{"cursor":"E-2","gap":{},"messages":[]}}"#, gap("E-0", "E-1", "E-2", "evicted"));
    assert_eq!(server.get("/channels/a?after=E-0").text(), want);
}

/// protocol: `after` is the asked text, cut to 32 bytes at a character boundary, bytes that are no UTF-8 as U+FFFD.
#[test]
fn an_unknown_last_event_id_is_told_as_it_was() {
    let server = Server::start();
    for (asked, want) in [
        (&b"x"[..], "x".to_owned()),
        (b"a \"quoted\\\" id", "a \"quoted\\\" id".to_owned()),
        (&[b'x'; 32], "x".repeat(32)),
        (&[b'x'; 33], "x".repeat(32)),
        ("é".repeat(17).as_bytes(), "é".repeat(16)),
        (format!("x{}", "é".repeat(16)).as_bytes(), format!("x{}", "é".repeat(15))),
        (format!("{}€", "x".repeat(30)).as_bytes(), "x".repeat(30)),
        (b"a\xffb", "a\u{fffd}b".to_owned()),
        ("1-1 ".repeat(20).as_bytes(), "1-1 ".repeat(8)),
    ] {
        let answer = server.request("GET /channels/a", "").header("Last-Event-ID", asked).send();
        let body = answer.json();
        assert_eq!(body["gap"]["reason"], "unknown", "{want}");
        assert_eq!(body["gap"]["after"], *want, "{want}");
    }
}

// How each transport says it.

/// protocol: SSE: `event: gap`, `id: <cursor>`, the inner object as data (then the first block has no `id`).
#[test]
fn a_stream_says_a_gap_as_an_event() {
    let server = two_of_four();
    for format in ["raw", "json"] {
        let mut stream = server.stream(&format!("/channels/a?after=E-1&format={format}"), "");
        assert_eq!(stream.block(), "retry: R");
        let want = gap("E-1", "E-2", "E-2", "evicted");
        assert_eq!(stream.block(), format!("event: gap|id: E-2|data: {want}"));
        assert!(stream.block().starts_with("id: E-3|data: "));
        assert!(stream.block().starts_with("id: E-4|data: "));
    }
    let mut stream = server.stream("/channels/a", "Last-Event-ID: x\r\n");
    assert_eq!(stream.block(), "retry: R");
    assert_eq!(stream.block(), format!("event: gap|id: E-2|data: {}", gap("x", "E-2", "E-2", "unknown")));
    assert_eq!(stream.block(), "id: E-3|data: 3");
}

/// protocol: WebSocket: that frame.
/// protocol: `{"gap":{"after":"<the cursor asked or last sent>","through":"<highest number that may be missing>","cursor":"<where delivery goes on>","reason":"evicted"}}`
#[test]
fn a_websocket_says_a_gap_in_a_frame() {
    let server = two_of_four();
    for protocols in [&[][..], &["tidings.v1"]] {
        let mut websocket = server.websocket("/channels/a?after=E-1", protocols);
        for want in [
            r#"{"cursor":"E-1","heartbeat":25}"#.to_owned(),
            format!(r#"{{"gap":{}}}"#, gap("E-1", "E-2", "E-2", "evicted")),
            object("E-3", "a", "3"),
            object("E-4", "a", "4"),
        ] {
            assert_eq!(websocket.frame(), want);
        }
    }
}

/// protocol: Raw long poll: header `Tidings-Gap`, the inner object as one line of ASCII JSON.
#[test]
fn a_raw_poll_says_a_gap_in_a_header() {
    let server = two_of_four();
    let answer = server.get("/channels/a?after=E-1&format=raw");
    assert_eq!((answer.text(), answer.header("Tidings-Id")), ("3", Some("E-3")));
    assert_eq!(answer.header("Tidings-Gap"), Some(&*gap("E-1", "E-2", "E-2", "evicted")));

    let answer = server.ask("GET /channels/a?format=raw", "Last-Event-ID: é\"😀\r\n");
    assert_eq!(answer.header("Tidings-Gap"), Some(&*gap(r#"\u00e9\"\ud83d\ude00"#, "E-2", "E-2", "unknown")));

    // Nothing kept: the gap is answered all the same, at once.
    let answer = server.get("/channels/b?after=E-9&format=raw&wait=120");
    assert_eq!((answer.status, answer.header("Tidings-Cursor")), (204, Some("E-4")));
    assert_eq!(answer.header("Tidings-Gap"), Some(&*gap("E-9", "E-0", "E-4", "future")));
    // And only if there is one.
    assert_eq!(server.get("/channels/a?after=E-2&format=raw").header("Tidings-Gap"), None);
}

/// protocol: `tidings.raw` cannot resume: close 4008.
#[test]
fn raw_websockets_cannot_resume() {
    let server = two_of_four();
    for (after, want) in [("E-1", "close 4008"), ("E-9", "close 4008"), ("1-1", "close 4008"), ("E-2", "3")] {
        let mut websocket = server.websocket(&format!("/channels/a?after={after}"), &["tidings.raw"]);
        assert_eq!(websocket.frame(), want, "{after}");
    }
    let headers = format!("{UPGRADE}Sec-WebSocket-Protocol: tidings.raw\r\nLast-Event-ID: x\r\n");
    let mut client = server.request("GET /channels/a", &headers).start();
    let head = client.response_head();
    assert_eq!(head.status, 101);
    common::websocket::WebSocket { head, client }.assert_closed(4008);
}

// When it is said, and when not.

/// protocol: A connection says a loss once; a client that comes back with a cursor before `through` may be told of it again.
#[test]
fn a_connection_says_a_loss_once() {
    let server = Server::start_with(|config| config.history_messages = 2);
    for (channel, payload) in [("b", "1"), ("a", "2"), ("a", "3"), ("a", "4")] {
        server.publish(channel, payload);
    }
    // The loss of 2 is behind the first message that follows the gap.
    let mut websocket = server.websocket("/channels/a,b?after=E-0", &[]);
    let mut stream = server.stream("/channels/a,b?after=E-0", "");
    for want in [
        r#"{"cursor":"E-0","heartbeat":25}"#.to_owned(),
        format!(r#"{{"gap":{}}}"#, gap("E-0", "E-2", "E-0", "evicted")),
        object("E-1", "b", "1"),
        object("E-3", "a", "3"),
        object("E-4", "a", "4"),
    ] {
        assert_eq!(websocket.frame(), want);
    }
    assert_eq!(stream.block(), "retry: R");
    assert_eq!(stream.block(), format!("event: gap|id: E-0|data: {}", gap("E-0", "E-2", "E-0", "evicted")));
    for want in ["id: E-1|data: 1", "id: E-3|data: 3", "id: E-4|data: 4"] {
        assert_eq!(stream.block(), want);
    }
    // What they have got may be lost now.
    for seq in 5..10 {
        server.publish("a", &seq.to_string());
        assert_eq!(websocket.frame(), object(&format!("E-{seq}"), "a", &seq.to_string()));
        assert_eq!(stream.block(), format!("id: E-{seq}|data: {seq}"));
    }
}

/// protocol: It may be said in vain only for a channel that has nothing kept and nobody listening, with a cursor older than the server still remembers.
#[test]
fn a_gap_is_not_said_in_vain() {
    let server = two_of_four();
    server.publish("b", "5");
    for (set, want) in [("b", "5"), ("never", ""), ("b,never", "5")] {
        let answer = server.get(&format!("/channels/{set}?after=E-0&wait=0"));
        assert!(!answer.json().has("gap"), "{set}: {}", answer.text());
        assert_eq!(data(&answer), want, "{set}");
    }
}

/// protocol: If messages of these channels after the client's cursor are, or may be, no longer kept
#[test]
fn a_forgotten_channel_may_have_lost_something() {
    let server = Server::start_with(|config| {
        config.history_messages = 0;
        config.channels_max = 1;
    });
    server.publish("a", "1");
    // There is room for one channel: `a` is forgotten for `b`, and `b` for whichever is asked for.
    // What the server remembers is that something was lost, not where.
    server.publish("b", "2");
    for channel in ["a", "b", "never"] {
        let want = format!(r#"{{"cursor":"E-2","gap":{},"messages":[]}}"#, gap("E-0", "E-2", "E-2", "evicted"));
        assert_eq!(server.get(&format!("/channels/{channel}?after=E-0")).text(), want, "{channel}");
    }
}

/// protocol: A slow reader is the same case: it has no queue of its own, only its cursor; if the log moves past it, it is told.
#[test]
fn a_slow_reader_is_told_what_it_missed() {
    let server = Server::start_with(|config| {
        config.history_messages = 3;
        config.send_buffer_bytes = 16 * 1024;
    });
    let mut stream = server.stream("/channels/a", "");
    assert_eq!(stream.block(), "retry: R|id: E-0");
    // More than the kernel hides, while nobody reads.
    let payload = "x".repeat(200_000);
    let count = 200;
    for _ in 0..count {
        server.publish("a", &payload);
    }
    let (mut at, mut gaps, mut messages) = (0, 0, 0);
    while at < count {
        let event = stream.inner.next_event().unwrap();
        let (_, seq) = parts(&event.id);
        if event.name == "gap" {
            gaps += 1;
            let gap = json::parse(&event.data);
            assert_eq!(gap["reason"], "evicted");
            assert_eq!(parts(gap["after"].str()).1, at, "the cursor last sent");
            assert_eq!(parts(gap["through"].str()).1, seq);
            assert!(seq > at, "{seq} {at}");
        } else {
            messages += 1;
            assert_eq!((seq, event.data.len()), (at + 1, payload.len()), "nothing is left out in silence");
        }
        at = seq;
    }
    assert!(gaps > 0 && messages >= 3, "{gaps} gaps, {messages} messages");
}

/// protocol: A cursor handed out anywhere (first bytes, heartbeat, empty answer) is never at or after a message of the set that has not been written to this client before it.
#[test]
fn a_cursor_is_never_ahead_of_the_messages() {
    let server = Server::start_with(|config| {
        config.heartbeat = Duration::from_millis(250);
        config.ping = Duration::from_millis(250);
        config.poll_bytes_max = 0;
    });
    for payload in ["1", "2", "3"] {
        server.publish("a", payload);
        server.publish("b", payload);
    }
    let mut stream = server.stream("/channels/a?after=E-0", "");
    for want in ["retry: R|id: E-0", "id: E-1|data: 1", "id: E-3|data: 2", "id: E-5|data: 3", "id: E-6"] {
        assert_eq!(stream.block(), want);
    }
    let mut websocket = server.websocket("/channels/a?after=E-0", &[]);
    for want in [
        r#"{"cursor":"E-0","heartbeat":0.250}"#.to_owned(),
        object("E-1", "a", "1"),
        object("E-3", "a", "2"),
        object("E-5", "a", "3"),
        r#"{"cursor":"E-6"}"#.to_owned(),
    ] {
        assert_eq!(websocket.frame(), want);
    }
    for (after, want) in [("E-0", "E-1"), ("E-1", "E-3"), ("E-3", "E-6"), ("E-6", "E-6")] {
        let answer = server.get(&format!("/channels/a?after={after}&wait=0"));
        assert_eq!(answer.header("Tidings-Cursor"), Some(want), "{after}");
    }
}

// The end of the client's side.

/// protocol: A client that half-closes after a complete request still gets a short answer; a held poll or a stream ends (a killed client looks the same).
#[test]
fn a_client_that_half_closes_gets_a_short_answer() {
    let server = Server::start();
    server.publish("a", "x");
    for target in ["/channels/a?after=E-0", "/channels/a?wait=0", "/channels", "/healthz"] {
        let mut client = server.request(&format!("GET {target}"), "").start();
        client.half_close();
        assert_eq!(client.response("GET").status, 200, "{target}");
        client.assert_closed();
    }
    let mut client = server.inner.request("POST", "/channels/a").body("y").start();
    client.half_close();
    assert_eq!(client.response("POST").status, 200);
    client.assert_closed();

    for headers in ["", EVENT_STREAM] {
        let mut client = server.request("GET /channels/a?wait=120", headers).start();
        server.await_subscribers(1);
        client.half_close();
        server.await_subscribers(0);
        let mut heard = Vec::new();
        while !client.at_end() {
            heard.extend(client.some());
        }
        let heard = String::from_utf8(heard).unwrap();
        assert!(!heard.ends_with("0\r\n\r\n") && !heard.contains("messages"), "{heard}");
    }
}

// History.

/// protocol: **History** is kept per channel up to `history-messages`
#[test]
fn each_channel_keeps_so_many_messages() {
    let server = Server::start_with(|config| config.history_messages = 3);
    for seq in 1..=5 {
        server.publish("a", &seq.to_string());
        server.publish("b", &seq.to_string());
    }
    server.publish("c", "1");
    for (channel, want) in [("a", "345"), ("b", "345"), ("c", "1")] {
        assert_eq!(data(&server.get(&format!("/channels/{channel}?after=earliest"))), want, "{channel}");
    }
}

/// protocol: **History** is kept per channel up to `history-messages` (default 1000) and `history-age` (default 1 h)
#[test]
fn old_messages_go() {
    let server = Server::start_with(|config| config.history_age = Duration::from_millis(300));
    let before = Instant::now();
    server.publish("a", "1");
    let mut poll = server.get("/channels/a?after=E-0&wait=0").json();
    while !poll.has("gap") {
        assert_eq!(poll["messages"].array().len(), 1);
        assert!(before.elapsed() < PATIENCE, "it is kept for ever");
        poll = server.get("/channels/a?after=E-0&wait=0").json();
    }
    // The server reads the clock once a turn, and the turn may have begun a little earlier.
    assert!(before.elapsed() >= Duration::from_millis(250), "{:?}", before.elapsed());
    let want = format!(r#"{{"cursor":"E-1","gap":{},"messages":[]}}"#, gap("E-0", "E-1", "E-1", "evicted"));
    assert_eq!(server.get("/channels/a?after=E-0").text(), want);
}

/// protocol: and for the whole server up to `history-bytes` (default 64 MiB, oldest of all first).
#[test]
fn the_oldest_of_all_go_when_the_bytes_are_spent() {
    let server = Server::start_with(|config| config.history_bytes = 3500);
    let payload = "x".repeat(1000);
    for channel in ["a", "b", "a", "c", "b"] {
        server.publish(channel, &payload);
    }
    let answer = server.get("/channels/a,b,c?after=earliest").json();
    let kept: Vec<String> = answer["messages"].each("id").into_iter().map(str::to_owned).collect();
    assert_eq!(kept, ["E-3", "E-4", "E-5"]);
    let answer = server.get("/channels/a,b?after=E-0").json();
    assert_eq!((answer["gap"]["through"].str(), answer["gap"]["cursor"].str()), ("E-2", "E-2"));
}

/// protocol: `DELETE` is the operator's wish and not a loss: no gap is said for it.
#[test]
fn what_was_deleted_is_not_lost() {
    let server = two_of_four();
    assert_eq!(server.ask("DELETE /channels/a", "").status, 204);
    for after in ["E-2", "E-3", "E-4"] {
        let answer = server.get(&format!("/channels/a?after={after}&wait=0"));
        assert_eq!(answer.text(), r#"{"cursor":"E-4","messages":[]}"#, "{after}");
    }
    // What was evicted before is lost still.
    let want = format!(r#"{{"cursor":"E-4","gap":{},"messages":[]}}"#, gap("E-1", "E-2", "E-4", "evicted"));
    assert_eq!(server.get("/channels/a?after=E-1").text(), want);
    // Whoever listens hears nothing of it, and then goes on.
    let mut stream = server.stream("/channels/a", "");
    assert_eq!(stream.block(), "retry: R|id: E-4");
    server.publish("a", "5");
    assert_eq!(stream.block(), "id: E-5|data: 5");
    server.ask("DELETE /channels/a", "");
    server.publish("a", "6");
    assert_eq!(stream.block(), "id: E-6|data: 6");
}
