//! Requests in, actions or refusals out: every row of the contract that routing decides.

use super::*;
use crate::config::Config;
use crate::cursor::Epoch;

/// Decodes a request and looks at its head. `line` is the request line without its version, which
/// is 1.1 unless it says another; `Host: localhost` is added unless `lines` has one or it is 1.0.
pub(super) fn with_head<T>(line: &str, lines: &str, look: impl FnOnce(&RequestHead<'_>) -> T) -> T {
    let version = if line.contains(" HTTP/") { "" } else { " HTTP/1.1" };
    let host = if line.contains(" HTTP/1.0") || lines.contains("Host: ") { "" } else { "Host: localhost\r\n" };
    let bytes = format!("{line}{version}\r\n{host}{lines}\r\n");
    let mut scratch = http::NO_HEADERS;
    look(&http::decode_head(bytes.as_bytes(), &mut scratch).unwrap())
}

fn routed(line: &str, lines: &str) -> Result<Action, Refusal> {
    let config = Config { origins: vec!["https://listed.example".into()], ..Config::default() };
    let policy = Policy::new(&config, true).unwrap();
    with_head(line, lines, |head| route(head, &policy))
}

fn refused(line: &str, lines: &str) -> Code {
    match routed(line, lines) {
        Ok(action) => panic!("{line} {lines} gives {action:?}"),
        Err(refusal) => refusal.code,
    }
}

fn subscribed(line: &str, lines: &str) -> SubscribeRequest {
    match routed(line, lines) {
        Ok(Action::Subscribe(request)) => request,
        other => panic!("{line} {lines} gives {other:?}"),
    }
}

fn published(line: &str, lines: &str) -> PublishRequest {
    match routed(line, lines) {
        Ok(Action::Publish(request)) => request,
        other => panic!("{line} {lines} gives {other:?}"),
    }
}

fn cursor(epoch: u32, seq: u64) -> Cursor {
    Cursor { epoch: Epoch::new(epoch).unwrap(), seq }
}

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SSE: &str = "Accept: text/event-stream\r\n";
const EVIL: &str = "Origin: https://evil.example\r\n";
const CROSS_SITE: &str = "Sec-Fetch-Site: cross-site\r\n";

#[test]
fn resources_and_methods() {
    const FULL: &str = "GET, HEAD, POST, DELETE, OPTIONS";
    const READ: &str = "GET, HEAD, OPTIONS";
    let list = Action::List { prefix: String::new(), after: None };
    let poll = Action::Subscribe(SubscribeRequest {
        channels: vec!["a".into()],
        after: After::Now,
        transport: Transport::Poll { wait: Duration::from_secs(25) },
        format: Format::Json,
    });
    let message = Action::Publish(PublishRequest {
        channel: "a".into(),
        event: None,
        media_type: None,
        key: None,
        only_after: None,
    });
    for (path, allow, get, head, post, delete) in [
        (
            "/channels/a",
            FULL,
            poll,
            Action::Tip { channels: vec!["a".into()] },
            Some(message),
            Some(Action::Delete { channel: "a".into() }),
        ),
        ("/channels", READ, list.clone(), list, None, None),
        ("/", READ, Action::Playground, Action::Playground, None, None),
        ("/tidings.js", READ, Action::Client, Action::Client, None, None),
        ("/healthz", READ, Action::Health, Action::Health, None, None),
        ("/readyz", READ, Action::Ready, Action::Ready, None, None),
        ("/metrics", READ, Action::Metrics, Action::Metrics, None, None),
    ] {
        for (method, want) in [
            ("GET", Some(get)),
            ("HEAD", Some(head)),
            ("POST", post),
            ("DELETE", delete),
            ("OPTIONS", Some(Action::Preflight { allow })),
            ("PUT", None),
            ("PATCH", None),
            ("get", None),
        ] {
            let got = routed(&format!("{method} {path}"), "");
            match want {
                Some(action) => assert_eq!(got, Ok(action), "{method} {path}"),
                None => {
                    let refusal = got.unwrap_err();
                    assert_eq!((refusal.code, refusal.allow), (Code::MethodNotAllowed, Some(allow)), "{method} {path}");
                    assert!(refusal.message.contains(allow), "{refusal}");
                }
            }
        }
    }
    assert_eq!(routed("OPTIONS *", ""), Ok(Action::Preflight { allow: FULL }));
}

#[test]
fn paths_of_nobody_are_the_embedders() {
    for path in ["/other", "/channel/a", "/channelsa", "/Channels/a", "//channels/a", "/tidings.js/", "/healthz/"] {
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT"] {
            assert_eq!(routed(&format!("{method} {path}"), ""), Ok(Action::App), "{method} {path}");
        }
    }
    for method in ["POST", "DELETE", "PUT", "PATCH"] {
        assert_eq!(refused(&format!("{method} /other"), EVIL), Code::OriginNotAllowed, "{method}");
    }
    assert_eq!(routed("GET /other?%zz", EVIL), Ok(Action::App));
}

