//! Expires deadlines: each connection has one, and its state says what it means.
//!
//! | state | at the deadline |
//! | --- | --- |
//! | any, blocked | the reader has stalled for the whole `stall_timeout`, or the connection was ending: close |
//! | `Request` | no request, or half of one: 408 if it began, and the end |
//! | `Held` | answer with nothing but a fresh cursor |
//! | `Stream` | heartbeat |
//! | `WebSocket` | ping, or close a peer that was silent for two or never ends its message |
//! | `Closing`, `Finishing`, `Lingering` | close: the three have one deadline in all, from the last byte written |
//!
//! Nobody is late, idle or silent whose bytes have come and wait to be looked at: the wait is ours.

use std::time::Duration;

use super::Engine;
use super::answers::Reply;
use crate::connection::{CloseReason, Connection, Flags, State};
use crate::cursor::Cursor;
use crate::deadlines::{TICK_MS, tick};
use crate::error::{Code, Refusal};
use crate::form::{self, Form};
use crate::os::Now;
use crate::protocol::websocket::{self, CloseCode, Opcode};

/// Heartbeats beat on a raster of 250 ms, so that an idle server wakes at most four times a second.
const RASTER_TICKS: u32 = 5;

impl Engine {
    /// Does what is due.
    pub fn expire(&mut self) {
        while let Some(index) = self.deadlines.pop_expired(self.tick) {
            self.expire_connection(index);
        }
        self.expire_leaving();
        self.tell_limits();
    }

    fn expire_connection(&mut self, index: u32) {
        let Some(connection) = self.connections.get(index) else { return };
        if connection.flags.has(Flags::BLOCKED) && connection.state != State::Dead {
            // The deadline may have been set for something else since.
            let stalled = connection.wrote + ticks(self.config.stall_timeout);
            if self.tick >= stalled {
                return self.kill(index, CloseReason::Stalled);
            }
            if matches!(connection.state, State::Closing | State::Finishing) {
                let reason = connection.reason;
                return self.kill(index, reason);
            }
            return self.deadlines.set(index, stalled);
        }
        match connection.state {
            // It asked just in time, in this very turn; the commit is still to come.
            State::Request if connection.unanswered() > 0 => self.set_deadline(index, self.config.idle_timeout),
            // What it may lack has come, perhaps. It gets no more time than that takes to be seen.
            State::Request if connection.flags.has(Flags::HEAD_BEGUN) && is_unread(connection) => {
                self.set_deadline(index, Duration::ZERO);
            }
            State::Request if connection.flags.has(Flags::HEAD_BEGUN) => {
                let message = "the request did not end in time; send it at once, or more quickly";
                let reply = Reply { keep_alive: false, ..Reply::default() };
                self.refuse(index, &reply, &Refusal::new(Code::RequestTimeout, message));
                self.connections[index].reason = CloseReason::RequestTimeout;
                self.queue_ready(index);
            }
            // Its answer is not out yet, or what it asks next was not looked at.
            State::Request if connection.own.is_some() || is_unread(connection) => {
                self.set_deadline(index, self.config.idle_timeout);
            }
            State::Request => self.finish(index, CloseReason::Idle),
            State::Held => {
                let gap = self.hub.loss(index);
                self.answer_poll(index, gap.as_ref());
                self.queue_ready(index);
                self.queue_reader(index);
            }
            State::Stream => self.beat(index),
            State::WebSocket => self.ping(index),
            // Its turn to be written to has not come: the wait is ours, and it has not heard why it ends.
            State::Closing | State::Finishing if connection.flags.has(Flags::QUEUED) => {
                self.set_deadline(index, self.config.close_timeout);
            }
            State::Closing | State::Finishing | State::Lingering => {
                let reason = connection.reason;
                self.kill(index, reason);
            }
            State::Dead => {}
        }
    }

    fn beat(&mut self, index: u32) {
        let interval = ticks(self.config.heartbeat);
        let connection = &self.connections[index];
        let quiet = self.tick.wrapping_sub(connection.wrote);
        // What was written lately was as good as a heartbeat; what is queued will be.
        if connection.flags.has(Flags::QUEUED) || quiet + RASTER_TICKS < interval {
            return self.set_tick(index, self.tick + interval.saturating_sub(quiet).max(RASTER_TICKS));
        }
        let moved_to = self.advance(index);
        let form = self.connections[index].form;
        self.connections[index].own(&mut self.spares).append_with(|out| form::sse_heartbeat(form, moved_to, out));
        self.queue_ready(index);
        self.set_tick(index, self.tick + interval);
    }

    fn ping(&mut self, index: u32) {
        let interval = ticks(self.config.ping);
        let connection = &self.connections[index];
        // Who was not asked need not have answered: a process that stood still for so long, in a machine
        // that slept or was moved, has not pinged either, and its peers are well.
        let is_unread = is_unread(connection);
        if connection.flags.has(Flags::PINGED) && !is_unread && self.tick.wrapping_sub(connection.heard) >= 2 * interval
        {
            return self.kill(index, CloseReason::Silent);
        }
        let due = connection.reader.as_ref().and_then(|reader| reader.due);
        if due.is_some_and(|due| self.tick >= due) {
            if is_unread {
                return self.set_deadline(index, Duration::ZERO);
            }
            let why = "the message did not end in time; send it at once, or more quickly";
            self.close_websocket(index, CloseCode::POLICY, why);
            self.connections[index].reason = CloseReason::RequestTimeout;
            return;
        }
        if self.connections[index].flags.has(Flags::PING_WAITS) {
            // Its turn to be written to has not come.
            return self.await_pong(index);
        }
        let json = self.connections[index].form.plain() == Form::WsJson;
        // Only a subscriber that has everything may be told the head.
        let moved_to = if self.connections[index].flags.has(Flags::QUEUED) { None } else { self.advance(index) };
        self.connections[index].own(&mut self.spares).append_with(|out| {
            if let (Some(cursor), true) = (moved_to, json) {
                form::ws_cursor(cursor, out);
            }
            websocket::encode_frame(out, Opcode::Ping, b"");
        });
        self.connections[index].flags.set(Flags::PING_WAITS);
        self.queue_ready(index);
        self.await_pong(index);
    }

