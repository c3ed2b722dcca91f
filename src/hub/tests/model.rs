//! Random operations on the hub and on a model that is slow and plainly right, side by side.
//!
//! The model is a list of all messages there ever were, each with what became of it. Everything
//! else it computes from that list when asked. What a run did is decided by its seed alone.

use std::collections::BTreeSet;

use super::*;

#[test]
fn the_hub_agrees_with_the_model() {
    let mut seen = BTreeSet::new();
    for seed in 1..=150 {
        println!("seed {seed}"); // shown if the run fails
        Run::new(seed).run(300, &mut seen);
    }
    // A run that never gets there proves nothing.
    for what in [
        "accepted",
        "repeated",
        "mismatch",
        "moved",
        "draining",
        "publish refused",
        "subscribe refused",
        "Evicted",
        "Epoch",
        "Future",
        "Unknown",
        "loss",
        "evicted unread",
        "deleted",
        "widened with a gap",
        "detached",
        "forgotten",
        "key dropped",
        "reborn with marks",
        "burst cut",
        "held back",
    ] {
        assert!(seen.contains(what), "no run met: {what}");
    }
}

/// A message, and what became of it.
#[derive(Clone, Debug)]
struct Said {
    seq: u64,
    channel: String,
    content: Content,
    time_ms: u64,
    born_ms: u64,
    kept: bool,
    /// While it is pinned: the hub's key of it.
    pins: Vec<MessageKey>,
}

/// Event, type, payload.
type Content = (Option<&'static str>, Option<&'static str>, Vec<u8>);

impl Said {
    fn bytes(&self) -> usize {
        let (event, media_type, payload) = &self.content;
        event.unwrap_or("").len() + media_type.unwrap_or("").len() + payload.len() + 96
    }
}

#[derive(Clone, Debug)]
struct Proposed {
    ticket: u32,
    channel: String,
    content: Content,
    only_after: Option<Cursor>,
    key: Option<&'static str>,
    replay_only: bool,
    time_ms: u64,
    monotonic_ms: u64,
}

#[derive(Debug)]
struct Remembered {
    name: (String, &'static str),
    content: Content,
    seq: u64,
    subscribers: u32,
    since_ms: u64,
}

#[derive(Debug, Default)]
struct Marks {
    newest: u64,
    lost: u64,
}

#[derive(Debug, Default)]
struct Reader {
    cursor: u64,
    set: BTreeSet<String>,
    /// Evicted before it was read, and not told yet: channel and number.
    untold: Vec<(String, u64)>,
}

struct Run {
    random: u64,
    hub: Hub,
    limits: Limits,
    now_ms: u64,
    head: u64,
    said: Vec<Said>,
    known: BTreeMap<String, Marks>,
    /// Those of `known` nobody needs, longest first.
    resting: Vec<String>,
    forgotten: Marks,
    proposed: Vec<Proposed>,
    answering: Option<String>,
    remembered: Vec<Remembered>,
    readers: Vec<Reader>,
    tickets: u32,
}

const NAMES: [&str; 7] = ["a", "ab", "abc", "b", "c", "d", "e"];
const READERS: usize = 6;

impl Run {
    fn new(seed: u64) -> Run {
        let mut run = Run {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            hub: hub(ROOMY),
            limits: ROOMY,
            now_ms: 0,
            head: 0,
            said: Vec::new(),
            known: BTreeMap::new(),
            resting: Vec::new(),
            forgotten: Marks::default(),
            proposed: Vec::new(),
            answering: None,
            remembered: Vec::new(),
            readers: (0..READERS).map(|_| Reader::default()).collect(),
            tickets: 0,
        };
        run.limits = Limits {
            history_messages: run.pick(&[0, 1, 2, 3, 8, 1000]),
            history_bytes: run.pick(&[0, 300, 1000, 3000, 1 << 20]),
            history_age_ms: run.pick(&[0, 120, 1000, 5000, u64::MAX]),
            channels_max: run.pick(&[2, 3, 4, 5, 6, 100]),
            idempotency_keys_max: run.pick(&[0, 1, 2, 100]),
            idempotency_age_ms: run.pick(&[0, 500, 10_000]),
            burst_bytes_max: run.pick(&[0, 200, 1000, usize::MAX]),
        };
        run.hub = hub(run.limits.clone());
        run
    }

