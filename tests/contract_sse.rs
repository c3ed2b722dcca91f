//! The contract, section "SSE".

mod common;

use std::time::Duration;

use common::http::Response;
use common::trace::{EVENT_STREAM, Server, Stream, refusal};

// The beginning.

/// protocol: `200`, `text/event-stream`, chunked (HTTP/1.1) or until close (1.0)
#[test]
fn the_head_of_a_stream() {
    let server = Server::start();
    let check = |head: &Response| {
        assert_eq!((head.status, head.header("Content-Type")), (200, Some("text/event-stream")));
        assert_eq!(head.header("X-Accel-Buffering"), Some("no"));
        assert_eq!(head.header("Cache-Control"), Some("no-store, no-transform"));
        assert_eq!(head.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(head.header("Content-Length"), None);
        assert!(head.lists("Vary", "Accept"), "{head:?}");
    };
    let head = server.head("GET /channels/a", EVENT_STREAM);
    check(&head);
    assert_eq!(head.header("Transfer-Encoding"), Some("chunked"));

    let head = server.request("GET /channels/a", EVENT_STREAM).http10().start().response_head();
    check(&head);
    assert_eq!((head.header("Transfer-Encoding"), head.header("Connection")), (None, Some("close")));
}

/// protocol: chunked (HTTP/1.1) or until close (1.0)
#[test]
fn a_stream_for_http_1_0_ends_with_the_connection() {
    let server = Server::start_with(|config| config.drain = Duration::ZERO);
    server.publish("a", "x");
    let mut client = server.request("GET /channels/a?after=E-0", EVENT_STREAM).http10().start();
    client.response_head();
    let want = server.show("id: E-0\n\nid: E-1\ndata: x\n\n");
    let mut body = String::new();
    while !body.ends_with(&want) {
        let more = client.some();
        assert!(!more.is_empty(), "the stream ended after {body:?}");
        body.push_str(str::from_utf8(&more).unwrap());
    }
    assert!(body.starts_with("retry: "), "{body:?}");
    server.inner.handle.shutdown();
    let last = String::from_utf8(client.some()).unwrap();
    assert!(last.starts_with("retry: ") && last.ends_with("\n\n"), "{last:?}");
    client.assert_closed();
}

/// protocol: who needs every byte takes `format=json`
#[test]
fn a_stream_for_http_1_0_has_the_message_object_too() {
    let server = Server::start();
    server.publish("a", "x\ry");
    let mut client = server.request("GET /channels/a?after=E-0&format=json", EVENT_STREAM).http10().start();
    client.response_head();
    let mut body = String::new();
    while !body.ends_with("}\n\n") {
        let more = client.some();
        assert!(!more.is_empty(), "the stream ended after {body:?}");
        body.push_str(str::from_utf8(&more).unwrap());
    }
    let want = server.show("id: E-0\n\nid: E-1\ndata: {\"id\":\"E-1\",\"channel\":\"a\",\"time\":");
    assert!(body.contains(&want) && body.ends_with(",\"data\":\"x\\ry\"}\n\n"), "{body:?}");
}

/// protocol: First bytes at once: `retry: <ms, jittered>`, `id: <cursor>`, blank line
/// protocol: so a client that has seen no message still resumes exactly.
#[test]
fn a_stream_begins_with_its_cursor() {
    let server = Server::start();
    for payload in ["1", "2", "3"] {
        server.publish("a", payload);
    }
    for (after, want) in [("now", "E-3"), ("E-3", "E-3"), ("E-1", "E-1"), ("earliest", "E-0")] {
        let mut stream = server.stream(&format!("/channels/a?after={after}"), "");
        let first = stream.inner.next_block().unwrap();
        assert_eq!(first.event, None, "it fires no event");
        assert_eq!(server.hide(&first.lines.join("|")), format!("retry: R|id: {want}"), "{after}");
        assert_eq!(server.hide(&stream.inner.last_event_id), want);
    }
}

/// protocol: First bytes at once: `retry: <ms, jittered>`
#[test]
fn retry_differs_from_client_to_client() {
    let base = 60_000;
    let server = Server::start_with(|config| config.retry = Duration::from_millis(base));
    let retry = |_| {
        let mut stream = server.stream("/channels/a", "");
        stream.block();
        stream.inner.retry.unwrap()
    };
    let retries: Vec<u64> = (0..5).map(retry).collect();
    assert!(retries.iter().all(|retry| (base..=3 * base).contains(retry)), "{retries:?}");
    assert!(retries.iter().any(|&retry| retry != retries[0]), "{retries:?}");
}

// Messages.

/// protocol: Each message: `id:`, `event:` if given, `data:` per line
#[test]
fn a_message_is_a_block() {
    let server = Server::start();
    let mut stream = server.stream("/channels/a", "");
    assert_eq!(stream.block(), "retry: R|id: E-0");
    for (query, payload, want) in [
        ("", "one line", "data: one line"),
        ("", "", "data: "),
        ("", "a\nb\rc\r\nd", "data: a|data: b|data: c|data: d"),
        ("", "\n", "data: |data: "),
        ("", "\r\r\n\n\r", "data: |data: |data: |data: |data: "),
        ("", " space, : colon", "data:  space, : colon"),
        ("", "data: x\n\nid: 7\nevent: y", "data: data: x|data: |data: id: 7|data: event: y"),
        ("", "\u{2028}\u{85}\u{b}", "data: \u{2028}\u{85}\u{b}"),
        ("?event=price", "x", "event: price|data: x"),
        ("?event=message", "x", "data: x"),
        ("?event=%E2%82%AC:+1", "x", "event: €: 1|data: x"),
    ] {
        let id = server.publish_with(&format!("/channels/a{query}"), "", payload.as_bytes());
        assert_eq!(stream.block(), format!("id: {id}|{want}"), "{payload:?}");
    }
}

/// protocol: (CR, LF, CRLF all split; line ends reach the client as LF; who needs every byte takes `format=json`)
#[test]
fn line_ends_arrive_as_lf_and_as_they_were_in_json() {
    let server = Server::start();
    server.publish("a", "a\r\nb\rc\n");
    let mut raw = server.stream("/channels/a?after=E-0", "");
    assert_eq!(raw.inner.next_event().unwrap().data, "a\nb\nc\n");
    let mut json = server.stream("/channels/a?after=E-0&format=json", "");
    assert_eq!(json.inner.next_json()["data"], "a\r\nb\rc\n");
}

/// protocol: who needs every byte takes `format=json`
#[test]
fn json_is_the_message_object_on_one_line() {
    let server = Server::start();
    let mut stream = server.stream("/channels/a?format=json", "");
    stream.block();
    server.publish_with("/channels/a?event=e", "Content-Type: text/plain\r\n", b"1\n2");
    server.publish_with("/channels/a", "", b"\xff");
    for want in [
        r#"id: E-1|event: e|data: {"id":"E-1","channel":"a","event":"e","type":"text/plain","time":0,"data":"1\n2"}"#,
        r#"id: E-2|data: {"id":"E-2","channel":"a","time":0,"base64":"/w=="}"#,
    ] {
        assert_eq!(stream.block(), want);
    }
}

/// protocol: Raw binary: one `data:` line holding a data URL
#[test]
fn raw_binary_is_a_data_url() {
    let server = Server::start();
    let mut stream = server.stream("/channels/a", "");
    stream.block();
    for (media_type, want) in [
        ("", "application/octet-stream"),
        ("application/octet-stream", "application/octet-stream"),
        ("image/png", "image/png"),
        ("audio/ogg; codecs=\"a,b\"", "audio/ogg"),
        ("text/plain; charset=latin1", "text/plain"),
    ] {
        let headers = if media_type.is_empty() { String::new() } else { format!("Content-Type: {media_type}\r\n") };
        let id = server.publish_with("/channels/a", &headers, b"\xff\xfe\n");
        assert_eq!(stream.block(), format!("id: {id}|data: data:{want};base64,//4K"), "{media_type}");
    }
}

// Heartbeats.

/// protocol: Heartbeat every 15 s: `id: <cursor>` and a blank line if the cursor moved since the last bytes, otherwise `:` and a blank line.
#[test]
fn a_heartbeat_carries_the_cursor_if_it_moved() {
    let server = Server::start_with(|config| config.heartbeat = Duration::from_millis(250));
    let mut stream = server.stream("/channels/a", "");
    assert_eq!(stream.block(), "retry: R|id: E-0");
    assert_eq!(stream.block(), ":");
    server.publish("elsewhere", "1");
    server.publish("elsewhere", "2");
    // A heartbeat may have been on its way when the head moved, even between the two.
    assert_eq!(skip(&mut stream, &[":", "id: E-1"]), "id: E-2");
    assert_eq!(stream.block(), ":");
    server.publish("a", "x");
    assert_eq!(skip(&mut stream, &[":"]), "id: E-3|data: x");
    // The message has told the cursor.
    assert_eq!(stream.block(), ":");
}

fn skip(stream: &mut Stream, blocks: &[&str]) -> String {
    loop {
        let block = stream.block();
        if !blocks.contains(&&*block) {
            return block;
        }
    }
}

// Refusals.

/// protocol: To an SSE request a refusal that will pass (draining, over a limit) is `200` with `retry:` and the end of the body
#[test]
fn a_refusal_that_will_pass_asks_to_come_back() {
    let server = Server::start_with(|config| config.channels_max = 1);
    server.publish("a", "kept");
    let mut stream = server.stream("/channels/b", "");
    assert_eq!((stream.block(), stream.block()), ("retry: R".into(), "end".into()));
    assert_eq!(refusal(&server.get("/channels/b")), "503 channels_full");

    let server = Server::start_with(|config| config.connections_max = 1);
    let _takes_the_only_place = hold(&server);
    let mut stream = server.stream("/channels/a", "");
    assert_eq!((stream.block(), stream.block()), ("retry: R".into(), "end".into()));
    assert_eq!(refusal(&server.get("/channels/a")), "503 too_many_connections");

    let server = Server::start_with(|config| config.drain_grace = Duration::from_secs(60));
    server.drain();
    let mut stream = server.stream("/channels/a", "");
    assert_eq!((stream.block(), stream.block()), ("retry: R".into(), "end".into()));
    assert_eq!(refusal(&server.get("/channels/a")), "503 draining");
}

/// Opens a stream although connections of the past may not be forgotten yet.
fn hold(server: &Server) -> Stream {
    loop {
        let mut stream = server.stream("/channels/a", "");
        if stream.block() == "retry: R|id: E-0" {
            return stream;
        }
    }
}

/// protocol: 400, 401, 403, 421 stay errors.
#[test]
fn a_refusal_that_will_not_pass_is_an_error() {
    let server = Server::start();
    for (target, headers, want) in [
        ("/channels/a%20b", "", "400 bad_channel"),
        ("/channels/a?after=x", "", "400 bad_cursor"),
        ("/channels/a?format=x", "", "400 bad_format"),
        ("/channels/a?after=E-0&after=E-0", "", "400 bad_query"),
        ("/channels/a", "Sec-Fetch-Site: cross-site\r\n", "403 origin_not_allowed"),
    ] {
        let answer = server.ask(&format!("GET {target}"), &format!("{EVENT_STREAM}{headers}"));
        assert_eq!(refusal(&answer), want, "{target}");
    }
    let foreign = server.request("GET /channels/a", EVENT_STREAM).host("evil.example").send();
    assert_eq!(refusal(&foreign), "421 wrong_host");
}
