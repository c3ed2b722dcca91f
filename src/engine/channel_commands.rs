//! Acts on the commands of `tidings.v1`: subscribe, unsubscribe, publish.
//!
//! Knows nothing of frames: it gets a message's bytes. What fails is answered in the stream, and the
//! connection stays. Answers keep the order of the commands; what cannot be acted on yet is deferred,
//! and nothing behind it is looked at.

use std::borrow::Cow;

use super::publishing::outcome_refusal;
use super::requests::{channels_full, draining, too_large};
use super::websockets::OCTET_STREAM;
use super::{Asker, Engine, UNANSWERED_MAX};
use crate::app::{Operation, Transport};
use crate::connection::{Deferred, MANY, NONE, State};
use crate::cursor::Cursor;
use crate::error::{Code, Refusal};
use crate::form;
use crate::hub::{Outcome, Publish, Ticket};
use crate::names;
use crate::protocol::command::{self, Command};

impl Engine {
    /// Acts on a frame of `tidings.v1`. What fails is answered in the stream; the connection stays.
    pub(super) fn act_on_command(&mut self, index: u32, frame: &[u8], binary: bool) {
        let (command, reference) = command::decode(frame);
        let is_publish = matches!(command, Ok(Command::Publish { .. }));
        // Answers keep the order of the commands, so only publishes may overlap.
        let unanswered = self.connections[index].unanswered();
        if unanswered > 0 && !(is_publish && unanswered < UNANSWERED_MAX) {
            return self.defer(index, frame, binary);
        }
        let result = match command {
            Ok(Command::Subscribe(set)) => self.widen(index, &set, reference),
            Ok(Command::Unsubscribe(set)) => self.narrow(index, &set, reference),
            Ok(Command::Publish { channel, event, media_type, key, payload }) => {
                let names = [Some(channel), event, media_type, key];
                self.publish_named(index, names, payload, binary, reference)
            }
            Err(error) => Err(Refusal::new(Code::BadCommand, error.to_string())),
        };
        match result {
            Ok(()) => {}
            Err(_) if self.connections[index].unanswered() > 0 => self.defer(index, frame, binary),
            Err(refusal) => {
                self.refuse_command(index, &refusal, reference);
                self.queue_ready(index);
            }
        }
    }

    /// Keeps a command until those before it are answered.
    fn defer(&mut self, index: u32, frame: &[u8], binary: bool) {
        self.connections[index].cold().deferred = Some(Deferred::Command(frame.into(), binary));
        self.intake_bytes += frame.len();
        if self.intake_bytes > self.config.intake_bytes_max {
            self.refuse_intake(index);
        }
    }

    /// What waits, if anything; its bytes are not counted any more.
    pub(super) fn take_deferred(&mut self, index: u32) -> Option<Deferred> {
        let deferred = self.connections[index].cold.as_mut().and_then(|cold| cold.deferred.take());
        if let Some(Deferred::Command(frame, _)) = &deferred {
            self.intake_bytes -= frame.len();
        }
        deferred
    }

    /// Acts on the command that had to wait, if all before it are answered.
    fn act_on_deferred(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        if connection.state != State::WebSocket || connection.unanswered() > 0 {
            return;
        }
        match self.take_deferred(index) {
            Some(Deferred::Command(frame, binary)) => self.act_on_command(index, &frame, binary),
            Some(Deferred::Close(code)) => self.answer_close(index, code),
            Some(Deferred::Failure(error)) => self.fail(index, error),
            None => return,
        }
        self.account(index);
        self.queue_reader(index);
    }

    fn widen(&mut self, index: u32, set: &[u8], reference: Option<&str>) -> Result<(), Refusal> {
        let mut set = names::channel_set(set)?;
        self.spend((set.len() + self.hub.channel_count(index)) * super::CHANNEL_COST);
        self.judge_command(index, Operation::Subscribe, &set)?;
        if self.leaving.is_some() {
            return Err(draining());
        }
        let known: Vec<&str> = self.channel_names(index);
        set.retain(|name| !known.contains(&name.as_str()));
        let names = known.len() + set.len();
        let bytes: usize = known.iter().copied().chain(set.iter().map(String::as_str)).map(str::len).sum();
        names::check_channel_set(names, bytes + names.saturating_sub(1))?;
        self.tell_loss(index);
        let told = self.hub.cursor_of(index);
        self.advance_if_caught_up(index);
        let cursor = self.hub.cursor(self.hub.cursor_of(index));
        let Ok(start) = self.hub.widen(index, &set) else {
            // A refusal names no cursor: the client stands where it was told that it stands.
            self.hub.set_cursor(index, told);
            return Err(channels_full(self.config.channels_max));
        };
        if let (Some(app), false) = (&mut self.app, set.is_empty()) {
            let names: Vec<&str> = set.iter().map(String::as_str).collect();
            app.subscribed(self.access.user(index), &names, Transport::WebSocket);
        }
        self.answer_set(index, cursor, reference);
        // What the new channels have lost after that cursor is a gap of the set as it is now.
        if let Some(gap) = &start.gap {
            self.tell_gap(index, gap);
        }
        Ok(())
    }

