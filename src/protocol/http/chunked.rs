//! The body of a request that comes in chunks.
//!
//! Data bytes move down over the framing, in the buffer they arrived in; extensions and trailers
//! are checked and thrown away. Knows nothing of body limits: the caller counts what is written.
//! Invariant: every call reads all bytes it is given, or ends the body, or fails; nothing is ever
//! allocated, least of all by an announced size.
//!
//! ```text
//! chunked-body   = *chunk last-chunk trailer-section CRLF           RFC 9112 7.1
//! chunk          = 1*HEXDIG [ chunk-ext ] CRLF chunk-data CRLF
//! chunk-ext      = *( ";" token [ "=" ( token / quoted-string ) ] ) without RFC 9112's BWS
//! ```

use super::{Error, is_token_byte, is_value_byte};

/// Bytes of extensions and trailers in one body. RFC 9112 7.1.1: "A server ought to limit the
/// total length of chunk extensions received in a request". Nobody sends them but by mistake.
pub const CHUNK_OVERHEAD_MAX: u16 = 8 * 1024;

/// Eight hex digits, 4 GiB, are above any body limit and cannot overflow.
const SIZE_DIGITS_MAX: u8 = 8;

/// Decodes one chunked body. Start each body with a new one.
#[derive(Debug, Default)]
pub struct ChunkedDecoder {
    state: State,
    /// Digits of this chunk's size so far.
    digits: u8,
    /// Bytes of extensions and trailers so far, in the whole body.
    overhead: u16,
    /// The size as far as its digits were read; then the data bytes still to come.
    left: u32,
    /// Of the trailer being read.
    name: FieldName,
}

const _: () = assert!(size_of::<ChunkedDecoder>() <= 12);

/// What the next byte belongs to.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    ExtensionNameStart,
    ExtensionName,
    ExtensionValueStart,
    ExtensionValue,
    Quoted,
    QuotedPair,
    QuotedEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Ended,
}

impl ChunkedDecoder {
    /// Decodes `bytes[*read..]` and moves its data down to `bytes[*written..]`, `written` being at
    /// most `read`:
    ///
    /// ```text
    ///  before  | written |        | read: 3 CRLF abc CRLF 0 CRLF CRLF |
    ///  after   | written  abc |                                  read |
    /// ```
    ///
    /// `true`: the body has ended, and what is at `read` and after belongs to the next request.
    /// `false`: everything was read, and the body goes on.
    pub fn decode(&mut self, bytes: &mut [u8], read: &mut usize, written: &mut usize) -> Result<bool, Error> {
        while *read < bytes.len() && self.state != State::Ended {
            if self.state == State::Data {
                let length = (bytes.len() - *read).min(self.left as usize);
                bytes.copy_within(*read..*read + length, *written);
                *read += length;
                *written += length;
                self.left -= length as u32;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(bytes[*read])?;
                *read += 1;
            }
        }
        Ok(self.state == State::Ended)
    }

