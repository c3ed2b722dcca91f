//! What the server counts, and how it is told: the Prometheus text format, version 0.0.4.
//!
//! Pure: from a `Snapshot` to bytes. Knows neither who counts nor who asks.
//!
//! Invariant: a series is there from the start, with 0, and no label has a value that a peer could
//! choose. So rates are right from the first scrape on, and the number of series never grows; a
//! label that names channels would break both.
//!
//! Prometheus: "Exposition formats", "Metric and label naming". What each family means and when it
//! is worth an alarm: `docs/metrics.md`.

use std::fmt::Display;
use std::io::Write;

use crate::app::Transport;
use crate::config::Config;
use crate::connection::CloseReason;
use crate::cursor::Epoch;
use crate::error::Code;
use crate::gap::GapReason;
use crate::hub;
use crate::os::Process;

/// The `Content-Type` of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What only grows. Plain numbers, each bumped at the one place where its thing happens.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Connections the system gave us.
    pub accepted: u64,
    /// Of these, the ended, by `CloseReason`.
    pub closes: Numbers<{ CloseReason::ALL.len() }>,
    /// HTTP requests acted upon.
    pub requests: u64,
    /// What was refused, by `Code`.
    pub refusals: Numbers<{ Code::ALL.len() }>,
    /// Subscriptions, by `Transport` and `Start`.
    pub subscriptions: [[u64; Start::ALL.len()]; TRANSPORTS.len()],
    /// Losses told, by `GapReason`.
    pub gaps: [u64; GapReason::ALL.len()],
    /// Messages the log took.
    pub published: u64,
    /// Publishes that a remembered key answered.
    pub replayed: u64,
    /// Messages that the kernel took to the last byte, by `Transport`.
    pub deliveries: [u64; TRANSPORTS.len()],
    /// Bytes read.
    pub received_bytes: u64,
    /// Bytes the kernel took.
    pub sent_bytes: u64,
    /// How often each `Limit` was reached.
    pub limits: [u64; Limit::ALL.len()],
    /// How long turns took.
    pub turns: Durations,
    /// Wakes by other threads.
    pub wakes: u64,
}

/// A number for each of so many names. The standard library has `Default` for arrays of up to 32.
#[derive(Clone, Debug)]
pub struct Numbers<const NAMES: usize>(pub [u64; NAMES]);

impl<const NAMES: usize> Default for Numbers<NAMES> {
    fn default() -> Numbers<NAMES> {
        Numbers([0; NAMES])
    }
}

impl Counters {
    /// Connections that have not ended.
    pub fn open(&self) -> u64 {
        self.accepted - self.closes.0.iter().sum::<u64>()
    }
}

/// Where a subscription began.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the head: it had no cursor.
    New,
    /// Before the oldest message kept.
    Earliest,
    /// After its cursor, and nothing is missing.
    Exact,
    /// After its cursor, and a gap was told.
    Gap,
}

impl Start {
    /// Every start, in the order of the numbers.
    pub const ALL: [Start; 4] = [Start::New, Start::Earliest, Start::Exact, Start::Gap];

    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Start::New => "new",
            Start::Earliest => "earliest",
            Start::Exact => "exact",
            Start::Gap => "gap",
        }
    }
}

/// A bound whose reaching an operator wants to know: counted, and told in the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections of all.
    ConnectionsMax,
    /// Connections of one address.
    ConnectionsPerAddressMax,
    /// The process has no descriptor left, or the system none.
    Descriptors,
    /// Channels that keep a message or have a subscriber.
    ChannelsMax,
    /// Unfinished input.
    IntakeBytesMax,
    /// What waits for slow readers.
    OutputBytesMax,
    /// How far a burst may exceed history.
    BurstBytesMax,
    /// Messages of other threads that wait for the loop.
    CommandsMax,
}

impl Limit {
    /// Every limit, in the order of the numbers.
    pub const ALL: [Limit; 8] = [
        Limit::ConnectionsMax,
        Limit::ConnectionsPerAddressMax,
        Limit::Descriptors,
        Limit::ChannelsMax,
        Limit::IntakeBytesMax,
        Limit::OutputBytesMax,
        Limit::BurstBytesMax,
        Limit::CommandsMax,
    ];

    /// As the option is called, where there is one: the value of the label, and the log's word.
    pub fn name(self) -> &'static str {
        match self {
            Limit::ConnectionsMax => "connections-max",
            Limit::ConnectionsPerAddressMax => "connections-per-address-max",
            Limit::Descriptors => "descriptors",
            Limit::ChannelsMax => "channels-max",
            Limit::IntakeBytesMax => "intake-bytes-max",
            Limit::OutputBytesMax => "output-bytes-max",
            Limit::BurstBytesMax => "burst-bytes-max",
            Limit::CommandsMax => "commands-max",
        }
    }
}

