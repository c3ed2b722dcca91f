//! The contract's section "Publish: `POST /channels/{name}`".

mod common;

use std::time::Duration;

use common::http::Response;
use common::{TestServer, other_epoch, shifted};

/// The raw payload of the message with this id.
fn payload(server: &TestServer, channel: &str, id: &str) -> Vec<u8> {
    let answer = server.get(&format!("/channels/{channel}?format=raw&wait=0&after={}", shifted(id, -1)));
    assert_eq!((answer.status, answer.header("Tidings-Id")), (200, Some(id)), "{answer:?}");
    answer.body
}

/// The message object with this id.
fn object(server: &TestServer, channel: &str, id: &str) -> common::json::Value {
    server.poll(channel, &shifted(id, -1))["messages"][0].clone()
}

fn id(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].str().to_owned()
}

/// protocol: The body is the message, byte for byte, empty allowed, up to `message-bytes-max` (default 256 KiB).
#[test]
fn the_body_is_the_message() {
    let server = TestServer::start();
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let largest = vec![b'x'; 256 * 1024];
    for body in [&b""[..], b"x", b"\r\n\r\n", b"{\"a\":1}", "é\u{0}😀".as_bytes(), &every_byte, &largest] {
        let id = server.publish("a", body);
        assert!(payload(&server, "a", &id) == body, "{} bytes", body.len());
    }
    let too_large = server.post("/channels/a", vec![b'x'; 256 * 1024 + 1]);
    assert_eq!((too_large.status, too_large.code().as_str()), (413, "message_too_large"));

    let chunked = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n";
    let mut client = server.connect();
    client.send(chunked);
    assert_eq!(payload(&server, "a", &id(&client.response("POST"))), b"abcdefg");
}

/// protocol: up to `message-bytes-max`
#[test]
fn the_limit_of_a_message_holds_however_it_is_framed() {
    let server = TestServer::start_with(|config| config.message_bytes_max = 8);
    let chunked = |data: &str| {
        let mut client = server.connect();
        let head = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}4\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &data[..4], data.len() - 4, &data[4..]));
        client.response("POST")
    };
    for (answer, status) in [
        (server.post("/channels/a", "12345678"), 200),
        (server.post("/channels/a", "123456789"), 413),
        (chunked("12345678"), 200),
        (chunked("123456789"), 413),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(server.poll("a", "earliest")["messages"].each("data"), ["12345678", "12345678"]);
}

/// protocol: `Content-Type` | kept and handed to subscribers as `type`.
/// protocol: curl's default `application/x-www-form-urlencoded` counts as none given
#[test]
fn the_type_is_kept_but_for_the_one_curl_sends_by_itself() {
    let server = TestServer::start();
    for (given, kept) in [
        (Some("application/json"), Some("application/json")),
        (Some("Text/Plain; charset=UTF-8"), Some("Text/Plain; charset=UTF-8")),
        (Some("application/x-www-form-urlencoded"), None),
        (None, None),
    ] {
        let mut request = server.request("POST", "/channels/a").body("{}");
        if let Some(given) = given {
            request = request.header("Content-Type", given);
        }
        let message = object(&server, "a", &id(&request.send()));
        assert_eq!(message.has("type").then(|| message["type"].str()), kept, "{given:?}");
    }
}

/// protocol: `?event=NAME` | kept; SSE event type
#[test]
fn the_event_is_kept_and_is_the_sse_event_type() {
    let server = TestServer::start();
    let mut stream = server.sse("/channels/a");
    stream.next_block();
    let id = server.publish("a?event=price", "1");
    assert_eq!(object(&server, "a", &id)["event"], "price");
    let event = stream.next_event().expect("the message");
    assert_eq!((event.name.as_str(), event.data.as_str(), &event.id), ("price", "1", &id));
}

// Idempotency.

fn with_key(server: &TestServer, target: &str, key: &str, body: &str) -> Response {
    server.request("POST", target).header("Idempotency-Key", key).body(body).send()
}

