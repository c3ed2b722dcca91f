//! A kernel that fits in a test: sockets, readiness and clocks from a seed.
//!
//! It answers `Os` the way Linux answers through epoll with edge triggers: an edge comes only
//! when bytes, space, an end or an error newly arrive, and never again for what is still there.
//! From its seed it adds what a real kernel does on a bad day (`Fault`). Time is virtual: it
//! passes only inside `wait`, and only when nothing is due.
//!
//! It knows nothing of HTTP or of the engine behind `Os`. Same seed and same calls, same answers:
//! `trace_hash` is a hash of every one of them.
//!
//! To add a fault: `faults.rs`.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

pub mod faults;
mod rng;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings::internals::{Event, Now, Os, Process};

use faults::{EINTR, EMFILE};
pub use faults::{Fault, Faults};
pub use rng::Rng;

/// A connection, named by the order of `connect`; never used twice.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wire(usize);

/// How a connection ended for the client, once it has read what came before.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server ended its sending side.
    Closed,
    /// The connection was torn down; bytes on their way may be lost.
    Reset,
}

/// The kernel. The engine sees it as `Os`, the clients as wires.
pub struct Kernel {
    pub faults: Faults,
    /// Bytes the server may have in flight to a client of a wire connected from now on.
    pub send_buffer: usize,
    /// Bytes a client may have in flight to the server.
    pub receive_buffer: usize,
    /// How long each turn seems to take.
    pub reading_us: u64,
    /// The address of who connects from now on.
    pub peer: IpAddr,
    /// In the next waits the process is stopped for so long: before it is told anything.
    pub stops: VecDeque<u64>,
    /// What the next accepts fail with, first to last: an errno of accept(2).
    pub accept_errors: VecDeque<i32>,
    /// Connections there are descriptors for. Beyond them: EMFILE.
    pub descriptors: usize,
    /// Whether one is held in reserve for who is to be refused.
    pub has_reserve: bool,
    /// What another thread does while the loop waits or is in another call, and whether it then wakes
    /// the loop.
    pub in_calls: VecDeque<Box<dyn FnOnce()>>,
    pub woken: Arc<AtomicBool>,
    /// If the server's work takes time, which passes before its next turn also if that does not wait.
    pub working: Option<Rng>,
    has_worked: bool,
    descriptors_gone_until_ms: u64,
    /// Only so many descriptors there are until then.
    spent: (usize, u64),
    network_down_until_ms: u64,
    accepts: u64,
    waits: u64,
    now_ms: u64,
    paused_ms: u64,
    /// The clock as the server has read it last.
    known_ms: u64,
    wall_leap_ms: i64,
    rng: Rng,
    randomness: Rng,
    connections: Vec<Connection>,
    open: BTreeMap<u32, Wire>,
    closed: Vec<u32>,
    backlog: VecDeque<Wire>,
    listening: bool,
    listener_edge: Option<u64>,
    idle_waits: u32,
    hash: u64,
    trace: Option<Vec<String>>,
}

struct Connection {
    peer: IpAddr,
    up: Pipe,
    down: Pipe,
    index: Option<u32>,
    /// No fault strikes it.
    reliable: bool,
    /// When the next edges are due. An edge is forgotten when it is told.
    read_edge: Option<u64>,
    write_edge: Option<u64>,
    /// Since when the server has met a full pipe, and will be told of space. (Linux: SOCK_NOSPACE.)
    wants_space: Option<u64>,
    /// An event has said that the client ended: no edge will follow for what is left to read.
    end_told: bool,
    server_gone: bool,
    /// When the server let go of it, and how long it had waited for space by then.
    let_go_ms: Option<u64>,
    starved_ms: u64,
    /// The server ended its side although bytes of the client were there to be read.
    left_unread: bool,
    client_gone: bool,
    reset: bool,
    /// A fault, and not its peer or the server, has ended it.
    struck: bool,
    /// It was refused in the place of the descriptor held in reserve.
    refused: bool,
    /// Connections when it was accepted, itself included.
    crowd: usize,
    /// When that was, in time that the process was awake.
    accepted_ms: u64,
    /// Reads and writes still to be interrupted.
    interruptions: u32,
    writes: u64,
}

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    ended: bool,
}

