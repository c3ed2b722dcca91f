//! Every system call of a busy run fails once, and again for ever after, with each errno that its
//! manual lists: nobody panics, the loop does not spin, nothing is left over, the rest is served.

mod clients;
mod kernel;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use clients::TEXT;
use kernel::{Kernel, Wire};
use tidings::internals::{Config, Event, EventLoop, Now, Os, Parts, Process};

const EINTR: i32 = 4;
/// A call that is interrupted is repeated; the system does not do that for ever.
const INTERRUPTIONS_MAX: u64 = 50;
/// More turns than the script ever takes.
const TURNS_MAX: u64 = 3000;

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
        self.fails("wait")?;
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

/// A client, and all that it heard.
struct Client {
    wire: Wire,
    heard: Vec<u8>,
}

/// A server over calls that fail, and its clients.
struct Scene {
    server: EventLoop<Failing>,
    clients: Vec<Client>,
    plan: Option<Plan>,
    turns: u64,
}

/// One of everything: each transport, publishes each way, a slow reader, a refusal for want of a
/// descriptor, and the end. Says how often each call was made.
fn script(plan: Option<Plan>) -> BTreeMap<&'static str, u64> {
    let mut scene = Scene::new(plan);
    let requests = [
        clients::get("a", "?wait=60", ""),
        clients::get("a", "", "Accept: text/event-stream\r\n"),
        clients::upgrade("a,b", "", Some("tidings.v1")),
        clients::get("a", "?after=earliest&wait=0", ""),
        clients::upgrade("a", "", None),
        clients::get("nothing/there", "", ""),
    ];
    for request in &requests {
        scene.connect(request);
        scene.run(100, true);
    }
    for nth in 0..6 {
        scene.connect(&clients::post("a", "", "", format!("m{nth} {}", "x".repeat(90)).as_bytes()));
        scene.send(2, &clients::client_frame(TEXT, b"publish b\nhello"));
        scene.send(4, &clients::client_frame(TEXT, b"hello"));
        // Nobody reads for a moment: what is half out is pinned.
        scene.run(60, nth % 2 == 0);
    }
    scene.kernel().accept_errors.push_back(24);
    scene.connect(b"");
    scene.run(5000, true);
    scene.serves_the_rest();
    if plan.is_none_or(|plan| !plan.for_ever) {
        scene.serves_newcomers();
    }
    scene.leaves()
}

impl Scene {
    fn new(plan: Option<Plan>) -> Scene {
        let mut config = Config::default();
        config.heartbeat = Duration::from_secs(2);
        config.ping = Duration::from_secs(2);
        config.drain = Duration::from_secs(1);
        config.stall_timeout = Duration::from_secs(5);
        let mut kernel = Kernel::new(1);
        kernel.has_reserve = true;
        kernel.send_buffer = 300;
        let failing = Failing { kernel, plan, calls: BTreeMap::new(), failed: 0 };
        let server = EventLoop::new(failing, config, Parts::default()).expect("the default names are names");
        Scene { server, clients: Vec::new(), plan, turns: 0 }
    }

    fn kernel(&mut self) -> &mut Kernel {
        &mut self.server.os().kernel
    }

    fn connect(&mut self, request: &[u8]) {
        let wire = self.kernel().connect();
        self.kernel().send(wire, request);
        self.clients.push(Client { wire, heard: Vec::new() });
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        let wire = self.clients[client].wire;
        self.kernel().send(wire, bytes);
    }

