//! The contract, section "Leaving": in process by the handle, and the program by a signal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::http::Request;
use common::trace::{Server, UPGRADE, data, refusal};
use common::websocket::{Frame, WebSocket};
use common::{PATIENCE, TestServer};

const HOUR: Duration = Duration::from_secs(3600);

/// A server that stays an hour to answer newcomers, and leaves its clients at once.
fn gracious() -> Server {
    Server::start_with(|config| {
        config.drain = Duration::ZERO;
        config.drain_grace = HOUR;
    })
}

// What newcomers are told.

/// protocol: `/readyz` turns 503; the listener stays for `--drain-grace` (default 0 s), only to answer.
#[test]
fn while_leaving_the_server_is_alive_but_not_ready() {
    let server = gracious();
    assert_eq!((server.get("/readyz").status, server.get("/healthz").status), (200, 200));
    server.drain();
    let answer = server.get("/readyz");
    assert_eq!((answer.status, answer.lists("Connection", "close")), (503, true));
    assert_eq!(server.get("/healthz").status, 200);
    // What asks nothing of the log is answered as ever.
    assert_eq!(server.get("/").status, 200);
}

/// protocol: New subscriptions, HEAD, publishes and DELETE get 503 `draining` with `Retry-After` (SSE as above).
#[test]
fn newcomers_get_503() {
    let server = gracious();
    server.publish("a", "x");
    server.drain();
    for (request, headers) in [
        ("GET /channels/a", ""),
        ("GET /channels/a?after=E-0", ""),
        ("GET /channels/a?wait=0&format=raw", ""),
        ("GET /channels/a", UPGRADE),
        ("POST /channels/a", ""),
        ("DELETE /channels/a", ""),
    ] {
        let answer = server.ask(request, headers);
        assert_eq!(refusal(&answer), "503 draining", "{request}");
        let seconds = answer.header("Retry-After").unwrap();
        assert!(seconds.parse::<u64>().is_ok(), "{request}: {seconds}");
    }
    let answer = server.ask("HEAD /channels/a", "");
    assert_eq!((answer.status, answer.header("Tidings-Cursor")), (503, None));
    assert!(answer.header("Retry-After").is_some());

    let mut stream = server.stream("/channels/a?after=E-0", "");
    assert_eq!((stream.block(), stream.block()), ("retry: R".into(), "end".into()));
    // A request that would be wrong anyhow is told that.
    assert_eq!(refusal(&server.get("/channels/a?wait=x")), "400 bad_wait");
}

/// protocol: Looked up after authorization and the checks of form, before any condition, also while draining.
#[test]
fn a_repeated_publish_is_still_told_what_became_of_it() {
    let server = gracious();
    let publish = |key: &str| server.ask("POST /channels/a", &format!("Idempotency-Key: {key}\r\n"));
    let first = publish("k").text().to_owned();
    server.drain();
    let again = publish("k");
    assert_eq!((again.text(), again.header("Idempotent-Replayed")), (&*first, Some("true")));
    assert_eq!(refusal(&publish("new")), "503 draining");
}

/// protocol: the listener stays for `--drain-grace` (default 0 s), only to answer.
#[test]
fn after_the_grace_nobody_listens() {
    let server = TestServer::start_with(|config| config.drain = Duration::ZERO);
    let address = server.address;
    server.handle.shutdown();
    server.join();
    assert!(TcpStream::connect(address).is_err());

    let server = Server::start_with(|config| {
        config.drain = Duration::ZERO;
        config.drain_grace = Duration::from_millis(500);
    });
    let start = Instant::now();
    server.drain();
    assert_eq!(server.get("/readyz").status, 503);
    server.inner.join();
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
}

// What becomes of the clients.

