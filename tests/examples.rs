//! Each example does what it says: started as a program, spoken to over its socket, ended.
//!
//! `cargo test` builds the examples before it runs this; `cargo test --test examples` alone does
//! not, and then takes them as `cargo build --examples` left them.

#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use common::PATIENCE;
use common::http::{Client, Request};
use common::json;
use common::sse::EventStream;
use common::websocket::{Frame, WebSocket};

/// A running example. It ends with its test, whatever the test finds.
struct Example {
    child: Child,
    address: SocketAddr,
}

impl Example {
    /// Starts it on a free port and waits until it says which.
    fn start(name: &str) -> Example {
        Example::start_as(name, Command::new(path(name)).arg("127.0.0.1:0"))
    }

    fn start_as(name: &str, command: &mut Command) -> Example {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}; cargo build --examples makes it"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim_end().strip_prefix("listening on http://").expect("the address comes first");
        Example { address: address.parse().expect("an address"), child }
    }

    fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    fn websocket(&self, target: &str, protocols: &[&str]) -> WebSocket {
        WebSocket::open(self.request("GET", target), protocols).expect("101")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Beside `deps`, where this test lies.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    profile.join("examples").join(name)
}

#[test]
fn embed_tells_the_time_each_second() {
    let example = Example::start("embed");
    let request = example.request("GET", "/channels/clock?transport=sse&after=earliest");
    let mut stream = EventStream::open(request);
    let times: Vec<u64> = (0..2).map(|_| stream.next_event().expect("a tick").data.parse().expect("seconds")).collect();
    // A second asleep is a second or more on the clock, and a slow machine may be late.
    assert!(times[0] > 1_700_000_000 && times[1] > times[0], "{times:?}");
}

#[test]
fn echo_sends_back_what_it_gets_in_the_kind_of_frame_it_came_in() {
    let example = Example::start("echo");
    let mut client = example.websocket("/", &[]);
    client.send_text("h\u{e9}");
    assert_eq!(client.next_frame(), Some(Frame::Text("h\u{e9}".into())));
    client.send_binary(b"");
    assert_eq!(client.next_frame(), Some(Frame::Binary(Vec::new())));
    // The largest message of the well-known suites.
    let large: Vec<u8> = (0..16 * 1024 * 1024_u32).map(|nth| (nth % 251) as u8).collect();
    client.send_binary(&large);
    assert!(client.next_frame() == Some(Frame::Binary(large)), "16 MiB came back changed");
}

#[test]
fn echo_says_how_it_is_called() {
    let output = Command::new(path("echo")).output().expect("built");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: echo ADDRESS:PORT"));
}

#[test]
fn app_has_its_say() {
    let example = Example::start("app");
    let room = |method| example.request(method, "/channels/room");
    let refused = room("POST").body("hello").send();
    assert_eq!((refused.status, refused.code().as_str()), (403, "not_allowed"));
    assert_eq!(refused.message(), "say who you are: X-User");
    assert_eq!(room("DELETE").header("X-User", "ann").send().message(), "nobody throws messages away");
    assert_eq!(room("POST").header("X-User", "ann").body("hello").send().status, 200);
    assert_eq!(example.request("GET", "/about").send().text(), "readers: 0\n");
    assert_eq!(example.request("GET", "/nowhere").send().status, 404);

    let mut ann = WebSocket::open(room("GET").header("X-User", "ann"), &["tidings.raw"]).expect("101");
    let mut listener = example.websocket("/channels/noise", &[]);
    assert!(matches!(listener.next_frame(), Some(Frame::Text(cursor)) if cursor.starts_with("{\"cursor\":")));
    assert_eq!(example.request("GET", "/about").send().text(), "readers: 2\n");
    ann.send_text("ping");
    assert_eq!(ann.next_frame(), Some(Frame::Text("pong".into())));
    ann.send_text("to the room");
    assert_eq!(ann.next_frame(), Some(Frame::Text("ann: to the room".into())));
    ann.send_binary(b"loud");
    assert_eq!(listener.next_json()["data"], "loud");
    ann.send_text("bye");
    assert_eq!(ann.next_frame(), Some(Frame::Close(Some(1000), "see you".into())));
}

