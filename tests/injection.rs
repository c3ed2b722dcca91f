//! What one peer sends, another receives: no byte of it may begin a header line, a field of an event
//! stream, or a member of a JSON object that the server did not write.
//!
//! Every field that a peer controls gets every byte, before words that would be a line of their own
//! (`forged:yes`). Either the field is refused, or everybody reads it back as it was sent.

mod common;

use common::TestServer;
use common::http::Response;
use common::json;
use common::sse::EventStream;
use common::websocket::WebSocket;

/// What stands behind the byte under test.
const CANARY: &str = "forged:yes";

/// Each byte by itself, and characters that some reader takes for the end of a line or for nothing.
fn stings() -> Vec<Vec<u8>> {
    let characters = ["\u{80}", "\u{85}", "\u{9b}", "\u{a0}", "\u{202e}", "\u{2028}", "\u{2029}", "\u{feff}", "\r\n"];
    (0..=255).map(|byte| vec![byte]).chain(characters.map(|text| text.as_bytes().to_vec())).collect()
}

/// `a`, the bytes under test, the canary.
fn stung(sting: &[u8]) -> Vec<u8> {
    [b"a", sting, CANARY.as_bytes()].concat()
}

/// What of these bytes is the value of a header: a CRLF among them ends it, and that is the
/// sender's own doing.
fn as_header(bytes: &[u8]) -> &[u8] {
    let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap_or(bytes.len());
    &bytes[..end]
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every header that the server has.
const HEADERS: &[&str] = &[
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "connection",
    "content-disposition",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "idempotent-replayed",
    "referrer-policy",
    "retry-after",
    "sec-websocket-accept",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "tidings-channel",
    "tidings-cursor",
    "tidings-event",
    "tidings-gap",
    "tidings-id",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
    "x-content-type-options",
];

/// The client has looked at the bytes of each line; this looks at which lines there are.
fn clean(answer: Response) -> Response {
    for (name, value) in &answer.headers {
        assert!(HEADERS.contains(&name.to_ascii_lowercase().as_str()), "{name}: {value}");
    }
    if answer.status >= 400 {
        // A strict parser of JSON, and the members of an error.
        let body = answer.json();
        assert_eq!(body.keys(), ["error"]);
        assert!(body["error"].keys().iter().all(|key| ["status", "code", "message", "cursor"].contains(key)));
    }
    answer
}

/// Subscribers of every kind, and what a message is to them.
struct Everybody {
    raw: EventStream,
    json: EventStream,
    socket: WebSocket,
}

/// What a publisher gave.
#[derive(Default)]
struct Given<'a> {
    event: Option<&'a str>,
    media_type: Option<&'a str>,
    payload: &'a [u8],
}

impl Everybody {
    fn at(server: &TestServer) -> Everybody {
        let mut everybody = Everybody {
            raw: server.sse("/channels/a"),
            json: server.sse("/channels/a?format=json"),
            socket: server.websocket("/channels/a", &[]),
        };
        everybody.raw.next_block();
        everybody.json.next_block();
        everybody.socket.next_json();
        everybody
    }

    /// All of them read the message back as it was given.
    fn read(&mut self, server: &TestServer, given: &Given<'_>) {
        let text = String::from_utf8(given.payload.to_vec()).ok();
        let block = self.raw.next_block().expect("the stream goes on");
        let fields = ["id", "event", "data"];
        for line in &block.lines {
            let (field, _) = line.split_once(": ").unwrap_or((line, ""));
            assert!(fields.contains(&field.trim_end_matches(':')), "{line:?}");
        }
        let event = block.event.expect("a message");
        assert_eq!(event.name, given.event.unwrap_or("message"));
        if let Some(text) = &text {
            assert_eq!(event.data, text.replace("\r\n", "\n").replace('\r', "\n"));
        }

        let block = self.json.next_block().expect("the stream goes on");
        let from_stream = json::parse(&block.event.expect("a message").data);
        let frame = self.socket.next_json();
        let polled = server.get("/channels/a?after=earliest&wait=0").json();
        for object in [&from_stream, &frame, polled["messages"].array().last().expect("the newest")] {
            let known = ["id", "channel", "event", "type", "time", "data", "base64"];
            assert!(object.keys().iter().all(|key| known.contains(key)), "{:?}", object.keys());
            assert_eq!(object.has("event").then(|| object["event"].str()), given.event);
            assert_eq!(object.has("type").then(|| object["type"].str()), given.media_type);
            assert_eq!(object.has("data").then(|| object["data"].str()), text.as_deref());
        }

        let before = common::shifted(frame["id"].str(), -1);
        let raw = clean(server.get(&format!("/channels/a?after={before}&wait=0&format=raw")));
        assert_eq!(raw.body, given.payload);
        let event = raw.header("Tidings-Event").map(|event| {
            assert!(event.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)), "{event}");
            percent_decoded(event)
        });
        assert_eq!(event.as_deref(), given.event.map(str::as_bytes));
        if let Some(media_type) = given.media_type {
            assert_eq!(raw.header("Content-Type"), Some(media_type.trim_matches(['\t', ' '])));
        }
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().as_bytes().to_vec();
    parts.fold(first, |mut bytes, part| {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two hex digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
        bytes
    })
}