impl Pipe {
    fn space(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len())
    }
}

impl Default for Kernel {
    fn default() -> Kernel {
        Kernel::new(0)
    }
}

impl Kernel {
    /// A kernel without faults; give it some by `faults`.
    pub fn new(seed: u64) -> Kernel {
        Kernel {
            faults: Faults::none(),
            send_buffer: 64 * 1024,
            receive_buffer: 64 * 1024,
            reading_us: 0,
            peer: IpAddr::from([192, 0, 2, 1]),
            stops: VecDeque::new(),
            accept_errors: VecDeque::new(),
            descriptors: usize::MAX,
            has_reserve: false,
            in_calls: VecDeque::new(),
            woken: Arc::default(),
            working: None,
            has_worked: false,
            descriptors_gone_until_ms: 0,
            spent: (0, 0),
            network_down_until_ms: 0,
            accepts: 0,
            waits: 0,
            now_ms: 1,
            paused_ms: 0,
            known_ms: 1,
            wall_leap_ms: 0,
            rng: Rng::new(seed),
            randomness: Rng::new(seed ^ 0x7469_6469_6e67_7321),
            connections: Vec::new(),
            open: BTreeMap::new(),
            closed: Vec::new(),
            backlog: VecDeque::new(),
            listening: true,
            listener_edge: None,
            idle_waits: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            trace: None,
        }
    }

    // What the clients call.

    /// A new connection, waiting to be accepted.
    pub fn connect(&mut self) -> Wire {
        let wire = Wire(self.connections.len());
        self.connections.push(Connection {
            peer: self.peer,
            up: Pipe { capacity: self.receive_buffer, ..Pipe::default() },
            down: Pipe { capacity: self.send_buffer, ..Pipe::default() },
            index: None,
            reliable: false,
            read_edge: None,
            write_edge: None,
            wants_space: None,
            end_told: false,
            server_gone: !self.listening,
            let_go_ms: None,
            starved_ms: 0,
            left_unread: false,
            client_gone: false,
            reset: !self.listening,
            struck: false,
            refused: false,
            crowd: 0,
            accepted_ms: 0,
            interruptions: 0,
            writes: 0,
        });
        if self.listening {
            self.backlog.push_back(wire);
            self.raise_listener();
        }
        wire
    }

    /// A new connection that no fault strikes, with room for everything.
    pub fn connect_reliably(&mut self) -> Wire {
        let wire = self.connect();
        let connection = &mut self.connections[wire.0];
        connection.reliable = true;
        connection.up.capacity = 16 << 20;
        connection.down.capacity = 16 << 20;
        wire
    }

    /// Sends what fits; says how much.
    pub fn send(&mut self, wire: Wire, bytes: &[u8]) -> usize {
        let connection = &mut self.connections[wire.0];
        if connection.server_gone || connection.client_gone || connection.reset || connection.up.ended {
            return 0;
        }
        let taken = bytes.len().min(connection.up.space());
        connection.up.bytes.extend(&bytes[..taken]);
        if taken > 0 {
            self.raise_read(wire);
        }
        taken
    }

    /// Receives at most this many of the bytes that are there.
    pub fn receive(&mut self, wire: Wire, bytes_max: usize) -> Vec<u8> {
        let connection = &mut self.connections[wire.0];
        let taken = bytes_max.min(connection.down.bytes.len());
        let bytes = connection.down.bytes.drain(..taken).collect();
        // Linux tells of space when a third of the buffer is free, not at every byte
        // (sk_stream_write_space).
        if connection.wants_space.is_some() && connection.down.space() * 3 >= connection.down.capacity {
            connection.wants_space = None;
            self.raise_write(wire);
        }
        bytes
    }

    /// `None` while there is something to read, or may be.
    pub fn ending(&self, wire: Wire) -> Option<Ending> {
        let connection = &self.connections[wire.0];
        match connection {
            _ if connection.reset => Some(Ending::Reset),
            _ if connection.down.bytes.is_empty() && connection.down.ended => Some(Ending::Closed),
            _ => None,
        }
    }

    /// Ends the client's sending side; it still reads.
    pub fn half_close(&mut self, wire: Wire) {
        let connection = &mut self.connections[wire.0];
        if !connection.up.ended && !connection.reset {
            connection.up.ended = true;
            self.raise_read(wire);
        }
    }

