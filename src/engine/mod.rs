//! Carries events between connections and the hub: the whole server but for system calls.
//!
//! The event loop tells it what happened (`accepted`, `received`, `sent`, `expire`, `commit`) and
//! asks what to do next (`next_reader`, `next_ready`, `output`, `next_dead`). It knows no socket
//! and no clock: bytes and times come in as arguments.
//!
//! Main invariant, proven by `check_invariants` after every turn: a subscriber that is neither
//! blocked nor in the ready queue has everything of its channels up to the head.
//!
//! `reading` takes bytes in; `requests` acts on HTTP, `websockets` on frames, `channel_commands` on the
//! commands in them, `closing` on their end; `publishing` and `subscribing` do what all may ask,
//! `access` permitting; `answers` writes heads and bodies, `own_paths` those of the embedder; `delivery`
//! sends messages, `batches` makes their bytes, `compression` makes them smaller; `timeouts` expires,
//! `leaving` drains, `commands` serves other threads; `counting` counts what happens, `addresses` who
//! comes from where.

mod access;
mod addresses;
mod answers;
mod batches;
mod channel_commands;
mod closing;
mod commands;
mod compression;
mod connection_log;
mod counting;
mod delivery;
mod invariants;
mod leaving;
mod limits_log;
mod own_paths;
mod publishing;
mod reading;
mod requests;
mod subscribing;
mod timeouts;
mod websockets;

use std::collections::VecDeque;
use std::io;

use crate::app::App;
use crate::app::Transport;
use crate::buffer::Spares;
use crate::commands::{PublishCallback, Stats};
use crate::config::{Config, RESERVE};
use crate::connection::{CloseReason, Connection, Flags, NONE, State};
use crate::cursor::Epoch;
use crate::deadlines::{Deadlines, tick};
use crate::hub::{ChannelKey, Hub, Limits, MessageKey};
use crate::metrics::{Counters, Limit};
use crate::os::{self, Event, IpAddr, Now};
use crate::protocol::http;
use crate::protocol::websocket::Inflater;
use crate::route::Policy;
use crate::slab::Slab;
use access::Access;
use addresses::{Addresses, Standing};
use answers::Reply;
use connection_log::ConnectionLog;
use delivery::Delivery;
use leaving::Leaving;
use limits_log::LimitsLog;

/// Publishes of one connection that may wait for the log.
const UNANSWERED_MAX: u32 = 32;
/// Answers that wait for a reader before its next request is looked at.
const OWN_BYTES_PAUSE: usize = 64 * 1024;
/// Frames of one WebSocket message: so many, and one more for each 64 bytes that it may have. They
/// share one buffer, so this bounds the work with empty ones only.
const FRAGMENTS_MIN: u32 = 1024;
const FRAGMENT_BYTES: usize = 64;
/// What acting on a request costs of a turn's budget, beside its bytes and those of its answer: so
/// a turn acts on some thousands, however short they are.
const REQUEST_COST: usize = 512;
/// What acting on a frame costs: less, for there is no head to decode.
const FRAME_COST: usize = 256;
/// What looking at one channel, resting ones included, or at one subscriber costs, for the list of
/// channels.
const LOOK_COST: usize = 16;
/// What attaching to one channel, or looking whether it is read, costs: some 0.3 us.
const CHANNEL_COST: usize = 128;
/// The part of a turn's budget that one visit of a connection may spend. The others wait behind it:
/// with a whole turn for each, a hundred floods would hold everybody up for a hundred turns.
const VISIT_SHARE: usize = 16;
/// The part of a turn's budget that peers cannot spend: it is there for other threads' commands.
const COMMANDS_SHARE: usize = 4;
/// The system numbers sockets by index; no machine has this many.
const INDEX_MAX: usize = 1 << 24;
/// Bytes read and thrown away after the last answer, before the connection is cut. Many clients
/// send all they have before they look at an answer: this is far above what is a message.
const DISCARD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long an idempotency key is remembered.
const IDEMPOTENCY_AGE_MS: u64 = 5 * 60 * 1000;

