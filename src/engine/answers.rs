//! Writes heads and bodies of HTTP answers into a connection's own bytes.
//!
//! Every answer has `Date`, every dynamic one `Cache-Control: no-store` and `nosniff`; what depends
//! on the request (`Connection`, `Vary`, CORS) is in `Reply`. RFC 9110, RFC 9112, Fetch 3.2.

use super::Engine;
use crate::app::Transport;
use crate::connection::{CloseReason, Flags, State};
use crate::error::{Code, Refusal};
use crate::form::{self, Form};
use crate::gap::Gap;
use crate::pages::Page;
use crate::protocol::http::{self, Method, RequestHead, Version};
use crate::protocol::json;
use crate::route::{self, CORS_EXPOSE_HEADERS};

/// In what manner a request is to be answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// Another request may follow on the connection.
    pub keep_alive: bool,
    /// HTTP/1.0: no chunks, and keeping alive must be said.
    pub http_10: bool,
    /// HEAD: the head alone.
    pub head_only: bool,
    /// Whether the answer may be kept.
    pub caching: Caching,
    /// The answer depends on `Accept`.
    pub negotiated: bool,
    /// The listed origin whose page reads the answer.
    pub origin: Option<Box<[u8]>>,
}

/// May an answer be kept for the next who asks?
#[derive(Copy, Clone, Debug, Default)]
pub(super) enum Caching {
    /// It is of this moment.
    #[default]
    NoStore,
    /// It is the same for everybody until the program changes.
    AskAgain,
    /// The embedder says so itself.
    AsTold,
}

/// What an answer says besides its status.
pub(super) struct Content<'a> {
    media_type: MediaType<'a>,
    body: &'a [u8],
}

/// What its content is. The two that most answers have are written as they are.
enum MediaType<'a> {
    Json,
    Text,
    Other(&'a str),
}

impl<'a> Content<'a> {
    /// This JSON, ended by a newline: whoever reads it in a terminal has the prompt on its own line.
    pub fn json(body: &'a mut Vec<u8>) -> Content<'a> {
        body.push(b'\n');
        Content { media_type: MediaType::Json, body }
    }

    /// A word for people and machines.
    pub fn text(body: &'a [u8]) -> Content<'a> {
        Content { media_type: MediaType::Text, body }
    }

    /// Anything else.
    pub fn of(media_type: &'a str, body: &'a [u8]) -> Content<'a> {
        Content { media_type: MediaType::Other(media_type), body }
    }
}

/// How long a refused client is asked to wait, in seconds: about what a drain or a peak takes.
const RETRY_AFTER_SECONDS: u64 = 5;

impl Engine {
    /// The manner in which this request is to be answered.
    pub(super) fn reply_to(&self, index: u32, head: &RequestHead<'_>) -> Reply {
        Reply {
            keep_alive: head.keep_alive && self.leaving.is_none(),
            http_10: head.version == Version::Http10,
            head_only: head.method == Method::Head,
            caching: Caching::NoStore,
            negotiated: matches!(head.method, Method::Get | Method::Head) && head.path.starts_with("/channels/"),
            origin: route::cors_origin(head, self.policy(index)).map(Box::from),
        }
    }

    /// Writes a whole answer, and ends the connection if nothing may follow.
    pub(super) fn answer(
        &mut self,
        index: u32,
        reply: &Reply,
        status: u16,
        content: Option<Content<'_>>,
        more: impl FnOnce(&mut Vec<u8>),
    ) {
        let (date, lists_origins) = (self.date, self.policies[0].lists_origins());
        let content_bytes = content.as_ref().map_or(0, |content| content.body.len());
        self.connections[index].own(&mut self.spares).append_with(|out| {
            http::start_response(out, status, &date);
            common_headers(out, reply, lists_origins);
            more(out);
            finish(out, reply, status, content);
        });
        self.spend(content_bytes);
        self.answered(index, reply.keep_alive);
    }

    /// An answer is written: the connection is between requests, or ends.
    pub(super) fn answered(&mut self, index: u32, keep_alive: bool) {
        if !keep_alive {
            self.finish(index, CloseReason::Finished);
        } else if self.connections[index].state == State::Held {
            self.unsubscribe(index);
            self.connections[index].state = State::Request;
        }
    }

