//! A server over the fake kernel, healthy clients that check what they hear, and peers that mean
//! harm, one kind each.
//!
//! Everything is driven by `step`, one a moment of virtual time. The oracle is `Healthy`: it hears
//! every message of its channel once and in order, over each transport, whoever else is there.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use crate::clients::{self, Format, Heard, Reader, Transport};
use crate::kernel::{Kernel, Wire};
use tidings::Stats;
use tidings::internals::{Command, Commands, Config, EventLoop, Parts};

pub const KIB: usize = 1024;

/// The whole server but for the system.
pub struct Server {
    pub turns: EventLoop<Kernel>,
    pub commands: Arc<Commands>,
}

impl Server {
    pub fn start(adjust: impl FnOnce(&mut Config)) -> Server {
        let mut config = Config::default();
        adjust(&mut config);
        let commands = Arc::new(Commands::new(config.commands_max, config.intake_bytes_max, Box::new(|| {})));
        let parts = Parts { commands: Arc::clone(&commands), ..Parts::default() };
        let turns = EventLoop::new(Kernel::new(1), config, parts).expect("the names of the configuration are names");
        Server { turns, commands }
    }

    pub fn kernel(&mut self) -> &mut Kernel {
        self.turns.os()
    }

    /// A connection with room for everything, accepted, and these bytes sent over it.
    pub fn send(&mut self, bytes: &[u8]) -> Wire {
        let wire = self.kernel().connect_reliably();
        self.turn(0);
        assert_eq!(self.kernel().send(wire, bytes), bytes.len());
        wire
    }

    /// One turn, that waits at most this long.
    pub fn turn(&mut self, ms: u64) {
        self.turns.turn(Some(Duration::from_millis(ms))).expect("the kernel has no faults");
    }

    pub fn turn_for(&mut self, ms: u64) {
        let end = self.kernel().now_ms() + ms;
        while self.kernel().now_ms() < end {
            self.turn(end - self.turns.os_ref().now_ms());
        }
        self.turns.check_invariants();
    }

    pub fn receive(&mut self, wire: Wire) -> String {
        String::from_utf8_lossy(&self.kernel().receive(wire, usize::MAX)).into_owned()
    }

    /// The status codes of the answers that have come.
    pub fn statuses(&mut self, wire: Wire) -> Vec<String> {
        self.receive(wire).split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
    }

    /// How many turns it takes until this client has heard these words.
    pub fn turns_until(&mut self, wire: Wire, words: &str) -> usize {
        let mut heard = String::new();
        for turns in 1..100 {
            self.turn(1);
            heard.push_str(&self.receive(wire));
            if heard.contains(words) {
                return turns;
            }
        }
        panic!("{words:?} was not heard, but {heard:?}");
    }

    /// How it stands, asked as another thread would.
    pub fn stats(&mut self) -> Stats {
        let (sender, stats) = std::sync::mpsc::channel();
        let tell = Box::new(move |stats| sender.send(stats).expect("the test listens"));
        self.commands.push(Command::Stats(tell)).expect("room in the queue");
        self.turn(0);
        stats.recv().expect("told in the turn")
    }
}

pub fn healthz() -> Vec<u8> {
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()
}

// The healthy.

/// A subscriber of `a` that wants the messages 0, 1, 2, ... and nothing else.
pub struct Healthy {
    transport: Transport,
    wire: Wire,
    reader: Reader,
    pub heard: usize,
}

impl Healthy {
    /// One over each transport.
    pub fn of_each_kind(server: &mut Server) -> Vec<Healthy> {
        [Transport::Sse, Transport::WebSocket, Transport::Poll].map(|kind| Healthy::start(server, kind)).into()
    }

    pub fn start(server: &mut Server, transport: Transport) -> Healthy {
        let wire = server.send(&match transport {
            Transport::Sse => clients::get("a", "?format=json", "Accept: text/event-stream\r\n"),
            Transport::WebSocket => clients::upgrade("a", "", None),
            Transport::Poll => clients::get("a", "?wait=120", ""),
        });
        server.turn(0);
        Healthy { transport, wire, reader: Reader::new(transport, Format::Json), heard: 0 }
    }

