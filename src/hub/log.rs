//! The log: takes proposals in order and decides what becomes of each.
//!
//! It numbers the messages and settles conditions and idempotency keys itself, not its caller
//! before it, so that a log on disk can keep them and two nodes on one shared log cannot both
//! win the same condition. It keeps no messages: history is served from the caller's memory.
//! It knows nothing of subscribers or of how a channel is stored; what a decision needs of a
//! channel it asks for when it decides, after everything decided before has been applied.
//!
//! Invariant: numbers start at 1, grow by 1 per accepted proposal, and are never used twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{ChannelKey, Ticket};
use crate::cursor::{Cursor, Epoch, SEQ_MAX};

/// Where messages get their numbers. One variant a kind of log; memory is the only one for now.
#[derive(Debug)]
pub enum Log {
    /// Lives and dies with the process. "Taken" means: in this process's memory.
    Memory(Memory),
}

impl Log {
    /// Takes a proposal. Nothing is decided before `commit`.
    pub fn append(&mut self, proposal: Proposal) {
        let Log::Memory(memory) = self;
        memory.appended.push_back(proposal);
    }

    /// Everything appended so far may be decided: once per turn, however many there are.
    pub fn commit(&mut self) {
        let Log::Memory(memory) = self;
        memory.committed = memory.appended.len();
    }

    /// Decides the next committed proposal. `standing` tells how its channel stands now.
    pub fn next_event(&mut self, standing: impl FnOnce(ChannelKey) -> Standing) -> Option<LogEvent> {
        let Log::Memory(memory) = self;
        memory.next_event(standing)
    }

    /// The life of the log its numbers belong to.
    pub fn epoch(&self) -> Epoch {
        let Log::Memory(memory) = self;
        memory.epoch
    }

    /// The highest number given so far, 0 if none.
    pub fn head(&self) -> u64 {
        let Log::Memory(memory) = self;
        memory.head
    }

    /// The idempotency keys it remembers.
    pub fn keys(&self) -> &Keys {
        let Log::Memory(memory) = self;
        &memory.keys
    }

    /// The channels of the proposals not decided yet, one entry a proposal.
    pub fn pending(&self) -> impl Iterator<Item = ChannelKey> {
        let Log::Memory(memory) = self;
        memory.appended.iter().map(|proposal| proposal.channel)
    }

    /// Panics if the log contradicts itself.
    pub fn check_invariants(&self) {
        let Log::Memory(memory) = self;
        assert!(memory.committed <= memory.appended.len(), "only what was appended is committed");
        assert!(memory.head <= SEQ_MAX);
        memory.keys.check_invariants(memory.head);
    }
}

/// A message on its way into the log.
#[derive(Debug)]
pub struct Proposal {
    /// Whom to answer, if anybody.
    pub ticket: Option<Ticket>,
    /// The channel; the caller keeps it alive until the decision.
    pub channel: ChannelKey,
    /// What is to be published.
    pub entry: Entry,
    /// Publish only if the channel's newest message is not after this place.
    pub only_after: Option<Cursor>,
    /// The idempotency key, if one was given.
    pub key: Option<Key>,
    /// Publish nothing; only a remembered key may answer.
    pub replay_only: bool,
}

/// The content of a message, in one allocation.
#[derive(Debug)]
pub struct Entry {
    /// Event name, media type, payload, one behind the other.
    pub bytes: Box<[u8]>,
    /// Bytes of the event name; 0 is none.
    pub event_len: u8,
    /// Bytes of the media type; 0 is none.
    pub type_len: u8,
    /// Unix milliseconds, for people.
    pub time_ms: u64,
    /// The same moment on the clock that never goes back.
    pub monotonic_ms: u64,
}

/// What a decision needs to know of a channel.
#[derive(Copy, Clone, Debug)]
pub struct Standing {
    /// The highest number ever published there, kept or not; 0 if none.
    pub newest: u64,
    /// How many subscribers are attached.
    pub subscribers: u32,
}

/// A proposal that is decided.
#[derive(Debug)]
pub struct LogEvent {
    /// Whom to answer, if anybody.
    pub ticket: Option<Ticket>,
    /// The proposal's channel.
    pub channel: ChannelKey,
    /// What became of it.
    pub decision: Decision,
}