#[test]
fn channel_names() {
    let long = "x".repeat(128);
    for (path, want) in [
        ("a", "a"),
        ("AZaz09._:~@-", "AZaz09._:~@-"),
        ("%61%2D%7E", "a-~"),
        ("...", "..."),
        (long.as_str(), long.as_str()),
    ] {
        assert_eq!(published(&format!("POST /channels/{path}"), "").channel, want, "{path}");
        let deleted = routed(&format!("DELETE /channels/{path}"), "");
        assert_eq!(deleted, Ok(Action::Delete { channel: want.into() }), "{path}");
        assert_eq!(subscribed(&format!("GET /channels/{path}"), "").channels, [want], "{path}");
    }
    let too_long = "x".repeat(129);
    for path in [
        "",
        ".",
        "..",
        "%2e%2E",
        "a/b",
        "a/",
        "a%2Fb",
        "a%20b",
        "a+b",
        "a%00",
        "a%0d%0aX:y",
        "%C3%A9",
        "a%",
        "a%2",
        "a%zz",
        "a%25",
        "a!",
        "a*b",
        too_long.as_str(),
    ] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            assert_eq!(refused(&format!("{method} /channels/{path}"), ""), Code::BadChannel, "{method} {path}");
        }
    }
}

#[test]
fn channel_sets() {
    let names = |count: usize| (0..count).map(|nth| format!("c{nth:02}")).collect::<Vec<_>>();
    for (path, want) in [
        ("b,a", vec!["a".to_owned(), "b".into()]),
        ("a,b,a,a", vec!["a".into(), "b".into()]),
        ("b%2Ca", vec!["a".into(), "b".into()]),
        (names(64).join(",").as_str(), names(64)),
    ] {
        assert_eq!(subscribed(&format!("GET /channels/{path}"), "").channels, want, "{path}");
        assert_eq!(routed(&format!("HEAD /channels/{path}"), ""), Ok(Action::Tip { channels: want.clone() }), "{path}");
        let view = routed(&format!("GET /channels/{path}?transport=view"), "");
        assert_eq!(view, Ok(Action::View { channels: want }), "{path}");
    }
    for method in ["GET", "HEAD"] {
        let request = |set: &str| format!("{method} /channels/{set}");
        assert_eq!(refused(&request(&names(65).join(",")), ""), Code::TooManyChannels);
        assert_eq!(refused(&request(&"a,".repeat(2100)), ""), Code::TooManyChannels);
        for set in [",", "a,", ",a", "a,,b", "a,b!"] {
            assert_eq!(refused(&request(set), ""), Code::BadChannel, "{set}");
        }
    }
    for method in ["POST", "DELETE"] {
        assert_eq!(refused(&format!("{method} /channels/a,b"), ""), Code::BadChannel);
        assert_eq!(refused(&format!("{method} /channels/a%2Cb"), ""), Code::BadChannel);
    }
}

