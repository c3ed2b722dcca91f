//! Who is idle costs nothing: beside thousands of idle connections a request takes the same system
//! calls as beside a few. Heartbeats are the exception, and a busy second of them is four wakes.
//!
//! How many instructions a turn takes beside so many is counted by `benches/instructions`.

mod clients;
mod kernel;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use kernel::{Kernel, Wire};
use tidings::internals::{Config, Event, EventLoop, Now, Os, Parts, Process};

type Calls = BTreeMap<&'static str, usize>;

/// A kernel that counts what it is asked.
struct Counted {
    kernel: Kernel,
    calls: Calls,
}

impl Counted {
    fn count(&mut self, call: &'static str) -> &mut Kernel {
        *self.calls.entry(call).or_default() += 1;
        &mut self.kernel
    }
}

impl Os for Counted {
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.count("wait").wait(timeout, events)
    }
    fn now(&mut self) -> Now {
        self.count("now").now()
    }
    fn elapsed_us(&mut self) -> u64 {
        self.count("elapsed").elapsed_us()
    }
    fn process(&mut self) -> Process {
        self.count("process").process()
    }
    fn random(&mut self) -> u64 {
        self.count("random").random()
    }
    fn accept(&mut self, listener: usize, index: u32) -> io::Result<Option<IpAddr>> {
        self.count("accept").accept(listener, index)
    }
    fn refuse(&mut self, listener: usize, answer: &[u8]) -> io::Result<()> {
        self.count("refuse").refuse(listener, answer)
    }
    fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        self.count("read").read(index, buffer)
    }
    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<usize> {
        self.count("write").write(index, bytes)
    }
    fn shutdown_write(&mut self, index: u32) {
        self.count("shutdown").shutdown_write(index);
    }
    fn close(&mut self, index: u32) {
        self.count("close").close(index);
    }
    fn close_listeners(&mut self) {
        self.count("close_listeners").close_listeners();
    }
}

/// A server and its idle clients, each of which has had its answer's head.
fn beside(requests: &[Vec<u8>]) -> (EventLoop<Counted>, Vec<Wire>) {
    let os = Counted { kernel: Kernel::new(1), calls: Calls::new() };
    let mut server = EventLoop::new(os, Config::default(), Parts::default()).expect("the default names are names");
    let mut wires = Vec::new();
    for request in requests {
        let wire = server.os().kernel.connect();
        server.os().kernel.send(wire, request);
        wires.push(wire);
    }
    rest(&mut server);
    wires.iter().for_each(|&wire| drop(server.os().kernel.receive(wire, usize::MAX)));
    assert_eq!(server.engine().stats().connections, requests.len());
    (server, wires)
}

/// Turns until nothing is left over and nothing has arrived.
fn rest(server: &mut EventLoop<Counted>) {
    let mut quiet = 0;
    while quiet < 2 {
        let before = server.os_ref().calls.get("read").copied();
        let more = server.turn(Some(Duration::ZERO)).expect("no fault").more;
        let is_quiet = !more && server.os_ref().calls.get("read").copied() == before;
        quiet = if is_quiet { quiet + 1 } else { 0 };
    }
}

fn a_third_each(count: usize) -> Vec<Vec<u8>> {
    let requests = [
        clients::upgrade("quiet", "", None),
        clients::get("quiet", "", "Accept: text/event-stream\r\n"),
        clients::get("quiet", "?wait=60", ""),
    ];
    requests.into_iter().cycle().take(count).collect()
}

#[test]
fn a_request_takes_the_same_calls_beside_few_and_many() {
    let calls = [3, 30, 3000].map(|count| {
        let (mut server, _) = beside(&a_third_each(count));
        server.os().calls.clear();
        let visitor = server.os().kernel.connect();
        for request in [clients::post("news", "", "", b"hello"), clients::get("news", "?after=earliest", "")] {
            server.os().kernel.send(visitor, &request);
            rest(&mut server);
            let answer = server.os().kernel.receive(visitor, usize::MAX);
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        }
        std::mem::take(&mut server.os().calls)
    });
    assert_eq!(calls[0]["write"], 2, "{:?}", calls[0]);
    assert_eq!(calls[0], calls[1]);
    assert_eq!(calls[0], calls[2]);
}

#[test]
fn heartbeats_are_one_write_each_and_at_most_four_wakes_a_second() {
    for count in [3, 3000] {
        let streams = vec![clients::get("quiet", "", "Accept: text/event-stream\r\n"); count];
        let (mut server, wires) = beside(&streams);
        server.os().calls.clear();
        let begin_ms = server.os().kernel.now_ms();
        while server.os().kernel.now_ms() < begin_ms + 60_000 {
            server.turn(None).expect("no fault");
            server.check_invariants();
        }
        let calls = std::mem::take(&mut server.os().calls);
        assert!(calls["now"] <= 4 * 60 + 1, "a wake each: {count} streams: {calls:?}");
        assert!(calls["wait"] <= 2 * calls["now"], "{count} streams: {calls:?}");
        // The first within 15 s, the next 15 s after it, or a raster of 250 ms later.
        assert!((3 * count..=4 * count + count).contains(&calls["write"]), "{count} streams: {calls:?}");
        assert_eq!(calls.get("read"), None, "nobody said anything");
        for wire in wires {
            let heard = server.os().kernel.receive(wire, usize::MAX);
            let beats = heard.split(|&byte| byte == b'\n').filter(|line| line == b":").count();
            assert!((3..=5).contains(&beats), "{count} streams: {}", String::from_utf8_lossy(&heard));
        }
    }
}
