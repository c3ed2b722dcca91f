//! Every system call of a busy run fails once, and again for ever after, with each errno that its
//! manual lists: nobody panics, the loop does not spin, nothing is left over, the rest is served.
//!
//! `TIDINGS_TORTURE=all` fails every call; without it each run of the test takes some of them.

mod clients;
mod kernel;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use clients::TEXT;
use kernel::{Kernel, Wire};
use tidings::internals::{Config, Event, EventLoop, Now, Os, Parts, Process};

/// What may fail, with the errnos of its manual on Linux.
const CALLS: [(&str, &[i32]); 4] = [
    // EAGAIN is no failure, and EBADF, EFAULT, EINVAL and ENOTSOCK are mistakes of the caller.
    ("accept", &[4, 12, 23, 24, 71, 95, 100, 101, 103, 105, 113]),
    ("read", &[4, 5, 12, 104, 107, 110, 111, 113]),
    ("write", &[4, 5, 12, 32, 104, 105, 107, 110, 113]),
    ("refuse", &[12, 23, 24, 103, 105]),
];
const EINTR: i32 = 4;
/// A call that is interrupted is repeated; the system does not do that for ever.
const INTERRUPTIONS_MAX: u64 = 50;
/// More turns than the script ever takes.
const TURNS_MAX: u64 = 3000;
/// Each so many-th call, in an ordinary test.
const STRIDE: usize = 7;

/// What is to fail.
#[derive(Copy, Clone, Debug)]
struct Plan {
    call: &'static str,
    /// From this call on, counted by kind.
    nth: u64,
    errno: i32,
    for_ever: bool,
}

/// A kernel whose calls fail by plan.
struct Failing {
    kernel: Kernel,
    plan: Option<Plan>,
    calls: BTreeMap<&'static str, u64>,
    failed: u64,
}

impl Failing {
    fn fails(&mut self, call: &'static str) -> io::Result<()> {
        let count = self.calls.entry(call).or_default();
        *count += 1;
        let Some(plan) = self.plan.filter(|plan| plan.call == call) else { return Ok(()) };
        let last = match (plan.for_ever, plan.errno) {
            (false, _) => plan.nth,
            (true, EINTR) => plan.nth + INTERRUPTIONS_MAX,
            (true, _) => u64::MAX,
        };
        if (plan.nth..=last).contains(count) {
            self.failed += 1;
            return Err(io::Error::from_raw_os_error(plan.errno));
        }
        Ok(())
    }
}

impl Os for Failing {
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.kernel.wait(timeout, events)
    }
    fn now(&mut self) -> Now {
        self.kernel.now()
    }
    fn elapsed_us(&mut self) -> u64 {
        self.kernel.elapsed_us()
    }
    fn process(&mut self) -> Process {
        self.kernel.process()
    }
    fn random(&mut self) -> u64 {
        self.kernel.random()
    }
    fn accept(&mut self, listener: usize, index: u32) -> io::Result<Option<IpAddr>> {
        self.fails("accept")?;
        self.kernel.accept(listener, index)
    }
    fn refuse(&mut self, listener: usize, answer: &[u8]) -> io::Result<()> {
        self.fails("refuse")?;
        self.kernel.refuse(listener, answer)
    }
    fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        self.fails("read")?;
        self.kernel.read(index, buffer)
    }
    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<usize> {
        self.fails("write")?;
        self.kernel.write(index, bytes)
    }
    fn shutdown_write(&mut self, index: u32) {
        self.kernel.shutdown_write(index);
    }
    fn close(&mut self, index: u32) {
        self.kernel.close(index);
    }
    fn close_listeners(&mut self) {
        self.kernel.close_listeners();
    }
}