#[test]
fn queries() {
    // Known ones, each at most once; each resource knows its own.
    for (line, code) in [
        ("GET /channels/a?after=now&after=now", Code::BadQuery),
        ("GET /channels/a?format=raw&format=raw", Code::BadQuery),
        ("GET /channels/a?wait=1&wait=1", Code::BadQuery),
        ("GET /channels/a?transport=sse&wait=1&wait=1", Code::BadQuery),
        ("GET /channels/a?transport=sse&transport=sse", Code::BadQuery),
        ("GET /channels/a?token=x&token=x", Code::BadQuery),
        ("GET /channels/a?after&after", Code::BadQuery),
        ("GET /channels/a?after=now&%61fter=now", Code::BadQuery),
        ("HEAD /channels/a?token=x&token=y", Code::BadQuery),
        ("POST /channels/a?event=x&event=x", Code::BadQuery),
        ("POST /channels/a?token=x&token=x", Code::BadQuery),
        ("DELETE /channels/a?token=x&token=x", Code::BadQuery),
        ("GET /channels?prefix=x&prefix=x", Code::BadQuery),
        ("GET /channels?after=x&after=x", Code::BadQuery),
        ("GET /channels?token=x&token=x", Code::BadQuery),
        ("GET /metrics?token=x&token=x", Code::BadQuery),
        // A broken % anywhere.
        ("GET /channels/a?x=%", Code::BadQuery),
        ("GET /channels/a?x=%4", Code::BadQuery),
        ("GET /channels/a?x=%4&y=1", Code::BadQuery),
        ("GET /channels/a?%zz", Code::BadQuery),
        ("GET /channels/a?after=%zz", Code::BadQuery),
        ("HEAD /channels/a?token=%zz", Code::BadQuery),
        ("POST /channels/a?event=%e", Code::BadQuery),
        ("DELETE /channels/a?x=%e", Code::BadQuery),
        ("GET /channels?prefix=%e", Code::BadQuery),
        ("GET /metrics?%e", Code::BadQuery),
    ] {
        assert_eq!(refused(line, ""), code, "{line}");
    }
    for line in [
        "GET /channels/a?",
        "GET /channels/a?&&",
        "GET /channels/a?x=1&x=2&event=gap&event=gap",
        "GET /channels/a?After=x&=&=",
        "POST /channels/a?after=x&after=y&wait=z&x",
        "DELETE /channels/a?event=gap&event=gap",
        "HEAD /channels/a?after=x&after=y&wait=z&transport=w&format=v&%zz&after=%zz&token=x",
        "GET /channels?wait=x&wait=x&transport=x",
        "GET /metrics?after=1&after=2",
        "GET /?%zz&token=1&token=2",
        "GET /healthz?%zz",
        "GET /readyz?%zz",
        "GET /tidings.js?v=%zz",
        "OPTIONS /channels/a?%zz&token=1&token=2",
    ] {
        assert!(routed(line, "").is_ok(), "{line}");
    }
}

#[test]
fn no_message_shows_a_token() {
    for line in [
        "GET /channels/a?token=Sesame&token=Sesame",
        "GET /channels/a?token=Sesame%",
        "GET /channels/a?Sesame=%zz",
        "GET /channels/a?after=Sesame",
        "GET /channels/a?wait=Sesame",
        "GET /channels/a?format=Sesame",
        "GET /channels/a?transport=Sesame",
        "GET /channels/a?token=Sesame&transport=websocket",
        "HEAD /channels/a?token=Sesame&token=Sesame",
        "POST /channels/a?event=gap&token=Sesame",
        "POST /channels/!?token=Sesame",
        "PUT /channels/a?token=Sesame",
    ] {
        let refusal = routed(line, "Authorization: Bearer Sesame\r\n").unwrap_err();
        assert!(!refusal.message.contains("Sesame"), "{line} {refusal}");
    }
}

