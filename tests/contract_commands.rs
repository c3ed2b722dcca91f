//! The commands of `tidings.v1`, in the contract's section "WebSocket".

mod common;

use std::time::Duration;

use common::json::Value;
use common::websocket::{Frame, WebSocket};
use common::{TestServer, parts, shifted};

/// A connection that speaks `tidings.v1`, with its first frame read.
fn open(server: &TestServer, target: &str) -> WebSocket {
    let mut socket = server.websocket(target, &["tidings.v1"]);
    assert_eq!(socket.head.header("Sec-WebSocket-Protocol"), Some("tidings.v1"));
    assert!(socket.next_json().has("heartbeat"));
    socket
}

fn ask(socket: &mut WebSocket, command: &str) -> Value {
    socket.send_text(command);
    socket.next_json()
}

/// The names in an answer to `subscribe` or `unsubscribe`.
fn subscribed(answer: &Value) -> Vec<&str> {
    assert!(answer.has("subscribed"), "{answer:?}");
    answer["subscribed"].array().iter().map(Value::str).collect()
}

/// protocol: `tidings.v1`: as above, and inbound frames are commands: a first line of words separated by one space (percent-encoded where needed), then for `publish` a newline and the payload.
#[test]
fn frames_are_commands_and_messages_come_as_ever() {
    let server = TestServer::start();
    let mut reader = open(&server, "/channels/a");
    let mut writer = open(&server, "/channels/nobody");
    let answer = ask(&mut writer, "publish a event=two%20words type=text/plain;%20charset=utf-8\nfirst\nsecond\r\n");
    let message = reader.next_json();
    assert_eq!(message["id"], *answer["published"]["id"].str());
    assert_eq!(message["channel"], "a");
    assert_eq!(message["event"], "two words");
    assert_eq!(message["type"], "text/plain; charset=utf-8");
    assert_eq!(message["data"], "first\nsecond\r\n");
    assert_eq!(message, server.poll("a", "earliest")["messages"][0]);

    ask(&mut writer, "publish %61\n");
    assert_eq!(reader.next_json()["data"], "", "an empty payload, and a name that was encoded");
}

/// protocol: `subscribe SET`, `unsubscribe SET` answer `{"subscribed":[…],"cursor":"…"}`: the whole set as it is now, sorted, perhaps empty
#[test]
fn the_set_changes_while_the_connection_stays() {
    let server = TestServer::start();
    let mut socket = open(&server, "/channels/m");
    for (command, set) in [
        ("subscribe z,b", &["b", "m", "z"][..]),
        ("subscribe b,m", &["b", "m", "z"]),
        ("unsubscribe m,unknown", &["b", "z"]),
        ("subscribe %61%2Cc", &["a", "b", "c", "z"]),
        ("unsubscribe a,b,c,z", &[]),
        ("unsubscribe a", &[]),
        ("subscribe a", &["a"]),
    ] {
        let answer = ask(&mut socket, command);
        assert_eq!(answer.keys(), ["subscribed", "cursor"], "{command}");
        assert_eq!(subscribed(&answer), set, "{command}");
        parts(answer["cursor"].str());
    }
    server.publish("b", "not read any more");
    server.publish("a", "read");
    assert_eq!(socket.next_json()["data"], "read");
}

