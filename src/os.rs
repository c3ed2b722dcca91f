//! The system: sockets, readiness, the clocks, randomness. The only file that names them.
//!
//! `Os` is what the event loop asks for; `Mio` answers with the real system, the tests' fake
//! kernel with a seed. Contract: edge-triggered readiness, events may be spurious or stale,
//! a call may fail with any error at any time.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
pub use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::Interest;
use mio::net::{TcpListener, TcpStream};

/// Both clocks at one moment: read once per turn.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, since some moment before the start.
    pub monotonic_ms: u64,
    /// Unix milliseconds; may leap either way, nothing depends on it.
    pub wall_ms: u64,
}

/// What the system says of this process; `None` for what it does not say.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Memory that is resident, in bytes.
    pub resident_bytes: Option<u64>,
    /// Time spent on a processor, by the program and by the system for it, in microseconds.
    pub cpu_us: Option<u64>,
    /// Descriptors that are open.
    pub descriptors: Option<u64>,
    /// Descriptors that may be open.
    pub descriptors_max: Option<u64>,
    /// When it was started, in Unix microseconds.
    pub started_us: Option<u64>,
}

/// What `wait` found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The listener with this number may have connections to accept.
    Listener(usize),
    /// A `Handle` on another thread queued something.
    Wake,
    /// The socket with this index changed: an edge, not a state.
    Socket {
        /// The index it was accepted as.
        index: u32,
        /// Bytes, an end or an error may be read.
        readable: bool,
        /// Bytes may be written, or an error met.
        writable: bool,
        /// The peer has ended its side: a short read does not mean there is nothing left.
        read_closed: bool,
    },
}

/// The system calls of the event loop. Indexes of sockets are given by the caller.
pub trait Os {
    /// Waits for events at most this long (`None`: for ever), and appends them; not always all that
    /// there are. A wait that a signal interrupts appends none, and may have lasted for hours: signal(7)
    /// has SIGCONT among those signals, after a stop too. A wait of no time is never interrupted.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;
    /// Reads both clocks.
    fn now(&mut self) -> Now;
    /// Microseconds since `now`, on the clock that never goes back: how long a turn took.
    fn elapsed_us(&mut self) -> u64;
    /// Asks the system about this process. Costs several system calls.
    fn process(&mut self) -> Process;
    /// Random bits, unpredictable to peers.
    fn random(&mut self) -> u64;
    /// Accepts a connection on this listener and registers it as socket `index`, once, for both
    /// directions. Tells the peer's address, if it has one. An error leaves nothing behind.
    fn accept(&mut self, listener: usize, index: u32) -> io::Result<Option<IpAddr>>;
    /// Accepts a connection for which there is no descriptor, in the place of one held in reserve,
    /// only to write `answer` and to end it. The peer gets time to read it until others need the
    /// place. An error leaves nothing behind.
    fn refuse(&mut self, listener: usize, answer: &[u8]) -> io::Result<()>;
    /// Reads into `buffer`; 0 is the end.
    fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes from `bytes`. Never raises SIGPIPE.
    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<usize>;
    /// Ends the sending side; what was written still arrives.
    fn shutdown_write(&mut self, index: u32);
    /// Closes the socket and forgets the index.
    fn close(&mut self, index: u32);
    /// Stops listening: new connections are refused by the system.
    fn close_listeners(&mut self);
}

/// True if a call failed for want of descriptors or memory, by no fault of the connection.
pub fn is_exhaustion(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 105 } else { 55 };
    const WSAEMFILE: i32 = 10024;
    const WSAENOBUFS: i32 = 10055;
    error.raw_os_error().is_some_and(|code| match cfg!(windows) {
        true => [WSAEMFILE, WSAENOBUFS].contains(&code),
        false => [ENOMEM, ENFILE, EMFILE, ENOBUFS].contains(&code),
    })
}

/// The real system: mio for readiness, std for clocks, socket2 for socket options.
pub struct Mio {
    poll: mio::Poll,
    events: mio::Events,
    waker: Arc<mio::Waker>,
    listeners: Vec<TcpListener>,
    /// By index; 8 bytes a slot.
    sockets: Vec<Option<TcpStream>>,
    /// Descriptors for who comes when there is none, the longest used first.
    reserve: VecDeque<Reserved>,
    started: Instant,
    /// When `now` was asked last.
    asked: Instant,
    /// When the process was started, once it was asked for: it must not waver between scrapes.
    process_started_us: Option<u64>,
    random: RandomState,
    draws: u64,
}

