//! Makes what a visit writes: messages in one form, contiguous, once for all who stand alike.
//!
//! A batch is found by the form, the channel with news (or the whole set, if several have any) and
//! the first message to deliver, never by cursor: the cursors of equally caught-up subscribers
//! differ. Knows nothing of what the kernel takes of it; `delivery` moves the cursors.
//!
//! Invariant: a batch serves the cursors from `floor` to before `first` and no others, and holds
//! nothing that is evicted: it is forgotten with each trim.

use super::Engine;
use super::compression::Compression;
use super::delivery::{Delivery, Output};
use crate::config::{self, Config};
use crate::connection::{Connection, Flags, MANY, NONE, State};
use crate::form::{self, Form};
use crate::gap::Gap;
use crate::hub::{ChannelKey, Hub, MessageKey};
use crate::message::Message;
use crate::protocol::websocket::CloseCode;

/// A batch ends with the message that reaches this size; so it is this, or one message.
const BATCH_BYTES: usize = 64 * 1024;

/// A scratch that grew beyond this is given back at the end of the turn.
const SCRATCH_BYTES_MAX: usize = 256 * 1024;

/// One message in any form, its names and numbers included, has fewer bytes than a `u32` counts.
const _: () = assert!(form::GROWTH_MAX * Config::LARGEST_MESSAGE + BATCH_BYTES < u32::MAX as usize);

/// `Config::memory_bound` counts as many scratches.
const _: () = assert!(Form::COUNT + 2 == config::SCRATCHES);

/// What is made for one visitor and serves the next.
#[derive(Default)]
pub(super) struct Batches {
    /// By form: for who has news in one channel.
    pub(super) shared: [Batch; Form::COUNT],
    /// For who has news in several: the last one made, and its form.
    pub(super) merged: Batch,
    merged_form: Option<Form>,
    /// Since they were forgotten last, any of them may have been made.
    made: bool,
    /// The form of the half-sent message last asked for.
    pub(super) rest: Rest,
}

/// Messages in one form, contiguous.
#[derive(Default)]
pub(super) struct Batch {
    /// The one channel, or the whole set of who has news in several.
    channels: Vec<ChannelKey>,
    /// A cursor from `floor` to before `first` has `first` as its next message there. 0: nobody's has.
    floor: u64,
    first: u64,
    pub(super) bytes: Vec<u8>,
    /// Where each message ends in `bytes`, and its number.
    pub(super) ends: Vec<End>,
    /// For the whole answer to a poll: how many messages are in it.
    pub(super) answered: usize,
    /// Nothing of the channels is left after it.
    pub(super) complete: bool,
}

#[derive(Copy, Clone)]
pub(super) struct End {
    /// Fits, as `Connection::sent` does: a batch is below `BATCH_BYTES`, or one message.
    pub(super) at: u32,
    pub(super) message: MessageKey,
    pub(super) seq: u64,
}

#[derive(Default)]
pub(super) struct Rest {
    /// The form, and the number of the message.
    of: Option<(Form, u64)>,
    pub(super) bytes: Vec<u8>,
    /// Since the turn began.
    asked_for: bool,
}

impl Batches {
    /// Slots of evicted messages may be used again: no batch made before may serve any more. The rest
    /// of a message stays what it is, and is kept while somebody asks for it each turn.
    pub(super) fn forget(&mut self) {
        if std::mem::take(&mut self.made) {
            self.shared.iter_mut().for_each(Batch::forget);
            self.merged.forget();
        }
        let asked_for = std::mem::take(&mut self.rest.asked_for);
        if !asked_for && self.rest.bytes.capacity() > SCRATCH_BYTES_MAX {
            self.rest = Rest::default();
        }
    }
}

impl Engine {
    /// Makes the bytes that this subscriber gets next.
    pub(super) fn next_batch(&mut self, index: u32) -> Output {
        self.delivery.batches.made = true;
        let Connection { state, form, pending, .. } = self.connections[index];
        if state == State::Held {
            return self.next_answer(index);
        }
        if self.hub.has_loss(index)
            && let Some(gap) = self.hub.loss(index)
        {
            self.tell_gap(index, &gap);
            // The gap goes out first, the messages behind it with the next visit.
            return if self.connections[index].own.is_some() { Output::Own } else { Output::Nothing };
        }
        let (output, batch) = match pending {
            MANY => (Output::Merged, self.merged_batch(index, form)),
            channel => {
                let number = form.number();
                (Output::Batch(number), self.shared_batch(index, form, number, ChannelKey(channel)))
            }
        };
        if batch.ends.is_empty() {
            self.connections[index].pending = NONE;
            return Output::Nothing;
        }
        output
    }

    /// The batch of all who have news in this one channel, the same as this one.
    fn shared_batch(&mut self, index: u32, form: Form, number: usize, channel: ChannelKey) -> &Batch {
        let cursor = self.hub.cursor_of(index);
        let Delivery { batches, compression, .. } = &mut self.delivery;
        let batch = &mut batches.shared[number];
        if !batch.serves([channel], cursor) {
            let write = writer(compression, form, self.config.deflate_bytes_min);
            batch.fill(&self.hub, self.hub.following(channel, cursor), write);
            batch.serve_from(&self.hub, [channel], cursor);
        }
        batch
    }

