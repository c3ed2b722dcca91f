//! A message that comes in pieces, gathered where it can be sent back from as it is.
//!
//! ```text
//!    buffer: [ room for a frame's head, 10 | payload so far ......... | more room ]
//!                               ^ here the frame begins, if the message becomes one
//! ```
//!
//! Knows nothing of frames that come, nor when the message is whole (`message`).
//! Invariant: of a text, what was appended is whole characters, and at most 3 bytes of one more.

use super::frame::{FRAME_HEAD_MAX, frame_head};
use super::mask::unmask;
use super::{Error, Opcode};
use crate::buffer::{Buffer, Spares};

/// What is unmasked, copied and looked at before the next: it stays in the processor's nearest
/// cache meanwhile. A multiple of the mask's 4 bytes.
const BLOCK_BYTES: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Gathered {
    buffer: Box<Buffer>,
    binary: bool,
    /// How many bytes of a text are known to be whole characters; `None`: they are not looked at.
    checked: Option<usize>,
}

impl Gathered {
    /// A message begins, with a frame of `len` bytes, of which the first `here` have come. If `is_text`,
    /// it must be text as it is.
    pub(super) fn begin(len: usize, here: usize, binary: bool, is_text: bool, spares: &mut Spares) -> Gathered {
        // What is only announced takes no large spare: its room counts as what has come, for all together.
        let mut buffer = spares.take_for(FRAME_HEAD_MAX + len.min(4 * here));
        buffer.append(&[0; FRAME_HEAD_MAX]);
        Gathered { buffer, binary, checked: is_text.then_some(0) }
    }

    /// Appends a masked part, of a frame of which `to_come` bytes come behind it.
    ///
    /// RFC 6455 8.1: a byte that no further bytes could make valid text fails at once.
    pub(super) fn append(&mut self, part: &mut [u8], mask: [u8; 4], to_come: usize) -> Result<(), Error> {
        if self.buffer.room() < part.len() {
            // Never more than this frame will fill, nor than four times what has come: what is only
            // announced costs nothing, and a large message is moved once or twice at most.
            let come = self.payload().len() + part.len();
            self.buffer.reserve_exact(part.len() + to_come.min(3 * come));
        }
        for block in part.chunks_mut(BLOCK_BYTES) {
            let is_ascii = unmask(block, mask);
            self.buffer.append(block);
            if let Some(checked) = self.checked {
                let begun = &self.payload()[checked..];
                let whole = if is_ascii && begun.len() == block.len() { begun.len() } else { whole_characters(begun)? };
                self.checked = Some(checked + whole);
            }
        }
        Ok(())
    }

    /// A text must not end inside a character.
    pub(super) fn check_end(&self) -> Result<(), Error> {
        match self.checked {
            Some(checked) if checked < self.payload().len() => Err(Error::NotUtf8),
            _ => Ok(()),
        }
    }

    /// True if it came in binary frames.
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// What came of it.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_slice()[FRAME_HEAD_MAX..]
    }

    /// The memory it takes.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// The message as one frame of the server. Its payload is not moved.
    pub fn into_frame(mut self) -> Box<Buffer> {
        let mut head = Vec::with_capacity(FRAME_HEAD_MAX);
        frame_head(&mut head, if self.binary { Opcode::Binary } else { Opcode::Text }, self.payload().len());
        let start = FRAME_HEAD_MAX - head.len();
        self.buffer.consume(start);
        self.buffer.as_mut_slice()[..head.len()].copy_from_slice(&head);
        self.buffer
    }

    /// The buffer, for who needs one next.
    pub fn into_buffer(self) -> Box<Buffer> {
        self.buffer
    }
}

