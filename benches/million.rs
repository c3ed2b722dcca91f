//! What a subscriber costs, from a thousand of them to a million in one process: memory, to
//! open it, a delivery, a heartbeat; and what a turn costs beside so many that are idle.
//!
//! `cargo bench --bench million [-- COUNT... TRANSPORT...]`; if not told, a third each of `websocket`,
//! `sse` and `poll`. The sockets are a table that answers reads with prepared requests and counts
//! what is written: so what is measured is the server alone. There are always a thousand channels,
//! and a thousand subscribers in each that has any: so a publish is shared by as many in each line,
//! and the lines can be compared.
//!
//! Times wander, and grow with the table: from 100,000 on, what a delivery waits for is memory.
//! `benches/instructions` runs this under callgrind, counts the instructions of each function that
//! is never inlined here, and compares them with `benches/instructions.txt`.

#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tidings::internals::{Config, Event, EventLoop, Now, Os, Parts, Process};

/// So many there are, whoever hears them.
const CHANNELS: usize = 1000;
/// In each channel that has any; neighbours in the table of connections are in different ones.
const SUBSCRIBERS: usize = 1000;
/// Turns of one kind that one figure is the mean of.
const TURNS: usize = 1000;
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
        0
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

const TRANSPORTS: [&str; 3] = ["websocket", "sse", "poll"];

fn request(channel: usize, transport: &str) -> Vec<u8> {
    let (query, lines) = match transport {
        "websocket" => (
            "",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        "sse" => ("", "Accept: text/event-stream\r\n"),
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

fn main() {
    // `cargo bench` passes `--bench`; `cargo test` runs this too, and must not take long.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let counts: Vec<usize> = arguments.iter().filter_map(|word| word.parse().ok()).collect();
    let counts = match counts[..] {
        [] if arguments.iter().any(|word| word == "--bench") => vec![1_000, 10_000, 100_000, 1_000_000],
        [] => vec![SUBSCRIBERS],
        _ => counts,
    };
    let named = |transport: &&str| arguments.iter().any(|word| word == transport);
    let mut transports: Vec<&str> = TRANSPORTS.into_iter().filter(named).collect();
    if transports.is_empty() {
        transports = TRANSPORTS.to_vec();
    }
    println!("                                      nanoseconds of one");
    println!("subscribers  bytes    open  delivery  request beside  empty turn beside  heartbeat  heartbeats");
    for count in counts {
        measure(count, &transports);
    }
}

fn measure(count: usize, transports: &[&str]) {
    let mut config = Config::default();
    config.connections_max = count + 10;
    let mut server = EventLoop::new(Sockets::default(), config, Parts::default()).expect("the default names are names");
    // The one that asks is socket 0, and every channel has had its message.
    server.os().coming.push_back(Vec::new());
    rest(&mut server);
    (0..CHANNELS).for_each(|channel| ask(&mut server, publish(channel)));
    let heard = count.div_ceil(SUBSCRIBERS).min(CHANNELS);

    let before = resident_bytes();
    let (opening, _) = cost(&mut server, |server| open(server, count, heard, transports));
    // What the sockets of this benchmark take is not the server's.
    let own = (server.os_ref().input.capacity() * size_of::<Vec<u8>>()) as u64;
    let bytes = (resident_bytes() - before).saturating_sub(own) / count as u64;
    assert_eq!(server.engine().stats().connections, count + 1, "everybody is there");

    let (empty, writes) = cost(&mut server, empty_turns);
    assert_eq!(writes, 0);
    let (request, writes) = cost(&mut server, requests);
    assert_eq!(writes, TURNS as u64);
    // Polls are answered once, so each channel is heard once.
    let (delivery, writes) = cost(&mut server, |server| broadcast(server, heard));
    assert_eq!(writes, (count + heard) as u64, "everybody heard, and the publisher was answered");
    let (heartbeat, beats) = cost(&mut server, heartbeats);
    println!(
        "{count:>11} {bytes:>6} {:>7} {:>9} {:>15} {:>18} {:>10} {beats:>11}",
        opening / count as u64,
        delivery / count as u64,
        request / TURNS as u64,
        empty / TURNS as u64,
        heartbeat / beats.max(1),
    );
}

/// Nanoseconds gone by, and how often something was written.
fn cost(server: &mut EventLoop<Sockets>, what: impl FnOnce(&mut EventLoop<Sockets>)) -> (u64, u64) {
    let (began, writes) = (Instant::now(), server.os_ref().writes);
    what(server);
    (began.elapsed().as_nanos() as u64, server.os_ref().writes - writes)
}

#[inline(never)]
fn open(server: &mut EventLoop<Sockets>, count: usize, heard: usize, transports: &[&str]) {
    for nth in 0..count {
        let transport = transports[nth / heard % transports.len()];
        server.os().coming.push_back(request(nth % heard, transport));
        if nth % 1000 == 999 {
            rest(server);
        }
    }
    rest(server);
}

/// A message in each of the first channels, one a turn.
#[inline(never)]
fn broadcast(server: &mut EventLoop<Sockets>, channels: usize) {
    for channel in 0..channels {
        ask(server, publish(channel));
    }
}

/// Turns with one request, by a connection that stays.
#[inline(never)]
fn requests(server: &mut EventLoop<Sockets>) {
    for _ in 0..TURNS {
        ask(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec());
    }
}

/// Turns in which nothing happens and nothing is due.
#[inline(never)]
fn empty_turns(server: &mut EventLoop<Sockets>) {
    for _ in 0..TURNS {
        // Time stands still.
        server.os().now_ms -= 1;
        server.turn(Some(Duration::ZERO)).expect("the sockets wait for nothing");
    }
}

/// As much time as brings each event stream a heartbeat, and most WebSockets a ping.
#[inline(never)]
fn heartbeats(server: &mut EventLoop<Sockets>) {
    let end_ms = server.os_ref().now_ms + 20_000;
    while server.os_ref().now_ms < end_ms {
        server.os().now_ms += 49;
        rest(server);
    }
}

/// What the connection that stays asks, and its answer.
fn ask(server: &mut EventLoop<Sockets>, request: Vec<u8>) {
    server.os().input[0] = request;
    server.os().ready.push(0);
    rest(server);
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