/// protocol: `Idempotency-Key: K` | 1 to 128 visible ASCII bytes, else 400 `bad_key`; it belongs to its channel.
#[test]
fn keys_are_visible_ascii_and_belong_to_a_channel() {
    let server = TestServer::start();
    for key in ["k", "!~", &"k".repeat(128), "\"8e03978e-40d5-43dd-bc93-6894a57f9324\""] {
        assert_eq!(with_key(&server, "/channels/a", key, "x").status, 200, "{key}");
    }
    for key in ["", "a b", "a\tb", "é", &"k".repeat(129)] {
        let answer = with_key(&server, "/channels/a", key, "x");
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_key"), "{key:?}");
    }
    let twice =
        server.request("POST", "/channels/a").header("Idempotency-Key", "a").header("Idempotency-Key", "a").send();
    assert_eq!(twice.code(), "bad_key");

    let elsewhere = with_key(&server, "/channels/b", "k", "other");
    assert_eq!((elsewhere.status, elsewhere.header("Idempotent-Replayed")), (200, None));
}

/// protocol: A repeat with the same body, type and event gets the first 200 again, with `Idempotent-Replayed: true`, and publishes nothing
#[test]
fn a_repeat_is_answered_as_the_first_time() {
    let server = TestServer::start();
    let publish = |event: &str, media_type: &str, body: &str| {
        server
            .request("POST", &format!("/channels/a{event}"))
            .header("Idempotency-Key", "k")
            .header("Content-Type", media_type)
            .body(body)
            .send()
    };
    let first = publish("?event=e", "text/plain", "x");
    assert_eq!((first.status, first.header("Idempotent-Replayed")), (200, None));

    // A subscriber has come: the repeat still tells the first answer.
    let _stream = server.sse("/channels/a");
    let again = publish("?event=e", "text/plain", "x");
    assert_eq!((again.status, again.header("Idempotent-Replayed")), (200, Some("true")));
    assert_eq!(again.text(), first.text());

    for (event, media_type, body) in [
        ("?event=e", "text/plain", "y"),
        ("?event=e", "text/plain", "xx"),
        ("?event=e", "text/plain", ""),
        ("?event=e", "text/html", "x"),
        ("?event=e", "", "x"),
        ("?event=f", "text/plain", "x"),
        ("", "text/plain", "x"),
    ] {
        let other = publish(event, media_type, body);
        assert_eq!((other.status, other.code().as_str()), (422, "idempotency_mismatch"), "{event} {media_type} {body}");
    }
    assert_eq!(server.poll("a", "earliest")["messages"].each("data"), ["x"]);
    assert_eq!(server.now(), id(&first), "no number was spent");
}

/// protocol: Looked up after authorization and the checks of form, before any condition, also while draining.
#[test]
fn a_key_is_looked_up_after_the_form_and_before_the_condition() {
    let server = TestServer::start_with(|config| config.drain_grace = Duration::from_secs(60));
    let first = with_key(&server, "/channels/a", "k", "x");
    server.publish("a", "later");
    let again = || server.request("POST", "/channels/a").header("Idempotency-Key", "k").body("x");

    let stranger = again().header("Origin", "https://evil.example").send();
    assert_eq!((stranger.status, stranger.code().as_str()), (403, "origin_not_allowed"));
    assert_eq!(again().header("If-Match", "nonsense").send().code(), "bad_condition");
    assert_eq!(again().header("Content-Type", "nonsense").send().code(), "bad_type");
    let large = with_key(&server, "/channels/a", "k", &"x".repeat(256 * 1024 + 1));
    assert_eq!(large.code(), "message_too_large");

    // The channel has moved past this; the repeat is answered all the same.
    let moved = again().header("If-Match", format!("\"{}\"", shifted(&id(&first), -1))).send();
    assert_eq!((moved.status, moved.header("Idempotent-Replayed")), (200, Some("true")), "{moved:?}");

    server.drain();
    let draining = again().send();
    assert_eq!((draining.status, draining.header("Idempotent-Replayed")), (200, Some("true")), "{draining:?}");
    assert_eq!(draining.text(), first.text());
    assert_eq!(with_key(&server, "/channels/a", "k", "y").code(), "idempotency_mismatch");
    assert_eq!(with_key(&server, "/channels/a", "new", "x").code(), "draining");
    assert_eq!(server.post("/channels/a", "x").code(), "draining");
}

