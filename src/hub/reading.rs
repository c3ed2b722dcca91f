//! Reading: one channel from a place on, many channels merged, one message, the list of channels.
//!
//! Nothing here changes anything, and nothing but the merge allocates.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Bound;

use super::{ChannelKey, Hub, MessageKey};
use crate::message::{Message, Payload};

/// So many messages are looked at one by one, from the newest back, before the place of one is searched for.
const NEWEST: usize = 4;

/// One line of the list of channels.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo<'a> {
    /// The channel itself.
    pub key: ChannelKey,
    /// Its name.
    pub name: &'a str,
    /// How many messages it keeps.
    pub messages: usize,
    /// What they count for.
    pub bytes: usize,
    /// The numbers of the oldest and the newest message kept, if any is.
    pub oldest: Option<u64>,
    /// See `oldest`.
    pub newest: Option<u64>,
}

impl Hub {
    /// The name of a channel.
    pub fn channel_name(&self, channel: ChannelKey) -> &str {
        &self.channels[channel].name
    }

    /// The channel of this name, if it is known.
    #[cfg(test)]
    pub fn find(&self, name: &str) -> Option<ChannelKey> {
        self.channels.find(name)
    }

    /// A kept or pinned message.
    pub fn message(&self, message: MessageKey) -> Message<'_> {
        let record = &self.history[message];
        let payload = record.payload();
        Message {
            id: self.cursor(record.seq),
            channel: self.channel_name(record.channel),
            event: record.event(),
            media_type: record.media_type(),
            time_ms: record.time_ms,
            payload: match std::str::from_utf8(payload) {
                Ok(text) if record.is_text() => Payload::Text(text),
                _ => Payload::Binary(payload),
            },
        }
    }

    /// The number of a kept or pinned message.
    pub fn seq(&self, message: MessageKey) -> u64 {
        self.history[message].seq
    }

    /// The first message of this channel after number `seq`.
    pub fn next_after(&self, channel: ChannelKey, seq: u64) -> Option<MessageKey> {
        let messages = &self.channels[channel].messages;
        // Nearly everybody has everything, or everything but the newest.
        if self.history[*messages.back()?].seq <= seq {
            return None;
        }
        messages.get(self.place_after(channel, seq)).copied()
    }

    /// True if a subscriber's channels keep messages after its cursor.
    pub fn has_news(&self, key: u32) -> bool {
        let seq = self.cursor_of(key);
        let newest = |channel| self.channels[channel].messages.back().map(|&message| self.seq(message));
        self.channels_of(key).filter_map(newest).any(|newest| newest > seq)
    }

    /// All messages of this channel after number `seq`, oldest first.
    pub fn following(&self, channel: ChannelKey, seq: u64) -> impl DoubleEndedIterator<Item = MessageKey> {
        self.channels[channel].messages.range(self.place_after(channel, seq)..).copied()
    }

    /// All messages of all channels of a subscriber after its cursor, oldest first. O(channels) to
    /// start, O(log channels) a message; for one channel, `following` is cheaper.
    pub fn merged_after(&self, key: u32) -> Merged<'_> {
        let seq = self.cursor_of(key);
        let first = |channel| {
            let place = self.place_after(channel, seq);
            let message = *self.channels[channel].messages.get(place)?;
            Some(Reverse((self.seq(message), channel, place)))
        };
        Merged { hub: self, next: self.channels_of(key).filter_map(first).collect() }
    }

    /// The highest number below `seq` that this channel had, kept or lost, 0 if none: so if `seq` is
    /// its next message for any cursor, it is that for every cursor from there up.
    pub fn before(&self, channel: ChannelKey, seq: u64) -> u64 {
        let messages = &self.channels[channel].messages;
        // Numbers begin with 1.
        let place = self.place_after(channel, seq.saturating_sub(1));
        match place.checked_sub(1) {
            Some(before) => self.seq(messages[before]),
            None => self.channels[channel].lost.min(seq.saturating_sub(1)),
        }
    }

    /// The channels whose names begin with `prefix`, after the name `after`, sorted by name. What
    /// has neither messages nor subscribers is left out, but was looked at: `looks` counts it too.
    pub fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        max: usize,
        looks: &'a mut usize,
    ) -> impl Iterator<Item = ChannelInfo<'a>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let begins = move |key: &ChannelKey| self.channel_name(*key).starts_with(prefix);
        let range = self.channels.range(from).take_while(begins).inspect(|_| *looks += 1);
        range.filter_map(|key| self.info(key)).take(max)
    }

    fn info(&self, key: ChannelKey) -> Option<ChannelInfo<'_>> {
        let channel = &self.channels[key];
        if channel.messages.is_empty() && channel.subscribers.is_empty() {
            return None;
        }
        Some(ChannelInfo {
            key,
            name: &channel.name,
            messages: channel.messages.len(),
            bytes: channel.bytes,
            oldest: channel.messages.front().map(|&message| self.seq(message)),
            newest: channel.messages.back().map(|&message| self.seq(message)),
        })
    }

    /// The place in the channel's messages of the first one after number `seq`.
    fn place_after(&self, channel: ChannelKey, seq: u64) -> usize {
        let messages = &self.channels[channel].messages;
        // Nearly everybody has everything but the newest.
        match messages.iter().rev().take(NEWEST).position(|&message| self.seq(message) <= seq) {
            Some(after) => messages.len() - after,
            None => messages.partition_point(|&message| self.seq(message) <= seq),
        }
    }
}

/// See `Hub::merged_after`.
#[derive(Debug)]
pub struct Merged<'a> {
    hub: &'a Hub,
    /// The next message of each channel that has one: its number, channel, and place in it.
    next: BinaryHeap<Reverse<(u64, ChannelKey, usize)>>,
}

impl Iterator for Merged<'_> {
    type Item = MessageKey;

    fn next(&mut self) -> Option<MessageKey> {
        let mut least = self.next.peek_mut()?;
        let Reverse((_, channel, place)) = *least;
        let messages = &self.hub.channels[channel].messages;
        match messages.get(place + 1) {
            Some(&following) => *least = Reverse((self.hub.seq(following), channel, place + 1)),
            None => drop(PeekMut::pop(least)),
        }
        Some(messages[place])
    }
}
