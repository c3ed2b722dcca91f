//! The log, the channels over it, and where every subscriber stands in it.
//!
//! Knows nothing of HTTP, WebSocket, wire forms or connections: it speaks of messages, channels,
//! cursors and subscriber keys. It reads no clock; time comes in as an argument.
//!
//! Publishing is three steps: `publish` appends to the log, `commit` lets the log decide, and
//! `next_settled` applies the decisions one by one, in the order of the log. Subscribing is one:
//! find the place and attach, so that nothing falls between history and live. Reading moves a
//! cursor; there are no queues. What the limits say is over is evicted by `trim` alone, which the
//! caller runs after it has written, so a reader that keeps up never sees a gap.
//!
//! Invariant: a message after a subscriber's cursor is kept, or `loss` tells of it, or an operator
//! deleted it.

mod channels;
mod history;
mod log;
mod reading;
mod retention;
mod subscribing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::channels::{Channels, Full};
use self::history::History;
use self::log::{Decision, Entry, Key, Log, Memory, Proposal, Standing};
use self::subscribing::Subscriber;
use crate::cursor::{Cursor, Epoch};

pub use self::history::OVERHEAD_BYTES;
pub use self::subscribing::SubscribeRefused;

/// Everything kept and everybody attached.
#[derive(Debug)]
pub struct Hub {
    limits: Limits,
    log: Log,
    history: History,
    channels: Channels,
    /// By subscriber key. Keys are small and dense, for they are the caller's own indexes.
    subscribers: Vec<Subscriber>,
    /// The channels that keep more than `history_messages`, by the number of their oldest.
    over: BTreeSet<(u64, ChannelKey)>,
    /// How many messages were ever evicted: the clock by which a loss is told once.
    evictions: u64,
    /// The channel of the decision told last, held so that its name can be told too.
    answering: Option<ChannelKey>,
}

/// What bounds the hub. Zero is a limit like any other.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Messages kept per channel.
    pub history_messages: usize,
    /// Bytes kept by all channels, `96` per message for bookkeeping included.
    pub history_bytes: usize,
    /// How long a message is kept, to 50 ms.
    pub history_age_ms: u64,
    /// Channels known at once.
    pub channels_max: usize,
    /// Idempotency keys remembered at once.
    pub idempotency_keys_max: usize,
    /// How long each is remembered.
    pub idempotency_age_ms: u64,
    /// How far messages that not everybody could be offered yet may exceed `history_bytes`.
    pub burst_bytes_max: usize,
}

/// A channel, while it is known. The number may name another channel later.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey(pub u32);

/// A message, while it is kept or pinned. The number may name another message later.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey(pub u32);

/// Whom to answer: a number the publisher's side chose.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

/// A message to publish, with its conditions. Names and types obey the rules of `names`.
#[derive(Copy, Clone, Debug, Default)]
pub struct Publish<'a> {
    /// Whom to answer, if anybody.
    pub ticket: Option<Ticket>,
    /// The channel's name.
    pub channel: &'a str,
    /// The event name, if one was given.
    pub event: Option<&'a str>,
    /// The media type, if one was given.
    pub media_type: Option<&'a str>,
    /// The message, byte for byte.
    pub payload: &'a [u8],
    /// Publish only if the channel's newest message, kept or not, is not after this place.
    pub only_after: Option<Cursor>,
    /// The idempotency key, if one was given.
    pub key: Option<&'a str>,
    /// Publish nothing, for the server is leaving; only a remembered key may answer.
    pub replay_only: bool,
    /// Unix milliseconds, for people.
    pub time_ms: u64,
    /// The same moment on the clock that never goes back.
    pub monotonic_ms: u64,
}

/// Why a message was not even appended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PublishRefused {
    /// Every channel keeps a message or has a subscriber.
    ChannelsFull,
}

/// What became of one `publish`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The ticket it was published with.
    pub ticket: Option<Ticket>,
    /// Its channel; valid until the next call of `next_settled`.
    pub channel: ChannelKey,
    /// What became of it.
    pub outcome: Outcome,
}

/// What the log decided.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is message number `seq` now.
    Accepted {
        /// Its number.
        seq: u64,
        /// The message itself.
        message: MessageKey,
        /// The number of the newest message before it in its channel, 0 if it is the first.
        before: u64,
        /// How many subscribers were attached.
        subscribers: u32,
    },
    /// The same was accepted before under the same key; this is what was answered then.
    Repeated {
        /// Its number.
        seq: u64,
        /// How many subscribers were attached then.
        subscribers: u32,
    },
    /// Something else was accepted before under the same key.
    Mismatch,
    /// The condition failed: the channel counts as moved at this place.
    Moved {
        /// Just after its newest message, `<epoch>-0` if it never had one.
        at: Cursor,
    },
    /// `replay_only`, and nothing to replay.
    Draining,
    /// The log can take nothing.
    Failed,
}

