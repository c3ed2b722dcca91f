//! The opening handshake, RFC 6455 4.2, over the whole server: what is a WebSocket, what is
//! something else, and what each is told. Every case is sent whole and byte by byte.

mod clients;
mod kernel;
mod wire;

use clients::{TEXT, client_frame};
use wire::Server;

/// The headers of the standard's example (RFC 6455 1.3), one a line.
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const GOOD: [&str; 4] = [UPGRADE, CONNECTION, VERSION, KEY];

fn request(line: &str, headers: &[&str]) -> Vec<u8> {
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{line}\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
}

fn get(headers: &[&str]) -> Vec<u8> {
    request("GET /channels/a HTTP/1.1", headers)
}

/// The standard's example with these lines instead of the nth.
fn instead(nth: usize, headers: &[&str]) -> Vec<u8> {
    let mut lines = GOOD.to_vec();
    lines.splice(nth..=nth, headers.iter().copied());
    get(&lines)
}

/// The standard's example and more.
fn with(headers: &[&str]) -> Vec<u8> {
    get(&[&GOOD[..], headers].concat())
}

/// What stands on the wire after these pieces: `101`, `101 tidings.v1`, `400 bad_request`, `poll` for
/// a request that is held, `200` and so on. The form of each answer is judged on the way.
fn answer(server: &mut Server, pieces: &[&[u8]]) -> String {
    let wire = server.connect();
    for piece in pieces {
        server.send(wire, piece);
    }
    let bytes = server.receive(wire);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        assert_eq!(text, "", "half a head");
        server.turns.os().close_client(wire);
        server.settle();
        return "poll".to_owned();
    };
    let head = head.to_owned();
    let value = |name: &str| {
        let prefix = format!("{}: ", name.to_lowercase());
        let line = head.split("\r\n").find(|line| line.to_lowercase().starts_with(&prefix));
        line.map(|line| line[prefix.len()..].to_owned())
    };
    let status = head[9..12].to_owned();
    let outcome = match status.as_str() {
        "101" => {
            let protocol = value("Sec-WebSocket-Protocol");
            let date = head.split("\r\n").nth(1).expect("a date");
            let chosen = protocol.as_ref().map_or(String::new(), |name| format!("\r\nSec-WebSocket-Protocol: {name}"));
            let want = format!(
                "HTTP/1.1 101 Switching Protocols\r\n{date}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}{chosen}",
                value("Sec-WebSocket-Accept").expect("RFC 6455 4.2.2")
            );
            assert!(date.starts_with("Date: ") && date.ends_with(" GMT"), "{date}");
            assert_eq!(head, want);
            protocol.map_or("101".to_owned(), |name| format!("101 {name}"))
        }
        "200" => "200".to_owned(),
        _ => {
            let code = body.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an error");
            format!("{status} {code}")
        }
    };
    // RFC 9110 15.5.22: "The server MUST send an Upgrade header field in a 426 response". 7.8: "A
    // sender of Upgrade MUST also send an "Upgrade" connection option". RFC 6455 4.4 asks for the
    // version that is spoken.
    if status == "426" {
        assert_eq!(value("Upgrade").as_deref(), Some("websocket"), "{head}");
        let connection = head.to_lowercase();
        assert!(connection.contains("\r\nconnection: upgrade"), "{head}");
        assert_eq!(value("Sec-WebSocket-Version").as_deref(), Some("13"), "{head}");
    } else if status != "101" {
        assert_eq!(value("Upgrade"), None, "{head}");
        assert_eq!(value("Sec-WebSocket-Version"), None, "{head}");
    }
    server.turns.os().close_client(wire);
    server.settle();
    outcome
}

/// Whole and byte by byte.
fn check(server: &mut Server, what: &str, bytes: &[u8], want: &str) {
    assert_eq!(answer(server, &[bytes]), want, "{what}");
    assert_eq!(answer(server, &bytes.chunks(1).collect::<Vec<_>>()), want, "{what}, byte by byte");
}

type Case = (&'static str, Vec<u8>, &'static str);

fn check_all(cases: &[Case]) {
    let mut server = Server::start();
    for (what, bytes, want) in cases {
        check(&mut server, what, bytes, want);
    }
}

