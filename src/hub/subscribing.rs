//! Subscribers: where each stands, which channels it reads, and what it is told when messages it
//! had not read are gone.
//!
//! Invariant: a subscriber is in a channel's list exactly when the channel is in the subscriber's;
//! each of the two entries names the place of the other, so that either is mended in O(1).

use super::channels::{Channels, Full};
use super::{ChannelKey, Hub};
use crate::cursor::{After, Cursor};
use crate::gap::{Gap, GapReason};

/// What the hub knows of one subscriber.
#[derive(Debug, Default)]
pub(super) struct Subscriber {
    /// Every message of its channels up to here was taken, or is gone.
    pub(super) cursor: u64,
    /// The count of evictions when it last heard of all its losses.
    told: u64,
    /// What it reads.
    places: Places,
}

// There is one for every connection, idle ones included.
const _: () = assert!(size_of::<Subscriber>() <= 32);

/// The channels of one subscriber, sorted by key. Nearly everybody has one.
#[derive(Debug)]
enum Places {
    One([Place; 1]),
    /// Any other number; none at all takes no memory.
    Many(Box<[Place]>),
}

impl Default for Places {
    fn default() -> Places {
        Places::Many(Box::default())
    }
}

/// A channel, and where in its list the subscriber stands.
#[derive(Copy, Clone, Debug)]
struct Place {
    channel: ChannelKey,
    nth: u32,
}

impl Places {
    fn as_slice(&self) -> &[Place] {
        match self {
            Places::One(place) => place,
            Places::Many(places) => places,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Place] {
        match self {
            Places::One(place) => place,
            Places::Many(places) => places,
        }
    }
}

/// Where a subscriber starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Where it stands: everything after this place follows. After a gap, where delivery goes on.
    pub cursor: Cursor,
    /// What it has to be told first.
    pub gap: Option<Gap>,
}

/// Why a subscriber was not attached.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SubscribeRefused {
    /// Every channel keeps a message or has a subscriber.
    ChannelsFull,
}

impl Hub {
    /// Finds the place `after` and attaches subscriber `key` there, in one step, to these
    /// channels, which are sorted and distinct, instead of any it had. If refused, nothing changes.
    pub fn subscribe(&mut self, key: u32, channels: &[String], after: &After) -> Result<Start, SubscribeRefused> {
        debug_assert!(channels.is_sorted_by(|a, b| a < b), "a channel set is sorted and distinct");
        let mut held = self.channels.hold_all(channels).map_err(|Full| SubscribeRefused::ChannelsFull)?;
        let (seq, gap) = self.start(&held, after);
        self.attach(key, &mut held);
        self.stand(key, seq);
        held.into_iter().for_each(|channel| self.channels.release(channel));
        Ok(Start { cursor: self.cursor(seq), gap })
    }

    /// Attaches an attached subscriber to further channels, which start after its cursor. The
    /// caller moves the cursor of one that has everything to the head before.
    ///
    /// The gap is what the further channels have lost after that cursor, or what is still to be
    /// told of the old ones.
    pub fn widen(&mut self, key: u32, channels: &[String]) -> Result<Start, SubscribeRefused> {
        debug_assert!(channels.is_sorted_by(|a, b| a < b), "a channel set is sorted and distinct");
        let held = self.channels.hold_all(channels).map_err(|Full| SubscribeRefused::ChannelsFull)?;
        let seq = self.cursor_of(key);
        let mut all: Vec<ChannelKey> = self.channels_of(key).collect();
        let further = |channel: &&ChannelKey| all.binary_search(channel).is_err();
        let lost = held.iter().filter(further).any(|&channel| self.channels[channel].lost > seq);
        let lost = lost || self.has_loss(key);
        all.extend_from_slice(&held);
        all.sort_unstable();
        all.dedup();
        let gap = lost.then(|| self.gap(&all, seq, self.cursor(seq).to_string(), GapReason::Evicted));
        self.attach(key, &mut all);
        let seq = gap.as_ref().map_or(seq, |gap| gap.cursor.seq);
        if gap.is_some() {
            self.stand(key, seq);
        }
        held.into_iter().for_each(|channel| self.channels.release(channel));
        Ok(Start { cursor: self.cursor(seq), gap })
    }

