//! Attaches subscribers: finds the place, says what was lost, sends the first bytes of each transport.
//!
//! Find, attach and replay are one step, so nothing can fall between history and what is live.

use super::answers::Reply;
use super::requests::channels_full;
use super::{Engine, pending_of, transport};
use crate::connection::{Flags, MANY, NONE, State};
use crate::cursor::{After, Cursor};
use crate::error::Refusal;
use crate::form::{self, Form};
use crate::gap::{Gap, GapReason};
use crate::hub::SubscribeRefused;
use crate::metrics::Start;
use crate::protocol::http;
use crate::protocol::websocket::{self, Handshake, Subprotocol};
use crate::route::{Format, SubscribeRequest, Transport};

impl Engine {
    pub(super) fn subscribe(&mut self, index: u32, reply: &Reply, request: &SubscribeRequest) -> Result<(), Refusal> {
        self.spend(request.channels.len() * super::CHANNEL_COST);
        let start = match self.hub.subscribe(index, &request.channels, &request.after) {
            Ok(start) => start,
            Err(SubscribeRefused::ChannelsFull) => return Err(channels_full(self.config.channels_max)),
        };
        let connection = &mut self.connections[index];
        connection.flags.put(Flags::KEEP_ALIVE, reply.keep_alive);
        connection.flags.put(Flags::HTTP_10, reply.http_10);
        connection.flags.put(Flags::RAW, request.format == Format::Raw);
        connection.state = match request.transport {
            Transport::WebSocket(_) => State::WebSocket,
            Transport::Sse => State::Stream,
            Transport::Poll { .. } => State::Held,
        };
        let kind = transport(connection.state);
        self.subscribers[kind as usize] += 1;
        let began = match (&request.after, &start.gap) {
            (_, Some(_)) => Start::Gap,
            (After::Now, None) => Start::New,
            (After::Earliest, None) => Start::Earliest,
            (After::At(_) | After::Unknown(_), None) => Start::Exact,
        };
        self.count_subscription(index, kind, began);
        if let (Some(app), false) = (&mut self.app, request.channels.is_empty()) {
            let channels: Vec<&str> = request.channels.iter().map(String::as_str).collect();
            app.subscribed(self.access.user(index), &channels, kind);
        }
        let gap = start.gap.as_ref();
        match &request.transport {
            Transport::Poll { wait } => self.start_poll(index, reply, gap, *wait),
            Transport::Sse => self.start_sse(index, reply, gap, start.cursor, request.format),
            Transport::WebSocket(handshake) => {
                self.start_websocket(index, gap, start.cursor, &request.after, handshake);
            }
        }
        // Find, attach and replay are one step: what comes after the cursor is pending from now on.
        if self.connections[index].state.is_subscribed() && self.hub.has_news(index) {
            let mut channels = self.hub.channels_of(index);
            let first = channels.next();
            let pending = if channels.next().is_some() { MANY } else { first.map_or(NONE, pending_of) };
            drop(channels);
            self.connections[index].pending = pending;
            self.queue_ready(index);
        }
        Ok(())
    }

    fn start_poll(&mut self, index: u32, reply: &Reply, gap: Option<&Gap>, wait: std::time::Duration) {
        let connection = &mut self.connections[index];
        connection.form = Form::Poll;
        if reply.origin.is_some() || connection.cold.is_some() {
            connection.cold().origin = reply.origin.clone();
        }
        if gap.is_some() || wait.is_zero() || self.hub.has_news(index) {
            self.answer_poll(index, gap);
        } else {
            self.set_deadline(index, wait);
        }
    }

    fn start_sse(&mut self, index: u32, reply: &Reply, gap: Option<&Gap>, cursor: Cursor, format: Format) {
        let form = match (format, reply.http_10) {
            (Format::Raw, false) => Form::SseRawChunked,
            (Format::Raw, true) => Form::SseRawPlain,
            (Format::Json, false) => Form::SseJsonChunked,
            (Format::Json, true) => Form::SseJsonPlain,
        };
        self.connections[index].form = form;
        self.start_stream(index, reply, form);
        let retry = self.retry_ms();
        let own = self.connections[index].own(&mut self.spares);
        own.append_with(|out| form::sse_first(form, retry, gap.is_none().then_some(cursor), out));
        if let Some(gap) = gap {
            self.tell_gap(index, gap);
        }
        self.set_first_heartbeat(index, self.config.heartbeat);
    }

    fn start_websocket(&mut self, index: u32, gap: Option<&Gap>, cursor: Cursor, asked: &After, handshake: &Handshake) {
        let (date, lists_origins) = (self.date, self.policies[0].lists_origins());
        let ping = self.config.ping;
        let channels = self.hub.channel_count(index);
        let connection = &mut self.connections[index];
        // Who reads no channel has no cursor to be told.
        let raw = handshake.protocol == Subprotocol::Raw || channels == 0;
        let handshake = &Handshake { deflate: handshake.deflate.filter(|_| self.config.deflate), ..handshake.clone() };
        connection.form = match (raw, handshake.deflate.map(|deflate| deflate.window())) {
            (true, None) => Form::WsRaw,
            (false, None) => Form::WsJson,
            (true, Some(window)) => Form::WsRawDeflate(window),
            (false, Some(window)) => Form::WsJsonDeflate(window),
        };
        connection.flags.put(Flags::COMMANDS, handshake.protocol == Subprotocol::V1);
        let form = connection.form;
        connection.own(&mut self.spares).append_with(|out| {
            http::start_response(out, 101, &date);
            websocket::write_handshake_answer(out, handshake);
            if lists_origins {
                http::header(out, "Vary", b"Origin");
            }
            http::finish_head(out);
            if form.plain() == Form::WsJson {
                // If a gap follows, the cursor is the asked one, left out if it is none of ours.
                let first = match (gap.map(|gap| gap.reason), asked) {
                    (None, _) => Some(cursor),
                    (Some(GapReason::Unknown), _) => None,
                    (Some(_), After::At(asked)) => Some(*asked),
                    (Some(_), _) => None,
                };
                form::ws_first(first, ping, out);
            }
        });
        self.set_first_heartbeat(index, self.config.ping);
        if let Some(gap) = gap {
            self.tell_gap(index, gap);
        }
    }
}