/// The transports, in the order of the numbers.
const TRANSPORTS: [(Transport, &str); 3] =
    [(Transport::WebSocket, "websocket"), (Transport::Sse, "sse"), (Transport::Poll, "poll")];

/// A transport as a label and the log name it.
pub fn transport_name(transport: Transport) -> &'static str {
    TRANSPORTS[transport as usize].1
}

/// How long something took, how often: a histogram in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// By bucket, the last without bound; each counts what is in no earlier one.
    counts: [u64; BUCKETS.len() + 1],
    sum_us: u64,
    longest_us: u64,
}

/// Upper bounds in microseconds, and the same in seconds as `le` says them. A turn that nobody
/// feels takes less than a millisecond; one that takes a second is an outage.
const BUCKETS: [(u64, &str); 14] = [
    (50, "0.00005"),
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
];

impl Durations {
    /// It took this long once more.
    pub fn observe(&mut self, us: u64) {
        self.counts[BUCKETS.partition_point(|&(bound, _)| bound < us)] += 1;
        self.sum_us += us;
        self.longest_us = self.longest_us.max(us);
    }
}

/// The server at one moment.
pub struct Snapshot<'a> {
    /// What has happened.
    pub counters: &'a Counters,
    /// The bounds it runs under.
    pub config: &'a Config,
    /// What is kept.
    pub hub: hub::Stats,
    /// Subscribers, by `Transport`.
    pub subscribers: [usize; 3],
    /// Unfinished input, in bytes.
    pub intake_bytes: usize,
    /// What waits for readers, in bytes.
    pub output_bytes: usize,
    /// WebSocket messages compressed.
    pub compressed: u64,
    /// The life of the log.
    pub epoch: Epoch,
    /// The number of the newest message.
    pub head: u64,
    /// The server is leaving.
    pub draining: bool,
    /// What the system says of the process.
    pub process: Process,
}

/// Appends the whole text.
pub fn write(snapshot: &Snapshot<'_>, out: &mut Vec<u8>) {
    for family in FAMILIES {
        (family.samples)(snapshot, &mut Samples { family, is_begun: false, out });
    }
}

/// One metric: its name, its type, what it means, and what its samples are.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Tell,
}

type Tell = fn(&Snapshot<'_>, &mut Samples<'_>);

const fn counter(name: &'static str, help: &'static str, samples: Tell) -> Family {
    Family { name, kind: "counter", help, samples }
}

const fn gauge(name: &'static str, help: &'static str, samples: Tell) -> Family {
    Family { name, kind: "gauge", help, samples }
}

const fn histogram(name: &'static str, help: &'static str, samples: Tell) -> Family {
    Family { name, kind: "histogram", help, samples }
}