    /// Takes a subscriber out of some of its channels. Its cursor stays.
    pub fn narrow(&mut self, key: u32, channels: &[String]) {
        if self.channel_count(key) == 0 {
            return;
        }
        let leaves = |channel: &ChannelKey| channels.iter().any(|name| **name == *self.channels[*channel].name);
        let mut left: Vec<ChannelKey> = self.channels_of(key).filter(|channel| !leaves(channel)).collect();
        self.attach(key, &mut left);
    }

    /// Takes a subscriber out of all its channels. Nothing happens if it has none.
    pub fn unsubscribe(&mut self, key: u32) {
        if self.channel_count(key) > 0 {
            self.attach(key, &mut []);
        }
    }

    /// Who reads this channel: keys, each with a number that is the hub's own.
    pub fn subscribers(&self, channel: ChannelKey) -> &[(u32, u32)] {
        &self.channels[channel].subscribers
    }

    /// Where this subscriber stands.
    pub fn cursor_of(&self, key: u32) -> u64 {
        self.subscribers.get(key as usize).map_or(0, |subscriber| subscriber.cursor)
    }

    /// This subscriber has taken everything of its channels up to number `seq`. Ask for its `loss`
    /// before: one up to there is never told after.
    pub fn set_cursor(&mut self, key: u32, seq: u64) {
        debug_assert!(seq <= self.head(), "nobody has read what is not written");
        if let Some(subscriber) = self.subscribers.get_mut(key as usize) {
            subscriber.cursor = seq;
        }
    }

    /// The channels this subscriber reads, sorted by key.
    pub fn channels_of(&self, key: u32) -> impl Iterator<Item = ChannelKey> {
        self.places(key).iter().map(|place| place.channel)
    }

    /// How many channels this subscriber reads.
    pub fn channel_count(&self, key: u32) -> usize {
        self.places(key).len()
    }

    /// What this subscriber lost since it was last told, if anything: said once. It stands at the
    /// gap's cursor then.
    pub fn loss(&mut self, key: u32) -> Option<Gap> {
        if !self.has_loss(key) {
            return None;
        }
        let seq = self.cursor_of(key);
        let channels: Vec<ChannelKey> = self.channels_of(key).collect();
        let gap = self.gap(&channels, seq, self.cursor(seq).to_string(), GapReason::Evicted);
        self.stand(key, gap.cursor.seq);
        Some(gap)
    }

    /// Within a channel the oldest goes first, so if anything was evicted since the last telling,
    /// `lost` is such a message; and it was not read if it is after the cursor.
    pub fn has_loss(&self, key: u32) -> bool {
        let Some(subscriber) = self.subscribers.get(key as usize) else { return false };
        subscriber.places.as_slice().iter().any(|place| {
            let channel = &self.channels[place.channel];
            channel.lost_at > subscriber.told && channel.lost > subscriber.cursor
        })
    }

    /// Where a subscriber of these channels starts, and what it is told first.
    fn start(&self, channels: &[ChannelKey], after: &After) -> (u64, Option<Gap>) {
        let gap = match after {
            After::Now => return (self.head(), None),
            After::Earliest => return (self.before_first(channels, 0), None),
            After::Unknown(text) => self.gap(channels, 0, text.clone(), GapReason::Unknown),
            After::At(at) if at.epoch != self.epoch() => self.gap(channels, 0, at.to_string(), GapReason::Epoch),
            After::At(at) if at.seq > self.head() => self.gap(channels, 0, at.to_string(), GapReason::Future),
            After::At(at) if at.seq < self.lost(channels) => {
                self.gap(channels, at.seq, at.to_string(), GapReason::Evicted)
            }
            After::At(at) => return (at.seq, None),
        };
        (gap.cursor.seq, Some(gap))
    }

