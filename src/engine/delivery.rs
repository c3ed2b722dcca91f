//! Sends messages: who is to be visited, what a visit writes, how far the cursor moves.
//!
//! A subscriber is visited because it is in `ready`; it is there at most once; it leaves by a
//! visit. A visit writes the rest of a half-sent message, then its own bytes, then one contiguous
//! batch of messages after its cursor. The cursor moves over a message when its first byte is out:
//! nothing but its rest can follow.
//!
//! ```text
//! batch  [ message 41 | message 42 | message 44 ]      built once a turn for all that stand alike
//!                          ^ the kernel took this much: the cursor is 42, and 42 is pinned
//! ```

use std::collections::VecDeque;
use std::io;

use super::batches::Batches;
use super::compression::Compression;
use super::{Engine, pending_of};
use crate::app::Transport;
use crate::connection::{CloseReason, Connection, Flags, MANY, NONE, State};
use crate::form::Form;
use crate::hub::{ChannelKey, MessageKey};
use crate::metrics::Limit;
use crate::slab::Slab;

/// Answers of polls that are not shared, or not read: so many bytes a turn, some 10 ms. What is over
/// it waits for the next, so that thousands of large ones hold up nobody else.
const ALONE_PER_TURN_MAX: usize = 16 * 1024 * 1024;

/// What fan-out needs beyond the connections.
#[derive(Default)]
pub struct Delivery {
    pub(super) batches: Batches,
    pub(super) compression: Compression,
    output: Output,
    /// This visit has had its batch.
    served: bool,
    /// Bytes that this turn made of polls' answers for one connection alone.
    pub(super) alone: usize,
    /// Connections in the order they became blocked; stale entries are known by their tick.
    blocked: VecDeque<(u32, u32)>,
    fresh: Fresh,
}

/// What `output` handed out last.
#[derive(Copy, Clone, Default)]
pub(super) enum Output {
    #[default]
    Nothing,
    Rest,
    Own,
    /// One of those that are shared, by its form's number.
    Batch(usize),
    Merged,
    /// A whole answer to a held poll.
    Answer,
}

/// Who was caught up when a burst began. History is trimmed only as far as all of them have been
/// served, so that no healthy subscriber gets a gap from one turn's burst, whatever the limits.
///
/// Two generations: a new one begins whenever the old one is served, so the mark moves on under
/// load that never pauses.
#[derive(Default)]
struct Fresh {
    waiting: [usize; 2],
    /// The generation that newcomers join; the other one is being waited for.
    young: usize,
    /// What the older generation has to be served up to.
    goal: u64,
    served_through: u64,
}

impl Fresh {
    fn join(&mut self) -> usize {
        self.waiting[self.young] += 1;
        self.young
    }

    fn leave(&mut self, generation: usize) {
        self.waiting[generation] -= 1;
    }

    /// How far everybody has been served, with the log at `head`.
    fn served_through(&mut self, head: u64) -> u64 {
        let old = 1 - self.young;
        if self.waiting[old] == 0 {
            self.served_through = self.goal;
            self.goal = head;
            self.young = old;
        }
        if self.waiting == [0, 0] {
            self.served_through = head;
        }
        self.served_through
    }
}

impl Delivery {
    pub(super) fn check_fresh(&self, fresh: [usize; 2]) {
        assert_eq!(self.fresh.waiting, fresh, "fresh connections by generation");
    }

    /// The connection that has been blocked for longest, of those that `holds` is true of. The
    /// others go to the end of the queue: so many calls in a row look at each once, not each call
    /// at all of them.
    pub(super) fn longest_blocked(
        &mut self,
        connections: &Slab<Connection>,
        holds: impl Fn(&Connection) -> bool,
    ) -> Option<u32> {
        for _ in 0..self.blocked.len() {
            let (index, tick) = self.blocked.pop_front()?;
            if !is_blocked_since(connections, index, tick) {
                continue;
            }
            if holds(&connections[index]) {
                return Some(index);
            }
            self.blocked.push_back((index, tick));
        }
        None
    }

    fn note_blocked(&mut self, index: u32, tick: u32, connections: &Slab<Connection>) {
        if self.blocked.len() > 64 + 2 * connections.len() {
            self.blocked.retain(|&(index, tick)| is_blocked_since(connections, index, tick));
        }
        self.blocked.push_back((index, tick));
    }
}

fn is_blocked_since(connections: &Slab<Connection>, index: u32, tick: u32) -> bool {
    connections.get(index).is_some_and(|connection| {
        connection.state != State::Dead && connection.flags.has(Flags::BLOCKED) && connection.wrote == tick
    })
}