/// A descriptor that is given up when one more connection is to be refused.
enum Reserved {
    /// Nobody's: a socket that was never connected.
    Spare(#[expect(dead_code, reason = "it is held, not used")] socket2::Socket),
    /// Of a peer that was refused, and may still be reading why.
    Refused(TcpStream),
}

/// Wakes a waiting loop from another thread.
#[derive(Clone)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Makes the current or next `wait` return with `Event::Wake`.
    pub fn wake(&self) {
        // It fails only if the poll is gone, and then there is nobody to wake.
        let _ = self.0.wake();
    }
}

/// What is left of a time that a thread other than the loop's is willing to wait. The loop itself
/// takes time as an argument.
pub struct Patience {
    since: Instant,
    whole: Duration,
}

impl Patience {
    /// It begins to run now.
    pub fn start(whole: Duration) -> Patience {
        Patience { since: Instant::now(), whole }
    }

    /// Nothing, once it has run out.
    pub fn left(&self) -> Duration {
        self.whole.saturating_sub(self.since.elapsed())
    }
}

const WAKE: mio::Token = mio::Token(usize::MAX);
/// Listeners are numbered down from here, sockets up from 0.
const LISTENERS: usize = usize::MAX - 1;
/// mio hands out this many events per `wait`; the rest come with the next.
const EVENTS_PER_WAIT: usize = 1024;
/// The most that the system takes as an `int`.
const INT_MAX: usize = i32::MAX as usize;
/// So many refused peers may read their answers at the same time.
const RESERVED: usize = 8;
/// What is read of a refused peer's request and thrown away: closed with bytes unread, a socket
/// resets, and the answer is lost (RFC 1122 4.2.2.13).
const REFUSED_BYTES_READ: usize = 16 * 1024;

