//! What is logged: no token, wherever it stood, and no control byte, whatever a peer sent.
//!
//! A logger of this process's own takes every line of every level, the libraries' too, so this file
//! has one test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Mutex;

use common::TestServer;
use common::websocket::{WebSocket, masked};
use tidings::Tokens;

struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{} {}: {}", record.level(), record.target(), record.args()));
    }

    fn flush(&self) {}
}

/// A token that is good, one that is not, and one that was.
const TOKENS: [&str; 3] = ["s3cret-good", "s3cret-wrong", "s3cret-revoked"];

/// Bytes that would forge a line, move a cursor, colour a terminal, or turn text around.
const HOSTILE: [&str; 8] = ["\r", "\n", "\0", "\x1b[2J", "\x7f", "\u{9b}31m", "\u{202e}", "ERROR forged"];

fn tokens(lines: &str) -> Tokens {
    let mut tokens = Tokens::default();
    tokens.allow_lines(lines.as_bytes()).unwrap();
    tokens
}

/// protocol: bearer token, for clients that cannot set headers; never logged.
#[test]
fn no_token_and_no_control_byte_is_ever_logged() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = TestServer::start_with(|config| {
        config.tokens = tokens("publish s3cret-good\nsubscribe s3cret-revoked");
        config.message_bytes_max = 64;
    });

    let requests = ["GET /channels/a", "HEAD /channels/a", "POST /channels/a", "DELETE /channels/a", "GET /channels"];
    for token in TOKENS {
        for request in requests.iter().chain(&["GET /metrics", "GET /", "PUT /channels/a", "GET /nothing"]) {
            let (method, target) = request.split_once(' ').unwrap();
            server.request(method, &format!("{target}?wait=0&token={token}")).send();
            server
                .request(method, &format!("{target}?wait=0"))
                .header("Authorization", format!("Bearer {token}"))
                .send();
            server.request(method, &format!("{target}?wait=0")).header("Cookie", format!("token={token}")).send();
            // Where none belongs, and where the request is broken behind it.
            server.request(method, &format!("{target}?wait=0&token={token}&after=%zz")).send();
            server.request(method, &format!("{target}?token={token}")).host("evil.example").send();
            server.request(method, &format!("{target}?token={token}")).header("Content-Length", "x").send();
            server.request(method, &format!("{target}?token={token}")).header("A", "x".repeat(20_000)).send();
            server.request(method, &format!("/{token}/{target}")).send();
        }
        let offers = ["tidings.v1".to_owned(), format!("tidings.bearer.{token}")];
        let offers = [offers[0].as_str(), offers[1].as_str()];
        if let Ok(mut socket) = WebSocket::open(server.request("GET", "/channels/a"), &offers) {
            socket.next_json();
            socket.send_text(&format!("publish a ref={token}\n{token}"));
            socket.send_text(&format!("subscribe {token} "));
            socket.send_close(1000, token);
        }
    }
    for bytes in HOSTILE {
        for method in ["GET", "POST", bytes] {
            for target in [format!("/channels/{bytes}"), format!("/channels/a?event={bytes}"), bytes.to_owned()] {
                let request = server.request(method, &target).header("User-Agent", bytes).header(bytes, bytes);
                server.connect().send(request.header("Authorization", format!("Bearer s3cret-good{bytes}")).bytes());
            }
            for name in ["Host", "Origin", "Accept", "Last-Event-ID", "Content-Type", "Upgrade", "Transfer-Encoding"] {
                let text = format!("{method} /channels/a?token=s3cret-good HTTP/1.1\r\n{name}: {bytes}\r\n\r\n");
                let mut client = server.connect();
                client.send(text);
                client.some();
            }
        }
        for protocol in ["tidings.v1", "tidings.raw"] {
            let mut socket = server.websocket("/channels/a?token=s3cret-good", &[protocol]);
            socket.send_text(bytes);
            socket.send_close(4000, bytes);
            let mut socket = server.websocket("/channels/a?token=s3cret-good", &[protocol]);
            // A close frame and a text that are no UTF-8, and a message that is too large.
            socket.client.send(masked(0x88, &[&[0x0f, 0xa0][..], bytes.as_bytes(), b"\xff"].concat()));
            let mut socket = server.websocket("/channels/a?token=s3cret-good", &[protocol]);
            socket.send_text(&bytes.repeat(5000));
        }
    }
    let mut stream = server.sse("/channels/a?token=s3cret-revoked");
    stream.next_block();
    server.handle.set_tokens(tokens("publish s3cret-good"));
    server.stats();
    server.until("all have gone", || server.stats().connections <= 1);
    server.handle.shutdown();
    server.join();

    let lines = LINES.0.lock().unwrap();
    for line in lines.iter() {
        assert!(!line.contains("s3cret"), "{line:?}");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        assert!(!line.contains("forged"), "{line:?}");
    }
    for words in ["connections that have lost their right and end: 1", "refused by", "ends: "] {
        assert!(lines.iter().any(|line| line.contains(words)), "{words:?} was logged: {lines:#?}");
    }
}
