//! Compressed messages: each once, whoever takes it, and kept for a while.
//!
//! Compressing is pure (`websocket::Deflater` forgets everything between messages), so what is kept
//! is never wrong, only spared. Knows nothing of connections. RFC 7692 6 leaves it to the sender
//! which messages are compressed; here the message and the window alone decide, so that the same
//! message in the same form is the same bytes, always.
//!
//! Invariant: what is kept has at most `KEPT_BYTES_MAX` bytes, or is one message.

use std::collections::{BTreeMap, VecDeque};

use crate::form::{self, Form};
use crate::message::Message;
use crate::protocol::websocket::{Deflater, Opcode, Window, encode_compressed_frame, encode_frame};

/// What is kept compressed: some turns' worth, for the visits that come later.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// What keeping one costs beside its bytes.
const KEPT_COST: usize = 128;
/// What compressing a message costs beside its bytes: 15 us, in which as much is compressed of a
/// long one.
const MESSAGE_COST: usize = 4096;
/// What one turn may compress, in these bytes: some 15 ms. The rest is compressed in the next.
const COST_PER_TURN_MAX: usize = 4 * 1024 * 1024;

/// Whether the payload alone is compressed, and the number of the message.
type Key = (bool, u64);

/// See the module.
#[derive(Default)]
pub struct Compression {
    deflater: Deflater,
    kept: BTreeMap<Key, Compressed>,
    /// Oldest first.
    order: VecDeque<Key>,
    kept_bytes: usize,
    cost: usize,
    /// Messages compressed so far.
    done: u64,
}

/// One message.
struct Compressed {
    /// How long it was.
    len: usize,
    /// `None`: it got no smaller.
    bytes: Option<Box<[u8]>>,
}

impl Compression {
    /// A turn begins.
    pub fn begin_turn(&mut self) {
        self.cost = 0;
    }

    /// True if this turn has compressed as much as it may.
    pub fn is_spent(&self) -> bool {
        self.cost >= COST_PER_TURN_MAX
    }

    /// Appends exactly the bytes a subscriber of this form gets for this message.
    pub fn write(&mut self, form: Form, message: &Message<'_>, bytes_min: usize, out: &mut Vec<u8>) {
        if let Some(window) = form.window()
            && message.payload.bytes().len() >= bytes_min
            // No form is shorter than its payload: what is too long now need not be compressed.
            && window.holds(message.payload.bytes().len())
            && let Compressed { len, bytes: Some(bytes) } = self.compressed(form, message)
            && window.holds(*len)
        {
            return form::ws_compressed(form, message, bytes, out);
        }
        form::write(form, message, out);
    }

    fn compressed(&mut self, form: Form, message: &Message<'_>) -> &Compressed {
        let key = (form.plain() == Form::WsRaw, message.id.seq);
        if !self.kept.contains_key(&key) {
            let mut plain = Vec::new();
            form::ws_payload(form, message, &mut plain);
            let mut bytes = Vec::new();
            let is_smaller = self.deflate(&plain, &mut bytes);
            self.cost += plain.len() + MESSAGE_COST;
            self.keep(key, Compressed { len: plain.len(), bytes: is_smaller.then(|| bytes.into()) });
        }
        &self.kept[&key]
    }

    fn deflate(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        self.done += 1;
        self.deflater.deflate(payload, out)
    }

    fn keep(&mut self, key: Key, compressed: Compressed) {
        self.kept_bytes += compressed.cost();
        self.kept.insert(key, compressed);
        self.order.push_back(key);
        while self.kept_bytes > KEPT_BYTES_MAX && self.order.len() > 1 {
            if let Some(oldest) = self.order.pop_front().and_then(|key| self.kept.remove(&key)) {
                self.kept_bytes -= oldest.cost();
            }
        }
    }

    /// Appends a message to one connection, compressed if that pays. Returns what it cost.
    pub fn write_frame(
        &mut self,
        window: Option<Window>,
        opcode: Opcode,
        payload: &[u8],
        bytes_min: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        if !window.is_some_and(|window| window.holds(payload.len())) || payload.len() < bytes_min {
            encode_frame(out, opcode, payload);
            return payload.len();
        }
        let mut compressed = Vec::new();
        if self.deflate(payload, &mut compressed) {
            encode_compressed_frame(out, opcode, &compressed);
        } else {
            encode_frame(out, opcode, payload);
        }
        payload.len() + MESSAGE_COST
    }

    /// Messages compressed so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Panics if it contradicts itself.
    pub fn check_invariants(&self) {
        assert_eq!(self.kept_bytes, self.kept.values().map(Compressed::cost).sum::<usize>());
        assert_eq!(self.kept.len(), self.order.len());
        assert!(self.kept_bytes <= KEPT_BYTES_MAX || self.kept.len() == 1, "what is kept is bounded");
    }
}

impl Compressed {
    fn cost(&self) -> usize {
        KEPT_COST + self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }
}