/// protocol: never over the bounds of a channel set (`too_many_channels`, and it stays as it was)
///
/// A client that reconnects asks for the whole set in one request.
#[test]
fn a_set_that_grows_is_one_that_can_be_asked_for_anew() {
    let server = TestServer::start();
    let named = |nth: usize, length: usize| format!("{nth:0>length$}");
    for (length, last, fits) in [(4, 4, 64), (128, 97, 31), (128, 98, 31), (63, 64, 63), (63, 65, 63)] {
        let mut socket = open(&server, &format!("/channels/{}", named(0, length)));
        let mut set = vec![named(0, length)];
        while set.len() < fits {
            set.push(named(set.len(), length));
            let answer = ask(&mut socket, &format!("subscribe {}", set[set.len() - 1]));
            assert_eq!(subscribed(&answer), set, "{length}");
        }
        let one_more = [&set[..], &[named(set.len(), last)]].concat();
        let may = one_more.len() <= 64 && one_more.join(",").len() <= 4096;
        assert_eq!(server.get(&format!("/channels/{}?wait=0", one_more.join(","))).status == 200, may, "{length}");
        let answer = ask(&mut socket, &format!("subscribe {}", one_more[one_more.len() - 1]));
        assert_eq!(answer.has("subscribed"), may, "{length} {last}");
        if !may {
            assert_eq!(answer["error"]["code"], "too_many_channels", "{length} {last}");
            assert_eq!(subscribed(&ask(&mut socket, &format!("subscribe {}", set[0]))), set, "it stays as it was");
        }
        assert_eq!(server.get(&format!("/channels/{}?wait=0", set.join(","))).status, 200);
    }
}

/// protocol: new channels start after that cursor, which is the head unless this connection is behind.
#[test]
fn new_channels_start_at_the_cursor_of_the_answer() {
    let server = TestServer::start();
    server.publish("new", "before");
    let head = server.publish("other", "x");
    let mut socket = open(&server, "/channels/a");
    let answer = ask(&mut socket, "subscribe new");
    assert_eq!(answer["cursor"], head, "nothing is behind");
    let next = server.publish("new", "after");
    let message = socket.next_json();
    assert_eq!((message["id"].str(), message["data"].str()), (&*next, "after"));

    let answer = ask(&mut socket, "unsubscribe a");
    assert_eq!(answer["cursor"], next, "the head again");
}

/// protocol: which is the head unless this connection is behind.
#[test]
fn a_slow_reader_gets_all_of_a_new_channel_after_the_answer() {
    // More than the kernel keeps for a reader that does not read.
    const MESSAGES: usize = 100;
    let server = TestServer::start();
    let mut socket = open(&server, "/channels/a");
    let mut ids = Vec::new();
    for nth in 0..MESSAGES {
        ids.push(("a", server.publish("a", vec![b'x'; 200_000])));
        if nth % 10 == 0 {
            ids.push(("new", server.publish("new", "x")));
        }
    }
    socket.send_text("subscribe new");
    ids.push(("new", server.publish("new", "x")));
    ids.push(("a", server.publish("a", "x")));

    let mut cursor = None;
    let mut got = Vec::new();
    while got.last() != ids.last().map(|(_, id)| id) || cursor.is_none() {
        let object = socket.next_json();
        assert!(!object.has("gap"), "{object:?}");
        if object.has("subscribed") {
            cursor = Some(parts(object["cursor"].str()).1);
        } else if object.has("id") {
            got.push(object["id"].str().to_owned());
        }
    }
    let cursor = cursor.expect("answered");
    let is_wanted = |(channel, id): &&(&str, String)| *channel == "a" || parts(id).1 > cursor;
    let want: Vec<String> = ids.iter().filter(is_wanted).map(|(_, id)| id.clone()).collect();
    assert!(got == want, "after {cursor}: {} of {} came", got.len(), want.len());
}

/// protocol: `publish NAME [event=E] [type=T] [key=K]` answers `{"published":{"id":…,"channel":…,"subscribers":…}}`
#[test]
fn publish_answers_as_post_does() {
    let server = TestServer::start();
    let _reader = open(&server, "/channels/a");
    let start = server.now();
    let mut writer = open(&server, "/channels/nobody");
    let answer = ask(&mut writer, "publish a key=k\nx");
    assert_eq!(answer.keys(), ["published"]);
    assert_eq!(answer["published"].keys(), ["id", "channel", "subscribers"]);
    assert_eq!(answer["published"]["id"], shifted(&start, 1));
    assert_eq!(answer["published"]["channel"], "a");
    assert_eq!(answer["published"]["subscribers"], 1.0);

    assert_eq!(ask(&mut writer, "publish a key=k\nx"), answer, "a repeat, with one key for both ways to publish");
    let posted = server.request("POST", "/channels/a").header("Idempotency-Key", "k").body("x").send();
    assert_eq!((posted.header("Idempotent-Replayed"), posted.json()), (Some("true"), answer["published"].clone()));
    assert_eq!(ask(&mut writer, "publish a key=k\ny")["error"]["code"], "idempotency_mismatch");
    assert_eq!(server.now(), shifted(&start, 1));
}

