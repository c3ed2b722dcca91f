//! Every bound and wish in one place, each with its unit, default, reason and outcome.
//!
//! Knows nothing of flags or environment; the binary's option table fills it.

use std::time::Duration;

use crate::rights::Tokens;

/// What a server is told when it starts. Take `Config::default()` and change what differs.
///
/// Bounds are taken as they are, and where two contradict each other the lower holds; a budget of a
/// turn that is 0 counts as 1. Names that are none, and a door that would stand open, are refused when
/// the server binds ([`Error::Name`](crate::Error::Name), [`Error::Exposed`](crate::Error::Exposed)).
///
/// ```
/// let mut config = tidings::Config::default();
/// config.history_messages = 100;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    // Who may come in.
    /// Names besides `localhost`, `127.0.0.1` and `[::1]` that a `Host` header may have when
    /// listening on loopback, and that an `Origin` may have anywhere. Default: none.
    /// Another name: 421 `wrong_host`.
    pub hosts: Vec<String>,
    /// Origins (`https://example.org`) that may publish, open WebSockets and read across sites.
    /// Default: none. Another: 403 `origin_not_allowed`.
    pub origins: Vec<String>,
    /// Tokens that clients need to publish, and to read. Default: none, so that everybody may. At
    /// most 10,000. Without one: 401 `token_required`; with another: 403 `token_wrong`.
    pub tokens: Tokens,
    /// Listen on an address other hosts can reach although anyone there may publish.
    /// Default: false, so that `bind` to a non-loopback address fails without a publish token.
    pub allow_anyone_to_publish: bool,

    /// One line in the log, at level `info`, for each connection at its end. Default: false.
    pub log_connections: bool,

    // What is kept.
    /// Messages kept per channel. Default 1000. Beyond it the channel's oldest are evicted, and
    /// whoever still wanted them is told a gap.
    pub history_messages: usize,
    /// Bytes kept by all channels together, bookkeeping included. Default 64 MiB. Beyond it the
    /// oldest of all are evicted.
    pub history_bytes: usize,
    /// How long a message is kept. Default 1 hour, by a clock that does not leap.
    pub history_age: Duration,
    /// Channels known at once. Default 100,000. Beyond it a channel without messages and
    /// subscribers is forgotten; if there is none: 503 `channels_full`.
    pub channels_max: usize,
    /// Remembered idempotency keys. Default 10,000, each for 5 minutes; the oldest go first.
    pub idempotency_keys_max: usize,

    // What one client may send and hold.
    /// Bytes of one message. Default 256 KiB, at most `Config::LARGEST_MESSAGE`. Beyond it: 413 `message_too_large`, WebSocket 1009.
    pub message_bytes_max: usize,
    /// Bytes of a long poll's messages. Default 1 MiB; at least one message is answered. The
    /// rest comes with the next poll.
    pub poll_bytes_max: usize,
    /// Bytes of a request head. Default 16 KiB, as common servers have. Beyond it: 431
    /// `head_too_large` and the connection ends.
    pub head_bytes_max: usize,
    /// Compress WebSocket messages (permessage-deflate, RFC 7692) for clients that offer it, and
    /// inflate theirs. Default: true. Only with the feature `deflate`.
    pub deflate: bool,
    /// Payloads of fewer bytes are sent as they are. Default 512: compressing costs 15 us however
    /// little it is, once for all subscribers, and below a few hundred bytes saves hardly a packet.
    pub deflate_bytes_min: usize,
    /// Connections at once. Default 100,000. Where the system says how many descriptors may be open
    /// (Linux: the soft limit when the server binds), it is at most that less 64, with a warning; raise the
    /// limit before. The next sixteen are answered 503 `too_many_connections`, others closed.
    pub connections_max: usize,
    /// Connections at once from one address, an IPv6 address by the first 64 bits, for a customer
    /// has as many. Default 0: no limit, for behind a proxy every client has the proxy's address.
    /// The next are answered 503 `too_many_connections` or closed, as with `connections_max`.
    pub connections_per_address_max: usize,

    // Time.
    /// From accept to the end of the first request's head, and from the first byte of each later
    /// one to the end of its head. Default 10 s: 408 `request_timeout` and the end.
    pub head_timeout: Duration,
    /// A body must be complete this long after its head, and a WebSocket message this long after
    /// its first byte, plus the time that `body_bytes_per_second_min` gives it. Default 30 s: 408
    /// `request_timeout`, WebSocket 1008, and the end.
    pub body_timeout: Duration,
    /// Who sends a body more slowly than this is cut off once `body_timeout` is over. Default
    /// 16 KiB a second, which is less than any link people still use. 0 counts as 1.
    pub body_bytes_per_second_min: usize,
    /// A kept-alive connection without a request. Default 75 s, above common proxies' 60 s, so
    /// that the proxy ends it and never meets a closed one.
    pub idle_timeout: Duration,
    /// A reader that takes no byte although something waits for it. Default 60 s; then the
    /// connection is closed, and the client resumes by its cursor.
    pub stall_timeout: Duration,
    /// How long a peer may take once we close, from the last byte written to it: to answer the close
    /// frame of a WebSocket, to read the last bytes and to end its side, all together. Default 3 s.
    pub close_timeout: Duration,
    /// An SSE stream with nothing to say gets a heartbeat this often. Default 15 s, below the 30 s
    /// of the most impatient proxies.
    pub heartbeat: Duration,
    /// A WebSocket is pinged this often. Default 25 s; silent for two of them, it is closed.
    pub ping: Duration,
    /// The base of the `retry:` an SSE client is told, when its stream begins and when it is sent away:
    /// each one to three times as much. Default 2 s.
    pub retry: Duration,
    /// Leaving: the connections end spread over this time. Default 10 s.
    pub drain: Duration,
    /// Leaving: the listener stays this long, only to answer 503. Default 0 s.
    pub drain_grace: Duration,

    // What all clients together may hold.
    /// Bytes of unfinished requests and messages over all connections. Default 64 MiB. Beyond it:
    /// 503 `busy`, WebSocket 1013. If it is below `message_bytes_max`, no larger message comes in.
    pub intake_bytes_max: usize,
    /// Bytes accepted for writing and not yet taken by readers, over all connections. Default
    /// 64 MiB. Beyond it the longest-blocked connection is closed; it resumes by its cursor.
    pub output_bytes_max: usize,
    /// Commands of `Handle`s on other threads that wait for the loop. Default 1024, and
    /// `intake_bytes_max` in bytes. Beyond it `publish` says `Full`.
    pub commands_max: usize,
    /// The kernel's send buffer per connection. Default 64 KiB: by default the kernel hides over
    /// 4 MB behind each reader that stalls.
    pub send_buffer_bytes: usize,
    /// The kernel's receive buffer per connection. Default 64 KiB: by default it grows to 6 MB for
    /// each sender that is not read, and what is not read here waits there. It is also what a
    /// publisher can send in one round trip.
    pub receive_buffer_bytes: usize,

    // What one turn may do before it looks around again.
    /// What peers may ask of one turn, in bytes read and answered; a request counts 512 beside
    /// them. Default 4 MiB. The rest is read in the next turn.
    pub publish_bytes_per_turn_max: usize,
    /// Connections written to per turn. Default 512. The rest is written to in the next turn.
    pub writes_per_turn_max: usize,
    /// Connections accepted per turn. Default 256.
    pub accepts_per_turn_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            hosts: Vec::new(),
            origins: Vec::new(),
            tokens: Tokens::default(),
            allow_anyone_to_publish: false,
            log_connections: false,
            history_messages: 1000,
            history_bytes: 64 * MIB,
            history_age: Duration::from_secs(3600),
            channels_max: 100_000,
            idempotency_keys_max: 10_000,
            message_bytes_max: 256 * KIB,
            poll_bytes_max: MIB,
            head_bytes_max: 16 * KIB,
            deflate: true,
            deflate_bytes_min: 512,
            connections_max: 100_000,
            connections_per_address_max: 0,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            body_bytes_per_second_min: 16 * KIB,
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(3),
            heartbeat: Duration::from_secs(15),
            ping: Duration::from_secs(25),
            retry: Duration::from_secs(2),
            drain: Duration::from_secs(10),
            drain_grace: Duration::ZERO,
            intake_bytes_max: 64 * MIB,
            output_bytes_max: 64 * MIB,
            commands_max: 1024,
            send_buffer_bytes: 64 * KIB,
            receive_buffer_bytes: 64 * KIB,
            publish_bytes_per_turn_max: 4 * MIB,
            writes_per_turn_max: 512,
            accepts_per_turn_max: 256,
        }
    }
}