impl Mio {
    /// Takes over these listeners. What is set on them is inherited by each accepted socket.
    pub fn new(
        listeners: Vec<std::net::TcpListener>,
        send_buffer_bytes: usize,
        receive_buffer_bytes: usize,
        stall_timeout: Duration,
    ) -> io::Result<Mio> {
        let poll = mio::Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE)?);
        let mut registered = Vec::with_capacity(listeners.len());
        for (number, listener) in listeners.into_iter().enumerate() {
            listener.set_nonblocking(true)?;
            let options = socket2::SockRef::from(&listener);
            // One small message must not wait for the acknowledgement of another.
            options.set_tcp_nodelay(true)?;
            options.set_send_buffer_size(send_buffer_bytes.min(INT_MAX))?;
            options.set_recv_buffer_size(receive_buffer_bytes.min(INT_MAX))?;
            // Linux takes an int of milliseconds, and none below 0. The engine has the whole time.
            #[cfg(any(target_os = "linux", target_os = "android"))]
            options.set_tcp_user_timeout(Some(stall_timeout.min(Duration::from_millis(INT_MAX as u64))))?;
            let mut listener = TcpListener::from_std(listener);
            poll.registry().register(&mut listener, mio::Token(LISTENERS - number), Interest::READABLE)?;
            registered.push(listener);
        }
        let started = Instant::now();
        let mut mio = Mio {
            poll,
            events: mio::Events::with_capacity(EVENTS_PER_WAIT),
            waker,
            listeners: registered,
            sockets: Vec::new(),
            reserve: VecDeque::with_capacity(RESERVED),
            started,
            asked: started,
            process_started_us: None,
            random: RandomState::new(),
            draws: 0,
        };
        mio.fill_reserve();
        Ok(mio)
    }

    /// Sets descriptors aside, as far as there are any.
    fn fill_reserve(&mut self) {
        while self.reserve.len() < RESERVED {
            let Ok(spare) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None) else { break };
            self.reserve.push_front(Reserved::Spare(spare));
        }
    }

    /// A waker for other threads.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    fn socket(&mut self, index: u32) -> io::Result<&mut TcpStream> {
        self.sockets.get_mut(index as usize).and_then(Option::as_mut).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for Mio {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.poll.as_raw_fd()
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Mio {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl Os for Mio {
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            let token = event.token();
            events.push(if token == WAKE {
                Event::Wake
            } else if token.0 > LISTENERS - self.listeners.len() {
                Event::Listener(LISTENERS - token.0)
            } else {
                Event::Socket {
                    index: token.0 as u32,
                    readable: event.is_readable() || event.is_error(),
                    writable: event.is_writable() || event.is_error(),
                    read_closed: event.is_read_closed() || event.is_error(),
                }
            });
        }
        Ok(())
    }

    fn now(&mut self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.asked = Instant::now();
        let monotonic = self.asked.saturating_duration_since(self.started);
        Now { monotonic_ms: monotonic.as_millis() as u64, wall_ms: wall.as_millis() as u64 }
    }

    fn elapsed_us(&mut self) -> u64 {
        self.asked.elapsed().as_micros() as u64
    }

    fn process(&mut self) -> Process {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/self/stat");
        if self.process_started_us.is_none() {
            self.process_started_us = started_us(&stat, &read("/proc/stat"));
        }
        Process {
            resident_bytes: resident_bytes(&read("/proc/self/status")),
            cpu_us: cpu_us(&stat),
            descriptors: open_descriptors(),
            descriptors_max: descriptors_max(),
            started_us: self.process_started_us,
        }
    }

    fn random(&mut self) -> u64 {
        // std keys each RandomState from the system's randomness; SipHash spreads it over draws.
        self.draws += 1;
        self.random.hash_one(self.draws)
    }

    fn accept(&mut self, listener: usize, index: u32) -> io::Result<Option<IpAddr>> {
        let listener = self.listeners.get(listener).ok_or(io::ErrorKind::WouldBlock)?;
        let (mut stream, peer) = listener.accept()?;
        self.poll.registry().register(
            &mut stream,
            mio::Token(index as usize),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let slot = index as usize;
        if slot >= self.sockets.len() {
            self.sockets.resize_with(slot + 1, || None);
        }
        self.sockets[slot] = Some(stream);
        self.fill_reserve();
        Ok(Some(peer.ip()))
    }

    fn refuse(&mut self, listener: usize, answer: &[u8]) -> io::Result<()> {
        let listener = self.listeners.get(listener).ok_or(io::ErrorKind::WouldBlock)?;
        if let Some(Reserved::Refused(mut longest)) = self.reserve.pop_front() {
            discard_input(&mut longest);
        }
        let accepted = listener.accept();
        let Ok((mut stream, _)) = accepted else {
            self.fill_reserve();
            return accepted.map(|_| ());
        };
        // A fresh socket has room for the answer; whoever is gone already does not miss it.
        let _ = stream.write(answer);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        discard_input(&mut stream);
        self.reserve.push_back(Reserved::Refused(stream));
        Ok(())
    }

    fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket(index)?.read(buffer)
    }

    fn write(&mut self, index: u32, bytes: &[u8]) -> io::Result<usize> {
        // std sends with MSG_NOSIGNAL; a vectored write would not, and could kill a foreign host.
        self.socket(index)?.write(bytes)
    }

    fn shutdown_write(&mut self, index: u32) {
        if let Ok(socket) = self.socket(index) {
            // It fails only on a connection that is gone already.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, index: u32) {
        if let Some(slot) = self.sockets.get_mut(index as usize) {
            *slot = None;
        }
    }

    fn close_listeners(&mut self) {
        self.listeners.clear();
    }
}

/// Reads what has come, but not without end.
fn discard_input(stream: &mut TcpStream) {
    let mut scratch = [0; 4096];
    let mut left = REFUSED_BYTES_READ;
    while let Ok(read @ 1..) = stream.read(&mut scratch) {
        left = left.saturating_sub(read);
        if left == 0 {
            break;
        }
    }
}

// What Linux writes in /proc (proc(5)). Elsewhere nothing is there, and nothing is told.

/// What the kernel's clock ticks are to programs, whatever they are inside (`USER_HZ`).
const TICK_US: u64 = 10_000;

/// `VmRSS:     5124 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let kib: u64 = after(status, "VmRSS:")?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The fields of `/proc/self/stat` behind the program's name, which may have spaces and brackets
/// in it; the first is the third of the manual.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Fields 14 and 15: user and system time.
fn cpu_us(stat: &str) -> Option<u64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) * TICK_US)
}