static FAMILIES: &[Family] = &[
    gauge("tidings_build_info", "Always 1; the label says which build this is.", |_, out| {
        out.labelled(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    }),
    // Who is there.
    gauge(
        "tidings_connections",
        "Open connections by what they read; none: in or between requests, or closing.",
        |now, out| {
            for (transport, name) in TRANSPORTS {
                out.labelled(&[("transport", name)], now.subscribers[transport as usize]);
            }
            let subscribers: usize = now.subscribers.iter().sum();
            out.labelled(&[("transport", "none")], now.counters.open() - subscribers as u64);
        },
    ),
    gauge("tidings_connections_max", "The limit connections-max.", |now, out| out.value(now.config.connections_max)),
    counter("tidings_connections_accepted_total", "Connections accepted, the refused included.", |now, out| {
        out.value(now.counters.accepted);
    }),
    counter("tidings_connections_closed_total", "Connections that have ended, by reason.", |now, out| {
        for &reason in CloseReason::ALL {
            out.labelled(&[("reason", reason.name())], now.counters.closes.0[reason as usize]);
        }
    }),
    // What they ask.
    counter("tidings_requests_total", "HTTP requests acted upon, handshakes included.", |now, out| {
        out.value(now.counters.requests);
    }),
    counter("tidings_refusals_total", "Requests, commands and messages refused, by error code.", |now, out| {
        for &code in Code::ALL {
            out.labelled(&[("code", code.name())], now.counters.refusals.0[code as usize]);
        }
    }),
    counter(
        "tidings_subscriptions_total",
        "Subscriptions by transport and start: new (no cursor), earliest, exact (by cursor), gap (by cursor, but \
         messages are lost). Each poll is one.",
        |now, out| {
            for (transport, name) in TRANSPORTS {
                for start in Start::ALL {
                    let count = now.counters.subscriptions[transport as usize][start as usize];
                    out.labelled(&[("transport", name), ("start", start.name())], count);
                }
            }
        },
    ),
    counter("tidings_gaps_total", "Losses told to subscribers, by reason.", |now, out| {
        for reason in GapReason::ALL {
            out.labelled(&[("reason", reason.as_str())], now.counters.gaps[reason as usize]);
        }
    }),
    // What is published and delivered.
    counter("tidings_messages_published_total", "Messages the log has taken.", |now, out| {
        out.value(now.counters.published);
    }),
    counter("tidings_messages_replayed_total", "Publishes answered by a remembered idempotency key.", |now, out| {
        out.value(now.counters.replayed);
    }),
    counter(
        "tidings_deliveries_total",
        "Messages written to subscribers to their last byte; in a poll, messages in its answer.",
        |now, out| {
            for (transport, name) in TRANSPORTS {
                out.labelled(&[("transport", name)], now.counters.deliveries[transport as usize]);
            }
        },
    ),
    counter(
        "tidings_messages_compressed_total",
        "WebSocket messages run through the compressor, each once for all who read it.",
        |now, out| out.value(now.compressed),
    ),
    counter("tidings_received_bytes_total", "Bytes read from all connections.", |now, out| {
        out.value(now.counters.received_bytes);
    }),
    counter("tidings_sent_bytes_total", "Bytes the kernel took for all connections.", |now, out| {
        out.value(now.counters.sent_bytes);
    }),
    gauge("tidings_epoch", "The life of the log; it changes when clients have to start anew.", |now, out| {
        out.value(now.epoch.number());
    }),
    gauge("tidings_head", "The number of the newest message.", |now, out| out.value(now.head)),
    // What is kept.
    gauge("tidings_messages_kept", "Messages in the history of all channels.", |now, out| out.value(now.hub.messages)),
    counter("tidings_messages_evicted_total", "Messages that a limit of the history removed.", |now, out| {
        out.value(now.hub.evicted);
    }),
    gauge("tidings_history_bytes", "Bytes of the history, bookkeeping included.", |now, out| out.value(now.hub.bytes)),
    gauge("tidings_history_max_bytes", "The limit history-bytes.", |now, out| out.value(now.config.history_bytes)),
    gauge("tidings_channels", "Channels known.", |now, out| out.value(now.hub.channels)),
    gauge("tidings_channels_max", "The limit channels-max.", |now, out| out.value(now.config.channels_max)),
    counter("tidings_channels_forgotten_total", "Idle channels forgotten to make room for others.", |now, out| {
        out.value(now.hub.channels_forgotten);
    }),
    gauge("tidings_idempotency_keys", "Idempotency keys remembered.", |now, out| out.value(now.hub.keys)),
    gauge("tidings_idempotency_keys_max", "The limit idempotency-keys-max.", |now, out| {
        out.value(now.config.idempotency_keys_max);
    }),
    counter("tidings_idempotency_keys_dropped_total", "Idempotency keys that went before their time.", |now, out| {
        out.value(now.hub.keys_dropped);
    }),
    // What it costs, and what it may.
    gauge("tidings_intake_bytes", "Bytes of unfinished requests and messages.", |now, out| out.value(now.intake_bytes)),
    gauge("tidings_intake_max_bytes", "The limit intake-bytes-max.", |now, out| out.value(now.config.intake_bytes_max)),
    gauge("tidings_output_bytes", "Bytes that wait for slow readers.", |now, out| out.value(now.output_bytes)),
    gauge("tidings_output_max_bytes", "The limit output-bytes-max.", |now, out| out.value(now.config.output_bytes_max)),
    counter("tidings_limit_reached_total", "How often each limit was reached.", |now, out| {
        for limit in Limit::ALL {
            out.labelled(&[("limit", limit.name())], now.counters.limits[limit as usize]);
        }
    }),
    // How the loop turns.
    histogram("tidings_turn_seconds", "How long each turn of the loop took, without its waiting.", |now, out| {
        out.histogram(&now.counters.turns);
    }),
    gauge("tidings_turn_longest_seconds", "The longest turn since the start.", |now, out| {
        out.value(seconds(now.counters.turns.longest_us));
    }),
    counter("tidings_wakes_total", "Wakes of the loop by other threads.", |now, out| out.value(now.counters.wakes)),
    gauge("tidings_draining", "1 while the server leaves, otherwise 0.", |now, out| out.value(u8::from(now.draining))),
    // What the system says of every process alike. What it does not say is left out.
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", |now, out| {
        out.told(now.process.resident_bytes);
    }),
    counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", |now, out| {
        out.told(now.process.cpu_us.map(seconds));
    }),
    gauge("process_open_fds", "Number of open file descriptors.", |now, out| out.told(now.process.descriptors)),
    gauge("process_max_fds", "Maximum number of open file descriptors.", |now, out| {
        out.told(now.process.descriptors_max);
    }),
    gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", |now, out| {
        out.told(now.process.started_us.map(seconds));
    }),
];