    /// xorshift64: below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn set(&mut self) -> Vec<String> {
        let mut set: BTreeSet<String> = BTreeSet::new();
        for _ in 0..=self.below(4) {
            set.insert(self.pick(&NAMES).into());
        }
        set.into_iter().collect()
    }

    fn cursor(&mut self) -> Cursor {
        let epoch = if self.below(8) == 0 { EPOCH + 1 } else { EPOCH };
        let seq = self.below(self.head + 2);
        let seq = if self.below(3) == 0 { self.head } else { seq };
        Cursor { epoch: Epoch::new(epoch).unwrap(), seq }
    }

    fn run(&mut self, steps: usize, seen: &mut BTreeSet<&'static str>) {
        for _ in 0..steps {
            self.now_ms += self.pick(&[0, 0, 1, 49, 50, 333]);
            match self.below(20) {
                0..6 => self.publish(seen),
                6..9 => self.settle(seen),
                9..11 => self.subscribe(seen),
                11 => self.widen(seen),
                12 => self.narrow(),
                13 => self.unsubscribe(),
                14..16 => self.read(),
                16 => self.loss(seen),
                17 => self.pin_or_unpin(seen),
                18 => self.trim(seen),
                _ => self.delete(seen),
            }
            self.compare();
        }
    }

    // One function an operation: it does it on both sides and compares what is told.

    fn publish(&mut self, seen: &mut BTreeSet<&'static str>) {
        self.tickets += 1;
        let payload = vec![self.pick(b"xy\xff"); self.pick(&[0, 1, 1, 20])];
        let content = (
            self.pick(&[None, None, Some("event")]),
            self.pick(&[None, None, Some("application/octet-stream")]),
            payload,
        );
        let proposed = Proposed {
            ticket: self.tickets,
            channel: self.pick(&NAMES).into(),
            content,
            only_after: if self.below(4) == 0 { Some(self.cursor()) } else { None },
            key: self.pick(&[None, Some("j"), Some("k")]),
            replay_only: self.below(10) == 0,
            time_ms: self.below(1 << 40),
            monotonic_ms: self.now_ms,
        };
        let result = self.hub.publish(Publish {
            ticket: Some(Ticket(proposed.ticket)),
            channel: &proposed.channel,
            event: proposed.content.0,
            media_type: proposed.content.1,
            payload: &proposed.content.2,
            only_after: proposed.only_after,
            key: proposed.key,
            replay_only: proposed.replay_only,
            time_ms: proposed.time_ms,
            monotonic_ms: proposed.monotonic_ms,
        });
        if !self.room_for(std::slice::from_ref(&proposed.channel)) {
            assert_eq!(result, Err(PublishRefused::ChannelsFull));
            seen.insert("publish refused");
            return;
        }
        assert_eq!(result, Ok(()));
        self.wake(&proposed.channel, seen);
        self.proposed.push(proposed);
    }

    fn settle(&mut self, seen: &mut BTreeSet<&'static str>) {
        self.hub.commit();
        while let Some(settled) = self.hub.next_settled() {
            if let Some(answered) = self.answering.take() {
                self.rest(&answered);
            }
            let proposed = self.proposed.remove(0);
            assert_eq!(settled.ticket, Some(Ticket(proposed.ticket)), "in the order of publishing");
            assert_eq!(self.hub.channel_name(settled.channel), proposed.channel);
            self.answering = Some(proposed.channel.clone());
            let (what, want) = self.decide(proposed, settled.outcome, seen);
            assert_eq!(settled.outcome, want);
            seen.insert(what);
            self.hub.check_invariants();
        }
        if let Some(answered) = self.answering.take() {
            self.rest(&answered);
        }
        assert!(self.proposed.is_empty(), "everything committed is settled");
    }

