//! The rules of HTTP that a peer can break, one variant each.
//!
//! Each answers for itself: the code and status the peer gets, the section that says so, and a
//! sentence that tells what was wrong and what would be right. None carries a byte of the peer's.
//! Invariant: after any of them the end of the message is unknown, so the connection must end.

use std::fmt;

use crate::error::Code;

/// A broken rule of HTTP.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant's sentence is in `rule`")]
pub enum Error {
    // What is no request at all.
    Tls,
    NotHttp,
    EmptyLines,
    // Lines.
    BareCr,
    BareLf,
    ControlByte,
    HeadTooLarge,
    TooManyHeaders,
    // The request line.
    RequestLine,
    VersionNotSupported,
    TargetForm,
    TargetByte,
    // Fields.
    FieldName,
    FieldValue,
    HostMissing,
    HostRepeated,
    HostInvalid,
    LengthInvalid,
    LengthRepeated,
    LengthAndCoding,
    CodingNotChunked,
    CodingInHttp10,
    Expectation,
    // A chunked body.
    ChunkSize,
    ChunkExtension,
    ChunkEnd,
    ChunkOverhead,
    Trailer,
    TrailerName,
}

impl Error {
    /// The stable code, which decides the status.
    pub fn code(self) -> Code {
        self.rule().0
    }

    /// Where the rule is written.
    pub fn section(self) -> &'static str {
        self.rule().1
    }

    fn rule(self) -> (Code, &'static str, &'static str) {
        use Code::{BadRequest, ExpectationFailed, HeadTooLarge, VersionNotSupported};
        match self {
            Error::Tls => {
                (BadRequest, "RFC 9112 3", "this is a TLS handshake; speak plain HTTP here, or to a TLS proxy in front")
            }
            Error::NotHttp => {
                (BadRequest, "RFC 9112 3", "the first byte begins no method; a request begins like `GET / HTTP/1.1`")
            }
            Error::EmptyLines => {
                (BadRequest, "RFC 9112 2.2", "more than one empty line before the request line; send none")
            }
            Error::BareCr => (BadRequest, "RFC 9112 2.2", "a CR without LF; lines end in CRLF"),
            Error::BareLf => (BadRequest, "RFC 9112 2.2", "a LF without CR; lines end in CRLF"),
            Error::ControlByte => (BadRequest, "RFC 9110 5.5", "a control byte in the head; only tab may be there"),
            Error::HeadTooLarge => {
                (HeadTooLarge, "RFC 6585 5", "the request head is over the limit; send fewer or shorter headers")
            }
            Error::TooManyHeaders => {
                (HeadTooLarge, "RFC 6585 5", "the request has more than 64 header lines; send fewer")
            }
            Error::RequestLine => {
                (BadRequest, "RFC 9112 3", "the request line is not `METHOD target HTTP/1.1` with single spaces")
            }
            Error::VersionNotSupported => (
                VersionNotSupported,
                "RFC 9110 15.6.6",
                "this HTTP version is not spoken here; use HTTP/1.1 or HTTP/1.0",
            ),
            Error::TargetForm => (
                BadRequest,
                "RFC 9112 3.2",
                "the request target is no path and no http URL (`*` is for OPTIONS); send one like `/channels/news`",
            ),
            Error::TargetByte => {
                (BadRequest, "RFC 9112 3.2", "the request target has a byte that must be percent-encoded")
            }
            Error::FieldName => (
                BadRequest,
                "RFC 9112 5.1",
                "a header line is not `name: value`: no space before the colon, no folding",
            ),
            Error::FieldValue => (BadRequest, "RFC 9110 5.5", "a header value has a control byte"),
            Error::HostMissing => (BadRequest, "RFC 9112 3.2", "an HTTP/1.1 request needs a Host header"),
            Error::HostRepeated => (BadRequest, "RFC 9112 3.2", "more than one Host header; send one"),
            Error::HostInvalid => (BadRequest, "RFC 9112 3.2", "the host is not `name`, `name:port` or `[IPv6]:port`"),
            Error::LengthInvalid => {
                (BadRequest, "RFC 9112 6.3", "Content-Length is not a decimal number of up to 20 digits and below 2^64")
            }
            Error::LengthRepeated => (BadRequest, "RFC 9112 6.3", "more than one Content-Length; send one"),
            Error::LengthAndCoding => {
                (BadRequest, "RFC 9112 6.1", "both Content-Length and Transfer-Encoding; send one of them")
            }
            Error::CodingNotChunked => (
                BadRequest,
                "RFC 9112 6.1",
                "Transfer-Encoding is not exactly `chunked`, which is all that is understood",
            ),
            Error::CodingInHttp10 => {
                (BadRequest, "RFC 9112 6.1", "HTTP/1.0 has no Transfer-Encoding; send Content-Length, or HTTP/1.1")
            }
            Error::Expectation => {
                (ExpectationFailed, "RFC 9110 10.1.1", "the only expectation that can be met is `100-continue`")
            }
            Error::ChunkSize => {
                (BadRequest, "RFC 9112 7.1", "a chunk size is not one to eight hex digits with CRLF or ; right behind")
            }
            Error::ChunkExtension => {
                (BadRequest, "RFC 9112 7.1.1", "a chunk extension is not `;name`, `;name=value` or `;name=\"value\"`")
            }
            Error::ChunkEnd => (BadRequest, "RFC 9112 7.1", "a chunk is not followed by CRLF; its size is wrong"),
            Error::ChunkOverhead => {
                (BadRequest, "RFC 9112 7.1.1", "chunk extensions and trailers are over 8192 bytes; send fewer")
            }
            Error::Trailer => (BadRequest, "RFC 9112 7.1.2", "a trailer line is not `name: value` and CRLF"),
            Error::TrailerName => (
                BadRequest,
                "RFC 9110 6.5.1",
                "a trailer names a field of framing or routing; send Host, Content-Length and Transfer-Encoding as headers",
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule().2)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::super::chunked::CHUNK_OVERHEAD_MAX;
    use super::super::head::HEADERS_MAX;
    use super::*;

    #[test]
    fn sentences_name_the_limits_that_hold() {
        assert!(Error::TooManyHeaders.to_string().contains(&format!(" {HEADERS_MAX} ")));
        assert!(Error::ChunkOverhead.to_string().contains(&format!(" {CHUNK_OVERHEAD_MAX} ")));
    }

    #[test]
    fn each_error_answers_for_itself() {
        for (error, status, section) in [
            (Error::Tls, 400, "RFC 9112 3"),
            (Error::HeadTooLarge, 431, "RFC 6585 5"),
            (Error::VersionNotSupported, 505, "RFC 9110 15.6.6"),
            (Error::LengthAndCoding, 400, "RFC 9112 6.1"),
            (Error::Expectation, 417, "RFC 9110 10.1.1"),
            (Error::ChunkSize, 400, "RFC 9112 7.1"),
        ] {
            assert_eq!((error.code().status(), error.section()), (status, section), "{error:?}");
        }
    }
}