/// protocol: Held polls are answered
#[test]
fn held_polls_are_answered() {
    let server = gracious();
    server.publish("b", "elsewhere");
    let mut json = server.open("GET /channels/a?wait=120", "");
    let mut raw = server.open("GET /channels/a?wait=120&format=raw", "");
    server.await_subscribers(2);
    server.drain();
    let answer = json.answer();
    assert_eq!(answer.text(), r#"{"cursor":"E-1","messages":[]}"#);
    assert!(answer.lists("Connection", "close"), "{answer:?}");
    json.client.assert_closed();
    let answer = raw.answer();
    assert_eq!((answer.status, answer.header("Tidings-Cursor")), (204, Some("E-1")));
    raw.client.assert_closed();
}

/// protocol: SSE gets a `retry:` that differs per client (one to three times the base) and the end of the body
#[test]
fn streams_end_with_a_retry_of_their_own() {
    let base = 60_000;
    let server = Server::start_with(|config| {
        config.drain = Duration::ZERO;
        config.retry = Duration::from_millis(base);
    });
    let mut streams: Vec<_> = (0..6).map(|_| server.stream("/channels/a", "")).collect();
    for stream in &mut streams {
        assert_eq!(stream.block(), "retry: R|id: E-0");
    }
    server.inner.handle.shutdown();
    let mut retries = Vec::new();
    for mut stream in streams {
        assert_eq!((stream.block(), stream.block()), ("retry: R".into(), "end".into()));
        retries.push(stream.inner.retry.unwrap());
        stream.inner.into_client().assert_closed();
    }
    assert!(retries.iter().all(|retry| (base..=3 * base).contains(retry)), "{retries:?}");
    assert!(retries.iter().any(|&retry| retry != retries[0]), "{retries:?}");
    server.inner.join();
}

/// protocol: WebSocket gets close 1012
#[test]
fn websockets_are_closed_with_1012() {
    let server = Server::start_with(|config| config.drain = Duration::ZERO);
    let mut websockets =
        [&[][..], &["tidings.v1"], &["tidings.raw"]].map(|offer| server.websocket("/channels/a", offer));
    server.await_subscribers(3);
    server.inner.handle.shutdown();
    for (websocket, greeted) in websockets.iter_mut().zip([true, true, false]) {
        if greeted {
            websocket.frame();
        }
        websocket.inner.assert_closed(1012);
    }
}

/// protocol: spread over the drain time (default 10 s).
#[test]
fn clients_do_not_all_leave_in_one_moment() {
    let drain = Duration::from_secs(2);
    let server = Server::start_with(|config| config.drain = drain);
    let websockets: Vec<_> = (0..16).map(|_| server.websocket("/channels/a", &["tidings.raw"])).collect();
    server.await_subscribers(16);
    let start = Instant::now();
    server.inner.handle.shutdown();
    let clients = websockets.into_iter().map(|mut websocket| {
        thread::spawn(move || {
            assert_eq!(websocket.frame(), "close 1012");
            start.elapsed()
        })
    });
    let mut moments: Vec<_> = clients.collect::<Vec<_>>().into_iter().map(|client| client.join().unwrap()).collect();
    moments.sort();
    // Moments drawn evenly all fall within a third of the time in one run of a million.
    let spread = moments[15] - moments[0];
    assert!(spread > drain / 3, "{moments:?}");
    assert!(moments[15] < drain + PATIENCE / 2, "{moments:?}");
}

/// protocol: What was answered 200 before is first written to every subscriber that reads in time
#[test]
fn what_was_accepted_is_delivered_first() {
    let server = gracious();
    let mut stream = server.stream("/channels/a", "");
    let mut websocket = server.websocket("/channels/a", &["tidings.raw"]);
    let mut late = server.websocket("/channels/a,b?after=E-0", &["tidings.raw"]);
    let mut poll = server.open("GET /channels/a", "");
    stream.block();
    server.await_subscribers(4);
    let payload = "x".repeat(100_000);
    for _ in 0..30 {
        server.publish("a", &payload);
    }
    server.inner.handle.shutdown();
    let answer = poll.answer();
    assert!(data(&answer).starts_with(&payload), "{}", answer.status);
    for seq in 1..=30 {
        assert_eq!(stream.block(), format!("id: E-{seq}|data: {payload}"));
        assert_eq!((websocket.frame(), late.frame()), (payload.clone(), payload.clone()));
    }
    assert_eq!((stream.block(), stream.block()), ("retry: R".into(), "end".into()));
    assert_eq!((websocket.frame(), late.frame()), ("close 1012".into(), "close 1012".into()));
}

/// protocol: whoever comes back is told the truth by its cursor.
#[test]
fn whoever_comes_back_to_another_life_is_told() {
    let (first, second) = (Server::start(), Server::start());
    first.publish("a", "1");
    let cursor = first.inner.now();
    drop(first);
    second.publish("a", "1");
    let answer = second.get(&format!("/channels/a?after={cursor}"));
    assert_eq!(answer.json()["gap"]["reason"], "epoch");
    assert_eq!(data(&answer), "1");
}

// When it is over.

/// protocol: The process leaves when drain and grace are over, or once the grace is over and nobody is left.
#[test]
fn the_server_leaves_once_nobody_is_left() {
    // Nobody there, and an hour to drain.
    let server = TestServer::start_with(|config| config.drain = HOUR);
    server.handle.shutdown();
    server.join();

    // The last client goes.
    let server = Server::start_with(|config| config.drain = HOUR);
    let mut stream = server.stream("/channels/a", "");
    stream.block();
    server.drain();
    drop(stream);
    server.inner.join();

    // The grace is over after everybody has gone.
    let server = Server::start_with(|config| {
        config.drain = HOUR;
        config.drain_grace = Duration::from_millis(200);
    });
    server.drain();
    server.inner.join();
}

/// protocol: The process leaves when drain and grace are over
#[test]
fn whoever_does_not_go_is_left() {
    let server = Server::start_with(|config| {
        config.drain = Duration::from_millis(300);
        config.send_buffer_bytes = 16 * 1024;
    });
    // It reads nothing of what is written to it.
    let stalled = server.stream("/channels/a", "");
    let payload = "x".repeat(200_000);
    for _ in 0..100 {
        server.publish("a", &payload);
    }
    // It has begun a request and does not end it.
    let mut half = server.inner.connect();
    half.send("GET /channels/a HTTP/1.1\r\n");
    server.inner.handle.shutdown();
    server.inner.join();
    drop(stalled);
}

// The program.

/// A running program. Whatever a test finds, it does not outlive it.
struct Program {
    child: Child,
    /// Kept open, for the program goes on talking.
    stderr: BufReader<ChildStderr>,
    address: std::net::SocketAddr,
}

impl Program {
    fn start(options: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command.args(["--listen", "127.0.0.1:0"]).args(options).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended before it listened");
            if let Some((_, address)) = line.trim_end().split_once("listening on http://") {
                break address.parse().unwrap();
            }
        };
        Program { child, stderr, address }
    }

    fn websocket(&self) -> WebSocket {
        let mut websocket = WebSocket::open(Request::new(self.address, "GET", "/channels/a"), &[]).expect("101");
        websocket.next_json();
        websocket
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// protocol: SIGTERM or SIGINT: `/readyz` turns 503
/// protocol: Exit code 0.
#[test]
fn a_signal_makes_the_program_leave_in_good_order() {
    for signal in ["TERM", "INT"] {
        let mut program = Program::start(&["--drain", "1s"]);
        let mut websocket = program.websocket();
        program.signal(signal);
        websocket.assert_closed(1012);
        assert_eq!(program.exit_code(), Some(0), "{signal}");
    }
}

/// protocol: A second signal leaves at once.
#[test]
fn a_second_signal_makes_it_leave_at_once() {
    let mut program = Program::start(&["--drain", "10h", "--drain-grace", "10h"]);
    let mut websockets = [program.websocket(), program.websocket(), program.websocket()];
    program.signal("TERM");
    while Request::new(program.address, "GET", "/readyz").send().status == 200 {}
    program.signal("TERM");
    assert_eq!(program.exit_code(), Some(0));
    for websocket in &mut websockets {
        let last = websocket.next_frame();
        assert!(matches!(last, None | Some(Frame::Close(Some(1012), _))), "{last:?}");
    }
}