    /// Reads what has come, and answers as a client does.
    pub fn step(&mut self, server: &mut Server) {
        let bytes = server.kernel().receive(self.wire, usize::MAX);
        let mut cursor = None;
        for heard in self.reader.receive(&bytes).expect("the server speaks the protocol") {
            match heard {
                Heard::Message(message) => {
                    let payload = String::from_utf8(message.payload).expect("numbers");
                    assert_eq!(payload, self.heard.to_string(), "{:?}", self.transport);
                    self.heard += 1;
                }
                Heard::Cursor(place) => cursor = Some(place),
                Heard::Ping(payload) => {
                    server.kernel().send(self.wire, &clients::client_frame(clients::PONG, &payload));
                }
                Heard::Done(None) if self.transport == Transport::Poll => {
                    let again = format!("?wait=120&after={}", cursor.expect("an answer has a cursor"));
                    server.kernel().send(self.wire, &clients::get("a", &again, ""));
                }
                Heard::Alive => {}
                other => panic!("{:?} heard {other:?}", self.transport),
            }
        }
    }
}

/// Publishes 0, 1, 2, ... to `a`.
pub struct Publisher {
    wire: Wire,
    pub published: usize,
}

impl Publisher {
    pub fn start(server: &mut Server) -> Publisher {
        Publisher { wire: server.send(b""), published: 0 }
    }

    pub fn step(&mut self, server: &mut Server) {
        let request = clients::post("a", "", "", self.published.to_string().as_bytes());
        server.kernel().send(self.wire, &request);
        self.published += 1;
    }

    pub fn answered(&mut self, server: &mut Server) -> usize {
        let statuses = server.statuses(self.wire);
        assert!(statuses.iter().all(|status| status == "200"), "{statuses:?}");
        statuses.len()
    }
}

// The hostile.

/// A peer that means harm, and does a little of it at each step.
pub struct Hostile {
    kind: Kind,
    wire: Option<Wire>,
    steps: usize,
}

/// What it does.
#[derive(Clone)]
pub enum Kind {
    /// Sends all of the first at once, then one byte of the second a step, and again from its start.
    Trickler(Vec<u8>, Vec<u8>),
    /// Asks, and never reads.
    Stalled(Vec<u8>),
    /// Sends as much as goes in, over and over; reads all, or nothing.
    Flooder { bytes: Vec<u8>, reads: bool },
    /// Sends this, resets, comes again.
    Resetter(Vec<u8>),
    /// Sends this, ends its sending side, and stays.
    HalfCloser(Vec<u8>),
    /// Announces what never comes.
    Announcer(Vec<u8>),
}

/// The kind, and how what it sends begins.
impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, bytes) = match self {
            Kind::Trickler(begin, _) => ("Trickler", begin),
            Kind::Stalled(bytes) => ("Stalled", bytes),
            Kind::Flooder { bytes, .. } => ("Flooder", bytes),
            Kind::Resetter(bytes) => ("Resetter", bytes),
            Kind::HalfCloser(bytes) => ("HalfCloser", bytes),
            Kind::Announcer(bytes) => ("Announcer", bytes),
        };
        write!(f, "{name} {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]))
    }
}