    fn decide(
        &mut self,
        proposed: Proposed,
        got: Outcome,
        seen: &mut BTreeSet<&'static str>,
    ) -> (&'static str, Outcome) {
        let subscribers = self.readers.iter().filter(|reader| reader.set.contains(&proposed.channel)).count() as u32;
        let (age_ms, now_ms) = (self.limits.idempotency_age_ms, proposed.monotonic_ms);
        if let Some(key) = proposed.key {
            self.remembered.retain(|known| now_ms - known.since_ms < age_ms);
            let name = (proposed.channel.clone(), key);
            if let Some(known) = self.remembered.iter().find(|known| known.name == name) {
                return match known.content == proposed.content {
                    true => ("repeated", Outcome::Repeated { seq: known.seq, subscribers: known.subscribers }),
                    false => ("mismatch", Outcome::Mismatch),
                };
            }
        }
        if proposed.replay_only {
            return ("draining", Outcome::Draining);
        }
        let newest = self.known[&proposed.channel].newest;
        let holds =
            |cursor: Cursor| cursor.epoch == self.hub.epoch() && cursor.seq <= self.head && newest <= cursor.seq;
        if proposed.only_after.is_some_and(|cursor| !holds(cursor)) {
            return ("moved", Outcome::Moved { at: self.hub.cursor(newest) });
        }
        self.head += 1;
        let seq = self.head;
        let Outcome::Accepted { message, .. } = got else { panic!("{proposed:?} is to be accepted: {got:?}") };
        if let Some(key) = proposed.key {
            let name = (proposed.channel.clone(), key);
            let content = proposed.content.clone();
            self.remembered.push(Remembered { name, content, seq, subscribers, since_ms: now_ms });
            while self.remembered.len() > self.limits.idempotency_keys_max {
                self.remembered.remove(0);
                seen.insert("key dropped");
            }
        }
        self.known.get_mut(&proposed.channel).unwrap().newest = seq;
        self.said.push(Said {
            seq,
            channel: proposed.channel,
            content: proposed.content,
            time_ms: proposed.time_ms,
            born_ms: proposed.monotonic_ms,
            kept: true,
            pins: Vec::new(),
        });
        ("accepted", Outcome::Accepted { seq, message, before: newest, subscribers })
    }

    fn subscribe(&mut self, seen: &mut BTreeSet<&'static str>) {
        let key = self.below(READERS as u64) as usize;
        let set = self.set();
        let cursor = self.cursor();
        let after = match self.below(6) {
            0 => After::Now,
            1 => After::Earliest,
            2 => After::Unknown("?".into()),
            _ => After::At(cursor),
        };
        let before = self.set_of(key);
        let result = self.hub.subscribe(key as u32, &set, &after);
        if !self.room_for(&set) {
            assert_eq!(result, Err(SubscribeRefused::ChannelsFull));
            seen.insert("subscribe refused");
            return;
        }
        self.wake_all(&set, seen);
        let cursor_of_gap = |seq| self.hub.cursor(seq);
        let lost = self.lost(&set);
        let gap = |after: String, from, reason| {
            let cursor = cursor_of_gap(self.before_first(&set, from));
            Some(Gap { after, through: cursor_of_gap(lost), cursor, reason })
        };
        let (cursor, gap) = match &after {
            After::Now => (self.head, None),
            After::Earliest => (self.before_first(&set, 0), None),
            After::Unknown(text) => (0, gap(text.clone(), 0, GapReason::Unknown)),
            After::At(at) if at.epoch != self.hub.epoch() => (0, gap(at.to_string(), 0, GapReason::Epoch)),
            After::At(at) if at.seq > self.head => (0, gap(at.to_string(), 0, GapReason::Future)),
            After::At(at) if lost > at.seq => (0, gap(at.to_string(), at.seq, GapReason::Evicted)),
            After::At(at) => (at.seq, None),
        };
        let cursor = gap.as_ref().map_or(cursor, |gap| gap.cursor.seq);
        if let Some(gap) = &gap {
            seen.insert(match gap.reason {
                GapReason::Evicted => "Evicted",
                GapReason::Epoch => "Epoch",
                GapReason::Future => "Future",
                GapReason::Unknown => "Unknown",
            });
        }
        assert_eq!(result, Ok(Start { cursor: self.hub.cursor(cursor), gap }), "{set:?} after {after:?}");
        self.readers[key] = Reader { cursor, set: set.into_iter().collect(), untold: Vec::new() };
        before.iter().for_each(|channel| self.rest(channel));
    }

    fn widen(&mut self, seen: &mut BTreeSet<&'static str>) {
        let key = self.below(READERS as u64) as usize;
        let set = self.set();
        let result = self.hub.widen(key as u32, &set);
        if !self.room_for(&set) {
            assert_eq!(result, Err(SubscribeRefused::ChannelsFull));
            return;
        }
        self.wake_all(&set, seen);
        let Reader { cursor, set: old, .. } = &self.readers[key];
        let cursor = *cursor;
        let further: Vec<String> = set.iter().filter(|name| !old.contains(*name)).cloned().collect();
        let told = self.untold(key).is_empty() && self.lost(&further) <= cursor;
        let all: Vec<String> = old.iter().chain(&further).cloned().collect();
        let start = match told {
            true => Start { cursor: self.hub.cursor(cursor), gap: None },
            false => {
                seen.insert("widened with a gap");
                let gap = self.evicted_gap(&all, cursor);
                Start { cursor: gap.cursor, gap: Some(gap) }
            }
        };
        assert_eq!(result, Ok(start.clone()));
        let reader = &mut self.readers[key];
        reader.set.extend(further);
        reader.cursor = start.cursor.seq;
        if !told {
            reader.untold.clear();
        }
    }

