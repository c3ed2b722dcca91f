//! Leaves in good order: every connection ends at a moment of its own, spread over the drain time,
//! and has first got what was answered 200 before.

use std::time::Duration;

use super::Engine;
use super::timeouts::ticks;
use crate::connection::{CloseReason, Flags, State};
use crate::deadlines::Deadlines;
use crate::form;
use crate::protocol::websocket::CloseCode;

/// A server on its way out.
pub(super) struct Leaving {
    /// When each connection is asked to end.
    moments: Deadlines,
    /// The last tick of the drain time.
    drained: u32,
    /// The last tick on which newcomers are answered.
    graced: u32,
}

impl Leaving {
    /// When to look again: somebody is to go, or the server may. With nobody left it may at the
    /// end of the grace, however long it could drain.
    pub(super) fn next_tick(&self, now: u32) -> u32 {
        let end = if now < self.graced { self.graced } else { self.drained };
        self.moments.next_tick().map_or(end, |next| next.min(end))
    }

    pub(super) fn forget(&mut self, index: u32) {
        self.moments.clear(index);
    }
}

impl Engine {
    /// Begins to leave. A second call changes nothing.
    pub fn drain(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        let now = self.tick;
        let mut moments = Deadlines::new(now);
        // Nobody in this very tick: who has just come may have asked, and was not read yet.
        let spread = u64::from(ticks(self.config.drain)).max(2) - 1;
        let indexes: Vec<u32> = self.connections.iter().map(|(index, _)| index).collect();
        log::info!("leaving: connections that end within {:?}: {}", self.config.drain, indexes.len());
        for &index in &indexes {
            moments.set(index, now + 1 + self.random.below(spread) as u32);
        }
        self.leaving = Some(Leaving {
            moments,
            drained: now + ticks(self.config.drain),
            graced: now + ticks(self.config.drain_grace),
        });
        if self.config.drain.is_zero() {
            indexes.into_iter().for_each(|index| self.ask_to_leave(index));
        }
    }

    /// True once the server may stop: drain and grace are over, or the grace is and nobody is left.
    pub fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| {
            let graced = self.tick >= leaving.graced;
            graced && (self.tick >= leaving.drained || self.connections.is_empty())
        })
    }

    /// True once newcomers are not even answered any more.
    pub fn is_deaf(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| self.tick >= leaving.graced)
    }

    pub(super) fn expire_leaving(&mut self) {
        while let Some(index) = self.leaving.as_mut().and_then(|leaving| leaving.moments.pop_expired(self.tick)) {
            self.ask_to_leave(index);
        }
    }

    /// Ends a connection as soon as it has everything.
    fn ask_to_leave(&mut self, index: u32) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.flags.set(Flags::LEAVING);
        // Not here: what this turn accepted before it was told to leave is committed only now, and is
        // written first. Once visited, it leaves.
        self.queue_ready(index);
    }

    pub(super) fn leave_now(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        match connection.state {
            State::Held => {
                connection.flags.clear(Flags::KEEP_ALIVE);
                let gap = self.hub.loss(index);
                self.answer_poll(index, gap.as_ref());
                self.queue_ready(index);
            }
            State::Stream => {
                let form = connection.form;
                let retry = self.retry_ms();
                self.connections[index].own(&mut self.spares).append_with(|out| form::sse_last(form, retry, out));
                self.queue_ready(index);
                self.finish(index, CloseReason::Leaving);
            }
            // What was published before is answered before.
            State::WebSocket if connection.unanswered() > 0 => {}
            State::WebSocket => self.close_websocket(index, CloseCode::RESTART, "the server is leaving; reconnect"),
            State::Request if connection.unanswered() == 0 && !connection.flags.has(Flags::HEAD_BEGUN) => {
                self.finish(index, CloseReason::Leaving);
            }
            // Half a request: its answer will say `Connection: close`.
            State::Request | State::Closing | State::Finishing | State::Lingering | State::Dead => {}
        }
    }

    /// The grace that is left is of no use: everything ends now.
    pub fn stop(&mut self) {
        self.config.drain = Duration::ZERO;
        self.config.drain_grace = Duration::ZERO;
        self.drain();
        if let Some(leaving) = &mut self.leaving {
            leaving.drained = self.tick;
            leaving.graced = self.tick;
        }
    }
}