#[test]
fn events_types_and_payloads() {
    let server = TestServer::start_with(|config| config.history_messages = 1);
    let mut everybody = Everybody::at(&server);
    let mut taken = [0; 5];
    for sting in stings() {
        let bytes = stung(&sting);
        let text = std::str::from_utf8(&bytes).ok();

        let answer = clean(server.post(&format!("/channels/a?event={}", percent(&bytes)), "x"));
        let may = text.is_some_and(|text| !text.chars().any(char::is_control));
        assert_eq!(answer.status, if may { 200 } else { 400 }, "event {sting:?}");
        if may {
            everybody.read(&server, &Given { event: text, payload: b"x", ..Given::default() });
            taken[0] += 1;
        }

        // By header, where some bytes end the line, and by command, where none does.
        let media_type = [b"text/a;b=\"", &bytes[..], b"\""].concat();
        let answer = clean(server.request("POST", "/channels/a").header("Content-Type", &media_type).body("x").send());
        if answer.status == 200 {
            let text = std::str::from_utf8(&media_type).expect("a type is ASCII");
            everybody.read(&server, &Given { media_type: Some(text), payload: b"x", ..Given::default() });
            taken[1] += 1;
        }
        let line = format!("publish a type={} event={}\nx", percent(&media_type), percent(&bytes));
        let mut socket = server.websocket("/channels/z", &["tidings.v1"]);
        socket.next_json();
        socket.send_text(&line);
        if socket.next_json().has("published") {
            let media_type = std::str::from_utf8(&media_type).expect("a type is ASCII");
            everybody.read(&server, &Given { event: text, media_type: Some(media_type), payload: b"x" });
            taken[2] += 1;
        }

        // A payload is free; what is no UTF-8 comes as base64.
        let payload = [&bytes[..], b"\n\n", &sting, &sting, b"data: forged"].concat();
        assert_eq!(server.post("/channels/a", &payload).status, 200);
        everybody.read(&server, &Given { payload: &payload, ..Given::default() });
        taken[3] += 1;

        let key = server.request("POST", "/channels/a").header("Idempotency-Key", &bytes).body("x").send();
        if clean(key).status == 200 {
            everybody.read(&server, &Given { payload: b"x", ..Given::default() });
            taken[4] += 1;
        }
    }
    // 95 bytes are printable ASCII, and five of the characters are no controls. A type may have a
    // tab, and a quote breaks it. A key has no space; with CRLF behind it, it is `a`.
    assert_eq!(taken, [95 + 5, 95 - 1 + 1, 95 - 1, 256 + 9, 95 - 1 + 1], "how many were taken");
}

#[test]
fn names_and_references() {
    let server = TestServer::start();
    let mut socket = server.websocket("/channels/z", &["tidings.v1"]);
    socket.next_json();
    for sting in stings() {
        let bytes = stung(&sting);
        let is_name = sting.len() == 1 && (sting[0].is_ascii_alphanumeric() || b"._:~@-".contains(&sting[0]));
        let name = percent(&bytes);
        for request in [
            server.request("POST", &format!("/channels/{name}")),
            server.request("HEAD", &format!("/channels/{name}")),
            server.request("GET", &format!("/channels/{name}?after=earliest&wait=0&format=raw")),
            server.request("DELETE", &format!("/channels/{name}")),
        ] {
            let answer = request.start().response_head();
            let is_set = sting == b"," && matches!(answer.status, 200..=204);
            assert!((answer.status < 300) == is_name || is_set, "{sting:?}: {answer:?}");
            if let Some(channel) = answer.header("Tidings-Channel") {
                assert_eq!(channel.as_bytes(), bytes);
            }
            assert_eq!(answer.header("forged"), None);
        }
        let answer = clean(server.get(&format!("/channels?prefix={name}&after={name}")));
        assert_eq!(answer.json().keys(), ["channels"]);

        socket.send_text(&format!("publish {name} ref=1\nx"));
        let answer = socket.next_json();
        assert_eq!(answer.has("published"), is_name, "{sting:?}");
        assert_eq!(answer["ref"], "1");
        // A ref is repeated as it came: in a text frame, so as UTF-8.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            socket.send_text(&format!("unsubscribe y ref={text}"));
            let answer = socket.next_json();
            let is_taken = sting.len() == 1 && sting[0].is_ascii_graphic();
            assert_eq!(answer.has("subscribed"), is_taken, "{sting:?}");
            if is_taken {
                assert_eq!(answer["ref"], text);
            }
            let known = ["subscribed", "cursor", "ref", "error"];
            assert!(answer.keys().iter().all(|key| known.contains(key)));
        }
    }
}

