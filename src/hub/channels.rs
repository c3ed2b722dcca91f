//! The channels: found by name, each with its messages, its subscribers and its marks.
//!
//! Knows nothing of what a message says or where a subscriber stands. A channel lives while it is
//! held, has a subscriber or keeps a message. After that it rests: it is forgotten at once if its
//! marks say nothing that the marks of all forgotten channels do not say already; otherwise only
//! when another channel needs the room, the longest resting first.
//!
//! Invariant: marks never sink, so a loss is never hidden. A forgotten channel's marks live on in
//! `forgotten_newest` and `forgotten_lost`, which every channel takes at birth.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Index, IndexMut};
use std::sync::Arc;

use super::log::Standing;
use super::{ChannelKey, MessageKey};
use crate::slab::Slab;

/// One channel: an index into the log.
#[derive(Debug)]
pub struct Channel {
    /// Its name, shared with the index of names.
    pub name: Arc<str>,
    /// Who reads it: the subscriber, and the place of this channel among the subscriber's own.
    pub subscribers: Vec<(u32, u32)>,
    /// The kept messages, oldest first.
    pub messages: VecDeque<MessageKey>,
    /// What `messages` count for.
    pub bytes: usize,
    /// The highest number ever published here, kept or not.
    pub newest: u64,
    /// The highest number evicted by a limit. What DELETE takes is not a loss.
    pub lost: u64,
    /// The hub's count of evictions when this channel last had one, 0 if it never had.
    pub lost_at: u64,
    /// Reasons to stay besides messages and subscribers: proposals not yet decided, detached
    /// messages still being read, a set being changed.
    holds: u32,
    /// The moment it began to rest, by the count of such moments; 0 while it does not.
    resting_since: u64,
}

impl Channel {
    /// How it stands, for the log's decision.
    pub fn standing(&self) -> Standing {
        Standing { newest: self.newest, subscribers: self.subscribers.len() as u32 }
    }

    /// Nobody and nothing needs it.
    fn may_rest(&self) -> bool {
        self.holds == 0 && self.subscribers.is_empty() && self.messages.is_empty()
    }

    /// Gives memory back once most of it is unused; amortised, for it takes as many removals.
    pub fn shrink(&mut self) {
        if self.subscribers.len() < self.subscribers.capacity() / 4 {
            self.subscribers.shrink_to(self.subscribers.len() * 2);
        }
        if self.messages.len() < self.messages.capacity() / 4 {
            self.messages.shrink_to(self.messages.len() * 2);
        }
    }
}

/// All channels known.
#[derive(Debug)]
pub struct Channels {
    slots: Slab<Channel>,
    /// Sorted for paging; ordered the same way in every run; and no hash to flood.
    names: BTreeMap<Arc<str>, ChannelKey>,
    /// The resting ones by the moment they began to.
    resting: BTreeMap<u64, ChannelKey>,
    /// How many times a channel began to rest.
    rests: u64,
    max: usize,
    forgotten: u64,
    forgotten_newest: u64,
    forgotten_lost: u64,
}

/// There are `channels_max` channels, and each has a subscriber, a message, or a hold.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Full;

impl Channels {
    /// None, and never more than `max`.
    pub fn new(max: usize) -> Channels {
        Channels {
            slots: Slab::new(),
            names: BTreeMap::new(),
            resting: BTreeMap::new(),
            rests: 0,
            max,
            forgotten: 0,
            forgotten_newest: 0,
            forgotten_lost: 0,
        }
    }

    /// The channel of this name, if it is known.
    pub fn find(&self, name: &str) -> Option<ChannelKey> {
        self.names.get(name).copied()
    }

    /// The channel of this name, born if need be, held until `release`.
    pub fn hold(&mut self, name: &str) -> Result<ChannelKey, Full> {
        let key = match self.find(name) {
            Some(key) => key,
            None => self.bear(name)?,
        };
        self.hold_again(key);
        Ok(key)
    }

