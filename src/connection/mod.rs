//! One connection's protocol state: what is being read, what waits to be written, what comes next.
//!
//! Knows nothing of the hub: it turns bytes into requests and frames (`reader`), and is told what
//! to send. An idle connection owns nothing on the heap.
//!
//! | state       | reads                    | writes                  | leaves by |
//! | ----------- | ------------------------ | ----------------------- | --- |
//! | `Request`   | heads and bodies         | answers                 | a subscription, an end |
//! | `Held`      | keeps what is behind     | one answer              | the answer → `Request` or `Finishing` |
//! | `Stream`    | and throws away          | SSE                     | an end |
//! | `WebSocket` | frames                   | frames                  | the peer's close frame → `Finishing`; ours → `Closing` |
//! | `Closing`   | frames, for a close one  | the last bytes          | the peer's close frame or end → `Finishing`; or time |
//! | `Finishing` | and throws away          | the last bytes          | the last byte → `Lingering` |
//! | `Lingering` | and throws away, bounded | nothing                 | the peer's end, or time |
//! | `Dead`      | nothing                  | nothing                 | being reaped at the end of the turn |

pub mod reader;

use crate::buffer::{Buffer, Spares};
use crate::form::Form;
use crate::protocol::websocket::{self, CloseCode};
use reader::Reader;

/// See the table above.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Between requests, or inside one.
    Request,
    /// A long poll that waits for a message.
    Held,
    /// An SSE stream.
    Stream,
    /// An open WebSocket.
    WebSocket,
    /// A WebSocket that we closed: the peer's close frame is to come. Everything before it is thrown
    /// away, and bounded.
    Closing,
    /// The last bytes are on their way out.
    Finishing,
    /// They are out: wait for the peer to read them, or a reset would destroy them.
    Lingering,
    /// Closed; the slot is freed at the end of the turn.
    Dead,
}

impl State {
    /// True if the connection is attached to channels.
    pub fn is_subscribed(self) -> bool {
        matches!(self, State::Held | State::Stream | State::WebSocket)
    }
}

/// Why a connection ended: for the log and the embedder.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer ended it.
    PeerClosed,
    /// The peer, or the network, reset it.
    Reset,
    /// We answered `Connection: close`, and it was read or had its time.
    Finished,
    /// No request came in time.
    Idle,
    /// A head or body did not end in time.
    RequestTimeout,
    /// It took no byte although something waited for it.
    Stalled,
    /// A WebSocket peer was silent for two pings.
    Silent,
    /// The peer broke the protocol.
    Protocol,
    /// We closed the WebSocket, and said why in the close frame.
    Closed,
    /// Over a server-wide limit, and it was blocked for longest.
    OutputLimit,
    /// Over the number of connections, of all or of its address.
    TooMany,
    /// Its token is no longer good for what it reads.
    Revoked,
    /// The server leaves.
    Leaving,
}

impl CloseReason {
    /// One sentence for people.
    pub fn explain(self) -> &'static str {
        match self {
            CloseReason::PeerClosed => "the peer closed it",
            CloseReason::Reset => "the connection was reset",
            CloseReason::Finished => "it was answered and closed",
            CloseReason::Idle => "no request came within the idle timeout",
            CloseReason::RequestTimeout => "a request did not end in time",
            CloseReason::Stalled => "it took no byte within the stall timeout",
            CloseReason::Silent => "the WebSocket peer was silent for two pings",
            CloseReason::Protocol => "the peer broke the protocol",
            CloseReason::Closed => "the server closed the WebSocket, with a close frame that said why",
            CloseReason::OutputLimit => "output-bytes was spent and it was blocked for longest",
            CloseReason::TooMany => "connections-max, or that of its address, was reached",
            CloseReason::Revoked => "its token is no longer good for what it reads",
            CloseReason::Leaving => "the server is leaving",
        }
    }
}

macro_rules! names {
    ($($variant:ident $name:literal,)*) => {
        impl CloseReason {
            /// Every reason.
            pub const ALL: &'static [CloseReason] = &[$(CloseReason::$variant,)*];

            /// The reason as metrics and log lines name it, for ever.
            pub fn name(self) -> &'static str {
                match self { $(CloseReason::$variant => $name,)* }
            }
        }
    };
}

