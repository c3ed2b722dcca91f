//! What a subscriber costs, from a thousand of them to a million in one process: memory, time to
//! open, time of a broadcast, time of a turn that concerns nobody.
//!
//! `cargo bench --bench million [-- COUNT...]`. The sockets are a table that answers reads with
//! prepared requests and counts what is written: so what is measured is the server alone.

#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tidings::internals::{Config, Event, EventLoop, Now, Os, Parts, Process};

/// Over so many channels the subscribers are spread evenly.
const CHANNELS: usize = 1000;
/// Of this size are the messages.
const MESSAGE_BYTES: usize = 100;

/// Sockets whose other ends have sent one request each, and count what they get.
#[derive(Default)]
struct Sockets {
    /// What the next connections have sent, oldest first.
    coming: VecDeque<Vec<u8>>,
    /// What is there to read, by index.
    input: Vec<Vec<u8>>,
    ready: Vec<u32>,
    now_ms: u64,
    random: u64,
    writes: u64,
    bytes: u64,
    /// FNV-1a over a byte of each write, so that nothing is thrown away unseen.
    hash: u64,
}

impl Os for Sockets {
    fn wait(&mut self, _timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.now_ms += 1;
        if !self.coming.is_empty() {
            events.push(Event::Listener(0));
        }
        let readable = |index| Event::Socket { index, readable: true, writable: false, read_closed: false };
        events.extend(self.ready.drain(..).map(readable));
        Ok(())
    }

    fn now(&mut self) -> Now {
        Now { monotonic_ms: self.now_ms, wall_ms: 1_764_000_000_000 + self.now_ms }
    }

    fn elapsed_us(&mut self) -> u64 {
        self.now_ms * 1000
    }

    fn process(&mut self) -> Process {
        Process::default()
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random
    }

    fn accept(&mut self, _listener: usize, index: u32) -> io::Result<Option<IpAddr>> {
        let request = self.coming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        if self.input.len() <= index as usize {
            self.input.resize_with(index as usize + 1, Vec::new);
        }
        self.input[index as usize] = request;
        self.ready.push(index);
        Ok(None)
    }

    fn refuse(&mut self, _listener: usize, _answer: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        let input = std::mem::take(&mut self.input[index as usize]);
        if input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..input.len()].copy_from_slice(&input);
        Ok(input.len())
    }

    fn write(&mut self, _index: u32, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        self.bytes += bytes.len() as u64;
        self.hash = (self.hash ^ u64::from(bytes[bytes.len() / 2])).wrapping_mul(0x100_0000_01b3);
        Ok(bytes.len())
    }

    fn shutdown_write(&mut self, _index: u32) {}
    fn close(&mut self, _index: u32) {}
    fn close_listeners(&mut self) {}
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test` runs this too, and must not take long.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let counts: Vec<usize> = arguments.iter().filter_map(|word| word.parse().ok()).collect();
    let counts = match counts[..] {
        [] if arguments.iter().any(|word| word == "--bench") => vec![1_000, 10_000, 100_000, 1_000_000],
        [] => vec![1_000],
        _ => counts,
    };
    println!(
        "{:>11} {:>9} {:>9} {:>14} {:>13} {:>12} {:>10}",
        "subscribers", "bytes", "open us", "one channel us", "ns / delivery", "idle turn ns", "writes"
    );
    for count in counts {
        measure(count);
    }
}

/// A third each of WebSockets, event streams and held polls.
fn request(nth: usize) -> Vec<u8> {
    let channel = nth / 3 % CHANNELS;
    let (query, lines) = match nth % 3 {
        0 => (
            "",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        1 => ("", "Accept: text/event-stream\r\n"),
        _ => ("?wait=120", ""),
    };
    format!("GET /channels/channel.{channel}{query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
}

fn publish(channel: usize) -> Vec<u8> {
    let payload = "x".repeat(MESSAGE_BYTES);
    format!(
        "POST /channels/channel.{channel} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MESSAGE_BYTES}\r\n\r\n{payload}"
    )
    .into_bytes()
}

fn measure(count: usize) {
    let mut config = Config::default();
    config.connections_max = count + 10;
    let mut server = EventLoop::new(Sockets::default(), config, Parts::default()).expect("the default names are names");
    let before = resident_bytes();
    let began = Instant::now();
    for nth in 0..count {
        server.os().coming.push_back(request(nth));
        if nth % 1000 == 999 {
            rest(&mut server);
        }
    }
    rest(&mut server);
    let open = began.elapsed();
    // What the sockets of this benchmark take is not the server's.
    let own = (server.os_ref().input.capacity() * size_of::<Vec<u8>>()) as u64;
    let bytes = (resident_bytes() - before).saturating_sub(own) / count as u64;
    assert_eq!(server.engine().stats().connections, count, "everybody is there");

    // The publisher stays, and polls are answered once: so each channel hears once.
    let publishers = server.os_ref().input.len();
    server.os().coming.push_back(Vec::new());
    rest(&mut server);
    let publisher = publishers as u32;
    let heard = CHANNELS.min(count / 3);
    let writes = server.os_ref().writes;
    let began = Instant::now();
    for channel in 0..heard {
        server.os().input[publisher as usize] = publish(channel);
        server.os().ready.push(publisher);
        rest(&mut server);
    }
    let broadcast = began.elapsed();
    // Less the publishers' answers.
    let deliveries = server.os_ref().writes - writes - heard as u64;

    const TURNS: u32 = 10_000;
    let began = Instant::now();
    for _ in 0..TURNS {
        // Time stands still: no heartbeat is due.
        server.os().now_ms -= 1;
        server.turn(Some(Duration::ZERO)).expect("the sockets wait for nothing");
    }
    let idle = began.elapsed() / TURNS;
    println!(
        "{count:>11} {bytes:>9} {:>9.2} {:>14.1} {:>13.0} {:>12} {:>10}",
        open.as_secs_f64() * 1e6 / count as f64,
        broadcast.as_secs_f64() * 1e6 / heard as f64,
        broadcast.as_secs_f64() * 1e9 / deliveries as f64,
        idle.as_nanos(),
        deliveries
    );
}

/// Turns until nothing is left over.
fn rest(server: &mut EventLoop<Sockets>) {
    loop {
        let turn = server.turn(Some(Duration::ZERO)).expect("the sockets wait for nothing");
        let os = server.os_ref();
        if !turn.more && os.coming.is_empty() && os.ready.is_empty() {
            break;
        }
    }
}

/// `VmRSS:     5124 kB`, proc(5); 0 where there is no /proc.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