    /// One turn; true if the server has left. A wait that fails is told, and the next may be well.
    fn turn(&mut self) -> bool {
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "{:?}: the loop spins", self.plan);
        let turn = self.server.turn(Some(Duration::from_millis(20)));
        self.server.check_invariants();
        match (turn, self.plan) {
            (Ok(turn), _) => turn.stopped,
            (Err(error), Some(Plan { call: "wait", errno, .. })) if error.raw_os_error() == Some(errno) => false,
            (Err(error), plan) => panic!("{plan:?}: only a failing wait ends the loop, not {error}"),
        }
    }

    fn hear(&mut self) {
        for client in &mut self.clients {
            client.heard.extend(self.server.os().kernel.receive(client.wire, usize::MAX));
        }
    }

    /// Turns for this long, each of the clients reading what there is, if they read.
    fn run(&mut self, ms: u64, reading: bool) {
        let end_ms = self.kernel().now_ms() + ms;
        while self.kernel().now_ms() < end_ms {
            self.turn();
            if reading {
                self.hear();
            }
        }
    }

    /// Whatever failed, who subscribed and is still connected hears what is published now.
    fn serves_the_rest(&mut self) {
        self.send(2, &clients::client_frame(TEXT, b"publish a\nlast words"));
        self.run(200, true);
        let subscribed = |client: &Client| client.heard.starts_with(b"HTTP/1.1 ") && client.heard.len() > 100;
        let said = |client: &Client| client.heard.windows(10).any(|bytes| bytes == b"last words");
        let publishes = self.server.os().kernel.ending(self.clients[2].wire).is_none() && subscribed(&self.clients[2]);
        for nth in [1, 2, 4] {
            let lives = self.server.os().kernel.ending(self.clients[nth].wire).is_none();
            let client = &self.clients[nth];
            assert!(self.plan.is_some() || lives && subscribed(client), "without a failure they are all there");
            if publishes && lives && subscribed(client) {
                assert!(said(client), "{:?}: client {nth} heard {}", self.plan, String::from_utf8_lossy(&client.heard));
            }
        }
    }

    /// Who comes now is served, unless the call that fails is one of its own.
    fn serves_newcomers(&mut self) {
        let late = self.kernel().connect_reliably();
        self.kernel().send(late, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.run(800, true);
        let answer = self.kernel().receive(late, usize::MAX);
        let was_struck = self.plan.is_some() && self.kernel().ending(late).is_some();
        let is_served = answer.starts_with(b"HTTP/1.1 200 ");
        assert!(is_served || was_struck, "{:?}: {}", self.plan, String::from_utf8_lossy(&answer));
    }

    /// The server leaves in time, and nothing is left over.
    fn leaves(mut self) -> BTreeMap<&'static str, u64> {
        self.server.drain();
        let end_ms = self.kernel().now_ms() + 10_000;
        while !self.turn() {
            assert!(self.kernel().now_ms() < end_ms, "{:?}: it does not leave", self.plan);
            self.hear();
        }
        let stats = self.server.engine().stats();
        assert_eq!((stats.intake_bytes, stats.output_bytes, stats.websockets), (0, 0, 0), "{:?}: {stats:?}", self.plan);
        assert_eq!((stats.event_streams, stats.polls), (0, 0), "{:?}: {stats:?}", self.plan);
        let os = self.server.os();
        assert!(os.plan.is_none_or(|plan| plan.for_ever || os.failed == 1), "{:?} failed {} times", os.plan, os.failed);
        std::mem::take(&mut os.calls)
    }
}

/// Each of these calls fails once with each of these errnos, and from then on.
fn each_fails(call: &'static str, errnos: &[i32], for_evers: &[bool]) {
    let calls = script(None);
    let made = calls.get(call).copied().unwrap_or_default();
    assert!(made > 0, "the script makes no {call}");
    for nth in 1..=made {
        for &errno in errnos {
            for &for_ever in for_evers {
                script(Some(Plan { call, nth, errno, for_ever }));
            }
        }
    }
    println!("{call}: {} runs", made as usize * errnos.len() * for_evers.len());
}

// The errnos of the manuals on Linux. EAGAIN is no failure, and EBADF, EFAULT, EINVAL and ENOTSOCK are
// mistakes of the caller; of a wait there are no others.

#[test]
fn accept_fails() {
    // accept(2), the errors of the network that it passes on, and epoll_ctl(2): ENOSPC.
    let errnos = [1, 4, 12, 23, 24, 28, 63, 64, 71, 92, 93, 94, 95, 100, 101, 103, 105, 110, 112, 113];
    each_fails("accept", &errnos, &[false, true]);
}

#[test]
fn refuse_fails() {
    each_fails("refuse", &[1, 4, 12, 23, 24, 71, 100, 103, 105, 110, 113], &[false, true]);
}

#[test]
fn read_fails() {
    // recv(2), read(2), tcp(7)
    each_fails("read", &[4, 5, 12, 101, 104, 107, 110, 111, 113], &[false, true]);
}

#[test]
fn write_fails() {
    // send(2), write(2), tcp(7)
    let errnos = [1, 4, 5, 12, 13, 27, 28, 32, 89, 90, 95, 101, 104, 105, 106, 107, 110, 113, 114, 122];
    each_fails("write", &errnos, &[false, true]);
}

/// `turn` tells it, and whoever turns again finds all as it was.
#[test]
fn wait_fails() {
    each_fails("wait", &[9, 22], &[false]);
}