    /// Holds all these channels, or changes nothing. The names are distinct.
    pub fn hold_all<S: AsRef<str>>(&mut self, names: &[S]) -> Result<Vec<ChannelKey>, Full> {
        if let [name] = names {
            return Ok(vec![self.hold(name.as_ref())?]);
        }
        let known = names.iter().filter_map(|name| self.find(name.as_ref()));
        let (mut missing, mut waking) = (names.len(), 0);
        for key in known {
            missing -= 1;
            waking += usize::from(self[key].resting_since != 0);
        }
        // The resting ones of this very set are no room.
        if missing > self.max.saturating_sub(self.slots.len()) + self.resting.len() - waking {
            return Err(Full);
        }
        // The known ones first, so that none is forgotten for the others.
        for name in names {
            if let Some(key) = self.find(name.as_ref()) {
                self.hold_again(key);
            }
        }
        let mut held = Vec::with_capacity(names.len());
        for name in names {
            held.push(match self.find(name.as_ref()) {
                Some(key) => key,
                None => self.hold(name.as_ref())?,
            });
        }
        Ok(held)
    }

    /// One more reason for this channel to stay.
    pub fn hold_again(&mut self, key: ChannelKey) {
        let channel = &mut self.slots[key.0];
        channel.holds += 1;
        let since = std::mem::take(&mut channel.resting_since);
        if since != 0 {
            self.resting.remove(&since);
        }
    }

    /// One reason less. The channel may be gone after this.
    pub fn release(&mut self, key: ChannelKey) {
        self.slots[key.0].holds -= 1;
        self.rest(key);
    }

    /// To be called when a channel lost its last subscriber or message: if nothing else needs it,
    /// it rests or is gone.
    pub fn rest(&mut self, key: ChannelKey) {
        let channel = &mut self.slots[key.0];
        if !channel.may_rest() || channel.resting_since != 0 {
            return;
        }
        if channel.newest <= self.forgotten_newest && channel.lost <= self.forgotten_lost {
            self.forget(key);
            return;
        }
        self.rests += 1;
        channel.resting_since = self.rests;
        self.resting.insert(self.rests, key);
    }

    /// Every channel from this name on, sorted by name.
    pub fn range<'a>(&'a self, from: Bound<&'a str>) -> impl Iterator<Item = ChannelKey> + 'a {
        self.names.range::<str, _>((from, Bound::Unbounded)).map(|(_, &key)| key)
    }

    /// How many are known, the resting ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many were forgotten so far.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Every channel.
    pub fn iter(&self) -> impl Iterator<Item = (ChannelKey, &Channel)> {
        self.slots.iter().map(|(slot, channel)| (ChannelKey(slot), channel))
    }

    fn bear(&mut self, name: &str) -> Result<ChannelKey, Full> {
        if self.slots.len() >= self.max {
            let (_, &longest_resting) = self.resting.first_key_value().ok_or(Full)?;
            self.forget(longest_resting);
        }
        let name: Arc<str> = name.into();
        let key = ChannelKey(self.slots.insert(Channel {
            name: Arc::clone(&name),
            subscribers: Vec::new(),
            messages: VecDeque::new(),
            bytes: 0,
            newest: self.forgotten_newest,
            lost: self.forgotten_lost,
            lost_at: 0,
            holds: 0,
            resting_since: 0,
        }));
        self.names.insert(name, key);
        Ok(key)
    }

    fn forget(&mut self, key: ChannelKey) {
        let Some(channel) = self.slots.remove(key.0) else { return };
        self.names.remove(&channel.name);
        self.resting.remove(&channel.resting_since);
        self.forgotten_newest = self.forgotten_newest.max(channel.newest);
        self.forgotten_lost = self.forgotten_lost.max(channel.lost);
        self.forgotten += 1;
    }

    /// Panics if the channels contradict themselves. `holds` tells how often each is held.
    pub fn check_invariants(&self, head: u64, holds: &BTreeMap<ChannelKey, u32>) {
        self.slots.check_invariants();
        assert!(self.slots.len() <= self.max, "channels are bounded");
        assert_eq!(self.names.len(), self.slots.len(), "a channel has one name");
        let mut resting = 0;
        for (key, channel) in self.iter() {
            assert_eq!(self.find(&channel.name), Some(key), "a channel is found by its name");
            assert!(channel.lost <= channel.newest && channel.newest <= head, "marks are numbers given");
            assert_eq!(channel.holds, holds.get(&key).copied().unwrap_or(0), "every hold has its reason");
            assert_eq!(channel.resting_since != 0, channel.may_rest(), "a channel rests when nothing needs it");
            if channel.resting_since != 0 {
                resting += 1;
                assert_eq!(self.resting.get(&channel.resting_since), Some(&key), "a resting channel is filed");
            }
        }
        assert_eq!(resting, self.resting.len(), "only resting channels are filed");
        assert!(holds.keys().all(|key| self.slots.get(key.0).is_some()), "a held channel stays");
        assert!(self.forgotten_lost <= self.forgotten_newest && self.forgotten_newest <= head);
    }
}

