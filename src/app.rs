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
    method: &'a str,
    head: &'a RequestHead<'a>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn new(head: &'a RequestHead<'a>, body: &'a [u8]) -> Request<'a> {
        Request { method: head.method_name, head, body }
    }

    /// The same request by the method GET.
    pub(crate) fn as_get(&self) -> Request<'a> {
        Request { method: "GET", ..*self }
    }

    /// The method, `GET` for instance.
    pub fn method(&self) -> &'a str {
        self.method
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

/// An app's answer to [`App::authorize`], [`App::authorize_command`] and [`App::upgrade`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Go on. The same as `AllowAs(0)`.
    Allow,
    /// Go on, and this is who it is: a number of the app's own, perhaps a place in a table of its users.
    /// Of the answers to `upgrade`, and to `authorize` for [`Operation::Subscribe`], it is kept with the
    /// connection (WebSocket, stream or held poll) and handed to every later hook. In any other answer
    /// it means no more than `Allow`: who a connection is never changes.
    AllowAs(u64),
    /// 403 `not_allowed`, with this sentence.
    Deny(String),
}

/// An app's own answer to a request.
///
/// What it holds may come from a client: nothing in it can end a line of the answer's head or begin
/// another answer. What cannot be sent is told of below; the first such answer of a server is a
/// warning in the log.
///
/// ```
/// use tidings::Response;
/// let there = Response::new("text/plain", "over there\n").with_status(303).with_header("Location", "/there");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status, 200 to 599. Any other is sent as 500.
    pub status: u16,
    /// The `Content-Type`. If it is empty or has a control character: `application/octet-stream`.
    pub content_type: String,
    /// Further headers. One whose name is none (RFC 9110 5.1), or whose value has a control character
    /// other than a tab, is left out. So are those that the server writes itself: `Connection`,
    /// `Content-Length`, `Content-Type`, `Date`, `Transfer-Encoding`, `Upgrade`. A `Cache-Control`
    /// stands in the place of the server's `no-store`.
    pub headers: Vec<(String, String)>,
    /// The body. It is left out of an answer to HEAD, and of 204, 205 and 304, which have none.
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

    /// The same with this header besides those it has.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Response {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A message that a WebSocket client sent without the command protocol.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inbound<'a> {
    /// Who sent it: the number of [`Access::AllowAs`], or 0.
    pub user: u64,
    /// The channels the connection reads, sorted; none on a path of the app's own.
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
    /// Publish it as the contract says: to the one channel of the connection. One that reads several
    /// channels, or none, is closed with 1008.
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

/// The embedder's hooks, to be given to [`Server::bind_app`](crate::Server::bind_app).
///
/// Every method has a default, so `impl App for Mine {}` is a plain server. An app runs on the loop's
/// thread, between two reads: what blocks here blocks every client. If it panics, the server is over
/// ([`Error::Panicked`](crate::Error::Panicked)). `user` is the number by which the app let a
/// connection in ([`Access::AllowAs`]), or 0.
pub trait App: Send {
    /// May this request do this to these channels (empty for the list)? Asked after the server's
    /// own rules allowed it. A WebSocket's handshake is asked about twice: may it read, and, if it may,
    /// may it publish. If not, it is opened all the same; a message that it would publish closes it.
    fn authorize(&mut self, _request: &Request<'_>, _operation: Operation, _channels: &[&str]) -> Access {
        Access::Allow
    }

    /// May a client of the subprotocol `tidings.v1` do this to these channels by a command on its
    /// open connection? Its handshake was authorized; unless this says otherwise, no more is.
    fn authorize_command(&mut self, _user: u64, _operation: Operation, _channels: &[&str]) -> Access {
        Access::Deny("commands are not allowed here".to_owned())
    }

    /// Answers a path that is not the server's own, and `/` for GET and HEAD. `None` is 404; at `/` it
    /// is the playground. A HEAD that gets `None` is asked again as GET, and the answer's body left out.
    fn request(&mut self, _request: &Request<'_>) -> Option<Response> {
        None
    }

    /// May a WebSocket be opened on a path that is not the server's own, or on `/`? `None`: there is
    /// none, and `request` is asked. It reads no channel and is told no cursor; `message` decides on what
    /// comes, and nothing tells of its end. Its Origin was checked.
    fn upgrade(&mut self, _request: &Request<'_>) -> Option<Access> {
        None
    }

    /// Decides what becomes of a WebSocket client's message, if it may publish. What comes over
    /// `tidings.v1` are commands, and does not come here.
    fn message(&mut self, _message: &Inbound<'_>) -> Reaction {
        Reaction::Publish
    }

    /// A connection reads these channels from now on: all that it asked for when it subscribes, and
    /// on a WebSocket of `tidings.v1` what each command `subscribe` adds. So one connection may be
    /// told several times: count channels, not calls.
    fn subscribed(&mut self, _user: u64, _channels: &[&str], _transport: Transport) {}

    /// A connection reads these channels no more: what a command `unsubscribe` took away, or all that
    /// were left, if any, when it ended or its poll was answered. Each channel that was told as added
    /// is told as gone once; the calls do not pair. Whoever is there when the server stops is not told.
    fn unsubscribed(&mut self, _user: u64, _channels: &[&str], _transport: Transport) {}
}

/// The app of a server that has none.
#[derive(Copy, Clone, Debug, Default)]
pub struct NoApp;

impl App for NoApp {}
