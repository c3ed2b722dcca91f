//! What is kept, and what goes when a limit says so, when an operator says so, and when the last
//! reader of a message already gone is done with it.
//!
//! The oldest of all is always its channel's oldest, and a channel loses its oldest first. So an
//! eviction takes from two fronts, whatever the mix of channels.

use super::channels::Channel;
use super::log::Entry;
use super::{ChannelKey, Hub, MessageKey};
use crate::deadlines::{TICK_MS, tick};

impl Hub {
    /// Evicts while a limit is exceeded: messages per channel first, then age, then bytes, the
    /// oldest first.
    ///
    /// Only messages up to number `through` go, for the others were not offered to everybody yet.
    /// Past `history_bytes` and `burst_bytes_max` together there is no such mercy: the oldest of all
    /// go until the sum is met; tells how many.
    pub fn trim(&mut self, monotonic_ms: u64, through: u64) -> u64 {
        while let Some(&(seq, channel)) = self.over.first() {
            if seq > through {
                break;
            }
            self.evict(channel);
        }
        let age_ticks = self.limits.history_age_ms.div_ceil(TICK_MS);
        let bytes_max = self.limits.history_bytes;
        let burst_max = bytes_max.saturating_add(self.limits.burst_bytes_max);
        let mut unoffered = 0;
        while let Some(oldest) = self.history.oldest() {
            let record = &self.history[oldest];
            let age = tick(monotonic_ms).saturating_sub(record.born());
            let bytes = self.history.bytes();
            let offered = record.seq <= through && (u64::from(age) >= age_ticks || bytes > bytes_max);
            if !offered && bytes <= burst_max {
                break;
            }
            let channel = record.channel;
            unoffered += u64::from(!offered);
            self.evict(channel);
        }
        unoffered
    }

    /// When the oldest message kept gets too old, on the clock that never goes back. Past if
    /// `trim` was not allowed to take it.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        let born = self.history[self.history.oldest()?].born();
        let age_ticks = self.limits.history_age_ms.div_ceil(TICK_MS);
        u64::from(born).checked_add(age_ticks)?.checked_mul(TICK_MS)
    }

    /// Forgets the kept messages of a channel, by an operator's wish: nobody is told a gap, and
    /// its subscribers stay. False if there were none.
    pub fn delete(&mut self, name: &str) -> bool {
        let Some(key) = self.channels.find(name) else { return false };
        let Some(&oldest) = self.channels[key].messages.front() else { return false };
        self.over.remove(&(self.history[oldest].seq, key));
        while let Some(message) = self.channels[key].messages.pop_front() {
            self.let_go(key, message);
        }
        self.channels[key].shrink();
        self.channels.rest(key);
        true
    }

    /// Somebody is in the middle of this message: it can be read until as many `unpin`s, even if
    /// it is evicted or deleted meanwhile.
    pub fn pin(&mut self, message: MessageKey) {
        self.history.pin(message);
    }

    /// Undoes one `pin`.
    pub fn unpin(&mut self, message: MessageKey) {
        if let Some(channel) = self.history.unpin(message) {
            self.channels.release(channel);
        }
    }

    /// True if this message is evicted or deleted, and only kept for who is in the middle of it.
    pub fn is_detached(&self, message: MessageKey) -> bool {
        self.history.is_detached(message)
    }

    /// What messages count for that are evicted or deleted, and pinned.
    pub fn detached_bytes(&self) -> usize {
        self.history.detached_bytes()
    }

    /// Keeps an accepted message as the newest of its channel and of all.
    pub(super) fn keep(&mut self, key: ChannelKey, seq: u64, entry: Entry) -> MessageKey {
        let message = self.history.keep(seq, key, entry);
        let channel = &mut self.channels[key];
        channel.newest = seq;
        channel.bytes += self.history[message].accounted();
        channel.messages.push_back(message);
        if channel.messages.len() == self.limits.history_messages.saturating_add(1) {
            let oldest = channel.messages[0];
            self.over.insert((self.history[oldest].seq, key));
        }
        message
    }

    /// Takes the oldest message of this channel: a loss to whoever has not read it.
    fn evict(&mut self, key: ChannelKey) {
        let channel = &mut self.channels[key];
        let Some(message) = channel.messages.pop_front() else { return };
        let seq = self.history[message].seq;
        self.evictions += 1;
        channel.lost = seq;
        channel.lost_at = self.evictions;
        if self.over.remove(&(seq, key)) && channel.messages.len() > self.limits.history_messages {
            let oldest = channel.messages[0];
            self.over.insert((self.history[oldest].seq, key));
        }
        channel.shrink();
        self.let_go(key, message);
        self.channels.rest(key);
    }

    /// Lets go of a message its channel has given up; a pinned one still holds the channel.
    fn let_go(&mut self, key: ChannelKey, message: MessageKey) {
        self.channels[key].bytes -= self.history[message].accounted();
        if self.history.detach(message) {
            self.channels.hold_again(key);
        }
    }

    pub(super) fn check_retention(&self) {
        let is_over = |channel: &Channel| channel.messages.len() > self.limits.history_messages;
        let mut kept = 0;
        let mut over = 0;
        for (key, channel) in self.channels.iter() {
            let (mut bytes, mut before) = (0, channel.lost);
            for &message in &channel.messages {
                let record = &self.history[message];
                assert_eq!(record.channel, key, "a message is in its own channel");
                assert!(record.seq > before, "a channel's messages rise, after what it lost");
                (bytes, before) = (bytes + record.accounted(), record.seq);
            }
            assert!(before <= channel.newest, "the newest mark is the highest");
            assert_eq!(bytes, channel.bytes, "a channel counts its bytes");
            assert!(channel.lost_at <= self.evictions);
            kept += channel.messages.len();
            over += usize::from(is_over(channel));
        }
        assert_eq!(kept, self.history.kept(), "every kept message is in a channel, once");
        assert_eq!(over, self.over.len(), "every channel over the limit is filed, once");
        for &(seq, key) in &self.over {
            let channel = &self.channels[key];
            assert!(is_over(channel) && self.history[channel.messages[0]].seq == seq, "filed by its oldest");
        }
    }
}