    fn narrow(&mut self) {
        let key = self.below(READERS as u64) as usize;
        let set = self.set();
        let before = self.set_of(key);
        self.hub.narrow(key as u32, &set);
        let reader = &mut self.readers[key];
        reader.set.retain(|name| !set.contains(name));
        reader.untold.retain(|(name, _)| !set.contains(name));
        before.iter().for_each(|channel| self.rest(channel));
    }

    fn unsubscribe(&mut self) {
        let key = self.below(READERS as u64) as usize;
        let before = self.set_of(key);
        self.hub.unsubscribe(key as u32);
        self.readers[key].set.clear();
        self.readers[key].untold.clear();
        before.iter().for_each(|channel| self.rest(channel));
    }

    /// A reader takes some of what is there for it, or is told that it has everything.
    fn read(&mut self) {
        let key = self.below(READERS as u64) as usize;
        let unread: Vec<u64> = self.unread(key).map(|said| said.seq).collect();
        let seq = match unread.len() as u64 {
            0 if self.readers[key].set.is_empty() => return,
            0 => self.head,
            some => unread[self.below(some) as usize],
        };
        self.hub.set_cursor(key as u32, seq);
        self.readers[key].cursor = seq;
    }

    fn loss(&mut self, seen: &mut BTreeSet<&'static str>) {
        let key = self.below(READERS as u64) as usize;
        let told = self.hub.loss(key as u32);
        if self.untold(key).is_empty() {
            assert_eq!(told, None);
            return;
        }
        seen.insert("loss");
        let set: Vec<String> = self.readers[key].set.iter().cloned().collect();
        let gap = self.evicted_gap(&set, self.readers[key].cursor);
        let highest = self.untold(key).into_iter().max().unwrap();
        assert!(gap.through.seq >= highest, "it says all that is lost");
        self.readers[key].cursor = gap.cursor.seq;
        self.readers[key].untold.clear();
        assert_eq!(told, Some(gap));
    }

    fn pin_or_unpin(&mut self, seen: &mut BTreeSet<&'static str>) {
        let pinned: Vec<usize> = (0..self.said.len()).filter(|&nth| !self.said[nth].pins.is_empty()).collect();
        if !pinned.is_empty() && self.below(2) == 0 {
            let nth = self.pick(&pinned);
            let message = self.said[nth].pins.pop().unwrap();
            self.hub.unpin(message);
            if !self.said[nth].kept {
                seen.insert("detached");
                let channel = self.said[nth].channel.clone();
                self.rest(&channel);
            }
            return;
        }
        let kept: Vec<usize> = (0..self.said.len()).filter(|&nth| self.said[nth].kept).collect();
        if !kept.is_empty() {
            let nth = self.pick(&kept);
            let said = &mut self.said[nth];
            let channel = self.hub.find(&said.channel).unwrap();
            let message = self.hub.next_after(channel, said.seq - 1).unwrap();
            self.hub.pin(message);
            said.pins.push(message);
        }
    }

    fn trim(&mut self, seen: &mut BTreeSet<&'static str>) {
        let through = if self.below(3) == 0 { self.below(self.head + 1) } else { self.head };
        self.hub.trim(self.now_ms, through);
        // Messages per channel: of all that are too many, the oldest first.
        loop {
            let over = |said: &&Said| {
                let newer = self.kept().filter(|other| other.channel == said.channel && other.seq > said.seq);
                newer.count() >= self.limits.history_messages
            };
            let oldest = self.kept().find(over).map(|said| said.seq);
            match oldest {
                Some(seq) if seq <= through => self.evict(seq, seen),
                Some(_) => {
                    seen.insert("held back");
                    break;
                }
                None => break,
            }
        }
        // Then age and bytes, of all messages the oldest first.
        loop {
            let Some(oldest) = self.kept().next().cloned() else { break };
            let bytes: usize = self.kept().map(Said::bytes).sum();
            let ticks = self.now_ms / 50 - oldest.born_ms / 50;
            let too_old = ticks >= self.limits.history_age_ms.div_ceil(50);
            let too_many = bytes > self.limits.history_bytes;
            let far_too_many = bytes > self.limits.history_bytes.saturating_add(self.limits.burst_bytes_max);
            if far_too_many && oldest.seq > through {
                seen.insert("burst cut");
            }
            if !far_too_many && (oldest.seq > through || !(too_old || too_many)) {
                break;
            }
            self.evict(oldest.seq, seen);
        }
    }