impl Engine {
    /// The turn has its shares anew.
    pub(super) fn begin_shares(&mut self) {
        self.delivery.compression.begin_turn();
        self.delivery.alone = 0;
    }

    // A message is in the log.

    /// Puts the subscribers of a channel that has a new message into the ready queue.
    pub(super) fn wake_subscribers(&mut self, channel: ChannelKey) {
        let news = pending_of(channel);
        for &(index, _) in self.hub.subscribers(channel) {
            let connection = &mut self.connections[index];
            let was_caught_up = connection.pending == NONE;
            connection.pending = match connection.pending {
                NONE => news,
                pending if pending == news => news,
                _ => MANY,
            };
            if connection.flags.has(Flags::BLOCKED) {
                continue;
            }
            if was_caught_up && !connection.flags.has(Flags::FRESH) {
                connection.flags.set(Flags::FRESH);
                connection.flags.put(Flags::GENERATION, self.delivery.fresh.join() == 1);
            }
            if !connection.flags.has(Flags::QUEUED) {
                connection.flags.set(Flags::QUEUED);
                self.ready.push_back(index);
            }
        }
    }

    /// A connection no longer counts as fresh: it was served, blocked or gone.
    pub(super) fn settle_fresh(&mut self, index: u32) {
        let flags = &mut self.connections[index].flags;
        if flags.has(Flags::FRESH) {
            flags.clear(Flags::FRESH);
            self.delivery.fresh.leave(usize::from(flags.has(Flags::GENERATION)));
        }
    }

    /// Lets history be trimmed, as far as nobody healthy needs it.
    pub fn trim(&mut self) {
        let head = self.hub.head();
        let through = self.delivery.fresh.served_through(head);
        let unoffered = self.hub.trim(self.now.monotonic_ms, through);
        self.note_limit_times(Limit::BurstBytesMax, unoffered);
        // Slots of evicted messages may be used again.
        self.delivery.batches.forget();
        // What was evicted and is still being read counts from now on.
        self.limit_output();
    }

    // Visits.

    /// Begins the next visit: the connection at the head of the ready queue.
    pub fn next_ready(&mut self) -> Option<u32> {
        loop {
            // Compressing is slow, and so are large answers: what is over the turn's share waits.
            if self.delivery.compression.is_spent() || self.delivery.alone >= ALONE_PER_TURN_MAX {
                return None;
            }
            let index = self.ready.pop_front()?;
            let connection = &mut self.connections[index];
            connection.flags.clear(Flags::QUEUED);
            if connection.state == State::Dead {
                self.free(index);
                continue;
            }
            self.delivery.served = false;
            return Some(index);
        }
    }

    /// Begins a visit that writes answers only: right after a read.
    pub fn begin_answers(&mut self) {
        self.delivery.served = true;
    }

    /// The next bytes for this connection in this visit; tell what became of them by `sent`.
    pub fn output(&mut self, index: u32) -> Option<&[u8]> {
        let connection = self.connections.get(index)?;
        if connection.flags.has(Flags::BLOCKED) || connection.state == State::Dead {
            return None;
        }
        self.delivery.output = if connection.message != NONE {
            self.form_rest(index);
            Output::Rest
        } else if connection.own.is_some() {
            Output::Own
        } else if !self.delivery.served && connection.state.is_subscribed() && connection.pending != NONE {
            self.delivery.served = true;
            self.next_batch(index)
        } else {
            Output::Nothing
        };
        match self.delivery.output {
            Output::Nothing => None,
            Output::Rest => Some(&self.delivery.batches.rest.bytes[self.connections[index].sent as usize..]),
            Output::Own => self.connections[index].own.as_ref().map(|own| own.as_slice()),
            Output::Batch(number) => Some(&self.delivery.batches.shared[number].bytes),
            Output::Answer => Some(&self.delivery.batches.shared[Form::Poll.number()].bytes),
            Output::Merged => Some(&self.delivery.batches.merged.bytes),
        }
    }

    /// What the system made of the bytes that `output` handed out. True if it may hand out more in
    /// this visit.
    pub fn sent(&mut self, index: u32, result: io::Result<usize>) -> bool {
        let written = match result {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => {
                self.kill(index, CloseReason::Reset);
                return false;
            }
        };
        self.count_sent(index, written);
        let whole = match self.delivery.output {
            Output::Nothing => return false,
            Output::Rest => self.sent_rest(index, written),
            Output::Own => self.sent_own(index, written),
            Output::Batch(number) => self.sent_batch(index, written, Some(number)),
            Output::Merged => self.sent_batch(index, written, None),
            Output::Answer => self.sent_answer(index, written),
        };
        let connection = &mut self.connections[index];
        connection.wrote = self.tick;
        let is_finishing = connection.state == State::Finishing;
        if !whole {
            self.block(index);
        }
        self.account(index);
        // Only what stays behind can be too much.
        if !whole {
            self.limit_output();
        }
        if is_finishing {
            self.finish_if_written(index);
        }
        match self.delivery.output {
            Output::Rest => whole,
            Output::Own => whole && !self.delivery.served,
            Output::Nothing | Output::Batch(_) | Output::Merged | Output::Answer => false,
        }
    }