/// What became of a proposal.
#[derive(Debug)]
pub enum Decision {
    /// It is message `seq`.
    Accepted { seq: u64, entry: Entry },
    /// The same was accepted before, under the same key.
    Repeated { seq: u64, subscribers: u32 },
    /// Something else was accepted before, under the same key.
    Mismatch,
    /// The channel has a message after `only_after`, number `newest`, or the place means nothing here.
    Moved { newest: u64 },
    /// It would have been published, were it not for `replay_only`.
    Draining,
    /// The log can take nothing.
    Failed,
}

/// The log in memory: a queue, a counter, and the keys.
#[derive(Debug)]
pub struct Memory {
    epoch: Epoch,
    head: u64,
    appended: VecDeque<Proposal>,
    /// How many of `appended`, from the front, may be decided.
    committed: usize,
    keys: Keys,
}

impl Memory {
    /// An empty log, remembering at most `keys_max` idempotency keys for `keys_age_ms`.
    pub fn new(epoch: Epoch, keys_max: usize, keys_age_ms: u64) -> Memory {
        let keys = Keys::new(keys_max, keys_age_ms);
        Memory { epoch, head: 0, appended: VecDeque::new(), committed: 0, keys }
    }

    fn next_event(&mut self, standing: impl FnOnce(ChannelKey) -> Standing) -> Option<LogEvent> {
        self.committed = self.committed.checked_sub(1)?;
        let proposal = self.appended.pop_front()?;
        let (ticket, channel) = (proposal.ticket, proposal.channel);
        let standing = standing(channel);
        Some(LogEvent { ticket, channel, decision: self.decide(proposal, standing) })
    }

    /// The order is the contract's: a remembered key is "looked up before any condition, also
    /// while draining".
    fn decide(&mut self, proposal: Proposal, standing: Standing) -> Decision {
        let Proposal { entry, only_after, key, replay_only, .. } = proposal;
        if let Some(key) = &key
            && let Some(known) = self.keys.recall(&key.name, entry.monotonic_ms)
        {
            return match known.fingerprint == key.fingerprint {
                true => Decision::Repeated { seq: known.seq, subscribers: known.subscribers },
                false => Decision::Mismatch,
            };
        }
        if replay_only {
            return Decision::Draining;
        }
        if only_after.is_some_and(|cursor| !self.holds(cursor, standing.newest)) {
            return Decision::Moved { newest: standing.newest };
        }
        if self.head == SEQ_MAX {
            return Decision::Failed;
        }
        self.head += 1;
        if let Some(key) = key {
            self.keys.remember(key, self.head, standing.subscribers, entry.monotonic_ms);
        }
        Decision::Accepted { seq: self.head, entry }
    }

    /// "A cursor of another epoch or from the future: 412", for it says nothing about this log.
    fn holds(&self, cursor: Cursor, newest: u64) -> bool {
        cursor.epoch == self.epoch && cursor.seq <= self.head && newest <= cursor.seq
    }
}

/// An idempotency key as a publisher gave it, with what it stands for.
#[derive(Debug)]
pub struct Key {
    name: Arc<str>,
    fingerprint: [u8; 20],
}

impl Key {
    /// The key `key` of `channel`, standing for `entry`. It goes by the channel's name, for it
    /// outlives the channel's slot.
    pub fn new(channel: &str, key: &str, entry: &Entry) -> Key {
        // The lengths go first, so that no two entries are the same bytes.
        let mut hash = sha1_smol::Sha1::from([entry.event_len, entry.type_len]);
        hash.update(&entry.bytes);
        // Neither a channel's name nor a key has a line end in it.
        Key { name: format!("{channel}\n{key}").into(), fingerprint: hash.digest().bytes() }
    }
}

/// The keys of accepted messages: oldest first out, by age or number.
#[derive(Debug)]
pub struct Keys {
    known: BTreeMap<Arc<str>, Known>,
    /// The names of `known` in the order they came, which is the order they age in.
    order: VecDeque<Arc<str>>,
    max: usize,
    age_ms: u64,
    dropped: u64,
}

