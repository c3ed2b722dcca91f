//! The messages themselves, in one slab, and the order of all that are kept, oldest to newest.
//!
//! Knows nothing of limits or subscribers, and of channels only their keys. A message leaves the
//! order when it is evicted or deleted; if it is pinned then, because somebody is in the middle
//! of reading it, it stays readable, detached, until the last pin goes.
//!
//! Invariant: a message is in the slab exactly while it is kept or pinned, and the kept ones,
//! from `oldest` along `newer`, have rising numbers.

use std::ops::Index;

use super::log::Entry;
use super::{ChannelKey, MessageKey};
use crate::deadlines::tick;
use crate::names;
use crate::slab::Slab;

/// All messages, and the list through the kept ones.
#[derive(Debug)]
pub struct History {
    records: Slab<Record>,
    oldest: u32,
    newest: u32,
    kept: usize,
    bytes: usize,
    detached_bytes: usize,
}

/// The end of the list; no slot has this number.
const END: u32 = u32::MAX;

/// One message. What fan-out and eviction touch is here, what is read once a turn in `bytes`.
#[derive(Debug)]
pub struct Record {
    /// Its number.
    pub seq: u64,
    /// Unix milliseconds at acceptance.
    pub time_ms: u64,
    /// Event name, media type, payload, one behind the other.
    bytes: Box<[u8]>,
    /// The channel it was published to.
    pub channel: ChannelKey,
    /// Neighbours in the order of all kept messages.
    older: u32,
    newer: u32,
    /// How many readers are in the middle of it.
    pins: u32,
    /// The tick it was accepted in: four bytes, where a time has eight.
    born: u32,
    event_len: u8,
    type_len: u8,
    /// Decided once, at acceptance, by the rule for text and binary.
    is_text: bool,
    kept: bool,
}

const _: () = assert!(size_of::<Record>() <= 56);

/// What a message counts for over its own bytes: its record, its slot in the channel, and what
/// the allocator adds; measured at about 80, rounded up.
pub const OVERHEAD_BYTES: usize = 96;

impl Record {
    /// The event name, if there is one.
    pub fn event(&self) -> Option<&str> {
        text(&self.bytes[..usize::from(self.event_len)])
    }

    /// The media type, if there is one.
    pub fn media_type(&self) -> Option<&str> {
        let start = usize::from(self.event_len);
        text(&self.bytes[start..start + usize::from(self.type_len)])
    }

    /// The bytes as published.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.event_len) + usize::from(self.type_len)..]
    }

    /// True if the payload is text by the rule in `names`.
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// The tick it was accepted in.
    pub fn born(&self) -> u32 {
        self.born
    }

    /// What it counts for.
    pub fn accounted(&self) -> usize {
        self.bytes.len() + OVERHEAD_BYTES
    }
}

/// Empty is none: no name and no type is empty.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

impl History {
    /// Nothing kept.
    pub fn new() -> History {
        History { records: Slab::new(), oldest: END, newest: END, kept: 0, bytes: 0, detached_bytes: 0 }
    }

    /// Keeps message `seq`, higher than all before, as the newest.
    pub fn keep(&mut self, seq: u64, channel: ChannelKey, entry: Entry) -> MessageKey {
        let mut record = Record {
            seq,
            time_ms: entry.time_ms,
            bytes: entry.bytes,
            channel,
            older: self.newest,
            newer: END,
            pins: 0,
            born: tick(entry.monotonic_ms),
            event_len: entry.event_len,
            type_len: entry.type_len,
            is_text: false,
            kept: true,
        };
        record.is_text = names::is_text(record.payload(), record.media_type());
        self.kept += 1;
        self.bytes += record.accounted();
        let slot = self.records.insert(record);
        match self.newest {
            END => self.oldest = slot,
            newest => self.records[newest].newer = slot,
        }
        self.newest = slot;
        MessageKey(slot)
    }

    /// Takes a kept message out of the order. True if it is pinned, and stays readable.
    pub fn detach(&mut self, message: MessageKey) -> bool {
        let record = &mut self.records[message.0];
        assert!(record.kept, "a message is detached once");
        record.kept = false;
        let (older, newer, pinned, bytes) = (record.older, record.newer, record.pins > 0, record.accounted());
        match older {
            END => self.oldest = newer,
            older => self.records[older].newer = newer,
        }
        match newer {
            END => self.newest = older,
            newer => self.records[newer].older = older,
        }
        self.kept -= 1;
        self.bytes -= bytes;
        match pinned {
            true => self.detached_bytes += bytes,
            false => drop(self.records.remove(message.0)),
        }
        pinned
    }

    /// Somebody is in the middle of this message: it stays readable until as many `unpin`s.
    pub fn pin(&mut self, message: MessageKey) {
        self.records[message.0].pins += 1;
    }

    /// Undoes one `pin`. If that lets go of a detached message, tells its channel.
    pub fn unpin(&mut self, message: MessageKey) -> Option<ChannelKey> {
        let record = &mut self.records[message.0];
        assert!(record.pins > 0, "every unpin has its pin");
        record.pins -= 1;
        if record.kept || record.pins > 0 {
            return None;
        }
        self.detached_bytes -= record.accounted();
        self.records.remove(message.0).map(|record| record.channel)
    }