impl Index<ChannelKey> for Channels {
    type Output = Channel;

    fn index(&self, key: ChannelKey) -> &Channel {
        &self.slots[key.0]
    }
}

impl IndexMut<ChannelKey> for Channels {
    fn index_mut(&mut self, key: ChannelKey) -> &mut Channel {
        &mut self.slots[key.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(channels: &Channels, held: &[ChannelKey]) {
        let mut holds = BTreeMap::new();
        for &key in held {
            *holds.entry(key).or_insert(0) += 1;
        }
        channels.check_invariants(u64::MAX, &holds);
    }

    /// A channel with this mark that rests.
    fn resting(channels: &mut Channels, name: &str, newest: u64, lost: u64) {
        let key = channels.hold(name).unwrap();
        (channels[key].newest, channels[key].lost) = (newest, lost);
        channels.release(key);
    }

    #[test]
    fn a_channel_without_a_trace_is_gone_at_once() {
        let mut channels = Channels::new(9);
        let key = channels.hold("a").unwrap();
        assert_eq!(channels.hold("a"), Ok(key));
        channels.release(key);
        check(&channels, &[key]);
        assert_eq!(channels.find("a"), Some(key));
        channels.release(key);
        check(&channels, &[]);
        assert_eq!((channels.find("a"), channels.len()), (None, 0));
    }

    #[test]
    fn marks_outlive_the_channel() {
        let mut channels = Channels::new(2);
        resting(&mut channels, "a", 5, 3);
        resting(&mut channels, "b", 9, 1);
        check(&channels, &[]);
        assert_eq!(channels.len(), 2, "a trace stays while there is room");
        let key = channels.hold("c").unwrap();
        assert_eq!(channels.find("a"), None, "the longest resting went");
        assert_eq!((channels[key].newest, channels[key].lost), (5, 3), "a newborn may have been the forgotten");
        let other = channels.hold("d").unwrap();
        assert_eq!((channels[other].newest, channels[other].lost), (9, 3));
        assert_eq!(channels.hold("e"), Err(Full));
        check(&channels, &[key, other]);
        channels.release(key);
        assert_eq!(channels.find("c"), None, "its marks say nothing new");
        assert_eq!(channels.forgotten(), 3);
        check(&channels, &[other]);
    }

    #[test]
    fn memory_is_given_back_once_three_quarters_of_it_are_unused() {
        let mut channels = Channels::new(1);
        let key = channels.hold("a").unwrap();
        let channel = &mut channels[key];
        channel.subscribers = Vec::with_capacity(64);
        channel.messages = VecDeque::with_capacity(64);
        for (left, room) in [(64, 64), (16, 64), (15, 30), (8, 30), (7, 30), (6, 12), (0, 0)] {
            channel.subscribers.resize(left, (0, 0));
            channel.messages.resize(left, MessageKey(0));
            channel.shrink();
            assert_eq!((channel.subscribers.capacity(), channel.messages.capacity()), (room, room), "{left} left");
        }
    }

    #[test]
    fn holding_all_changes_all_or_nothing() {
        let mut channels = Channels::new(3);
        resting(&mut channels, "a", 1, 0);
        resting(&mut channels, "b", 2, 0);
        let kept = channels.hold("k").unwrap();
        assert_eq!(channels.hold_all(&["a", "x", "y"]), Err(Full), "only b could make room");
        check(&channels, &[kept]);
        assert_eq!(channels.len(), 3);
        let held = channels.hold_all(&["a", "x"]).unwrap();
        assert_eq!(held, [channels.find("a").unwrap(), channels.find("x").unwrap()]);
        assert_eq!(channels.find("b"), None);
        check(&channels, &[kept, held[0], held[1]]);
    }
}
