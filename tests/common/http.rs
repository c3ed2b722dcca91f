//! A blocking HTTP/1.1 client that takes only what RFC 9112 allows.
//!
//! What the server sends beyond one answer stays in `Client`, so keep-alive, pipelining and
//! streams need nothing further.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::{PATIENCE, json};

/// A request to be.
pub struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    version: &'static str,
    host: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(address: SocketAddr, method: &str, target: &str) -> Request {
        Request {
            address,
            method: method.into(),
            target: target.into(),
            version: "HTTP/1.1",
            host: Some(address.to_string()),
            headers: Vec::new(),
            body: (method == "POST").then(Vec::new),
        }
    }

    /// Adds a header line. The value is sent as it is.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Another `Host` than the server's address.
    pub fn host(mut self, host: &str) -> Request {
        self.host = Some(host.into());
        self
    }

    /// HTTP/1.0.
    pub fn http10(mut self) -> Request {
        self.version = "HTTP/1.0";
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Request {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} {}\r\n", self.method, self.target, self.version).into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        };
        if let Some(host) = &self.host {
            line("Host", host.as_bytes());
        }
        for (name, value) in &self.headers {
            line(name, value);
        }
        if let Some(body) = &self.body {
            line("Content-Length", body.len().to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.body.as_deref().unwrap_or_default());
        out
    }

    /// Sends it over a connection of its own and reads the answer.
    pub fn send(&self) -> Response {
        self.start().response(&self.method)
    }

    /// Sends it over a connection of its own; the answer is still to be read.
    pub fn start(&self) -> Client {
        let mut client = Client::connect(self.address);
        client.send(self.bytes());
        client
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names as sent, in the order sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header, of which there must not be two.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(this, _)| this.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice: {self:?}");
        value
    }

    /// True if a header that is a list has this member, in any case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.headers
            .iter()
            .filter(|(this, _)| this.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|this| this.trim().eq_ignore_ascii_case(member))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub fn json(&self) -> json::Value {
        let media_type = self.header("Content-Type").unwrap_or_default();
        assert_eq!(media_type.split(';').next(), Some("application/json"), "{self:?}");
        json::parse(self.text())
    }

    /// `error.code` of an error answer, after a look at its form.
    pub fn code(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        assert_eq!(error["status"], f64::from(self.status), "{self:?}");
        assert!(!error["message"].str().is_empty(), "{self:?}");
        error["code"].str().to_owned()
    }

    /// `error.message` of an error answer.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].str().to_owned()
    }
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    /// Received and not yet taken.
    unread: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
        stream.set_nodelay(true).expect("a connected socket");
        Client { stream, unread: Vec::new() }
    }

    /// Sends bytes as they are. A server that has closed meanwhile is seen when reading.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            let gone = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
            assert!(gone, "the server takes no bytes: {error}");
        }
    }

    /// No more bytes will come from here.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a connected socket");
    }

    /// True if the server neither says anything nor ends the connection for so long.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout above zero");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        matches!(peeked, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Reads one whole answer to a request of this method.
    pub fn response(&mut self, method: &str) -> Response {
        let mut response = self.response_head();
        // RFC 9112 6.3: these end with the head, whatever the header fields say.
        if method == "HEAD" || matches!(response.status, 100..=199 | 204 | 304) {
            return response;
        }
        match (response.header("Transfer-Encoding"), response.header("Content-Length")) {
            (Some(coding), None) => {
                assert_eq!(coding, "chunked");
                while let Some(chunk) = self.chunk() {
                    response.body.extend(chunk);
                }
            }
            (None, Some(length)) => {
                assert!(length.bytes().all(|byte| byte.is_ascii_digit()), "{response:?}");
                response.body = self.take(length.parse().expect("a length"));
            }
            (None, None) => {
                assert!(response.lists("Connection", "close"), "a body without an end: {response:?}");
                while self.receive() {}
                response.body = std::mem::take(&mut self.unread);
            }
            (Some(_), Some(_)) => panic!("RFC 9112 6.2 forbids both framings: {response:?}"),
        }
        response
    }

    /// Reads the head of an answer, up to and including its blank line.
    pub fn response_head(&mut self) -> Response {
        let (protocol, status) = {
            let line = self.line();
            let mut words = line.splitn(3, ' ');
            let protocol = words.next().unwrap_or_default().to_owned();
            (protocol, words.next().unwrap_or_default().to_owned())
        };
        assert_eq!(protocol, "HTTP/1.1", "status {status}");
        assert!(status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()), "{status:?} is no status");
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header line: {line:?}"));
            assert!(!name.is_empty() && name.bytes().all(is_token), "no header name: {line:?}");
            assert!(!value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'), "a control byte: {line:?}");
            headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Response { status: status.parse().expect("three digits"), headers, body: Vec::new() }
    }

    /// Reads one chunk; `None` is the last one, with its trailers read too.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line();
        let digits = line.split(';').next().unwrap_or_default();
        let length = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
        if length == 0 {
            while !self.line().is_empty() {}
            return None;
        }
        let data = self.take(length);
        assert_eq!(self.take(2), b"\r\n", "a chunk ends with CRLF");
        Some(data)
    }

    /// Reads exactly so many bytes.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            assert!(self.receive(), "the server closed after {} of {length} bytes", self.unread.len());
        }
        // A debug build drains byte by byte; this copies.
        let rest = self.unread.split_off(length);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Reads what comes next, at least one byte; nothing when the server has closed.
    pub fn some(&mut self) -> Vec<u8> {
        if self.unread.is_empty() {
            self.receive();
        }
        std::mem::take(&mut self.unread)
    }

    /// True when the server has closed and everything is read. Waits until it is known.
    pub fn at_end(&mut self) -> bool {
        self.unread.is_empty() && !self.receive()
    }

    /// Waits for the end of the connection; bytes before it fail the test.
    pub fn assert_closed(&mut self) {
        let more = self.some();
        assert!(more.is_empty(), "the server sent more: {:?}", String::from_utf8_lossy(&more));
    }

    fn line(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                break end;
            }
            let so_far = String::from_utf8_lossy(&self.unread).into_owned();
            assert!(self.receive(), "the server closed within a line: {so_far:?}");
        };
        let mut line: Vec<u8> = self.unread.drain(..=end).collect();
        assert!(line.ends_with(b"\r\n"), "a bare LF: {:?}", String::from_utf8_lossy(&line));
        line.truncate(end - 1);
        String::from_utf8(line).expect("a head is UTF-8")
    }

    /// Receives some bytes; false at the end. A reset is an end too.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(length) => {
                    self.unread.extend_from_slice(&buffer[..length]);
                    return length > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("the server said nothing for {PATIENCE:?}: {error}"),
            }
        }
    }
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