#[test]
fn events() {
    for (query, want) in [
        ("", None),
        ("?event=price", Some("price")),
        ("?event=a+b%21", Some("a b!")),
        ("?event=%C3%A9", Some("é")),
        ("?event=message", None),
    ] {
        assert_eq!(published(&format!("POST /channels/a{query}"), "").event.as_deref(), want, "{query}");
    }
    let long = "x".repeat(129);
    for event in ["", "gap", "open", "error", "tidings.x", "a%0Ab", "%FF", long.as_str()] {
        assert_eq!(refused(&format!("POST /channels/a?event={event}"), ""), Code::BadEvent, "{event}");
    }
    assert_eq!(refused("POST /channels/a?event", ""), Code::BadEvent);
}

#[test]
fn content_types() {
    for (lines, want) in [
        ("", None),
        ("Content-Type:\r\n", None),
        ("Content-Type: application/json\r\n", Some("application/json")),
        ("Content-Type: text/plain; charset=utf-8\r\n", Some("text/plain; charset=utf-8")),
        ("Content-Type: application/x-www-form-urlencoded\r\n", None),
    ] {
        assert_eq!(published("POST /channels/a", lines).media_type.as_deref(), want, "{lines}");
    }
    for lines in [
        "Content-Type: text\r\n",
        "Content-Type: text/\r\n",
        "Content-Type: text/plain, text/html\r\n",
        "Content-Type: text/plain\r\nContent-Type: text/plain\r\n",
        &format!("Content-Type: text/{}\r\n", "x".repeat(124)),
    ] {
        assert_eq!(refused("POST /channels/a", lines), Code::BadType, "{lines}");
    }
}

#[test]
fn idempotency_keys() {
    let long = "k".repeat(128);
    for key in ["k", "\"quoted\"", "!~", long.as_str()] {
        let lines = format!("Idempotency-Key: {key}\r\n");
        assert_eq!(published("POST /channels/a", &lines).key.as_deref(), Some(key), "{key}");
    }
    assert_eq!(published("POST /channels/a", "").key, None);
    for lines in [
        "Idempotency-Key:\r\n",
        "Idempotency-Key: a b\r\n",
        "Idempotency-Key: é\r\n",
        "Idempotency-Key: k\r\nIdempotency-Key: k\r\n",
        &format!("Idempotency-Key: {long}k\r\n"),
    ] {
        assert_eq!(refused("POST /channels/a", lines), Code::BadKey, "{lines}");
    }
}

#[test]
fn conditions() {
    for (lines, want) in [
        ("", None),
        ("If-Match: \"1766-42\"\r\n", Some(cursor(1766, 42))),
        ("If-Match: \"1-0\"\r\n", Some(cursor(1, 0))),
    ] {
        assert_eq!(published("POST /channels/a", lines).only_after, want, "{lines}");
    }
    for lines in [
        "If-Match:\r\n",
        "If-Match: *\r\n",
        "If-Match: 1766-42\r\n",
        "If-Match: W/\"1766-42\"\r\n",
        "If-Match: \"1766-42\r\n",
        "If-Match: \"\r\n",
        "If-Match: \"\"\r\n",
        "If-Match: \"now\"\r\n",
        "If-Match: \"01-1\"\r\n",
        "If-Match: \"1-1\", \"1-2\"\r\n",
        "If-Match: \"1-1\"\r\nIf-Match: \"1-1\"\r\n",
        "If-None-Match: *\r\n",
        "If-None-Match:\r\n",
        "If-None-Match: \"1-1\"\r\nIf-Match: \"1-1\"\r\n",
    ] {
        assert_eq!(refused("POST /channels/a", lines), Code::BadCondition, "{lines}");
    }
}