    /// Says why not, and what would be right.
    pub(super) fn refuse(&mut self, index: u32, reply: &Reply, refusal: &Refusal) {
        let mut body = Vec::new();
        json::write_error(&mut body, refusal.code, &refusal.message, refusal.cursor);
        self.refuse_with(index, reply, refusal, Content::json(&mut body), |_| {});
    }

    /// Says no to a person in a browser, by a page that is itself told why.
    pub(super) fn refuse_by_page(&mut self, index: u32, reply: &Reply, refusal: &Refusal, page: &Page) {
        let content = Content::of(page.media_type, page.body);
        self.refuse_with(index, reply, refusal, content, |out| page_headers(out, page));
    }

    fn refuse_with(
        &mut self,
        index: u32,
        reply: &Reply,
        refusal: &Refusal,
        content: Content<'_>,
        more: impl FnOnce(&mut Vec<u8>),
    ) {
        self.count_refusal(refusal.code);
        self.answer(index, reply, refusal.code.status(), Some(content), |out| {
            if let Some(allow) = refusal.allow {
                http::header(out, "Allow", allow.as_bytes());
            }
            if let Some(cursor) = refusal.cursor {
                http::header_cursor(out, "Tidings-Cursor", cursor);
            }
            if refusal.passes() {
                http::header_number(out, "Retry-After", RETRY_AFTER_SECONDS);
            }
            match refusal.code {
                // RFC 9110 15.5.22: "The server MUST send an Upgrade header field in a 426 response".
                Code::UpgradeRequired => {
                    http::header(out, "Upgrade", b"websocket");
                    // RFC 9110 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
                    http::header(out, "Connection", b"upgrade");
                    // RFC 6455 4.4: the version that would be accepted.
                    http::header(out, "Sec-WebSocket-Version", b"13");
                }
                // RFC 6750 3: "If the request lacks any authentication information [...] the resource
                // server SHOULD NOT include an error code".
                Code::TokenRequired => http::header(out, "WWW-Authenticate", b"Bearer"),
                // RFC 9110 11.6.1 has the field in other answers too if other credentials may help.
                Code::TokenWrong => http::header(out, "WWW-Authenticate", b"Bearer error=\"invalid_token\""),
                _ => {}
            }
            more(out);
        });
    }

    /// Refuses what cannot be followed by another request, because its end is not known.
    pub(super) fn refuse_and_finish(&mut self, index: u32, refusal: &Refusal) {
        let reply = Reply { keep_alive: false, ..Reply::default() };
        self.refuse(index, &reply, refusal);
    }

    /// What a peer is told that came when there was no descriptor for it. Its request is not read.
    pub fn exhausted_answer(&mut self) -> &[u8] {
        let refusal = Refusal::new(
            Code::TooManyConnections,
            "the server has no descriptor, or no memory, for another connection; try again later",
        );
        let mut body = Vec::new();
        json::write_error(&mut body, refusal.code, &refusal.message, refusal.cursor);
        self.body.clear();
        http::start_response(&mut self.body, refusal.code.status(), &self.date);
        let reply = Reply::default();
        common_headers(&mut self.body, &reply, self.policies[0].lists_origins());
        http::header_number(&mut self.body, "Retry-After", RETRY_AFTER_SECONDS);
        finish(&mut self.body, &reply, refusal.code.status(), Some(Content::json(&mut body)));
        &self.body
    }

    /// An SSE stream's head; its blocks follow.
    pub(super) fn start_stream(&mut self, index: u32, reply: &Reply, form: Form) {
        let (date, lists_origins) = (self.date, self.policies[0].lists_origins());
        self.connections[index].own(&mut self.spares).append_with(|out| {
            http::start_response(out, 200, &date);
            http::header(out, "Content-Type", b"text/event-stream");
            http::header(out, "Cache-Control", b"no-store, no-transform");
            http::header(out, "X-Content-Type-Options", b"nosniff");
            // nginx passes a stream on at once only if it is told to.
            http::header(out, "X-Accel-Buffering", b"no");
            vary_and_cors(out, reply, lists_origins);
            if form.is_chunked() {
                http::header(out, "Transfer-Encoding", b"chunked");
            }
            // RFC 9112 9.6: who was asked to close says so; and without chunks the end is the close.
            if !reply.keep_alive || !form.is_chunked() {
                http::header(out, "Connection", b"close");
            }
            http::finish_head(out);
        });
    }