    /// One byte that is not data.
    fn step(&mut self, byte: u8) -> Result<State, Error> {
        use State::*;
        Ok(match (self.state, byte) {
            // No sign, no `0x`, no white space on either side.
            (Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < SIZE_DIGITS_MAX => {
                self.digits += 1;
                self.left = self.left << 4 | u32::from(hex_value(byte));
                Size
            }
            (Size, b'\r') if self.digits > 0 => SizeLf,
            (Size, b';') if self.digits > 0 => self.overhead(ExtensionNameStart)?,
            (Size, _) => return Err(Error::ChunkSize),

            // RFC 9112 7.1.1: "A recipient MUST ignore unrecognized chunk extensions." Ignored, but
            // read by the grammar: where one reader ends the line at a byte that another takes for
            // part of an extension, a request can be smuggled (CVE-2025-55315).
            (ExtensionNameStart | ExtensionName, _) if is_token_byte(byte) => self.overhead(ExtensionName)?,
            (ExtensionName, b'=') => self.overhead(ExtensionValueStart)?,
            (ExtensionValueStart | ExtensionValue, _) if is_token_byte(byte) => self.overhead(ExtensionValue)?,
            (ExtensionValueStart, b'"') => self.overhead(Quoted)?,
            (Quoted, b'"') => self.overhead(QuotedEnd)?,
            (Quoted, b'\\') => self.overhead(QuotedPair)?,
            (Quoted | QuotedPair, b' '..=b'~') => self.overhead(Quoted)?,
            (ExtensionName | ExtensionValue | QuotedEnd, b';') => self.overhead(ExtensionNameStart)?,
            (ExtensionName | ExtensionValue | QuotedEnd, b'\r') => SizeLf,
            (
                ExtensionNameStart | ExtensionName | ExtensionValueStart | ExtensionValue | Quoted | QuotedPair
                | QuotedEnd,
                _,
            ) => return Err(Error::ChunkExtension),

            (SizeLf, b'\n') if self.left == 0 => TrailerStart,
            (SizeLf, b'\n') => Data,
            (SizeLf, _) => return Err(Error::ChunkSize),

            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => {
                self.digits = 0;
                Size
            }
            (DataCr | DataLf, _) => return Err(Error::ChunkEnd),

            // Trailers are fields, and like fields they are checked; none means anything here.
            (TrailerStart, b'\r') => EndLf,
            (TrailerStart, _) if is_token_byte(byte) => {
                self.name = FieldName::default();
                self.name.push(byte);
                self.overhead(TrailerName)?
            }
            (TrailerName, _) if is_token_byte(byte) => {
                self.name.push(byte);
                self.overhead(TrailerName)?
            }
            // RFC 9110 6.5.1: "Many fields cannot be processed outside the header section because
            // their evaluation is necessary prior to receiving the content, such as those that
            // describe message framing, routing, [...]". Who merges trailers into the headers and
            // hands them on would be told of another body, or another host.
            (TrailerName, b':') if self.name.is_forbidden() => return Err(Error::TrailerName),
            (TrailerName, b':') => self.overhead(TrailerValue)?,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if is_value_byte(byte) => self.overhead(TrailerValue)?,
            (TrailerLf, b'\n') => TrailerStart,
            (EndLf, b'\n') => Ended,
            (TrailerStart | TrailerName | TrailerValue | TrailerLf | EndLf, _) => return Err(Error::Trailer),

            // `decode` never steps in these two.
            (Data | Ended, _) => return Err(Error::ChunkSize),
        })
    }

    /// Counts a byte that carries no data.
    fn overhead(&mut self, next: State) -> Result<State, Error> {
        if self.overhead == CHUNK_OVERHEAD_MAX {
            return Err(Error::ChunkOverhead);
        }
        self.overhead += 1;
        Ok(next)
    }
}

/// What no trailer may be called.
const FORBIDDEN_TRAILERS: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];

/// The name of a trailer, as far as it has come: its length, and which of the forbidden it differs
/// from, a bit for each.
#[derive(Copy, Clone, Debug, Default)]
struct FieldName {
    length: u8,
    differs: u8,
}

impl FieldName {
    fn push(&mut self, byte: u8) {
        for (nth, name) in FORBIDDEN_TRAILERS.iter().enumerate() {
            let same = name.get(usize::from(self.length)) == Some(&byte.to_ascii_lowercase());
            self.differs |= u8::from(!same) << nth;
        }
        self.length = self.length.saturating_add(1);
    }

    fn is_forbidden(self) -> bool {
        let mut names = FORBIDDEN_TRAILERS.iter().enumerate();
        names.any(|(nth, name)| self.differs & 1 << nth == 0 && name.len() == usize::from(self.length))
    }
}

