//! The payload of a close frame: nothing, or a code and a reason.
//!
//! RFC 6455 5.5.1, 7.4. Invariant: a [`CloseCode`] may stand in a close frame; the codes that only
//! an API may report (1005, 1006, 1015) and the unassigned ones are not values of the type.

use super::{Error, Opcode, frame_head};

/// Why a connection ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The peer broke the protocol.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// A message that is not what its type says, as text that is not UTF-8.
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// A message that is not allowed.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message that is too big.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// The server restarts; come back after a moment.
    pub const RESTART: CloseCode = CloseCode(1012);
    /// The server is overloaded; come back later.
    pub const TRY_LATER: CloseCode = CloseCode(1013);
    /// Ours: messages were lost on a connection that has no way to be told of it.
    pub const CANNOT_RESUME: CloseCode = CloseCode(4008);

    /// The code with this number; `None` if it must not be in a close frame.
    pub fn new(number: u16) -> Option<CloseCode> {
        match number {
            // RFC 6455 7.4.1; 1004 is reserved, 1005 and 1006 "MUST NOT be set as a status code in a
            // Close control frame". 1012 to 1014 were registered later; 1015 must not be sent either.
            1000..=1003 | 1007..=1014 => Some(CloseCode(number)),
            // 7.4.2: for libraries and frameworks, and for private use.
            3000..=4999 => Some(CloseCode(number)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// The longest reason: a control frame has at most 125 bytes, and two are the code.
pub(super) const REASON_BYTES_MAX: usize = 123;

/// Appends a close frame. A reason above 123 bytes is cut at a character.
///
/// A close without a code is answered with `encode_frame(out, Opcode::Close, b"")`.
pub fn encode_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    let mut len = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    frame_head(out, Opcode::Close, 2 + len);
    out.extend_from_slice(&code.number().to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..len]);
}

/// Decodes the payload of a close frame.
pub(super) fn decode_close(payload: &[u8]) -> Result<(Option<CloseCode>, &str), Error> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(Error::CloseCodeCut) };
    };
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(Error::CloseCodeInvalid)?;
    let reason = str::from_utf8(reason).map_err(|_| Error::NotUtf8)?;
    Ok((Some(code), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_in_a_close_frame() {
        for number in (0..=u16::MAX).step_by(crate::stride(61)) {
            let is_valid = matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(CloseCode::new(number).map(CloseCode::number), is_valid.then_some(number));
        }
    }

    #[test]
    fn payloads() {
        let normal = Some(CloseCode::NORMAL);
        for (payload, want) in [
            (&b""[..], Ok((None, ""))),
            (b"\x03", Err(Error::CloseCodeCut)),
            (b"\x03\xe8", Ok((normal, ""))),
            (b"\x03\xe8bye", Ok((normal, "bye"))),
            (b"\x03\xe8\xc3\xa9", Ok((normal, "é"))),
            (b"\x03\xe8\xc3", Err(Error::NotUtf8)),
            (b"\x03\xe8\xed\xa0\x80", Err(Error::NotUtf8)),
            (b"\x00\x00", Err(Error::CloseCodeInvalid)),
            (b"\x03\xe7", Err(Error::CloseCodeInvalid)),
            (b"\x03\xed", Err(Error::CloseCodeInvalid)),
            (b"\x03\xee", Err(Error::CloseCodeInvalid)),
            (b"\x03\xf7", Err(Error::CloseCodeInvalid)),
            (b"\x13\x88", Err(Error::CloseCodeInvalid)),
            (b"\xff\xff", Err(Error::CloseCodeInvalid)),
        ] {
            assert_eq!(decode_close(payload), want, "{payload:02x?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        for (reason, want) in [
            ("x".repeat(123), "x".repeat(123)),
            ("x".repeat(124), "x".repeat(123)),
            ("é".repeat(62), "é".repeat(61)),
            (format!("x{}", "é".repeat(62)), format!("x{}", "é".repeat(61))),
            ("\u{1f600}".repeat(40), "\u{1f600}".repeat(30)),
        ] {
            let mut out = Vec::new();
            encode_close(&mut out, CloseCode::RESTART, &reason);
            assert_eq!(out[..4], [0x88, 2 + want.len() as u8, 0x03, 0xf4]);
            assert_eq!(decode_close(&out[2..]), Ok((Some(CloseCode::RESTART), &*want)));
        }
    }
}