    /// To an SSE request, a refusal that will pass is `200` with `retry:` and the end: any other
    /// status stops a native EventSource for good.
    pub(super) fn refuse_stream(&mut self, index: u32, reply: &Reply, refusal: &Refusal) {
        let form = if reply.http_10 { Form::SseRawPlain } else { Form::SseRawChunked };
        let retry = self.retry_ms();
        log::debug!("connection {index} is asked to come back: {refusal}");
        self.count_refusal(refusal.code);
        self.start_stream(index, reply, form);
        self.connections[index].own(&mut self.spares).append_with(|out| form::sse_last(form, retry, out));
        self.answered(index, reply.keep_alive && form.is_chunked());
    }

    /// The base of `retry:`, jittered to one to three times.
    pub(super) fn retry_ms(&mut self) -> u64 {
        let base = (self.config.retry.as_millis() as u64).max(1);
        base + self.random.below(2 * base + 1)
    }

    // Long polls.

    /// Answers a poll with what there is: a gap, messages, or nothing but a fresh cursor.
    pub(super) fn answer_poll(&mut self, index: u32, gap: Option<&Gap>) {
        let keep_alive = self.connections[index].flags.has(Flags::KEEP_ALIVE);
        let mut own = self.connections[index].own.take().unwrap_or_else(|| self.spares.take());
        let mut messages = 0;
        own.append_with(|out| {
            messages = if self.connections[index].flags.has(Flags::RAW) {
                self.write_raw_answer(index, gap, out)
            } else {
                let mut body = Vec::new();
                self.write_poll_answer_with(index, gap, out, &mut body)
            };
        });
        self.spend(own.len());
        self.connections[index].own = Some(own);
        gap.into_iter().for_each(|gap| self.count_gap(gap));
        self.count_delivered(index, Transport::Poll, messages);
        self.answered(index, keep_alive);
        self.set_deadline_between_requests(index);
    }

    /// The poll that a connection held is over: its answer is written.
    pub(super) fn end_poll(&mut self, index: u32) {
        let keep_alive = self.connections[index].flags.has(Flags::KEEP_ALIVE);
        self.answered(index, keep_alive);
        self.set_deadline_between_requests(index);
        self.queue_reader(index);
    }

    /// Appends the whole JSON answer of a poll, and tells how many messages are in it.
    pub(super) fn write_poll_answer(&mut self, index: u32, gap: Option<&Gap>, out: &mut Vec<u8>) -> usize {
        let mut body = std::mem::take(&mut self.body);
        let messages = self.write_poll_answer_with(index, gap, out, &mut body);
        self.body = body;
        messages
    }

    fn write_poll_answer_with(&self, index: u32, gap: Option<&Gap>, out: &mut Vec<u8>, body: &mut Vec<u8>) -> usize {
        body.clear();
        let messages = self.hub.merged_after(index).map(|key| self.hub.message(key));
        let head = self.hub.cursor(self.hub.head());
        let (cursor, count) = form::poll_body(head, gap, messages, self.config.poll_bytes_max, body);
        let reply = self.held_reply(index);
        http::start_response(out, 200, &self.date);
        common_headers(out, &reply, self.policies[0].lists_origins());
        http::header_cursor(out, "Tidings-Cursor", cursor);
        finish(out, &reply, 200, Some(Content::json(body)));
        count
    }

