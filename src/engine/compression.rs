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
        if !is_compressed(window, payload.len(), bytes_min) {
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

/// True if a payload of this length is compressed for whoever has this window, if that pays.
pub fn is_compressed(window: Option<Window>, len: usize, bytes_min: usize) -> bool {
    len >= bytes_min && window.is_some_and(|window| window.holds(len))
}

impl Compressed {
    fn cost(&self) -> usize {
        KEPT_COST + self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }
}

#[cfg(feature = "deflate")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Cursor, Epoch};
    use crate::message::Payload;

    fn message(seq: u64, payload: &str) -> Message<'_> {
        let id = Cursor { epoch: Epoch::new(1766).unwrap(), seq };
        Message { id, channel: "news", event: None, media_type: None, time_ms: 0, payload: Payload::Text(payload) }
    }

    fn written(compression: &mut Compression, form: Form, message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        compression.write(form, message, 100, &mut out);
        out
    }

    #[test]
    fn a_form_is_the_same_bytes_whatever_is_kept() {
        let mut state = 1u64;
        let text: String = std::iter::from_fn(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some(char::from(b'a' + (state >> 60) as u8))
        })
        .take(40_000)
        .collect();
        let forms =
            Window::ALL.into_iter().flat_map(|window| [Form::WsJsonDeflate(window), Form::WsRawDeflate(window)]);
        let forms: Vec<Form> = forms.collect();
        let mut compression = Compression::default();
        let lengths = [99, 100, 500, 512, 5000, 16_384, 40_000];
        // More than can be kept, and then from the start again.
        for round in 0..2 {
            for seq in 1..=200 {
                let message = message(seq, &text[..lengths[seq as usize % lengths.len()]]);
                for &form in &forms {
                    let bytes = written(&mut compression, form, &message);
                    compression.check_invariants();
                    assert_eq!(bytes, written(&mut compression, form, &message));
                    assert_eq!(bytes, written(&mut Compression::default(), form, &message), "{form:?}, round {round}");
                    let mut plain = Vec::new();
                    form::write(form, &message, &mut plain);
                    assert!(bytes.len() < plain.len() || bytes == plain);
                }
            }
        }
        assert!(compression.done() > 200, "{} were compressed again", compression.done());
    }

    #[test]
    fn what_is_not_worth_it_or_held_by_no_window_is_not_compressed() {
        let mut compression = Compression::default();
        let text = "tick ".repeat(200);
        for (form, length, done) in [
            (Form::WsRaw, 1000, 0),
            (Form::WsRawDeflate(Window::Bits15), 99, 0),
            (Form::WsRawDeflate(Window::Bits9), 513, 0),
            (Form::WsRawDeflate(Window::Bits9), 512, 1),
            (Form::WsJsonDeflate(Window::Bits10), 512, 2),
            (Form::WsJsonDeflate(Window::Bits15), 512, 2),
            (Form::WsRawDeflate(Window::Bits15), 512, 2),
        ] {
            written(&mut compression, form, &message(length as u64, &text[..length]));
            assert_eq!(compression.done(), done, "{form:?}, {length} bytes");
        }
        assert!(!compression.is_spent());
        let long = "tick ".repeat(1_000_000);
        written(&mut compression, Form::WsRawDeflate(Window::Bits15), &message(1, &long));
        assert!(compression.is_spent());
        compression.begin_turn();
        assert!(!compression.is_spent());
    }
}