impl Config {
    /// What `message_bytes_max` may be at most, and counts as if it is more: 256 MiB. One message is held in
    /// one piece, and in each form again.
    pub const LARGEST_MESSAGE: usize = 256 * MIB;

    /// The same, with each bound at one that can be kept.
    pub(crate) fn bounded(mut self) -> Config {
        self.message_bytes_max = self.message_bytes_max.min(Config::LARGEST_MESSAGE);
        // A budget of nothing would be a loop that does nothing, for ever.
        self.writes_per_turn_max = self.writes_per_turn_max.max(1);
        self.accepts_per_turn_max = self.accepts_per_turn_max.max(1);
        self.publish_bytes_per_turn_max = self.publish_bytes_per_turn_max.clamp(1, usize::MAX / 4);
        self
    }

    /// How far a burst may exceed `history_bytes` while it is delivered: what three turns may
    /// publish, a message, and what one read may leave in the log beyond its turn's budget.
    pub(crate) fn burst_bytes_max(&self) -> usize {
        /// 256 KiB of the smallest frames, with what each counts for over its bytes.
        const READ_BURST_BYTES: usize = 4 * MIB;
        (self.publish_bytes_per_turn_max.saturating_mul(3))
            .saturating_add(self.message_bytes_max)
            .saturating_add(READ_BURST_BYTES)
    }