    /// Closes the client's socket. With unread bytes the kernel resets, as Linux does.
    pub fn close_client(&mut self, wire: Wire) {
        if !self.connections[wire.0].down.bytes.is_empty() {
            return self.reset(wire);
        }
        self.half_close(wire);
        self.connections[wire.0].client_gone = true;
    }

    /// Tears the connection down, for both sides.
    pub fn reset(&mut self, wire: Wire) {
        let connection = &mut self.connections[wire.0];
        connection.reset = true;
        connection.up.bytes.clear();
        connection.down.bytes.clear();
        self.raise_read(wire);
        self.raise_write(wire);
    }

    /// The server's process ends: every connection with it. The listener is open again for the
    /// next one.
    pub fn server_dies(&mut self) {
        for wire in std::mem::take(&mut self.open).into_values().chain(std::mem::take(&mut self.backlog)) {
            self.reset(wire);
            let connection = &mut self.connections[wire.0];
            connection.index = None;
            connection.server_gone = true;
        }
        self.closed.clear();
        self.listening = true;
        self.listener_edge = None;
    }

    /// Faults end, and what was to happen has happened.
    pub fn is_well_again(&mut self) {
        self.faults.stop();
        self.working = None;
        self.descriptors_gone_until_ms = 0;
        self.spent = (0, 0);
        self.network_down_until_ms = 0;
        self.happens_now();
    }

    fn happens_now(&mut self) {
        self.in_calls.drain(..).for_each(|happens| happens());
    }

    /// Another thread is as quick as this one.
    fn may_happen(&mut self) {
        if !self.in_calls.is_empty()
            && self.strikes(None, Fault::ThreadInCall)
            && let Some(happens) = self.in_calls.pop_front()
        {
            happens();
        }
    }

    /// Milliseconds since the start, and then some: the engine's monotonic clock.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The same without the time in which the process stood still.
    pub fn awake_ms(&self) -> u64 {
        self.now_ms - self.paused_ms
    }

    /// How many writes the server has made to this client.
    pub fn writes(&self, wire: Wire) -> u64 {
        self.connections[wire.0].writes
    }

    /// How many accepts the server has tried.
    pub fn accepts(&self) -> u64 {
        self.accepts
    }

    /// How many times the server has waited.
    pub fn waits(&self) -> u64 {
        self.waits
    }

    /// True if a fault has ended this connection: what it was owed may be lost.
    pub fn was_struck(&self, wire: Wire) -> bool {
        self.connections[wire.0].struck
    }

    /// True if this connection was refused unread, for want of a descriptor.
    pub fn was_refused(&self, wire: Wire) -> bool {
        self.connections[wire.0].refused
    }

    /// When this one was accepted, as `awake_ms` counts.
    pub fn accepted_ms(&self, wire: Wire) -> u64 {
        self.connections[wire.0].accepted_ms
    }

    /// How many connections there were when this one was accepted, itself included.
    pub fn crowd(&self, wire: Wire) -> usize {
        self.connections[wire.0].crowd
    }

    /// True if the server holds this connection and has read every byte that was sent over it.
    pub fn is_read(&self, wire: Wire) -> bool {
        let connection = &self.connections[wire.0];
        connection.index.is_some() && connection.up.bytes.is_empty()
    }

    /// True if the client has read every byte that was written to it.
    pub fn is_drained(&self, wire: Wire) -> bool {
        self.connections[wire.0].down.bytes.is_empty()
    }

    /// When the server let go of this connection.
    pub fn let_go_ms(&self, wire: Wire) -> Option<u64> {
        self.connections[wire.0].let_go_ms
    }

    /// How long the server had waited for space when it let go: the client had not read enough for the
    /// kernel to tell of any.
    pub fn starved_ms(&self, wire: Wire) -> u64 {
        self.connections[wire.0].starved_ms
    }

    /// True if the server ended its side although it could have read what the client had sent: by its clock
    /// it was there, and no fault hid it.
    pub fn left_unread(&self, wire: Wire) -> bool {
        self.connections[wire.0].left_unread
    }