    fn evict(&mut self, seq: u64, seen: &mut BTreeSet<&'static str>) {
        let said = self.said.iter_mut().find(|said| said.seq == seq).unwrap();
        said.kept = false;
        let channel = said.channel.clone();
        self.known.get_mut(&channel).unwrap().lost = seq;
        for reader in self.readers.iter_mut().filter(|reader| reader.set.contains(&channel) && reader.cursor < seq) {
            reader.untold.push((channel.clone(), seq));
            seen.insert("evicted unread");
        }
        self.rest(&channel);
    }

    fn delete(&mut self, seen: &mut BTreeSet<&'static str>) {
        let name = self.pick(&NAMES);
        let deleted = self.hub.delete(name);
        assert_eq!(deleted, self.kept().any(|said| said.channel == name));
        if deleted {
            seen.insert("deleted");
            self.said.iter_mut().filter(|said| said.channel == name).for_each(|said| said.kept = false);
            self.rest(name);
        }
    }

    // What the model knows.

    fn kept(&self) -> impl Iterator<Item = &Said> {
        self.said.iter().filter(|said| said.kept)
    }

    fn unread(&self, key: usize) -> impl Iterator<Item = &Said> {
        let reader = &self.readers[key];
        self.kept().filter(|said| said.seq > reader.cursor && reader.set.contains(&said.channel))
    }

    fn untold(&self, key: usize) -> Vec<u64> {
        let reader = &self.readers[key];
        reader.untold.iter().map(|&(_, seq)| seq).filter(|&seq| seq > reader.cursor).collect()
    }

    fn lost(&self, set: &[String]) -> u64 {
        set.iter().map(|name| self.known[name].lost).max().unwrap_or(0)
    }

    fn before_first(&self, set: &[String], seq: u64) -> u64 {
        let first = self.kept().find(|said| said.seq > seq && set.contains(&said.channel));
        first.map_or(self.head, |said| said.seq - 1)
    }

    fn evicted_gap(&self, set: &[String], seq: u64) -> Gap {
        Gap {
            after: self.hub.cursor(seq).to_string(),
            through: self.hub.cursor(self.lost(set)),
            cursor: self.hub.cursor(self.before_first(set, seq)),
            reason: GapReason::Evicted,
        }
    }

    /// The channels of a reader in the hub's order, in which they begin to rest.
    fn set_of(&self, key: usize) -> Vec<String> {
        self.hub.channels_of(key as u32).map(|channel| self.hub.channel_name(channel).into()).collect()
    }

    // Channels: known, resting, forgotten.

    fn needed(&self, name: &str) -> bool {
        self.said.iter().any(|said| said.channel == name && (said.kept || !said.pins.is_empty()))
            || self.readers.iter().any(|reader| reader.set.contains(name))
            || self.proposed.iter().any(|proposed| proposed.channel == name)
            || self.answering.as_deref() == Some(name)
    }

    fn room_for(&self, set: &[String]) -> bool {
        let missing = set.iter().filter(|name| !self.known.contains_key(*name)).count();
        let resting = self.resting.iter().filter(|name| !set.contains(name)).count();
        missing == 0 || missing + self.known.len() <= self.limits.channels_max + resting
    }

    fn wake_all(&mut self, set: &[String], seen: &mut BTreeSet<&'static str>) {
        self.resting.retain(|name| !set.contains(name));
        set.iter().for_each(|name| self.wake(name, seen));
    }

    fn wake(&mut self, name: &str, seen: &mut BTreeSet<&'static str>) {
        self.resting.retain(|resting| resting != name);
        if self.known.contains_key(name) {
            return;
        }
        if self.known.len() == self.limits.channels_max {
            let longest = self.resting.remove(0);
            self.forget(&longest);
            seen.insert("forgotten");
        }
        if self.forgotten.lost > 0 {
            seen.insert("reborn with marks");
        }
        let Marks { newest, lost } = self.forgotten;
        self.known.insert(name.into(), Marks { newest, lost });
    }

