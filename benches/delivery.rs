//! What a delivery costs the server itself: the whole event loop over a system that takes every
//! byte at once and throws it away. What is measured is everything but the kernel.
//!
//! ```text
//! cargo bench --bench delivery [-- [SUBSCRIBERS...]]
//! ```
//!
//! A line per form and load: nanoseconds of this thread, sends and bytes per delivery. Sends must
//! be 1.00 for single messages and 0.10 for bursts of ten: one write per subscriber and turn.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tidings::Config;
use tidings::internals::{Event, EventLoop, Now, Os, Parts, Process};

/// How many deliveries one line is the mean of, about.
const DELIVERIES: usize = 4_000_000;
/// Bytes of a message.
const PAYLOAD: [u8; 128] = [b'x'; 128];

fn main() {
    // cargo adds flags of its own, `--bench` at least.
    let wished: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let counts = if wished.is_empty() { vec![1_000, 100_000] } else { wished };
    println!("form            load                    subscribers   ns/delivery   sends/delivery   bytes/delivery");
    for subscribers in counts {
        for (form, request) in FORMS {
            for load in &LOADS {
                let cost = measure(&request.replace("{set}", &load.channels.join(",")), subscribers, load);
                println!(
                    "{form:<15} {:<23} {subscribers:>11} {:>13.1} {:>16.2} {:>16.1}",
                    load.name, cost.nanoseconds, cost.sends, cost.bytes
                );
            }
        }
    }
}

/// What is published at once: so many messages, to these channels in turn.
struct Load {
    name: &'static str,
    messages: usize,
    channels: &'static [&'static str],
}

const LOADS: [Load; 3] = [
    Load { name: "one message", messages: 1, channels: &["a"] },
    Load { name: "ten in one turn", messages: 10, channels: &["a"] },
    Load { name: "ten over two channels", messages: 10, channels: &["a", "b"] },
];

const FORMS: [(&str, &str); 4] = [
    ("SSE raw", "GET /channels/{set}?transport=sse HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("SSE json", "GET /channels/{set}?transport=sse&format=json HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (
        "WebSocket json",
        "GET /channels/{set} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
    (
        "WebSocket raw",
        "GET /channels/{set} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: tidings.raw\r\n\r\n",
    ),
];

/// Means over one delivery.
struct Cost {
    nanoseconds: f64,
    sends: f64,
    bytes: f64,
}

fn measure(request: &str, subscribers: usize, load: &Load) -> Cost {
    let mut config = Config::default();
    config.connections_max = subscribers + 1;
    let mut event_loop = EventLoop::new(Sink::default(), config, Parts::default()).expect("the policy is empty");
    // The publisher is socket 0; its own answers do not count.
    event_loop.os().connect(1, request);
    run(&mut event_loop);
    event_loop.os().connect(subscribers, request);
    run(&mut event_loop);
    let post = |channel: &&str| {
        let length = PAYLOAD.len();
        let head = format!("POST /channels/{channel} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), &PAYLOAD].concat()
    };
    let posts: Vec<u8> = load.channels.iter().cycle().take(load.messages).flat_map(post).collect();
    // Once for the buffers to grow.
    publish(&mut event_loop, &posts);

    let rounds = DELIVERIES.div_ceil(subscribers * load.messages);
    let deliveries = (rounds * load.messages * subscribers) as f64;
    (event_loop.os().sends, event_loop.os().bytes) = (0, 0);
    let begin = thread_nanoseconds();
    for _ in 0..rounds {
        publish(&mut event_loop, &posts);
    }
    let elapsed = thread_nanoseconds() - begin;
    let os = event_loop.os();
    Cost {
        nanoseconds: elapsed as f64 / deliveries,
        sends: os.sends as f64 / deliveries,
        bytes: os.bytes as f64 / deliveries,
    }
}

/// What this thread has used of a processor, so that other work on the machine does not count;
/// where the system does not tell, the time gone by.
fn thread_nanoseconds() -> u64 {
    // proc(5): "time spent on the cpu", the first of three numbers.
    let used = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let used = used.and_then(|text| text.split(' ').next()?.parse().ok());
    used.unwrap_or_else(|| {
        static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
    })
}

fn publish(event_loop: &mut EventLoop<Sink>, posts: &[u8]) {
    event_loop.os().post(posts);
    run(event_loop);
}

/// Turns until there is nothing left to do.
fn run(event_loop: &mut EventLoop<Sink>) {
    while event_loop.turn(Some(Duration::ZERO)).expect("a wait that cannot fail").more || event_loop.os().has_events() {
    }
}

/// A system whose clients say one thing each and take everything.
#[derive(Default)]
struct Sink {
    /// Clients that wait to be accepted, and what each of them then says.
    backlog: usize,
    request: Vec<u8>,
    /// What the next read of a socket gives: nothing, the request, or the posts.
    inputs: Vec<Input>,
    posts: Vec<u8>,
    events: Vec<Event>,
    sends: u64,
    bytes: u64,
}

#[derive(Copy, Clone, PartialEq)]
enum Input {
    Nothing,
    Request,
    Posts,
}

const PUBLISHER: u32 = 0;

impl Sink {
    fn connect(&mut self, clients: usize, request: &str) {
        self.backlog += clients;
        self.request = request.as_bytes().to_vec();
        self.events.push(Event::Listener(0));
    }

    fn post(&mut self, posts: &[u8]) {
        self.posts.clear();
        self.posts.extend_from_slice(posts);
        self.inputs[PUBLISHER as usize] = Input::Posts;
        self.events.push(readable(PUBLISHER));
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }
}

fn readable(index: u32) -> Event {
    Event::Socket { index, readable: true, writable: true, read_closed: false }
}

impl Os for Sink {
    fn wait(&mut self, _: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.append(&mut self.events);
        Ok(())
    }

    /// Time stands still: no heartbeat, no ping, no end of a message's age.
    fn now(&mut self) -> Now {
        Now { monotonic_ms: 1000, wall_ms: 1_764_000_000_000 }
    }

    fn elapsed_us(&mut self) -> u64 {
        0
    }

    fn process(&mut self) -> Process {
        Process::default()
    }

    fn random(&mut self) -> u64 {
        0x9e37_79b9_7f4a_7c15
    }

    fn accept(&mut self, _: usize, index: u32) -> io::Result<Option<IpAddr>> {
        self.backlog = self.backlog.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        assert_eq!(index as usize, self.inputs.len(), "no connection ends, so indexes are dense");
        self.inputs.push(if index == PUBLISHER { Input::Nothing } else { Input::Request });
        self.events.push(readable(index));
        Ok(None)
    }

    fn refuse(&mut self, _: usize, _: &[u8]) -> io::Result<()> {
        unreachable!("there is no end of descriptors");
    }

    fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = match std::mem::replace(&mut self.inputs[index as usize], Input::Nothing) {
            Input::Nothing => return Err(io::ErrorKind::WouldBlock.into()),
            Input::Request => &self.request,
            Input::Posts => &self.posts,
        };
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<usize> {
        if index != PUBLISHER {
            self.sends += 1;
            self.bytes += bytes.len() as u64;
        }
        Ok(bytes.len())
    }

    fn shutdown_write(&mut self, index: u32) {
        unreachable!("{index} has nothing to be refused for");
    }

    fn close(&mut self, index: u32) {
        unreachable!("{index} has nothing to be refused for");
    }

    fn close_listeners(&mut self) {}
}
