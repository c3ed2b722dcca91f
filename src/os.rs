//! The system: sockets, readiness, the clocks, randomness. The only file that names them.
//!
//! `Os` is what the event loop asks for; `Mio` answers with the real system, the tests' fake
//! kernel with a seed. Contract: edge-triggered readiness, events may be spurious or stale,
//! a call may fail with any error at any time.

use std::io;
use std::time::Duration;

/// Both clocks at one moment: read once per turn.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, since some moment before the start.
    pub monotonic_ms: u64,
    /// Unix milliseconds; may leap either way, nothing depends on it.
    pub wall_ms: u64,
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
    /// Waits for events at most this long (`None`: for ever), and appends them. An interrupted
    /// wait is an empty one.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;
    /// Reads both clocks.
    fn now(&mut self) -> Now;
    /// Random bits, unpredictable to peers.
    fn random(&mut self) -> u64;
    /// Accepts a connection on this listener and registers it as socket `index`, once, for both
    /// directions. An error leaves nothing behind.
    fn accept(&mut self, listener: usize, index: u32) -> io::Result<()>;
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