/// protocol: Only a 200 is remembered, for 5 minutes, bounded in number (oldest go first
#[test]
fn only_success_is_remembered_and_the_oldest_is_forgotten_first() {
    let server = TestServer::start_with(|config| config.idempotency_keys_max = 2);
    let refused = server
        .request("POST", "/channels/a")
        .header("Idempotency-Key", "1")
        .header("If-Match", format!("\"{}\"", other_epoch(&server.now())))
        .body("x")
        .send();
    assert_eq!(refused.status, 412);
    let replayed = |key: &str| {
        let answer = with_key(&server, "/channels/a", key, "x");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("Idempotent-Replayed").is_some()
    };
    assert!(!replayed("1"), "the refusal was not remembered");
    assert!(!replayed("2"));
    assert!(replayed("1") && replayed("2"));
    assert!(!replayed("3"), "new; 1 is forgotten for it");
    assert!(replayed("2") && replayed("3"));
    assert!(!replayed("1"), "forgotten, so published again");
}

// Conditions.

fn only_after(server: &TestServer, channel: &str, condition: &str) -> Response {
    server.request("POST", &format!("/channels/{channel}")).header("If-Match", condition).body("x").send()
}

/// protocol: `If-Match: "CURSOR"` | publish only if the channel's newest message, kept or not, is not after that cursor
#[test]
fn a_condition_holds_while_the_channel_has_not_moved() {
    let server = TestServer::start();
    let origin = server.now();
    let quoted = |cursor: &str| format!("\"{cursor}\"");

    let first = id(&only_after(&server, "a", &quoted(&origin)));
    assert_eq!(only_after(&server, "a", &quoted(&origin)).status, 412, "something was published there");
    let second = id(&only_after(&server, "a", &quoted(&first)));
    assert_eq!(only_after(&server, "a", &quoted(&first)).status, 412);

    // Other channels move the head, not this channel.
    let head = server.publish("b", "x");
    let third = id(&only_after(&server, "a", &quoted(&head)));
    assert_ne!(second, third);

    server.delete("/channels/a");
    assert_eq!(only_after(&server, "a", &quoted(&second)).status, 412, "deleted, and still the newest");
    assert_eq!(only_after(&server, "a", &quoted(&third)).status, 200);
}

/// protocol: is not after that cursor; `"<epoch>-0"` means nothing was ever published there.
#[test]
fn a_message_that_is_not_kept_still_counts() {
    let server = TestServer::start_with(|config| config.history_messages = 0);
    let origin = format!("\"{}\"", server.now());
    assert!(origin.ends_with("-0\""));
    assert_eq!(only_after(&server, "a", &origin).status, 200);
    assert_eq!(server.poll("a", "earliest")["messages"].array().len(), 0);
    assert_eq!(only_after(&server, "a", &origin).status, 412);
    assert_eq!(only_after(&server, "b", &origin).status, 200);
}

/// protocol: A cursor of another epoch or from the future: 412.
/// protocol: Failing it: 412 `channel_moved`, with the number it counts as moved at in `Tidings-Cursor` and `error.cursor`
#[test]
fn a_failed_condition_tells_where_the_channel_is() {
    let server = TestServer::start();
    let origin = server.now();
    let newest = server.publish("a", "x");
    let head = server.publish("b", "x");
    for (channel, condition, moved_at) in [
        ("a", &origin, &newest),
        ("a", &other_epoch(&head), &newest),
        ("a", &shifted(&head, 1), &newest),
        ("empty", &other_epoch(&head), &origin),
        ("empty", &shifted(&head, 1), &origin),
    ] {
        let answer = only_after(&server, channel, &format!("\"{condition}\""));
        assert_eq!((answer.status, answer.code().as_str()), (412, "channel_moved"), "{channel} {condition}");
        assert_eq!(answer.header("Tidings-Cursor"), Some(moved_at.as_str()), "{channel} {condition}");
        assert_eq!(answer.json()["error"]["cursor"], *moved_at, "{channel} {condition}");
    }
    assert_eq!(server.now(), head, "nothing was published");
}

/// protocol: A forgotten channel counts as moved at the highest number any forgotten channel had.
#[test]
fn a_forgotten_channel_counts_as_moved() {
    let server = TestServer::start_with(|config| config.channels_max = 2);
    let origin = server.now();
    server.publish("a", "x");
    let highest = server.publish("b", "x");
    server.delete("/channels/b");
    server.delete("/channels/a");
    // There is room for two, and b has been idle the longest.
    server.publish("c", "x");
    for condition in [&origin, &shifted(&highest, -1)] {
        let answer = only_after(&server, "b", &format!("\"{condition}\""));
        assert_eq!((answer.status, answer.header("Tidings-Cursor")), (412, Some(highest.as_str())), "{condition}");
    }
    assert_eq!(only_after(&server, "b", &format!("\"{highest}\"")).status, 200);
}

