//! Counts what happens, and tells it: `/metrics`, the lines about limits, those about connections.
//!
//! Everything is counted here and called from the one place where it happens. What the system
//! knows of the process is asked for only when somebody scrapes: the answer to a scrape is written
//! once the loop has brought it, before the commit, so that answers keep the order of the requests.

use super::Engine;
use super::answers::{Content, Reply};
use crate::app::Transport;
use crate::connection::{CloseReason, Flags, State};
use crate::error::Code;
use crate::gap::Gap;
use crate::hub::Outcome;
use crate::metrics::{self, Limit, Snapshot, Start};
use crate::os::Process;

/// About what an answer to a scrape has.
const SCRAPE_BYTES: usize = 12 * 1024;

impl Engine {
    // Connections.

    pub(super) fn count_accepted(&mut self, index: u32) {
        self.counters.accepted += 1;
        if let Some(log) = &mut self.connection_log {
            log.begin(index, self.now.monotonic_ms);
        }
    }

    /// A connection was accepted only to be closed at once: the reserve is spent too.
    pub fn turned_away(&mut self) {
        self.counters.accepted += 1;
        self.counters.closes.0[CloseReason::TooMany as usize] += 1;
        self.note_limit(Limit::ConnectionsMax);
    }

    pub(super) fn count_closed(&mut self, index: u32, reason: CloseReason) {
        self.counters.closes.0[reason as usize] += 1;
        if let Some(log) = &self.connection_log {
            log::info!("{}", log.end(index, self.now.monotonic_ms, reason));
        }
    }

    pub(super) fn count_received(&mut self, index: u32, bytes: usize) {
        self.counters.received_bytes += bytes as u64;
        if let Some(log) = &mut self.connection_log {
            log.of(index).received_bytes += bytes as u64;
        }
    }

    pub(super) fn count_sent(&mut self, index: u32, bytes: usize) {
        self.counters.sent_bytes += bytes as u64;
        if let Some(log) = &mut self.connection_log {
            log.of(index).sent_bytes += bytes as u64;
        }
    }

    // What they ask.

    pub(super) fn count_request(&mut self, index: u32) {
        self.counters.requests += 1;
        if let Some(log) = &mut self.connection_log {
            log.of(index).requests += 1;
        }
    }

    pub(super) fn count_subscription(&mut self, index: u32, transport: Transport, start: Start) {
        self.counters.subscriptions[transport as usize][start as usize] += 1;
        if let Some(log) = &mut self.connection_log {
            log.of(index).transport = Some(transport);
        }
    }

    /// A connection sent a message to be published; the log has not decided yet.
    pub(super) fn count_publish(&mut self, index: u32) {
        if let Some(log) = &mut self.connection_log {
            log.of(index).publishes += 1;
        }
    }

    pub(super) fn count_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Accepted { .. } => self.counters.published += 1,
            Outcome::Repeated { .. } => self.counters.replayed += 1,
            Outcome::Mismatch | Outcome::Moved { .. } | Outcome::Draining | Outcome::Failed => {}
        }
    }

    /// A client, or the embedder, is told no.
    pub(super) fn count_refusal(&mut self, code: Code) {
        self.counters.refusals.0[code as usize] += 1;
        match code {
            Code::ChannelsFull => self.note_limit(Limit::ChannelsMax),
            Code::Busy => self.note_limit(Limit::IntakeBytesMax),
            _ => {}
        }
    }

    // What they get.

    pub(super) fn count_delivered(&mut self, index: u32, transport: Transport, messages: usize) {
        self.counters.deliveries[transport as usize] += messages as u64;
        if let Some(log) = &mut self.connection_log {
            log.of(index).deliveries += messages as u64;
        }
    }

    pub(super) fn count_gap(&mut self, gap: &Gap) {
        self.counters.gaps[gap.reason as usize] += 1;
    }

    // Limits.

    /// A limit was reached: counted, and told in the log, though not each time.
    pub fn note_limit(&mut self, limit: Limit) {
        self.note_limit_times(limit, 1);
    }

    /// The same, so often at once.
    pub fn note_limit_times(&mut self, limit: Limit, count: u64) {
        if count == 0 {
            return;
        }
        self.counters.limits[limit as usize] += count;
        if let Some(line) = self.limits_log.note(limit, count, self.now.monotonic_ms) {
            log::warn!("{line}");
        }
    }

    pub(super) fn tell_limits(&mut self) {
        while let Some(line) = self.limits_log.next_line(self.now.monotonic_ms) {
            log::warn!("{line}");
        }
    }

    // Turns.

    /// The turn has taken this long, its waiting not counted.
    pub fn end_turn(&mut self, us: u64) {
        self.counters.turns.observe(us);
    }

    // Scrapes.

    /// Somebody asks for the metrics. Nothing else of the connection is answered before.
    pub(super) fn scrape(&mut self, index: u32, reply: &Reply) {
        let connection = &mut self.connections[index];
        connection.cold().unanswered += 1;
        connection.flags.put(Flags::KEEP_ALIVE, reply.keep_alive);
        self.scrapes.push((index, reply.clone()));
        // The answer comes when the turn's bytes are no longer looked at: it is paid for now.
        self.spend(SCRAPE_BYTES);
    }

    /// True if somebody asks for the metrics: `answer_scrapes` before the commit.
    pub fn is_scraped(&self) -> bool {
        !self.scrapes.is_empty()
    }

    /// Answers who asked, with what the system knows of the process.
    pub fn answer_scrapes(&mut self, process: Process) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        metrics::write(&self.snapshot(process), &mut body);
        for (index, reply) in std::mem::take(&mut self.scrapes) {
            if self.connections[index].state == State::Dead {
                continue;
            }
            self.connections[index].cold().unanswered -= 1;
            self.connections[index].cool();
            let content = Content::of(metrics::MEDIA_TYPE, &body);
            self.answer(index, &reply, 200, Some(content), |_| {});
            self.answered_late(index);
        }
        self.body = body;
    }

    fn snapshot(&self, process: Process) -> Snapshot<'_> {
        Snapshot {
            counters: &self.counters,
            config: &self.config,
            hub: self.hub.stats(),
            subscribers: self.subscribers,
            intake_bytes: self.intake_bytes,
            output_bytes: self.own_bytes + self.hub.detached_bytes(),
            compressed: self.delivery.compression.done(),
            epoch: self.hub.epoch(),
            head: self.hub.head(),
            draining: self.leaving.is_some(),
            process,
        }
    }
}
