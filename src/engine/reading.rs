//! Takes bytes in: whose turn it is to be read, what was read, and what of it may be acted on now.
//!
//! Readiness is a state: a bit set by events, cleared by would-block or a short read. Work is done
//! when a bit and a wish meet, so a reader that pauses loses no edge. What peers may ask of one turn
//! is a budget; what is over it is left for the next.

use std::io;

use super::{DISCARD_BYTES_MAX, Engine, OWN_BYTES_PAUSE, Progress, UNANSWERED_MAX, VISIT_SHARE};
use crate::config::READ_BYTES;
use crate::connection::reader::Reader;
use crate::connection::{CloseReason, Flags, State};

impl Engine {
    /// The next connection with something to do before the commit, and whether it wants bytes
    /// from its socket (otherwise what it holds is to be processed). Bounded by the turn's budget.
    pub fn next_reader(&mut self) -> Option<(u32, bool)> {
        while self.turn_bytes > 0 {
            let index = self.readers.pop_front()?;
            let connection = &mut self.connections[index];
            connection.flags.clear(Flags::READING);
            if connection.state == State::Dead {
                self.free(index);
                continue;
            }
            if self.may_go_on(index) {
                return Some((index, false));
            }
            if self.wants_bytes(index) {
                return Some((index, true));
            }
        }
        None
    }

    /// True if a reader is left over: the next turn must not wait.
    pub fn has_work(&self) -> bool {
        // A command that had waited may be appended while the log was being asked.
        !self.ready.is_empty() || !self.readers.is_empty() || self.hub.has_proposals()
    }

    fn may_process(&self, index: u32) -> bool {
        let connection = &self.connections[index];
        match connection.state {
            State::Request => {
                connection.own_bytes() < OWN_BYTES_PAUSE
                    && connection.unanswered() < UNANSWERED_MAX
                    && connection.flags.has(Flags::KEEP_ALIVE)
            }
            // What one read brought may be echoed by one write; who takes nothing is read no further.
            State::WebSocket => {
                let pause = if connection.flags.has(Flags::BLOCKED) { OWN_BYTES_PAUSE } else { READ_BYTES };
                connection.own_bytes() < pause && !connection.has_deferred()
            }
            State::Held | State::Stream | State::Closing | State::Finishing | State::Lingering | State::Dead => false,
        }
    }

    /// True if held input may bring something now: what stood in its way is gone.
    fn may_go_on(&self, index: u32) -> bool {
        let connection = &self.connections[index];
        connection.flags.has(Flags::PAUSED) && connection.unanswered() == 0 && self.may_process(index)
    }

    fn wants_bytes(&self, index: u32) -> bool {
        let connection = &self.connections[index];
        if !connection.flags.has(Flags::READABLE) || connection.flags.has(Flags::ENDED) {
            return false;
        }
        match connection.state {
            State::Request if !connection.flags.has(Flags::KEEP_ALIVE) => false,
            State::Request => self.may_process(index) && connection.unanswered() == 0,
            State::WebSocket => self.may_process(index),
            // What stands behind a held poll waits here, within the bound of a head.
            State::Held => {
                connection.reader.as_ref().is_none_or(|reader| reader.input.len() < self.config.head_bytes_max)
            }
            State::Stream | State::Closing | State::Finishing | State::Lingering => true,
            State::Dead => false,
        }
    }

    /// A read brought these bytes; `full` if they filled the buffer, so that there may be more.
    pub fn received(&mut self, index: u32, bytes: &mut [u8], full: bool) {
        self.spend(bytes.len().max(1));
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.heard = self.tick;
        connection.flags.clear(Flags::PINGED);
        // A short read ends reading, unless the end is known to stand behind it.
        if !full && !connection.flags.has(Flags::READ_CLOSED) {
            connection.flags.clear(Flags::READABLE);
        }
        let state = connection.state;
        self.count_received(index, bytes.len());
        match state {
            State::Request | State::Held | State::WebSocket => self.process(index, bytes),
            State::Stream => {}
            State::Closing | State::Finishing | State::Lingering => {
                let reason = self.connections[index].reason;
                let cold = self.connections[index].cold();
                cold.discarded += bytes.len();
                if cold.discarded > DISCARD_BYTES_MAX {
                    self.kill(index, reason);
                } else if state == State::Closing {
                    self.process(index, bytes);
                }
            }
            State::Dead => {}
        }
        self.account(index);
        self.queue_reader(index);
    }

    /// Looks again at the bytes a connection holds.
    pub fn process_held(&mut self, index: u32) {
        self.spend(1);
        self.process(index, &mut []);
        self.account(index);
        self.queue_reader(index);
    }