    fn await_pong(&mut self, index: u32) {
        self.set_tick(index, self.tick + ticks(self.config.ping));
        self.watch_message(index);
    }

    /// All that waited for this connection is written. What its peer is to do about it, it has the whole
    /// time for from now on, however long the bytes waited for their turn.
    pub(super) fn written(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        match connection.state {
            State::WebSocket if connection.flags.has(Flags::PING_WAITS) => {
                connection.flags.clear(Flags::PING_WAITS);
                connection.flags.set(Flags::PINGED);
                self.await_pong(index);
            }
            State::Closing | State::Finishing => self.set_deadline(index, self.config.close_timeout),
            _ => {}
        }
    }

    /// Moves the cursor of a subscriber that has everything to the head; the head, if it moved.
    fn advance(&mut self, index: u32) -> Option<Cursor> {
        let head = self.hub.head();
        if self.hub.cursor_of(index) == head {
            return None;
        }
        self.hub.set_cursor(index, head);
        Some(self.hub.cursor(head))
    }

    /// Sets the deadline of a stream's first heartbeat: a random part of the interval, for many
    /// that arrived together must not beat together.
    pub(super) fn set_first_heartbeat(&mut self, index: u32, interval: Duration) {
        let interval = u64::from(ticks(interval));
        let first = interval / 2 + self.random.below(interval / 2 + 1);
        self.set_tick(index, self.tick + (first as u32).max(1));
    }

    /// Sets the deadline that the state of a connection asks for, after it was blocked.
    pub(super) fn arm(&mut self, index: u32) {
        match self.connections[index].state {
            State::Stream => self.set_first_heartbeat(index, self.config.heartbeat),
            State::WebSocket => {
                self.set_first_heartbeat(index, self.config.ping);
                let soon = self.tick + ticks(self.config.head_timeout);
                if let Some(due) = self.connections[index].reader.as_mut().and_then(|reader| reader.due.as_mut()) {
                    *due = soon.max(*due);
                }
                self.watch_message(index);
            }
            State::Request if self.connections[index].flags.has(Flags::HEAD_BEGUN) => {
                // Its time went on while it was not read; a moment is still left to it.
                let due = self.connections[index].reader.as_ref().and_then(|reader| reader.due);
                let soon = self.tick + ticks(self.config.head_timeout);
                self.deadlines.set(index, due.map_or(soon, |due| due.max(soon)));
            }
            State::Request => self.set_deadline(index, self.config.idle_timeout),
            // Its wait was lost while it was blocked; an early empty answer is always right.
            State::Held => self.set_deadline(index, Duration::ZERO),
            State::Closing | State::Finishing | State::Lingering => {
                self.set_deadline(index, self.config.close_timeout);
            }
            State::Dead => {}
        }
    }

    /// How long a body, or a message, of so many bytes may take to come.
    pub(super) fn time_for_body(&self, bytes: u64) -> Duration {
        let per_second = self.config.body_bytes_per_second_min.max(1) as u64;
        self.config.body_timeout.saturating_add(Duration::from_secs(bytes / per_second))
    }

    /// Sets a connection's deadline this far from now.
    pub(super) fn set_deadline(&mut self, index: u32, after: Duration) {
        self.deadlines.set(index, self.tick + ticks(after));
    }

    fn set_tick(&mut self, index: u32, tick: u32) {
        self.deadlines.set(index, tick.div_ceil(RASTER_TICKS) * RASTER_TICKS);
    }

    /// True if somebody's deadline may be over at this time.
    pub fn is_due(&self, now: Now) -> bool {
        self.deadlines.next_tick().is_some_and(|due| due <= tick(now.monotonic_ms))
    }

    /// How long the loop may wait, from the moment of the last `begin_turn`.
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let leaving = self.leaving.as_ref().map(|leaving| leaving.next_tick(self.tick));
        let tick = earlier(self.deadlines.next_tick(), leaving);
        let due = earlier(tick.map(|tick| u64::from(tick) * TICK_MS), self.hub.next_expiry_ms());
        let due = earlier(due, self.limits_log.next_ms())?;
        Some(Duration::from_millis(due.saturating_sub(self.now.monotonic_ms)))
    }
}

/// True if bytes of it have come that were not looked at.
fn is_unread(connection: &Connection) -> bool {
    let flags = connection.flags;
    flags.has(Flags::PAUSED) || flags.has(Flags::READABLE) && !flags.has(Flags::ENDED)
}

/// The earlier of two moments, either of which may never come.
fn earlier<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A time in ticks: at least one, and never early.
pub(super) fn ticks(duration: Duration) -> u32 {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // A deadline years away is as good as none, and must not wrap.
    (ms.div_ceil(TICK_MS) + 1).min(u64::from(u32::MAX / 4)) as u32
}
