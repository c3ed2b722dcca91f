//! Turns the bytes of one connection into requests and frames.
//!
//! Knows nothing of channels, answers or sockets. Invariant: a byte is consumed once, and what is
//! not consumed is either in the caller's buffer or kept here; an idle connection keeps nothing.
//!
//! ```text
//! HTTP, body of known length    [ head | body ................ | next request ]
//!                                        ^ head_bytes            ^ total
//! HTTP, chunked                 [ head | decoded | gap | not yet decoded ]
//!                                                 ^ written  ^ read
//! ```

use crate::protocol::http::{self, BodyLength, ChunkedDecoder, Headers, RequestHead};
use crate::protocol::websocket;

/// What the bytes of a connection meant.
#[derive(Debug)]
pub enum Inbound<'a> {
    /// A head whose body has not come, or is too large to come: the moment to refuse, or to say
    /// `100 Continue`. The request follows when it is whole.
    Head(RequestHead<'a>),
    /// A whole request.
    Request(RequestHead<'a>, &'a [u8]),
}

/// Why reading requests cannot go on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bytes break HTTP's rules.
    Http(http::Error),
    /// A chunked body grew over the limit.
    BodyTooLarge,
}

/// Bounds of what one request may hold.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Bytes of a head.
    pub head_bytes_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: usize,
}

/// The unfinished part of a connection's input.
#[derive(Debug, Default)]
pub struct Reader {
    /// Bytes received and not consumed.
    pub input: Vec<u8>,
    /// How far the head's end was looked for.
    scanned: usize,
    body: Option<Body>,
    /// The tick by which what has begun must be whole, if it is for the peer to go on.
    pub due: Option<u32>,
    /// Of a WebSocket: the message that is being gathered.
    pub frames: websocket::Decoder,
}

/// A request whose head is known and whose body is not whole.
#[derive(Debug)]
struct Body {
    head_bytes: usize,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Length { total: usize },
    Chunked { decoder: ChunkedDecoder, read: usize, written: usize },
}

impl Reader {
    /// True if nothing is unfinished: the reader may be dropped.
    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.frames.idle()
    }

    /// The memory held for this connection.
    pub fn held_bytes(&self) -> usize {
        size_of::<Reader>() + self.input.capacity() + self.frames.room()
    }

    /// Forgets how far the unconsumed bytes were understood; they will be read from their start.
    pub fn unread(&mut self) {
        self.scanned = 0;
        self.body = None;
    }

    /// A request is whole; what follows has a time of its own.
    fn finished(&mut self) {
        self.unread();
        self.due = None;
    }

    /// Gives back the room of a chunked body's framing that was taken off, so that what is held
    /// is what was sent as body.
    pub fn compact(&mut self) {
        if let Some(Body { progress: Progress::Chunked { read, written, .. }, .. }) = &mut self.body {
            self.input.drain(*written..*read);
            *read = *written;
        }
    }

    /// Takes the next request out of `bytes`: the event and how many bytes it consumed. `None`
    /// needs more bytes, appended to these.
    pub fn next_request<'a>(
        &mut self,
        bytes: &'a mut [u8],
        scratch: &'a mut Headers<'a>,
        limits: &Limits,
    ) -> Result<Option<(Inbound<'a>, usize)>, Error> {
        if self.body.is_none() {
            let Some(head_bytes) = http::head_end(bytes, &mut self.scanned, limits.head_bytes_max)? else {
                return Ok(None);
            };
            let head = http::decode_head(&bytes[..head_bytes], scratch)?;
            let progress = match head.body {
                BodyLength::Chunked => {
                    Progress::Chunked { decoder: ChunkedDecoder::default(), read: head_bytes, written: head_bytes }
                }
                BodyLength::None => Progress::Length { total: head_bytes },
                BodyLength::Length(n) if n <= limits.body_bytes_max as u64 => {
                    Progress::Length { total: head_bytes + n as usize }
                }
                // Too large to be received: the caller refuses the head.
                BodyLength::Length(_) => Progress::Length { total: usize::MAX },
            };
            if let Progress::Length { total } = progress
                && total <= bytes.len()
            {
                self.finished();
                return Ok(Some((Inbound::Request(head, &bytes[head_bytes..total]), total)));
            }
            self.body = Some(Body { head_bytes, progress });
            return Ok(Some((Inbound::Head(head), 0)));
        }
        let Some(Body { head_bytes, progress }) = &mut self.body else { return Ok(None) };
        let head_bytes = *head_bytes;
        let (end, consumed) = match progress {
            Progress::Length { total } if *total <= bytes.len() => (*total, *total),
            Progress::Length { .. } => return Ok(None),
            Progress::Chunked { decoder, read, written } => {
                let decoded = decoder.decode(bytes, read, written);
                // Before any fault behind it: the same is told however the bytes are cut.
                if *written - head_bytes > limits.body_bytes_max {
                    return Err(Error::BodyTooLarge);
                }
                if !decoded? {
                    return Ok(None);
                }
                (*written, *read)
            }
        };
        self.finished();
        let head = http::decode_head(&bytes[..head_bytes], scratch)?;
        Ok(Some((Inbound::Request(head, &bytes[head_bytes..end]), consumed)))
    }
}

impl From<http::Error> for Error {
    fn from(error: http::Error) -> Error {
        Error::Http(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slow sender must not make the server look at all it has sent with each byte.
    #[test]
    fn a_head_that_comes_byte_by_byte_is_looked_at_once() {
        let head = [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", "x".repeat(9000).as_bytes(), b"\r\n"].concat();
        let limits = Limits { head_bytes_max: 16 * 1024, body_bytes_max: 0 };
        let mut reader = Reader::default();
        for end in 1..=head.len() {
            let mut bytes = head[..end].to_vec();
            let mut scratch = http::NO_HEADERS;
            assert!(reader.next_request(&mut bytes, &mut scratch, &limits).unwrap().is_none());
            assert!(reader.scanned + 2 >= end, "the next look begins at byte {} of {end}", reader.scanned);
        }
    }
}