    /// A read found the end of the peer's bytes.
    pub fn ended(&mut self, index: u32) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.flags.set(Flags::ENDED);
        connection.flags.clear(Flags::READABLE);
        match connection.state {
            // A complete request before the end still gets its answer.
            State::Request => self.process(index, &mut []),
            // A killed client looks the same as one that half-closed.
            State::Held | State::Stream | State::WebSocket | State::Lingering => {
                let reason =
                    if connection.state == State::Lingering { connection.reason } else { CloseReason::PeerClosed };
                self.kill(index, reason);
            }
            State::Closing => self.end_closing(index),
            State::Finishing | State::Dead => {}
        }
        self.account(index);
    }

    /// A read failed.
    pub fn read_failed(&mut self, index: u32, error: &io::Error) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        match error.kind() {
            // What was pending is gone; only an event says that there is more.
            io::ErrorKind::WouldBlock => connection.flags.clear(Flags::READABLE),
            io::ErrorKind::Interrupted => self.queue_reader(index),
            _ => self.kill(index, CloseReason::Reset),
        }
    }

    /// Takes requests and frames out of what the connection holds and has just received.
    fn process(&mut self, index: u32, bytes: &mut [u8]) {
        let connection = &mut self.connections[index];
        connection.flags.clear(Flags::PAUSED);
        let kept = connection.reader.take();
        let held_before = kept.as_ref().map_or(0, |reader| reader.held_bytes());
        let mut reader = kept.map_or_else(Reader::default, |reader| *reader);
        self.feed(index, &mut reader, bytes);
        self.keep(index, reader, held_before);
        self.watch_request(index);
        self.watch_message(index);
    }

    /// Lends the reader what it held and what came behind it; it goes on holding what is not consumed.
    fn feed(&mut self, index: u32, reader: &mut Reader, bytes: &mut [u8]) {
        let mut gathered = std::mem::take(&mut reader.input);
        let is_gathered = !gathered.is_empty();
        let work: &mut [u8] = if is_gathered {
            gathered.extend_from_slice(bytes);
            &mut gathered
        } else {
            bytes
        };
        let total = work.len();
        let consumed = self.process_bytes(index, reader, work);
        let state = self.connections[index].state;
        // Bytes behind the last request of a connection mean nothing, nor does half a message.
        if !matches!(state, State::Request | State::Held | State::WebSocket | State::Closing) {
            *reader = Reader::default();
        } else if consumed == total {
            reader.unread();
        } else if is_gathered {
            gathered.drain(..consumed);
            reader.input = gathered;
            reader.compact();
        } else {
            reader.input.extend_from_slice(&bytes[consumed..]);
        }
    }

    /// Puts the reader back if it holds anything, and what it holds into the books.
    fn keep(&mut self, index: u32, reader: Reader, held_before: usize) {
        let mut held = 0;
        if !reader.is_idle() {
            held = reader.held_bytes();
            self.connections[index].reader = Some(Box::new(reader));
        }
        self.intake_bytes = self.intake_bytes + held - held_before;
        if held > held_before && self.intake_bytes > self.config.intake_bytes_max {
            self.refuse_intake(index);
        }
    }

    /// Returns how many bytes were consumed.
    fn process_bytes(&mut self, index: u32, reader: &mut Reader, work: &mut [u8]) -> usize {
        let mut at = 0;
        let visit = self.config.publish_bytes_per_turn_max / VISIT_SHARE;
        let left_for_others = self.turn_bytes.saturating_sub(visit);
        loop {
            let state = self.connections[index].state;
            let progress = match state {
                State::Stream | State::Finishing | State::Lingering | State::Dead => return work.len(),
                State::Closing => return at + self.process_closing(index, reader, &work[at..]),
                _ if at == work.len() => return at,
                // One connection must make neither the turn long nor the wait of those behind it: the
                // rest comes with its next visit.
                _ if at > 0 && self.turn_bytes <= left_for_others => Progress::Later,
                State::Request if self.may_process(index) => self.process_request(index, reader, &mut work[at..]),
                State::WebSocket if self.may_process(index) => self.process_frame(index, reader, &mut work[at..]),
                State::Request | State::WebSocket | State::Held => Progress::Later,
            };
            match progress {
                Progress::Consumed(bytes) => at += bytes,
                Progress::NeedsMore(bytes) => return at + bytes,
                Progress::Later => {
                    self.connections[index].flags.set(Flags::PAUSED);
                    return at;
                }
            }
        }
    }

    /// Puts a connection among the readers if there is something to read or to process.
    pub(super) fn queue_reader(&mut self, index: u32) {
        let connection = &self.connections[index];
        // Nearly everybody has nothing to be read and nothing to be looked at again.
        if !connection.flags.has(Flags::READABLE) && !connection.flags.has(Flags::PAUSED) {
            return;
        }
        if connection.flags.has(Flags::READING) || connection.state == State::Dead {
            return;
        }
        if self.may_go_on(index) || self.wants_bytes(index) {
            self.connections[index].flags.set(Flags::READING);
            self.readers.push_back(index);
        }
    }
}