/// protocol: Any other form, and `If-None-Match`: 400 `bad_condition`
#[test]
fn a_condition_is_one_quoted_cursor() {
    let server = TestServer::start();
    let now = server.now();
    for condition in [
        "*",
        "",
        "\"\"",
        "\"x\"",
        "\"now\"",
        "\"earliest\"",
        &now,
        &format!("\"{now}"),
        &format!("W/\"{now}\""),
        &format!("\"{now}\", \"{now}\""),
        &format!("\" {now}\""),
    ] {
        let answer = only_after(&server, "a", condition);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_condition"), "{condition}");
    }
    let quoted = format!("\"{now}\"");
    let twice = server.request("POST", "/channels/a").header("If-Match", &quoted).header("If-Match", &quoted).send();
    assert_eq!(twice.code(), "bad_condition");
    for value in ["*", &quoted] {
        let none = server.request("POST", "/channels/a").header("If-None-Match", value).send();
        assert_eq!((none.status, none.code().as_str()), (400, "bad_condition"), "If-None-Match: {value}");
    }
    assert_eq!(server.now(), now, "nothing was published");
}

// The answer.

/// protocol: `subscribers` counts the connections attached just before delivery (a client between two polls is not counted).
#[test]
fn the_answer_counts_the_attached_connections() {
    let server = TestServer::start();
    let answer = server.post("/channels/news", "x").json();
    assert_eq!(answer.keys(), ["id", "channel", "subscribers"]);
    assert_eq!(answer["channel"], "news");
    assert_eq!(answer["subscribers"], 0.0);

    let mut stream = server.sse("/channels/news,other");
    stream.next_block();
    let mut socket = server.websocket("/channels/news", &[]);
    socket.next_json();
    let mut poll = server.request("GET", "/channels/news").start();
    server.until_subscribed("news", "poll", 1);
    let subscribers = || server.post("/channels/news", "x").json()["subscribers"].number();
    assert_eq!(subscribers(), 3.0);
    // Its poll is answered: now it is between two polls.
    assert_eq!(poll.response("GET").status, 200);
    assert_eq!(subscribers(), 2.0);
    drop(socket);
    server.until_subscribed("news", "websocket", 0);
    assert_eq!(subscribers(), 1.0);
}

/// protocol: It is sent only after the log has taken the message
#[test]
fn what_was_answered_200_is_in_the_log() {
    let server = TestServer::start();
    let mut publisher = server.connect();
    for nth in 0..100 {
        publisher.send(server.request("POST", "/channels/a").body(nth.to_string()).bytes());
        let id = id(&publisher.response("POST"));
        assert_eq!(server.now(), id);
        assert_eq!(object(&server, "a", &id)["data"], nth.to_string());
    }
}

/// protocol: **Text or binary**: bytes that are valid UTF-8 are text, unless the type
#[test]
fn text_or_binary() {
    let server = TestServer::start();
    for (media_type, body, base64) in [
        (None, &b"text"[..], None),
        (None, b"", None),
        (None, "é\0".as_bytes(), None),
        (None, b"\xff", Some("/w==")),
        (None, b"\xc3", Some("ww==")),
        (None, b"\xed\xa0\x80", Some("7aCA")),
        (Some("text/plain"), b"\xff\xfe", Some("//4=")),
        (Some("application/json"), b"{}", None),
        (Some("application/octet-stream"), b"text", Some("dGV4dA==")),
        (Some("Application/Octet-Stream; a=b"), b"text", Some("dGV4dA==")),
        (Some("application/octet-stream-x"), b"text", None),
        (Some("image/svg+xml"), b"<svg/>", Some("PHN2Zy8+")),
        (Some("IMAGE/png"), b"", Some("")),
        (Some("audio/x;a=b"), b"a", Some("YQ==")),
        (Some("video/mp4"), b"ab", Some("YWI=")),
        (Some("images/png"), b"text", None),
        (Some("x-image/png"), b"text", None),
    ] {
        let mut request = server.request("POST", "/channels/a").body(body);
        if let Some(media_type) = media_type {
            request = request.header("Content-Type", media_type);
        }
        let message = object(&server, "a", &id(&request.send()));
        match base64 {
            Some(base64) => assert_eq!(message["base64"], base64, "{message:?}"),
            None => assert_eq!(message["data"], *std::str::from_utf8(body).expect("text"), "{message:?}"),
        }
        assert!(message.has("base64") != message.has("data"), "{message:?}");
    }
}
