//! The contract's sections "The model in four sentences" and "Names, ids, cursors".

mod common;

use common::http::Response;
use common::websocket::Frame;
use common::{TestServer, other_epoch, parts, shifted};

// The model.

/// protocol: every accepted message gets the next number of one server-wide sequence.
/// protocol: **A channel** is an index into the log
#[test]
fn one_sequence_runs_through_all_channels() {
    let server = TestServer::start();
    let start = server.now();
    let ids: Vec<String> = ["a", "b", "a"].iter().map(|channel| server.publish(channel, "x")).collect();
    assert_eq!(ids, [shifted(&start, 1), shifted(&start, 2), shifted(&start, 3)]);
    assert_eq!(server.poll("a", "earliest")["messages"].each("id"), [&ids[0], &ids[2]]);
    assert_eq!(server.poll("b", "earliest")["messages"].each("id"), [&ids[1]]);
}

/// protocol: "after C" means every message numbered higher.
#[test]
fn after_a_cursor_is_every_message_numbered_higher() {
    let server = TestServer::start();
    let start = server.now();
    let ids: Vec<String> = (0..4).map(|_| server.publish("a", "x")).collect();
    for nth in 0..=ids.len() {
        let answer = server.poll("a", &shifted(&start, nth as i64));
        assert_eq!(answer["messages"].each("id"), ids[nth..], "after {nth}");
        assert!(!answer.has("gap"), "{answer:?}");
    }
}

/// protocol: WebSocket, SSE and long poll differ only in framing and in when the response ends.
/// protocol: So one cursor serves any set of channels and any transport.
#[test]
fn one_cursor_means_the_same_on_every_transport_and_set() {
    let server = TestServer::start();
    for (channel, data) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("b", "5")] {
        server.publish(channel, data);
    }
    let after = shifted(&server.now(), -4);
    for (set, want) in
        [("a", &["3"][..]), ("b", &["2", "5"]), ("a,b", &["2", "3", "5"]), ("a,b,c", &["2", "3", "4", "5"])]
    {
        let polled = server.poll(set, &after)["messages"].clone();
        assert_eq!(polled.each("data"), want, "poll {set}");

        let mut stream = server.sse(&format!("/channels/{set}?after={after}&format=json"));
        let mut socket = server.websocket(&format!("/channels/{set}?after={after}"), &[]);
        socket.next_json();
        for object in polled.array() {
            assert_eq!(stream.next_json(), *object, "SSE {set}");
            assert_eq!(socket.next_json(), *object, "WebSocket {set}");
        }
    }
}

/// protocol: A client may drop one transport and open another with the cursor it has, at any message boundary
#[test]
fn changing_the_transport_at_every_message_loses_and_repeats_nothing() {
    const MESSAGES: usize = 60;
    let server = TestServer::start();
    let mut cursor = server.now();
    let handle = server.handle.clone();
    // Published while the client changes horses.
    let publisher = std::thread::spawn(move || {
        for nth in 0..MESSAGES {
            let channel = ["a", "b"][nth % 2];
            handle.publish_wait(channel, nth.to_string(), common::PATIENCE).expect("published");
        }
    });
    for nth in 0..MESSAGES {
        let message = match nth % 3 {
            0 => server.get(&format!("/channels/a,b?after={cursor}")).json()["messages"][0].clone(),
            1 => server.sse(&format!("/channels/a,b?after={cursor}&format=json")).next_json(),
            _ => {
                let mut socket = server.websocket(&format!("/channels/a,b?after={cursor}"), &[]);
                socket.next_json();
                socket.next_json()
            }
        };
        assert_eq!(message["data"], nth.to_string());
        cursor = message["id"].str().to_owned();
    }
    publisher.join().expect("the publisher is done");
}

/// protocol: widening a set starts the new channels after that cursor.
#[test]
fn a_widened_set_starts_at_the_same_cursor() {
    let server = TestServer::start();
    server.publish("b", "before");
    server.publish("a", "read");
    let cursor = server.poll("a", "earliest")["cursor"].str().to_owned();
    server.publish("b", "after");
    assert_eq!(server.poll("a,b", &cursor)["messages"].each("data"), ["after"]);
}

// Names.