/// Who asked for a publish.
enum Asker {
    /// A POST on this connection, to be answered in this manner.
    Request(u32, Reply),
    /// A command on this connection, with its `ref`.
    Command(u32, Option<Box<str>>),
    /// A callback of the embedder.
    Callback(PublishCallback),
    /// A connection that is gone.
    Nobody,
}

/// How far a look at held bytes came.
enum Progress {
    /// Something was done with this many.
    Consumed(usize),
    /// These were taken in; what follows is not whole.
    NeedsMore(usize),
    /// Nothing now: something else has to happen first.
    Later,
}

/// The server, but for the system.
pub struct Engine {
    config: Config,
    /// For connections by other listeners, and by those on loopback.
    policies: [Policy; 2],
    app: Option<Box<dyn App>>,
    /// The log has a line about an answer of the app that was none.
    has_warned_of_app: bool,
    access: Access,
    hub: Hub,
    connections: Slab<Connection>,
    spares: Spares,
    addresses: Addresses,
    deadlines: Deadlines,
    /// Subscribers that may be sent something, each once.
    ready: VecDeque<u32>,
    /// Connections with something to read or to process, each once.
    readers: VecDeque<u32>,
    /// To be freed at the end of the turn.
    dead: Vec<u32>,
    /// To be told that nothing more will be written.
    finished: Vec<u32>,
    delivery: Delivery,
    inflater: Inflater,
    askers: Slab<Asker>,
    /// Room for the channels that a commit brought news to; empty between commits.
    news: Vec<ChannelKey>,
    /// The subscribers of all messages up to here were woken: the head, but while a commit settles.
    woken_through: u64,
    leaving: Option<Leaving>,
    random: Random,
    now: Now,
    tick: u32,
    date: http::Date,
    date_second: u64,
    /// What peers may still ask of this turn, in bytes read and answered.
    turn_bytes: usize,
    intake_bytes: usize,
    own_bytes: usize,
    /// Connections that are told that they are too many, of all or of their address.
    over: usize,
    subscribers: [usize; 3],
    turns: u64,
    counters: Counters,
    limits_log: LimitsLog,
    /// Only if the operator wishes lines about connections.
    connection_log: Option<ConnectionLog>,
    /// Who waits for the metrics, until the loop has asked the system about the process.
    scrapes: Vec<(u32, Reply)>,
    /// Reused for answers' bodies.
    body: Vec<u8>,
}

impl Engine {
    /// An engine that begins a new life of the log.
    pub fn new(config: Config, policies: [Policy; 2], app: Option<Box<dyn App>>, seed: [u64; 2], now: Now) -> Engine {
        let mut config = config.bounded();
        let limits = Limits {
            history_messages: config.history_messages,
            history_bytes: config.history_bytes,
            history_age_ms: config.history_age.as_millis() as u64,
            channels_max: config.channels_max,
            idempotency_keys_max: config.idempotency_keys_max,
            idempotency_age_ms: IDEMPOTENCY_AGE_MS,
            burst_bytes_max: config.burst_bytes_max(),
        };
        Engine {
            hub: Hub::new(limits, Epoch::from_random(seed[0])),
            policies,
            app,
            has_warned_of_app: false,
            access: Access::new(std::mem::take(&mut config.tokens)),
            connections: Slab::new(),
            spares: Spares::default(),
            addresses: Addresses::new(config.connections_per_address_max),
            deadlines: Deadlines::new(tick(now.monotonic_ms)),
            ready: VecDeque::new(),
            readers: VecDeque::new(),
            dead: Vec::new(),
            finished: Vec::new(),
            delivery: Delivery::default(),
            inflater: Inflater::default(),
            askers: Slab::new(),
            news: Vec::new(),
            woken_through: 0,
            leaving: None,
            random: Random::new(seed[1]),
            now,
            tick: tick(now.monotonic_ms),
            date: http::Date::from_unix_ms(now.wall_ms),
            date_second: now.wall_ms / 1000,
            turn_bytes: 0,
            intake_bytes: 0,
            own_bytes: 0,
            over: 0,
            subscribers: [0; 3],
            turns: 0,
            counters: Counters::default(),
            limits_log: LimitsLog::default(),
            connection_log: config.log_connections.then(ConnectionLog::default),
            scrapes: Vec::new(),
            body: Vec::new(),
            config,
        }
    }

