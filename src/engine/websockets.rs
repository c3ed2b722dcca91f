//! Acts on what WebSocket clients send: messages, pings, the close.
//!
//! Knows nothing of masks and fragments (`protocol::websocket`). RFC 6455 5.5 and 7.

use super::{Engine, FRAGMENTS_MAX, Progress};
use crate::app::{Inbound, Reaction};
use crate::commands::Publication;
use crate::connection::reader::Reader;
use crate::connection::{CloseReason, Flags, State};
use crate::error::{Code, Refusal};
use crate::form;
use crate::hub::Publish;
use crate::names;
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
            fragments_max: FRAGMENTS_MAX,
        };
        match reader.frames.decode(bytes, limits) {
            Ok((None, consumed)) => Progress::NeedsMore(consumed),
            Ok((Some(received), consumed)) => {
                self.act_on_frame(index, received);
                Progress::Consumed(consumed)
            }
            Err(error) => {
                self.close_websocket(index, error.close_code(), &error.to_string());
                Progress::NeedsMore(0)
            }
        }
    }

    fn act_on_frame(&mut self, index: u32, received: Received<'_>) {
        match received {
            Received::Text(text) if self.connections[index].flags.has(Flags::COMMANDS) => {
                self.act_on_command(index, text.as_bytes())
            }
            Received::Binary(bytes) if self.connections[index].flags.has(Flags::COMMANDS) => {
                self.act_on_command(index, bytes)
            }
            Received::Text(text) => self.act_on_message(index, text.as_bytes(), false),
            Received::Binary(bytes) => self.act_on_message(index, bytes, true),
            Received::Ping(payload) => self.act_on_ping(index, payload),
            // A sign of life, and `heard` knows already.
            Received::Pong(_) => {}
            // RFC 6455 5.5.1: "When sending a Close frame in response, the endpoint typically
            // echos the status code it received."
            Received::Close(code, _) => {
                self.connections[index].own().append_with(|out| match code {
                    Some(code) => websocket::encode_close(out, code, ""),
                    None => websocket::encode_frame(out, Opcode::Close, b""),
                });
                self.queue_ready(index);
                self.finish(index, CloseReason::PeerClosed);
            }
        }
    }

    fn act_on_message(&mut self, index: u32, payload: &[u8], binary: bool) {
        let Some(app) = &mut self.app else { return self.publish_inbound(index, payload, binary) };
        let channels: Vec<&str> = self.hub.channels_of(index).map(|key| self.hub.channel_name(key)).collect();
        let reaction = app.message(&Inbound { channels: &channels, payload, binary });
        let opcode = if binary { Opcode::Binary } else { Opcode::Text };
        match reaction {
            Reaction::Publish => self.publish_inbound(index, payload, binary),
            Reaction::PublishTo(channel, publication) => self.publish_reaction(&channel, &publication),
            Reaction::Echo => self.send_frame(index, opcode, payload),
            Reaction::Reply(bytes) => {
                let opcode = if std::str::from_utf8(&bytes).is_ok() { Opcode::Text } else { Opcode::Binary };
                self.send_frame(index, opcode, &bytes);
            }
            Reaction::ReplyBinary(bytes) => self.send_frame(index, Opcode::Binary, &bytes),
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
        if let Err(refusal) = appended {
            self.close_websocket(index, CloseCode::TRY_LATER, &refusal.message);
        }
    }

    fn publish_reaction(&mut self, channel: &str, publication: &Publication) {
        let result = names::channel_name(channel.as_bytes())
            .and_then(|channel| self.append_publication(channel, publication, None, false));
        if let Err(refusal) = result {
            log::warn!("an app's message to a channel was refused: {refusal}");
        }
    }

    fn act_on_command(&mut self, index: u32, _command: &[u8]) {
        let refusal = Refusal::new(Code::BadCommand, "this server has no commands yet");
        self.connections[index].own().append_with(|out| form::ws_error(&refusal, None, out));
    }

    fn send_frame(&mut self, index: u32, opcode: Opcode, payload: &[u8]) {
        self.connections[index].own().append_with(|out| websocket::encode_frame(out, opcode, payload));
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

    /// Ends a WebSocket with a close frame that says why.
    pub(super) fn close_websocket(&mut self, index: u32, code: CloseCode, why: &str) {
        if self.connections[index].state != State::WebSocket {
            return;
        }
        self.connections[index].own().append_with(|out| websocket::encode_close(out, code, why));
        let reason = match code {
            CloseCode::RESTART => CloseReason::Leaving,
            _ => CloseReason::Protocol,
        };
        self.queue_ready(index);
        self.finish(index, reason);
    }
}