#[derive(Copy, Clone, Debug)]
struct Known {
    fingerprint: [u8; 20],
    seq: u64,
    subscribers: u32,
    since_ms: u64,
}

impl Keys {
    fn new(max: usize, age_ms: u64) -> Keys {
        Keys { known: BTreeMap::new(), order: VecDeque::new(), max, age_ms, dropped: 0 }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// How many went before their time, because there were too many.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn recall(&mut self, name: &str, now_ms: u64) -> Option<Known> {
        while let Some(oldest) = self.order.front() {
            if self.known.get(oldest).is_some_and(|known| now_ms.saturating_sub(known.since_ms) < self.age_ms) {
                break;
            }
            self.forget_oldest();
        }
        self.known.get(name).copied()
    }

    fn remember(&mut self, key: Key, seq: u64, subscribers: u32, since_ms: u64) {
        let known = Known { fingerprint: key.fingerprint, seq, subscribers, since_ms };
        self.order.push_back(Arc::clone(&key.name));
        self.known.insert(key.name, known);
        while self.order.len() > self.max {
            self.forget_oldest();
            self.dropped += 1;
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(name) = self.order.pop_front() {
            self.known.remove(&name);
        }
    }

    fn check_invariants(&self, head: u64) {
        assert!(self.order.len() <= self.max, "the keys are bounded");
        assert_eq!(self.order.len(), self.known.len(), "a key is remembered once");
        let mut before = 0;
        for name in &self.order {
            let known = self.known.get(name).expect("every name in order is known");
            assert!(before < known.seq && known.seq <= head, "keys are in the order of their messages");
            before = known.seq;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u32 = 7;

    fn log(keys_max: usize) -> Log {
        Log::Memory(Memory::new(Epoch::new(EPOCH).unwrap(), keys_max, 1000))
    }

    fn proposal(payload: &str) -> Proposal {
        let entry = Entry { bytes: payload.as_bytes().into(), event_len: 0, type_len: 0, time_ms: 0, monotonic_ms: 0 };
        Proposal { ticket: None, channel: ChannelKey(0), entry, only_after: None, key: None, replay_only: false }
    }

    fn keyed(key: &str, payload: &str, monotonic_ms: u64) -> Proposal {
        let mut proposal = proposal(payload);
        proposal.entry.monotonic_ms = monotonic_ms;
        proposal.key = Some(Key::new("news", key, &proposal.entry));
        proposal
    }

    /// Appends, commits, and tells the decision in a word.
    fn decide(log: &mut Log, proposal: Proposal, newest: u64) -> String {
        log.append(proposal);
        log.commit();
        let event = log.next_event(|_| Standing { newest, subscribers: 3 }).unwrap();
        log.check_invariants();
        match event.decision {
            Decision::Accepted { seq, .. } => format!("accepted {seq}"),
            Decision::Repeated { seq, subscribers } => format!("repeated {seq} {subscribers}"),
            Decision::Mismatch => "mismatch".into(),
            Decision::Moved { newest } => format!("moved {newest}"),
            Decision::Draining => "draining".into(),
            Decision::Failed => "failed".into(),
        }
    }

    #[test]
    fn nothing_is_decided_before_the_commit() {
        let mut log = log(0);
        log.append(proposal("a"));
        log.append(proposal("b"));
        assert!(log.next_event(|_| unreachable!()).is_none());
        log.commit();
        log.append(proposal("c"));
        let standing = Standing { newest: 0, subscribers: 0 };
        assert!(log.next_event(|_| standing).is_some());
        assert!(log.next_event(|_| standing).is_some());
        assert!(log.next_event(|_| unreachable!()).is_none(), "c waits for the next commit");
        assert_eq!(log.head(), 2);
        assert_eq!(log.pending().count(), 1);
    }

    #[test]
    fn conditions() {
        let mut log = log(0);
        for want in ["accepted 1", "accepted 2", "accepted 3", "accepted 4", "accepted 5"] {
            assert_eq!(decide(&mut log, proposal(""), 0), want);
        }
        let mut head = 5;
        for (epoch, seq, newest, passes) in [
            (EPOCH, 0, 0, true),      // nothing was ever published there
            (EPOCH, 0, 1, false),     // something was
            (EPOCH, 3, 3, true),      // exactly seen
            (EPOCH, 2, 3, false),     // moved since
            (EPOCH, 5, 3, true),      // seen, and more of other channels
            (EPOCH, 99, 3, false),    // from the future
            (EPOCH + 1, 5, 0, false), // another life
        ] {
            let mut proposal = proposal("");
            proposal.only_after = Some(Cursor { epoch: Epoch::new(epoch).unwrap(), seq });
            head += u64::from(passes);
            let want = if passes { format!("accepted {head}") } else { format!("moved {newest}") };
            assert_eq!(decide(&mut log, proposal, newest), want, "{epoch}-{seq} newest {newest}");
        }
    }

    #[test]
    fn a_key_answers_before_draining_and_before_any_condition() {
        let mut log = log(9);
        assert_eq!(decide(&mut log, keyed("k", "a", 0), 0), "accepted 1");
        let impossible = Some(Cursor { epoch: Epoch::new(1).unwrap(), seq: 0 });
        let again = Proposal { replay_only: true, only_after: impossible, ..keyed("k", "a", 0) };
        assert_eq!(decide(&mut log, again, 1), "repeated 1 3");
        let other = Proposal { replay_only: true, ..keyed("k", "b", 0) };
        assert_eq!(decide(&mut log, other, 1), "mismatch");
        let fresh = Proposal { replay_only: true, only_after: impossible, ..keyed("j", "a", 0) };
        assert_eq!(decide(&mut log, fresh, 1), "draining");
        let moved = Proposal { only_after: impossible, ..keyed("j", "a", 0) };
        assert_eq!(decide(&mut log, moved, 1), "moved 1");
        assert_eq!(decide(&mut log, keyed("j", "b", 0), 1), "accepted 2", "only what was accepted is remembered");
    }

    #[test]
    fn the_same_bytes_split_otherwise_are_another_message() {
        let mut log = log(9);
        let split = |event_len, type_len| {
            let mut proposal = proposal("abc");
            (proposal.entry.event_len, proposal.entry.type_len) = (event_len, type_len);
            proposal.key = Some(Key::new("news", "k", &proposal.entry));
            proposal
        };
        assert_eq!(decide(&mut log, split(1, 1), 0), "accepted 1");
        assert_eq!(decide(&mut log, split(1, 1), 0), "repeated 1 3");
        for (event_len, type_len) in [(0, 0), (1, 0), (0, 1), (2, 1), (1, 2)] {
            assert_eq!(decide(&mut log, split(event_len, type_len), 0), "mismatch");
        }
    }

    #[test]
    fn keys_go_by_age_and_by_number() {
        let mut log = log(2);
        assert_eq!(decide(&mut log, keyed("a", "", 0), 0), "accepted 1");
        assert_eq!(decide(&mut log, keyed("a", "", 999), 0), "repeated 1 3");
        assert_eq!(decide(&mut log, keyed("a", "", 1000), 0), "accepted 2");
        assert_eq!(decide(&mut log, keyed("b", "", 1000), 0), "accepted 3");
        assert_eq!(log.keys().dropped(), 0, "age is no loss");
        assert_eq!(decide(&mut log, keyed("c", "", 1000), 0), "accepted 4");
        assert_eq!((log.keys().len(), log.keys().dropped()), (2, 1));
        assert_eq!(decide(&mut log, keyed("a", "", 1000), 0), "accepted 5", "the oldest went");
        assert_eq!(decide(&mut log, keyed("c", "", 1000), 0), "repeated 4 3");
    }

    #[test]
    fn the_last_number_is_the_end() {
        let mut log = log(9);
        let Log::Memory(memory) = &mut log;
        memory.head = SEQ_MAX - 1;
        assert_eq!(decide(&mut log, keyed("k", "", 0), 0), format!("accepted {SEQ_MAX}"));
        assert_eq!(decide(&mut log, proposal(""), 0), "failed");
        assert_eq!(decide(&mut log, keyed("k", "", 0), 0), format!("repeated {SEQ_MAX} 3"));
    }
}