/// Field 22: ticks since the machine was booted, which was at `btime` seconds.
fn started_us(stat: &str, machine: &str) -> Option<u64> {
    let booted: u64 = after(machine, "btime ")?.split_whitespace().next()?.parse().ok()?;
    Some(booted * 1_000_000 + stat_field(stat, 22)? * TICK_US)
}

/// How many descriptors this process may have open at the moment, where the system says so.
pub fn descriptors_max() -> Option<u64> {
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// `Max open files            1024                 524288               files`: the first counts.
fn soft_limit(limits: &str) -> Option<u64> {
    after(limits, "Max open files")?.split_whitespace().next()?.parse().ok()
}

fn open_descriptors() -> Option<u64> {
    let directory = "/proc/self/fd";
    // Since Linux 6.2 the directory's size is their number; before they have to be counted.
    match std::fs::metadata(directory).ok()?.len() {
        // The one that the count itself takes does not count.
        0 => Some((std::fs::read_dir(directory).ok()?.count() as u64).saturating_sub(1)),
        number => Some(number),
    }
}

/// What stands behind these words at the beginning of a line.
fn after<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_differs_between_draws_and_systems() {
        let mut one = Mio::new(Vec::new(), 65536, 65536, Duration::from_secs(60)).unwrap();
        let mut other = Mio::new(Vec::new(), 65536, 65536, Duration::from_secs(60)).unwrap();
        let draws = [one.random(), one.random(), other.random(), other.random()];
        for (nth, draw) in draws.iter().enumerate() {
            assert!(!draws[..nth].contains(draw));
        }
    }

    /// 597 hours of a stalled reader are more than an `int` of milliseconds, and the server did not start.
    #[test]
    fn options_too_large_for_the_system_are_cut() {
        for bytes in [4096, u32::MAX as usize, usize::MAX] {
            for stall_timeout in [Duration::from_secs(597 * 3600), Duration::MAX] {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let options = socket2::SockRef::from(&listener).try_clone().unwrap();
                Mio::new(vec![listener], bytes, bytes, stall_timeout).unwrap();
                for room in [options.send_buffer_size().unwrap(), options.recv_buffer_size().unwrap()] {
                    assert!(room >= bytes.min(64 * 1024), "{room} of {bytes}");
                }
            }
        }
    }

    #[test]
    fn proc_is_read_as_the_manual_says() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    5124 kB\n"), Some(5124 * 1024));
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 123 45 0 0 20 0 1 0 6000 0 0";
        assert_eq!(cpu_us(stat), Some(1_680_000));
        assert_eq!(started_us(stat, "cpu 1 2\nbtime 1764000000\n"), Some(1_764_000_060_000_000));
        let limits = "Limit   Soft Limit   Hard Limit   Units\nMax open files   1024   524288   files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        for text in ["", ")", "x (y) S", "VmRSS:", "Max open files   unlimited", "btime x"] {
            let told = [resident_bytes(text), cpu_us(text), started_us(text, text), soft_limit(text)];
            assert_eq!(told, [None; 4], "{text:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_all_of_a_process() {
        let mut os = Mio::new(Vec::new(), 65536, 65536, Duration::from_secs(60)).unwrap();
        let Process { resident_bytes, cpu_us, descriptors, descriptors_max, started_us } = os.process();
        assert!(resident_bytes.unwrap() > 100_000);
        assert!(cpu_us.is_some());
        // The standard streams, the poll and the waker.
        assert!((4..=descriptors_max.unwrap()).contains(&descriptors.unwrap()));
        assert!(started_us.unwrap() / 1000 <= os.now().wall_ms + 1000);
        assert_eq!(os.process().started_us, started_us, "it does not waver");
    }

    #[test]
    fn a_wake_is_one_event() {
        let mut os = Mio::new(Vec::new(), 65536, 65536, Duration::from_secs(60)).unwrap();
        let waker = os.waker();
        waker.wake();
        waker.wake();
        let mut events = Vec::new();
        os.wait(Some(Duration::ZERO), &mut events).unwrap();
        assert_eq!(events, [Event::Wake]);
    }
}
