//! When each connection is to be looked at next: one tick per key, and whose has come.
//!
//! Knows nothing of clocks or of what is due. A hashed wheel (Varghese and Lauck, 1987, scheme 6):
//! a ring of buckets, one a tick, each a list through its keys; a bitmap tells the next bucket
//! that holds any. Most deadlines are moved on before they come, again and again. So moving one
//! later only stores the tick: the key waits in its old bucket, and is filed anew when that
//! bucket's turn comes. Idle keys are never walked.
//!
//! Invariant: the turn of a key's bucket comes no later than the key's own tick.

/// What the server takes for one tick: fine enough for a poll's `wait`, coarse enough that many
/// deadlines share a wake. A `u32` of them lasts 6.8 years.
pub const TICK_MS: u64 = 50;

/// The tick of a moment.
pub fn tick(monotonic_ms: u64) -> u32 {
    (monotonic_ms / TICK_MS) as u32
}

/// The deadlines of all keys.
#[derive(Debug)]
pub struct Deadlines {
    /// By key; keys are dense.
    keys: Vec<Entry>,
    /// The first key of each bucket, or `END`.
    buckets: Vec<u32>,
    /// One bit a bucket: whether it holds any key.
    occupied: [u64; BUCKETS as usize / 64],
    /// Every bucket's turn before this tick is over.
    current: u32,
}

/// A power of two, so that ticks may wrap. 2048 ticks are 102 s: longer than any default timeout,
/// so that a key is filed once. A later one is filed again each time round.
const BUCKETS: u32 = 2048;

#[derive(Copy, Clone, Debug)]
struct Entry {
    at: u32,
    /// The key before it in its bucket; the first has `FIRST` and the bucket, a key without a
    /// deadline has `NOWHERE`.
    prev: u32,
    next: u32,
}

const _: () = assert!(size_of::<Entry>() == 12);

/// The end of a bucket's list.
const END: u32 = u32::MAX;
const NOWHERE: u32 = u32::MAX;
/// Set in `prev` when the low bits are a bucket. Keys stay below it.
const FIRST: u32 = 1 << 31;

impl Deadlines {
    /// None. The first tick asked about is not before `now`.
    pub fn new(now: u32) -> Deadlines {
        Deadlines {
            keys: Vec::new(),
            buckets: vec![END; BUCKETS as usize],
            occupied: [0; BUCKETS as usize / 64],
            current: now,
        }
    }

    /// This key is due at this tick, instead of any other. Later than before costs one store.
    pub fn set(&mut self, key: u32, tick: u32) {
        debug_assert!(key < FIRST, "keys are indexes of connections");
        if self.keys.len() <= key as usize {
            self.keys.resize(key as usize + 1, Entry { at: 0, prev: NOWHERE, next: END });
        }
        let entry = &mut self.keys[key as usize];
        if entry.prev == NOWHERE {
            self.file(key, tick);
        } else if tick < entry.at {
            self.unlink(key);
            self.file(key, tick);
        } else {
            entry.at = tick;
        }
    }

    /// This key is due at this tick, unless it is due before.
    pub fn set_no_later(&mut self, key: u32, tick: u32) {
        let due = self.keys.get(key as usize).filter(|entry| entry.prev != NOWHERE);
        if due.is_none_or(|entry| tick < entry.at) {
            self.set(key, tick);
        }
    }

    /// This key is never due. Nothing happens if it was not.
    pub fn clear(&mut self, key: u32) {
        if self.keys.get(key as usize).is_some_and(|entry| entry.prev != NOWHERE) {
            self.unlink(key);
        }
    }

    /// The tick this key is due at, if it ever is.
    #[cfg(test)]
    pub fn get(&self, key: u32) -> Option<u32> {
        self.keys.get(key as usize).filter(|entry| entry.prev != NOWHERE).map(|entry| entry.at)
    }

    /// Takes out one key that is due, its tick being `now` or before. `now` never goes back.
    pub fn pop_expired(&mut self, now: u32) -> Option<u32> {
        // Each turn of the loop takes a key out or files it at a later tick.
        while let Some(tick) = self.next_tick().filter(|&tick| tick <= now) {
            self.current = tick;
            let key = self.buckets[bucket(tick)];
            let at = self.keys[key as usize].at;
            self.unlink(key);
            if at <= now {
                return Some(key);
            }
            self.file(key, at);
        }
        self.current = self.current.max(now);
        None
    }