    /// True if the server has let go of this connection.
    pub fn is_released(&self, wire: Wire) -> bool {
        self.connections[wire.0].server_gone
    }

    /// Somebody waits to be accepted, and no edge will say so.
    pub fn has_unseen_arrival(&self) -> bool {
        !self.backlog.is_empty() && self.listener_edge.is_none()
    }

    /// A connection that its client has left, that no edge is due for, and that the server holds.
    pub fn leaked(&self) -> Option<Wire> {
        let held = self.open.values().copied();
        held.into_iter().find(|wire| {
            let connection = &self.connections[wire.0];
            (connection.client_gone || connection.reset) && connection.read_edge.is_none()
        })
    }

    /// A hash of every call so far and its answer, and of every byte that was read or written.
    pub fn trace_hash(&self) -> u64 {
        self.hash
    }

    /// Remembers every call as text from now on.
    pub fn keep_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// The calls, one a line.
    pub fn trace(&self) -> String {
        self.trace.iter().flatten().map(|line| format!("{line}\n")).collect()
    }

    /// Adds a line of the test's own to the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let now_ms = self.now_ms;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now_ms:>8} {}", line()));
        }
    }

    // Edges.

    fn raise_read(&mut self, wire: Wire) {
        let due = self.arrival(wire);
        let edge = &mut self.connections[wire.0].read_edge;
        *edge = Some(edge.map_or(due, |earlier| earlier.min(due)));
    }

    fn raise_write(&mut self, wire: Wire) {
        let due = self.arrival(wire);
        let edge = &mut self.connections[wire.0].write_edge;
        *edge = Some(edge.map_or(due, |earlier| earlier.min(due)));
    }

    fn raise_listener(&mut self) {
        let due = if self.strikes(None, Fault::ListenerLate) { self.later() } else { self.now_ms };
        self.listener_edge = Some(self.listener_edge.map_or(due, |earlier| earlier.min(due)));
    }

    /// When the edge of something that arrives now is seen.
    fn arrival(&mut self, wire: Wire) -> u64 {
        if self.strikes(Some(wire), Fault::LateEdge) { self.later() } else { self.now_ms }
    }

    fn later(&mut self) -> u64 {
        self.now_ms + 1 + self.rng.below(LATE_MS_MAX)
    }

    fn strikes(&mut self, wire: Option<Wire>, fault: Fault) -> bool {
        let odds = self.faults.odds[fault as usize];
        let strikes =
            odds > 0 && !wire.is_some_and(|wire| self.connections[wire.0].reliable) && self.rng.one_in(odds.into());
        self.faults.counts[fault as usize] += u64::from(strikes);
        strikes
    }

    fn next_edge_ms(&self) -> Option<u64> {
        let edges = self.open.values().flat_map(|wire| {
            let connection = &self.connections[wire.0];
            [connection.read_edge, connection.write_edge]
        });
        edges.chain([self.listener_edge]).flatten().min()
    }

    /// Tells the edges that are due.
    fn collect(&mut self, events: &mut Vec<Event>) {
        let (now_ms, before) = (self.now_ms, events.len());
        let is_due = |edge: Option<u64>| edge.is_some_and(|due| due <= now_ms);
        if is_due(self.listener_edge) {
            self.listener_edge = None;
            events.push(Event::Listener(0));
        } else if self.listening && self.strikes(None, Fault::ListenerSpurious) {
            events.push(Event::Listener(0));
        }
        if self.strikes(None, Fault::WakeSpurious) {
            events.push(Event::Wake);
        }
        let events_max = if self.strikes(None, Fault::FewEvents) { 1 + self.rng.below(3) as usize } else { usize::MAX };
        let open: Vec<(u32, Wire)> = self.open.iter().map(|(&index, &wire)| (index, wire)).collect();
        for (index, wire) in open {
            if events.len() - before >= events_max {
                break;
            }
            let spurious = self.strikes(Some(wire), Fault::SpuriousEvent);
            let split = self.strikes(Some(wire), Fault::SplitEvent);
            let connection = &mut self.connections[wire.0];
            let (read_due, write_due) = (is_due(connection.read_edge), is_due(connection.write_edge));
            if !read_due && !write_due && !spurious {
                continue;
            }
            // epoll reports the whole state of a socket whose edge it reports.
            let ended = connection.up.ended || connection.reset;
            let readable = read_due || ended || !connection.up.bytes.is_empty() || spurious;
            let writable = write_due || connection.reset || (!split && connection.down.space() > 0);
            if read_due {
                connection.read_edge = None;
            }
            if write_due {
                connection.write_edge = None;
            }
            connection.end_told |= ended;
            if split && readable && writable {
                events.push(Event::Socket { index, readable: false, writable: true, read_closed: false });
                events.push(Event::Socket { index, readable: true, writable: false, read_closed: ended });
            } else {
                events.push(Event::Socket { index, readable, writable, read_closed: ended });
            }
        }
        if !self.closed.is_empty() && self.strikes(None, Fault::StaleEvent) {
            let index = self.rng.pick(&self.closed);
            if !self.open.contains_key(&index) {
                events.push(Event::Socket { index, readable: true, writable: true, read_closed: false });
            }
        }
        if events.len() > 1 && self.strikes(None, Fault::Reordered) {
            self.rng.shuffle(events);
        }
    }

    fn digest(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3); // FNV-1a
        }
    }

    fn record(&mut self, call: u64, wire: u64, answer: u64, line: impl FnOnce() -> String) {
        for value in [call, wire, answer, self.now_ms] {
            self.digest(&value.to_le_bytes());
        }
        self.note(line);
    }

    /// The connection behind an index. A server that names another one is broken.
    fn wire(&self, index: u32, call: &str) -> Wire {
        *self.open.get(&index).unwrap_or_else(|| panic!("{call} of socket {index}, which is not open"))
    }
}