    /// A turn begins at this time.
    pub fn begin_turn(&mut self, now: Now) {
        self.now = now;
        self.tick = tick(now.monotonic_ms);
        if now.wall_ms / 1000 != self.date_second {
            self.date_second = now.wall_ms / 1000;
            self.date = http::Date::from_unix_ms(now.wall_ms);
        }
        self.turn_bytes = self.config.publish_bytes_per_turn_max;
        self.begin_shares();
        self.turns += 1;
    }

    /// The commands' moment in the turn. Whatever peers have sent, some are taken in each turn:
    /// otherwise a flood that never ends would keep the server from being told to leave.
    pub fn begin_commands(&mut self) {
        self.turn_bytes = self.turn_bytes.max(self.config.publish_bytes_per_turn_max / COMMANDS_SHARE).max(1);
    }

    /// Takes this much out of the turn's budget.
    fn spend(&mut self, bytes: usize) {
        self.turn_bytes = self.turn_bytes.saturating_sub(bytes);
    }

    /// False once this turn has taken in as much as it may.
    pub fn may_take_commands(&self) -> bool {
        self.turn_bytes > 0
    }

    /// The bounds and wishes it runs under.
    pub fn config(&self) -> &Config {
        &self.config
    }

    // Connections come.

    /// Takes a slot for a connection that is about to be accepted; `None` if the reserve over
    /// `connections_max` is spent too.
    pub fn open(&mut self) -> Option<u32> {
        if self.connections.len() >= self.config.connections_max.saturating_add(RESERVE) {
            return None;
        }
        Some(self.connections.insert(Connection::new(self.tick)))
    }

    /// The index after all that `open` gives: of a connection that is accepted only to be closed.
    /// The system keeps its sockets by index, so it must not be far from the others.
    pub fn beyond(&self) -> u32 {
        self.config.connections_max.saturating_add(RESERVE).min(INDEX_MAX) as u32
    }

    /// Gives the slot back: the system accepted nothing.
    pub fn abandon(&mut self, index: u32) {
        self.connections.remove(index);
    }

    /// The slot's connection is there.
    pub fn accepted(&mut self, index: u32, on_loopback: bool, peer: Option<IpAddr>) {
        self.count_accepted(index);
        let standing = self.addresses.enter(index, peer);
        // Not the slots: one may outlast its connection while a queue names it. Nor those who are told that
        // they are too many: who comes again at once would keep all others out, and be kept out by them.
        let over = self.counters.open() - self.over as u64 > self.config.connections_max as u64;
        let is_told = over || standing != Standing::Within;
        self.over += usize::from(is_told);
        let flags = &mut self.connections[index].flags;
        flags.put(Flags::LOOPBACK, on_loopback);
        flags.set(Flags::KEEP_ALIVE);
        flags.set(Flags::FIRST);
        flags.put(Flags::OVER, is_told);
        flags.put(Flags::OVER_ADDRESS, standing != Standing::Within);
        if over {
            self.note_limit(Limit::ConnectionsMax);
        }
        if standing != Standing::Within {
            self.note_limit(Limit::ConnectionsPerAddressMax);
        }
        if standing == Standing::Beyond {
            return self.kill(index, CloseReason::TooMany);
        }
        // The head's deadline runs from accept: silence must not hold a descriptor.
        self.set_deadline(index, self.config.head_timeout);
    }

    /// A connection could not be accepted. The one place where such failures are noted.
    pub fn note_accept_failure(&mut self, error: &io::Error) {
        log::debug!("cannot accept connections: {error}; trying again shortly");
        if os::is_exhaustion(error) {
            self.note_limit(Limit::Descriptors);
        }
    }

