//! A loss, as the client is told it: a gap is always said, never silent.
//!
//! Knows nothing of how a gap is found (hub) or written (forms).

use crate::cursor::Cursor;

/// Messages of a subscriber's channels after its cursor are, or may be, no longer kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The cursor asked or last sent; for a text that is no cursor, that text, cut to 32 bytes.
    pub after: String,
    /// The highest number that may be missing.
    pub through: Cursor,
    /// Where delivery goes on.
    pub cursor: Cursor,
    /// Why.
    pub reason: GapReason,
}

/// Why messages are, or may be, missing. All but `Evicted` mean: forget what you know, everything
/// kept follows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// A limit of the history removed them.
    Evicted,
    /// The cursor is of another life of the log.
    Epoch,
    /// The cursor is after the head.
    Future,
    /// The `Last-Event-ID` is no cursor of ours.
    Unknown,
}

impl GapReason {
    /// Every reason, in the order of the numbers.
    pub const ALL: [GapReason; 4] = [GapReason::Evicted, GapReason::Epoch, GapReason::Future, GapReason::Unknown];

    /// The contract's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Evicted => "evicted",
            GapReason::Epoch => "epoch",
            GapReason::Future => "future",
            GapReason::Unknown => "unknown",
        }
    }
}