/// protocol: channel name | 1 to 128 bytes of
/// protocol: Anything else: 400 `bad_channel`
#[test]
fn channel_names_have_these_bytes_and_no_others() {
    let server = TestServer::start();
    for byte in 0..=u8::MAX {
        let answer = server.post(&format!("/channels/x%{byte:02x}"), "");
        if byte.is_ascii_alphanumeric() || b"._:~@-".contains(&byte) {
            assert_eq!(answer.status, 200, "{byte:#x}");
            assert_eq!(answer.json()["channel"], format!("x{}", char::from(byte)));
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_channel"), "{byte:#x}");
        }
    }
    for (name, good) in [
        ("x", true),
        (&*"x".repeat(128), true),
        (&*"x".repeat(129), false),
        ("", false),
        (".", false),
        ("..", false),
        ("%2E", false),
        ("%2e%2E", false),
        ("...", true),
        (".x", true),
        ("%6E%65%77%73", true),
        ("a/b", false),
        ("a%2Fb", false),
        ("a%2", false),
        ("a%zz", false),
        ("a+b", false),
        ("%C3%A9", false),
    ] {
        for method in ["POST", "GET", "HEAD", "DELETE"] {
            let wait = if method == "GET" { "?wait=0" } else { "" };
            let answer = server.request(method, &format!("/channels/{name}{wait}")).send();
            assert_eq!(answer.status < 300, good, "{method} {name}: {answer:?}");
            if !good && method != "HEAD" {
                assert_eq!((answer.status, answer.code().as_str()), (400, "bad_channel"), "{method} {name}");
            }
        }
    }
}

/// protocol: channel set | 1 to 64 distinct names joined by `,`
#[test]
fn a_set_has_64_distinct_names_in_4096_bytes() {
    let server = TestServer::start();
    let names = |count: usize| (0..count).map(|nth| format!("n{nth}")).collect::<Vec<_>>();
    // 31 names of 128 bytes and one of 97, with 31 commas, are 4096 bytes.
    let long = |last: usize| {
        let mut names: Vec<String> = (0..31).map(|nth| format!("{nth:0128}")).collect();
        names.push("x".repeat(last));
        names.join(",")
    };
    for (set, want) in [
        (names(64).join(","), None),
        (names(65).join(","), Some("too_many_channels")),
        ([names(64), names(64)].concat().join(","), None),
        (long(97), None),
        (long(98), Some("too_many_channels")),
        ("a,,b".into(), Some("bad_channel")),
        (",a".into(), Some("bad_channel")),
        ("a,".into(), Some("bad_channel")),
        ("a,b/c".into(), Some("bad_channel")),
    ] {
        let answer = server.get(&format!("/channels/{set}?wait=0"));
        let got = (answer.status != 200).then(|| (answer.status, answer.code()));
        assert_eq!(got, want.map(|code| (400, code.to_owned())), "{set}");
    }

    server.publish("a", "1");
    server.publish("b", "2");
    for set in ["a,b", "b,a", "b,a,b,b", "a%2Cb", "%61,%62", "%62%2c%61"] {
        assert_eq!(server.poll(set, "earliest")["messages"].each("data"), ["1", "2"], "{set}");
    }
}

/// protocol: POST and DELETE take one name
#[test]
fn a_set_can_only_be_read() {
    let server = TestServer::start();
    for set in ["a,b", "a%2Cb", "a,"] {
        assert_eq!(server.post(&format!("/channels/{set}"), "").code(), "bad_channel", "POST {set}");
        assert_eq!(server.delete(&format!("/channels/{set}")).code(), "bad_channel", "DELETE {set}");
    }
}

/// protocol: event name | 1 to 128 bytes of UTF-8 without control characters
/// protocol: `message` counts as none given
#[test]
fn event_names() {
    let server = TestServer::start();
    for (name, kept) in [
        ("price", "price"),
        ("a+b%20c", "a b c"),
        ("%C3%A9%F0%9F%98%80", "é😀"),
        (&*"x".repeat(128), &*"x".repeat(128)),
        (&*"%C3%A9".repeat(64), &*"é".repeat(64)),
        ("Gap", "Gap"),
        ("gaps", "gaps"),
        ("tidings", "tidings"),
        ("a.tidings.b", "a.tidings.b"),
    ] {
        let id = server.publish(&format!("events?event={name}"), "x");
        let message = server.poll("events", &shifted(&id, -1))["messages"][0].clone();
        assert_eq!(message["event"], kept, "{name}");
    }
    let id = server.publish("events?event=message", "x");
    assert!(!server.poll("events", &shifted(&id, -1))["messages"][0].has("event"));

    let too_long = ["x".repeat(129), "%C3%A9".repeat(65)];
    let controls = (0..0x20).chain([0x7f]).map(|byte| format!("a%{byte:02X}b"));
    let reserved = ["", "gap", "open", "error", "tidings.", "tidings.x", "%67ap", "a%C2%85b", "%FF", "%C3"];
    for name in too_long.into_iter().chain(controls).chain(reserved.map(str::to_owned)) {
        let answer = server.post(&format!("/channels/events?event={name}"), "x");
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_event"), "{name}");
    }
}

/// protocol: type | a well-formed ASCII media type, at most 128 bytes: otherwise 400 `bad_type`; empty counts as none
#[test]
fn media_types() {
    let server = TestServer::start();
    let publish = |media_type: &str| {
        server.request("POST", "/channels/types").header("Content-Type", media_type).body("x").send()
    };
    let of_length = |length: usize| format!("text/{}", "x".repeat(length - "text/".len()));
    for media_type in [
        "text/plain",
        "TEXT/Plain",
        "application/vnd.a+json",
        "text/plain;charset=utf-8",
        "text/plain; charset=\"utf-8\"",
        "text/plain; a=b; c=\"d;e\"",
        "x-!#$%&'*+-.^_`|~/y",
        &of_length(128),
    ] {
        let answer = publish(media_type);
        assert_eq!(answer.status, 200, "{media_type}: {answer:?}");
        let id = answer.json()["id"].str().to_owned();
        assert_eq!(server.poll("types", &shifted(&id, -1))["messages"][0]["type"], media_type);
    }
    let id = publish("").json()["id"].str().to_owned();
    assert!(!server.poll("types", &shifted(&id, -1))["messages"][0].has("type"));

    for media_type in [
        "text",
        "text/",
        "/plain",
        "text/plain/x",
        "text /plain",
        "text/pl ain",
        "text/plain; charset",
        "text/plain; =x",
        "text/plain; a=\"b",
        "text/plain, text/html",
        "text/pläin",
        &of_length(129),
    ] {
        let answer = publish(media_type);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_type"), "{media_type}");
    }
}

// Ids, epochs, cursors.

/// protocol: id of a message | the cursor just after it, `<epoch>-<seq>`
/// protocol: epoch | 1 to 2^32-1
#[test]
fn a_cursor_has_one_form() {
    let server = TestServer::start();
    let id = server.publish("a", "x");
    let (epoch, seq) = parts(&id);
    assert_eq!(id, format!("{epoch}-{seq}"), "no sign, no leading zero");
    assert!((1..=u64::from(u32::MAX)).contains(&epoch));

    let status = |after: &str| {
        let answer = server.get(&format!("/channels/a?wait=0&after={after}"));
        (answer.status, if answer.status == 200 { String::new() } else { answer.code() })
    };
    for after in [&*id, &*format!("{epoch}-0"), "1-0", "4294967295-9223372036854775807"] {
        assert_eq!(status(after), (200, String::new()), "{after}");
    }
    for after in [
        &*format!("{epoch}-01"),
        &*format!("0{epoch}-1"),
        &*format!("{epoch}-%2B1"),
        &*format!("%2B{epoch}-1"),
        &*format!("{epoch}--1"),
        &*format!("-{epoch}-1"),
        &*format!("{epoch}-"),
        &*format!("{epoch}"),
        &*format!("{epoch}-1-1"),
        &*format!("{epoch}-1+"),
        &*format!("{epoch}-0x1"),
        &*format!("{epoch}-9223372036854775808"),
        &*format!("{epoch}-18446744073709551617"),
        "0-1",
        "4294967296-1",
        "NOW",
        "x",
    ] {
        assert_eq!(status(after), (400, "bad_cursor".into()), "{after}");
    }
}

/// protocol: `seq` starts at 1, grows by 1 per accepted message, is never reused within an epoch
#[test]
fn numbers_start_at_1_and_are_never_reused() {
    let server = TestServer::start_with(|config| config.history_messages = 1);
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(parts(&server.publish("a", "x")).1);
        assert_eq!(server.post("/channels/a?event=gap", "refused").status, 400);
    }
    assert_eq!(server.delete("/channels/a").status, 204);
    numbers.push(parts(&server.publish("a", "x")).1);
    assert_eq!(numbers, [1, 2, 3, 4]);
}