/// 64 of the descriptors that may be open are no connection's; `tidings_connections_max` is a limit
/// that can be reached.
#[test]
#[cfg(target_os = "linux")]
fn a_library_has_no_more_connections_than_descriptors() {
    let limited = "ulimit -Sn 256 && exec \"$0\" 127.0.0.1:0";
    let example = Example::start_as("embed", Command::new("sh").args(["-c", limited]).arg(path("embed")));
    let metrics = example.request("GET", "/metrics").send().text().to_owned();
    for line in ["tidings_connections_max 192\n", "process_max_fds 256\n"] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

/// An app hears of each channel of a connection that it comes and that it goes, however many at a time.
#[test]
fn app_counts_channels_that_come_together_and_go_one_by_one() {
    let example = Example::start("app");
    let readers = || example.request("GET", "/about").send().text().to_owned();
    let mut socket = example.websocket("/channels/room,b", &["tidings.v1"]);
    assert!(matches!(socket.next_frame(), Some(Frame::Text(cursor)) if cursor.starts_with("{\"cursor\":")));
    assert_eq!(readers(), "readers: 2\n");
    for (command, subscribed, want) in [
        ("unsubscribe b", &["room"][..], "readers: 1\n"),
        ("subscribe b,c,room", &["b", "c", "room"], "readers: 3\n"),
        ("unsubscribe b,c", &["room"], "readers: 1\n"),
        ("unsubscribe room", &[], "readers: 0\n"),
    ] {
        socket.send_text(command);
        let answer = socket.next_json();
        let set: Vec<&str> = answer["subscribed"].array().iter().map(json::Value::str).collect();
        assert_eq!((set.as_slice(), readers().as_str()), (subscribed, want), "{command}");
    }
    socket.send_text("publish room\nx");
    assert_eq!(socket.next_json()["error"]["code"], "not_allowed");
}

/// A host that asks `next_timeout` once too seldom leaves requests unread for ever: a turn reads
/// 4 MiB at most, and the rest is no longer news to its descriptor.
#[test]
fn nested_loop_answers_ten_megabytes_of_pipelined_requests() {
    const REQUESTS: usize = 2500;
    let example = Example::start("nested_loop");
    let mut answers = TcpStream::connect(example.address).expect("it listens");
    answers.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let mut requests = answers.try_clone().expect("a descriptor");
    let last = example.request("GET", "/healthz").header("Connection", "close").bytes();
    let post = example.request("POST", "/channels/flood").body([b'x'; 4096]).bytes();
    let sent = post.len() * REQUESTS;
    assert!(sent > 10_000_000, "{sent}");
    let writer = thread::spawn(move || requests.write_all(&[post.repeat(REQUESTS), last].concat()));

    let mut bytes = Vec::new();
    answers.read_to_end(&mut bytes).expect("all answers in time");
    writer.join().expect("no panic").expect("all requests were taken");
    let text = String::from_utf8(bytes).expect("answers are ASCII");
    let numbers: Vec<usize> = text
        .split("{\"id\":\"")
        .skip(1)
        .map(|rest| rest.split(['-', '"']).nth(1).expect("a cursor").parse().expect("a number"))
        .collect();
    assert!(numbers.iter().copied().eq(1..=REQUESTS), "{} answers", numbers.len());
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), REQUESTS + 1);
}

#[test]
fn nested_loop_serves_the_host_as_well() {
    let mut example = Example::start("nested_loop");
    let mut poll = example.request("GET", "/channels/input?after=earliest").start();
    let mut input = example.child.stdin.take().expect("piped");
    input.write_all(b"one\ntwo\nnot finished").expect("it reads");
    let answer = poll.response("GET").json();
    let mut data: Vec<String> = messages(&answer);
    let mut cursor = answer["cursor"].str().to_owned();
    while data.len() < 2 {
        let answer = example.request("GET", &format!("/channels/input?after={cursor}")).send().json();
        data.extend(messages(&answer));
        cursor = answer["cursor"].str().to_owned();
    }
    assert_eq!(data, ["one", "two"]);
    drop(input);
    assert_eq!(example.child.wait().expect("it ends with its input").code(), Some(0));
    Client::assert_closed(&mut poll);
}

fn messages(answer: &json::Value) -> Vec<String> {
    answer["messages"].array().iter().map(|message| message["data"].str().to_owned()).collect()
}
