//! What the engine promises after every turn, as code: for tests, simulation and fuzzing.

use super::{Engine, pending_of, transport};
use crate::connection::{Flags, MANY, NONE, State};

impl Engine {
    /// Proves what the engine promises; for tests, simulation and fuzzing, after every turn.
    pub fn check_invariants(&self) {
        self.hub.check_invariants();
        self.connections.check_invariants();
        self.deadlines.check_invariants();
        self.spares.check_invariants();
        self.addresses.check_invariants();
        self.delivery.compression.check_invariants();
        let mut own_bytes = 0;
        let mut intake_bytes = 0;
        let mut subscribers = [0; 3];
        let mut queued = 0;
        let mut reading = 0;
        let mut fresh = [0; 2];
        let (mut open, mut over) = (0, 0);
        for (index, connection) in self.connections.iter() {
            own_bytes += connection.own_room();
            intake_bytes += connection.held_bytes();
            queued += usize::from(connection.flags.has(Flags::QUEUED));
            reading += usize::from(connection.flags.has(Flags::READING));
            if connection.flags.has(Flags::FRESH) {
                fresh[usize::from(connection.flags.has(Flags::GENERATION))] += 1;
                assert!(connection.flags.has(Flags::QUEUED), "{index}: fresh means in the ready queue");
            }
            if let Some(own) = &connection.own {
                own.check_invariants();
            }
            if connection.state == State::Dead {
                let named = connection.flags.has(Flags::QUEUED) || connection.flags.has(Flags::READING);
                assert!(named, "{index}: the dead are freed unless a queue names them");
                continue;
            }
            open += 1;
            over += usize::from(connection.flags.has(Flags::OVER));
            if connection.state.is_subscribed() {
                subscribers[transport(connection.state) as usize] += 1;
            }
            assert!(
                connection.own.as_ref().is_none_or(|own| !own.is_empty()),
                "{index}: an empty buffer is given back"
            );
            let idle = !connection.flags.has(Flags::BLOCKED) && !connection.flags.has(Flags::QUEUED);
            if idle {
                assert_eq!(connection.message, NONE, "{index}: half-sent means blocked or ready");
                assert_eq!(connection.own_bytes(), 0, "{index}: own bytes mean blocked or ready");
            }
            if connection.state.is_subscribed() {
                assert!(!idle || connection.pending == NONE, "{index}: idle means nothing pending");
                let has_everything = !self.hub.has_news(index);
                assert!(connection.pending != NONE || has_everything, "{index}: nothing pending means caught up");
                let mut others =
                    self.hub.channels_of(index).filter(|&channel| pending_of(channel) != connection.pending);
                let is_one = !matches!(connection.pending, NONE | MANY);
                let has_more = others.any(|other| self.hub.next_after(other, self.hub.cursor_of(index)).is_some());
                assert!(!(is_one && has_more), "{index}: one channel pending means no other has news");
            }
        }
        assert_eq!(own_bytes, self.own_bytes);
        assert_eq!(intake_bytes, self.intake_bytes);
        assert_eq!(over, self.over, "who is told that there are too many");
        assert_eq!(subscribers, self.subscribers);
        assert_eq!(open, self.counters.open(), "who was accepted is open or was counted as closed");
        assert!(self.scrapes.is_empty(), "a scrape is answered in its turn");
        assert_eq!(queued, self.ready.len());
        assert_eq!(reading, self.readers.len());
        self.delivery.check_fresh(fresh);
        assert!(self.own_bytes + self.hub.detached_bytes() <= self.config.output_bytes_max || queued > 0);
    }
}