/// protocol: a binary frame without `type=` is `application/octet-stream`, then POST's rule decides text or binary.
#[test]
fn the_type_decides_what_a_frame_carries() {
    let server = TestServer::start();
    let mut writer = open(&server, "/channels/nobody");
    for (binary, command, media_type, data, base64) in [
        (false, &b"publish a\nhi"[..], None, Some("hi"), None),
        (true, b"publish a\nhi", Some("application/octet-stream"), None, Some("aGk=")),
        (true, b"publish a type=text/plain\nhi", Some("text/plain"), Some("hi"), None),
        (true, b"publish a type=text/plain\n\xff", Some("text/plain"), None, Some("/w==")),
        (false, b"publish a type=image/png\nhi", Some("image/png"), None, Some("aGk=")),
        (true, b"publish a type=\nhi", None, Some("hi"), None),
    ] {
        if binary {
            writer.send_binary(command);
        } else {
            writer.send_text(std::str::from_utf8(command).expect("text"));
        }
        let id = writer.next_json()["published"]["id"].str().to_owned();
        let message = server.poll("a", &shifted(&id, -1))["messages"][0].clone();
        let member = |name| message.has(name).then(|| message[name].str());
        assert_eq!((member("type"), member("data"), member("base64")), (media_type, data, base64), "{message:?}");
    }
}

/// protocol: Each may end in `ref=R` (1 to 64 visible ASCII bytes, not decoded), which its answer repeats.
#[test]
fn an_answer_repeats_the_reference() {
    let server = TestServer::start();
    let mut socket = open(&server, "/channels/nobody");
    for reference in ["1", "!~\"\\", "a=b%20", &"r".repeat(64)] {
        for (command, member) in [
            (format!("subscribe a ref={reference}"), "subscribed"),
            (format!("unsubscribe a ref={reference}"), "subscribed"),
            (format!("publish b ref={reference}\nx"), "published"),
            (format!("publish b key=k ref={reference}\nx"), "published"),
            (format!("subscribe a/b ref={reference}"), "error"),
            (format!("publish b event=gap ref={reference}\nx"), "error"),
            (format!("nonsense a ref={reference}"), "error"),
        ] {
            let answer = ask(&mut socket, &command);
            assert!(answer.has(member), "{command}: {answer:?}");
            assert_eq!(answer["ref"], *reference, "{command}");
        }
    }
    assert!(!ask(&mut socket, "subscribe a").has("ref"));
}

