//! A server in a thread of its own, and clients that talk to it over real sockets.
//!
//! The clients share no code with the server: each reads the standards for itself and takes
//! nothing but what they allow. Invariant: nothing here waits for ever; a peer that stays silent
//! for `PATIENCE` fails the test.

// Each test file takes what it needs and leaves the rest.
#![allow(dead_code)]

pub mod http;
pub mod json;
#[cfg(all(target_os = "linux", feature = "cli"))]
pub mod program;
pub mod sse;
pub mod trace;
pub mod websocket;

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::{Client, Request, Response};
use sse::EventStream;
use websocket::WebSocket;

/// Long enough for the slowest machine: who waits so long has hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. It is stopped, and its thread joined, when the test lets go of it.
pub struct TestServer {
    pub address: SocketAddr,
    pub handle: tidings::Handle,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// A server with the defaults.
    pub fn start() -> TestServer {
        TestServer::start_with(|_| {})
    }

    /// A server whose config is changed a little.
    pub fn start_with(change: impl FnOnce(&mut tidings::Config)) -> TestServer {
        TestServer::listen("127.0.0.1:0", change)
    }

    /// The same at another address.
    pub fn listen(address: &str, change: impl FnOnce(&mut tidings::Config)) -> TestServer {
        let mut config = tidings::Config::default();
        change(&mut config);
        let server = tidings::Server::bind(address, config).expect("a free port");
        let address = server.local_addrs()[0];
        let handle = server.handle();
        let thread = std::thread::spawn(move || server.run().expect("the loop turns"));
        TestServer { address, handle, thread: Some(thread) }
    }

    /// Waits until it has left of its own accord.
    pub fn join(mut self) {
        self.thread.take().expect("joined once").join().expect("the server's thread ended without a panic");
    }

    /// A fresh connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A request to be; `.send()` sends it over a connection of its own.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    pub fn get(&self, target: &str) -> Response {
        self.request("GET", target).send()
    }

    pub fn head(&self, target: &str) -> Response {
        self.request("HEAD", target).send()
    }

    pub fn delete(&self, target: &str) -> Response {
        self.request("DELETE", target).send()
    }

    pub fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.request("POST", target).body(body).send()
    }

    /// Publishes text and returns the message's id.
    pub fn publish(&self, channel: &str, body: impl AsRef<[u8]>) -> String {
        let answer = self.post(&format!("/channels/{channel}"), body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].str().to_owned()
    }

    /// A long poll that does not wait: what is after this cursor, now.
    pub fn poll(&self, set: &str, after: &str) -> json::Value {
        let answer = self.get(&format!("/channels/{set}?after={after}&wait=0"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The cursor of now.
    pub fn now(&self) -> String {
        self.head("/channels/nobody").header("Tidings-Cursor").expect("HEAD tells the cursor").to_owned()
    }

    /// `GET /healthz` over a new connection; `None` if it is closed without an answer.
    pub fn connect_and_get(&self) -> Option<Response> {
        let mut client = self.request("GET", "/healthz").start();
        (!client.at_end()).then(|| client.response("GET"))
    }

    /// How the server stands.
    pub fn stats(&self) -> tidings::Stats {
        self.handle.stats(PATIENCE).expect("the loop turns")
    }

    /// Begins to leave, and returns when the server says so. It needs a `drain_grace`, or nobody
    /// may ask.
    pub fn drain(&self) {
        self.handle.shutdown();
        self.until("the server drains", || self.get("/readyz").status == 503);
    }

    /// Waits until so many subscribers of a kind (`websocket`, `sse`, `poll`) read a channel.
    pub fn until_subscribed(&self, channel: &str, kind: &str, count: usize) {
        self.until("the subscribers are attached", || {
            let list = self.get(&format!("/channels?prefix={channel}")).json();
            let found = list["channels"].array().iter().find(|entry| entry["name"] == channel);
            found.map_or(0.0, |entry| entry["subscribers"][kind].number()) == count as f64
        });
    }

    /// Asks again and again until it is so.
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
            std::thread::yield_now();
        }
    }

    /// Opens an SSE stream.
    pub fn sse(&self, target: &str) -> EventStream {
        EventStream::open(self.request("GET", target).header("Accept", "text/event-stream"))
    }

    /// Opens a WebSocket that offers these subprotocols.
    pub fn websocket(&self, target: &str, protocols: &[&str]) -> WebSocket {
        WebSocket::open(self.request("GET", target), protocols).expect("101")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.stop();
        let Some(ended) = self.thread.take().map(JoinHandle::join) else { return };
        // A second panic while the test is failing would hide the first.
        if !std::thread::panicking() {
            ended.expect("the server's thread ended without a panic");
        }
    }
}

/// The two numbers of a cursor.
pub fn parts(cursor: &str) -> (u64, u64) {
    let (epoch, seq) = cursor.split_once('-').unwrap_or_else(|| panic!("{cursor:?} is no cursor"));
    (epoch.parse().expect("an epoch"), seq.parse().expect("a number"))
}

/// The cursor so many numbers later, or earlier.
pub fn shifted(cursor: &str, by: i64) -> String {
    let (epoch, seq) = parts(cursor);
    format!("{epoch}-{}", seq.checked_add_signed(by).expect("a number not below 0"))
}

/// A cursor of the same number in another life of the log.
pub fn other_epoch(cursor: &str) -> String {
    let (epoch, seq) = parts(cursor);
    format!("{}-{seq}", if epoch == 1 { 2 } else { epoch - 1 })
}
