//! A WebSocket client (RFC 6455) that takes only what a server may send.

use super::http::{Client, Request, Response};
use super::json;

/// The nonce and its answer from RFC 6455 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What came in one frame. The server never fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The code, if there was one, and the reason.
    Close(Option<u16>, String),
}

/// An open WebSocket.
pub struct WebSocket {
    /// The head of the 101.
    pub head: Response,
    pub client: Client,
}

impl WebSocket {
    /// Shakes hands, offering these subprotocols; another answer than 101 is given back.
    pub fn open(request: Request, protocols: &[&str]) -> Result<WebSocket, Box<Response>> {
        let mut request = WebSocket::handshake(request);
        if !protocols.is_empty() {
            request = request.header("Sec-WebSocket-Protocol", protocols.join(", "));
        }
        let mut client = request.start();
        let mut head = client.response_head();
        if head.status != 101 {
            if let Some(length) = head.header("Content-Length") {
                head.body = client.take(length.parse().expect("a length"));
            }
            return Err(Box::new(head));
        }
        assert!(head.lists("Upgrade", "websocket"), "{head:?}");
        assert!(head.lists("Connection", "upgrade"), "{head:?}");
        assert_eq!(head.header("Sec-WebSocket-Accept"), Some(ACCEPT), "{head:?}");
        if let Some(chosen) = head.header("Sec-WebSocket-Protocol") {
            assert!(protocols.contains(&chosen), "{chosen} was not offered");
        }
        Ok(WebSocket { head, client })
    }

    /// Adds the header lines of a handshake.
    pub fn handshake(request: Request) -> Request {
        request
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", KEY)
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes());
    }

    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send_frame(0x82, bytes);
    }

    pub fn send_close(&mut self, code: u16, reason: &str) {
        self.send_frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat());
    }

    /// Sends a masked frame whose first byte (FIN, RSV, opcode) is given.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.client.send(masked(first, payload));
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if self.client.at_end() {
            return None;
        }
        let head = self.client.take(2);
        assert_eq!(head[0] & 0xf0, 0x80, "FIN, and no RSV bit: {head:?}");
        assert_eq!(head[1] & 0x80, 0, "RFC 6455 5.1: \"A server MUST NOT mask any frames\"");
        let length = match head[1] {
            126 => {
                let length = u16::from_be_bytes(self.client.take(2).try_into().expect("2 bytes"));
                assert!(length > 125, "the shortest form of {length}");
                usize::from(length)
            }
            127 => {
                let length = u64::from_be_bytes(self.client.take(8).try_into().expect("8 bytes"));
                assert!(length > 0xffff && length >> 63 == 0, "the shortest form of {length}");
                usize::try_from(length).expect("a frame that fits in memory")
            }
            short => usize::from(short),
        };
        let payload = self.client.take(length);
        let opcode = head[0] & 0x0f;
        assert!(opcode < 8 || length <= 125, "a control frame of {length} bytes");
        Some(match opcode {
            1 => Frame::Text(String::from_utf8(payload).expect("a text frame is UTF-8")),
            2 => Frame::Binary(payload),
            8 if payload.is_empty() => Frame::Close(None, String::new()),
            8 => {
                assert!(length >= 2, "half a close code");
                let reason = String::from_utf8(payload[2..].to_vec()).expect("a close reason is UTF-8");
                Frame::Close(Some(u16::from_be_bytes([payload[0], payload[1]])), reason)
            }
            9 => Frame::Ping(payload),
            10 => Frame::Pong(payload),
            other => panic!("opcode {other}"),
        })
    }

    /// The next frame, which must be text, as JSON.
    pub fn next_json(&mut self) -> json::Value {
        match self.next_frame() {
            Some(Frame::Text(text)) => json::parse(&text),
            other => panic!("not a text frame: {other:?}"),
        }
    }

    /// The code of the close frame, which must be next, and then the end of the connection.
    pub fn assert_closed(&mut self, code: u16) {
        match self.next_frame() {
            Some(Frame::Close(Some(sent), reason)) => assert_eq!(sent, code, "{reason}"),
            other => panic!("not a close frame: {other:?}"),
        }
        self.send_close(code, "");
        self.client.assert_closed();
    }
}

/// A client's frame: first byte, length in its shortest form, mask, masked payload.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().enumerate().map(|(nth, byte)| byte ^ MASK[nth % 4]));
    out
}