#[test]
fn start_places() {
    for (query, lines, want) in [
        ("", "", After::Now),
        ("?after=now", "", After::Now),
        ("?after=earliest", "", After::Earliest),
        ("?after=1766-42", "", After::At(cursor(1766, 42))),
        ("?after=1766%2D42", "", After::At(cursor(1766, 42))),
        ("", "Last-Event-ID: 7-1\r\n", After::At(cursor(7, 1))),
        ("?after=7-1", "Last-Event-ID: 7-2\r\n", After::At(cursor(7, 2))),
        ("?after=7-1", "Last-Event-ID:\r\n", After::At(cursor(7, 1))),
        ("?after=bogus", "Last-Event-ID: 7-2\r\n", After::At(cursor(7, 2))),
        ("?after=7-1", "Last-Event-ID: bogus\r\n", After::Unknown("bogus".into())),
    ] {
        for lines in [lines.to_owned(), format!("{lines}{SSE}"), format!("{lines}{HANDSHAKE}")] {
            assert_eq!(subscribed(&format!("GET /channels/a{query}"), &lines).after, want, "{query} {lines}");
        }
    }
    for query in ["after=", "after", "after=bogus", "after=1-", "after=Now", "after=+1-1", "after=0-1"] {
        for lines in ["", SSE, HANDSHAKE, "Last-Event-ID:\r\n"] {
            assert_eq!(refused(&format!("GET /channels/a?{query}"), lines), Code::BadCursor, "{query} {lines}");
        }
    }
}

#[test]
fn transports_and_formats() {
    let poll = Transport::Poll { wait: Duration::from_secs(25) };
    for (query, lines, transport, format) in [
        ("", "", poll.clone(), Format::Json),
        ("?format=json", "", poll.clone(), Format::Json),
        ("?format=raw", "", poll.clone(), Format::Raw),
        ("?transport=poll", SSE, poll.clone(), Format::Json),
        ("?transport=poll", HANDSHAKE, poll, Format::Json),
        ("", SSE, Transport::Sse, Format::Raw),
        ("?format=raw", SSE, Transport::Sse, Format::Raw),
        ("?format=json", SSE, Transport::Sse, Format::Json),
        ("?transport=sse", "", Transport::Sse, Format::Raw),
        ("?transport=sse", HANDSHAKE, Transport::Sse, Format::Raw),
        // RFC 9110 7.8: no upgrade from HTTP/1.0.
        (" HTTP/1.0", &format!("Host: localhost\r\n{HANDSHAKE}{SSE}"), Transport::Sse, Format::Raw),
    ] {
        let got = subscribed(&format!("GET /channels/a{query}"), lines);
        assert_eq!((got.transport, got.format), (transport, format), "{query} {lines}");
    }
    for query in ["?transport=view", "?transport=view&format=json"] {
        for lines in ["", SSE, HANDSHAKE] {
            let got = routed(&format!("GET /channels/a{query}"), lines);
            assert_eq!(got, Ok(Action::View { channels: vec!["a".into()] }), "{query} {lines}");
        }
    }
    assert_eq!(routed("GET /channels/a", "Accept: text/html\r\n"), Ok(Action::View { channels: vec!["a".into()] }));
    for (query, code) in [
        ("transport=", Code::BadTransport),
        ("transport=Poll", Code::BadTransport),
        ("transport=ws", Code::BadTransport),
        ("format=", Code::BadFormat),
        ("format=JSON", Code::BadFormat),
        ("format=xml", Code::BadFormat),
    ] {
        for lines in ["", SSE, HANDSHAKE] {
            assert_eq!(refused(&format!("GET /channels/a?{query}"), lines), code, "{query} {lines}");
        }
    }
}

