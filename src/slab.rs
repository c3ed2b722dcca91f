//! Values in numbered slots: a number stays valid until its value is removed, then it is used again.
//!
//! Knows nothing of what it holds. Insert, remove and look-up take constant time. A freed slot
//! holds the number of the next free one, so an empty slot costs nothing but its room.
//! Invariant: every slot is either full or on the free list, exactly once.

use std::ops::{Index, IndexMut};

/// A growable array of slots with a free list inside.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// The slot that was freed last, or `END`.
    free: u32,
    len: usize,
}

#[derive(Debug)]
enum Slot<T> {
    Full(T),
    Free { next: u32 },
}

/// The end of the free list. No slot has this number.
const END: u32 = u32::MAX;

impl<T> Slab<T> {
    /// An empty slab. Allocates nothing.
    pub fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: END, len: 0 }
    }

    /// Puts a value into the slot freed last, or into a new one, and tells its number.
    ///
    /// # Panics
    /// With 2^32-1 values, which no machine this runs on can hold.
    pub fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        let slot = self.free;
        if slot == END {
            let slot = self.slots.len();
            assert!(slot < END as usize, "a slab holds fewer than 2^32-1 values");
            self.slots.push(Slot::Full(value));
            return slot as u32;
        }
        match std::mem::replace(&mut self.slots[slot as usize], Slot::Full(value)) {
            Slot::Free { next } => self.free = next,
            Slot::Full(_) => unreachable!("the free list names free slots only"),
        }
        slot
    }

    /// Takes a value out. `None` if the slot is empty.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let place = self.slots.get_mut(slot as usize)?;
        if let Slot::Free { .. } = place {
            return None;
        }
        let Slot::Full(value) = std::mem::replace(place, Slot::Free { next: self.free }) else { return None };
        self.free = slot;
        self.len -= 1;
        Some(value)
    }

    /// The value in this slot, if there is one.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&T> {
        match self.slots.get(slot as usize) {
            Some(Slot::Full(value)) => Some(value),
            _ => None,
        }
    }

    /// The value in this slot, if there is one, to be changed.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot::Full(value)) => Some(value),
            _ => None,
        }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every value with its number, lowest first. Passes over the empty slots too.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, place)| match place {
            Slot::Full(value) => Some((slot as u32, value)),
            Slot::Free { .. } => None,
        })
    }

    /// Panics if the slab contradicts itself.
    pub fn check_invariants(&self) {
        let full = self.iter().count();
        assert_eq!(full, self.len, "len counts the full slots");
        let mut free = 0;
        let mut next = self.free;
        while next != END {
            free += 1;
            assert!(full + free <= self.slots.len(), "the free list ends");
            match self.slots[next as usize] {
                Slot::Free { next: after } => next = after,
                Slot::Full(_) => panic!("slot {next} is full and on the free list"),
            }
        }
        assert_eq!(full + free, self.slots.len(), "a slot is full or on the free list");
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab::new()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: u32) -> &T {
        self.get(slot).unwrap_or_else(|| missing(slot))
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        self.get_mut(slot).unwrap_or_else(|| missing(slot))
    }
}

/// Once, and not wherever a slot is looked at.
#[cold]
#[inline(never)]
fn missing(slot: u32) -> ! {
    panic!("slot {slot} is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_freed_last_is_used_first() {
        let mut slab = Slab::new();
        assert_eq!([slab.insert('a'), slab.insert('b'), slab.insert('c')], [0, 1, 2]);
        assert_eq!(slab.remove(0), Some('a'));
        assert_eq!(slab.remove(2), Some('c'));
        slab.check_invariants();
        assert_eq!([slab.insert('d'), slab.insert('e'), slab.insert('f')], [2, 0, 3]);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(0, &'e'), (1, &'b'), (2, &'d'), (3, &'f')]);
        slab.check_invariants();
    }

    #[test]
    fn an_empty_slot_has_nothing() {
        let mut slab = Slab::new();
        let slot = slab.insert(6);
        *slab.get_mut(slot).unwrap() += 1;
        assert!(!slab.is_empty());
        assert_eq!(slab.remove(slot), Some(7));
        assert_eq!(slab.remove(slot), None, "removed once");
        assert_eq!(slab.remove(99), None);
        assert_eq!(slab.get(slot), None);
        assert_eq!(slab.get_mut(99), None);
        assert!(slab.is_empty());
        slab.check_invariants();
    }

    #[test]
    fn it_agrees_with_a_map_over_many_steps() {
        let mut slab = Slab::new();
        let mut map = std::collections::BTreeMap::new();
        let mut random = 0x9e37_79b9_u32;
        for step in (0..5000).step_by(crate::stride(20)) {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let slot = random % 64;
            if random & 0x1000 == 0 {
                let slot = slab.insert(step);
                assert_eq!(map.insert(slot, step), None, "a full slot is never given out");
            } else {
                assert_eq!(slab.remove(slot), map.remove(&slot));
            }
            assert_eq!(slab.len(), map.len());
            assert_eq!(slab.get(slot), map.get(&slot));
            slab.check_invariants();
        }
        assert!(slab.iter().eq(map.iter().map(|(&slot, value)| (slot, value))));
    }
}
