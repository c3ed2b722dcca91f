//! Publishes: appends to the log, lets it decide, answers publishers in order, wakes subscribers.
//!
//! The log decides on conditions and keys; nothing here does. A ticket stays taken until its
//! proposal is decided, also when its client has gone.

use super::answers::{Content, Reply};
use super::requests::{channels_full, draining};
use super::{Asker, Engine};
use crate::connection::{Flags, State};
use crate::error::{Code, Refusal};
use crate::hub::{ChannelKey, OVERHEAD_BYTES, Outcome, Publish, PublishRefused, Settled, Ticket};
use crate::protocol::http;
use crate::protocol::json;
use crate::route::PublishRequest;

impl Engine {
    /// Appends a message to the log; it is answered when the log has decided.
    pub(super) fn publish(
        &mut self,
        index: u32,
        reply: &Reply,
        publish: &PublishRequest,
        body: &[u8],
    ) -> Result<(), Refusal> {
        // A publish with a key may still be told what became of it.
        if self.leaving.is_some() && publish.key.is_none() {
            return Err(draining());
        }
        let ticket = self.askers.insert(Asker::Request(index, reply.clone()));
        let appended = self.append(Publish {
            ticket: Some(Ticket(ticket)),
            channel: &publish.channel,
            event: publish.event.as_deref(),
            media_type: publish.media_type.as_deref(),
            payload: body,
            only_after: publish.only_after,
            key: publish.key.as_deref(),
            ..Publish::default()
        });
        if let Err(refusal) = appended {
            self.askers.remove(ticket);
            return Err(refusal);
        }
        let connection = &mut self.connections[index];
        connection.cold().unanswered += 1;
        // Nothing is read behind the last request of a connection.
        connection.flags.put(Flags::KEEP_ALIVE, reply.keep_alive);
        self.count_publish(index);
        Ok(())
    }

    /// Appends a message to the log as of now; the commit decides.
    pub(super) fn append(&mut self, publish: Publish<'_>) -> Result<(), Refusal> {
        let publish = Publish {
            replay_only: self.leaving.is_some(),
            time_ms: self.now.wall_ms,
            monotonic_ms: self.now.monotonic_ms,
            ..publish
        };
        // Small messages cost more than their bytes.
        self.spend(publish.payload.len() + OVERHEAD_BYTES);
        self.hub.publish(publish).map_err(|refused| match refused {
            PublishRefused::ChannelsFull => channels_full(self.config.channels_max),
        })
    }

    /// The log decides on what this turn appended; publishers are answered, subscribers woken.
    ///
    /// Publishers first: so they send what comes next while this is being delivered, and it goes out
    /// together. And each channel once, however many messages it got: who is woken gets them all.
    pub fn commit(&mut self) {
        self.hub.commit();
        let mut news = std::mem::take(&mut self.news);
        while let Some(settled) = self.hub.next_settled() {
            self.count_outcome(settled.outcome);
            if matches!(settled.outcome, Outcome::Accepted { before, .. } if before <= self.woken_through) {
                news.push(settled.channel);
            }
            match settled.ticket.and_then(|ticket| self.askers.remove(ticket.0)) {
                Some(asker) => self.tell_asker(asker, settled),
                None => self.count_unanswered(settled.outcome),
            }
        }
        // They keep their new messages until the trim, so they are still the same channels.
        news.drain(..).for_each(|channel| self.wake_subscribers(channel));
        self.woken_through = self.hub.head();
        self.news = news;
    }

    fn tell_asker(&mut self, asker: Asker, Settled { channel, outcome, .. }: Settled) {
        match asker {
            Asker::Command(index, reference) => {
                let name = self.hub.channel_name(channel).to_owned();
                self.answer_command(index, reference.as_deref(), &name, outcome);
            }
            Asker::Nobody => {}
            Asker::Callback(callback) => {
                self.count_unanswered(outcome);
                callback(self.published(outcome));
            }
            Asker::Request(index, reply) => {
                self.answer_publish(index, &reply, channel, outcome);
            }
        }
    }

    /// An answer that refuses is counted where it is written; what the program itself published has none.
    fn count_unanswered(&mut self, outcome: Outcome) {
        if !matches!(outcome, Outcome::Accepted { .. } | Outcome::Repeated { .. }) {
            self.count_refusal(outcome_refusal(outcome).code);
        }
    }

    fn answer_publish(&mut self, index: u32, reply: &Reply, channel: ChannelKey, outcome: Outcome) {
        if self.connections[index].state == State::Dead {
            return;
        }
        self.connections[index].cold().unanswered -= 1;
        self.connections[index].cool();
        match outcome {
            Outcome::Accepted { seq, subscribers, .. } | Outcome::Repeated { seq, subscribers } => {
                let mut body = std::mem::take(&mut self.body);
                body.clear();
                json::write_published(&mut body, self.hub.cursor(seq), self.hub.channel_name(channel), subscribers);
                let is_repeated = matches!(outcome, Outcome::Repeated { .. });
                self.answer(index, reply, 200, Some(Content::json(&mut body)), |out| {
                    if is_repeated {
                        http::header(out, "Idempotent-Replayed", b"true");
                    }
                });
                self.body = body;
            }
            other => self.refuse(index, reply, &outcome_refusal(other)),
        }
        self.answered_late(index);
    }

    /// A request was answered, not when it was read but later in the turn.
    pub(super) fn answered_late(&mut self, index: u32) {
        self.queue_ready(index);
        self.watch_request(index);
        // The request behind it could not be refused before this answer stood.
        if self.intake_bytes > self.config.intake_bytes_max && self.connections[index].has_input() {
            self.refuse_intake(index);
        }
        self.queue_reader(index);
    }
}

/// What a publisher is told when the log did not take the message.
pub(super) fn outcome_refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Moved { at } => {
            let mut refusal = Refusal::new(Code::ChannelMoved, "the channel has a newer message than If-Match names");
            refusal.cursor = Some(at);
            refusal
        }
        Outcome::Mismatch => Refusal::new(
            Code::IdempotencyMismatch,
            "this Idempotency-Key came with another body, type or event; use a new key for a new message",
        ),
        Outcome::Draining => draining(),
        _ => Refusal::new(Code::LogFailed, "the log cannot take messages"),
    }
}