    /// No key is due before this tick, and at it there is something to do, if only to file a key
    /// anew. `None` if no key is ever due. After `pop_expired(now)` said `None` it is after `now`.
    pub fn next_tick(&self) -> Option<u32> {
        let start = self.current % BUCKETS;
        let (word, bit) = (start as usize / 64, start % 64);
        let words = self.occupied.len();
        let first = self.occupied[word] & (u64::MAX << bit);
        // Once round the ring: the bits from `start` on, the other words, the bits before `start`.
        let rest = (1..=words).map(|nth| (word + nth) % words).map(|nth| (nth, self.occupied[nth]));
        let (word, bits) = std::iter::once((word, first)).chain(rest).find(|&(_, bits)| bits != 0)?;
        let found = word as u32 * 64 + bits.trailing_zeros();
        Some(self.current.saturating_add(found.wrapping_sub(start) % BUCKETS))
    }

    /// Puts a key that is in no bucket into the one whose turn comes at its tick, or next if that
    /// is over, or last if it is more than once round the ring away.
    fn file(&mut self, key: u32, at: u32) {
        let ahead = at.saturating_sub(self.current).min(BUCKETS - 1);
        let bucket = bucket(self.current.wrapping_add(ahead));
        let next = std::mem::replace(&mut self.buckets[bucket], key);
        if next != END {
            self.keys[next as usize].prev = key;
        }
        self.keys[key as usize] = Entry { at, prev: FIRST | bucket as u32, next };
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    /// Takes a key out of its bucket.
    fn unlink(&mut self, key: u32) {
        let Entry { prev, next, .. } = self.keys[key as usize];
        self.keys[key as usize].prev = NOWHERE;
        if next != END {
            self.keys[next as usize].prev = prev;
        }
        if prev & FIRST == 0 {
            self.keys[prev as usize].next = next;
            return;
        }
        let bucket = (prev & !FIRST) as usize;
        self.buckets[bucket] = next;
        if next == END {
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        }
    }

    /// Panics if the wheel contradicts itself.
    pub fn check_invariants(&self) {
        let mut filed = 0;
        for (word, buckets) in self.buckets.as_chunks::<64>().0.iter().enumerate() {
            // Most of the ring is empty, and it is looked at after every turn of every test: no bucket
            // by itself where one comparison tells it of 64.
            if self.occupied[word] == 0 && buckets.iter().fold(END, |all, first| all & first) == END {
                continue;
            }
            for (bit, &first) in buckets.iter().enumerate() {
                let occupied = self.occupied[word] & (1 << bit) != 0;
                assert_eq!(occupied, first != END, "the bitmap tells which buckets hold keys");
                filed += self.check_bucket(word * 64 + bit, first);
            }
        }
        let due = self.keys.iter().filter(|entry| entry.prev != NOWHERE).count();
        assert_eq!(filed, due, "every key that is ever due is in one bucket");
    }

    /// Panics if a bucket's list contradicts itself, or tells how many keys are in it.
    fn check_bucket(&self, nth: usize, first: u32) -> usize {
        let ahead = (nth as u32).wrapping_sub(self.current) % BUCKETS;
        let (mut key, mut prev) = (first, FIRST | nth as u32);
        let mut filed = 0;
        while key != END {
            let entry = self.keys[key as usize];
            assert_eq!(entry.prev, prev, "each key names the one before");
            assert!(
                self.current.saturating_add(ahead) <= entry.at.max(self.current),
                "the bucket's turn comes no later than the key's tick"
            );
            filed += 1;
            assert!(filed <= self.keys.len(), "the lists end");
            (prev, key) = (key, entry.next);
        }
        filed
    }
}

fn bucket(tick: u32) -> usize {
    (tick % BUCKETS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Everything that is due, sorted.
    fn expired(deadlines: &mut Deadlines, now: u32) -> Vec<u32> {
        let mut keys: Vec<u32> = std::iter::from_fn(|| deadlines.pop_expired(now)).collect();
        keys.sort_unstable();
        deadlines.check_invariants();
        keys
    }

    #[test]
    fn a_tick_is_fifty_milliseconds() {
        assert_eq!([0, 49, 50, 99, 1000, 50 * u64::from(u32::MAX)].map(tick), [0, 0, 1, 1, 20, u32::MAX]);
    }

    #[test]
    fn a_key_is_due_at_its_own_tick() {
        for start in [0, 1, 2047, 2048, 1_000_003].into_iter().step_by(crate::stride(4)) {
            for wait in [0, 1, 63, 64, 65, 2047, 2048, 2049, 5000].into_iter().step_by(crate::stride(3)) {
                let mut deadlines = Deadlines::new(start);
                deadlines.set(3, start + wait);
                deadlines.check_invariants();
                assert_eq!(deadlines.get(3), Some(start + wait));
                if wait > 0 {
                    assert_eq!(expired(&mut deadlines, start + wait - 1), [], "{start} {wait}");
                    assert_eq!(deadlines.next_tick(), Some(start + wait), "{start} {wait}");
                }
                assert_eq!(expired(&mut deadlines, start + wait), [3], "{start} {wait}");
                assert_eq!((deadlines.get(3), deadlines.next_tick()), (None, None));
            }
        }
    }

    #[test]
    fn moved_later_it_wakes_once_at_the_old_tick() {
        let mut deadlines = Deadlines::new(0);
        deadlines.set(0, 10);
        deadlines.set(0, 300);
        deadlines.set(0, 300);
        assert_eq!(deadlines.next_tick(), Some(10), "later, and the same again, only store it");
        deadlines.set(0, 200);
        deadlines.set(0, 201);
        deadlines.check_invariants();
        assert_eq!(deadlines.next_tick(), Some(200), "earlier is filed at once, later is not");
        assert_eq!(expired(&mut deadlines, 200), []);
        assert_eq!(deadlines.next_tick(), Some(201));
        assert_eq!(expired(&mut deadlines, 201), [0]);
    }

    #[test]
    fn what_is_overdue_is_due_at_once() {
        let mut deadlines = Deadlines::new(0);
        assert_eq!(expired(&mut deadlines, 100), []);
        deadlines.set(1, 100);
        deadlines.set(2, 5);
        deadlines.set(3, 101);
        assert_eq!(deadlines.next_tick(), Some(100));
        assert_eq!(expired(&mut deadlines, 100), [1, 2]);
        assert_eq!(expired(&mut deadlines, 101), [3]);
    }

    #[test]
    fn a_cleared_key_is_never_due() {
        let mut deadlines = Deadlines::new(0);
        for key in 0..4 {
            deadlines.set(key, 7);
        }
        for key in [3, 1, 1, 99] {
            deadlines.clear(key); // the first of its bucket, then one in the middle
            deadlines.check_invariants();
        }
        assert_eq!(expired(&mut deadlines, 7), [0, 2]);
    }

    #[test]
    fn the_last_ticks_do_not_overflow() {
        let mut deadlines = Deadlines::new(u32::MAX - 10);
        deadlines.set(0, u32::MAX);
        deadlines.set(1, u32::MAX - 1);
        deadlines.check_invariants();
        assert_eq!(expired(&mut deadlines, u32::MAX - 1), [1]);
        assert_eq!(expired(&mut deadlines, u32::MAX), [0]);
    }

    #[test]
    fn it_agrees_with_a_map_over_many_steps() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |bound: u32| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 32) as u32 % bound
        };
        let mut now = 5_000;
        let mut deadlines = Deadlines::new(now);
        let mut model = BTreeMap::new();
        for step in (0..20_000).step_by(crate::stride(2000)) {
            let key = below(50);
            match below(8) {
                what @ 0..5 => {
                    let tick = now - 10 + [below(40), below(2000), below(9000)][below(3) as usize];
                    if what == 0 {
                        deadlines.set_no_later(key, tick);
                        model.entry(key).and_modify(|at| *at = tick.min(*at)).or_insert(tick);
                    } else {
                        deadlines.set(key, tick);
                        model.insert(key, tick);
                    }
                }
                5 => {
                    deadlines.clear(key);
                    model.remove(&key);
                }
                _ => {
                    now += [0, 1, below(100), below(5000)][below(4) as usize];
                    let due: Vec<u32> = model.iter().filter(|&(_, &tick)| tick <= now).map(|(&key, _)| key).collect();
                    model.retain(|_, tick| *tick > now);
                    assert_eq!(expired(&mut deadlines, now), due, "step {step}");
                    assert!(deadlines.next_tick().is_none_or(|tick| tick > now), "or the loop would spin");
                }
            }
            assert_eq!(deadlines.get(key), model.get(&key).copied());
            let soonest = model.values().copied().min().map(|tick| tick.max(now));
            match (deadlines.next_tick(), soonest) {
                (None, None) => {}
                (Some(wake), Some(soonest)) => assert!(wake <= soonest, "step {step}: {wake} is after {soonest}"),
                other => panic!("step {step}: {other:?}"),
            }
            deadlines.check_invariants();
        }
    }
}
