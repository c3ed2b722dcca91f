//! Frames: the head of a client's frame in, the server's frames out.
//!
//! RFC 6455 5.2. Knows nothing of messages: whether a frame may stand where it stands is decided
//! in `message`. Invariant: a head that decodes follows every rule a head alone can break, and a
//! head that cannot become one is refused at its first wrong byte.
//!
//! ```text
//!     0               1              2 ...                10 ...
//!    +-+-+-+-+-------+-+-------------+---------------------+-----------------+---------
//!    |F|R|R|R|opcode |M| length:     | 16 or 64 bits more, | masking key, 4  | payload
//!    |I|S|S|S|       |A| 0..=125, or | big-endian, only if | bytes: always   |
//!    |N|V|V|V|       |S| 126, 127    | length is 126, 127  | in, never out   |
//!    +-+-+-+-+-------+-+-------------+---------------------+-----------------+---------
//! ```

use super::Error;

/// What a frame is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// A question that a pong with the same payload answers.
    Ping = 9,
    /// The answer to a ping, or a sign of life.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
/// RFC 7692 6: the "Per-Message Compressed" bit.
const RSV1: u8 = 0x40;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// The longest payload of a control frame, and the longest length that needs no further bytes.
const SHORT_MAX: usize = 125;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// The longest head of a frame of the server.
pub(super) const FRAME_HEAD_MAX: usize = 10;

/// What stands before the payload of a client's frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// It begins a compressed message.
    pub(super) compressed: bool,
    pub(super) mask: [u8; 4],
    /// At most 125 in a control frame, at most 2^63-1 in any.
    pub(super) length: u64,
}

impl FrameHead {
    /// Decodes the head that `bytes` begin with, and tells its length. `None`: need more.
    /// `deflate`: permessage-deflate was agreed.
    pub(super) fn decode(bytes: &[u8], deflate: bool) -> Result<Option<(FrameHead, usize)>, Error> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        // RFC 6455 5.2: "MUST be 0 unless an extension is negotiated that defines meanings".
        // RFC 7692 6: "An endpoint MUST NOT set the "Per-Message Compressed" bit of control frames
        // and non-first fragments of a data message. An endpoint receiving such a frame MUST
        // _Fail the WebSocket Connection_."
        let may_be_compressed = deflate && matches!(first & OPCODE, 1 | 2);
        let compressed = may_be_compressed && first & RSV == RSV1;
        if first & RSV != 0 && !compressed {
            return Err(Error::ReservedBits);
        }
        let fin = first & FIN != 0;
        let opcode = Opcode::from_bits(first & OPCODE).ok_or(Error::ReservedOpcode)?;
        // 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented."
        if opcode.is_control() && !fin {
            return Err(Error::ControlFragmented);
        }

        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        // 5.1: "The server MUST close the connection upon receiving a frame that is not masked."
        if second & MASKED == 0 {
            return Err(Error::NotMasked);
        }
        let short = second & LENGTH;
        if opcode.is_control() && usize::from(short) > SHORT_MAX {
            return Err(Error::ControlTooLong);
        }

        let (length, rest) = match short {
            LENGTH_16 => {
                let Some((extended, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*extended)), rest)
            }
            LENGTH_64 => {
                let Some((extended, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*extended), rest)
            }
            short => (u64::from(short), rest),
        };
        // 5.2: "the minimal number of bytes MUST be used to encode the length", and of the 64-bit
        // form "the most significant bit MUST be 0"
        match short {
            LENGTH_16 if length <= SHORT_MAX as u64 => return Err(Error::LengthNotMinimal),
            LENGTH_64 if length <= u64::from(u16::MAX) => return Err(Error::LengthNotMinimal),
            LENGTH_64 if length > i64::MAX as u64 => return Err(Error::LengthNegative),
            _ => {}
        }

        let Some((&mask, payload)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some((FrameHead { fin, opcode, compressed, mask, length }, bytes.len() - payload.len())))
    }
}

/// Appends a whole frame of the server.
pub fn encode_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(frame_len(payload.len()));
    frame_head(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a whole frame of the server with this compressed payload. RFC 7692 6: on "the first
/// frame" of a message, which here is all of it, the "Per-Message Compressed" bit is set.
pub fn encode_compressed_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let start = out.len();
    encode_frame(out, opcode, payload);
    out[start] |= RSV1;
}

