//! A server whose tests read like a trace: requests and answers as they stand on the wire, only
//! that `E` is its epoch, `R` the milliseconds of a `retry:`, every `time` is 0, and the newline that
//! ends a JSON body is left out.
//!
//! So what is expected is written down whole, and compared whole.

use super::http::{Client, Request, Response};
use super::sse::EventStream;
use super::websocket::{self, Frame};
use super::{PATIENCE, TestServer, parts};

/// Header lines of a WebSocket handshake.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// The header line of an EventSource.
pub const EVENT_STREAM: &str = "Accept: text/event-stream\r\n";

/// A running server and its epoch.
pub struct Server {
    pub inner: TestServer,
    spelling: Spelling,
}

impl Server {
    /// A server with the defaults.
    pub fn start() -> Server {
        Server::start_with(|_| {})
    }

    /// A server whose config is changed a little.
    pub fn start_with(change: impl FnOnce(&mut tidings::Config)) -> Server {
        let inner = TestServer::start_with(change);
        let spelling = Spelling { epoch: parts(&inner.now()).0 };
        Server { inner, spelling }
    }

    /// Publishes text; the id.
    pub fn publish(&self, channel: &str, payload: &str) -> String {
        self.publish_with(&format!("/channels/{channel}"), "", payload.as_bytes())
    }

    /// Publishes bytes with these header lines; the id.
    pub fn publish_with(&self, target: &str, headers: &str, payload: &[u8]) -> String {
        let answer = self.request(&format!("POST {target}"), headers).body(payload).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        self.spelling.hide(answer.json()["id"].str())
    }

    /// Sends `METHOD TARGET` with these header lines; the whole answer.
    pub fn ask(&self, request: &str, headers: &str) -> Response {
        self.spelling.hide_in(self.request(request, headers).send())
    }

    pub fn get(&self, target: &str) -> Response {
        self.ask(&format!("GET {target}"), "")
    }

    /// The same, but only the head of the answer is read.
    pub fn head(&self, request: &str, headers: &str) -> Response {
        self.spelling.hide_in(self.request(request, headers).start().response_head())
    }

    /// Sends a request that is answered later.
    pub fn open(&self, request: &str, headers: &str) -> Pending {
        Pending { client: self.request(request, headers).start(), spelling: self.spelling }
    }

    /// Opens an SSE stream with these header lines besides `Accept`.
    pub fn stream(&self, target: &str, headers: &str) -> Stream {
        let request = self.request(&format!("GET {target}"), &format!("{EVENT_STREAM}{headers}"));
        Stream { inner: EventStream::open(request), spelling: self.spelling }
    }

    /// Opens a WebSocket that offers these subprotocols.
    pub fn websocket(&self, target: &str, protocols: &[&str]) -> WebSocket {
        let inner = websocket::WebSocket::open(self.request(&format!("GET {target}"), ""), protocols).expect("101");
        WebSocket { inner, spelling: self.spelling }
    }

    /// Waits until so many subscribers are attached, over whatever transport.
    pub fn await_subscribers(&self, count: usize) {
        // Every question is a turn of the loop, so each look sees a later state.
        for _ in 0..1_000_000 {
            let stats = self.inner.handle.stats(PATIENCE).expect("the loop turns");
            if stats.websockets + stats.event_streams + stats.polls == count {
                return;
            }
            std::thread::yield_now();
        }
        panic!("there never were {count} subscribers");
    }

    /// Begins to leave; returns when it has begun.
    pub fn drain(&self) {
        self.inner.handle.shutdown();
        // Commands are heard in order.
        self.inner.handle.stats(PATIENCE);
    }

    /// A request to be.
    pub fn request(&self, request: &str, headers: &str) -> Request {
        let (method, target) = request.split_once(' ').expect("METHOD TARGET");
        let mut request = self.inner.request(method, &self.show(target));
        for line in headers.split_terminator("\r\n") {
            let (name, value) = line.split_once(": ").expect("a header line");
            request = request.header(name, self.show(value));
        }
        request
    }

    /// With the epoch instead of `E`.
    pub fn show(&self, text: &str) -> String {
        text.replace("E-", &format!("{}-", self.spelling.epoch))
    }

    /// With `E` instead of the epoch.
    pub fn hide(&self, text: &str) -> String {
        self.spelling.hide(text)
    }
}

/// A connection whose answer has not come yet.
pub struct Pending {
    pub client: Client,
    spelling: Spelling,
}

impl Pending {
    /// The answer to a GET.
    pub fn answer(&mut self) -> Response {
        self.spelling.hide_in(self.client.response("GET"))
    }
}

/// An open SSE stream.
pub struct Stream {
    pub inner: EventStream,
    spelling: Spelling,
}

impl Stream {
    /// The lines of the next block, joined by `|`; `end` at the end of the body.
    pub fn block(&mut self) -> String {
        match self.inner.next_block() {
            Some(block) => self.spelling.hide(&block.lines.join("|")),
            None => "end".to_owned(),
        }
    }
}

/// An open WebSocket.
pub struct WebSocket {
    pub inner: websocket::WebSocket,
    spelling: Spelling,
}

impl WebSocket {
    /// The next frame: the payload of a text frame, `binary [1, 2]`, `ping`, `pong`,
    /// `close 1000`, or `end`.
    pub fn frame(&mut self) -> String {
        match self.inner.next_frame() {
            Some(Frame::Text(text)) => self.spelling.hide(&text),
            Some(Frame::Binary(bytes)) => format!("binary {bytes:?}"),
            Some(Frame::Ping(_)) => "ping".to_owned(),
            Some(Frame::Pong(_)) => "pong".to_owned(),
            Some(Frame::Close(Some(code), _)) => format!("close {code}"),
            Some(Frame::Close(None, _)) => "close".to_owned(),
            None => "end".to_owned(),
        }
    }
}

/// `400 bad_cursor`, after a look at the error's form.
pub fn refusal(answer: &Response) -> String {
    format!("{} {}", answer.status, answer.code())
}

/// What the messages of a long poll say, one after the other.
pub fn data(answer: &Response) -> String {
    answer.json()["messages"].each("data").concat()
}

/// How values that differ from run to run are spelled.
#[derive(Copy, Clone)]
struct Spelling {
    epoch: u64,
}

impl Spelling {
    fn hide(self, text: &str) -> String {
        let text = text.replace(&format!("{}-", self.epoch), "E-");
        let text = hide_digits(&text, "\"time\":", "0");
        hide_digits(&text, "retry: ", "R")
    }

    fn hide_in(self, mut answer: Response) -> Response {
        for (_, value) in &mut answer.headers {
            *value = self.hide(value);
        }
        if let Ok(text) = std::str::from_utf8(&answer.body) {
            let is_json = answer.header("Content-Type") == Some("application/json");
            answer.body = self.hide(if is_json { text.trim_end_matches('\n') } else { text }).into_bytes();
        }
        answer
    }
}

/// Writes something else for the digits after each of these words.
fn hide_digits(text: &str, words: &str, instead: &str) -> String {
    let mut parts = text.split(words);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + words + instead + part.trim_start_matches(|byte: char| byte.is_ascii_digit()))
}
