//! Answers that once were late, missing, or somebody else's, each with its story.
//!
//! The kernel is the tests' own and time is virtual: a turn that waits for nothing shows.

mod clients;
mod kernel;

use std::time::Duration;

use clients::{Frame, Frames, client_frame};
use kernel::{Kernel, Wire};
use tidings::internals::{Config, EventLoop, Parts};

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

struct Server(EventLoop<Kernel>);

impl Server {
    fn start(adjust: impl FnOnce(&mut Config)) -> Server {
        let mut config = Config::default();
        adjust(&mut config);
        let server = EventLoop::new(Kernel::new(1), config, Parts::default());
        Server(server.expect("the names of the configuration are names"))
    }

    fn connect(&mut self, bytes: &[u8]) -> Wire {
        let wire = self.0.os().connect_reliably();
        self.send(wire, bytes);
        wire
    }

    /// Sends, and turns for as long as the server itself says that something is left to do.
    fn send(&mut self, wire: Wire, bytes: &[u8]) {
        assert_eq!(self.0.os().send(wire, bytes), bytes.len());
        for _ in 0..3 {
            self.turn();
        }
        while self.0.next_timeout() == Some(Duration::ZERO) {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.0.turn(Some(Duration::ZERO)).expect("the kernel has no faults");
        self.0.check_invariants();
    }

    fn receive(&mut self, wire: Wire) -> Vec<u8> {
        self.0.os().receive(wire, usize::MAX)
    }

    fn text(&mut self, wire: Wire) -> String {
        String::from_utf8_lossy(&self.receive(wire)).into_owned()
    }

    /// A client of `tidings.v1` on channel `quiet`, past its handshake.
    fn commander(&mut self) -> (Wire, Frames) {
        let wire = self.connect(&clients::upgrade("quiet", "", Some("tidings.v1")));
        let bytes = self.receive(wire);
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
        let mut frames = Frames::default();
        frames.receive(&bytes[head..]);
        assert!(matches!(frames.next_frame(), Ok(Some(Frame::Text(_)))), "the first frame is the cursor");
        (wire, frames)
    }
}

/// The thirty-third publish of one segment was appended after the log had been asked, and waited
/// for the next thing to happen, up to a ping later.
#[test]
fn many_commands_of_one_segment_are_answered_without_waiting() {
    let mut server = Server::start(|_| {});
    let (wire, mut frames) = server.commander();
    let commands: Vec<u8> =
        (0..100).flat_map(|nth| client_frame(TEXT, format!("publish a ref={nth}\nx").as_bytes())).collect();
    server.send(wire, &commands);
    frames.receive(&server.receive(wire));
    for nth in 0..100 {
        let Ok(Some(Frame::Text(answer))) = frames.next_frame() else { panic!("answer {nth} is missing") };
        assert!(answer.contains("\"published\"") && answer.ends_with(&format!("\"ref\":\"{nth}\"}}")), "{answer}");
    }
}

/// A close frame behind a publish ended the connection before the answer.
#[test]
fn a_close_waits_for_the_answers_before_it() {
    let mut server = Server::start(|_| {});
    let (wire, mut frames) = server.commander();
    server.send(wire, &[client_frame(TEXT, b"publish a ref=1\nx"), client_frame(CLOSE, &[3, 232])].concat());
    frames.receive(&server.receive(wire));
    assert!(matches!(frames.next_frame(), Ok(Some(Frame::Text(answer))) if answer.contains("\"published\"")));
    assert!(matches!(frames.next_frame(), Ok(Some(Frame::Close(Some(1000), _)))));
    assert!(server.0.os().ending(wire).is_some());
}

/// A tab, legal in a media type, was taken for a control byte when the type became a header.
#[test]
fn a_tab_in_a_type_comes_back_in_a_raw_answer() {
    let mut server = Server::start(|_| {});
    let publish = clients::post("a", "", "Content-Type: text/plain;\tq=1\r\n", b"x");
    let wire = server.connect(&publish);
    assert!(server.text(wire).starts_with("HTTP/1.1 200 "));
    server.send(wire, &clients::get("a", "?format=raw&after=earliest", ""));
    assert!(server.text(wire).contains("\r\nContent-Type: text/plain;\tq=1\r\n"));
}

/// A poll told with which origin's page it may be read; the next poll of the same connection told
/// it too, and through the shared answer everybody else's.
#[test]
fn an_origin_is_told_to_its_own_poll_only() {
    let mut server = Server::start(|config| config.origins.push("https://page.example".into()));
    let origin = "Origin: https://page.example\r\n";
    let first = server.connect(&clients::get("a", "?wait=0", origin));
    assert!(server.text(first).contains("Access-Control-Allow-Origin: https://page.example\r\n"));
    server.send(first, &clients::get("a", "", ""));
    let second = server.connect(&clients::get("a", "", ""));
    server.connect(&clients::post("a", "", "", b"x"));
    for wire in [first, second] {
        let answer = server.text(wire);
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("Access-Control"), "{answer}");
    }
}