/// Twice the ping interval of the simulation is longer than this and what a turn waits at most: who
/// answers each ping at once is never taken for silent.
const PAUSE_MS_MAX: u64 = 1500;
/// Lines of the trace that a failure shows.
const TRACE_LINES_SHOWN: usize = 400;

/// How late an edge may be.
pub const LATE_MS_MAX: u64 = 30;
/// A loop that waits this often for no time and finds and does nothing is spinning.
const IDLE_WAITS_MAX: u32 = 1000;

/// What the kernel says of the server's process, always.
pub const PROCESS: Process = Process {
    resident_bytes: Some(12_345_678),
    cpu_us: Some(1_234_567),
    descriptors: Some(9),
    descriptors_max: Some(1024),
    started_us: Some(1_763_999_999_500_000),
};

impl Os for Kernel {
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.waits += 1;
        // epoll_wait(2), EINTR: "before either (1) any of the requested events occurred or (2) the timeout
        // expired".
        let waits = timeout != Some(Duration::ZERO);
        if waits && self.strikes(None, Fault::InterruptedWait) {
            self.record(1, 0, u64::MAX, || "wait: interrupted".into());
            return Ok(());
        }
        if let Some(stop_ms) = self.stops.pop_front() {
            self.stands_still(stop_ms);
            self.record(1, 0, u64::MAX, || format!("wait: interrupted, and stopped for {stop_ms} ms"));
            return Ok(());
        }
        let pauses = waits && self.strikes(None, Fault::Pause);
        let pause_ms = if pauses { 1 + self.rng.below(PAUSE_MS_MAX) } else { 0 };
        if pauses && !self.rng.one_in(3) {
            let before = events.len();
            if self.rng.one_in(2) {
                self.collect(events);
            }
            self.stands_still(pause_ms);
            let told = events.len() - before;
            self.record(1, 0, told as u64, || format!("wait: told {told}, and stopped for {pause_ms} ms"));
            return Ok(());
        }
        if self.strikes(None, Fault::WallLeap) {
            self.wall_leap_ms = self.rng.below(7_200_000) as i64 - 3_600_000;
        }
        let mut timeout_ms = timeout.map(|timeout| timeout.as_nanos().div_ceil(1_000_000) as u64);
        if !self.in_calls.is_empty() && self.strikes(None, Fault::WokenInWait) {
            self.happens_now();
        }
        // eventfd(2): a wake is told once, now or at the next wait.
        if self.woken.swap(false, Ordering::Relaxed) {
            timeout_ms = Some(0);
            events.push(Event::Wake);
        }
        self.stands_still(pause_ms);
        if let (Some(working), Some(0), true) = (&mut self.working, timeout_ms, std::mem::take(&mut self.has_worked)) {
            let working_ms = working.pick(&[0, 0, 0, 1, 30, 300, 1000]);
            self.stands_still(working_ms);
        }
        let until = match (timeout_ms.map(|ms| self.now_ms + ms), self.next_edge_ms()) {
            (Some(end), Some(edge)) => end.min(edge),
            (Some(end), None) => end,
            (None, Some(edge)) => edge,
            (None, None) => panic!("a wait without end, and nothing is going to happen"),
        };
        if until > self.now_ms {
            self.now_ms = until;
            self.idle_waits = 0;
        }
        let before = events.len();
        self.collect(events);
        self.idle_waits = if events.len() > before { 0 } else { self.idle_waits + 1 };
        assert!(self.idle_waits < IDLE_WAITS_MAX, "the loop spins: {IDLE_WAITS_MAX} waits for no time and no event");
        let told = events.len() - before;
        let text = if self.trace.is_some() { format!("{:?}", &events[before..]) } else { String::new() };
        self.record(1, 0, told as u64, || format!("wait {timeout_ms:?}: {text}"));
        Ok(())
    }

    fn now(&mut self) -> Now {
        self.known_ms = self.now_ms;
        Now {
            monotonic_ms: self.now_ms,
            wall_ms: (1_764_000_000_000 + self.now_ms).saturating_add_signed(self.wall_leap_ms),
        }
    }

    /// No turn takes any virtual time; this is how long it seems to take.
    fn elapsed_us(&mut self) -> u64 {
        self.has_worked = true;
        self.reading_us
    }

    fn process(&mut self) -> Process {
        PROCESS
    }

    fn random(&mut self) -> u64 {
        self.randomness.bits()
    }

    fn accept(&mut self, listener: usize, index: u32) -> io::Result<Option<IpAddr>> {
        assert_eq!(listener, 0, "there is one listener");
        self.accepts += 1;
        self.may_happen();
        let answer = self.accept_first(index);
        let wire = self.open.get(&index).map_or(u64::MAX, |wire| wire.0 as u64);
        self.record(2, wire, u64::from(answer.is_ok()), || format!("accept as {index}: {answer:?} (wire {wire})"));
        answer.map(|()| self.open.get(&index).map(|wire| self.connections[wire.0].peer))
    }

    /// With one descriptor in reserve: it comes free again at once.
    fn refuse(&mut self, listener: usize, answer: &[u8]) -> io::Result<()> {
        assert_eq!(listener, 0, "there is one listener");
        if !self.has_reserve {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        // Who is promised that no fault strikes is not turned away by one either.
        let by_a_fault = self.now_ms < self.descriptors_gone_until_ms.max(self.spent.1);
        if self.strikes(self.backlog.front().copied(), Fault::RefuseError) {
            return Err(self.faults.errno("exhaustion", &mut self.rng));
        }
        let stands = self.backlog.iter().position(|wire| !by_a_fault || !self.connections[wire.0].reliable);
        let wire = stands.and_then(|stands| self.backlog.remove(stands)).ok_or(io::ErrorKind::WouldBlock)?;
        self.idle_waits = 0;
        let connection = &mut self.connections[wire.0];
        connection.down.bytes.extend(answer);
        connection.down.ended = true;
        connection.server_gone = true;
        connection.refused = true;
        self.record(8, wire.0 as u64, 0, || format!("refuse wire {}", wire.0));
        Ok(())
    }

    fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        let wire = self.wire(index, "a read");
        self.may_happen();
        let answer = self.read_wire(wire, buffer);
        self.digest(&buffer[..*answer.as_ref().unwrap_or(&0)]);
        self.idle_waits = 0;
        self.record(3, wire.0 as u64, number(&answer), || format!("read {index} of {}: {answer:?}", buffer.len()));
        answer
    }

    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<usize> {
        let wire = self.wire(index, "a write");
        self.may_happen();
        let answer = self.write_wire(wire, bytes);
        self.digest(&bytes[..*answer.as_ref().unwrap_or(&0)]);
        self.idle_waits = 0;
        self.record(4, wire.0 as u64, number(&answer), || {
            let end = bytes.len().min(60);
            format!("write {index} of {}: {answer:?} {:?}", bytes.len(), String::from_utf8_lossy(&bytes[..end]))
        });
        answer
    }

    fn shutdown_write(&mut self, index: u32) {
        let wire = self.wire(index, "a shutdown");
        self.ends_its_side(wire);
        self.record(5, wire.0 as u64, 0, || format!("shutdown {index}"));
    }

    fn close(&mut self, index: u32) {
        let wire = self.wire(index, "a close");
        self.may_happen();
        self.ends_its_side(wire);
        self.open.remove(&index);
        self.closed.push(index);
        let connection = &mut self.connections[wire.0];
        connection.index = None;
        connection.server_gone = true;
        connection.let_go_ms = Some(self.now_ms);
        connection.starved_ms = connection.wants_space.map_or(0, |since_ms| self.now_ms - since_ms);
        // RFC 1122 4.2.2.13: closing with unread input resets, and the last answer is lost.
        if !connection.up.bytes.is_empty() {
            connection.reset = true;
            connection.down.bytes.clear();
        }
        self.record(6, wire.0 as u64, 0, || format!("close {index}"));
    }

    fn close_listeners(&mut self) {
        self.listening = false;
        for wire in std::mem::take(&mut self.backlog) {
            self.connections[wire.0].server_gone = true;
            self.reset(wire);
        }
        self.record(7, 0, 0, || "close listeners".into());
    }
}

