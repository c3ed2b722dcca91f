//! HTTP/1.0 and HTTP/1.1, strictly: request heads and chunked bodies in, response heads out.
//!
//! Bytes to values and back. Knows nothing of sockets, time, routes or channels; "need more" is a
//! value, and a broken rule is an [`Error`] that knows its status and its RFC section.
//!
//! Invariant: where two readers could disagree on where a message ends, there is no message, only
//! an error, and the connection ends with it. So nothing that is accepted here could have been
//! read in another way by a proxy in front.
//!
//! Open beside it: RFC 9112 (syntax and framing), RFC 9110 (fields), RFC 3986 (targets).

mod chunked;
mod error;
mod head;
mod response;
mod uri;

pub use chunked::ChunkedDecoder;
pub use error::Error;
pub use head::{BodyLength, Headers, Method, NO_HEADERS, RequestHead, Version, decode_head, head_end};
pub use response::{
    CONTINUE, Date, content_length, finish_head, fixed_lines, header, header_cursor, header_number, start_response,
};
pub use uri::{Authority, decode_authority, percent_decode, percent_encode_header};

/// RFC 9110 5.6.2: the bytes of a token, which methods and field names are.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 5.5: the bytes of a field value: visible ASCII, space, tab, and obs-text.
pub fn is_value_byte(byte: u8) -> bool {
    (byte == b'\t') | !byte.is_ascii_control()
}