impl Kind {
    /// Every kind, with what it says by each way in.
    pub fn all() -> Vec<Kind> {
        let chunked = b"POST /channels/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_vec();
        let websocket = |behind: &[u8]| [&clients::upgrade("x", "", None)[..], behind].concat();
        let sse = clients::get("a", "?transport=sse", "");
        let post = clients::post("x", "", "", &[b'x'; 60 * KIB]);
        let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
        vec![
            Kind::Trickler(head, vec![b'a']),
            Kind::Trickler(Vec::new(), vec![b'a']),
            Kind::Trickler(half(&post), vec![b'x']),
            Kind::Trickler(chunked.to_vec(), b"1\r\nx\r\n".to_vec()),
            Kind::Trickler(half(&clients::upgrade("x", "", None)), b"X".to_vec()),
            // A message of 100,000 bytes; one that is never final, and each frame empty.
            Kind::Trickler(websocket(b"\x82\xff\0\0\0\0\0\x01\x86\xa0\0\0\0\0"), vec![b'x']),
            Kind::Trickler(websocket(b"\x02\x80\0\0\0\0"), b"\x00\x80\0\0\0\0".to_vec()),
            Kind::Trickler(websocket(b""), b"\x8a\xfe\0\0\0\0\0".to_vec()),
            Kind::Stalled(sse.clone()),
            Kind::Stalled(clients::upgrade("a", "", None)),
            Kind::Stalled(clients::get("a", "?after=earliest&wait=0", "").repeat(50)),
            Kind::Flooder { bytes: healthz().repeat(50), reads: true },
            Kind::Flooder { bytes: healthz().repeat(50), reads: false },
            Kind::Flooder { bytes: clients::post("x", "", "", b"flood").repeat(50), reads: true },
            Kind::Flooder { bytes: b"\r\n".repeat(100), reads: true },
            Kind::Flooder { bytes: sse.repeat(50), reads: false },
            Kind::Resetter(half(&post)),
            Kind::Resetter(sse.clone()),
            Kind::Resetter(websocket(b"\x82\xff\0\0")),
            Kind::HalfCloser(half(&post)),
            Kind::HalfCloser(sse),
            Kind::HalfCloser(websocket(b"")),
            Kind::HalfCloser(Vec::new()),
            Kind::Announcer(
                b"POST /channels/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000000000000\r\n\r\n".to_vec(),
            ),
            Kind::Announcer([&chunked[..], b"ffffffffffffffff\r\n"].concat()),
            Kind::Announcer([&chunked[..], b"7fffffffffffffff\r\nx"].concat()),
            Kind::Announcer(websocket(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0")),
            Kind::Announcer(websocket(b"\x82\xff\0\0\0\0\0\x03\xff\xff\0\0\0\0")),
            Kind::Announcer(clients::post("x", "", "", &[b'x'; 200 * KIB])[..200].to_vec()),
        ]
    }
}

impl Hostile {
    pub fn new(kind: Kind) -> Hostile {
        Hostile { kind, wire: None, steps: 0 }
    }

    /// Its connection, once it has one.
    pub fn wire(&self) -> Option<Wire> {
        self.wire
    }

    pub fn step(&mut self, server: &mut Server) {
        let kernel = server.kernel();
        let first = self.wire.is_none();
        let wire = *self.wire.get_or_insert_with(|| kernel.connect());
        match &self.kind {
            Kind::Trickler(begin, rest) => {
                let next = rest[self.steps % rest.len()];
                kernel.send(wire, if first { begin } else { std::slice::from_ref(&next) });
                self.steps += usize::from(!first);
                kernel.receive(wire, usize::MAX);
            }
            Kind::Stalled(bytes) | Kind::Announcer(bytes) if first => {
                kernel.send(wire, bytes);
            }
            Kind::Stalled(_) => {}
            Kind::Announcer(_) => {
                kernel.receive(wire, usize::MAX);
            }
            Kind::Flooder { bytes, reads } => {
                kernel.send(wire, bytes);
                if *reads {
                    kernel.receive(wire, usize::MAX);
                }
            }
            Kind::Resetter(bytes) if first => {
                kernel.send(wire, bytes);
            }
            Kind::Resetter(_) => {
                kernel.reset(wire);
                self.wire = None;
            }
            Kind::HalfCloser(bytes) => {
                kernel.send(wire, bytes);
                kernel.half_close(wire);
                kernel.receive(wire, usize::MAX);
            }
        }
    }

    /// True if the server has let go of it.
    pub fn is_ended(&self, server: &mut Server) -> bool {
        self.wire.is_none_or(|wire| server.kernel().is_released(wire))
    }
}
