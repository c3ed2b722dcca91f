//! The opening handshake: is this request one, and what is answered.
//!
//! RFC 6455 4.2. Knows nothing of tokens' worth or of origins; it hands out what was offered. The
//! `Host` that 4.2.1 asks for was checked with the request's head. What of the extensions is offered
//! is read in `extensions`; whoever writes the answer decides whether it is wanted.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1_smol::Sha1;

use super::extensions::{self, Deflate};
use crate::error::Code;
use crate::protocol::http::{BodyLength, Method, RequestHead, Version, is_token_byte};

/// A handshake that can be answered with 101.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The value of `Sec-WebSocket-Accept`, ASCII.
    pub accept: [u8; 28],
    /// What is spoken.
    pub protocol: Subprotocol,
    /// The offer of permessage-deflate that can be met, if there is one.
    pub deflate: Option<Deflate>,
    /// The token of the first `tidings.bearer.<token>` in the offered list.
    pub bearer: Option<String>,
}

/// What is spoken inside the frames.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// None was chosen: message objects out, payloads in.
    None,
    /// `tidings.v1`: message objects out, commands in.
    V1,
    /// `tidings.raw`: payloads both ways.
    Raw,
}

impl Subprotocol {
    /// The name it is agreed by.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Subprotocol::None => None,
            Subprotocol::V1 => Some("tidings.v1"),
            Subprotocol::Raw => Some("tidings.raw"),
        }
    }
}

/// An offer that carries a token and is never chosen: a browser's WebSocket can set no header.
const BEARER: &str = "tidings.bearer.";

/// Why a request opens no WebSocket.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// It does not ask for an upgrade to WebSocket, or in a way that must be ignored.
    NoUpgrade,
    /// A version of the protocol other than 13, or none, or several.
    Version,
    /// Not a GET.
    Method,
    /// It has a body.
    Body,
    /// No key, several, or one that is not 16 bytes of base64.
    Key,
    /// An offered subprotocol is not a token.
    Protocol,
    /// The offered extensions break the grammar of their header.
    Extensions,
}

impl HandshakeError {
    /// What it is answered with. With 426 go `Upgrade: websocket` (RFC 9110 15.5.22) and
    /// `Sec-WebSocket-Version: 13` (RFC 6455 4.2.2).
    pub fn code(self) -> Code {
        match self {
            HandshakeError::NoUpgrade | HandshakeError::Version => Code::UpgradeRequired,
            HandshakeError::Method
            | HandshakeError::Body
            | HandshakeError::Key
            | HandshakeError::Protocol
            | HandshakeError::Extensions => Code::BadRequest,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandshakeError::NoUpgrade => {
                "a WebSocket is opened by HTTP/1.1 with Connection: Upgrade and Upgrade: websocket; \
                 if the client sent them, a proxy between did not pass them on"
            }
            HandshakeError::Version => "Sec-WebSocket-Version must be there once, and be 13",
            HandshakeError::Method => "a WebSocket is opened by GET",
            HandshakeError::Body => "a WebSocket handshake must not have a body",
            HandshakeError::Key => "Sec-WebSocket-Key must be there once, and be 16 bytes in base64",
            HandshakeError::Protocol => "Sec-WebSocket-Protocol must be a list of tokens, separated by commas",
            HandshakeError::Extensions => {
                "Sec-WebSocket-Extensions must be a list of extensions, like permessage-deflate; server_max_window_bits=15"
            }
        })
    }
}

impl std::error::Error for HandshakeError {}