/// Numbers for the metrics.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Channels known.
    pub channels: usize,
    /// Channels forgotten so far.
    pub channels_forgotten: u64,
    /// Messages kept.
    pub messages: usize,
    /// What they count for, in bytes.
    pub bytes: usize,
    /// What messages count for that are only kept until they are read to the end.
    pub detached_bytes: usize,
    /// Messages evicted by a limit so far.
    pub evicted: u64,
    /// Idempotency keys remembered.
    pub keys: usize,
    /// Idempotency keys that went before their time.
    pub keys_dropped: u64,
}

impl Hub {
    /// An empty hub over a log in memory that begins with this epoch.
    pub fn new(limits: Limits, epoch: Epoch) -> Hub {
        let log = Memory::new(epoch, limits.idempotency_keys_max, limits.idempotency_age_ms);
        Hub {
            log: Log::Memory(log),
            history: History::new(),
            channels: Channels::new(limits.channels_max),
            subscribers: Vec::new(),
            over: BTreeSet::new(),
            evictions: 0,
            answering: None,
            limits,
        }
    }

    /// The life of the log all its numbers belong to.
    pub fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    /// The number of the newest message of all, 0 if there never was one.
    pub fn head(&self) -> u64 {
        self.log.head()
    }

    /// The place just after message `seq`.
    pub fn cursor(&self, seq: u64) -> Cursor {
        Cursor { epoch: self.epoch(), seq }
    }

    /// Appends a message to the log. What becomes of it `next_settled` tells after a `commit`.
    ///
    /// # Panics
    /// If the event name or the media type has more than 255 bytes; `names` allows 128.
    pub fn publish(&mut self, publish: Publish<'_>) -> Result<(), PublishRefused> {
        let channel = self.channels.hold(publish.channel).map_err(|Full| PublishRefused::ChannelsFull)?;
        let event = publish.event.unwrap_or_default();
        let media_type = publish.media_type.unwrap_or_default();
        let entry = Entry {
            bytes: [event.as_bytes(), media_type.as_bytes(), publish.payload].concat().into(),
            event_len: u8::try_from(event.len()).expect("an event name has at most 128 bytes"),
            type_len: u8::try_from(media_type.len()).expect("a media type has at most 128 bytes"),
            time_ms: publish.time_ms,
            monotonic_ms: publish.monotonic_ms,
        };
        let key = publish.key.map(|key| Key::new(publish.channel, key, &entry));
        let Publish { ticket, only_after, replay_only, .. } = publish;
        self.log.append(Proposal { ticket, channel, entry, only_after, key, replay_only });
        Ok(())
    }

    /// Lets the log decide everything appended so far. Once per turn.
    pub fn commit(&mut self) {
        self.log.commit();
    }

    /// Applies the log's next decision and tells it. An accepted message can be read from then on.
    pub fn next_settled(&mut self) -> Option<Settled> {
        if let Some(answered) = self.answering.take() {
            self.channels.release(answered);
        }
        let channels = &self.channels;
        let event = self.log.next_event(|channel| channels[channel].standing())?;
        let channel = event.channel;
        // The proposal's hold becomes the answer's.
        self.answering = Some(channel);
        let outcome = match event.decision {
            Decision::Accepted { seq, entry } => {
                let Standing { newest: before, subscribers } = self.channels[channel].standing();
                Outcome::Accepted { seq, message: self.keep(channel, seq, entry), before, subscribers }
            }
            Decision::Repeated { seq, subscribers } => Outcome::Repeated { seq, subscribers },
            Decision::Mismatch => Outcome::Mismatch,
            Decision::Moved { newest } => Outcome::Moved { at: self.cursor(newest) },
            Decision::Draining => Outcome::Draining,
            Decision::Failed => Outcome::Failed,
        };
        Some(Settled { ticket: event.ticket, channel, outcome })
    }

    /// True if something was appended that the log has not decided on.
    pub fn has_proposals(&self) -> bool {
        self.log.pending().next().is_some()
    }

    /// The numbers for the metrics, as they are now.
    pub fn stats(&self) -> Stats {
        Stats {
            channels: self.channels.len(),
            channels_forgotten: self.channels.forgotten(),
            messages: self.history.kept(),
            bytes: self.history.bytes(),
            detached_bytes: self.history.detached_bytes(),
            evicted: self.evictions,
            keys: self.log.keys().len(),
            keys_dropped: self.log.keys().dropped(),
        }
    }

    /// Panics if the hub contradicts itself. Walks everything: for tests, simulation and fuzzing.
    pub fn check_invariants(&self) {
        let head = self.head();
        self.log.check_invariants();
        self.history.check_invariants(head);
        let mut holds = BTreeMap::new();
        for channel in self.log.pending().chain(self.history.detached()).chain(self.answering) {
            *holds.entry(channel).or_insert(0) += 1;
        }
        self.channels.check_invariants(head, &holds);
        self.check_retention();
        self.check_subscribers();
    }
}
