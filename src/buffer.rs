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
//! Invariant: what was consumed is less than what is still there. So no byte is moved more than
//! once for each byte consumed, and memory is given back as the content shrinks.

/// See the module.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

/// Room that is kept though it is unused: a request head and a small answer fit, so that a busy
/// connection does not allocate anew for each.
const ROOM_KEPT: usize = 4096;

impl Buffer {
    /// Puts bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts at the end what an encoder writes. It may only append.
    pub fn append_with<R>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> R) -> R {
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
        if self.start >= self.len() {
            self.compact();
        }
    }

    /// The bytes still there.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes are still there.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// How much memory it has, used or not.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// True if none are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves what is still there to the front, and gives back room it will hardly need.
    fn compact(&mut self) {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.capacity() > ROOM_KEPT.max(4 * self.bytes.len()) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Panics if the buffer contradicts itself.
    pub fn check_invariants(&self) {
        assert!(self.start == 0 || self.start < self.len(), "less is consumed than is there");
        assert!(self.bytes.capacity() <= ROOM_KEPT.max(8 * self.len()), "room is given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_at_every_split() {
        let text = b"one two three four five";
        for first in 0..=text.len() {
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
    fn memory_follows_the_content() {
        let mut buffer = Buffer::default();
        buffer.append(&[7; 1 << 20]);
        while buffer.len() > 1000 {
            buffer.consume(1000);
            buffer.check_invariants();
        }
        assert!(buffer.bytes.capacity() <= 8192);
        buffer.consume(buffer.len());
        buffer.append(&[7; 1 << 20]);
        buffer.consume(1 << 20);
        assert_eq!(buffer.bytes.capacity(), 0, "nothing much is kept for nothing");
        buffer.append(&[7; 100]);
        let room = buffer.bytes.capacity();
        buffer.consume(100);
        assert_eq!(buffer.bytes.capacity(), room, "a little is");
    }

    #[test]
    fn a_trickle_through_a_full_buffer_moves_few_bytes() {
        let mut buffer = Buffer::default();
        let mut model = std::collections::VecDeque::new();
        let mut moved = 0;
        let mut random = 1_u32;
        for _ in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let bytes = vec![random as u8; (random % 9) as usize];
            buffer.append(&bytes);
            model.extend(bytes);
            let count = ((random >> 8) % 9) as usize;
            if buffer.len() >= count {
                let start = buffer.start;
                buffer.consume(count);
                if buffer.start < start + count {
                    moved += buffer.len();
                }
                assert!(model.drain(..count).count() == count);
            }
            buffer.check_invariants();
            assert!(model.iter().eq(buffer.as_slice()));
        }
        assert!(moved <= 20_000 * 9, "{moved} bytes moved");
    }
}