/// RFC 6455 1.3: the example, and what follows the 101, byte for byte.
#[test]
fn the_example_of_the_standard() {
    let mut server = Server::start();
    let bytes = get(&GOOD);
    for cut in 0..bytes.len() {
        let wire = server.connect();
        server.send(wire, &bytes[..cut]);
        assert_eq!(server.receive(wire), b"", "cut at {cut}: nothing is said too early");
        server.send(wire, &bytes[cut..]);
        let answer = server.receive(wire);
        let head = b"HTTP/1.1 101 Switching Protocols\r\nDate: Mon, 24 Nov 2025 16:00:00 GMT\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let (got, frames) = answer.split_at(head.len());
        assert_eq!(String::from_utf8_lossy(got), String::from_utf8_lossy(head), "cut at {cut}");
        let text = String::from_utf8_lossy(&frames[2..]).into_owned();
        assert_eq!(frames[..2], [0x81, text.len() as u8]);
        assert!(text.starts_with("{\"cursor\":\"") && text.ends_with("-0\",\"heartbeat\":25}"), "{text}");
        server.turns.os().close_client(wire);
    }
}

/// RFC 6455 4.2.1: what the handshake must have, one thing after the other missing, doubled, or
/// written in another way.
#[test]
fn what_a_handshake_must_have() {
    let none: [&str; 0] = [];
    check_all(&[
        // `Upgrade`.
        ("no Upgrade", instead(0, &none), "poll"),
        ("an empty Upgrade", instead(0, &["Upgrade:"]), "poll"),
        ("another protocol", instead(0, &["Upgrade: h2c"]), "poll"),
        ("almost", instead(0, &["Upgrade: websockets"]), "poll"),
        ("a version that is none", instead(0, &["Upgrade: websocket/13"]), "poll"),
        ("quoted", instead(0, &["Upgrade: \"websocket\""]), "poll"),
        ("in two words", instead(0, &["Upgrade: web socket"]), "poll"),
        ("capitals", instead(0, &["Upgrade: WEBSOCKET"]), "101"),
        ("as Opera wrote it", instead(0, &["Upgrade: WebSocket"]), "101"),
        ("the name in capitals", instead(0, &["UPGRADE: websocket"]), "101"),
        ("the name in small letters", instead(0, &["upgrade: websocket"]), "101"),
        ("second in a list", instead(0, &["Upgrade: h2c, websocket"]), "101"),
        ("first in a list", instead(0, &["Upgrade: websocket, h2c"]), "101"),
        ("a list with holes", instead(0, &["Upgrade: ,, \t websocket\t,"]), "101"),
        ("a list without spaces", instead(0, &["Upgrade: h2c,websocket,x/1"]), "101"),
        ("on the second line", instead(0, &["Upgrade: h2c", "Upgrade: websocket"]), "101"),
        ("doubled", instead(0, &[UPGRADE, UPGRADE]), "101"),
        ("in a list without commas", instead(0, &["Upgrade: h2c websocket"]), "poll"),
        ("a list by semicolon", instead(0, &["Upgrade: h2c; websocket"]), "poll"),
        // `Connection`.
        ("no Connection", instead(1, &none), "426 upgrade_required"),
        ("an empty Connection", instead(1, &["Connection:"]), "426 upgrade_required"),
        ("keep-alive", instead(1, &["Connection: keep-alive"]), "426 upgrade_required"),
        ("another header's name", instead(1, &["Connection: websocket"]), "426 upgrade_required"),
        ("almost", instead(1, &["Connection: upgrades"]), "426 upgrade_required"),
        ("two words", instead(1, &["Connection: keep-alive Upgrade"]), "426 upgrade_required"),
        ("small letters", instead(1, &["Connection: upgrade"]), "101"),
        ("capitals", instead(1, &["Connection: UPGRADE"]), "101"),
        ("as Firefox writes it", instead(1, &["Connection: keep-alive, Upgrade"]), "101"),
        ("first in a list", instead(1, &["Connection: Upgrade, keep-alive"]), "101"),
        ("a list with holes", instead(1, &["Connection: , ,keep-alive,\tupgrade ,"]), "101"),
        ("two lines", instead(1, &["Connection: keep-alive", "Connection: Upgrade"]), "101"),
        ("two lines, the other way", instead(1, &["Connection: Upgrade", "Connection: keep-alive"]), "101"),
        ("doubled", instead(1, &[CONNECTION, CONNECTION]), "101"),
        ("the name in capitals", instead(1, &["CONNECTION: Upgrade"]), "101"),
        ("with close", instead(1, &["Connection: close, Upgrade"]), "101"),
        // `Sec-WebSocket-Version`.
        ("no version", instead(2, &none), "426 upgrade_required"),
        ("an empty version", instead(2, &["Sec-WebSocket-Version:"]), "426 upgrade_required"),
        ("version 0", instead(2, &["Sec-WebSocket-Version: 0"]), "426 upgrade_required"),
        ("version 7", instead(2, &["Sec-WebSocket-Version: 7"]), "426 upgrade_required"),
        ("version 8", instead(2, &["Sec-WebSocket-Version: 8"]), "426 upgrade_required"),
        ("version 12", instead(2, &["Sec-WebSocket-Version: 12"]), "426 upgrade_required"),
        ("version 14", instead(2, &["Sec-WebSocket-Version: 14"]), "426 upgrade_required"),
        ("version 25", instead(2, &["Sec-WebSocket-Version: 25"]), "426 upgrade_required"),
        ("version 130", instead(2, &["Sec-WebSocket-Version: 130"]), "426 upgrade_required"),
        ("version 255", instead(2, &["Sec-WebSocket-Version: 255"]), "426 upgrade_required"),
        ("a leading zero", instead(2, &["Sec-WebSocket-Version: 013"]), "426 upgrade_required"),
        ("a sign", instead(2, &["Sec-WebSocket-Version: +13"]), "426 upgrade_required"),
        ("a point", instead(2, &["Sec-WebSocket-Version: 13.0"]), "426 upgrade_required"),
        ("quoted", instead(2, &["Sec-WebSocket-Version: \"13\""]), "426 upgrade_required"),
        ("13 twice", instead(2, &[VERSION, VERSION]), "426 upgrade_required"),
        ("13 and 8", instead(2, &[VERSION, "Sec-WebSocket-Version: 8"]), "426 upgrade_required"),
        ("a list", instead(2, &["Sec-WebSocket-Version: 13, 8"]), "426 upgrade_required"),
        ("a list, the other way", instead(2, &["Sec-WebSocket-Version: 8, 7, 13"]), "426 upgrade_required"),
        ("the name in small letters", instead(2, &["sec-websocket-version: 13"]), "101"),
        ("spaces around", instead(2, &["Sec-WebSocket-Version: \t 13 \t "]), "101"),
        ("no space", instead(2, &["Sec-WebSocket-Version:13"]), "101"),
        // `Sec-WebSocket-Key`: 16 bytes in base64.
        ("no key", instead(3, &none), "400 bad_request"),
        ("an empty key", instead(3, &["Sec-WebSocket-Key:"]), "400 bad_request"),
        ("15 bytes", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"]), "400 bad_request"),
        ("16 bytes", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]), "101"),
        ("17 bytes", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="]), "400 bad_request"),
        ("18 bytes", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA"]), "400 bad_request"),
        ("19 bytes", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAAAA=="]), "400 bad_request"),
        ("no padding", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA"]), "400 bad_request"),
        ("half the padding", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA="]), "400 bad_request"),
        ("too much padding", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAA==="]), "400 bad_request"),
        ("padding in the middle", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAA==AAAAAAAAAA=="]), "400 bad_request"),
        ("all letters of base64", instead(3, &["Sec-WebSocket-Key: +/azAZ09+/azAZ09+/azAQ=="]), "101"),
        // RFC 4648 3.5: the bits behind the last byte should be 0. RFC 6455 4.2.2: "It is not
        // necessary for the server to base64-decode" the key; it is a text to be repeated.
        ("padding bits", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB=="]), "101"),
        ("the alphabet for URLs", instead(3, &["Sec-WebSocket-Key: -_AAAAAAAAAAAAAAAAAAAA=="]), "400 bad_request"),
        ("a space inside", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAA AAAAAAAAAAA=="]), "400 bad_request"),
        ("a comma inside", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAA,AAAAAAAAAAA=="]), "400 bad_request"),
        ("not ASCII", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAéAAAAAAAAAA=="]), "400 bad_request"),
        ("quoted", instead(3, &["Sec-WebSocket-Key: \"AAAAAAAAAAAAAAAAAAAA==\""]), "400 bad_request"),
        ("spaces around", instead(3, &["Sec-WebSocket-Key:  dGhlIHNhbXBsZSBub25jZQ== \t"]), "101"),
        ("the name in capitals", instead(3, &["SEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ=="]), "101"),
        ("doubled", instead(3, &[KEY, KEY]), "400 bad_request"),
        ("two keys", instead(3, &[KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]), "400 bad_request"),
        ("a list of keys", instead(3, &["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==, AA"]), "400 bad_request"),
        // Several are missing: the first fault is told.
        ("nothing but Upgrade", get(&[UPGRADE]), "426 upgrade_required"),
        ("nothing but Connection", get(&[CONNECTION]), "poll"),
        ("no Connection and no key", get(&[UPGRADE, VERSION]), "426 upgrade_required"),
        ("an old version and no key", get(&[UPGRADE, CONNECTION, "Sec-WebSocket-Version: 8"]), "426 upgrade_required"),
        ("in another order", get(&[KEY, VERSION, CONNECTION, UPGRADE]), "101"),
    ]);
}

/// RFC 6455 4.2.1, 1: "An HTTP/1.1 or higher GET request". RFC 9110 7.8: in HTTP/1.0 `Upgrade` is
/// ignored; and nobody but a GET is a handshake, so the others are what they are without it.
#[test]
fn methods_and_versions_of_http() {
    let empty = ["Content-Length: 0"];
    check_all(&[
        ("HTTP/1.1", request("GET /channels/a HTTP/1.1", &GOOD), "101"),
        ("HTTP/1.0", request("GET /channels/a?wait=0 HTTP/1.0", &GOOD), "200"),
        ("HTTP/1.2", request("GET /channels/a HTTP/1.2", &GOOD), "505 version_not_supported"),
        ("HTTP/2.0", request("GET /channels/a HTTP/2.0", &GOOD), "505 version_not_supported"),
        ("POST", request("POST /channels/a HTTP/1.1", &[&GOOD[..], &empty].concat()), "200"),
        ("HEAD", request("HEAD /channels/a HTTP/1.1", &GOOD), "200"),
        ("PUT", request("PUT /channels/a HTTP/1.1", &[&GOOD[..], &empty].concat()), "405 method_not_allowed"),
        ("get", request("get /channels/a HTTP/1.1", &GOOD), "405 method_not_allowed"),
        ("asked for in words", request("GET /channels/a?transport=websocket HTTP/1.1", &GOOD), "101"),
        ("in words alone", request("GET /channels/a?transport=websocket HTTP/1.1", &[]), "426 upgrade_required"),
        (
            "in words, by HTTP/1.0",
            request("GET /channels/a?transport=websocket HTTP/1.0", &GOOD),
            "426 upgrade_required",
        ),
        (
            "in words, without a key",
            request("GET /channels/a?transport=websocket HTTP/1.1", &GOOD[..3]),
            "426 upgrade_required",
        ),
        ("other words win", request("GET /channels/a?transport=poll&wait=0 HTTP/1.1", &GOOD), "200"),
        ("a path without channels", request("GET /healthz HTTP/1.1", &GOOD), "200"),
        ("no such path", request("GET /nowhere HTTP/1.1", &GOOD), "404 not_found"),
        ("the list", request("GET /channels HTTP/1.1", &GOOD), "200"),
        ("a bad name", request("GET /channels/a/b HTTP/1.1", &GOOD), "400 bad_channel"),
        ("a bad cursor", request("GET /channels/a?after=x HTTP/1.1", &GOOD), "400 bad_cursor"),
        ("a bad format", request("GET /channels/a?format=raw HTTP/1.1", &GOOD), "400 bad_format"),
        ("the absolute form", request("GET http://localhost/channels/a HTTP/1.1", &GOOD), "101"),
        ("Host twice", with(&["Host: localhost"]), "400 bad_request"),
        ("another Host", b"GET /channels/a HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(), "421 wrong_host"),
        ("an Origin of its own", with(&["Origin: http://localhost"]), "101"),
        ("another Origin", with(&["Origin: http://evil.example"]), "403 origin_not_allowed"),
        ("no Origin at all", with(&["Origin: null"]), "403 origin_not_allowed"),
    ]);
}

/// What follows the head must be frames and nothing else.
#[test]
fn a_handshake_has_no_body() {
    let chunked = |body: &str| [&with(&["Transfer-Encoding: chunked"])[..], body.as_bytes()].concat();
    let long = |body: &str| [&with(&[&format!("Content-Length: {}", body.len())])[..], body.as_bytes()].concat();
    check_all(&[
        ("an empty body", with(&["Content-Length: 0"]), "101"),
        ("a body", long("body"), "400 bad_request"),
        ("a body that has not come", with(&["Content-Length: 5"]), "400 bad_request"),
        ("chunks", chunked("4\r\nbody\r\n0\r\n\r\n"), "400 bad_request"),
        ("no chunks", chunked("0\r\n\r\n"), "400 bad_request"),
        ("chunks that have not come", chunked(""), "400 bad_request"),
        ("two lengths", with(&["Content-Length: 0", "Content-Length: 1"]), "400 bad_request"),
        ("both framings", with(&["Content-Length: 0", "Transfer-Encoding: chunked"]), "400 bad_request"),
    ]);
    // The body is never taken for frames.
    let mut server = Server::start();
    let wire = server.connect();
    let frames = client_frame(TEXT, b"smuggled");
    let length = format!("Content-Length: {}", frames.len());
    server.send(wire, &[with(&[&length]), frames].concat());
    assert!(server.receive(wire).starts_with(b"HTTP/1.1 400 "));
    assert!(server.kept("a").is_empty());
}

/// RFC 6455 4.2.2, 5: the server's choice among the offered, or none. Names are compared letter by
/// letter; several lines are one list (11.3.4).
#[test]
fn subprotocols() {
    const NAME: &str = "Sec-WebSocket-Protocol";
    let offer = |lines: &[&str]| {
        let lines: Vec<String> = lines.iter().map(|line| format!("{NAME}: {line}")).collect();
        with(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    check_all(&[
        ("v1", offer(&["tidings.v1"]), "101 tidings.v1"),
        ("raw", offer(&["tidings.raw"]), "101 tidings.raw"),
        ("both", offer(&["tidings.v1, tidings.raw"]), "101 tidings.v1"),
        ("both, the other way", offer(&["tidings.raw, tidings.v1"]), "101 tidings.v1"),
        ("on two lines", offer(&["tidings.raw", "tidings.v1"]), "101 tidings.v1"),
        ("on two lines, the other way", offer(&["tidings.v1", "tidings.raw"]), "101 tidings.v1"),
        ("twice", offer(&["tidings.raw, tidings.raw"]), "101 tidings.raw"),
        ("among others", offer(&["mqtt, tidings.raw,graphql-ws"]), "101 tidings.raw"),
        ("with holes", offer(&[",, tidings.v1 ,\t,"]), "101 tidings.v1"),
        ("others alone", offer(&["mqtt, graphql-ws"]), "101"),
        ("nothing", offer(&[""]), "101"),
        ("holes alone", offer(&[", ,"]), "101"),
        ("capitals", offer(&["Tidings.V1, TIDINGS.RAW"]), "101"),
        ("longer", offer(&["tidings.v1.1, tidings.v10"]), "101"),
        ("shorter", offer(&["tidings.v, tidings."]), "101"),
        ("a token", offer(&["tidings.bearer.sesame"]), "101"),
        ("a token and v1", offer(&["tidings.bearer.sesame, tidings.v1"]), "101 tidings.v1"),
        ("raw and a token", offer(&["tidings.raw", "tidings.bearer.sesame"]), "101 tidings.raw"),
        ("a space inside", offer(&["tidings v1"]), "400 bad_request"),
        ("quoted", offer(&["\"tidings.v1\""]), "400 bad_request"),
        ("parameters", offer(&["tidings.v1; x=1"]), "400 bad_request"),
        ("a slash", offer(&["tidings.v1, chat/2"]), "400 bad_request"),
        ("not ASCII", offer(&["tidings.v1, é"]), "400 bad_request"),
    ]);
}

// Frames and the handshake.

/// The status codes of these answers.
fn statuses(answers: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answers);
    let places = text.match_indices("HTTP/1.1 ").filter_map(|(at, line)| text.get(at + line.len()..)?.get(..3));
    places.filter(|status| status.bytes().all(|byte| byte.is_ascii_digit())).map(str::to_owned).collect()
}

/// A client need not wait for the 101: its frames may stand right behind its request.
#[test]
fn frames_in_the_segment_of_the_handshake_are_acted_upon() {
    let bytes =
        [&get(&GOOD)[..], &client_frame(TEXT, b"early"), &client_frame(9, b"?"), &client_frame(8, b"")].concat();
    let want = |server: &mut Server, wire| {
        let answer = server.receive(wire);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        assert!(answer.windows(3).any(|bytes| bytes == b"\x8a\x01?"), "{text}: the pong");
        assert!(answer.ends_with(b"\x88\x00"), "{text}: the close frame");
        assert!(server.has_ended(wire));
        assert_eq!(server.kept("a"), ["early"]);
    };
    for cut in 0..bytes.len() {
        let mut server = Server::start();
        let wire = server.connect();
        server.send(wire, &bytes[..cut]);
        server.send(wire, &bytes[cut..]);
        want(&mut server, wire);
    }
    let mut server = Server::start();
    let wire = server.connect();
    bytes.chunks(1).for_each(|byte| server.send(wire, byte));
    want(&mut server, wire);
}

/// Behind a request that is not answered yet the handshake waits, and the frames with it.
#[test]
fn a_handshake_behind_other_requests_waits_for_them() {
    let mut server = Server::start();
    let wire = server.connect();
    let first = clients::post("a", "", "", b"first");
    let second = request("GET /healthz HTTP/1.1", &[]);
    server.send(wire, &[&first[..], &second, &get(&GOOD), &client_frame(TEXT, b"second")].concat());
    assert_eq!(statuses(&server.receive(wire)), ["200", "200", "101"]);
    assert_eq!(server.kept("a"), ["first", "second"]);

    // A held poll is answered by the message of another; then comes the handshake.
    let wire = server.connect();
    server.send(wire, &[&clients::get("b", "?wait=120", "")[..], &get(&GOOD), &client_frame(TEXT, b"third")].concat());
    assert_eq!(server.receive(wire), b"");
    let other = server.connect();
    server.send(other, &clients::post("b", "", "", b"for the poll"));
    assert_eq!(statuses(&server.receive(wire)), ["200", "101"]);
    assert_eq!(server.kept("a"), ["first", "second", "third"]);
}

/// Frames are no request, and a refused handshake opens nothing for what stands behind it.
#[test]
fn frames_without_a_handshake_are_no_frames() {
    for (what, before) in [
        ("nothing", Vec::new()),
        ("a handshake without a key", instead(3, &[])),
        ("one of another version", instead(2, &["Sec-WebSocket-Version: 8"])),
        ("another protocol", instead(0, &["Upgrade: h2c"])),
    ] {
        let mut server = Server::start();
        let wire = server.connect();
        server.send(wire, &[&before[..], &client_frame(TEXT, b"premature")].concat());
        server.pass(200_000);
        let text = String::from_utf8_lossy(&server.receive(wire)).into_owned();
        assert!(!text.contains(" 101 "), "{what}: {text}");
        assert!(server.has_ended(wire), "{what}: {text}");
        assert!(server.kept("a").is_empty(), "{what}");
    }
}

/// A refusal leaves the connection as it was, for the client to try again.
#[test]
fn a_refused_handshake_may_be_mended() {
    let mut server = Server::start();
    for bad in [instead(2, &["Sec-WebSocket-Version: 8"]), instead(3, &[]), instead(1, &[])] {
        let wire = server.connect();
        server.send(wire, &[bad, get(&GOOD)].concat());
        let statuses = statuses(&server.receive(wire));
        assert_eq!((statuses.len(), statuses.last().map(String::as_str)), (2, Some("101")));
    }
}