/// The value of a byte that is known to be a hex digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and what was left behind it, or the error, or `None` for "need more".
    type Outcome = Result<Option<(Vec<u8>, usize)>, Error>;

    /// Feeds the pieces one after another, as a connection does: append, decode, keep the written.
    fn decode(pieces: &[&[u8]]) -> Outcome {
        let mut decoder = ChunkedDecoder::default();
        let mut buffer = Vec::new();
        let mut fed = 0;
        for piece in pieces {
            let (mut read, mut written) = (buffer.len(), buffer.len());
            buffer.extend_from_slice(piece);
            fed += piece.len();
            let ended = decoder.decode(&mut buffer, &mut read, &mut written)?;
            let unread = buffer.len() - read;
            buffer.truncate(written);
            if ended {
                return Ok(Some((buffer, fed - unread)));
            }
            assert_eq!(unread, 0, "without an end everything is read");
        }
        Ok(None)
    }

    /// Whole, byte by byte, and at every split.
    fn check(bytes: &[u8], want: Outcome) {
        assert_eq!(decode(&[bytes]), want, "whole: {:?}", bytes.escape_ascii().to_string());
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(&single), want, "byte by byte: {:?}", bytes.escape_ascii().to_string());
        for split in (0..=bytes.len()).step_by(crate::stride(7)) {
            let (front, back) = bytes.split_at(split);
            assert_eq!(decode(&[front, back]), want, "split at {split}: {:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn bodies() {
        for (bytes, body) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"00000000\r\n\r\n", b""),
            (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
            (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
            (b"0000000a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
            (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
            (b"5\r\n\r\n0\r\n\r\n0\r\n\r\n", b"\r\n0\r\n"),
            (b"1;a\r\nx\r\n0\r\n\r\n", b"x"),
            (b"1;a=b;c=\"d;\\\" \\\\\"\r\nx\r\n0;last\r\n\r\n", b"x"),
            (b"1\r\nx\r\n0\r\nDigest: \tx y\xff\r\nEmpty:\r\n\r\n", b"x"),
        ] {
            check(bytes, Ok(Some((body.to_vec(), bytes.len()))));
            // What follows belongs to the next request.
            let followed = [bytes, b"GET / HTTP/1.1\r\n"].concat();
            check(&followed, Ok(Some((body.to_vec(), bytes.len()))));
            for end in 0..bytes.len() {
                assert_eq!(decode(&[&bytes[..end]]), Ok(None), "{end} bytes are not all of it");
            }
        }
    }

    #[test]
    fn trailers_that_only_resemble_a_forbidden_one() {
        for forbidden in FORBIDDEN_TRAILERS {
            let trailer = |name: &[u8]| decode(&[&[b"0\r\n", name, b": x\r\n\r\n"].concat()[..]]).map(drop);
            assert_eq!(trailer(forbidden), Err(Error::TrailerName));
            assert_eq!(trailer(&[forbidden, b"s"].concat()), Ok(()));
            for at in 0..forbidden.len() {
                assert_eq!(trailer(&forbidden[..at + 1]).is_ok(), at + 1 < forbidden.len());
                for other in (at..forbidden.len()).step_by(crate::stride(5)) {
                    // Another byte in one place or in two.
                    let mut name = forbidden.to_vec();
                    (name[at], name[other]) = (b'_', b'_');
                    assert_eq!(trailer(&name), Ok(()), "{}", name.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn broken_rules() {
        for (bytes, error) in [
            // Sizes.
            (&b"\r\n"[..], Error::ChunkSize),
            (b";a\r\n", Error::ChunkSize),
            (b"g\r\n", Error::ChunkSize),
            (b"-1\r\n", Error::ChunkSize),
            (b"+1\r\n", Error::ChunkSize),
            (b"0x5\r\n", Error::ChunkSize),
            (b" 5\r\n", Error::ChunkSize),
            (b"5 \r\n", Error::ChunkSize),
            (b"5\t;a\r\n", Error::ChunkSize),
            (b"5_\r\n", Error::ChunkSize),
            (b"5\n", Error::ChunkSize),
            (b"5\r\r\n", Error::ChunkSize),
            (b"5\rx", Error::ChunkSize),
            (b"000000001", Error::ChunkSize),
            (b"100000000", Error::ChunkSize),
            (b"FFFFFFFFFFFFFFFF", Error::ChunkSize),
            // Data longer or shorter than announced.
            (b"1\r\nxy\r\n", Error::ChunkEnd),
            (b"3\r\nab\r\n0\r\n", Error::ChunkEnd),
            (b"1\r\nx\n", Error::ChunkEnd),
            (b"1\r\nx\rx", Error::ChunkEnd),
            (b"1\r\nx0\r\n", Error::ChunkEnd),
            // Extensions.
            (b"1;\r\n", Error::ChunkExtension),
            (b"1;;a\r\n", Error::ChunkExtension),
            (b"1;=b\r\n", Error::ChunkExtension),
            (b"1;a=\r\n", Error::ChunkExtension),
            (b"1; a\r\n", Error::ChunkExtension),
            (b"1;a b\r\n", Error::ChunkExtension),
            (b"1;a\n", Error::ChunkExtension),
            (b"1;a\0\r\n", Error::ChunkExtension),
            (b"1;a=b\xff\r\n", Error::ChunkExtension),
            (b"1;a=\"b\r\n", Error::ChunkExtension),
            (b"1;a=\"\\\r\n", Error::ChunkExtension),
            (b"1;a=\"b\nc\"\r\n", Error::ChunkExtension),
            (b"1;a=\"b\"c\r\n", Error::ChunkExtension),
            (b"1;a\r1", Error::ChunkSize),
            // Trailers and the end.
            (b"0\r\n\n", Error::Trailer),
            (b"0\r\n\r\r", Error::Trailer),
            (b"0\r\nX : y\r\n", Error::Trailer),
            (b"0\r\n: y\r\n", Error::Trailer),
            (b"0\r\nX\r\n", Error::Trailer),
            (b"0\r\nX: y\n", Error::Trailer),
            (b"0\r\nX: y\r\n folded\r\n", Error::Trailer),
            (b"0\r\nX: \0\r\n", Error::Trailer),
            (b"0\r\nX: \x7f\r\n", Error::Trailer),
            (b"0\r\nX: y\rz", Error::Trailer),
            (b"0\r\nContent-Length: 3\r\n\r\n", Error::TrailerName),
            (b"0\r\nX: y\r\ntransfer-ENCODING:\r\n\r\n", Error::TrailerName),
            (b"0\r\nHost: a\r\n\r\n", Error::TrailerName),
            (b"0\r\nHost : a\r\n\r\n", Error::Trailer),
        ] {
            check(bytes, Err(error));
        }
    }

    #[test]
    fn overhead_is_bounded_over_the_whole_body() {
        let most = usize::from(CHUNK_OVERHEAD_MAX);
        let extension = |length: usize| [b"1;", &vec![b'a'; length - 1][..], b"\r\nx\r\n0\r\n\r\n"].concat();
        assert_eq!(decode(&[&extension(most)]), Ok(Some((b"x".to_vec(), most + 11))));
        assert_eq!(decode(&[&extension(most + 1)]), Err(Error::ChunkOverhead));
        let many = b"1;a\r\nx\r\n".repeat(most / 2 + 1);
        assert_eq!(decode(&[&many]), Err(Error::ChunkOverhead));
        let trailers = [b"0\r\n", &b"a:b\r\n".repeat(most / 3 + 1)[..]].concat();
        assert_eq!(decode(&[&trailers]), Err(Error::ChunkOverhead));
        // Chunks themselves are no overhead: a body of single bytes is slow but legal.
        let count = 10_000 / crate::stride(20);
        let plain = [&b"1\r\nx\r\n".repeat(count)[..], b"0\r\n\r\n"].concat();
        assert_eq!(decode(&[&plain]), Ok(Some((vec![b'x'; count], plain.len()))));
    }

    #[test]
    fn the_largest_announcement_costs_nothing() {
        let mut decoder = ChunkedDecoder::default();
        let mut bytes = *b"ffffffff\r\nab";
        let (mut read, mut written) = (0, 0);
        assert_eq!(decoder.decode(&mut bytes, &mut read, &mut written), Ok(false));
        assert_eq!((read, written, &bytes[..2]), (12, 2, &b"ab"[..]));
        assert_eq!(decoder.left, u32::MAX - 2);
    }
}