/// The samples of one family. Its `HELP` and `TYPE` come with the first of them.
struct Samples<'a> {
    family: &'static Family,
    is_begun: bool,
    out: &'a mut Vec<u8>,
}

impl Samples<'_> {
    fn value(&mut self, value: impl Display) {
        self.labelled(&[], value);
    }

    /// A value that the system may not tell.
    fn told(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.value(value);
        }
    }

    fn labelled(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.sample("", labels, value);
    }

    /// "Each bucket is cumulative", ends with `+Inf`, and that is the count.
    fn histogram(&mut self, durations: &Durations) {
        let mut count = 0;
        let bounds = BUCKETS.iter().map(|&(_, bound)| bound).chain(["+Inf"]);
        for (bound, more) in bounds.zip(durations.counts) {
            count += more;
            self.sample("_bucket", &[("le", bound)], count);
        }
        self.sample("_sum", &[], seconds(durations.sum_us));
        self.sample("_count", &[], count);
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let Family { name, kind, help, .. } = self.family;
        let text = if std::mem::replace(&mut self.is_begun, true) {
            String::new()
        } else {
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
        };
        // Labels are names of this crate: nothing in them has to be escaped.
        let labels: Vec<String> = labels.iter().map(|(label, of)| format!("{label}=\"{of}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing into a `Vec` does not fail.
        let _ = writeln!(self.out, "{text}{name}{suffix}{labels} {value}");
    }
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_the_name_of_its_place() {
        assert!(TRANSPORTS.iter().enumerate().all(|(nth, &(transport, _))| transport as usize == nth));
        assert!(Start::ALL.iter().enumerate().all(|(nth, &start)| start as usize == nth));
        assert!(Limit::ALL.iter().enumerate().all(|(nth, &limit)| limit as usize == nth));
        assert!(GapReason::ALL.iter().enumerate().all(|(nth, &reason)| reason as usize == nth));
        let mut numbers: Vec<usize> = CloseReason::ALL.iter().map(|&reason| reason as usize).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..CloseReason::ALL.len()));
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        for (us, bucket) in [(0, 0), (50, 0), (51, 1), (100, 1), (1_000, 4), (1_000_000, 13), (1_000_001, 14)] {
            let mut durations = Durations::default();
            durations.observe(us);
            assert_eq!(durations.counts.iter().position(|&count| count == 1), Some(bucket), "{us} us");
            assert_eq!((durations.sum_us, durations.longest_us), (us, us));
        }
    }

    #[test]
    fn bounds_say_in_seconds_what_they_are_in_microseconds() {
        for (us, text) in BUCKETS {
            assert_eq!((text.parse::<f64>().unwrap() * 1e6).round() as u64, us);
        }
        for (us, text) in [(0, "0.000000"), (50, "0.000050"), (1_500_000, "1.500000")] {
            assert_eq!(seconds(us), text);
        }
    }

    #[test]
    fn what_the_system_does_not_tell_is_left_out() {
        let mut out = Vec::new();
        let counters = Counters::default();
        write(
            &Snapshot {
                counters: &counters,
                config: &Config::default(),
                hub: hub::Stats::default(),
                subscribers: [0; 3],
                intake_bytes: 0,
                output_bytes: 0,
                compressed: 0,
                epoch: Epoch::from_random(0),
                head: 0,
                draining: false,
                process: Process { resident_bytes: Some(4096), ..Process::default() },
            },
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        let process: Vec<&str> = text.lines().filter(|line| line.contains("process_")).collect();
        assert_eq!(
            process,
            [
                "# HELP process_resident_memory_bytes Resident memory size in bytes.",
                "# TYPE process_resident_memory_bytes gauge",
                "process_resident_memory_bytes 4096",
            ]
        );
    }
}
