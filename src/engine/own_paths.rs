//! The embedder's own paths: its answers, and its WebSockets.
//!
//! Knows nothing of channels: such a WebSocket reads none. What the embedder answers is its own affair,
//! but whether it is an answer is ours: values may come from a client, and no value of it may ever end a
//! line, or be taken for the next answer.
//! Invariant: whatever an app gives, its answer is one, in every build. RFC 9110 5.5, 9.3.2, 15.

use super::Engine;
use super::access::{Admission, granted};
use super::answers::{Caching, Content, Reply};
use super::requests::draining;
use crate::app::{Request, Response};
use crate::cursor::After;
use crate::error::Refusal;
use crate::protocol::http::{self, Method, RequestHead};
use crate::protocol::websocket::{self, Handshake, Subprotocol};
use crate::route::{self, Format, SubscribeRequest, Transport};

/// What the server says itself of every answer.
const OWN_HEADERS: [&str; 6] = ["connection", "content-length", "content-type", "date", "transfer-encoding", "upgrade"];

impl Engine {
    /// Asks the embedder for a WebSocket or an answer. False if it has neither.
    pub(super) fn ask_app(
        &mut self,
        index: u32,
        reply: &Reply,
        head: &RequestHead<'_>,
        body: &[u8],
    ) -> Result<bool, Refusal> {
        let Some(app) = &mut self.app else { return Ok(false) };
        let request = Request::new(head, body);
        if route::asks_to_upgrade(head)
            && let Some(access) = app.upgrade(&request)
        {
            let user = granted(access)?;
            self.open_websocket(index, reply, head, user)?;
            return Ok(true);
        }
        // RFC 9110 9.3.2: "The HEAD method is identical to GET except that the server MUST NOT send
        // content in the response." Few apps think of it.
        let response = app.request(&request).or_else(|| match head.method {
            Method::Head => app.request(&request.as_get()),
            _ => None,
        });
        let Some(response) = response else { return Ok(false) };
        self.answer_for_app(index, reply, &response);
        Ok(true)
    }

    /// Opens a WebSocket of the embedder's own, which reads no channel.
    fn open_websocket(&mut self, index: u32, reply: &Reply, head: &RequestHead<'_>, user: u64) -> Result<(), Refusal> {
        if self.leaving.is_some() {
            return Err(draining());
        }
        let handshake =
            websocket::accept_handshake(head).map_err(|error| Refusal::new(error.code(), error.to_string()))?;
        // Its messages are the embedder's; the server's subprotocols mean nothing on it.
        let handshake = Handshake { protocol: Subprotocol::None, ..handshake };
        let request = SubscribeRequest {
            channels: Vec::new(),
            after: After::Now,
            transport: Transport::WebSocket(handshake),
            format: Format::Json,
        };
        // It came in by the embedder's word, and by no token.
        self.access.hold(index, Admission { token: None, user });
        self.subscribe(index, reply, &request)
    }

    fn answer_for_app(&mut self, index: u32, reply: &Reply, response: &Response) {
        if !self.has_warned_of_app
            && let Some(fault) = fault(response)
        {
            self.has_warned_of_app = true;
            log::warn!("an app's answer has {fault}; no further such answer is told of");
        }
        let status = if has_status(response) { response.status } else { 500 };
        let media_type = if has_media_type(response) { &response.content_type } else { "application/octet-stream" };
        let content = has_content(status).then_some(Content::of(media_type, &response.body));
        let is_own = |name: &str| OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own));
        let is_further = |(name, value): &&(String, String)| is_header(name, value) && !is_own(name);
        let headers = || response.headers.iter().filter(is_further);
        let tells_caching = headers().any(|(name, _)| name.eq_ignore_ascii_case("cache-control"));
        let caching = if tells_caching { Caching::AsTold } else { Caching::NoStore };
        let reply = Reply { caching, ..reply.clone() };
        self.answer(index, &reply, status, content, |out| {
            for (name, value) in headers() {
                http::header(out, name, value.as_bytes());
            }
        });
    }
}

/// What of an app's answer cannot be sent as it is, and what becomes of it. No value is shown: who
/// knows whose it is.
fn fault(response: &Response) -> Option<String> {
    if !has_status(response) {
        return Some(format!("the status {}, which is none from 200 to 599: it is sent as 500", response.status));
    }
    if has_content(response.status) && !has_media_type(response) {
        return Some("a content type that is empty or has a control character: it is sent as octets".to_owned());
    }
    let (name, _) = response.headers.iter().find(|(name, value)| !is_header(name, value))?;
    Some(format!("a header {name:?} whose name is none, or whose value has a control character: it is left out"))
}

fn has_status(response: &Response) -> bool {
    (200..600).contains(&response.status)
}

/// RFC 9110 15.3.5, 15.3.6, 15.4.5: these have no content, and its first byte would begin the next answer.
fn has_content(status: u16) -> bool {
    !matches!(status, 204 | 205 | 304)
}

fn has_media_type(response: &Response) -> bool {
    !response.content_type.is_empty() && response.content_type.bytes().all(http::is_value_byte)
}

fn is_header(name: &str, value: &str) -> bool {
    !name.is_empty() && name.bytes().all(http::is_token_byte) && value.bytes().all(http::is_value_byte)
}
