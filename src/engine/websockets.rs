//! Acts on what WebSocket clients send: messages, pings, the close.
//!
//! Knows nothing of masks and fragments (`protocol::websocket`). RFC 6455 5.5 and 7.

use std::borrow::Cow;

use super::publishing::outcome_refusal;
use super::requests::{channels_full, draining, too_large};
use super::timeouts::ticks;
use super::{Asker, Engine, FRAGMENT_BYTES, FRAGMENTS_MIN, Progress, UNANSWERED_MAX};
use crate::app::{Inbound, Operation, Reaction, Transport};
use crate::commands::Publication;
use crate::connection::reader::Reader;
use crate::connection::{CloseReason, Deferred, Flags, MANY, NONE, State};
use crate::cursor::Cursor;
use crate::error::{Code, Refusal};
use crate::form;
use crate::hub::{Outcome, Publish, Ticket};
use crate::names;
use crate::protocol::command::{self, Command};
use crate::protocol::websocket::{self, CloseCode, Limits, Opcode, Received};

/// A binary frame has no type of its own; this makes it binary by the rule for `POST`.
const OCTET_STREAM: &str = "application/octet-stream";
/// Room for the line of a command before its payload.
const COMMAND_LINE_BYTES_MAX: usize = 4096;

impl Engine {
    /// Takes the next frame or message out of these bytes and acts on it.
    pub(super) fn process_frame(&mut self, index: u32, reader: &mut Reader, bytes: &mut [u8]) -> Progress {
        let commands = self.connections[index].flags.has(Flags::COMMANDS);
        let limits = Limits {
            message_bytes_max: self.config.message_bytes_max + if commands { COMMAND_LINE_BYTES_MAX } else { 0 },
            fragments_max: FRAGMENTS_MIN + (self.config.message_bytes_max / FRAGMENT_BYTES) as u32,
        };
        let mut inflater = std::mem::take(&mut self.inflater);
        let agreed = self.connections[index].form.window().map(|_| &mut inflater);
        let progress = match reader.frames.decode(bytes, limits, agreed) {
            Ok((None, consumed)) => Progress::NeedsMore(consumed),
            Ok((Some(received), consumed)) => {
                self.act_on_frame(index, received);
                if reader.frames.idle() {
                    // What follows is another message, with a time of its own.
                    reader.due = None;
                }
                Progress::Consumed(consumed)
            }
            Err(error) => {
                if self.connections[index].unanswered() > 0 {
                    self.connections[index].cold().deferred = Some(Deferred::Failure(error));
                } else {
                    self.fail(index, error);
                }
                Progress::Consumed(bytes.len())
            }
        };
        // What came in small may be much: it counts as if it had come so.
        self.spend(inflater.take_spent());
        self.inflater = inflater;
        progress
    }

    /// Looks for the peer's close frame; returns how many bytes were consumed.
    pub(super) fn process_closing(&mut self, index: u32, reader: &mut Reader, bytes: &[u8]) -> usize {
        match reader.frames.skip_to_close(bytes) {
            Ok((false, consumed)) => consumed,
            // RFC 6455 5.5.1: "After both sending and receiving a Close message, an endpoint
            // considers the WebSocket connection closed". Behind what is no frame none will come.
            Ok((true, _)) | Err(_) => {
                self.end_closing(index);
                bytes.len()
            }
        }
    }

    /// Watches over the end of a message, or frame, that has begun: pings do not, for a peer may
    /// answer them for ever and still hold what it never ends.
    pub(super) fn watch_message(&mut self, index: u32) {
        let due = self.tick + ticks(self.time_for_body(self.config.message_bytes_max as u64));
        let connection = &mut self.connections[index];
        let Some(reader) = connection.reader.as_mut().filter(|_| connection.state == State::WebSocket) else { return };
        if connection.flags.has(Flags::PAUSED) {
            // It may be whole: we are the ones who do not look.
            reader.due = None;
            return;
        }
        let due = *reader.due.get_or_insert(due);
        self.deadlines.set_no_later(index, due);
    }

    fn act_on_frame(&mut self, index: u32, received: Received<'_>) {
        self.spend(super::FRAME_COST);
        let commands = self.connections[index].flags.has(Flags::COMMANDS);
        match received {
            Received::Text(text) if commands => self.act_on_command(index, text.as_bytes(), false),
            Received::Binary(bytes) if commands => self.act_on_command(index, bytes, true),
            Received::Text(text) => self.act_on_message(index, text.as_bytes(), false),
            Received::Binary(bytes) => self.act_on_message(index, bytes, true),
            Received::Ping(payload) => self.act_on_ping(index, payload),
            // A sign of life, and `heard` knows already.
            Received::Pong(_) => {}
            Received::Close(code, _) if self.connections[index].unanswered() > 0 => {
                // What was asked before is answered before.
                self.connections[index].cold().deferred = Some(Deferred::Close(code));
            }
            Received::Close(code, _) => self.answer_close(index, code),
        }
    }