/// One of everything: each transport, publishes each way, a slow reader, a refusal for want of a
/// descriptor, and the end. Says how often each call was made.
fn script(plan: Option<Plan>) -> BTreeMap<&'static str, u64> {
    let mut config = Config::default();
    config.heartbeat = Duration::from_secs(2);
    config.ping = Duration::from_secs(2);
    config.drain = Duration::from_secs(1);
    config.stall_timeout = Duration::from_secs(5);
    let mut kernel = Kernel::new(1);
    kernel.has_reserve = true;
    kernel.send_buffer = 300;
    let failing = Failing { kernel, plan, calls: BTreeMap::new(), failed: 0 };
    let mut server = EventLoop::new(failing, config, Parts::default()).expect("the default names are names");
    let mut turns = 0;
    let mut wires: Vec<Wire> = Vec::new();
    let requests = [
        clients::get("a", "?wait=60", ""),
        clients::get("a", "", "Accept: text/event-stream\r\n"),
        clients::upgrade("a,b", "", Some("tidings.v1")),
        clients::get("a", "?after=earliest&wait=0", ""),
        clients::upgrade("a", "", None),
        clients::get("nothing/there", "", ""),
    ];
    for request in &requests {
        let wire = server.os().kernel.connect();
        server.os().kernel.send(wire, request);
        wires.push(wire);
        run(&mut server, &wires, 100, &mut turns);
    }
    for nth in 0..6 {
        let publisher = server.os().kernel.connect();
        server
            .os()
            .kernel
            .send(publisher, &clients::post("a", "", "", format!("m{nth} {}", "x".repeat(90)).as_bytes()));
        wires.push(publisher);
        server.os().kernel.send(wires[2], &clients::client_frame(TEXT, b"publish b\nhello"));
        server.os().kernel.send(wires[4], &clients::client_frame(TEXT, b"hello"));
        // Nobody reads for a moment: what is half out is pinned.
        let readers = if nth % 2 == 0 { &wires[..] } else { &[] };
        run(&mut server, readers, 60, &mut turns);
    }
    server.os().kernel.accept_errors.push_back(24);
    let refused = server.os().kernel.connect();
    run(&mut server, &wires, 5000, &mut turns);
    wires.push(refused);
    // Whatever failed, who comes now is served, unless it fails still.
    if plan.is_none_or(|plan| !plan.for_ever) {
        let late = server.os().kernel.connect_reliably();
        let mut answer = Vec::new();
        for _ in 0..40 {
            server
                .os()
                .kernel
                .send(late, if answer.is_empty() { b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" } else { b"" });
            run(&mut server, &wires, 20, &mut turns);
            answer.extend(server.os().kernel.receive(late, usize::MAX));
            if !answer.is_empty() {
                break;
            }
        }
        let was_struck = plan.is_some_and(|_| server.os().kernel.ending(late).is_some());
        assert!(answer.starts_with(b"HTTP/1.1 200 ") || was_struck, "{plan:?}: {}", String::from_utf8_lossy(&answer));
    }
    server.drain();
    let end_ms = server.os().kernel.now_ms() + 10_000;
    loop {
        turns += 1;
        if server.turn(Some(Duration::from_millis(20))).expect("only a failing wait ends the loop").stopped {
            break;
        }
        server.check_invariants();
        assert!(server.os().kernel.now_ms() < end_ms && turns < TURNS_MAX, "{plan:?}: it does not leave");
        for &wire in &wires {
            server.os().kernel.receive(wire, usize::MAX);
        }
    }
    let stats = server.engine().stats();
    assert_eq!((stats.intake_bytes, stats.output_bytes, stats.websockets), (0, 0, 0), "{plan:?}: {stats:?}");
    assert_eq!((stats.event_streams, stats.polls), (0, 0), "{plan:?}: {stats:?}");
    std::mem::take(&mut server.os().calls)
}

/// Turns for this long, each of these clients reading what there is.
fn run(server: &mut EventLoop<Failing>, readers: &[Wire], ms: u64, turns: &mut u64) {
    let end_ms = server.os().kernel.now_ms() + ms;
    while server.os().kernel.now_ms() < end_ms {
        *turns += 1;
        assert!(*turns < TURNS_MAX, "{:?}: the loop spins", server.os().plan);
        server.turn(Some(Duration::from_millis(20))).expect("only a failing wait ends the loop");
        server.check_invariants();
        for &wire in readers {
            server.os().kernel.receive(wire, usize::MAX);
        }
    }
}

#[test]
fn each_call_fails_once_and_for_ever() {
    let calls = script(None);
    let whole = std::env::var_os("TIDINGS_TORTURE").is_some();
    let mut runs = 0;
    for (kind, &(call, errnos)) in CALLS.iter().enumerate() {
        let made = calls.get(call).copied().unwrap_or_default();
        assert!(made > 0, "the script makes no {call}");
        let mut case = kind;
        for nth in 1..=made {
            for &errno in errnos {
                for for_ever in [false, true] {
                    case += 1;
                    if whole || case % STRIDE == 0 {
                        script(Some(Plan { call, nth, errno, for_ever }));
                        runs += 1;
                    }
                }
            }
        }
    }
    println!("{calls:?}: {runs} runs");
    assert!(runs > 50);
}
