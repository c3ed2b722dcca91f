//! The contract, section "Long poll".

mod common;

use std::time::{Duration, Instant};

use common::trace::{EVENT_STREAM, Server, data, refusal};

// Waiting.

/// protocol: Held until a message is there, or a gap, or `wait` seconds passed
#[test]
fn a_poll_is_held_until_a_message_is_there() {
    let server = Server::start();
    for wait in ["", "?wait=120"] {
        let mut poll = server.open(&format!("GET /channels/a{wait}"), "");
        server.await_subscribers(1);
        server.publish("b", "elsewhere");
        let id = server.publish("a", "here");
        let want = r#"{"cursor":"ID","messages":[{"id":"ID","channel":"a","time":0,"data":"here"}]}"#;
        assert_eq!(poll.answer().text(), want.replace("ID", &id), "{wait}");
    }
}

/// protocol: Held until a message is there, or a gap, or `wait` seconds passed
#[test]
fn a_gap_ends_the_wait_at_once() {
    let server = Server::start_with(|config| config.history_messages = 0);
    server.publish("a", "lost");
    let gap = r#"{"after":"E-0","through":"E-1","cursor":"E-1","reason":"evicted"}"#;
    let want = format!(r#"{{"cursor":"E-1","gap":{gap},"messages":[]}}"#);
    assert_eq!(server.get("/channels/a?after=E-0&wait=120").text(), want);
}

/// protocol: (`?wait=N`, whole, 0 to 120, default 25; 0 answers at once; anything else 400 `bad_wait`)
#[test]
fn wait_is_whole_seconds() {
    let server = Server::start();
    assert_eq!(server.get("/channels/a?wait=0").text(), r#"{"cursor":"E-0","messages":[]}"#);
    let start = Instant::now();
    assert_eq!(server.get("/channels/a?wait=1").text(), r#"{"cursor":"E-0","messages":[]}"#);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    for wait in ["", "-1", "%2B1", "121", "1.5", "1s", "0x1", "99999999999999999999"] {
        assert_eq!(refusal(&server.get(&format!("/channels/a?wait={wait}"))), "400 bad_wait", "{wait}");
    }
}

/// protocol: Time over: `"messages":[]` and a fresh cursor.
#[test]
fn when_time_is_over_the_cursor_is_fresh() {
    let server = Server::start();
    server.publish("a", "1");
    let mut poll = server.open("GET /channels/a?wait=1", "");
    server.await_subscribers(1);
    server.publish("b", "2");
    server.publish("b", "3");
    assert_eq!(poll.answer().text(), r#"{"cursor":"E-3","messages":[]}"#);
}

// The answer.

/// protocol: **all** messages after the cursor, oldest first, whose objects fit in `poll-bytes-max`
#[test]
fn all_messages_after_the_cursor_are_answered_oldest_first() {
    let server = Server::start();
    for (channel, payload) in [("b", "1"), ("a", "2"), ("c", "x"), ("b", "3"), ("a", "4")] {
        server.publish(channel, payload);
    }
    let object = |id: u64, channel: &str, payload: &str| {
        format!(r#"{{"id":"E-{id}","channel":"{channel}","time":0,"data":"{payload}"}}"#)
    };
    let objects = [object(2, "a", "2"), object(4, "b", "3"), object(5, "a", "4")].join(",");
    let want = format!(r#"{{"cursor":"E-5","messages":[{objects}]}}"#);
    assert_eq!(server.get("/channels/a,b?after=E-1").text(), want);
}

/// protocol: whose objects fit in `poll-bytes-max` (default 1 MiB; at least one)
#[test]
fn what_does_not_fit_comes_with_the_next_poll() {
    // The objects have some 100 bytes around their data, and the commas between them do not count.
    let payload = "x".repeat(1000);
    for (bytes_max, counts) in [(0, &[1, 1, 1, 1, 0][..]), (2500, &[2, 2, 0]), (3500, &[3, 1, 0]), (5000, &[4, 0])] {
        let server = Server::start_with(|config| config.poll_bytes_max = bytes_max);
        for _ in 0..4 {
            server.publish("a", &payload);
        }
        let mut seq = 0;
        for &count in counts {
            let answer = server.get(&format!("/channels/a?after=E-{seq}&wait=0"));
            seq += count;
            let body = answer.json();
            assert_eq!(body["messages"].array().len(), count, "{bytes_max}");
            // The cursor is not after what did not fit.
            assert_eq!(body["cursor"].str(), format!("E-{seq}"), "{bytes_max}");
        }
        assert_eq!(seq, 4);
    }
}

/// protocol: The next poll sends `after=` that cursor; nothing is lost between polls.
#[test]
fn nothing_is_lost_between_polls() {
    let server = Server::start();
    let mut cursor = "now".to_owned();
    let mut heard = String::new();
    for payload in ["1", "2", "3", "4", "5"] {
        let answer = server.get(&format!("/channels/a?after={cursor}&wait=0"));
        heard.push_str(&data(&answer));
        cursor = answer.json()["cursor"].str().to_owned();
        server.publish("a", payload);
        server.publish("b", "elsewhere");
    }
    heard.push_str(&data(&server.get(&format!("/channels/a?after={cursor}&wait=0"))));
    assert_eq!(heard, "12345");
}

/// protocol: `Tidings-Cursor` repeats it as a header.
#[test]
fn the_cursor_is_in_a_header_too() {
    let server = Server::start_with(|config| config.poll_bytes_max = 0);
    for payload in ["1", "2"] {
        server.publish("a", payload);
    }
    for (after, want) in [("E-0", "E-1"), ("E-1", "E-2"), ("E-2", "E-2")] {
        let answer = server.get(&format!("/channels/a?after={after}&wait=0"));
        assert_eq!(answer.header("Tidings-Cursor"), Some(want));
        assert_eq!(answer.json()["cursor"].str(), want);
    }
}

/// protocol: `200` with `{"cursor":"1766-44","messages":[…]}`
#[test]
fn an_answer_is_json_that_no_cache_keeps_and_the_connection_stays() {
    let server = Server::start();
    server.publish("a", "1");
    let mut poll = server.open("GET /channels/a?after=E-0", "");
    for _ in 0..2 {
        let answer = poll.answer();
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        assert!(answer.lists("Vary", "Accept"), "{answer:?}");
        assert_eq!(data(&answer), "1");
        poll.client.send(server.request("GET /channels/a?after=E-0", "").bytes());
    }
}

// Raw.

/// protocol: Raw: one message per answer: body = payload, `Content-Type` = its type
#[test]
fn a_raw_answer_is_one_message() {
    let server = Server::start();
    let utf8 = "text/plain; charset=utf-8";
    let binary = "application/octet-stream";
    for (query, media_type, payload, want_type, want_event) in [
        ("", "", &b"text"[..], utf8, None),
        ("", "", b"", utf8, None),
        ("", "", b"\xff\0", binary, None),
        ("?event=price", "application/json", b"{}", "application/json", Some("price")),
        ("?event=%E2%82%AC+5%25", "image/png; a=b", b"\x89PNG", "image/png; a=b", Some("%E2%82%AC%205%25")),
    ] {
        let headers = if media_type.is_empty() { String::new() } else { format!("Content-Type: {media_type}\r\n") };
        server.publish_with(&format!("/channels/a{query}"), &headers, payload);
        server.publish("a", "the next");
        let answer = server.get("/channels/a?after=earliest&format=raw");
        assert_eq!((answer.status, &answer.body[..]), (200, payload));
        assert_eq!(answer.header("Content-Type"), Some(want_type));
        assert_eq!(answer.header("Tidings-Channel"), Some("a"));
        assert_eq!(answer.header("Tidings-Event"), want_event);
        let next = answer.header("Tidings-Cursor").expect("a cursor");
        assert_eq!(answer.header("Tidings-Id"), Some(next));
        assert_eq!(server.get(&format!("/channels/a?after={next}&format=raw")).text(), "the next");
        server.ask("DELETE /channels/a", "");
    }
}

/// protocol: time over: `204` with `Tidings-Cursor`.
#[test]
fn a_raw_answer_without_a_message_is_204() {
    let server = Server::start();
    server.publish("b", "elsewhere");
    let answer = server.get("/channels/a?format=raw&after=E-0&wait=0");
    assert_eq!((answer.status, answer.header("Tidings-Cursor"), answer.text()), (204, Some("E-1"), ""));
    assert_eq!(answer.header("Content-Length"), None, "RFC 9110 8.6: none in a 204");
}

/// protocol: Raw: one message per answer
#[test]
fn a_raw_poll_is_held_too() {
    let server = Server::start();
    let mut poll = server.open("GET /channels/a?format=raw", "");
    server.await_subscribers(1);
    server.publish("a", "x");
    let answer = poll.answer();
    assert_eq!((answer.text(), answer.header("Tidings-Id")), ("x", Some("E-1")));
}

/// protocol: a publisher must not run script on this origin.
/// protocol: `Content-Security-Policy: sandbox; default-src 'none'`, and `Content-Disposition: attachment` unless the type is
#[test]
fn a_raw_answer_cannot_run_script() {
    let server = Server::start();
    for (media_type, shown) in [
        ("", true),
        ("text/plain", true),
        ("Text/Plain; charset=utf-8", true),
        ("application/json", true),
        ("application/problem+json", true),
        ("image/png", true),
        ("audio/ogg", true),
        ("video/mp4", true),
        ("image/svg+xml", false),
        ("Image/SVG+XML;a=b", false),
        ("text/html", false),
        ("text/css", false),
        ("application/xhtml+xml", false),
        ("application/octet-stream", false),
        ("application/pdf", false),
    ] {
        let headers = if media_type.is_empty() { String::new() } else { format!("Content-Type: {media_type}\r\n") };
        server.publish_with("/channels/a", &headers, b"<script>");
        let answer = server.get("/channels/a?after=earliest&format=raw");
        assert_eq!(answer.header("Content-Security-Policy"), Some("sandbox; default-src 'none'"), "{media_type}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{media_type}");
        let want = (!shown).then_some("attachment");
        assert_eq!(answer.header("Content-Disposition"), want, "{media_type}");
        server.ask("DELETE /channels/a", "");
    }
    let answer = server.get("/channels/a?format=raw&wait=0");
    assert_eq!(answer.header("Content-Security-Policy"), Some("sandbox; default-src 'none'"), "204");
}

// HEAD.

/// protocol: `HEAD` is the poll's head whatever `Accept` and the parameters say
#[test]
fn head_tells_the_cursor_of_now_at_once() {
    let server = Server::start_with(|config| config.history_messages = 0);
    for (query, headers) in [
        ("", ""),
        ("?wait=120", ""),
        ("?after=E-0", ""),
        ("?after=nonsense&wait=nonsense&format=nonsense&transport=nonsense", ""),
        ("?transport=sse", ""),
        ("", EVENT_STREAM),
        ("", "Accept: text/html\r\n"),
        ("", "Last-Event-ID: nonsense\r\n"),
    ] {
        let id = server.publish("a", "lost at once");
        let answer = server.ask(&format!("HEAD /channels/a,b{query}"), headers);
        assert_eq!((answer.status, answer.header("Tidings-Cursor")), (200, Some(&*id)), "{query} {headers}");
        assert_eq!((answer.header("Content-Type"), answer.header("Tidings-Gap")), (Some("application/json"), None));
    }
}

/// protocol: under the same rights and name rules
#[test]
fn head_keeps_the_rules_of_names_and_rights() {
    let server = Server::start();
    let many = (0..65).map(|nth| nth.to_string()).collect::<Vec<_>>().join(",");
    for (target, headers, status) in [
        ("/channels/a%20b".to_owned(), "", 400),
        (format!("/channels/{many}"), "", 400),
        ("/channels/a".to_owned(), "Sec-Fetch-Site: cross-site\r\n", 403),
    ] {
        for method in ["HEAD", "GET"] {
            let head = server.head(&format!("{method} {target}"), headers);
            assert_eq!((head.status, head.header("Tidings-Cursor")), (status, None), "{method} {target}");
        }
    }
}

/// protocol: take a snapshot elsewhere, then subscribe after it, with no race.
#[test]
fn a_subscription_after_the_cursor_of_head_misses_nothing() {
    let server = Server::start();
    server.publish("a", "in the snapshot");
    let cursor = server.ask("HEAD /channels/a", "").header("Tidings-Cursor").expect("a cursor").to_owned();
    server.publish("a", "behind it");
    assert_eq!(data(&server.get(&format!("/channels/a?after={cursor}"))), "behind it");
}
