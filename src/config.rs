//! Every bound and wish in one place, each with its unit, default, reason and outcome.
//!
//! Knows nothing of flags or environment; the binary's option table fills it.

use std::time::Duration;

/// What a server is told when it starts. Take `Config::default()` and change what differs.
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
    /// Listen on an address other hosts can reach although anyone there may publish.
    /// Default: false, so that `bind` to a non-loopback address fails.
    pub allow_anyone_to_publish: bool,

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
    /// Bytes of one message. Default 256 KiB. Beyond it: 413 `message_too_large`, WebSocket 1009.
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
    /// Connections at once. Default 100,000, or fewer by the descriptor limit. The next sixteen
    /// are answered 503 `too_many_connections`, others closed.
    pub connections_max: usize,

    // Time.
    /// From accept, or from the first byte of a request, to the end of its head. Default 10 s:
    /// 408 `request_timeout` and the end.
    pub head_timeout: Duration,
    /// A body must be complete this long after its head, plus one second for each 16 KiB of it.
    /// Default 30 s: 408 `request_timeout` and the end.
    pub body_timeout: Duration,
    /// A kept-alive connection without a request. Default 75 s, above common proxies' 60 s, so
    /// that the proxy ends it and never meets a closed one.
    pub idle_timeout: Duration,
    /// A reader that takes no byte although something waits for it. Default 60 s; then the
    /// connection is closed, and the client resumes by its cursor.
    pub stall_timeout: Duration,
    /// How long a peer may take to end its side after the last byte is out. Default 3 s.
    pub close_timeout: Duration,
    /// An SSE stream with nothing to say gets a heartbeat this often. Default 15 s, below the 30 s
    /// of the most impatient proxies.
    pub heartbeat: Duration,
    /// A WebSocket is pinged this often. Default 25 s; silent for two of them, it is closed.
    pub ping: Duration,
    /// The base of the `retry:` an SSE client is told; each gets one to three times as much when
    /// the server leaves. Default 2 s.
    pub retry: Duration,
    /// Leaving: the connections end spread over this time. Default 10 s.
    pub drain: Duration,
    /// Leaving: the listener stays this long, only to answer 503. Default 0 s.
    pub drain_grace: Duration,

    // What all clients together may hold.
    /// Bytes of unfinished requests and messages over all connections. Default 64 MiB. Beyond it:
    /// 503 `busy`, WebSocket 1013.
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
            allow_anyone_to_publish: false,
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
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
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
            publish_bytes_per_turn_max: 4 * MIB,
            writes_per_turn_max: 512,
            accepts_per_turn_max: 256,
        }
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
