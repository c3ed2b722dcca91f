//! Small texts: commands, cursors, the values of options.

use std::borrow::Cow;

use tidings::Cursor;
use tidings::internals::After;
use tidings::internals::command::{self, Command};
use tidings::internals::http::percent_encode_header;

use super::Input;

/// A command that decodes is decoded again, to the same, from how we would write it; and its
/// `ref` is found also where the rest is wrong.
pub fn command(input: &[u8]) {
    let (decoded, reference) = command::decode(input);
    if let Some(reference) = reference {
        assert!((1..=64).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_graphic()));
        let line = input.split(|&byte| byte == b'\n').next().unwrap_or_default();
        assert!(line.ends_with(format!("ref={reference}").as_bytes()));
    }
    let Ok(decoded) = decoded else { return };
    let again = written(&decoded, reference);
    assert_eq!(command::decode(&again), (Ok(decoded), reference));
}

fn written(command: &Command<'_>, reference: Option<&str>) -> Vec<u8> {
    let (verb, operand, options, payload) = match command {
        Command::Subscribe(set) => ("subscribe", set, [None; 3], None),
        Command::Unsubscribe(set) => ("unsubscribe", set, [None; 3], None),
        Command::Publish { channel, event, media_type, key, payload } => {
            ("publish", channel, [event.as_ref(), media_type.as_ref(), key.as_ref()], Some(payload))
        }
    };
    let mut out = format!("{verb} ").into_bytes();
    percent_encode_header(&mut out, operand);
    for (name, value) in ["event", "type", "key"].into_iter().zip(options) {
        if let Some(value) = value {
            out.extend_from_slice(format!(" {name}=").as_bytes());
            percent_encode_header(&mut out, value);
        }
    }
    if let Some(reference) = reference {
        out.extend_from_slice(format!(" ref={reference}").as_bytes());
    }
    if let Some(payload) = payload {
        out.push(b'\n');
        out.extend_from_slice(payload);
    }
    out
}

/// What parses prints back to the same bytes, and is what a naive reading says; a `Last-Event-ID`
/// becomes a place, or at most 32 bytes of what it was.
pub fn cursor(input: &[u8]) {
    let cursor = Cursor::parse(input);
    assert_eq!(cursor.map(|cursor| (cursor.epoch.number(), cursor.seq)), naive(input));
    if let Some(cursor) = cursor {
        assert_eq!(cursor.to_string().as_bytes(), input);
    }
    match After::from_last_event_id(input) {
        After::Now => assert_eq!(input, b"now"),
        After::Earliest => assert_eq!(input, b"earliest"),
        After::At(place) => assert_eq!(Some(place), cursor),
        After::Unknown(shown) => {
            assert_eq!(After::parse(input), None);
            let whole = String::from_utf8_lossy(input);
            assert!(whole.starts_with(&shown) && shown.len() <= 32);
            assert!(shown == whole || shown.len() > 28, "cut no shorter than a character needs");
        }
    }
}

fn naive(input: &[u8]) -> Option<(u32, u64)> {
    let (epoch, seq) = std::str::from_utf8(input).ok()?.split_once('-')?;
    let (epoch, seq): (u32, u64) = (epoch.parse().ok()?, seq.parse().ok()?);
    let is_exact = format!("{epoch}-{seq}").as_bytes() == input;
    (is_exact && epoch > 0 && seq <= i64::MAX as u64).then_some((epoch, seq))
}

/// The program's own module: it is no part of the library.
#[path = "../../src/cli/values.rs"]
mod values;

/// No text is taken for another value than it says, and what is shown reads back.
pub fn options(input: &[u8]) {
    let text: Cow<'_, str> = String::from_utf8_lossy(input);
    if let Some(count) = values::parse_count(&text) {
        assert_eq!(text.trim_start_matches('0'), if count == 0 { String::new() } else { count.to_string() });
    }
    if let Some(time) = values::parse_time(&text) {
        assert_eq!(values::parse_time(&values::show_time(time)), Some(time));
        assert!(text.starts_with(|first: char| first.is_ascii_digit()));
    }
    if let Some(size) = values::parse_size(&text) {
        assert_eq!(values::parse_size(&values::show_size(size)), Some(size));
        assert!(text.starts_with(|first: char| first.is_ascii_digit()));
    }
    if values::parse_flag(&text).is_some() {
        assert!((1..=5).contains(&text.len()));
    }
    if values::is_channel_name(&text) {
        assert!(tidings::internals::names::channel_name(text.as_bytes()).is_ok(), "{text}");
    }
    for is_right in [values::is_listen_address, values::is_host_name, values::is_origin] {
        assert!(!is_right(&text) || (text.is_ascii() && !text.contains([' ', '\r', '\n', '@', '?', '#'])), "{text}");
    }

    let number = Input(input).bits();
    let time = std::time::Duration::from_millis(number);
    assert_eq!(values::parse_time(&values::show_time(time)), Some(time));
    if let Ok(size) = usize::try_from(number) {
        assert_eq!(values::parse_size(&values::show_size(size)), Some(size));
    }
}
