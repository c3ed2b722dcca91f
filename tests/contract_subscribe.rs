//! The contract, section "Subscribe": which transport a client gets, the common parameters, the
//! message object.

mod common;

use common::trace::{EVENT_STREAM, Server, UPGRADE, data, refusal};

/// What the answer to this request is, by its head.
fn transport(server: &Server, target: &str, headers: &str) -> &'static str {
    let head = server.head(&format!("GET {target}"), headers);
    match (head.status, head.header("Content-Type")) {
        (101, _) => "websocket",
        (200, Some("text/event-stream")) => "sse",
        (200, Some("application/json")) => "poll",
        (200, Some(html)) if html.starts_with("text/html") => "view",
        _ => panic!("{target} {headers}: {head:?}"),
    }
}

// Negotiation.

/// protocol: One URL; transport by what the client asks for, first match wins
#[test]
fn the_first_match_wins() {
    let server = Server::start();
    let all = "Accept: text/event-stream, text/html\r\n";
    for (headers, want) in [
        (format!("{UPGRADE}{all}"), "websocket"),
        (all.to_owned(), "sse"),
        ("Accept: text/html\r\n".to_owned(), "view"),
        (String::new(), "poll"),
    ] {
        assert_eq!(transport(&server, "/channels/a?wait=0", &headers), want, "{headers}");
    }
}

/// protocol: `Upgrade: websocket` → WebSocket
#[test]
fn an_upgrade_to_websocket_is_a_websocket() {
    let server = Server::start();
    assert_eq!(transport(&server, "/channels/a", UPGRADE), "websocket");
    let other = "Upgrade: h2c\r\nConnection: Upgrade\r\n";
    assert_eq!(transport(&server, "/channels/a?wait=0", other), "poll");
}

/// protocol: `Accept` has `text/event-stream` with q > 0 → SSE
#[test]
fn event_streams_are_for_those_who_name_them() {
    let server = Server::start();
    for (accept, want) in [
        ("text/event-stream", "sse"),
        ("text/event-stream;q=0.001", "sse"),
        ("text/html, text/event-stream;q=0.1", "sse"),
        ("text/event-stream;q=0", "poll"),
        ("text/*", "poll"),
        ("*/*", "poll"),
    ] {
        let headers = format!("Accept: {accept}\r\n");
        assert_eq!(transport(&server, "/channels/a?wait=0", &headers), want, "{accept}");
    }
}

/// protocol: `Accept` has `text/html` with a q above that of `application/json` and `*/*`
#[test]
fn a_person_in_a_browser_gets_the_viewer() {
    let server = Server::start();
    for (accept, want) in [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "view"),
        ("text/html;q=0.5", "view"),
        ("text/html, application/json;q=0.9", "view"),
        ("text/html, application/json", "poll"),
        ("text/html, */*", "poll"),
        ("text/html;q=0.8, */*;q=0.9", "poll"),
    ] {
        let headers = format!("Accept: {accept}\r\n");
        assert_eq!(transport(&server, "/channels/a?wait=0", &headers), want, "{accept}");
    }
}

/// protocol: anything else → long poll
#[test]
fn anything_else_is_a_long_poll() {
    let server = Server::start();
    for headers in ["", "Accept: */*\r\n", "Accept: application/json\r\n", "Accept: image/png\r\n", "Accept: ,;\r\n"] {
        assert_eq!(transport(&server, "/channels/a?wait=0", headers), "poll", "{headers}");
    }
}

/// protocol: `?transport=sse|poll|view` forces 2, 4, 3 over all headers
#[test]
fn the_parameter_forces_a_transport() {
    let server = Server::start();
    for asked in ["sse", "poll", "view"] {
        for headers in ["", "Accept: text/event-stream\r\n", "Accept: text/html\r\n", UPGRADE] {
            let target = format!("/channels/a?wait=0&transport={asked}");
            assert_eq!(transport(&server, &target, headers), asked, "{headers}");
        }
    }
    for asked in ["", "SSE", "ws", "long-poll"] {
        let answer = server.get(&format!("/channels/a?wait=0&transport={asked}"));
        assert_eq!(refusal(&answer), "400 bad_transport", "{asked}");
    }
}

/// protocol: `websocket` without a valid upgrade is 426
#[test]
fn a_websocket_without_an_upgrade_is_426() {
    let server = Server::start();
    let answer = server.get("/channels/a?transport=websocket");
    assert_eq!(refusal(&answer), "426 upgrade_required");
    assert_eq!((answer.header("Upgrade"), answer.header("Sec-WebSocket-Version")), (Some("websocket"), Some("13")));
    assert_eq!(transport(&server, "/channels/a?transport=websocket", UPGRADE), "websocket");
}

