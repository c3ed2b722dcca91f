//! The embedder's say: who may come in, own routes, what becomes of an inbound message.
//!
//! Every method has a default, so `impl App for Mine {}` is a plain server. An app gets values and
//! returns values; it never sees the engine. It runs on the loop's thread, between two reads: what
//! blocks here blocks every client. If it panics, `run` returns an error and the server is over
//! (where panics unwind: see `Error::Panicked`).

use crate::commands::Publication;
use crate::protocol::http::RequestHead;

/// A request as an app sees it. Nothing in it is checked beyond HTTP's own rules.
#[derive(Copy, Clone, Debug)]
pub struct Request<'a> {
    head: &'a RequestHead<'a>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn new(head: &'a RequestHead<'a>, body: &'a [u8]) -> Request<'a> {
        Request { head, body }
    }

    /// The method, `GET` for instance.
    pub fn method(&self) -> &'a str {
        self.head.method_name
    }

    /// The path as sent, percent-encoded.
    pub fn path(&self) -> &'a str {
        self.head.path
    }

    /// The query as sent, without the `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.head.query
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.header(name)
    }

    /// The body; empty if there was none, or if the request is judged before it came.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// What a client wants to do to channels.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Publish to a channel, or open a WebSocket that may.
    Publish,
    /// Read channels, or the list of them.
    Subscribe,
    /// Forget a channel's kept messages.
    Delete,
}

/// An app's answer to `authorize`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Go on.
    Allow,
    /// 403 `not_allowed`, with this sentence.
    Deny(String),
}

/// An app's own answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status, 200 to 599.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: String,
    /// Further headers. Framing headers are the server's own and are left out.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// 200 with this body.
    pub fn new(content_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Response {
        Response { status: 200, content_type: content_type.into(), headers: Vec::new(), body: body.into() }
    }

    /// The same with this status.
    pub fn with_status(mut self, status: u16) -> Response {
        self.status = status;
        self
    }
}

/// A message that a WebSocket client sent without the command protocol.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inbound<'a> {
    /// The channels the connection reads, sorted.
    pub channels: &'a [&'a str],
    /// The message.
    pub payload: &'a [u8],
    /// True for a binary frame.
    pub binary: bool,
}

/// What becomes of an inbound message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reaction {
    /// Publish it as the contract says: to the one channel of the connection.
    Publish,
    /// Publish something to a channel instead.
    PublishTo(String, Publication),
    /// Send this back to this client alone, text if it is UTF-8, and publish nothing.
    Reply(Vec<u8>),
    /// As `Reply`, in a binary frame.
    ReplyBinary(Vec<u8>),
    /// Send the message itself back, in the kind of frame it came in, without a copy.
    Echo,
    /// Nothing.
    Ignore,
    /// Close the connection with this code and reason. A code that must not be sent (RFC 6455 7.4)
    /// counts as 1000.
    Close(u16, String),
}

/// How a subscriber is attached.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// A Server-Sent Events stream.
    Sse,
    /// A held long poll.
    Poll,
}

/// The embedder's hooks.
pub trait App: Send {
    /// May this request do this to these channels (empty for the list)? Asked after the server's
    /// own rules allowed it.
    fn authorize(&mut self, _request: &Request<'_>, _operation: Operation, _channels: &[&str]) -> Access {
        Access::Allow
    }

    /// May a client of the subprotocol `tidings.v1` do this to these channels by a command on its
    /// open connection? Its handshake was authorized; unless this says otherwise, no more is.
    fn authorize_command(&mut self, _operation: Operation, _channels: &[&str]) -> Access {
        Access::Deny("commands are not allowed here".to_owned())
    }

    /// Answers a path that is not the server's own; `None` is 404.
    fn request(&mut self, _request: &Request<'_>) -> Option<Response> {
        None
    }

    /// May a WebSocket be opened on a path that is not the server's own, or on `/`? It reads no
    /// channel and is told no cursor; `message` decides on what comes. Its Origin was checked.
    fn upgrade(&mut self, _request: &Request<'_>) -> bool {
        false
    }

    /// Decides what becomes of a WebSocket client's message.
    fn message(&mut self, _message: &Inbound<'_>) -> Reaction {
        Reaction::Publish
    }

    /// A connection reads these channels from now on: all that it asked for when it subscribes, and
    /// on a WebSocket of `tidings.v1` what each command `subscribe` adds. So one connection may be
    /// told several times: count channels, not calls.
    fn subscribed(&mut self, _channels: &[&str], _transport: Transport) {}

    /// A connection reads these channels no more: what a command `unsubscribe` took away, or all that
    /// were left, if any, when it ended or its poll was answered. Each channel that was told as added
    /// is told as gone once; the calls do not pair. Whoever is there when the server stops is not told.
    fn unsubscribed(&mut self, _channels: &[&str], _transport: Transport) {}
}

/// The app of a server that has none.
#[derive(Copy, Clone, Debug, Default)]
pub struct NoApp;

impl App for NoApp {}
