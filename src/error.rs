//! What a client is told when it is refused: one stable code per cause, with its HTTP status.
//!
//! Knows nothing of HTTP framing or JSON. Invariant: a code has one status and one name for ever.

use std::borrow::Cow;
use std::fmt;

use crate::cursor::Cursor;

macro_rules! codes {
    ($($variant:ident $name:literal $status:literal,)*) => {
        /// The stable codes of the contract.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are the contract's own words")]
        #[non_exhaustive]
        pub enum Code { $($variant,)* }

        impl Code {
            /// Every code, in the order of the contract.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The code as the client sees it.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The HTTP status it is answered with.
            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)* }
            }
        }
    };
}

codes! {
    BadRequest "bad_request" 400,
    BadChannel "bad_channel" 400,
    TooManyChannels "too_many_channels" 400,
    BadEvent "bad_event" 400,
    BadType "bad_type" 400,
    BadCursor "bad_cursor" 400,
    BadWait "bad_wait" 400,
    BadFormat "bad_format" 400,
    BadTransport "bad_transport" 400,
    BadCondition "bad_condition" 400,
    BadCommand "bad_command" 400,
    BadKey "bad_key" 400,
    BadQuery "bad_query" 400,
    TokenRequired "token_required" 401,
    TokenWrong "token_wrong" 403,
    OriginNotAllowed "origin_not_allowed" 403,
    NotAllowed "not_allowed" 403,
    NotFound "not_found" 404,
    MethodNotAllowed "method_not_allowed" 405,
    RequestTimeout "request_timeout" 408,
    ChannelMoved "channel_moved" 412,
    MessageTooLarge "message_too_large" 413,
    ExpectationFailed "expectation_failed" 417,
    WrongHost "wrong_host" 421,
    IdempotencyMismatch "idempotency_mismatch" 422,
    UpgradeRequired "upgrade_required" 426,
    HeadTooLarge "head_too_large" 431,
    Draining "draining" 503,
    TooManyConnections "too_many_connections" 503,
    ChannelsFull "channels_full" 503,
    Busy "busy" 503,
    LogFailed "log_failed" 503,
    VersionNotSupported "version_not_supported" 505,
}

/// Why a request, a command or a handshake is refused, in words for the person who sent it:
/// what was wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code; it decides the status.
    pub code: Code,
    /// One sentence, without any token the client sent.
    pub message: Cow<'static, str>,
    /// For `channel_moved`: the number the channel counts as moved at.
    pub cursor: Option<Cursor>,
    /// For `method_not_allowed`: the `Allow` header.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// A refusal with this code and sentence.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, message: message.into(), cursor: None, allow: None }
    }

    /// True if the same request may succeed later: to an SSE client such a refusal is `200` with
    /// `retry:`, because any other status stops a native EventSource for good.
    pub fn passes(&self) -> bool {
        matches!(
            self.code,
            Code::Draining | Code::TooManyConnections | Code::ChannelsFull | Code::Busy | Code::LogFailed
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_statuses_are_errors() {
        for (nth, code) in Code::ALL.iter().enumerate() {
            assert!((400..600).contains(&code.status()), "{code:?}");
            assert!(Code::ALL[..nth].iter().all(|other| other.name() != code.name()), "{code:?}");
        }
    }
}