/// protocol: In memory: new and random at every start.
#[test]
fn every_start_has_another_epoch() {
    let epochs: Vec<u64> = (0..4).map(|_| parts(&TestServer::start().now()).0).collect();
    let all_same = |window: &[u64]| window[0] == window[1];
    // Two of 2^32 may be the same; three times in a row they are not.
    assert!(!epochs.windows(2).all(all_same), "{epochs:?}");
    let counted = |window: &[u64]| window[1].abs_diff(window[0]) <= 1;
    assert!(!epochs.windows(2).all(counted), "random, not counted: {epochs:?}");
}

/// protocol: cursor words | `now` (the head at this moment) and `earliest` (before the oldest message kept)
#[test]
fn the_words_for_cursors_never_have_a_gap() {
    let server = TestServer::start_with(|config| config.history_messages = 2);
    let ids: Vec<String> = (0..4).map(|nth| server.publish("a", nth.to_string())).collect();
    let lost = server.poll("a", &shifted(&ids[0], -1));
    assert!(lost.has("gap"), "messages were lost, and a cursor is told so: {lost:?}");

    let earliest = server.poll("a", "earliest");
    assert_eq!(earliest["messages"].each("id"), ids[2..]);
    assert!(!earliest.has("gap"), "{earliest:?}");

    let now = server.poll("a", "now");
    assert_eq!(now["cursor"], ids[3]);
    assert!(now["messages"].array().is_empty() && !now.has("gap"), "{now:?}");

    for word in ["earliest", "now"] {
        let mut stream = server.sse(&format!("/channels/a?after={word}"));
        let mut socket = server.websocket(&format!("/channels/a?after={word}"), &[]);
        assert!(socket.next_json().has("cursor"), "the first frame of {word}");
        if word == "earliest" {
            assert_eq!(stream.next_event().expect("a message").name, "message");
            assert!(socket.next_json().has("id"));
        }
    }
}

