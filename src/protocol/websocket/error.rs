//! What a client's frames can do wrong: one variant per rule broken.
//!
//! Invariant: every sentence fits in the reason of a close frame.

use std::fmt;

use super::CloseCode;

/// Why a connection must be failed. Nothing after it may be decoded.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// RSV1, RSV2 or RSV3 is set where no agreed extension gives it a meaning.
    ReservedBits,
    /// Opcode 3 to 7 or 11 to 15.
    ReservedOpcode,
    /// The frame is not masked.
    NotMasked,
    /// The length has more bytes than it needs.
    LengthNotMinimal,
    /// The highest bit of a 64-bit length is set.
    LengthNegative,
    /// A control frame with more than 125 bytes of payload.
    ControlTooLong,
    /// A control frame without FIN.
    ControlFragmented,
    /// A continuation although no message was begun.
    NothingToContinue,
    /// A new message although the last one has not ended.
    MessageUnfinished,
    /// A close frame with one byte of payload.
    CloseCodeCut,
    /// A close code that must not be sent.
    CloseCodeInvalid,
    /// A text message or a close reason that is not UTF-8.
    NotUtf8,
    /// A compressed message that does not inflate.
    NotDeflate,
    /// A message beyond the limit, as its frames announce it or as it inflates.
    MessageTooBig,
    /// A message in more fragments than the limit.
    TooManyFragments,
}

impl Error {
    /// The code to close with (RFC 6455 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            // RFC 6455 7.4.1, 1007: "data within a message that was not consistent with the type of
            // the message". RFC 7692 names no code for data that is no DEFLATE.
            Error::NotUtf8 | Error::NotDeflate => CloseCode::INVALID_DATA,
            Error::MessageTooBig => CloseCode::TOO_BIG,
            // Not 1009: the message may be small. It is its shape that is not accepted.
            Error::TooManyFragments => CloseCode::POLICY,
            _ => CloseCode::PROTOCOL,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::ReservedBits => {
                "a reserved bit is set; only RSV1 may be, on the first frame of a message, if agreed"
            }
            Error::ReservedOpcode => "the opcode is reserved; it must be 0, 1, 2, 8, 9 or 10",
            Error::NotMasked => "the frame is not masked; a client must mask every frame",
            Error::LengthNotMinimal => "the payload length must be written in the fewest bytes that hold it",
            Error::LengthNegative => "the highest bit of a 64-bit payload length must be 0",
            Error::ControlTooLong => "a control frame may have at most 125 bytes of payload",
            Error::ControlFragmented => "a control frame must not be fragmented",
            Error::NothingToContinue => "a continuation frame came without a message to continue",
            Error::MessageUnfinished => {
                "a new message began before the last one ended; its frames must be continuations"
            }
            Error::CloseCodeCut => "the payload of a close frame must be empty or begin with a two-byte code",
            Error::CloseCodeInvalid => "the close code may not be sent; use 1000 to 1003, 1007 to 1014 or 3000 to 4999",
            Error::NotUtf8 => "the text is not valid UTF-8; send other bytes in a binary message",
            Error::NotDeflate => "the compressed message is not whole DEFLATE data, as RFC 7692 7.2.1 makes it",
            Error::MessageTooBig => "the message is larger than this server accepts",
            Error::TooManyFragments => "the message has too many fragments; send larger ones",
        })
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_close_code_and_fits_in_a_close_frame() {
        for (error, code) in [
            (Error::ReservedBits, 1002),
            (Error::ReservedOpcode, 1002),
            (Error::NotMasked, 1002),
            (Error::LengthNotMinimal, 1002),
            (Error::LengthNegative, 1002),
            (Error::ControlTooLong, 1002),
            (Error::ControlFragmented, 1002),
            (Error::NothingToContinue, 1002),
            (Error::MessageUnfinished, 1002),
            (Error::CloseCodeCut, 1002),
            (Error::CloseCodeInvalid, 1002),
            (Error::NotUtf8, 1007),
            (Error::NotDeflate, 1007),
            (Error::MessageTooBig, 1009),
            (Error::TooManyFragments, 1008),
        ] {
            assert_eq!(error.close_code().number(), code, "{error:?}");
            let sentence = error.to_string();
            assert!((20..=super::super::close::REASON_BYTES_MAX).contains(&sentence.len()), "{error:?}: {sentence}");
        }
    }
}