/// A client that was refused and sends on for ever kept its connection for as long as it liked.
#[test]
fn who_sends_on_after_a_refusal_is_cut_by_bytes() {
    const MIB: usize = 1024 * 1024;
    let mut server = Server::start(|_| {});
    let wire = server.connect(b"GET / HTTP/1.1\n");
    assert!(server.text(wire).starts_with("HTTP/1.1 400 "));
    let (begin, mut sent) = (server.0.os().now_ms(), 0);
    while !server.0.os().is_released(wire) {
        sent += server.0.os().send(wire, &vec![b'x'; MIB]);
        server.turn();
        assert!(sent <= 64 * MIB, "it may send on without end");
    }
    assert!(sent >= 20 * MIB, "who sends 20 MB and then reads would have lost the answer");
    assert_eq!(server.0.os().now_ms(), begin);
}

/// The same for one that sends a byte now and then: no byte moves the deadline.
#[test]
fn who_sends_on_after_a_refusal_is_cut_by_time() {
    let mut server = Server::start(|config| config.close_timeout = Duration::from_secs(3));
    let wire = server.connect(b"GET / HTTP/1.1\n");
    let begin = server.0.os().now_ms();
    while !server.0.os().is_released(wire) {
        server.send(wire, b"x");
        server.0.turn(Some(Duration::from_millis(100))).expect("the kernel has no faults");
        assert!(server.0.os().now_ms() < begin + 3500, "longer than it may");
    }
    assert!(server.0.os().now_ms() >= begin + 3000);
}

/// What stands behind a held poll is taken in no further than a head may be long, or by one read,
/// and waits: a publish larger than that is answered behind the poll, and whole.
#[test]
fn a_large_publish_waits_behind_a_held_poll() {
    let mut server = Server::start(|config| config.head_bytes_max = 4096);
    let wire = server.connect(&clients::get("a", "?after=earliest&wait=60", ""));
    let large = vec![b'x'; 200 * 1024];
    let requests = [clients::post("b", "", "", &large), clients::get("b", "?after=earliest&format=raw", "")].concat();
    for piece in requests.chunks(3000) {
        server.send(wire, piece);
    }
    assert_eq!(server.receive(wire), b"", "the poll is held, and everything waits");
    let publisher = server.connect(&clients::post("a", "", "", b"one"));
    assert!(server.text(publisher).starts_with("HTTP/1.1 200 "));
    let answers = server.text(wire);
    let (poll, rest) = answers[1..].split_once("HTTP/1.1 200 ").expect("a second answer");
    let (publish, raw) = rest.split_once("HTTP/1.1 200 ").expect("a third answer");
    assert!(poll.contains("\"data\":\"one\""), "{poll}");
    assert!(publish.contains("\"channel\":\"b\""), "{publish}");
    assert!(raw.ends_with(&format!("\r\n\r\n{}", "x".repeat(large.len()))), "the whole message");
}