/// protocol: JSON carries ids and cursors as strings.
#[test]
fn ids_and_cursors_are_strings() {
    let server = TestServer::start_with(|config| config.history_messages = 1);
    let id = server.publish("a", "x");
    server.publish("a", "y");
    let polled = server.poll("a", &other_epoch(&id));
    parts(polled["cursor"].str());
    parts(polled["messages"][0]["id"].str());
    for member in ["after", "through", "cursor"] {
        parts(polled["gap"][member].str());
    }
    let entry = server.get("/channels").json()["channels"][0].clone();
    for member in ["oldest", "newest"] {
        parts(entry[member].str());
    }
    let mut socket = server.websocket("/channels/a", &[]);
    parts(socket.next_json()["cursor"].str());
    server.publish("a", "z");
    let Some(Frame::Text(text)) = socket.next_frame() else { panic!("a message") };
    parts(common::json::parse(&text)["id"].str());
}

/// protocol: A query parameter given twice, or a `%` without two hex digits, is 400 `bad_query`
#[test]
fn queries() {
    let server = TestServer::start();
    let ask = |method: &str, target: &str| server.request(method, target).send();
    let is_bad = |answer: &Response| answer.status == 400 && answer.code() == "bad_query";
    for target in [
        "/channels/a?wait=0&wait=0",
        "/channels/a?wait=0&after=now&after=now",
        "/channels/a?wait=0&format=json&%66ormat=json",
        "/channels/a?wait=0&token=a&token=b",
        "/channels/a?wait=0&x=%",
        "/channels/a?wait=0&x=%2",
        "/channels/a?wait=0&after=%zz",
        "/channels/a?wait=0&%g0=1",
        "/channels?prefix=a&prefix=b",
        "/channels?after=%4",
    ] {
        let answer = ask("GET", target);
        assert!(is_bad(&answer), "{target}: {answer:?}");
    }
    for target in ["/channels/a?event=b&event=b", "/channels/a?event=%f", "/channels/a?token=x&token=x"] {
        assert!(is_bad(&ask("POST", target)), "POST {target}");
    }
    for target in ["/channels/a?token=b&token=b", "/channels/a?x=%f"] {
        assert!(is_bad(&ask("DELETE", target)), "DELETE {target}");
    }
    for target in ["/channels/a?wait=0&x=1&x=2", "/channels/a?wait=0&", "/channels/a?&&wait=0", "/channels/a?wait=0&=x"]
    {
        assert_eq!(ask("GET", target).status, 200, "{target}");
    }
    // What GET would read, POST does not know, and the other way round.
    assert_eq!(ask("POST", "/channels/a?wait=1&wait=2").status, 200);
    assert_eq!(ask("GET", "/channels/a?wait=0&event=gap&event=gap").status, 200);
    assert_eq!(ask("HEAD", "/channels/a?wait=1&wait=x&after=x&after=y&format=z&transport=q").status, 200);
    assert_eq!(ask("HEAD", "/channels/a?token=x&token=x").status, 400);

    let id = server.publish("plus?event=a+%2B+b", "x");
    assert_eq!(server.poll("plus", &shifted(&id, -1))["messages"][0]["event"], "a + b");
}