    /// What the process's memory can come to at most under these bounds, in bytes: the sum of
    /// `memory_parts`. What an `App` keeps, and the kernel's buffers, come on top.
    ///
    /// ```
    /// let config = tidings::Config::default();
    /// assert!(config.memory_bound() < 1 << 30);
    /// ```
    pub fn memory_bound(&self) -> usize {
        self.memory_parts().iter().fold(0, |sum, part| sum.saturating_add(part.1))
    }

    /// The parts of `memory_bound`, each a name and its bytes. `tests/memory.rs` drives a server to
    /// it; docs/limits.md says where each number comes from.
    pub fn memory_parts(&self) -> [(&'static str, usize); 11] {
        let times = usize::saturating_mul;
        let plus = usize::saturating_add;
        // A message in JSON has six bytes for each control byte.
        let formed = times(6, self.message_bytes_max);
        let answer = plus(self.poll_bytes_max, formed);
        let connections = plus(self.connections_max, RESERVE);
        let parts = [
            ("program", PROGRAM_BYTES),
            ("turn", plus(times(SCRATCHES, formed), times(2, answer))),
            ("compression", if self.deflate { plus(COMPRESSION_BYTES, times(2, formed)) } else { 0 }),
            ("history", plus(self.history_bytes, self.burst_bytes_max())),
            // What tips it over is in memory too; a buffer that grows doubles.
            ("intake", plus(self.intake_bytes_max, times(2, plus(self.message_bytes_max, READ_BYTES)))),
            ("commands", plus(self.intake_bytes_max, times(self.commands_max, COMMAND_BYTES))),
            ("output", plus(self.output_bytes_max, times(2, plus(answer, READ_BYTES)))),
            ("connections", times(connections, CONNECTION_BYTES + CHANNEL_SET_MAX * PLACE_BYTES)),
            ("channels", times(self.channels_max, CHANNEL_BYTES)),
            ("idempotency keys", times(self.idempotency_keys_max, KEY_BYTES)),
        ];
        let sum = parts.iter().fold(0usize, |sum, part| plus(sum, part.1));
        let [a, b, c, d, e, f, g, h, i, j] = parts;
        [a, b, c, d, e, f, g, h, i, j, ("allocator", sum / ALLOCATOR_SHARE)]
    }
}

// What each thing costs at most on 64 bits, estimated and rounded up (docs/limits.md, "The bound").

/// The program as it starts, with the loop's buffer, events and queues, tokens, and spare buffers.
const PROGRAM_BYTES: usize = 12 * MIB;
/// What a turn forms messages in: one for each form, one for who stands alone, one for a rest.
pub(crate) const SCRATCHES: usize = 23;
/// The tables of compressor and inflater, and the compressed messages that are kept.
const COMPRESSION_BYTES: usize = 3 * MIB / 2;
/// What one read brings at most. Large, for it is the loop's and not a connection's; what a quiet
/// server never touches is never resident.
pub(crate) const READ_BYTES: usize = 256 * KIB;
/// Connections over `connections_max` that are still accepted, to be told so.
pub(crate) const RESERVE: usize = 16;
/// A connection: slot, subscription, deadline, socket, places in queues, in tables that have just
/// doubled; what few need (`Cold`); and a small answer that waits for its turn.
const CONNECTION_BYTES: usize = 768;
/// One channel of a connection, in its own set and in the channel's, in tables that have just doubled.
const PLACE_BYTES: usize = 24;
/// Channels that a connection reads at most.
pub(crate) const CHANNEL_SET_MAX: usize = 64;
/// A channel with a name of 128 bytes, in trees whose nodes are half full.
const CHANNEL_BYTES: usize = 512;
/// An idempotency key of 128 bytes with a channel's name of 128.
const KEY_BYTES: usize = 512;
/// A command of another thread beside its payload.
const COMMAND_BYTES: usize = 512;
/// What allocators keep beside what they gave: a quarter, an estimate that `tests/memory.rs` stays within.
const ALLOCATOR_SHARE: usize = 4;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