    fn narrow(&mut self, index: u32, set: &[u8], reference: Option<&str>) -> Result<(), Refusal> {
        let set = names::channel_set(set)?;
        self.spend((set.len() + self.hub.channel_count(index)) * super::CHANNEL_COST);
        self.tell_loss(index);
        self.advance_if_caught_up(index);
        let cursor = self.hub.cursor(self.hub.cursor_of(index));
        if let Some(app) = &mut self.app {
            let read = self.hub.channels_of(index).map(|key| self.hub.channel_name(key));
            let left: Vec<&str> = read.filter(|name| set.iter().any(|leaving| leaving == name)).collect();
            if !left.is_empty() {
                app.unsubscribed(self.access.user(index), &left, Transport::WebSocket);
            }
        }
        self.hub.narrow(index, &set);
        self.answer_set(index, cursor, reference);
        Ok(())
    }

    /// What is lost of the set as it was is said before the set changes.
    fn tell_loss(&mut self, index: u32) {
        if let Some(gap) = self.hub.loss(index) {
            self.tell_gap(index, &gap);
        }
    }

    /// Answers with the whole set as it is now, and the cursor it goes on from.
    fn answer_set(&mut self, index: u32, cursor: Cursor, reference: Option<&str>) {
        let has_news = self.hub.has_news(index);
        let mut channels = self.channel_names(index);
        channels.sort_unstable();
        let mut frame = Vec::new();
        form::ws_subscribed(channels.into_iter(), cursor, reference, &mut frame);
        self.spend(super::REQUEST_COST + frame.len());
        let connection = &mut self.connections[index];
        connection.own(&mut self.spares).append(&frame);
        // News of who had nothing pending are all of this very commit, which wakes it at its end.
        if connection.pending != NONE {
            connection.pending = if has_news { MANY } else { NONE };
        }
        self.queue_ready(index);
    }

    /// Who has everything stands at the head; only who is behind is answered an earlier cursor. Who has
    /// everything but what this commit has settled so far stands where the commit began: its new
    /// channels must not be behind it by what came there before.
    fn advance_if_caught_up(&mut self, index: u32) {
        if !self.hub.has_news(index) {
            self.hub.set_cursor(index, self.hub.head());
        } else if self.connections[index].pending == NONE {
            self.hub.set_cursor(index, self.woken_through);
        }
    }

    pub(super) fn channel_names(&self, index: u32) -> Vec<&str> {
        self.hub.channels_of(index).map(|key| self.hub.channel_name(key)).collect()
    }

    fn publish_named(
        &mut self,
        index: u32,
        [channel, event, media_type, key]: [Option<Cow<'_, [u8]>>; 4],
        payload: &[u8],
        binary: bool,
        reference: Option<&str>,
    ) -> Result<(), Refusal> {
        let channel = names::channel_name(channel.as_deref().unwrap_or_default())?;
        let event = event.as_deref().map(names::event_name).transpose()?.flatten();
        let media_type = match media_type.as_deref() {
            Some(media_type) => names::media_type(media_type)?,
            None => binary.then_some(OCTET_STREAM),
        };
        let key = key.as_deref().map(names::idempotency_key).transpose()?;
        if payload.len() > self.config.message_bytes_max {
            return Err(too_large(payload.len() as u64, self.config.message_bytes_max));
        }
        self.judge_command(index, Operation::Publish, &[channel.to_owned()])?;
        if self.leaving.is_some() && key.is_none() {
            return Err(draining());
        }
        let ticket = self.askers.insert(Asker::Command(index, reference.map(Box::from)));
        let appended = self.append(Publish {
            ticket: Some(Ticket(ticket)),
            channel,
            event,
            media_type,
            payload,
            key,
            ..Publish::default()
        });
        if let Err(refusal) = appended {
            self.askers.remove(ticket);
            return Err(refusal);
        }
        self.connections[index].cold().unanswered += 1;
        self.count_publish(index);
        Ok(())
    }

    fn refuse_command(&mut self, index: u32, refusal: &Refusal, reference: Option<&str>) {
        self.count_refusal(refusal.code);
        self.connections[index].own(&mut self.spares).append_with(|out| form::ws_error(refusal, reference, out));
    }

    /// Answers a publish command, now that the log has decided.
    pub(super) fn answer_command(&mut self, index: u32, reference: Option<&str>, channel: &str, outcome: Outcome) {
        let connection = &mut self.connections[index];
        if connection.state == State::Dead {
            return;
        }
        connection.cold().unanswered -= 1;
        if connection.state != State::WebSocket {
            return;
        }
        match outcome {
            Outcome::Accepted { seq, subscribers, .. } | Outcome::Repeated { seq, subscribers } => {
                let id = self.hub.cursor(seq);
                connection
                    .own(&mut self.spares)
                    .append_with(|out| form::ws_published(id, channel, subscribers, reference, out));
            }
            other => self.refuse_command(index, &outcome_refusal(other), reference),
        }
        self.queue_ready(index);
        self.act_on_deferred(index);
        self.queue_reader(index);
    }
}