    fn rest(&mut self, name: &str) {
        if self.needed(name) || self.resting.iter().any(|resting| resting == name) {
            return;
        }
        let Some(marks) = self.known.get(name) else { return };
        if marks.newest <= self.forgotten.newest && marks.lost <= self.forgotten.lost {
            self.forget(name);
        } else {
            self.resting.push(name.into());
        }
    }

    fn forget(&mut self, name: &str) {
        let marks = self.known.remove(name).unwrap();
        self.forgotten.newest = self.forgotten.newest.max(marks.newest);
        self.forgotten.lost = self.forgotten.lost.max(marks.lost);
    }

    /// Everything the hub tells must be what the model knows.
    fn compare(&self) {
        let hub = &self.hub;
        hub.check_invariants();
        assert_eq!(hub.head(), self.head);
        let stats = hub.stats();
        assert_eq!((stats.channels, stats.messages), (self.known.len(), self.kept().count()));
        assert_eq!(stats.bytes, self.kept().map(Said::bytes).sum::<usize>());
        let detached = self.said.iter().filter(|said| !said.kept && !said.pins.is_empty());
        assert_eq!(hub.detached_bytes(), detached.map(Said::bytes).sum::<usize>());
        for said in &self.said {
            said.pins.iter().for_each(|&message| self.compare_message(message, said));
        }
        for name in NAMES {
            assert_eq!(hub.find(name).is_some(), self.known.contains_key(name), "{name} is known");
            self.compare_channel(name);
        }
        self.compare_list();
        for key in 0..READERS {
            let reader = &self.readers[key];
            assert_eq!(self.set_of(key).into_iter().collect::<BTreeSet<_>>(), reader.set);
            if !reader.set.is_empty() {
                assert_eq!(hub.cursor_of(key as u32), reader.cursor);
            }
            let merged: Vec<MessageKey> = hub.merged_after(key as u32).collect();
            assert_eq!(merged.len(), self.unread(key).count(), "reader {key}: {reader:?}");
            merged.into_iter().zip(self.unread(key)).for_each(|(message, said)| self.compare_message(message, said));
        }
    }

    fn compare_message(&self, key: MessageKey, said: &Said) {
        let message = self.hub.message(key);
        let (event, media_type, payload) = &said.content;
        assert_eq!((self.hub.seq(key), message.id), (said.seq, self.hub.cursor(said.seq)));
        assert_eq!((message.channel, message.time_ms), (said.channel.as_str(), said.time_ms));
        assert_eq!((message.event, message.media_type), (*event, *media_type));
        assert_eq!(message.payload.bytes(), payload);
    }

    fn compare_channel(&self, name: &str) {
        let Some(channel) = self.hub.find(name) else { return };
        let kept: Vec<u64> = self.kept().filter(|said| said.channel == name).map(|said| said.seq).collect();
        let all: Vec<MessageKey> = self.hub.following(channel, 0).collect();
        assert!(all.iter().map(|&message| self.hub.seq(message)).eq(kept.iter().copied()));
        for seq in 0..=self.head + 1 {
            let next = self.hub.next_after(channel, seq);
            assert_eq!(next.map(|next| self.hub.seq(next)), kept.iter().copied().find(|&kept| kept > seq));
        }
        let mut before = self.known[name].lost;
        for message in all {
            assert_eq!(self.hub.before(channel, self.hub.seq(message)), before);
            assert_eq!(self.hub.next_after(channel, before), Some(message));
            before = self.hub.seq(message);
        }
    }

    fn compare_list(&self) {
        for (prefix, after) in [("", None), ("a", None), ("ab", Some("ab")), ("", Some("b"))] {
            let mut looks = 0;
            let listed: Vec<&str> = self.hub.list(prefix, after, 99, &mut looks).map(|info| info.name).collect();
            let mut want = self.known.keys().map(String::as_str).collect::<Vec<_>>();
            want.retain(|name| name.starts_with(prefix) && after.is_none_or(|after| *name > after));
            want.retain(|name| {
                self.kept().any(|said| said.channel == *name)
                    || self.readers.iter().any(|reader| reader.set.contains(*name))
            });
            assert_eq!(listed, want);
        }
    }
}