impl Kernel {
    /// Time passes, and the process does nothing.
    fn stands_still(&mut self, ms: u64) {
        self.now_ms += ms;
        self.paused_ms += ms;
    }

    fn ends_its_side(&mut self, wire: Wire) {
        let connection = &mut self.connections[wire.0];
        if !connection.down.ended {
            let is_hidden = connection.read_edge.is_some_and(|due| due > self.known_ms);
            connection.left_unread = !connection.up.bytes.is_empty() && !is_hidden;
            connection.down.ended = true;
        }
    }

    fn accept_first(&mut self, index: u32) -> io::Result<()> {
        assert!(!self.open.contains_key(&index), "socket {index} is accepted twice");
        // Linux looks for a descriptor before it looks who waits.
        if self.open.len() >= self.descriptors {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        if self.strikes(self.backlog.front().copied(), Fault::DescriptorsGone) {
            self.descriptors_gone_until_ms = self.later() + 300;
        }
        let is_reliable = self.backlog.front().is_some_and(|wire| self.connections[wire.0].reliable);
        if self.now_ms < self.descriptors_gone_until_ms && !is_reliable {
            return Err(self.faults.errno("exhaustion", &mut self.rng));
        }
        if self.strikes(self.backlog.front().copied(), Fault::DescriptorsSpent) {
            self.spent = (self.open.len(), self.later() + 300);
        }
        if self.now_ms < self.spent.1 && self.open.len() >= self.spent.0 && !is_reliable {
            return Err(self.faults.errno("exhaustion", &mut self.rng));
        }
        let Some(&wire) = self.backlog.front() else { return Err(io::ErrorKind::WouldBlock.into()) };
        if self.strikes(Some(wire), Fault::AcceptWouldBlock) {
            self.listener_edge = Some(self.later());
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.strikes(Some(wire), Fault::AcceptNoDescriptors) {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        if let Some(errno) = self.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.backlog.pop_front();
        self.idle_waits = 0;
        if self.strikes(Some(wire), Fault::AcceptAborted) {
            self.connections[wire.0].struck = true;
            self.connections[wire.0].server_gone = true;
            self.reset(wire);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.strikes(Some(wire), Fault::NetworkDown) {
            self.network_down_until_ms = self.later() + 300;
        }
        let is_down = self.now_ms < self.network_down_until_ms && !is_reliable;
        if is_down || self.strikes(Some(wire), Fault::AcceptError) {
            self.connections[wire.0].struck = true;
            self.connections[wire.0].server_gone = true;
            self.reset(wire);
            return Err(self.faults.errno("accept", &mut self.rng));
        }
        self.open.insert(index, wire);
        let (now_ms, awake_ms, crowd) = (self.now_ms, self.awake_ms(), self.open.len());
        let connection = &mut self.connections[wire.0];
        connection.index = Some(index);
        connection.crowd = crowd;
        connection.accepted_ms = awake_ms;
        // Registering tells what is ready already.
        connection.write_edge = Some(now_ms);
        if !connection.up.bytes.is_empty() || connection.up.ended || connection.reset {
            connection.read_edge = Some(now_ms);
        }
        Ok(())
    }

    fn read_wire(&mut self, wire: Wire, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "a read into an empty buffer cannot tell the end");
        self.may_fail(wire, Fault::ReadError, "read")?;
        let there = self.connections[wire.0].up.bytes.len();
        if there == 0 && !self.connections[wire.0].up.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.strikes(Some(wire), Fault::ReadWouldBlock) {
            let due = self.later();
            self.connections[wire.0].read_edge = Some(due);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = there.min(buffer.len());
        if taken > 1 && self.strikes(Some(wire), Fault::ShortRead) {
            taken = self.rng.shorter(taken);
            // After the event that told of the end there is no other: whoever heard it reads to 0.
            if !self.connections[wire.0].end_told {
                let due = self.later();
                self.connections[wire.0].read_edge = Some(due);
            }
        }
        for (to, from) in buffer.iter_mut().zip(self.connections[wire.0].up.bytes.drain(..taken)) {
            *to = from;
        }
        Ok(taken)
    }

    fn write_wire(&mut self, wire: Wire, bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty(), "a write of nothing");
        self.may_fail(wire, Fault::WriteError, "write")?;
        let connection = &mut self.connections[wire.0];
        assert!(!connection.down.ended, "a write after shutdown_write");
        connection.writes += 1;
        if connection.client_gone {
            // The peer's kernel answers with a reset, a moment later.
            self.reset(wire);
            return Ok(bytes.len());
        }
        let space = connection.down.space();
        if space == 0 {
            connection.wants_space.get_or_insert(self.now_ms);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.strikes(Some(wire), Fault::WriteWouldBlock) {
            let due = self.later();
            self.connections[wire.0].write_edge = Some(due);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = bytes.len().min(space);
        if taken > 1 && self.strikes(Some(wire), Fault::ShortWrite) {
            taken = self.rng.shorter(taken);
            let due = self.later();
            self.connections[wire.0].write_edge = Some(due);
        } else if taken < bytes.len() {
            self.connections[wire.0].wants_space.get_or_insert(self.now_ms);
        }
        self.connections[wire.0].down.bytes.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn may_fail(&mut self, wire: Wire, fault: Fault, call: &'static str) -> io::Result<()> {
        if self.strikes(Some(wire), Fault::InterruptedOften) {
            self.connections[wire.0].interruptions = 12;
        }
        let is_again = self.connections[wire.0].interruptions > 0;
        self.connections[wire.0].interruptions -= u32::from(is_again);
        if is_again || self.strikes(Some(wire), Fault::Interrupted) {
            return Err(io::Error::from_raw_os_error(EINTR));
        }
        if !self.connections[wire.0].reset && self.strikes(Some(wire), fault) {
            self.connections[wire.0].struck = true;
            self.reset(wire);
            return Err(self.faults.errno(call, &mut self.rng));
        }
        if self.strikes(Some(wire), Fault::NoMemory) {
            self.connections[wire.0].struck = true;
            return Err(self.faults.errno("memory", &mut self.rng));
        }
        if self.strikes(Some(wire), Fault::Reset) {
            self.connections[wire.0].struck = true;
            self.reset(wire);
        }
        if self.connections[wire.0].reset { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

fn number(answer: &io::Result<usize>) -> u64 {
    answer.as_ref().map_or(u64::MAX, |&count| count as u64)
}

/// A run that fails with a trace kept shows its end.
impl Drop for Kernel {
    fn drop(&mut self) {
        if self.trace.is_some() && std::thread::panicking() {
            let lines: Vec<&String> = self.trace.iter().flatten().collect();
            let shown = &lines[lines.len().saturating_sub(TRACE_LINES_SHOWN)..];
            eprintln!("the last calls:");
            shown.iter().for_each(|line| eprintln!("{line}"));
        }
    }
}
