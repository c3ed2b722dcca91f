//! One accepted message, as every layer above the log sees it: borrowed, never copied.

use crate::cursor::Cursor;

/// A message of the log. Its wire forms are pure functions of these fields.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its id: the cursor just after it.
    pub id: Cursor,
    /// The channel it was published to.
    pub channel: &'a str,
    /// The event name, if one was given.
    pub event: Option<&'a str>,
    /// The media type, if one was given.
    pub media_type: Option<&'a str>,
    /// Unix milliseconds at acceptance, for people; nothing depends on it.
    pub time_ms: u64,
    /// The bytes as published.
    pub payload: Payload<'a>,
}

/// The bytes of a message. The rule that tells text from binary is in `names::is_text`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Valid UTF-8 that its media type does not declare binary.
    Text(&'a str),
    /// Everything else.
    Binary(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// The bytes, whichever kind they are.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Payload::Text(text) => text.as_bytes(),
            Payload::Binary(bytes) => bytes,
        }
    }
}