    /// RFC 6455 5.5.1: "When sending a Close frame in response, the endpoint typically echos the
    /// status code it received."
    fn answer_close(&mut self, index: u32, code: Option<CloseCode>) {
        self.connections[index].own(&mut self.spares).append_with(|out| match code {
            Some(code) => websocket::encode_close(out, code, ""),
            None => websocket::encode_frame(out, Opcode::Close, b""),
        });
        self.queue_ready(index);
        self.finish(index, CloseReason::PeerClosed);
    }

    /// Fails the connection. RFC 6455 7.1.7: we "MUST NOT continue to attempt to process data
    /// (including a responding Close frame) from the remote endpoint": our side ends behind the
    /// close frame, at once.
    fn fail(&mut self, index: u32, error: websocket::Error) {
        let connection = &mut self.connections[index];
        connection
            .own(&mut self.spares)
            .append_with(|out| websocket::encode_close(out, error.close_code(), &error.to_string()));
        self.queue_ready(index);
        self.finish(index, CloseReason::Protocol);
    }

    fn act_on_message(&mut self, index: u32, payload: &[u8], binary: bool) {
        if let Err(refusal) = self.judge_inbound(index) {
            return self.close_websocket(index, CloseCode::POLICY, &refusal.message);
        }
        let Some(app) = &mut self.app else { return self.publish_inbound(index, payload, binary) };
        let channels: Vec<&str> = self.hub.channels_of(index).map(|key| self.hub.channel_name(key)).collect();
        let reaction = app.message(&Inbound { channels: &channels, payload, binary });
        let opcode = if binary { Opcode::Binary } else { Opcode::Text };
        match reaction {
            Reaction::Publish => self.publish_inbound(index, payload, binary),
            Reaction::PublishTo(channel, publication) => self.publish_reaction(&channel, &publication),
            Reaction::Echo => self.send_message(index, opcode, payload),
            Reaction::Reply(bytes) => {
                let opcode = if std::str::from_utf8(&bytes).is_ok() { Opcode::Text } else { Opcode::Binary };
                self.send_message(index, opcode, &bytes);
            }
            Reaction::ReplyBinary(bytes) => self.send_message(index, Opcode::Binary, &bytes),
            Reaction::Ignore => {}
            Reaction::Close(code, reason) => {
                let code = CloseCode::new(code).unwrap_or(CloseCode::NORMAL);
                self.close_websocket(index, code, &reason);
            }
        }
    }

    /// Publishes a message to the one channel of its connection; there is no acknowledgement.
    fn publish_inbound(&mut self, index: u32, payload: &[u8], binary: bool) {
        if self.leaving.is_some() {
            return self.close_websocket(index, CloseCode::RESTART, "the server is leaving");
        }
        if self.hub.channel_count(index) != 1 {
            let reason = "a connection with several channels cannot publish; open one with a single channel";
            return self.close_websocket(index, CloseCode::POLICY, reason);
        }
        let Some(channel) = self.hub.channels_of(index).next() else { return };
        let channel = self.hub.channel_name(channel).to_owned();
        let appended = self.append(Publish {
            ticket: None,
            channel: &channel,
            event: None,
            media_type: binary.then_some(OCTET_STREAM),
            payload,
            only_after: None,
            key: None,
            replay_only: false,
            time_ms: self.now.wall_ms,
            monotonic_ms: self.now.monotonic_ms,
        });
        self.count_publish(index);
        if let Err(refusal) = appended {
            self.count_refusal(refusal.code);
            self.close_websocket(index, CloseCode::TRY_LATER, &refusal.message);
        }
    }

    fn publish_reaction(&mut self, channel: &str, publication: &Publication) {
        let result = names::channel_name(channel.as_bytes())
            .and_then(|channel| self.append_publication(channel, publication, None, self.leaving.is_some()));
        if let Err(refusal) = result {
            self.count_refusal(refusal.code);
            log::warn!("an app's message to a channel was refused: {refusal}");
        }
    }