/// protocol: Several `Accept` lines are one list.
#[test]
fn several_accept_lines_are_one_list() {
    let server = Server::start();
    let two = |first: &str, second: &str| format!("Accept: {first}\r\nAccept: {second}\r\n");
    for (headers, want) in [
        (two("application/json", "text/event-stream"), "sse"),
        (two("text/html", "application/json"), "poll"),
        (two("text/html", "application/json;q=0.5"), "view"),
    ] {
        assert_eq!(transport(&server, "/channels/a?wait=0", &headers), want, "{headers}");
    }
}

// Where to start.

/// protocol: start place; default `now`
#[test]
fn a_subscriber_starts_after_its_cursor_or_now() {
    let server = Server::start();
    for payload in ["1", "2", "3"] {
        server.publish("a", payload);
    }
    for (after, want) in [
        ("", ""),
        ("after=now&", ""),
        ("after=E-3&", ""),
        ("after=E-2&", "3"),
        ("after=E-1&", "23"),
        ("after=E-0&", "123"),
        ("after=earliest&", "123"),
    ] {
        let answer = server.get(&format!("/channels/a?{after}wait=0"));
        assert_eq!(data(&answer), want, "{after}");
        assert!(answer.text().starts_with(r#"{"cursor":"E-3","messages":["#), "{}", answer.text());
    }
}

/// protocol: So one cursor serves any set of channels and any transport.
/// protocol: A client may drop one transport and open another with the cursor it has, at any message boundary
#[test]
fn one_cursor_serves_every_transport() {
    let server = Server::start();
    let mut stream = server.stream("/channels/a,b", "");
    stream.block();
    for (channel, payload) in [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")] {
        server.publish(channel, payload);
    }
    assert_eq!(stream.block(), "id: E-1|data: 1");
    drop(stream);
    let mut websocket = server.websocket("/channels/a,b?after=E-1", &[]);
    assert_eq!(websocket.frame(), r#"{"cursor":"E-1","heartbeat":25}"#);
    assert_eq!(websocket.frame(), r#"{"id":"E-2","channel":"b","time":0,"data":"2"}"#);
    drop(websocket);
    assert_eq!(data(&server.get("/channels/a,b?after=E-2&wait=0")), "34");
}

/// protocol: A cursor says nothing about channels that were not being read: widening a set starts the new channels after that cursor.
#[test]
fn a_wider_set_starts_the_new_channels_after_the_cursor() {
    let server = Server::start();
    for (channel, payload) in [("b", "1"), ("a", "2"), ("b", "3"), ("a", "4")] {
        server.publish(channel, payload);
    }
    assert_eq!(data(&server.get("/channels/a?after=E-2&wait=0")), "4");
    assert_eq!(data(&server.get("/channels/a,b?after=E-2&wait=0")), "34");
}

/// protocol: A value that is no cursor, empty included: 400 `bad_cursor`.
#[test]
fn what_is_no_cursor_is_refused() {
    let server = Server::start();
    let too_long = format!("1-{}", "1".repeat(31));
    for after in [
        "",
        "-",
        "1766",
        "1766-",
        "-1",
        "1766-01",
        "01766-1",
        "0-1",
        "%2B1-1",
        "1766--1",
        "1766-1%20",
        "NOW",
        "Earliest",
        "4294967296-1",
        "1766-9223372036854775808",
        &too_long,
    ] {
        for headers in ["", EVENT_STREAM, UPGRADE] {
            let answer = server.ask(&format!("GET /channels/a?wait=0&after={after}"), headers);
            assert_eq!(refusal(&answer), "400 bad_cursor", "{after:?} {headers}");
        }
    }
}

/// protocol: A non-empty `Last-Event-ID` header wins over it
/// protocol: `after` is then not looked at
#[test]
fn last_event_id_wins_over_after() {
    let server = Server::start();
    for payload in ["1", "2", "3"] {
        server.publish("a", payload);
    }
    for (after, last_event_id, want) in
        [("E-0", "E-2", "3"), ("now", "E-0", "123"), ("E-0", "", "123"), ("no-cursor", "E-1", "23"), ("", "E-1", "23")]
    {
        let request = format!("GET /channels/a?wait=0&after={after}");
        let answer = server.ask(&request, &format!("Last-Event-ID: {last_event_id}\r\n"));
        assert_eq!(data(&answer), want, "{after} {last_event_id}");
    }
    let mut stream = server.stream("/channels/a?after=E-0", "Last-Event-ID: E-2\r\n");
    assert_eq!(stream.block(), "retry: R|id: E-2");
    assert_eq!(stream.block(), "id: E-3|data: 3");
}

/// protocol: a header that is no cursor is not an error, for an EventSource could never mend it, but a gap with reason `unknown`
#[test]
fn a_last_event_id_that_is_no_cursor_is_a_gap() {
    let server = Server::start();
    server.publish("a", "1");
    let answer = server.ask("GET /channels/a?wait=0", "Last-Event-ID: 17\r\n");
    assert_eq!(
        answer.text(),
        r#"{"cursor":"E-1","gap":{"after":"17","through":"E-0","cursor":"E-0","reason":"unknown"},"messages":[{"id":"E-1","channel":"a","time":0,"data":"1"}]}"#
    );
}

// In which format.

/// protocol: json: the message object. raw: the payload alone. Defaults: long poll json, SSE raw
#[test]
fn formats_and_their_defaults() {
    let server = Server::start();
    server.publish("a", "x");
    let object = r#"{"id":"E-1","channel":"a","time":0,"data":"x"}"#;
    for (format, want) in [
        ("", format!(r#"{{"cursor":"E-1","messages":[{object}]}}"#)),
        ("&format=json", format!(r#"{{"cursor":"E-1","messages":[{object}]}}"#)),
        ("&format=raw", "x".to_owned()),
    ] {
        assert_eq!(server.get(&format!("/channels/a?after=E-0{format}")).text(), want, "{format}");
    }
    for (format, want) in [("", "x"), ("&format=raw", "x"), ("&format=json", object)] {
        let mut stream = server.stream(&format!("/channels/a?after=E-0{format}"), "");
        stream.block();
        assert_eq!(stream.block(), format!("id: E-1|data: {want}"), "{format}");
    }
    for format in ["", "RAW", "xml"] {
        let answer = server.get(&format!("/channels/a?wait=0&format={format}"));
        assert_eq!(refusal(&answer), "400 bad_format", "{format}");
    }
}

/// protocol: on WebSocket the subprotocol alone decides (`format=raw` there: 400 `bad_format`)
#[test]
fn on_websocket_the_subprotocol_decides_the_format() {
    let server = Server::start();
    server.publish("a", "x");
    assert_eq!(server.websocket("/channels/a?after=E-0&format=json", &["tidings.raw"]).frame(), "x");
    for headers in [UPGRADE.to_owned(), format!("{UPGRADE}Sec-WebSocket-Protocol: tidings.raw\r\n")] {
        let answer = server.ask("GET /channels/a?format=raw", &headers);
        assert_eq!(refusal(&answer), "400 bad_format", "{headers}");
    }
}

// The message object.

/// protocol: `{"id":"1766-42","channel":"news","event":"price","type":"application/json","time":1764000000123,"data":"{\"eur\":3}"}`
/// protocol: text in `data`, always a JSON string; binary in `base64` instead
/// protocol: `event` and `type` are left out when not given.
#[test]
fn the_message_object() {
    let server = Server::start();
    for (query, media_type, payload, want) in [
        (
            "?event=price",
            "application/json",
            &br#"{"eur":3}"#[..],
            r#""event":"price","type":"application/json","time":0,"data":"{\"eur\":3}""#,
        ),
        ("", "", b"plain", r#""time":0,"data":"plain""#),
        ("", "", b"", r#""time":0,"data":"""#),
        ("", "", b"\xff\xfe\0", r#""time":0,"base64":"//4A""#),
        ("", "image/png", b"text?", r#""type":"image/png","time":0,"base64":"dGV4dD8=""#),
        (
            "?event=%22%5C%E2%82%AC",
            "text/plain",
            "a\r\n\t\"\u{1}€".as_bytes(),
            r#""event":"\"\\€","type":"text/plain","time":0,"data":"a\r\n\t\"\u0001€""#,
        ),
    ] {
        let headers = if media_type.is_empty() { String::new() } else { format!("Content-Type: {media_type}\r\n") };
        let id = server.publish_with(&format!("/channels/news{query}"), &headers, payload);
        let want = format!(r#"{{"id":"{id}","channel":"news",{want}}}"#);
        let answer = server.get("/channels/news?after=earliest&wait=0");
        assert_eq!(answer.text(), format!(r#"{{"cursor":"{id}","messages":[{want}]}}"#));
        server.ask("DELETE /channels/news", "");
    }
}

/// protocol: `time` is Unix milliseconds at acceptance, for people; nothing in the protocol depends on it.
#[test]
fn time_is_unix_milliseconds_at_acceptance() {
    let server = Server::start();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let before = now();
    server.publish("a", "x");
    let after = now();
    let time = server.inner.poll("a", "earliest")["messages"].array()[0]["time"].number() as u128;
    assert!((before..=after).contains(&time), "{before} {time} {after}");
}
