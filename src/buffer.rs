//! Bytes in a row: put in at the end, taken out at the front.
//!
//! Holds what was received and not understood yet, or produced and not written yet. Knows nothing
//! of what the bytes mean, and sets no bound: whoever appends does.
//!
//! ```text
//!    bytes: [ consumed | still to be taken | room ]
//!                       ^ start             ^ bytes.len()
//! ```
//!
//! Consuming moves nothing. What was consumed is overwritten when bytes are put behind it, once it is
//! more than what is still there; so no byte is moved more than once for each byte consumed. Memory is
//! given back when the content ends: until then whoever counts it counts `capacity`.

/// See the module.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Puts bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts at the end what an encoder writes. It may only append.
    pub fn append_with<R>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.compact();
        let before = self.bytes.len();
        let result = encode(&mut self.bytes);
        assert!(self.bytes.len() >= before, "an encoder only appends");
        result
    }

    /// Takes this many bytes out at the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "only what is there can be consumed");
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.bytes.clear();
        }
    }

    /// The bytes still there.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The same, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// How many bytes are still there.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// How much memory it has, used or not.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many bytes can be put at the end before it asks for memory.
    pub fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Makes room for so many bytes at the end, and no more than that.
    pub fn reserve_exact(&mut self, count: usize) {
        self.bytes.reserve_exact(count);
    }

    /// True if none are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves what is still there to the front, if that is the smaller part.
    fn compact(&mut self) {
        if self.start > self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// A copy with no more room than it needs, if that is far less than this one has.
    fn smaller(&self) -> Option<Buffer> {
        let far_less = self.capacity() > SMALL.max(4 * self.len());
        far_less.then(|| Buffer { bytes: self.as_slice().to_vec(), start: 0 })
    }

    /// Panics if the buffer contradicts itself.
    pub fn check_invariants(&self) {
        assert!(self.start <= self.bytes.len(), "what is consumed was there");
        assert!(!self.is_empty() || self.start == 0, "nothing is left of what is consumed whole");
    }
}

/// Room that nobody asks back: a small answer fits.
const SMALL: usize = 4096;

/// Empty buffers for who needs one next. What is written is mostly gone within its turn, so a few serve
/// thousands of connections, and no answer has to ask the system for memory.
///
/// Invariant: they have at most `SPARE_BYTES_MAX` bytes of room, and are at most `SPARES_MAX`.
#[derive(Debug, Default)]
pub struct Spares {
    #[allow(clippy::vec_box, reason = "whoever takes one keeps it boxed: the box is used again too")]
    buffers: Vec<Box<Buffer>>,
    bytes: usize,
}