    /// Appends the whole raw answer of a poll: one message, or 204. Tells how many.
    fn write_raw_answer(&self, index: u32, gap: Option<&Gap>, out: &mut Vec<u8>) -> usize {
        let reply = self.held_reply(index);
        let message = self.hub.merged_after(index).next().map(|key| self.hub.message(key));
        let status = if message.is_some() { 200 } else { 204 };
        http::start_response(out, status, &self.date);
        common_headers(out, &reply, self.policies[0].lists_origins());
        // A publisher must not run script on this origin.
        http::header(out, "Content-Security-Policy", b"sandbox; default-src 'none'");
        if let Some(gap) = gap {
            let mut text = Vec::new();
            json::write_gap_ascii(&mut text, gap);
            http::header(out, "Tidings-Gap", &text);
        }
        let Some(message) = message else {
            // Nothing of these channels is left after the subscriber: the head is its place too.
            http::header_cursor(out, "Tidings-Cursor", self.hub.cursor(self.hub.head()));
            finish(out, &reply, status, None);
            return 0;
        };
        let media_type = form::content_type(&message);
        let content = Content::of(media_type, message.payload.bytes());
        if form::needs_attachment(media_type) {
            http::header(out, "Content-Disposition", b"attachment");
        }
        http::header_cursor(out, "Tidings-Id", message.id);
        http::header(out, "Tidings-Channel", message.channel.as_bytes());
        if let Some(event) = message.event {
            let mut encoded = Vec::new();
            http::percent_encode_header(&mut encoded, event.as_bytes());
            http::header(out, "Tidings-Event", &encoded);
        }
        http::header_cursor(out, "Tidings-Cursor", message.id);
        finish(out, &reply, status, Some(content));
        1
    }

    /// The manner in which a held poll is to be answered.
    pub(super) fn held_reply(&self, index: u32) -> Reply {
        let connection = &self.connections[index];
        Reply {
            keep_alive: connection.flags.has(Flags::KEEP_ALIVE),
            http_10: connection.flags.has(Flags::HTTP_10),
            head_only: false,
            caching: Caching::NoStore,
            negotiated: true,
            origin: connection.cold.as_ref().and_then(|cold| cold.origin.clone()),
        }
    }
}

fn common_headers(out: &mut Vec<u8>, reply: &Reply, lists_origins: bool) {
    // RFC 9111 5.2.2.4: with `no-cache` it is kept, but asked about each time.
    http::fixed_lines(
        out,
        match reply.caching {
            Caching::NoStore => "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            Caching::AskAgain => "Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n",
            Caching::AsTold => "X-Content-Type-Options: nosniff\r\n",
        },
    );
    vary_and_cors(out, reply, lists_origins);
    match (reply.keep_alive, reply.http_10) {
        (false, _) => http::header(out, "Connection", b"close"),
        (true, true) => http::header(out, "Connection", b"keep-alive"),
        (true, false) => {}
    }
}

/// What a browser may do with a page.
pub(super) fn page_headers(out: &mut Vec<u8>, page: &Page) {
    http::header(out, "Content-Security-Policy", page.content_security_policy.as_bytes());
    http::header(out, "Referrer-Policy", b"no-referrer");
}

fn vary_and_cors(out: &mut Vec<u8>, reply: &Reply, lists_origins: bool) {
    match (reply.negotiated, lists_origins) {
        (true, true) => http::header(out, "Vary", b"Accept, Origin"),
        (true, false) => http::header(out, "Vary", b"Accept"),
        (false, true) => http::header(out, "Vary", b"Origin"),
        (false, false) => {}
    }
    if let Some(origin) = &reply.origin {
        http::header(out, "Access-Control-Allow-Origin", origin);
        http::header(out, "Access-Control-Expose-Headers", CORS_EXPOSE_HEADERS.as_bytes());
    }
}

fn finish(out: &mut Vec<u8>, reply: &Reply, status: u16, content: Option<Content<'_>>) {
    match &content {
        Some(Content { media_type, body }) => {
            match media_type {
                MediaType::Json => http::fixed_lines(out, "Content-Type: application/json\r\n"),
                MediaType::Text => http::fixed_lines(out, "Content-Type: text/plain\r\n"),
                MediaType::Other(media_type) => http::header(out, "Content-Type", media_type.as_bytes()),
            }
            http::content_length(out, body.len());
        }
        // RFC 9110 8.6: no Content-Length in a 204; elsewhere it says that nothing follows.
        None if matches!(status, 204 | 304) || reply.head_only => {}
        None => http::content_length(out, 0),
    }
    http::finish_head(out);
    if let (Some(content), false) = (&content, reply.head_only) {
        out.extend_from_slice(content.body);
    }
}
