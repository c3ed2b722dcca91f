//! The contract, section "WebSocket", but for the commands of `tidings.v1`.

mod common;

use std::time::Duration;

use common::trace::{Server, UPGRADE, WebSocket};

fn object(id: &str, data: &str) -> String {
    format!(r#"{{"id":"{id}","channel":"a","time":0,"data":"{data}"}}"#)
}

// What the server sends.

/// protocol: First frame `{"cursor":"…","heartbeat":25}`
#[test]
fn the_first_frame_is_the_cursor() {
    let server = Server::start();
    for payload in ["1", "2", "3"] {
        server.publish("a", payload);
    }
    for (after, want) in [("now", "E-3"), ("E-1", "E-1"), ("earliest", "E-0")] {
        for protocols in [&[][..], &["tidings.v1"]] {
            let mut websocket = server.websocket(&format!("/channels/a?after={after}"), protocols);
            assert_eq!(websocket.frame(), format!(r#"{{"cursor":"{want}","heartbeat":25}}"#), "{after}");
        }
    }
    let server = Server::start_with(|config| config.ping = Duration::from_millis(61_500));
    assert_eq!(server.websocket("/channels/a", &[]).frame(), r#"{"cursor":"E-0","heartbeat":61.500}"#);
}

/// protocol: (if a gap follows, `cursor` is the asked one, left out for `unknown`)
#[test]
fn before_a_gap_the_cursor_is_the_asked_one() {
    let server = Server::start();
    let mut websocket = server.websocket("/channels/a?after=E-9", &[]);
    assert_eq!(websocket.frame(), r#"{"cursor":"E-9","heartbeat":25}"#);
    assert_eq!(websocket.frame(), r#"{"gap":{"after":"E-9","through":"E-0","cursor":"E-0","reason":"future"}}"#);

    let mut client = server.request("GET /channels/a", &format!("{UPGRADE}Last-Event-ID: x\r\n")).start();
    let head = client.response_head();
    let mut websocket = common::websocket::WebSocket { head, client };
    let want = r#"[Some(Text("{\"heartbeat\":25}")), Some(Text("{\"gap\":{\"after\":\"x\",\"through\":\"E-0\",\"cursor\":\"E-0\",\"reason\":\"unknown\"}}"))]"#;
    assert_eq!(server.hide(&format!("{:?}", [websocket.next_frame(), websocket.next_frame()])), want);
}

/// protocol: Each message: one text frame with the message object.
#[test]
fn a_message_is_a_text_frame_with_the_message_object() {
    let server = Server::start();
    let mut websocket = server.websocket("/channels/a,b", &[]);
    websocket.frame();
    server.publish_with("/channels/a?event=e", "Content-Type: text/plain\r\n", b"1");
    server.publish("elsewhere", "2");
    server.publish_with("/channels/b", "", b"\xff\xfe");
    server.publish("a", &"x".repeat(70_000));
    for want in [
        r#"{"id":"E-1","channel":"a","event":"e","type":"text/plain","time":0,"data":"1"}"#.to_owned(),
        r#"{"id":"E-3","channel":"b","time":0,"base64":"//4="}"#.to_owned(),
        object("E-4", &"x".repeat(70_000)),
    ] {
        assert_eq!(websocket.frame(), want);
    }
}

/// protocol: Server ping every 25 s; with it, if the cursor moved and nothing was for this client, a frame `{"cursor":"…"}`
#[test]
fn a_ping_comes_with_the_cursor_if_it_moved() {
    let server = Server::start_with(|config| config.ping = Duration::from_millis(300));
    let mut websocket = server.websocket("/channels/a", &[]);
    assert_eq!(websocket.frame(), r#"{"cursor":"E-0","heartbeat":0.300}"#);
    assert_eq!(next(&mut websocket), "ping");
    server.publish("elsewhere", "1");
    assert_eq!(skip_pings(&mut websocket), r#"{"cursor":"E-1"}"#);
    assert_eq!(next(&mut websocket), "ping");
    assert_eq!(next(&mut websocket), "ping");
    server.publish("a", "x");
    assert_eq!(skip_pings(&mut websocket), object("E-2", "x"));
    // The message has told the cursor.
    assert_eq!(next(&mut websocket), "ping");
}

/// protocol: a peer silent for two intervals is closed
#[test]
fn a_silent_peer_is_closed() {
    let server = Server::start_with(|config| config.ping = Duration::from_millis(500));
    let mut lively = server.websocket("/channels/a", &[]);
    let mut silent = server.websocket("/channels/a", &[]);
    lively.frame();
    silent.frame();
    let mut pings = 0;
    while silent.frame() != "end" {
        pings += 1;
        assert_eq!(next(&mut lively), "ping");
    }
    assert!((1..=3).contains(&pings), "{pings}");
    for _ in 0..2 {
        assert_eq!(next(&mut lively), "ping");
    }
}

/// The next frame, with a pong for a ping.
fn next(websocket: &mut WebSocket) -> String {
    let frame = websocket.frame();
    if frame == "ping" {
        websocket.inner.send_frame(0x8a, b"");
    }
    frame
}

fn skip_pings(websocket: &mut WebSocket) -> String {
    loop {
        let frame = next(websocket);
        if frame != "ping" {
            return frame;
        }
    }
}

// Subprotocols.

/// protocol: Subprotocols, server's choice in this order:
#[test]
fn the_server_chooses_the_subprotocol() {
    let server = Server::start();
    for (offered, want) in [
        ("", None),
        ("tidings.v1", Some("tidings.v1")),
        ("tidings.raw", Some("tidings.raw")),
        ("tidings.raw, tidings.v1", Some("tidings.v1")),
        ("graphql-ws, tidings.raw", Some("tidings.raw")),
        ("graphql-ws", None),
        ("tidings.v2, TIDINGS.V1", None),
    ] {
        let mut headers = UPGRADE.to_owned();
        if !offered.is_empty() {
            headers.push_str(&format!("Sec-WebSocket-Protocol: {offered}\r\n"));
        }
        let head = server.head("GET /channels/a", &headers);
        assert_eq!((head.status, head.header("Sec-WebSocket-Protocol")), (101, want), "{offered}");
    }
    let two = "Sec-WebSocket-Protocol: tidings.raw\r\nSec-WebSocket-Protocol: tidings.v1\r\n";
    let head = server.head("GET /channels/a", &format!("{UPGRADE}{two}"));
    assert_eq!(head.header("Sec-WebSocket-Protocol"), Some("tidings.v1"), "two lines are one list");
}

/// protocol: `tidings.bearer.<token>` in the offered list carries the token and is never chosen (a browser needs another offer beside it).
#[test]
fn a_token_is_never_the_chosen_subprotocol() {
    let server = Server::start();
    for (offered, want) in [
        ("tidings.bearer.sesame", None),
        ("tidings.bearer.sesame, tidings.v1", Some("tidings.v1")),
        ("tidings.raw, tidings.bearer.sesame", Some("tidings.raw")),
    ] {
        let head = server.head("GET /channels/a", &format!("{UPGRADE}Sec-WebSocket-Protocol: {offered}\r\n"));
        assert_eq!((head.status, head.header("Sec-WebSocket-Protocol")), (101, want), "{offered}");
    }
}

/// protocol: `tidings.raw`: payload only, text frame for text, binary frame for binary; no cursor, heartbeat, event, type or channel.
#[test]
fn raw_is_the_payload_only() {
    let server = Server::start_with(|config| config.ping = Duration::from_millis(300));
    server.publish("a", "kept");
    let mut websocket = server.websocket("/channels/a,b?after=E-0", &["tidings.raw"]);
    assert_eq!(next(&mut websocket), "kept");
    server.publish("elsewhere", "not for it");
    // The cursor has moved, and only pings come. The first may have been on its way.
    assert_eq!((next(&mut websocket), next(&mut websocket)), ("ping".into(), "ping".into()));
    server.publish_with("/channels/b?event=e", "Content-Type: text/plain\r\n", b"text");
    server.publish_with("/channels/a", "", b"\xff\xfe");
    server.publish_with("/channels/a", "Content-Type: image/png\r\n", b"!");
    server.publish("a", "");
    for want in ["text", "binary [255, 254]", "binary [33]", ""] {
        assert_eq!(skip_pings(&mut websocket), want);
    }
}

// What the client sends.

/// protocol: Without a subprotocol, or with `tidings.raw`, each inbound message is published to the one channel of the connection
/// protocol: no acknowledgement, a subscriber sees its own message.
#[test]
fn an_inbound_message_is_published() {
    let server = Server::start();
    let mut plain = server.websocket("/channels/a", &[]);
    let mut raw = server.websocket("/channels/a", &["tidings.raw"]);
    plain.frame();
    plain.inner.send_text("one");
    assert_eq!(plain.frame(), object("E-1", "one"));
    assert_eq!(raw.frame(), "one");
    raw.inner.send_text("subscribe b");
    assert_eq!(plain.frame(), object("E-2", "subscribe b"));
    assert_eq!(raw.frame(), "subscribe b");
    // Fragments with a ping between them are one message.
    plain.inner.send_frame(0x01, b"thr");
    plain.inner.send_frame(0x89, b"?");
    plain.inner.send_frame(0x80, b"ee");
    assert_eq!(plain.frame(), "pong");
    assert_eq!(plain.frame(), object("E-3", "three"));
    plain.inner.send_text("");
    assert_eq!(plain.frame(), object("E-4", ""));
}

/// protocol: under the same rights as POST (a binary frame as `application/octet-stream`)
#[test]
fn a_binary_frame_is_an_octet_stream() {
    let server = Server::start();
    let mut websocket = server.websocket("/channels/a", &[]);
    websocket.frame();
    websocket.inner.send_binary(b"text");
    assert_eq!(
        websocket.frame(),
        r#"{"id":"E-1","channel":"a","type":"application/octet-stream","time":0,"base64":"dGV4dA=="}"#
    );
}

/// protocol: Several channels or no right: close 1008
#[test]
fn several_channels_cannot_be_published_to() {
    let server = Server::start();
    let mut websocket = server.websocket("/channels/a,b", &[]);
    websocket.frame();
    websocket.inner.send_text("to which?");
    websocket.inner.assert_closed(1008);
    assert_eq!(server.get("/channels/a,b?after=E-0&wait=0").text(), r#"{"cursor":"E-0","messages":[]}"#);
}

/// protocol: too large 1009
#[test]
fn a_message_over_the_limit_is_too_large() {
    let server = Server::start_with(|config| config.message_bytes_max = 1000);
    for (fragments, want) in [
        (&[(0x81, 1000)][..], "published"),
        (&[(0x01, 600), (0x80, 400)], "published"),
        (&[(0x81, 1001)], "close 1009"),
        (&[(0x82, 100_000)], "close 1009"),
        (&[(0x01, 600), (0x80, 401)], "close 1009"),
    ] {
        let mut websocket = server.websocket("/channels/a", &[]);
        websocket.frame();
        for &(first, length) in fragments {
            websocket.inner.send_frame(first, &vec![b'x'; length]);
        }
        let frame = websocket.frame();
        let frame = if frame.contains(&"x".repeat(1000)) { "published" } else { &frame };
        assert_eq!(frame, want, "{fragments:?}");
    }
}

/// protocol: while draining 1012.
#[test]
fn a_message_while_draining_is_refused() {
    let server = Server::start_with(|config| config.drain = Duration::from_secs(3600));
    let mut websocket = server.websocket("/channels/a", &[]);
    websocket.frame();
    server.drain();
    websocket.inner.send_text("x");
    websocket.inner.assert_closed(1012);
}