/// The length of the whole characters `text` begins with. Behind them may be the beginning of one
/// more, as a read or a fragment may end inside a character.
fn whole_characters(text: &[u8]) -> Result<usize, Error> {
    match str::from_utf8(text) {
        Ok(text) => Ok(text.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(Error::NotUtf8),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn the_utf8_check_fails_exactly_when_nothing_could_follow() {
        let agree = |text: &[u8]| {
            assert_eq!(whole_characters(text).is_ok(), could_become_text(text), "{text:02x?}");
            if let Ok(len) = whole_characters(text) {
                assert!(str::from_utf8(&text[..len]).is_ok() && text.len() - len <= 3, "{text:02x?}");
            }
        };
        for first in (0..=u8::MAX).step_by(crate::stride(29)) {
            for second in (0..=u8::MAX).step_by(crate::stride(29)) {
                agree(&[first, second]);
            }
        }
        let edges = *b"a\x7f\x80\x8f\x90\x9f\xa0\xbf\xc1\xc2\xe0\xed\xef\xf0\xf4\xf5";
        for a in edges.into_iter().step_by(crate::stride(3)) {
            for b in edges.into_iter().step_by(crate::stride(7)) {
                for c in edges.into_iter().step_by(crate::stride(7)) {
                    agree(&[a, b, c]);
                    for d in edges.into_iter().step_by(crate::stride(7)) {
                        agree(&[a, b, c, d]);
                    }
                }
            }
        }
    }

    /// Tries what could follow: the second bytes that E0, F0 and all others need, and a tail.
    pub(in crate::protocol::websocket) fn could_become_text(text: &[u8]) -> bool {
        let may_follow = [b"\x80\x80\x80", b"\x90\x80\x80", b"\xa0\x80\x80"];
        (0..=3).any(|len| may_follow.iter().any(|bytes| str::from_utf8(&[text, &bytes[..len]].concat()).is_ok()))
    }

    /// Text of every width of character, so long that blocks end within some.
    fn text(len: usize) -> Vec<u8> {
        let mut text = "a é € \u{1f600} ".repeat(len / 12 + 1).into_bytes();
        text.truncate(len);
        text
    }

    /// Memory follows what has come: at most four times that, never more than the frame, and in few steps.
    #[test]
    fn room_grows_with_what_has_come() {
        for (len, part_len, moves_max) in [(1 << 18, 1 << 14, 3), (1 << 14, 1 << 9, 4), (5000, 700, 3), (300, 300, 1)] {
            let mut message = Gathered::begin(len, part_len, true, false, &mut Spares::default());
            let (mut come, mut room, mut moves) = (0, message.capacity(), 0);
            while come < len {
                let part_len = part_len.min(len - come);
                come += part_len;
                message.append(&mut vec![0; part_len], [0; 4], len - come).unwrap();
                let limit = FRAME_HEAD_MAX + len.min(4 * come);
                assert!(message.capacity() <= limit, "{} for {come} of {len}", message.capacity());
                moves += u32::from(message.capacity() != room);
                room = message.capacity();
            }
            assert_eq!((message.payload().len(), room), (len, FRAME_HEAD_MAX + len));
            assert!(moves <= moves_max, "{len}: moved {moves} times");
            assert_eq!(message.into_buffer().capacity(), room, "it is there for who needs one next");
        }
    }

    #[test]
    fn what_was_gathered_is_the_frame_and_was_not_moved() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let lengths = [0, 1, 125, 126, 65_535, 65_536, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5];
        for len in lengths.into_iter().step_by(crate::stride(4)) {
            for (binary, opcode) in [(false, Opcode::Text), (true, Opcode::Binary)] {
                let payload = text(len);
                let mut masked = payload.clone();
                unmask(&mut masked, mask);
                let mut message = Gathered::begin(len, len, binary, false, &mut Spares::default());
                message.append(&mut masked, mask, 0).unwrap();
                assert_eq!(message.payload(), payload);
                let place = message.payload().as_ptr();
                let frame = message.into_frame();
                let mut want = Vec::new();
                super::super::encode_frame(&mut want, opcode, &payload);
                assert!(frame.as_slice() == want, "{opcode:?}, {len} bytes");
                assert_eq!(frame.as_slice()[want.len() - len..].as_ptr(), place);
                frame.check_invariants();
            }
        }
    }

    #[test]
    fn text_is_looked_at_across_blocks() {
        let whole = text(3 * BLOCK_BYTES);
        for cut in (1..=12).step_by(crate::stride(12)) {
            let is_whole = str::from_utf8(&whole[..whole.len() - cut]).is_ok();
            let mut part = whole[..whole.len() - cut].to_vec();
            let mut message = Gathered::begin(part.len(), 0, false, true, &mut Spares::default());
            assert_eq!(message.append(&mut part, [0; 4], 0), Ok(()));
            assert_eq!(message.check_end().is_ok(), is_whole, "{cut} bytes cut off");
        }
        for at in [0, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1].into_iter().step_by(crate::stride(3)) {
            let mut part = vec![b'a'; 3 * BLOCK_BYTES];
            part[at] = 0xff;
            let mut message = Gathered::begin(part.len(), 0, false, true, &mut Spares::default());
            assert_eq!(message.append(&mut part, [0; 4], 0), Err(Error::NotUtf8), "at {at}");
        }
    }
}