names! {
    PeerClosed "peer_closed",
    Reset "reset",
    Finished "finished",
    Idle "idle",
    RequestTimeout "request_timeout",
    Stalled "stalled",
    Silent "silent",
    Protocol "protocol",
    Closed "closed",
    OutputLimit "output_limit",
    TooMany "too_many",
    Revoked "revoked",
    Leaving "leaving",
}

/// Bits of a connection.
#[derive(Copy, Clone, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// The socket may have bytes: set by an event, cleared by would-block or a short read.
    pub const READABLE: Flags = Flags(1);
    /// The peer ended its side: a short read is not the end of reading.
    pub const READ_CLOSED: Flags = Flags(1 << 1);
    /// The last write was cut short: only "writable" clears it.
    pub const BLOCKED: Flags = Flags(1 << 2);
    /// In the ready queue.
    pub const QUEUED: Flags = Flags(1 << 3);
    /// In the queue of readers.
    pub const READING: Flags = Flags(1 << 4);
    /// The end of the peer's bytes was read.
    pub const ENDED: Flags = Flags(1 << 5);
    /// The request being answered allows another after it.
    pub const KEEP_ALIVE: Flags = Flags(1 << 6);
    /// The request being answered is HTTP/1.0.
    pub const HTTP_10: Flags = Flags(1 << 7);
    /// Was caught up when this burst began: history is not trimmed before it had its visits.
    pub const FRESH: Flags = Flags(1 << 8);
    /// Which of the two generations of fresh connections it is counted in.
    pub const GENERATION: Flags = Flags(1 << 9);
    /// Accepted over `connections_max` or that of its address, to be told so.
    pub const OVER: Flags = Flags(1 << 10);
    /// Over the limit of its address, not of all.
    pub const OVER_ADDRESS: Flags = Flags(1 << 11);
    /// The first byte of a request has come; its head has a deadline.
    pub const HEAD_BEGUN: Flags = Flags(1 << 12);
    /// Is to end as soon as it has everything.
    pub const LEAVING: Flags = Flags(1 << 13);
    /// A held poll wants the payload alone.
    pub const RAW: Flags = Flags(1 << 14);
    /// Held input may hold whole requests or frames: looking again may bring something.
    pub const PAUSED: Flags = Flags(1 << 15);
    /// A WebSocket that speaks `tidings.v1`: inbound frames are commands.
    pub const COMMANDS: Flags = Flags(1 << 16);
    /// Came by a listener on loopback.
    pub const LOOPBACK: Flags = Flags(1 << 17);
    /// Nothing was asked of it yet: its head's deadline runs from accept.
    pub const FIRST: Flags = Flags(1 << 18);
    /// Dead, and its socket is closed: only a queue that still names it keeps the slot.
    pub const REAPED: Flags = Flags(1 << 19);
    /// A ping is among its own bytes.
    pub const PING_WAITS: Flags = Flags(1 << 20);
    /// A ping was written, and nothing was heard since.
    pub const PINGED: Flags = Flags(1 << 21);

    /// Who has any of these has something to do when its visit ends.
    pub const AFTER_VISIT: Flags = Flags(Flags::READABLE.0 | Flags::PAUSED.0 | Flags::LEAVING.0);

    /// True if any bit of `other` is set.
    pub fn has_any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// True if all bits of `other` are set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets or clears bits.
    pub fn put(&mut self, bits: Flags, on: bool) {
        if on { self.0 |= bits.0 } else { self.0 &= !bits.0 }
    }

    /// Sets bits.
    pub fn set(&mut self, bits: Flags) {
        self.put(bits, true);
    }

    /// Clears bits.
    pub fn clear(&mut self, bits: Flags) {
        self.put(bits, false);
    }
}

/// No message, no channel.
pub const NONE: u32 = u32::MAX;
/// Several channels may have news.
pub const MANY: u32 = u32::MAX - 1;

/// What a client of `tidings.v1` sent behind publishes that are not answered yet.
#[derive(Debug)]
pub enum Deferred {
    /// A command, and whether it came in a binary frame.
    Command(Box<[u8]>, bool),
    /// The close frame, with its code.
    Close(Option<CloseCode>),
    /// A broken frame: the connection has failed, and nothing after it is looked at.
    Failure(websocket::Error),
}