    /// The oldest message kept.
    pub fn oldest(&self) -> Option<MessageKey> {
        (self.oldest != END).then_some(MessageKey(self.oldest))
    }

    /// How many messages are kept.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// What the kept messages count for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the detached messages count for.
    pub fn detached_bytes(&self) -> usize {
        self.detached_bytes
    }

    /// True if this message is out of the order, and only pinned.
    pub fn is_detached(&self, message: MessageKey) -> bool {
        !self.records[message.0].kept
    }

    /// The channels of the detached messages, one entry a message.
    pub fn detached(&self) -> impl Iterator<Item = ChannelKey> {
        self.records.iter().filter(|(_, record)| !record.kept).map(|(_, record)| record.channel)
    }

    /// Panics if the history contradicts itself.
    pub fn check_invariants(&self, head: u64) {
        self.records.check_invariants();
        let (mut kept, mut bytes, mut seq, mut older) = (0, 0, 0, END);
        let mut slot = self.oldest;
        while slot != END {
            let record = &self.records[slot];
            assert!(record.kept && record.older == older && record.seq > seq, "the list is in order");
            (kept, bytes, seq, older) = (kept + 1, bytes + record.accounted(), record.seq, slot);
            slot = record.newer;
        }
        assert_eq!(older, self.newest, "the list ends with the newest");
        assert!(seq <= head, "no message is after the head");
        assert_eq!((kept, bytes), (self.kept, self.bytes), "what is kept is counted");
        let (mut detached, mut detached_bytes) = (0, 0);
        for (_, record) in self.records.iter().filter(|(_, record)| !record.kept) {
            assert!(record.pins > 0, "what is neither kept nor pinned is gone");
            (detached, detached_bytes) = (detached + 1, detached_bytes + record.accounted());
        }
        assert_eq!(detached_bytes, self.detached_bytes, "what is detached is counted");
        assert_eq!(kept + detached, self.records.len(), "what is kept is in the list");
    }
}

impl Index<MessageKey> for History {
    type Output = Record;

    fn index(&self, message: MessageKey) -> &Record {
        &self.records[message.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: &str, media_type: &str, payload: &[u8]) -> Entry {
        Entry {
            bytes: [event.as_bytes(), media_type.as_bytes(), payload].concat().into(),
            event_len: event.len() as u8,
            type_len: media_type.len() as u8,
            time_ms: 5,
            monotonic_ms: 120,
        }
    }

    fn seqs(history: &History) -> Vec<u64> {
        let mut seqs = Vec::new();
        let mut slot = history.oldest;
        while slot != END {
            seqs.push(history.records[slot].seq);
            slot = history.records[slot].newer;
        }
        seqs
    }

    #[test]
    fn one_allocation_gives_back_its_parts() {
        let mut history = History::new();
        for (event, media_type, payload, text) in [
            ("", "", &b""[..], true),
            ("price", "", b"1", true),
            ("", "text/plain", "\u{e9}".as_bytes(), true),
            ("price", "image/png", b"\xff\xfe", false),
        ] {
            let message = history.keep(history.kept() as u64 + 1, ChannelKey(0), entry(event, media_type, payload));
            let record = &history[message];
            assert_eq!(record.event(), Some(event).filter(|event| !event.is_empty()));
            assert_eq!(record.media_type(), Some(media_type).filter(|media_type| !media_type.is_empty()));
            assert_eq!(record.payload(), payload);
            assert_eq!(record.is_text(), text);
            assert_eq!((record.time_ms, record.born()), (5, 2));
            assert_eq!(record.accounted(), event.len() + media_type.len() + payload.len() + 96);
            history.check_invariants(9);
        }
    }

    #[test]
    fn any_message_may_leave_the_order() {
        for (leaving, left) in [(0, [2, 3]), (1, [1, 3]), (2, [1, 2])] {
            let mut history = History::new();
            let keys = [1, 2, 3].map(|seq| history.keep(seq, ChannelKey(0), entry("", "", b"x")));
            assert!(!history.detach(keys[leaving]));
            history.check_invariants(3);
            assert_eq!(seqs(&history), left);
            assert_eq!(history[history.oldest().unwrap()].seq, left[0]);
            assert_eq!(history.keep(4, ChannelKey(0), entry("", "", b"")), keys[leaving], "the slot is used again");
            history.check_invariants(4);
        }
    }

    #[test]
    fn a_pinned_message_stays_readable_until_the_last_pin_goes() {
        let mut history = History::new();
        let message = history.keep(1, ChannelKey(8), entry("", "", b"abc"));
        history.pin(message);
        history.pin(message);
        assert_eq!(history.unpin(message), None);
        assert!(history.detach(message), "it is pinned");
        assert_eq!((history.bytes(), history.detached_bytes()), (0, 99));
        assert_eq!(history[message].payload(), b"abc");
        assert_eq!(history.oldest(), None);
        history.check_invariants(1);
        assert_eq!(history.unpin(message), Some(ChannelKey(8)));
        assert_eq!(history.detached_bytes(), 0);
        history.check_invariants(1);
    }

    #[test]
    fn a_kept_message_outlives_its_pins() {
        let mut history = History::new();
        let message = history.keep(1, ChannelKey(0), entry("", "", b""));
        history.pin(message);
        assert_eq!(history.unpin(message), None);
        assert_eq!(history.kept(), 1);
        history.check_invariants(1);
    }
}