    fn policy(&self, index: u32) -> &Policy {
        &self.policies[usize::from(self.connections[index].flags.has(Flags::LOOPBACK))]
    }

    /// The system says that a socket may be read or written, or that another thread wakes us. It
    /// may be wrong, and late.
    pub fn notice(&mut self, event: Event) {
        let Event::Socket { index, readable, writable, read_closed } = event else {
            self.counters.wakes += u64::from(event == Event::Wake);
            return;
        };
        let Some(connection) = self.connections.get_mut(index) else { return };
        if connection.state == State::Dead {
            return;
        }
        if readable || read_closed {
            connection.flags.set(Flags::READABLE);
            connection.flags.put(Flags::READ_CLOSED, connection.flags.has(Flags::READ_CLOSED) || read_closed);
            self.queue_reader(index);
        }
        if writable && self.connections[index].flags.has(Flags::BLOCKED) {
            self.connections[index].flags.clear(Flags::BLOCKED);
            // While it was blocked it was not pinged; that it reads again is a sign of life.
            self.connections[index].heard = self.tick;
            self.arm(index);
            self.answer_ping(index);
            self.queue_ready(index);
        }
    }

    // Queues.

    /// Puts a connection into the ready queue, once, if it may be written to.
    fn queue_ready(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        if !connection.flags.has(Flags::QUEUED) && !connection.flags.has(Flags::BLOCKED) {
            connection.flags.set(Flags::QUEUED);
            self.ready.push_back(index);
        }
        self.account(index);
    }

    // Ends.

    /// Ends a connection in good order: what waits is written, then its sending side is shut, then
    /// the peer reads it and ends its own side. One deadline bounds that, from the last byte written.
    fn finish(&mut self, index: u32, reason: CloseReason) {
        self.unsubscribe(index);
        let connection = &mut self.connections[index];
        if matches!(connection.state, State::Finishing | State::Lingering | State::Dead) {
            return;
        }
        connection.state = State::Finishing;
        connection.reason = reason;
        self.drop_input(index);
        self.set_deadline(index, self.config.close_timeout);
        self.finish_if_written(index);
        self.queue_reader(index);
    }

    /// Lets go of what it holds of unfinished requests and messages.
    fn drop_input(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        self.intake_bytes -= connection.held_bytes();
        connection.reader = None;
        if let Some(cold) = &mut connection.cold {
            cold.deferred = None;
        }
    }

    /// Shuts the sending side of a finishing connection once its last byte is out.
    fn finish_if_written(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        if connection.state != State::Finishing || connection.own_bytes() > 0 || connection.message != NONE {
            return;
        }
        if connection.flags.has(Flags::ENDED) {
            let reason = connection.reason;
            self.kill(index, reason);
        } else {
            connection.state = State::Lingering;
            self.finished.push(index);
        }
    }

    /// The next connection whose sending side is to be shut.
    pub fn next_finished(&mut self) -> Option<u32> {
        self.finished.pop()
    }

    /// Ends a connection at once. Its slot is freed at the end of the turn.
    fn kill(&mut self, index: u32, reason: CloseReason) {
        if self.connections[index].state == State::Dead {
            return;
        }
        self.unsubscribe(index);
        let connection = &mut self.connections[index];
        log::debug!("connection {index} ends: {}", reason.explain());
        connection.state = State::Dead;
        connection.reason = reason;
        let message = std::mem::replace(&mut connection.message, NONE);
        if let Some(own) = connection.own.take() {
            self.spares.give(own);
        }
        self.drop_input(index);
        if message != NONE {
            self.hub.unpin(MessageKey(message));
        }
        self.deadlines.clear(index);
        self.account(index);
        self.over -= usize::from(self.connections[index].flags.has(Flags::OVER));
        self.count_closed(index, reason);
        self.dead.push(index);
    }