#[test]
fn cursors_that_are_told_back() {
    let server = TestServer::start();
    for sting in stings() {
        let bytes = stung(&sting);
        let request = |query: &str| server.request("GET", &format!("/channels/a{query}"));
        let answer = clean(request(&format!("?after={}", percent(&bytes))).send());
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_cursor"), "{sting:?}");

        let with_id = |query: &str| request(query).header("Last-Event-ID", &bytes);
        let json = clean(with_id("?wait=0").send());
        if json.status == 400 {
            // Some bytes end a header line, or may not stand in one.
            assert!(sting.iter().all(|byte| byte.is_ascii_control()), "{sting:?}");
            continue;
        }
        let told = String::from_utf8_lossy(as_header(&bytes)).into_owned();
        assert_eq!(json.json()["gap"]["after"], told.as_str());

        let raw = clean(with_id("?wait=0&format=raw").send());
        let gap = raw.header("Tidings-Gap").expect("a gap");
        assert!(gap.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{gap}");
        assert_eq!(json::parse(gap)["after"], told.as_str());

        let mut stream = EventStream::open(with_id("").header("Accept", "text/event-stream"));
        let mut events = Vec::new();
        while events.is_empty() {
            let block = stream.next_block().expect("a gap");
            assert!(!block.lines.iter().any(|line| line.starts_with("forged")), "{block:?}");
            events.extend(block.event);
        }
        assert_eq!(
            (events[0].name.as_str(), &json::parse(&events[0].data)["after"]),
            ("gap", &json.json()["gap"]["after"])
        );

        let mut socket = WebSocket::open(with_id(""), &[]).expect("101");
        socket.next_json();
        assert_eq!(socket.next_json()["gap"]["after"], told.as_str());
    }
}

#[test]
fn headers_that_are_echoed_or_shown() {
    let server = TestServer::start_with(|config| config.origins = vec!["https://a".into(), "https://b".into()]);
    for sting in stings() {
        let bytes = stung(&sting);
        let origins = [[b"https://", &bytes[..]].concat(), [b"https://a", &sting[..]].concat(), bytes.clone()];
        for origin in &origins {
            for method in ["GET", "POST", "OPTIONS"] {
                let answer = clean(server.request(method, "/channels/a?wait=0").header("Origin", origin).send());
                let echo = answer.header("Access-Control-Allow-Origin");
                let is_listed = as_header(origin).trim_ascii_end() == b"https://a";
                assert!(echo.is_none() || (echo == Some("https://a") && is_listed), "{origin:?}: {echo:?}");
            }
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let answer = server.request("GET", "/healthz").host(text).send();
            assert!(matches!(answer.status, 400 | 421), "{text:?}: {answer:?}");
            clean(answer);
        }
        let offers = [b"tidings.raw, tidings.bearer.", &bytes[..]].concat();
        let request = WebSocket::handshake(server.request("GET", "/channels/a"));
        let answer = request.header("Sec-WebSocket-Protocol", &offers).start().response_head();
        assert!(matches!(answer.status, 101 | 400), "{answer:?}");
        assert!(matches!(answer.header("Sec-WebSocket-Protocol"), None | Some("tidings.raw")), "{answer:?}");
        let answer = clean(server.request("POST", "/channels/a").header("If-Match", &bytes).send());
        assert_eq!(answer.status, 400);
        for (name, value) in [("Authorization", [b"Bearer ", &bytes[..]].concat()), ("User-Agent", bytes.clone())] {
            clean(server.request("GET", "/channels/a?wait=0").header(name, value).send());
        }
    }
}