#[test]
fn websockets() {
    let offer = |protocols: &str| format!("{HANDSHAKE}Sec-WebSocket-Protocol: {protocols}\r\n");
    for (query, lines, want_protocol, want_format) in [
        ("", HANDSHAKE.to_owned(), Subprotocol::None, Format::Json),
        ("?transport=websocket", HANDSHAKE.to_owned(), Subprotocol::None, Format::Json),
        ("?format=json", HANDSHAKE.to_owned(), Subprotocol::None, Format::Json),
        ("", format!("{HANDSHAKE}{SSE}"), Subprotocol::None, Format::Json),
        ("", offer("tidings.v1"), Subprotocol::V1, Format::Json),
        ("", offer("tidings.raw"), Subprotocol::Raw, Format::Raw),
        ("?format=json", offer("tidings.raw"), Subprotocol::Raw, Format::Raw),
        ("?wait=bogus", HANDSHAKE.to_owned(), Subprotocol::None, Format::Json),
    ] {
        let got = subscribed(&format!("GET /channels/a{query}"), &lines);
        let Transport::WebSocket(handshake) = got.transport else { panic!("{query} {lines}") };
        assert_eq!((handshake.protocol, got.format), (want_protocol, want_format), "{query} {lines}");
    }
    for lines in [HANDSHAKE.to_owned(), offer("tidings.raw")] {
        assert_eq!(refused("GET /channels/a?format=raw", &lines), Code::BadFormat);
    }
    let no_key = HANDSHAKE.replace("Sec-WebSocket-Key", "X-Key");
    let old = HANDSHAKE.replace("Version: 13", "Version: 8");
    for (query, lines, code) in [
        ("", no_key.as_str(), Code::BadRequest),
        ("", old.as_str(), Code::UpgradeRequired),
        ("?transport=websocket", "", Code::UpgradeRequired),
        ("?transport=websocket", SSE, Code::UpgradeRequired),
        ("?transport=websocket", no_key.as_str(), Code::UpgradeRequired),
        ("?transport=websocket", old.as_str(), Code::UpgradeRequired),
    ] {
        assert_eq!(refused(&format!("GET /channels/a{query}"), lines), code, "{query} {lines}");
    }
}

#[test]
fn waits() {
    for (query, want) in [("", 25), ("?wait=0", 0), ("?wait=1", 1), ("?wait=120", 120), ("?wait=%31", 1)] {
        let got = subscribed(&format!("GET /channels/a{query}"), "").transport;
        assert_eq!(got, Transport::Poll { wait: Duration::from_secs(want) }, "{query}");
    }
    for wait in ["", "121", "-1", "+1", "%2B1", "1.0", "1s", "1e1", " 1", "1+", "99999999999999999999999", "%D9%A1"] {
        assert_eq!(refused(&format!("GET /channels/a?wait={}", wait.replace(' ', "+")), ""), Code::BadWait, "{wait:?}");
    }
    // Only a poll waits.
    assert_eq!(subscribed("GET /channels/a?wait=bogus", SSE).transport, Transport::Sse);
}

#[test]
fn heads_ask_for_the_cursor_alone() {
    for lines in ["", SSE, HANDSHAKE, "Accept: text/html\r\n", "Last-Event-ID: bogus\r\n"] {
        let got = routed("HEAD /channels/b,a?after=bogus&wait=x&format=x&transport=x", lines);
        assert_eq!(got, Ok(Action::Tip { channels: vec!["a".into(), "b".into()] }), "{lines}");
    }
    assert_eq!(refused("HEAD /channels/a", CROSS_SITE), Code::OriginNotAllowed);
}

#[test]
fn lists() {
    for (query, prefix, after) in [
        ("", "", None),
        ("?prefix=news.", "news.", None),
        ("?prefix=a+b&after=news%2Ea", "a b", Some("news.a")),
        ("?prefix=&after=", "", Some("")),
        ("?after=a%FF", "", Some("a\u{fffd}")),
    ] {
        let want = Action::List { prefix: prefix.into(), after: after.map(str::to_owned) };
        assert_eq!(routed(&format!("GET /channels{query}"), ""), Ok(want.clone()), "{query}");
        assert_eq!(routed(&format!("HEAD /channels{query}"), ""), Ok(want), "{query}");
    }
}