    /// The system took no more: nothing goes out before it says "writable".
    fn block(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        connection.flags.set(Flags::BLOCKED);
        if let Some(own) = &mut connection.own {
            self.spares.exchange(own);
        }
        self.settle_fresh(index);
        self.delivery.note_blocked(index, self.tick, &self.connections);
        self.set_deadline(index, self.config.stall_timeout);
    }

    /// Ends a visit: whoever has more to get stands at the end of the queue again.
    pub fn end_visit(&mut self, index: u32) {
        let Some(connection) = self.connections.get(index) else { return };
        if connection.state == State::Dead {
            return;
        }
        // Also of who has never taken all there is: its answers went out with the rest.
        if connection.flags.has(Flags::BLOCKED) {
            return self.queue_reader(index);
        }
        if connection.own.is_some() || connection.message != NONE || connection.pending != NONE {
            self.queue_ready(index);
            return self.queue_reader(index);
        }
        let flags = connection.flags;
        if !flags.has(Flags::QUEUED) {
            self.settle_fresh(index);
        }
        // Nearly everybody only waits for the next message.
        if !flags.has_any(Flags::AFTER_VISIT) {
            return;
        }
        if self.connections[index].flags.has(Flags::LEAVING) {
            self.leave_now(index);
        }
        self.queue_reader(index);
    }

    fn sent_rest(&mut self, index: u32, written: usize) -> bool {
        let connection = &mut self.connections[index];
        connection.sent += written as u32;
        if (connection.sent as usize) < self.delivery.batches.rest.bytes.len() {
            return false;
        }
        let message = std::mem::replace(&mut connection.message, NONE);
        connection.sent = 0;
        let transport = transport_of(connection.form);
        self.hub.unpin(MessageKey(message));
        self.count_delivered(index, transport, 1);
        if self.connections[index].own.is_none() {
            self.written(index);
        }
        true
    }

    fn sent_own(&mut self, index: u32, written: usize) -> bool {
        let connection = &mut self.connections[index];
        let Some(own) = &mut connection.own else { return true };
        own.consume(written);
        if !own.is_empty() {
            return false;
        }
        if let Some(own) = connection.own.take() {
            self.spares.give(own);
        }
        self.written(index);
        true
    }

    fn sent_batch(&mut self, index: u32, written: usize, shared: Option<usize>) -> bool {
        let batch = match shared {
            Some(number) => &self.delivery.batches.shared[number],
            None => &self.delivery.batches.merged,
        };
        let connection = &mut self.connections[index];
        if written >= batch.bytes.len() {
            if let Some(last) = batch.ends.last() {
                self.hub.set_cursor(index, last.seq);
            }
            if batch.complete {
                connection.pending = NONE;
            }
            let (transport, messages) = (transport_of(connection.form), batch.ends.len());
            self.count_delivered(index, transport, messages);
            return true;
        }
        let whole = batch.ends.partition_point(|end| end.at as usize <= written);
        let start = whole.checked_sub(1).map_or(0, |nth| batch.ends[nth].at as usize);
        let begun = whole + usize::from(written > start);
        if let Some(last) = begun.checked_sub(1) {
            self.hub.set_cursor(index, batch.ends[last].seq);
        }
        if begun > whole {
            connection.message = batch.ends[whole].message.0;
            connection.sent = (written - start) as u32;
            self.hub.pin(MessageKey(connection.message));
        }
        let transport = transport_of(connection.form);
        self.count_delivered(index, transport, whole);
        false
    }

    fn sent_answer(&mut self, index: u32, written: usize) -> bool {
        let batch = &self.delivery.batches.shared[Form::Poll.number()];
        let rest = &batch.bytes[written..];
        let whole = rest.is_empty();
        if !whole {
            // An answer belongs to its poll: what the kernel did not take is the connection's own.
            self.connections[index].own(&mut self.spares).append(rest);
            self.delivery.alone += rest.len();
        }
        let messages = batch.answered;
        self.count_delivered(index, Transport::Poll, messages);
        self.end_poll(index);
        whole
    }
}

/// The transport of messages in this form.
fn transport_of(form: Form) -> Transport {
    match form {
        Form::Poll => Transport::Poll,
        form if form.is_sse() => Transport::Sse,
        _ => Transport::WebSocket,
    }
}