/// Decides whether a request opens a WebSocket.
pub fn accept_handshake(head: &RequestHead<'_>) -> Result<Handshake, HandshakeError> {
    // RFC 9110 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0
    // request", and one that Connection does not name was meant for somebody else.
    if head.version != Version::Http11
        || !head.has_token("upgrade", "websocket")
        || !head.has_token("connection", "upgrade")
    {
        return Err(HandshakeError::NoUpgrade);
    }
    if head.method != Method::Get {
        return Err(HandshakeError::Method);
    }
    // What follows the head must be frames, and must not be taken for anything else.
    if !matches!(head.body, BodyLength::None | BodyLength::Length(0)) {
        return Err(HandshakeError::Body);
    }
    if only(head, "sec-websocket-version") != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let key = only(head, "sec-websocket-key").filter(|key| is_key(key)).ok_or(HandshakeError::Key)?;
    let (protocol, bearer) = choose(head)?;
    let deflate = extensions::choose_deflate(head.headers("sec-websocket-extensions"))
        .map_err(|extensions::Malformed| HandshakeError::Extensions)?
        .filter(|_| cfg!(feature = "deflate"));
    Ok(Handshake { accept: accept(key), protocol, deflate, bearer })
}

/// Appends the header lines of the answer 101, without the blank line: `Upgrade`, `Connection`,
/// `Sec-WebSocket-Accept` and, if there is something to agree, `Sec-WebSocket-Protocol` and
/// `Sec-WebSocket-Extensions`.
pub fn write_handshake_answer(out: &mut Vec<u8>, handshake: &Handshake) {
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    out.extend_from_slice(&handshake.accept);
    if let Some(name) = handshake.protocol.name() {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(name.as_bytes());
    }
    if let Some(deflate) = handshake.deflate {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        deflate.write(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The value of a header that must be there exactly once.
fn only<'a>(head: &'a RequestHead<'_>, name: &str) -> Option<&'a [u8]> {
    let mut values = head.headers(name);
    values.next().filter(|_| values.next().is_none())
}

/// RFC 6455 4.2.1: base64 of a "value that, when decoded, is 16 bytes in length": 22 characters and
/// the padding. 4.2.2: "It is not necessary for the server to base64-decode" it.
fn is_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// RFC 6455 4.2.2: base64 of the SHA-1 of the key and a fixed GUID, so that nobody answers a
/// handshake who does not know what one is.
fn accept(key: &[u8]) -> [u8; 28] {
    let mut sha1 = Sha1::from(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut accept = [0; 28];
    STANDARD.encode_slice(sha1.digest().bytes(), &mut accept).expect("20 bytes are 28 characters of base64");
    accept
}

/// Chooses from the offered list: several lines are one list, ours is the order of preference.
fn choose(head: &RequestHead<'_>) -> Result<(Subprotocol, Option<String>), HandshakeError> {
    let mut protocol = Subprotocol::None;
    let mut bearer = None;
    for offer in head.headers("sec-websocket-protocol").flat_map(|line| line.split(|&byte| byte == b',')) {
        let offer = str::from_utf8(offer).map_err(|_| HandshakeError::Protocol)?.trim_matches([' ', '\t']);
        // RFC 9110 5.6.1.2: empty elements of a list are ignored.
        if offer.is_empty() {
            continue;
        }
        // RFC 6455 4.3: `1#token`. Names are compared as they are, case and all.
        if !offer.bytes().all(is_token_byte) {
            return Err(HandshakeError::Protocol);
        }
        match (offer, protocol) {
            ("tidings.v1", _) => protocol = Subprotocol::V1,
            ("tidings.raw", Subprotocol::None) => protocol = Subprotocol::Raw,
            _ => {
                if let Some(token) = offer.strip_prefix(BEARER) {
                    bearer.get_or_insert_with(|| token.to_owned());
                }
            }
        }
    }
    Ok((protocol, bearer))
}

/// Says that there is a token, never which.
impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("protocol", &self.protocol)
            .field("deflate", &self.deflate)
            .field("bearer", &self.bearer.as_ref().map(|_| "***"))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::{NO_HEADERS, decode_head};

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

    fn handshake(request_line: &str, headers: &str) -> Result<Handshake, HandshakeError> {
        let text = format!("{request_line}\r\nHost: example.org\r\n{headers}\r\n");
        let mut scratch = NO_HEADERS;
        accept_handshake(&decode_head(text.as_bytes(), &mut scratch).unwrap())
    }

    fn get(headers: &str) -> Result<Handshake, HandshakeError> {
        handshake("GET /channels/news HTTP/1.1", headers)
    }

    /// A good handshake and these lines.
    fn offer(lines: &str) -> Result<Handshake, HandshakeError> {
        get(&format!("{UPGRADE}{VERSION}{KEY}{lines}"))
    }

    #[test]
    fn what_is_shown_says_what_would_be_right_and_no_token() {
        for (error, words) in [
            (HandshakeError::NoUpgrade, "Connection: Upgrade"),
            (HandshakeError::Version, "be 13"),
            (HandshakeError::Method, "by GET"),
            (HandshakeError::Body, "must not have a body"),
            (HandshakeError::Key, "16 bytes in base64"),
            (HandshakeError::Protocol, "list of tokens"),
            (HandshakeError::Extensions, "list of extensions"),
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
        let shown = format!("{:?}", offer("Sec-WebSocket-Protocol: tidings.bearer.secret\r\n").unwrap());
        assert!(shown.contains("***") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn the_example_of_the_standard() {
        // RFC 6455 1.3
        let handshake = offer("").unwrap();
        assert_eq!(&handshake.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        write_handshake_answer(&mut out, &handshake);
        assert_eq!(
            str::from_utf8(&out).unwrap(),
            "Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        );
    }

    #[test]
    fn the_chosen_subprotocol_is_answered() {
        for (lines, want) in [
            ("Sec-WebSocket-Protocol: tidings.raw\r\n", "Sec-WebSocket-Protocol: tidings.raw\r\n"),
            ("Sec-WebSocket-Protocol: tidings.v1\r\n", "Sec-WebSocket-Protocol: tidings.v1\r\n"),
        ] {
            let mut out = Vec::new();
            write_handshake_answer(&mut out, &offer(lines).unwrap());
            assert!(out.ends_with(format!("xOo=\r\n{want}").as_bytes()), "{lines}");
        }
    }

    #[test]
    fn upgrades() {
        for (lines, good) in [
            ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
            ("Connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n", true),
            ("Connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: h2c, websocket\r\n", true),
            ("Connection: keep-alive\r\nUpgrade: websocket\r\n", false),
            ("Upgrade: websocket\r\n", false),
            ("Connection: Upgrade\r\n", false),
            ("Connection: Upgrade\r\nUpgrade: websockets\r\n", false),
            ("Connection: Upgrade\r\nUpgrade: h2c\r\n", false),
        ] {
            let got = get(&format!("{lines}{VERSION}{KEY}"));
            assert_eq!(got.err(), (!good).then_some(HandshakeError::NoUpgrade), "{lines}");
        }
    }

    #[test]
    fn other_requests() {
        let all = format!("{UPGRADE}{VERSION}{KEY}");
        for (line, more, want) in [
            ("GET / HTTP/1.0", "", HandshakeError::NoUpgrade),
            ("POST / HTTP/1.1", "", HandshakeError::Method),
            ("HEAD / HTTP/1.1", "", HandshakeError::Method),
            ("GET / HTTP/1.1", "Content-Length: 1\r\n", HandshakeError::Body),
            ("GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n", HandshakeError::Body),
        ] {
            assert_eq!(handshake(line, &format!("{all}{more}")), Err(want), "{line} {more}");
        }
        assert!(offer("Content-Length: 0\r\n").is_ok());
    }

    #[test]
    fn versions() {
        for lines in [
            "",
            "Sec-WebSocket-Version: 8\r\n",
            "Sec-WebSocket-Version: 14\r\n",
            "Sec-WebSocket-Version: 013\r\n",
            "Sec-WebSocket-Version: 13, 8\r\n",
            "Sec-WebSocket-Version:\r\n",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n",
        ] {
            assert_eq!(get(&format!("{UPGRADE}{KEY}{lines}")), Err(HandshakeError::Version), "{lines}");
        }
    }

    #[test]
    fn keys() {
        for (key, good) in [
            ("AAAAAAAAAAAAAAAAAAAAAA==", true),
            ("+/azAZ09+/azAZ09+/azAQ==", true),
            ("", false),
            ("AAAAAAAAAAAAAAAAAAAAAA", false),
            ("AAAAAAAAAAAAAAAAAAAAAAA=", false),
            ("AAAAAAAAAAAAAAAAAAAAAAAA", false),
            ("AAAAAAAAAAAAAAAAAAAA==", false),
            ("AAAAAAAAAAAAAAAAAAAAAAAAAA==", false),
            ("AAAAAAAAAAA AAAAAAAAAA==", false),
            ("-_AAAAAAAAAAAAAAAAAAAA==", false),
            ("AAAAAAAAAAAAAAAAAAAA====", false),
        ] {
            let got = get(&format!("{UPGRADE}{VERSION}Sec-WebSocket-Key: {key}\r\n"));
            assert_eq!(got.err(), (!good).then_some(HandshakeError::Key), "{key}");
        }
        assert_eq!(get(&format!("{UPGRADE}{VERSION}")), Err(HandshakeError::Key));
        assert_eq!(get(&format!("{UPGRADE}{VERSION}{KEY}{KEY}")), Err(HandshakeError::Key));
    }

    #[test]
    fn subprotocols() {
        use Subprotocol::{None as Nothing, Raw, V1};
        for (offered, protocol, bearer) in [
            (&[][..], Nothing, None),
            (&["tidings.v1"], V1, None),
            (&["tidings.raw"], Raw, None),
            (&["tidings.raw, tidings.v1"], V1, None),
            (&["tidings.v1,tidings.raw"], V1, None),
            (&["tidings.raw", "other", "tidings.v1"], V1, None),
            (&["graphql-ws, mqtt"], Nothing, None),
            (&["Tidings.V1"], Nothing, None),
            (&["tidings.v1.5"], Nothing, None),
            (&[" ,, tidings.raw ,\t, "], Raw, None),
            (&["tidings.bearer.s3cret"], Nothing, Some("s3cret")),
            (&["tidings.raw, tidings.bearer.a-b._~"], Raw, Some("a-b._~")),
            (&["tidings.bearer.one", "tidings.v1, tidings.bearer.two"], V1, Some("one")),
            (&["tidings.bearer."], Nothing, Some("")),
            (&["tidings.bearer"], Nothing, None),
        ] {
            let lines: String = offered.iter().map(|line| format!("Sec-WebSocket-Protocol: {line}\r\n")).collect();
            let got = offer(&lines).unwrap();
            assert_eq!((got.protocol, got.bearer.as_deref()), (protocol, bearer), "{offered:?}");
        }
        for bad in ["tidings v1", "tidings.v1; q=1", "\"tidings.v1\"", "tidings.v1, a/b", "é"] {
            let got = offer(&format!("Sec-WebSocket-Protocol: {bad}\r\n"));
            assert_eq!(got, Err(HandshakeError::Protocol), "{bad}");
        }
    }

    #[test]
    fn extensions_are_answered_if_there_is_one_to_agree() {
        let answer = |value: &str| {
            let handshake = offer(&format!("Sec-WebSocket-Extensions: {value}\r\n"))?;
            let mut out = Vec::new();
            write_handshake_answer(&mut out, &handshake);
            Ok(String::from_utf8(out)
                .unwrap()
                .to_lowercase()
                .contains("\r\nsec-websocket-extensions: permessage-deflate"))
        };
        for (value, agreed) in [
            ("permessage-deflate; client_max_window_bits", cfg!(feature = "deflate")),
            ("constructor", false),
            (&"x".repeat(4096), false),
        ] {
            assert_eq!(answer(value), Ok(agreed), "{value}");
        }
        assert_eq!(answer(";"), Err(HandshakeError::Extensions));
    }

    #[test]
    fn codes() {
        for (error, status) in [
            (HandshakeError::NoUpgrade, 426),
            (HandshakeError::Version, 426),
            (HandshakeError::Method, 400),
            (HandshakeError::Body, 400),
            (HandshakeError::Key, 400),
            (HandshakeError::Protocol, 400),
            (HandshakeError::Extensions, 400),
        ] {
            assert_eq!(error.code().status(), status, "{error:?}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let handshake = offer("Sec-WebSocket-Protocol: tidings.bearer.s3cret\r\n").unwrap();
        assert!(!format!("{handshake:?}").contains("s3cret"));
    }
}