/// What few connections need.
#[derive(Debug, Default)]
pub struct Cold {
    /// Publishes appended to the log and not answered.
    pub unanswered: u32,
    /// The origin to name in the head of a held poll's answer.
    pub origin: Option<Box<[u8]>>,
    /// The payload of the latest ping, while it cannot be answered.
    pub ping: Option<Box<[u8]>>,
    /// Why the embedder does not let this WebSocket publish.
    pub denial: Option<Box<str>>,
    /// What waits for the answers to the commands before it.
    pub deferred: Option<Deferred>,
    /// Bytes read and thrown away since the last answer.
    pub discarded: usize,
}

/// One slot of the engine's slab.
#[derive(Debug)]
pub struct Connection {
    /// Where it stands.
    pub state: State,
    /// The form its messages take, while subscribed.
    pub form: Form,
    /// See `Flags`.
    pub flags: Flags,
    /// Why it ends, once it does.
    pub reason: CloseReason,
    /// The channel that may have messages after its cursor; `NONE` or `MANY`.
    pub pending: u32,
    /// The half-sent message, pinned in the hub, or `NONE`.
    pub message: u32,
    /// How many bytes of that message's form are out.
    pub sent: u32,
    /// The tick of the last byte received.
    pub heard: u32,
    /// The tick of the last byte written.
    pub wrote: u32,
    /// The memory of its own bytes as counted in `output_bytes_max`.
    pub accounted: u32,
    /// Bytes of its own that wait: answers, heads, heartbeats, gaps, control frames.
    pub own: Option<Box<Buffer>>,
    /// Unfinished input.
    pub reader: Option<Box<Reader>>,
    /// What few connections need.
    pub cold: Option<Box<Cold>>,
}

/// What fan-out touches is one cache line, and an idle connection is nothing but this, its
/// subscription, its deadline and its socket.
const _: () = assert!(size_of::<Connection>() <= 56);

impl Connection {
    /// A connection that was just accepted.
    pub fn new(tick: u32) -> Connection {
        Connection {
            state: State::Request,
            form: Form::WsJson,
            flags: Flags::default(),
            reason: CloseReason::PeerClosed,
            pending: NONE,
            message: NONE,
            sent: 0,
            heard: tick,
            wrote: tick,
            accounted: 0,
            own: None,
            reader: None,
            cold: None,
        }
    }

    /// Where its own bytes are gathered.
    pub fn own(&mut self, spares: &mut Spares) -> &mut Buffer {
        self.own.get_or_insert_with(|| spares.take())
    }

    /// The rarely needed part.
    pub fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Gives the rarely needed part back once there is nothing in it.
    pub fn cool(&mut self) {
        let needed = |cold: &Cold| {
            cold.unanswered > 0
                || cold.discarded > 0
                || cold.origin.is_some()
                || cold.ping.is_some()
                || cold.denial.is_some()
                || cold.deferred.is_some()
        };
        if !self.cold.as_deref().is_some_and(needed) {
            self.cold = None;
        }
    }

    /// Bytes of its own that wait to be written.
    pub fn own_bytes(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.len())
    }

    /// The memory its own bytes take.
    pub fn own_room(&self) -> usize {
        self.own.as_ref().map_or(0, |own| own.capacity())
    }

    /// Publishes that are not answered yet.
    pub fn unanswered(&self) -> u32 {
        self.cold.as_ref().map_or(0, |cold| cold.unanswered)
    }

    /// True if a command waits for the answers before it.
    pub fn has_deferred(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.deferred.is_some())
    }

    /// What it holds of unfinished requests and messages, as counted in `intake_bytes_max`.
    pub fn held_bytes(&self) -> usize {
        let deferred = match self.cold.as_ref().and_then(|cold| cold.deferred.as_ref()) {
            Some(Deferred::Command(frame, _)) => frame.len(),
            _ => 0,
        };
        self.reader.as_ref().map_or(0, |reader| reader.held_bytes()) + deferred
    }

    /// True if unconsumed input waits.
    pub fn has_input(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.input.is_empty())
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#b}", self.0)
    }
}
