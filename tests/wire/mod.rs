//! The whole server over the fake kernel, spoken to in bytes: what a test sends and what it gets
//! is what stands on the wire. Time is virtual and passes only by `pass`.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

use std::time::Duration;

use tidings::App;
use tidings::internals::{Config, EventLoop, Parts};

use crate::clients::{self, Frame, Frames};
use crate::kernel::{Ending, Kernel, Wire};

/// A server that is idle whenever nobody is inside one of its functions.
pub struct Server {
    pub turns: EventLoop<Kernel>,
}

impl Server {
    pub fn start() -> Server {
        Server::start_with(|_| {}, None)
    }

    /// A server whose config is changed a little, with the hooks of an embedder or none.
    pub fn start_with(change: impl FnOnce(&mut Config), app: Option<Box<dyn App>>) -> Server {
        let mut config = Config::default();
        change(&mut config);
        let parts = Parts { app, ..Parts::default() };
        let turns = EventLoop::new(Kernel::new(1), config, parts).expect("the names of the configuration are names");
        Server { turns }
    }

    /// A connection with room for everything.
    pub fn connect(&mut self) -> Wire {
        let wire = self.turns.os().connect_reliably();
        self.settle();
        wire
    }

    /// Sends these bytes in one piece and lets the server act on them.
    pub fn send(&mut self, wire: Wire, bytes: &[u8]) {
        self.put(wire, bytes);
        self.settle();
    }

    /// Sends these bytes; the server does not turn yet.
    pub fn put(&mut self, wire: Wire, bytes: &[u8]) {
        // A server that has closed meanwhile takes none.
        let taken = self.turns.os().send(wire, bytes);
        assert!(taken == bytes.len() || self.turns.os().is_released(wire) || taken == 0, "the pipe is full");
    }

    /// What has come, and is not taken yet.
    pub fn receive(&mut self, wire: Wire) -> Vec<u8> {
        self.turns.os().receive(wire, usize::MAX)
    }

    /// True if the server has ended its side in good order.
    pub fn has_ended(&mut self, wire: Wire) -> bool {
        assert_ne!(self.turns.os().ending(wire), Some(Ending::Reset), "the connection was reset");
        self.turns.os().ending(wire) == Some(Ending::Closed)
    }

    /// Turns until nothing is left to do at this moment.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            // What one turn did may be seen by the next: an edge that is due, a read that is wished for.
            if !self.turn(0) && !self.turn(0) {
                return;
            }
        }
        panic!("the server never comes to rest");
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, ms: u64) {
        let end = self.turns.os().now_ms() + ms;
        while self.turns.os().now_ms() < end {
            let left = end - self.turns.os().now_ms();
            self.turn(left);
        }
        self.settle();
    }

    /// One turn; true if something is left over.
    pub fn turn(&mut self, ms: u64) -> bool {
        let turn = self.turns.turn(Some(Duration::from_millis(ms))).expect("the kernel has no faults");
        self.turns.check_invariants();
        turn.more
    }

    /// An open WebSocket, with its first frame read if it has one.
    pub fn websocket(&mut self, target: &str, protocol: Option<&str>) -> WebSocket {
        let wire = self.connect();
        let mut socket = self.upgrade(wire, target, protocol);
        socket.heard(self);
        socket
    }

    /// Opens a WebSocket over this wire.
    pub fn upgrade(&mut self, wire: Wire, target: &str, protocol: Option<&str>) -> WebSocket {
        let request = String::from_utf8(clients::upgrade("a", "", protocol)).expect("ASCII");
        self.send(wire, request.replacen("/channels/a", target, 1).as_bytes());
        let answer = self.receive(wire);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        let end = text.find("\r\n\r\n").expect("the head ends") + 4;
        let mut frames = Frames::default();
        frames.receive(&answer[end..]);
        WebSocket { wire, frames }
    }

    /// The payloads that a channel keeps, oldest first.
    pub fn kept(&mut self, channel: &str) -> Vec<String> {
        let wire = self.connect();
        self.send(wire, &clients::get(channel, "?after=earliest&wait=0", ""));
        let answer = String::from_utf8(self.receive(wire)).expect("JSON");
        let body = answer.split_once("\r\n\r\n").expect("a head").1;
        let json = clients::json::Json::parse(body).expect("JSON");
        let messages = json.member("messages").expect("a poll's answer").list().expect("a list");
        messages.iter().map(|message| message.text("data").expect("text").to_owned()).collect()
    }
}

/// A client's end of an open WebSocket.
pub struct WebSocket {
    pub wire: Wire,
    frames: Frames,
}

impl WebSocket {
    /// What has come since: `text ...`, `binary [1, 2]`, `ping`, `pong ...`, `close 1000 why`; and
    /// `end` behind it all, once the server has ended its side.
    pub fn heard(&mut self, server: &mut Server) -> Vec<String> {
        let bytes = server.receive(self.wire);
        self.frames.receive(&bytes);
        let mut heard = self.parse();
        if server.has_ended(self.wire) {
            heard.push("end".to_owned());
        }
        heard
    }

    /// The same without the words of a close frame.
    pub fn codes(&mut self, server: &mut Server) -> Vec<String> {
        let first_words = |frame: String| frame.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ");
        self.heard(server).into_iter().map(first_words).collect()
    }

    fn parse(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(frame) = self.frames.next_frame().expect("a frame that a server may send") {
            heard.push(match frame {
                Frame::Text(text) => format!("text {text}"),
                Frame::Binary(bytes) => format!("binary {bytes:?}"),
                Frame::Ping(_) => "ping".to_owned(),
                Frame::Pong(payload) => format!("pong {}", String::from_utf8_lossy(&payload)),
                Frame::Close(None, _) => "close".to_owned(),
                Frame::Close(Some(code), reason) => format!("close {code} {reason}").trim_end().to_owned(),
            });
        }
        heard
    }
}

/// A client's frame with this first byte (FIN, RSV, opcode), masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = clients::client_frame(0, payload);
    bytes[0] = first;
    bytes
}
