//! Acts on HTTP requests: publishes, subscriptions, and the other resources.
//!
//! Knows what each request means for hub and connection; not how it is framed (`reader`), routed
//! (`route`), allowed (`access`) or answered (`answers`). Order of checks: framing, routing, rights,
//! draining, then what the hub says.

use super::answers::{Caching, Content, Reply, page_headers};
use super::timeouts::ticks;
use super::{Engine, Progress, UNANSWERED_MAX, transport};
use crate::connection::reader::{self, Inbound, Reader};
use crate::connection::{CloseReason, Connection, Flags, State};
use crate::error::{Code, Refusal};
use crate::pages;
use crate::protocol::http::{self, BodyLength, RequestHead};
use crate::protocol::json;
use crate::protocol::websocket;
use crate::route::{self, Action, CORS_ALLOW_HEADERS, CORS_MAX_AGE_SECONDS};

/// Channels in one page of the list.
const LIST_MAX: usize = 1000;

impl Engine {
    /// Takes the next request out of these bytes and acts on it.
    pub(super) fn process_request(&mut self, index: u32, reader: &mut Reader, bytes: &mut [u8]) -> Progress {
        let limits = reader::Limits {
            head_bytes_max: self.config.head_bytes_max,
            body_bytes_max: self.config.message_bytes_max,
        };
        let total = bytes.len();
        let mut scratch = http::NO_HEADERS;
        let (inbound, consumed) = match reader.next_request(bytes, &mut scratch, &limits) {
            Ok(Some(found)) => found,
            Ok(None) => return Progress::NeedsMore(0),
            Err(_) if self.connections[index].unanswered() > 0 => {
                // What stands before it is answered first.
                reader.unread();
                return Progress::Later;
            }
            Err(error) => {
                self.refuse_and_finish(index, &self.reading_refusal(error));
                return Progress::Consumed(total);
            }
        };
        if self.connections[index].flags.has(Flags::OVER) {
            let (Inbound::Head(head) | Inbound::Request(head, _)) = &inbound;
            self.turn_away(index, head);
            return Progress::Consumed(total);
        }
        let (head, body) = match inbound {
            Inbound::Request(head, body) => (head, body),
            Inbound::Head(head) => {
                if self.connections[index].unanswered() > 0 {
                    reader.unread();
                    return Progress::Later;
                }
                return self.act_on_head(index, reader, &head, total);
            }
        };
        self.connections[index].flags.clear(Flags::FIRST);
        self.spend(super::REQUEST_COST);
        let routed = route::route(&head, self.policy(index));
        let is_publish = matches!(routed, Ok(Action::Publish(_)));
        let unanswered = self.connections[index].unanswered();
        if unanswered > 0 && (!is_publish || unanswered >= UNANSWERED_MAX) {
            // Answers keep the order of the requests; only publishes may overlap.
            reader.unread();
            return Progress::Later;
        }
        let reply = self.reply_to(index, &head);
        let done = match routed {
            Ok(ref action) => self.act(index, &reply, &head, body, action),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = done {
            if unanswered > 0 {
                reader.unread();
                return Progress::Later;
            }
            self.refuse_request(index, &reply, &head, &refusal);
        }
        self.connections[index].flags.clear(Flags::HEAD_BEGUN);
        self.count_request(index);
        Progress::Consumed(consumed)
    }

    /// A head whose body is still to come: refuse it now, or let it come.
    fn act_on_head(&mut self, index: u32, reader: &mut Reader, head: &RequestHead<'_>, total: usize) -> Progress {
        let refusal = match route::route(head, self.policy(index)) {
            Err(refusal) => Some(refusal),
            Ok(action) => match (self.judge(head, &action), head.body) {
                (Err(refusal), _) => Some(refusal),
                (Ok(_), BodyLength::Length(bytes)) if bytes > self.config.message_bytes_max as u64 => {
                    Some(too_large(bytes, self.config.message_bytes_max))
                }
                (Ok(_), _) => None,
            },
        };
        if let Some(refusal) = refusal {
            // The body is on its way, and where it ends is of no interest any more.
            let reply = Reply { keep_alive: false, ..self.reply_to(index, head) };
            self.refuse_request(index, &reply, head, &refusal);
            self.count_request(index);
            return Progress::Consumed(total);
        }
        if head.expect_continue {
            self.connections[index].own(&mut self.spares).append(http::CONTINUE);
        }
        let announced =
            if let BodyLength::Length(bytes) = head.body { bytes } else { self.config.message_bytes_max as u64 };
        let due = self.tick + ticks(self.time_for_body(announced));
        reader.due = Some(due);
        self.deadlines.set(index, due);
        self.connections[index].flags.set(Flags::HEAD_BEGUN);
        // Of a chunked body all may have come with the head, and then nothing more will come.
        Progress::Consumed(0)
    }

    fn refuse_request(&mut self, index: u32, reply: &Reply, head: &RequestHead<'_>, refusal: &Refusal) {
        if refusal.passes() && head.method == http::Method::Get && route::wants_sse(head) {
            self.refuse_stream(index, reply, refusal);
        } else if matches!(refusal.code, Code::TokenRequired | Code::TokenWrong) && route::wants_page(head) {
            // The page asks the person for a token.
            self.refuse_by_page(index, reply, refusal, &pages::VIEWER);
        } else {
            self.refuse(index, reply, refusal);
        }
    }

    fn act(
        &mut self,
        index: u32,
        reply: &Reply,
        head: &RequestHead<'_>,
        body: &[u8],
        action: &Action,
    ) -> Result<(), Refusal> {
        let admission = self.judge(head, action)?;
        if self.leaving.is_some()
            && matches!(action, Action::Subscribe(_) | Action::Tip { .. } | Action::Delete { .. } | Action::Ready)
        {
            return Err(draining());
        }
        match action {
            Action::Publish(publish) => self.publish(index, reply, publish, body)?,
            Action::Subscribe(subscribe) => {
                let denial = self.denial_of_inbound(head, subscribe);
                self.access.hold(index, admission);
                self.subscribe(index, reply, subscribe)?;
                if let Some(denial) = denial {
                    self.connections[index].cold().denial = Some(denial);
                }
            }
            Action::Tip { .. } => {
                let cursor = self.hub.cursor(self.hub.head());
                self.answer(index, reply, 200, None, |out| {
                    http::header(out, "Content-Type", b"application/json");
                    http::header_cursor(out, "Tidings-Cursor", cursor);
                });
            }
            Action::View { channels: _ } => self.answer_page(index, reply, &pages::VIEWER),
            Action::Playground => {
                if !self.ask_app(index, reply, head, body)? {
                    self.answer_page(index, reply, &pages::VIEWER);
                }
            }
            Action::App => {
                if !self.ask_app(index, reply, head, body)? {
                    return Err(not_found());
                }
            }
            Action::Client => self.answer_script(index, reply, head, &pages::CLIENT),
            Action::List { prefix, after } => self.list(index, reply, prefix, after.as_deref()),
            Action::Delete { channel } => {
                self.hub.delete(channel);
                self.answer(index, reply, 204, None, |_| {});
            }
            Action::Preflight { allow } => {
                let listed = reply.origin.is_some();
                self.answer(index, reply, 204, None, |out| {
                    http::header(out, "Allow", allow.as_bytes());
                    if listed {
                        http::header(out, "Access-Control-Allow-Methods", allow.as_bytes());
                        http::header(out, "Access-Control-Allow-Headers", CORS_ALLOW_HEADERS.as_bytes());
                        http::header_number(out, "Access-Control-Max-Age", CORS_MAX_AGE_SECONDS);
                    }
                });
            }
            Action::Health => {
                self.answer(index, reply, 200, Some(Content::text(b"ok\n")), |_| {});
            }
            Action::Ready => {
                self.answer(index, reply, 200, Some(Content::text(b"ready\n")), |_| {});
            }
            Action::Metrics => self.scrape(index, reply),
        }
        Ok(())
    }

    // Other resources.

    fn list(&mut self, index: u32, reply: &Reply, prefix: &str, after: Option<&str>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        body.extend_from_slice(b"{\"channels\":[");
        let mut last = None;
        let mut next = None;
        let (mut looks, mut readers) = (0, 0);
        for (nth, channel) in self.hub.list(prefix, after, LIST_MAX + 1, &mut looks).enumerate() {
            if nth == LIST_MAX {
                next = last;
                break;
            }
            let mut subscribers = [0; 3];
            readers += self.hub.subscribers(channel.key).len();
            for &(subscriber, _) in self.hub.subscribers(channel.key) {
                subscribers[transport(self.connections[subscriber].state) as usize] += 1;
            }
            if nth > 0 {
                body.push(b',');
            }
            let ends = channel.oldest.zip(channel.newest);
            let line = json::ChannelLine {
                name: channel.name,
                subscribers,
                messages: channel.messages as u64,
                bytes: channel.bytes as u64,
                ends: ends.map(|(oldest, newest)| (self.hub.cursor(oldest), self.hub.cursor(newest))),
            };
            json::write_channel(&mut body, &line);
            last = Some(channel.name);
        }
        body.extend_from_slice(b"]");
        if let Some(next) = next {
            body.extend_from_slice(b",\"next\":");
            json::write_string(&mut body, next);
        }
        body.extend_from_slice(b"}");
        self.spend((looks + readers) * super::LOOK_COST);
        let content = Content::json(&mut body);
        self.answer(index, reply, 200, Some(content), |_| {});
        self.body = body;
    }

    fn answer_page(&mut self, index: u32, reply: &Reply, page: &pages::Page) {
        let content = Content::of(page.media_type, page.body);
        self.answer(index, reply, 200, Some(content), |out| page_headers(out, page));
    }

    /// What a browser has already it need not load again, but it asks each time.
    fn answer_script(&mut self, index: u32, reply: &Reply, head: &RequestHead<'_>, script: &pages::Script) {
        let is_known = head.headers("if-none-match").any(|tags| names_etag(tags, script.etag));
        let content = Content::of(script.media_type, script.body);
        let (status, content) = if is_known { (304, None) } else { (200, Some(content)) };
        let reply = Reply { caching: Caching::AskAgain, ..reply.clone() };
        self.answer(index, &reply, status, content, |out| http::header(out, "ETag", script.etag.as_bytes()));
    }

    // Refusals.

    fn reading_refusal(&self, error: reader::Error) -> Refusal {
        match error {
            reader::Error::Http(error) => {
                log::debug!("refused by {}: {error}", error.section());
                Refusal::new(error.code(), error.to_string())
            }
            reader::Error::BodyTooLarge => Refusal::new(
                Code::MessageTooLarge,
                format!("the message has more than {0} bytes, the limit is {0}", self.config.message_bytes_max),
            ),
        }
    }

    /// Tells who came over a limit. Its whole head is read for that: an SSE client is asked to come back.
    fn turn_away(&mut self, index: u32, head: &RequestHead<'_>) {
        let reply = Reply { keep_alive: false, ..self.reply_to(index, head) };
        self.refuse_request(index, &reply, head, &self.over_refusal(index));
        self.connections[index].reason = CloseReason::TooMany;
        self.count_request(index);
    }

    fn over_refusal(&self, index: u32) -> Refusal {
        let message = match self.connections[index].flags.has(Flags::OVER_ADDRESS) {
            true => format!(
                "this address has as many connections as --connections-per-address-max allows ({}); \
                 use them, or try again later",
                self.config.connections_per_address_max
            ),
            false => format!("the server has its {} connections; try again later", self.config.connections_max),
        };
        Refusal::new(Code::TooManyConnections, message)
    }

    /// The server holds all the unfinished input that it may: this connection's is given up.
    pub(super) fn refuse_intake(&mut self, index: u32) {
        let message = "the server holds too many unfinished requests and messages; try again later";
        match self.connections[index].state {
            State::WebSocket => {
                self.count_refusal(Code::Busy);
                self.close_websocket(index, websocket::CloseCode::TRY_LATER, message);
            }
            // Answers keep the order of the requests; the commit that answers those comes this turn.
            State::Request if self.connections[index].unanswered() > 0 => {}
            State::Request => self.refuse_and_finish(index, &Refusal::new(Code::Busy, message)),
            // What stands behind a held poll is too much: it is the one who can be told.
            State::Held => {
                let reply = Reply { keep_alive: false, ..self.held_reply(index) };
                self.refuse(index, &reply, &Refusal::new(Code::Busy, message));
            }
            State::Closing => self.end_closing(index),
            // They hold nothing.
            State::Stream | State::Finishing | State::Lingering | State::Dead => {}
        }
    }

    // Between requests.

    /// Watches over the next request: its beginning, its end, or the peer's.
    pub(super) fn watch_request(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        if connection.state != State::Request || connection.unanswered() > 0 {
            return;
        }
        if connection.flags.has(Flags::ENDED) && !connection.flags.has(Flags::PAUSED) {
            // What is left is not a whole request and never will be.
            return self.finish(index, CloseReason::PeerClosed);
        }
        // That of the first runs since accept.
        let is_first = connection.flags.has(Flags::FIRST);
        if !has_begun(connection) {
            if !is_first {
                self.set_deadline_between_requests(index);
            }
        } else if !connection.flags.has(Flags::HEAD_BEGUN) && !connection.flags.has(Flags::PAUSED) {
            connection.flags.set(Flags::HEAD_BEGUN);
            if !is_first {
                self.set_deadline(index, self.config.head_timeout);
            }
        }
    }

    /// A connection that was answered may stay, but not for ever.
    pub(super) fn set_deadline_between_requests(&mut self, index: u32) {
        let connection = &self.connections[index];
        if connection.state == State::Request && !connection.flags.has(Flags::BLOCKED) && !has_begun(connection) {
            self.set_deadline(index, self.config.idle_timeout);
        }
    }
}

/// True if the first byte of its next request has come. RFC 9112 2.2 has servers ignore an empty line before
/// a request, for some clients send one behind a body: it begins nothing.
fn has_begun(connection: &Connection) -> bool {
    connection.reader.as_ref().is_some_and(|reader| !b"\r\n".starts_with(&reader.input))
}

/// RFC 9110 13.1.2: `If-None-Match = "*" / #entity-tag`, and "a recipient MUST use the weak
/// comparison function". A comma within a tag makes no tag of ours: no tag has a quote inside.
fn names_etag(tags: &[u8], etag: &str) -> bool {
    let mut tags = tags.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    tags.any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes())
}

/// 413, in numbers.
pub(super) fn too_large(bytes: u64, limit: usize) -> Refusal {
    Refusal::new(Code::MessageTooLarge, format!("the message has {bytes} bytes, the limit is {limit}"))
}

fn not_found() -> Refusal {
    Refusal::new(Code::NotFound, "nothing is here; channels are at /channels/NAME, their list at /channels")
}

/// 503 while leaving.
pub(super) fn draining() -> Refusal {
    Refusal::new(Code::Draining, "the server is leaving; try again in a few seconds")
}

/// 503: no room for another channel.
pub(super) fn channels_full(limit: usize) -> Refusal {
    Refusal::new(
        Code::ChannelsFull,
        format!(
            "every channel keeps a message or has a subscriber, and channels-max allows no more ({limit}); \
             try again later, or use one of them"
        ),
    )
}
