//! Acts on what WebSocket clients send: messages and pings here, commands in `channel_commands`,
//! close frames in `closing`.
//!
//! Knows nothing of masks and fragments (`protocol::websocket`). RFC 6455 5.5 and 5.6.

use super::compression::is_compressed;
use super::timeouts::ticks;
use super::{Engine, FRAGMENT_BYTES, FRAGMENTS_MIN, Progress};
use crate::app::{Inbound, Reaction};
use crate::commands::Publication;
use crate::connection::reader::Reader;
use crate::connection::{Deferred, Flags, State};
use crate::error::Code;
use crate::hub::Publish;
use crate::names;
use crate::protocol::websocket::{CloseCode, Gathered, Limits, Opcode, Received, encode_frame};

/// A binary frame has no type of its own; this makes it binary by the rule for `POST`.
pub(super) const OCTET_STREAM: &str = "application/octet-stream";
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
        let progress = match reader.frames.decode(bytes, limits, agreed, &mut self.spares) {
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

    /// Watches over the end of a message, or frame, that has begun: pings do not, for a peer may
    /// answer them for ever and still hold what it never ends.
    pub(super) fn watch_message(&mut self, index: u32) {
        // Nearly everybody has begun nothing.
        if self.connections[index].reader.is_none() {
            return;
        }
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
            Received::Text(text) if commands => self.act_on_command(index, text, false),
            Received::Binary(bytes) if commands => self.act_on_command(index, bytes, true),
            Received::Gathered(message) if commands => {
                self.act_on_command(index, message.payload(), message.is_binary());
                self.spares.give(message.into_buffer());
            }
            Received::Text(text) => self.act_on_message(index, text, false),
            Received::Binary(bytes) => self.act_on_message(index, bytes, true),
            Received::Gathered(message) => self.act_on_gathered(index, message),
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

    fn act_on_message(&mut self, index: u32, payload: &[u8], binary: bool) {
        if let Some(reaction) = self.reaction_to(index, payload, binary) {
            self.react(index, reaction, payload, binary);
        }
    }

    /// The same for a message that came in pieces, as large ones do: the buffer it was gathered in is
    /// handed on as its echo.
    fn act_on_gathered(&mut self, index: u32, message: Gathered) {
        match self.reaction_to(index, message.payload(), message.is_binary()) {
            Some(Reaction::Echo) if self.may_hand_on(index, &message) => {
                self.spend(message.payload().len());
                self.connections[index].own = Some(message.into_frame());
                return;
            }
            Some(reaction) => self.react(index, reaction, message.payload(), message.is_binary()),
            None => {}
        }
        self.spares.give(message.into_buffer());
    }

    /// What is to become of a message; `None` if it may not be, and the connection was told so.
    fn reaction_to(&mut self, index: u32, payload: &[u8], binary: bool) -> Option<Reaction> {
        if let Err(refusal) = self.judge_inbound(index) {
            self.count_refusal(refusal.code);
            self.close_websocket(index, CloseCode::POLICY, &refusal.message);
            return None;
        }
        let Some(app) = &mut self.app else { return Some(Reaction::Publish) };
        let channels: Vec<&str> = self.hub.channels_of(index).map(|key| self.hub.channel_name(key)).collect();
        Some(app.message(&Inbound { user: self.access.user(index), channels: &channels, payload, binary }))
    }

    fn react(&mut self, index: u32, reaction: Reaction, payload: &[u8], binary: bool) {
        match reaction {
            Reaction::Publish => self.publish_inbound(index, payload, binary),
            Reaction::PublishTo(channel, publication) => self.publish_reaction(&channel, &publication),
            Reaction::Echo => {
                let opcode = if binary { Opcode::Binary } else { Opcode::Text };
                self.send_message(index, opcode, payload);
            }
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
            self.count_refusal(Code::Draining);
            return self.close_websocket(index, CloseCode::RESTART, "the server is leaving");
        }
        let reason = match self.hub.channel_count(index) {
            0 => Some("this connection reads no channel, so there is none to publish to"),
            1 => None,
            _ => Some("a connection with several channels cannot publish; open one with a single channel"),
        };
        if let Some(reason) = reason {
            return self.close_websocket(index, CloseCode::POLICY, reason);
        }
        let Some(channel) = self.hub.channels_of(index).next() else { return };
        let channel = self.hub.channel_name(channel).to_owned();
        let appended = self.append(Publish {
            channel: &channel,
            media_type: binary.then_some(OCTET_STREAM),
            payload,
            ..Publish::default()
        });
        self.count_publish(index);
        if let Err(refusal) = appended {
            self.count_refusal(refusal.code);
            self.close_websocket(index, CloseCode::TRY_LATER, &refusal.message);
        }
    }

    fn publish_reaction(&mut self, channel: &str, publication: &Publication) {
        let result = names::channel_name(channel.as_bytes())
            .and_then(|channel| self.append_publication(channel, publication, None));
        if let Err(refusal) = result {
            self.count_refusal(refusal.code);
            log::warn!("an app's message to a channel was refused: {refusal}");
        }
    }

    fn send_frame(&mut self, index: u32, opcode: Opcode, payload: &[u8]) {
        self.connections[index].own(&mut self.spares).append_with(|out| encode_frame(out, opcode, payload));
    }

    /// True if this message, as it is, can be all that the connection has to write.
    fn may_hand_on(&self, index: u32, message: &Gathered) -> bool {
        let connection = &self.connections[index];
        connection.own.is_none()
            && !is_compressed(connection.form.window(), message.payload().len(), self.config.deflate_bytes_min)
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
}