#[test]
fn which_requests_look_at_whom() {
    let listed = "Origin: https://listed.example\r\n";
    for (line, lines) in [("POST /channels/a", ""), ("DELETE /channels/a", ""), ("GET /channels/a", HANDSHAKE)] {
        assert_eq!(refused(line, &format!("{EVIL}{lines}")), Code::OriginNotAllowed, "{line}");
        assert!(routed(line, &format!("{listed}{lines}")).is_ok(), "{line}");
        assert!(routed(line, &format!("Origin: http://localhost\r\n{lines}")).is_ok(), "{line}");
        // The Origin has been looked at; a WebSocket of our own other name is "cross-site".
        assert!(routed(line, &format!("Origin: http://localhost\r\n{CROSS_SITE}{lines}")).is_ok(), "{line}");
    }
    for (line, lines) in [
        ("GET /channels/a", ""),
        ("GET /channels/a", SSE),
        ("GET /channels/a?transport=view", ""),
        ("GET /channels/a?transport=sse", HANDSHAKE),
        ("HEAD /channels/a", ""),
        ("GET /channels", ""),
        ("HEAD /channels", ""),
        ("GET /metrics", ""),
        ("HEAD /metrics", ""),
    ] {
        assert!(routed(line, &format!("{EVIL}{lines}")).is_ok(), "{line}");
        assert_eq!(refused(line, &format!("{CROSS_SITE}{lines}")), Code::OriginNotAllowed, "{line}");
        assert_eq!(refused(line, &format!("{CROSS_SITE}{EVIL}{lines}")), Code::OriginNotAllowed, "{line}");
        assert!(routed(line, &format!("{CROSS_SITE}{listed}{lines}")).is_ok(), "{line}");
        assert!(routed(line, &format!("{CROSS_SITE}Sec-Fetch-Mode: navigate\r\n{lines}")).is_ok(), "{line}");
    }
    for path in ["/", "/tidings.js", "/healthz", "/readyz"] {
        assert!(routed(&format!("GET {path}"), &format!("{EVIL}{CROSS_SITE}")).is_ok(), "{path}");
    }
    for path in ["/channels/a", "/channels", "/", "*"] {
        assert!(routed(&format!("OPTIONS {path}"), &format!("{EVIL}{CROSS_SITE}")).is_ok(), "{path}");
    }
}

#[test]
fn a_foreign_host_is_refused_everywhere() {
    for line in ["GET /", "GET /healthz", "GET /channels", "GET /channels/a", "POST /channels/a", "OPTIONS *", "GET /x"]
    {
        assert_eq!(refused(line, "Host: evil.example\r\nOrigin: http://evil.example\r\n"), Code::WrongHost, "{line}");
    }
}

#[test]
fn checks_have_one_order() {
    // Each request has all the faults that follow, too.
    for (line, lines, code) in [
        ("PUT /channels/!?event=%zz", format!("Host: evil.example\r\n{EVIL}"), Code::WrongHost),
        ("PUT /channels/!?event=%zz", EVIL.to_owned(), Code::MethodNotAllowed),
        ("POST /channels/!?event=%zz", EVIL.to_owned(), Code::BadQuery),
        ("POST /channels/!?event=gap", EVIL.to_owned(), Code::OriginNotAllowed),
        ("POST /channels/!?event=gap", "Content-Type: x\r\n".to_owned(), Code::BadChannel),
        ("POST /channels/a?event=gap", "Content-Type: x\r\n".to_owned(), Code::BadEvent),
        ("POST /channels/a", "Content-Type: x\r\nIdempotency-Key:\r\nIf-Match: *\r\n".to_owned(), Code::BadType),
        ("POST /channels/a", "Idempotency-Key:\r\nIf-Match: *\r\n".to_owned(), Code::BadKey),
        ("GET /channels/!?transport=x&after=x&format=x&wait=x", CROSS_SITE.to_owned(), Code::BadTransport),
        ("GET /channels/!?after=x&format=x&wait=x", CROSS_SITE.to_owned(), Code::OriginNotAllowed),
        ("GET /channels/!?after=x&format=x&wait=x", String::new(), Code::BadChannel),
        ("GET /channels/a?after=x&format=x&wait=x", String::new(), Code::BadCursor),
        ("GET /channels/a?format=x&wait=x", String::new(), Code::BadFormat),
        ("GET /channels/a?wait=x", String::new(), Code::BadWait),
    ] {
        assert_eq!(refused(line, &lines), code, "{line} {lines}");
    }
}