/// Appends the head of a frame whose `len` bytes of payload the caller appends: with FIN, and
/// unmasked, for "A server MUST NOT mask any frames that it sends to the client" (RFC 6455 5.1).
pub fn frame_head(out: &mut Vec<u8>, opcode: Opcode, len: usize) {
    debug_assert!(!opcode.is_control() || len <= SHORT_MAX, "a control frame has at most 125 bytes");
    out.push(FIN | opcode as u8);
    if len <= SHORT_MAX {
        out.push(len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(LENGTH_16);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(LENGTH_64);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
}

/// The bytes of a whole frame of the server with `len` bytes of payload.
pub fn frame_len(len: usize) -> usize {
    let head = match len {
        0..=SHORT_MAX => 2,
        126..=0xffff => 4,
        _ => FRAME_HEAD_MAX,
    };
    head + len
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn head(fin: bool, opcode: Opcode, length: u64) -> FrameHead {
        FrameHead { fin, opcode, compressed: false, mask: MASK, length }
    }

    #[test]
    fn heads_decode_once_complete_and_not_before() {
        for (bytes, want) in [
            (&b"\x81\x80\x01\x02\x03\x04"[..], head(true, Opcode::Text, 0)),
            (b"\x01\x85\x01\x02\x03\x04", head(false, Opcode::Text, 5)),
            (b"\x00\xfd\x01\x02\x03\x04", head(false, Opcode::Continuation, 125)),
            (b"\x88\xfd\x01\x02\x03\x04", head(true, Opcode::Close, 125)),
            (b"\x89\x80\x01\x02\x03\x04", head(true, Opcode::Ping, 0)),
            (b"\x8a\x81\x01\x02\x03\x04", head(true, Opcode::Pong, 1)),
            (b"\x82\xfe\x00\x7e\x01\x02\x03\x04", head(true, Opcode::Binary, 126)),
            (b"\x82\xfe\xff\xff\x01\x02\x03\x04", head(true, Opcode::Binary, 65_535)),
            (b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04", head(true, Opcode::Binary, 65_536)),
            (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04", head(true, Opcode::Binary, (1 << 63) - 1)),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(FrameHead::decode(&bytes[..end], false), Ok(None), "{bytes:02x?} cut at {end}");
            }
            assert_eq!(FrameHead::decode(bytes, false), Ok(Some((want, bytes.len()))), "{bytes:02x?}");
            let more = [bytes, b"payload"].concat();
            assert_eq!(FrameHead::decode(&more, false), Ok(Some((want, bytes.len()))), "{bytes:02x?} and more");
        }
    }

    #[test]
    fn wrong_heads_are_refused_at_the_first_byte_that_shows_it() {
        for (bytes, want) in [
            // RSV1, RSV2, RSV3, all, and before anything else that is wrong.
            (&b"\xc1"[..], Error::ReservedBits),
            (b"\xa1", Error::ReservedBits),
            (b"\x91", Error::ReservedBits),
            (b"\xf2", Error::ReservedBits),
            (b"\x7f", Error::ReservedBits),
            // Fragments of control frames.
            (b"\x08", Error::ControlFragmented),
            (b"\x09", Error::ControlFragmented),
            (b"\x0a", Error::ControlFragmented),
            // Not masked.
            (b"\x81\x00", Error::NotMasked),
            (b"\x89\x7e", Error::NotMasked),
            // Control frames above 125 bytes.
            (b"\x88\xfe", Error::ControlTooLong),
            (b"\x89\xfe", Error::ControlTooLong),
            (b"\x8a\xff", Error::ControlTooLong),
            // Lengths that need fewer bytes.
            (b"\x82\xfe\x00\x00", Error::LengthNotMinimal),
            (b"\x82\xfe\x00\x7d", Error::LengthNotMinimal),
            (b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x00", Error::LengthNotMinimal),
            (b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x7e", Error::LengthNotMinimal),
            (b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", Error::LengthNotMinimal),
            // The sign bit.
            (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", Error::LengthNegative),
            (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", Error::LengthNegative),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(FrameHead::decode(&bytes[..end], false), Ok(None), "{bytes:02x?} cut at {end}");
            }
            assert_eq!(FrameHead::decode(bytes, false), Err(want), "{bytes:02x?}");
        }
    }

    #[test]
    fn every_first_byte_is_a_frame_or_an_error() {
        for first in 0..=u8::MAX {
            let valid = matches!(first, 0x00..=0x02 | 0x80..=0x82 | 0x88..=0x8a);
            assert_eq!(FrameHead::decode(&[first], false).is_ok(), valid, "{first:02x}");
            if first & RSV == 0 && !matches!(first & OPCODE, 0..=2 | 8..=10) {
                assert_eq!(FrameHead::decode(&[first], false), Err(Error::ReservedOpcode), "{first:02x}");
            }
        }
    }

    #[test]
    fn frames_of_the_server() {
        for (opcode, len, want) in [
            (Opcode::Text, 0, &b"\x81\x00"[..]),
            (Opcode::Binary, 125, b"\x82\x7d"),
            (Opcode::Binary, 126, b"\x82\x7e\x00\x7e"),
            (Opcode::Text, 65_535, b"\x81\x7e\xff\xff"),
            (Opcode::Text, 65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
            (Opcode::Close, 0, b"\x88\x00"),
            (Opcode::Ping, 4, b"\x89\x04"),
            (Opcode::Pong, 125, b"\x8a\x7d"),
        ] {
            let payload = vec![b'x'; len];
            let mut out = b"before".to_vec();
            encode_frame(&mut out, opcode, &payload);
            assert_eq!(out, [b"before", want, &payload].concat(), "{opcode:?} {len}");
            assert_eq!(out.len() - 6, frame_len(len), "{opcode:?} {len}");
        }
    }

    #[test]
    fn a_compressed_frame_says_so_in_its_first_byte() {
        for (opcode, len, want) in [
            (Opcode::Text, 0, &b"\xc1\x00"[..]),
            (Opcode::Binary, 125, b"\xc2\x7d"),
            (Opcode::Text, 126, b"\xc1\x7e\x00\x7e"),
        ] {
            let payload = vec![b'x'; len];
            let mut out = b"before".to_vec();
            encode_compressed_frame(&mut out, opcode, &payload);
            assert_eq!(out, [b"before", want, &payload].concat(), "{opcode:?} {len}");
        }
    }
}