const SPARES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Spares {
    /// An empty buffer.
    pub fn take(&mut self) -> Box<Buffer> {
        let spare = self.buffers.pop().unwrap_or_default();
        self.bytes -= spare.capacity();
        spare
    }

    /// An empty buffer for so many bytes, with room for them if one is there; but not for far more, as
    /// they may be long in coming.
    pub fn take_for(&mut self, count: usize) -> Box<Buffer> {
        let fits = count..=SMALL.max(4 * count);
        let Some(nth) = self.buffers.iter().rposition(|spare| fits.contains(&spare.capacity())) else {
            return Box::default();
        };
        let spare = self.buffers.swap_remove(nth);
        self.bytes -= spare.capacity();
        spare
    }

    /// A buffer that was read to its end.
    pub fn give(&mut self, mut buffer: Box<Buffer>) {
        buffer.consume(buffer.len());
        if self.buffers.len() < SPARES_MAX && self.bytes + buffer.capacity() <= SPARE_BYTES_MAX {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }

    /// Whoever has to wait for its reader keeps no more room than four times what it holds.
    pub fn exchange(&mut self, buffer: &mut Box<Buffer>) {
        if let Some(smaller) = buffer.smaller() {
            let large = std::mem::replace(&mut **buffer, smaller);
            self.give(Box::new(large));
        }
    }

    /// Panics if they contradict themselves.
    pub fn check_invariants(&self) {
        assert_eq!(self.bytes, self.buffers.iter().map(|buffer| buffer.capacity()).sum::<usize>());
        assert!(self.bytes <= SPARE_BYTES_MAX && self.buffers.len() <= SPARES_MAX);
        assert!(self.buffers.iter().all(|buffer| buffer.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_room_for_asks_for_no_memory() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.room(), 0);
        buffer.reserve_exact(100);
        buffer.append(b"some");
        let (room, capacity) = (buffer.room(), buffer.capacity());
        assert!(room >= 96, "{room}");
        buffer.append(&vec![b'x'; room]);
        assert_eq!((buffer.room(), buffer.capacity(), buffer.len()), (0, capacity, 4 + room));
    }

    #[test]
    fn what_goes_in_comes_out_at_every_split() {
        let text = b"one two three four five";
        for first in (0..=text.len()).step_by(crate::stride(3)) {
            for taken in 0..=first {
                let mut buffer = Buffer::default();
                buffer.append(&text[..first]);
                buffer.consume(taken);
                buffer.check_invariants();
                buffer.append_with(|out| out.extend_from_slice(&text[first..]));
                assert_eq!(buffer.as_slice(), &text[taken..]);
                buffer.consume(text.len() - taken);
                buffer.check_invariants();
                assert!(buffer.is_empty());
            }
        }
    }

    #[test]
    fn consuming_moves_nothing_and_what_is_consumed_is_overwritten() {
        let mut buffer = Buffer::default();
        buffer.append(&[7; 1 << 20]);
        let whole = buffer.as_slice().as_ptr();
        buffer.consume(1 << 19);
        assert_eq!(buffer.as_slice().as_ptr(), whole.wrapping_add(1 << 19));
        buffer.append(b"");
        assert_eq!(buffer.start, 1 << 19, "not more is consumed than is still there");
        buffer.consume(buffer.len() - 1);
        buffer.check_invariants();
        buffer.append(&[7; 100]);
        assert_eq!((buffer.start, buffer.len()), (0, 101));
        assert_eq!(buffer.as_slice().as_ptr(), whole);
    }

    #[test]
    fn spares_are_used_again_within_bounds() {
        let mut spares = Spares::default();
        let mut large = spares.take();
        large.append(&[7; 1 << 20]);
        let room = large.as_slice().as_ptr();
        spares.give(large);
        spares.check_invariants();
        let mut again = spares.take();
        assert!(again.capacity() >= 1 << 20);
        again.append(&[8; 1 << 20]);
        assert_eq!((again.as_slice().as_ptr(), again.len()), (room, 1 << 20), "the same room, and nothing in it");
        for _ in 0..=SPARES_MAX {
            let mut small = Box::new(Buffer::default());
            small.append(b"a few");
            spares.give(small);
            spares.check_invariants();
        }
        assert_eq!(spares.buffers.len(), SPARES_MAX);
        let mut spares = Spares::default();
        for (bytes, kept) in [(SPARE_BYTES_MAX + 1, 0), (SPARE_BYTES_MAX - 8, 1), (9, 1), (8, 2), (8, 2)] {
            let mut buffer = Box::new(Buffer::default());
            buffer.append(&vec![7; bytes]);
            spares.give(buffer);
            spares.check_invariants();
            assert_eq!(spares.buffers.len(), kept, "{bytes} bytes");
        }
        let mut spares = Spares::default();
        for nth in 1..=5 {
            let mut buffer = Box::new(Buffer::default());
            buffer.reserve_exact(1 << 20);
            spares.give(buffer);
            assert_eq!(spares.buffers.len(), nth.min(4), "4 MiB are kept");
        }
    }

    #[test]
    fn a_spare_is_taken_for_what_fits_into_it() {
        for (room, count, fits) in [
            (100_000, 100_000, true),
            (100_000, 25_000, true),
            (100_000, 24_999, false),
            (100_000, 100_001, false),
            (SMALL, 1, true),
            (SMALL + 1, 1, false),
        ] {
            let mut spares = Spares::default();
            for spare in [room, 0, 1 << 20] {
                let mut buffer = Box::new(Buffer::default());
                buffer.reserve_exact(spare);
                spares.give(buffer);
            }
            assert_eq!(spares.take_for(count).capacity(), if fits { room } else { 0 }, "{room} for {count}");
            spares.check_invariants();
        }
    }

    #[test]
    fn who_waits_keeps_what_it_needs() {
        let mut spares = Spares::default();
        let mut buffer = spares.take();
        buffer.append(&[7; 1 << 20]);
        for left in [1 << 20, 1 << 18] {
            buffer.consume(buffer.len() - left);
            spares.exchange(&mut buffer);
            assert_eq!(buffer.capacity(), 1 << 20, "{left} bytes are not far less");
        }
        for left in [(1 << 18) - 1, 5000, 1000, 1] {
            buffer.consume(buffer.len() - left);
            spares.exchange(&mut buffer);
            spares.check_invariants();
            assert_eq!(buffer.as_slice(), vec![7; left]);
            assert!(buffer.capacity() <= SMALL.max(4 * left), "{} for {left}", buffer.capacity());
        }
    }

    #[test]
    fn a_trickle_through_a_full_buffer_moves_few_bytes() {
        let mut buffer = Buffer::default();
        let mut model = std::collections::VecDeque::new();
        let mut moved = 0;
        let mut random = 1_u32;
        for _ in (0..20_000).step_by(crate::stride(500)) {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let bytes = vec![random as u8; (random % 9) as usize];
            let before = (buffer.start, buffer.len());
            buffer.append(&bytes);
            if buffer.start < before.0 {
                moved += before.1;
            }
            model.extend(bytes);
            let count = ((random >> 8) % 9) as usize;
            if buffer.len() >= count {
                buffer.consume(count);
                assert!(model.drain(..count).count() == count);
            }
            buffer.check_invariants();
            assert!(model.iter().eq(buffer.as_slice()));
        }
        assert!(moved <= 20_000 * 9, "{moved} bytes moved");
    }
}