/// protocol: A command that fails answers `{"error":{"status","code","message"},"ref":…}`
#[test]
fn a_command_that_fails_is_told_and_the_connection_stays() {
    let server = TestServer::start_with(|config| config.message_bytes_max = 100);
    let mut socket = open(&server, "/channels/a");
    let long = "r".repeat(65);
    let many: Vec<String> = (0..65).map(|nth| format!("n{nth}")).collect();
    for (command, status, code) in [
        ("", 400.0, "bad_command"),
        ("hello", 400.0, "bad_command"),
        ("Subscribe b", 400.0, "bad_command"),
        ("subscribe", 400.0, "bad_command"),
        ("subscribe  b", 400.0, "bad_command"),
        ("subscribe b ", 400.0, "bad_command"),
        (" subscribe b", 400.0, "bad_command"),
        ("subscribe b c", 400.0, "bad_command"),
        ("subscribe b event=x", 400.0, "bad_command"),
        ("subscribe b\ntext", 400.0, "bad_command"),
        ("unsubscribe b\ntext", 400.0, "bad_command"),
        ("subscribe %zz", 400.0, "bad_command"),
        ("publish b event=%2\nx", 400.0, "bad_command"),
        ("publish b event=e event=e\nx", 400.0, "bad_command"),
        ("publish b ref=1 event=e\nx", 400.0, "bad_command"),
        ("publish b ref=1 ref=2\nx", 400.0, "bad_command"),
        ("publish b other=x\nx", 400.0, "bad_command"),
        ("subscribe b ref=", 400.0, "bad_command"),
        (&format!("subscribe b ref={long}"), 400.0, "bad_command"),
        ("subscribe b ref=é", 400.0, "bad_command"),
        ("subscribe a%20b", 400.0, "bad_channel"),
        ("subscribe a,,b", 400.0, "bad_channel"),
        ("publish a,b\nx", 400.0, "bad_channel"),
        (&format!("subscribe {}", many.join(",")), 400.0, "too_many_channels"),
        (&format!("subscribe {}", many[..64].join(",")), 400.0, "too_many_channels"),
        ("publish b event=gap\nx", 400.0, "bad_event"),
        ("publish b event=\nx", 400.0, "bad_event"),
        ("publish b type=x\nx", 400.0, "bad_type"),
        ("publish b key=\nx", 400.0, "bad_key"),
        ("publish b key=%20\nx", 400.0, "bad_key"),
        (&format!("publish b\n{}", "x".repeat(101)), 413.0, "message_too_large"),
    ] {
        let answer = ask(&mut socket, command);
        let error = &answer["error"];
        assert_eq!(error.keys(), ["status", "code", "message"], "{command}");
        assert_eq!((error["status"].number(), error["code"].str()), (status, code), "{command}: {answer:?}");
        assert!(!error["message"].str().is_empty());
    }
    assert_eq!(subscribed(&ask(&mut socket, "subscribe b")), ["a", "b"], "it stayed, and nothing was done");
    assert_eq!(parts(&server.now()).1, 0, "nothing was published");
}

/// protocol: a frame over the message limit by more than 4096 bytes ends it with 1009.
#[test]
fn a_line_has_room_beside_the_largest_message() {
    let server = TestServer::start_with(|config| config.message_bytes_max = 100);
    let mut socket = open(&server, "/channels/nobody");
    let event = "%65".repeat(128);
    let command = format!("publish a event={event}\n{}", "x".repeat(100));
    assert!(ask(&mut socket, &command).has("published"));
    assert_eq!(ask(&mut socket, &"x".repeat(100 + 4096))["error"]["code"], "bad_command");
    socket.send_text(&"x".repeat(100 + 4096 + 1));
    socket.assert_closed(1009);
}

/// protocol: A command that fails answers `{"error":
#[test]
fn a_server_that_leaves_says_so_to_commands() {
    let server = TestServer::start_with(|config| {
        config.drain = Duration::from_secs(3600);
        config.drain_grace = Duration::from_secs(3600);
    });
    let mut socket = open(&server, "/channels/a");
    let published = ask(&mut socket, "publish b key=k\nx");
    server.drain();
    // Whether it is closed already or not: nothing is published, and what is said is true.
    for command in ["publish b\nx", "subscribe b", "publish b key=k\nx"] {
        socket.send_text(command);
        match socket.next_frame() {
            Some(Frame::Text(text)) if command.contains("key") => assert_eq!(common::json::parse(&text), published),
            Some(Frame::Text(text)) => {
                assert_eq!(common::json::parse(&text)["error"]["code"], "draining", "{command}");
            }
            Some(Frame::Close(code, _)) => {
                assert_eq!(code, Some(1012));
                break;
            }
            other => panic!("{command}: {other:?}"),
        }
    }
}

/// protocol: `subscribe SET`, `unsubscribe SET` answer
#[test]
fn commands_are_answered_in_their_order() {
    let server = TestServer::start();
    let mut socket = open(&server, "/channels/nobody");
    for nth in 0..100 {
        match nth % 3 {
            0 => socket.send_text(&format!("publish b ref={nth}\nx")),
            1 => socket.send_text(&format!("subscribe a ref={nth}")),
            _ => socket.send_text(&format!("nonsense ref={nth}")),
        }
    }
    for nth in 0..100 {
        assert_eq!(socket.next_json()["ref"], nth.to_string());
    }
}