    fn gap(&self, channels: &[ChannelKey], seq: u64, after: String, reason: GapReason) -> Gap {
        Gap {
            after,
            through: self.cursor(self.lost(channels)),
            cursor: self.cursor(self.before_first(channels, seq)),
            reason,
        }
    }

    /// "The highest number these channels have lost in this epoch."
    fn lost(&self, channels: &[ChannelKey]) -> u64 {
        channels.iter().map(|&channel| self.channels[channel].lost).max().unwrap_or(0)
    }

    /// "Just before the oldest kept message of the set that is after the asked cursor, or the head
    /// if there is none."
    fn before_first(&self, channels: &[ChannelKey], seq: u64) -> u64 {
        let first = channels.iter().filter_map(|&channel| self.next_after(channel, seq));
        first.map(|message| self.seq(message) - 1).min().unwrap_or(self.head())
    }

    /// The subscriber is here, and has heard of every loss so far.
    fn stand(&mut self, key: u32, seq: u64) {
        let told = self.evictions;
        let subscriber = &mut self.subscribers[key as usize];
        (subscriber.cursor, subscriber.told) = (seq, told);
    }

    fn places(&self, key: u32) -> &[Place] {
        self.subscribers.get(key as usize).map_or(&[], |subscriber| subscriber.places.as_slice())
    }

    /// Makes these the channels of a subscriber, which may be new. O(channels, old and new), and a
    /// sort. The new ones are held or among the old; the old ones may be gone after this.
    fn attach(&mut self, key: u32, channels: &mut [ChannelKey]) {
        if self.subscribers.len() <= key as usize {
            self.subscribers.resize_with(key as usize + 1, Subscriber::default);
        }
        channels.sort_unstable();
        let old = std::mem::take(&mut self.subscribers[key as usize].places);
        for place in old.as_slice() {
            self.leave(*place);
        }
        let mut enter = |own: usize, channel| enter(&mut self.channels, channel, key, own as u32);
        self.subscribers[key as usize].places = match *channels {
            [channel] => Places::One([enter(0, channel)]),
            _ => Places::Many(channels.iter().enumerate().map(|(own, &channel)| enter(own, channel)).collect()),
        };
        // Only now, so that a channel in both is not forgotten in between.
        for place in old.as_slice() {
            self.channels[place.channel].shrink();
            self.channels.rest(place.channel);
        }
    }

    /// Takes one entry out of a channel's list, and mends the place of the one that moves there.
    fn leave(&mut self, place: Place) {
        let list = &mut self.channels[place.channel].subscribers;
        list.swap_remove(place.nth as usize);
        if let Some(&(moved, own)) = list.get(place.nth as usize) {
            self.subscribers[moved as usize].places.as_mut_slice()[own as usize].nth = place.nth;
        }
    }

    pub(super) fn check_subscribers(&self) {
        let mut attached = 0;
        for (key, subscriber) in self.subscribers.iter().enumerate() {
            assert!(subscriber.cursor <= self.head() && subscriber.told <= self.evictions);
            let places = subscriber.places.as_slice();
            assert!(places.is_sorted_by(|a, b| a.channel < b.channel), "channels are sorted and distinct");
            for (own, place) in places.iter().enumerate() {
                let entry = self.channels[place.channel].subscribers[place.nth as usize];
                assert_eq!(entry, (key as u32, own as u32), "each entry names the other");
            }
            attached += places.len();
        }
        let entries: usize = self.channels.iter().map(|(_, channel)| channel.subscribers.len()).sum();
        assert_eq!(entries, attached, "nobody is listed who is not attached");
    }
}

/// Puts a subscriber at the end of a channel's list.
fn enter(channels: &mut Channels, channel: ChannelKey, key: u32, own: u32) -> Place {
    let list = &mut channels[channel].subscribers;
    list.push((key, own));
    Place { channel, nth: list.len() as u32 - 1 }
}