    /// The next dead connection, for the system to close. Its slot is freed here, at the end of the
    /// turn and nowhere earlier, or when the last queue that names it has come to it: so an index
    /// names one connection, and stale events find nobody.
    pub fn next_dead(&mut self) -> Option<u32> {
        let index = self.dead.pop()?;
        if self.connections[index].unanswered() > 0 && !self.askers.is_empty() {
            self.orphan_askers(index);
        }
        if let Some(leaving) = &mut self.leaving {
            leaving.forget(index);
        }
        self.addresses.leave(index);
        self.connections[index].cold = None;
        self.connections[index].flags.set(Flags::REAPED);
        self.free(index);
        Some(index)
    }

    /// Frees the slot of a dead connection that no queue names any more, the queue of the dead
    /// included: whoever comes last frees it.
    fn free(&mut self, index: u32) {
        let flags = self.connections[index].flags;
        if !flags.has(Flags::REAPED) || flags.has(Flags::QUEUED) || flags.has(Flags::READING) {
            return;
        }
        self.deadlines.clear(index);
        self.connections.remove(index);
    }

    /// Detaches a subscriber from its channels.
    fn unsubscribe(&mut self, index: u32) {
        let state = self.connections[index].state;
        if !state.is_subscribed() {
            return;
        }
        self.settle_fresh(index);
        let transport = transport(state);
        self.subscribers[transport as usize] -= 1;
        if let Some(app) = &mut self.app {
            let channels: Vec<&str> = self.hub.channels_of(index).map(|key| self.hub.channel_name(key)).collect();
            if !channels.is_empty() {
                app.unsubscribed(self.access.user(index), &channels, transport);
            }
        }
        self.hub.unsubscribe(index);
        self.connections[index].pending = NONE;
    }

    // Books.

    /// Keeps the sum of own bytes true.
    fn account(&mut self, index: u32) {
        if let Some(connection) = self.connections.get_mut(index) {
            // An app's answer may be of any length: what is over 4 GiB is not counted.
            let now = u32::try_from(connection.own_room()).unwrap_or(u32::MAX);
            let before = std::mem::replace(&mut connection.accounted, now);
            self.own_bytes = self.own_bytes + now as usize - before as usize;
        }
    }

    /// Ends the longest-blocked connections while more waits for readers than may, of those that
    /// hold any of it: own bytes, or the half of a message that is evicted. Who is in the middle of a
    /// message that is kept anyway holds nothing.
    fn limit_output(&mut self) {
        while self.own_bytes + self.hub.detached_bytes() > self.config.output_bytes_max {
            let hub = &self.hub;
            let holds = |connection: &Connection| {
                connection.own.is_some()
                    || connection.message != NONE && hub.is_detached(MessageKey(connection.message))
            };
            let Some(longest) = self.delivery.longest_blocked(&self.connections, holds) else { break };
            self.note_limit(Limit::OutputBytesMax);
            self.kill(longest, CloseReason::OutputLimit);
        }
    }

    /// How the server stands.
    pub fn stats(&self) -> Stats {
        let hub = self.hub.stats();
        Stats {
            head: self.hub.head(),
            // Not the slots: see `accepted`.
            connections: self.counters.open() as usize,
            websockets: self.subscribers[Transport::WebSocket as usize],
            event_streams: self.subscribers[Transport::Sse as usize],
            polls: self.subscribers[Transport::Poll as usize],
            channels: hub.channels,
            messages: hub.messages,
            history_bytes: hub.bytes,
            intake_bytes: self.intake_bytes,
            output_bytes: self.own_bytes + self.hub.detached_bytes(),
            compressed: self.delivery.compression.done(),
            turns: self.turns,
            wakes: self.counters.wakes,
        }
    }
}

fn transport(state: State) -> Transport {
    match state {
        State::WebSocket => Transport::WebSocket,
        State::Stream => Transport::Sse,
        _ => Transport::Poll,
    }
}

/// A channel of the hub as `Connection::pending` holds it.
fn pending_of(channel: ChannelKey) -> u32 {
    channel.0
}

/// Jitter: not secret, only different for each. xorshift64*, Vigna 2016.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}