    /// Acts on a frame of `tidings.v1`. What fails is answered in the stream; the connection stays.
    fn act_on_command(&mut self, index: u32, frame: &[u8], binary: bool) {
        let (command, reference) = command::decode(frame);
        let is_publish = matches!(command, Ok(Command::Publish { .. }));
        let connection = &mut self.connections[index];
        // Answers keep the order of the commands, and a cursor in one is never before a message
        // that is half out; so only publishes may overlap.
        let waits = connection.unanswered() > 0 || connection.message != NONE;
        if waits && !(is_publish && connection.unanswered() < UNANSWERED_MAX && connection.message == NONE) {
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

    /// Keeps a command until what is in its way is gone.
    fn defer(&mut self, index: u32, frame: &[u8], binary: bool) {
        self.connections[index].cold().deferred = Some(Deferred::Command(frame.into(), binary));
        self.intake_bytes += frame.len();
        if self.intake_bytes > self.config.intake_bytes_max {
            self.refuse_intake(index);
        }
    }

    /// What waits, if anything; its bytes are not counted any more.
    fn take_deferred(&mut self, index: u32) -> Option<Deferred> {
        let deferred = self.connections[index].cold.as_mut().and_then(|cold| cold.deferred.take());
        if let Some(Deferred::Command(frame, _)) = &deferred {
            self.intake_bytes -= frame.len();
        }
        deferred
    }

    /// Acts on the command that had to wait, if nothing is in its way any more.
    pub(super) fn act_on_deferred(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        if connection.state != State::WebSocket || connection.unanswered() > 0 || connection.message != NONE {
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
        if known.len() + set.len() > names::CHANNEL_SET_MAX {
            let message = format!("a connection reads at most {} channels", names::CHANNEL_SET_MAX);
            return Err(Refusal::new(Code::TooManyChannels, message));
        }
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
            app.subscribed(&names, Transport::WebSocket);
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
                app.unsubscribed(&left, Transport::WebSocket);
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
        // News of who had nothing pending are of this very commit, which wakes it at its end.
        if connection.pending != NONE {
            connection.pending = if has_news { MANY } else { NONE };
        }
        self.queue_ready(index);
    }

    /// Who has everything stands at the head; only who is behind is answered an earlier cursor.
    fn advance_if_caught_up(&mut self, index: u32) {
        if !self.hub.has_news(index) && !self.hub.has_loss(index) {
            self.hub.set_cursor(index, self.hub.head());
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
            only_after: None,
            key,
            replay_only: self.leaving.is_some(),
            time_ms: self.now.wall_ms,
            monotonic_ms: self.now.monotonic_ms,
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

    fn send_frame(&mut self, index: u32, opcode: Opcode, payload: &[u8]) {
        self.connections[index].own(&mut self.spares).append_with(|out| websocket::encode_frame(out, opcode, payload));
    }

    /// An app's answer, compressed by the rule for messages. It counts as what was read does.
    fn send_message(&mut self, index: u32, opcode: Opcode, payload: &[u8]) {
        let connection = &mut self.connections[index];
        let window = connection.form.window();
        let bytes_min = self.config.deflate_bytes_min;
        let compression = &mut self.delivery.compression;
        let cost = connection
            .own(&mut self.spares)
            .append_with(|out| compression.write_frame(window, opcode, payload, bytes_min, out));
        self.spend(cost);
    }

    /// RFC 6455 5.5.3: "If an endpoint receives a Ping frame and has not yet sent Pong frame(s) in
    /// response to previous Ping frame(s), the endpoint MAY elect to send a Pong frame for only
    /// the most recently processed Ping frame." So a peer that pings and does not read costs one.
    fn act_on_ping(&mut self, index: u32, payload: &[u8]) {
        if self.connections[index].flags.has(Flags::BLOCKED) {
            self.connections[index].cold().ping = Some(payload.into());
        } else {
            self.send_frame(index, Opcode::Pong, payload);
        }
    }

    /// Answers the latest ping of a peer that reads again.
    pub(super) fn answer_ping(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        if connection.state == State::WebSocket
            && let Some(ping) = connection.cold.as_mut().and_then(|cold| cold.ping.take())
        {
            self.send_frame(index, Opcode::Pong, &ping);
        }
    }

    /// Ends a WebSocket with a close frame that says why. RFC 6455 7.1.1, 7.1.2: the peer is to
    /// answer it, and then the server is the first to end its side of the connection.
    pub(super) fn close_websocket(&mut self, index: u32, code: CloseCode, why: &str) {
        let connection = &mut self.connections[index];
        if connection.state != State::WebSocket {
            return;
        }
        connection.own(&mut self.spares).append_with(|out| websocket::encode_close(out, code, why));
        let reason = match code {
            CloseCode::RESTART => CloseReason::Leaving,
            _ => CloseReason::Closed,
        };
        let deferred = self.take_deferred(index);
        self.queue_ready(index);
        // The peer's close frame may have come already, or will not be looked at.
        if let Some(Deferred::Close(_) | Deferred::Failure(_)) = deferred {
            return self.finish(index, reason);
        }
        self.unsubscribe(index);
        self.connections[index].state = State::Closing;
        self.connections[index].reason = reason;
        self.set_deadline(index, self.config.close_timeout);
        if self.connections[index].reader.is_some() {
            self.process_held(index);
        } else {
            self.queue_reader(index);
        }
    }

    /// The peer has answered our close frame, or will not. The deadline stays the one that was set
    /// when we closed.
    pub(super) fn end_closing(&mut self, index: u32) {
        self.connections[index].state = State::Finishing;
        self.drop_input(index);
        self.finish_if_written(index);
    }
}