    /// The batch of all who read the same channels and have news in several of them.
    fn merged_batch(&mut self, index: u32, form: Form) -> &Batch {
        let cursor = self.hub.cursor_of(index);
        let Delivery { batches, compression, .. } = &mut self.delivery;
        let batch = &mut batches.merged;
        if batches.merged_form != Some(form) || !batch.serves(self.hub.channels_of(index), cursor) {
            let write = writer(compression, form, self.config.deflate_bytes_min);
            batch.fill(&self.hub, self.hub.merged_after(index), write);
            batch.serve_from(&self.hub, self.hub.channels_of(index), cursor);
            batches.merged_form = Some(form);
        }
        batch
    }

    /// Makes the half-sent message whole again, for the rest of it.
    pub(super) fn form_rest(&mut self, index: u32) {
        let connection = &self.connections[index];
        let key = MessageKey(connection.message);
        let of = Some((connection.form, self.hub.seq(key)));
        let rest = &mut self.delivery.batches.rest;
        rest.asked_for = true;
        if rest.of != of {
            rest.bytes.clear();
            self.delivery.compression.write(
                connection.form,
                &self.hub.message(key),
                self.config.deflate_bytes_min,
                &mut rest.bytes,
            );
            rest.of = of;
        }
    }

    /// Tells a subscriber that messages are lost to it, in its own way.
    pub(super) fn tell_gap(&mut self, index: u32, gap: &Gap) {
        self.count_gap(gap);
        let connection = &mut self.connections[index];
        match connection.form.plain() {
            Form::WsRaw => self.close_websocket(
                index,
                CloseCode::CANNOT_RESUME,
                "messages are lost, and tidings.raw cannot say which",
            ),
            Form::WsJson => connection.own(&mut self.spares).append_with(|out| form::ws_gap(gap, out)),
            form => connection.own(&mut self.spares).append_with(|out| form::sse_gap(form, gap, out)),
        }
    }

    // Long polls.

    /// Makes the answer of a held poll that has news; `Nothing` if it has none after all.
    fn next_answer(&mut self, index: u32) -> Output {
        let gap = self.hub.loss(index);
        if gap.is_none() && !self.hub.has_news(index) {
            self.connections[index].pending = NONE;
            return Output::Nothing;
        }
        let connection = &self.connections[index];
        let shared = gap.is_none()
            && connection.pending != MANY
            && connection.flags.has(Flags::KEEP_ALIVE)
            && !connection.flags.has(Flags::RAW)
            && connection.cold.as_ref().is_none_or(|cold| cold.origin.is_none())
            && !connection.flags.has(Flags::HTTP_10)
            && self.hub.channel_count(index) == 1;
        if !shared {
            self.answer_poll(index, gap.as_ref());
            self.delivery.alone += self.connections[index].own_bytes();
            return Output::Own;
        }
        let channel = ChannelKey(connection.pending);
        let cursor = self.hub.cursor_of(index);
        if !self.delivery.batches.shared[Form::Poll.number()].serves([channel], cursor) {
            let mut batch = std::mem::take(&mut self.delivery.batches.shared[Form::Poll.number()]);
            batch.bytes.clear();
            batch.answered = self.write_poll_answer(index, None, &mut batch.bytes);
            batch.serve_from(&self.hub, [channel], cursor);
            self.delivery.batches.shared[Form::Poll.number()] = batch;
        }
        Output::Answer
    }
}

/// How messages are written into a batch; it tells whether another may follow.
fn writer(
    compression: &mut Compression,
    form: Form,
    bytes_min: usize,
) -> impl FnMut(&Message<'_>, &mut Vec<u8>) -> bool {
    move |message, out| {
        compression.write(form, message, bytes_min, out);
        // Compressed, many large messages fit into a batch: it ends where the turn's share does.
        !compression.is_spent()
    }
}

impl Batch {
    fn forget(&mut self) {
        self.first = 0;
        if self.bytes.capacity() > SCRATCH_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }

    fn serves(&self, channels: impl IntoIterator<Item = ChannelKey>, cursor: u64) -> bool {
        (self.floor..self.first).contains(&cursor) && channels.into_iter().eq(self.channels.iter().copied())
    }

    /// Notes that the bytes serve this cursor, and which others.
    fn serve_from(&mut self, hub: &Hub, channels: impl IntoIterator<Item = ChannelKey>, cursor: u64) {
        self.channels.clear();
        self.channels.extend(channels);
        let next = self.channels.iter().filter_map(|&channel| hub.next_after(channel, cursor));
        self.first = next.map(|message| hub.seq(message)).min().unwrap_or(0);
        let before = self.channels.iter().map(|&channel| hub.before(channel, self.first));
        self.floor = before.max().unwrap_or(0);
    }

    /// Takes messages for as long as there is room and `write` wants another.
    fn fill(
        &mut self,
        hub: &Hub,
        messages: impl Iterator<Item = MessageKey>,
        mut write: impl FnMut(&Message<'_>, &mut Vec<u8>) -> bool,
    ) {
        self.bytes.clear();
        self.ends.clear();
        self.first = 0;
        self.complete = true;
        let mut wants_more = true;
        for message in messages {
            let before = self.bytes.len();
            if before >= BATCH_BYTES || !wants_more {
                self.complete = false;
                break;
            }
            wants_more = write(&hub.message(message), &mut self.bytes);
            if self.bytes.len() > BATCH_BYTES && before > 0 {
                self.bytes.truncate(before);
                self.complete = false;
                break;
            }
            self.ends.push(End { at: self.bytes.len() as u32, message, seq: hub.seq(message) });
        }
    }
}
