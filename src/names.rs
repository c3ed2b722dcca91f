//! The rules for names: channels, sets of channels, events, media types; and what is text.
//!
//! Everything here takes decoded bytes and knows nothing of URLs, headers or commands. Invariant:
//! a name that passed may be written into a header line, an SSE field or a JSON string; none has a
//! control character (a media type may have a tab).
//! RFC 9110: 5.6.2 tokens, 5.6.4 quoted strings, 5.6.6 parameters, 8.3.1 media types.

use std::borrow::Cow;

use crate::config;
use crate::error::{Code, Refusal};

/// A channel's name: 1 to 128 bytes of `A-Z a-z 0-9 . _ : ~ @ -`, not `.` or `..`.
pub fn channel_name(bytes: &[u8]) -> Result<&str, Refusal> {
    let refuse = |what: Cow<'static, str>| Err(Refusal::new(Code::BadChannel, what));
    match bytes {
        b"" => return refuse("a channel name is empty; it must have 1 to 128 bytes".into()),
        // A client or proxy that normalises paths would turn these into another resource.
        b"." | b".." => return refuse("a channel name must not be . or ..".into()),
        _ if bytes.len() > NAME_MAX => {
            return refuse(format!("a channel name has {} bytes, the limit is {NAME_MAX}", bytes.len()).into());
        }
        _ => {}
    }
    if let Some(&byte) = bytes.iter().find(|&&byte| !is_channel_byte(byte)) {
        let found = match byte {
            b'!'..=b'~' => format!("'{}'", char::from(byte)),
            _ => format!("the byte 0x{byte:02x}"),
        };
        return refuse(format!("a channel name has {found}; allowed are A-Z a-z 0-9 . _ : ~ @ -").into());
    }
    str::from_utf8(bytes).or_else(|_| refuse("a channel name must be ASCII".into()))
}

/// A set of channels: 1 to 64 distinct names joined by `,`. Comes back sorted, each name once.
pub fn channel_set(bytes: &[u8]) -> Result<Vec<String>, Refusal> {
    // There is one name at least; who sends more bytes does not have them looked at.
    check_channel_set(1, bytes.len())?;
    let names = bytes.split(|&byte| byte == b',').map(|name| channel_name(name).map(str::to_owned));
    let mut names = names.collect::<Result<Vec<String>, Refusal>>()?;
    names.sort_unstable();
    names.dedup();
    check_channel_set(names.len(), bytes.len())?;
    Ok(names)
}

/// A set may have so many names, and so many bytes with the commas between them: also one that grew
/// by commands, for its client may have to ask for it anew in one request.
pub fn check_channel_set(names: usize, bytes: usize) -> Result<(), Refusal> {
    let what = if bytes > CHANNEL_SET_BYTES_MAX {
        format!("the set of channels has {bytes} bytes, the limit is {CHANNEL_SET_BYTES_MAX}")
    } else if names > CHANNEL_SET_MAX {
        format!("the set has {names} channels, the limit is {CHANNEL_SET_MAX}")
    } else {
        return Ok(());
    };
    Err(Refusal::new(Code::TooManyChannels, what))
}

/// An event name: 1 to 128 bytes of UTF-8 without control characters. `message` is `None`: it is
/// the name an event has when none is given.
pub fn event_name(bytes: &[u8]) -> Result<Option<&str>, Refusal> {
    let refuse = |what: Cow<'static, str>| Err(Refusal::new(Code::BadEvent, what));
    if bytes.is_empty() || bytes.len() > NAME_MAX {
        return refuse(format!("the event name has {} bytes; it must have 1 to {NAME_MAX}", bytes.len()).into());
    }
    let Ok(name) = str::from_utf8(bytes) else {
        return refuse("the event name is not UTF-8".into());
    };
    // CR and LF would end the SSE field and forge the next one.
    if name.chars().any(char::is_control) {
        return refuse("the event name has a control character; it must be printable".into());
    }
    // `open` and `error` are EventSource's own events, `gap` is ours, and so may be `tidings.` ones.
    if matches!(name, "gap" | "open" | "error") || name.starts_with("tidings.") {
        return refuse("gap, open, error and event names that begin with tidings. are reserved; take another".into());
    }
    Ok((name != "message").then_some(name))
}

/// A well-formed ASCII media type of at most 128 bytes; an empty one is `None`.
pub fn media_type(bytes: &[u8]) -> Result<Option<&str>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() > NAME_MAX {
        let what = format!("the media type has {} bytes, the limit is {NAME_MAX}", bytes.len());
        return Err(Refusal::new(Code::BadType, what));
    }
    match str::from_utf8(bytes) {
        Ok(text) if is_media_type(bytes) => Ok(Some(text)),
        _ => Err(Refusal::new(Code::BadType, "the media type is malformed; it must be like text/plain; charset=utf-8")),
    }
}

/// Checks an idempotency key: 1 to 128 visible ASCII bytes.
pub fn idempotency_key(bytes: &[u8]) -> Result<&str, Refusal> {
    let is_key = |key: &&str| (1..=NAME_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    std::str::from_utf8(bytes).ok().filter(is_key).ok_or_else(|| {
        Refusal::new(Code::BadKey, "an Idempotency-Key must have 1 to 128 visible ASCII bytes, without spaces")
    })
}

/// A media type without its parameters.
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t'])
}

/// True for the type that curl sends by itself with `--data`: it says nothing about the body.
pub fn counts_as_none(media_type: &str) -> bool {
    essence(media_type).eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// True if a payload is text: valid UTF-8, unless its type declares it binary.
pub fn is_text(payload: &[u8], media_type: Option<&str>) -> bool {
    !media_type.is_some_and(declares_binary) && str::from_utf8(payload).is_ok()
}

fn declares_binary(media_type: &str) -> bool {
    let essence = essence(media_type);
    essence.eq_ignore_ascii_case("application/octet-stream")
        || essence
            .split_once('/')
            .is_some_and(|(kind, _)| ["image", "audio", "video"].iter().any(|binary| kind.eq_ignore_ascii_case(binary)))
}

/// RFC 9110 8.3.1: `media-type = type "/" subtype parameters`, 5.6.6:
/// `parameters = *( OWS ";" OWS [ parameter ] )`. Only ASCII: obs-text is refused.
fn is_media_type(bytes: &[u8]) -> bool {
    let Some(rest) = after_token(bytes) else { return false };
    let Some(rest) = rest.strip_prefix(b"/").and_then(after_token) else { return false };
    let mut rest = rest;
    while !rest.is_empty() {
        let Some(parameter) = after_spaces(rest).strip_prefix(b";").map(after_spaces) else { return false };
        rest = match after_token(parameter) {
            None => parameter,
            // 5.6.6: `parameter = parameter-name "=" parameter-value`, no space around `=`.
            Some(value) => {
                let Some(value) = value.strip_prefix(b"=") else { return false };
                let Some(rest) = after_token(value).or_else(|| after_quoted_string(value)) else { return false };
                rest
            }
        };
    }
    true
}

/// What follows a token; `None` if there is none. RFC 9110 5.6.2: `token = 1*tchar`.
fn after_token(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(bytes.len());
    (end > 0).then(|| &bytes[end..])
}

/// RFC 9110 5.6.4: `quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE`.
fn after_quoted_string(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'\t' | b' '..=b'~', rest @ ..] => rest,
            [b'\t' | b' '..=b'[' | b']'..=b'~', rest @ ..] => rest,
            _ => return None,
        }
    }
}

/// RFC 9110 5.6.3: `OWS = *( SP / HTAB )`.
fn after_spaces(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(bytes.len());
    &bytes[end..]
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_channel_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:~@-".contains(&byte)
}

/// The longest channel name, event name and media type, in bytes.
pub const NAME_MAX: usize = 128;

/// The most channels of one set.
pub const CHANNEL_SET_MAX: usize = 64;
const _: () = assert!(CHANNEL_SET_MAX == config::CHANNEL_SET_MAX, "the bound of memory counts them");

/// The longest text of a set of channels, repeats included.
pub const CHANNEL_SET_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Tokens;

    fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Code {
        result.unwrap_err().code
    }

    /// `rights` stands below and has the rule again, for the prefixes of tokens.
    #[test]
    fn what_begins_a_channel_name_is_a_prefix_of_tokens() {
        for name in (0..=127u8).map(|byte| format!("x{}", char::from(byte))).chain(["x".repeat(128), "x".repeat(129)]) {
            let is_prefix = Tokens::default().allow_publish("token", &name).is_ok();
            assert_eq!(is_prefix, channel_name(name.as_bytes()).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn channel_names() {
        let longest = "x".repeat(128);
        for name in ["a", "news", "A-Z.a_z:0~9@", "...", "-", &longest] {
            assert_eq!(channel_name(name.as_bytes()), Ok(name));
        }
        let too_long = "x".repeat(129);
        for name in ["", ".", "..", "a b", "a/b", "a,b", "a%20b", "a\0", "a\n", "é", "a\u{7f}", &too_long] {
            assert_eq!(code(channel_name(name.as_bytes())), Code::BadChannel, "{name:?}");
        }
        for (name, found) in [("a/b", "'/'"), ("a%20b", "'%'"), ("a b", "the byte 0x20"), ("é", "the byte 0xc3")] {
            let want = format!("a channel name has {found}; allowed are A-Z a-z 0-9 . _ : ~ @ -");
            assert_eq!(channel_name(name.as_bytes()).unwrap_err().message, want);
        }
        for byte in 0..=u8::MAX {
            let allowed = matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b':' | b'~' | b'@' | b'-');
            assert_eq!(channel_name(&[byte]).is_ok(), allowed, "{byte:#x}");
        }
    }

    #[test]
    fn a_channel_set_is_sorted_and_distinct() {
        assert_eq!(channel_set(b"news").unwrap(), ["news"]);
        assert_eq!(channel_set(b"b,a,c,a,b").unwrap(), ["a", "b", "c"]);
        for set in ["", ",", "a,", ",a", "a,,b", "a, b", "a,.."] {
            assert_eq!(code(channel_set(set.as_bytes())), Code::BadChannel, "{set:?}");
        }
    }

    #[test]
    fn a_channel_set_is_bounded() {
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(channel_set(names(64).as_bytes()).unwrap().len(), 64);
        assert_eq!(code(channel_set(names(65).as_bytes())), Code::TooManyChannels);
        // Repeats do not count as channels, but they count as bytes.
        let repeats = format!("aa{}", ",a".repeat(2047));
        assert_eq!(repeats.len(), 4096);
        assert_eq!(channel_set(repeats.as_bytes()).unwrap(), ["a", "aa"]);
        assert_eq!(code(channel_set(format!("a{repeats}").as_bytes())), Code::TooManyChannels);
    }

    #[test]
    fn event_names() {
        let longest = "é".repeat(64);
        for name in ["price", "Message", "gaps", "tidings", "tiding.s", " ", "日本", "a:b", &longest] {
            assert_eq!(event_name(name.as_bytes()), Ok(Some(name)));
        }
        assert_eq!(event_name(b"message"), Ok(None));
        let too_long = "x".repeat(129);
        for name in [
            "",
            "gap",
            "open",
            "error",
            "tidings.",
            "tidings.x",
            "a\rb",
            "a\nb",
            "\0",
            "\t",
            "\u{7f}",
            "\u{85}",
            &too_long,
        ] {
            assert_eq!(code(event_name(name.as_bytes())), Code::BadEvent, "{name:?}");
        }
        assert_eq!(code(event_name(b"\xff")), Code::BadEvent);
    }

    #[test]
    fn media_types() {
        assert_eq!(media_type(b""), Ok(None));
        let longest = format!("text/{}", "x".repeat(123));
        for text in [
            "text/plain",
            "application/vnd.api+json",
            "a/b",
            "text/plain;charset=utf-8",
            "text/plain \t;\t charset=utf-8",
            "text/plain; a=\"b;c\\\"d\"; e=f",
            "text/plain; a=\"\"",
            // RFC 9110 5.6.6 allows empty parameters.
            "text/plain;",
            "text/plain; ",
            "text/plain; ; a=b",
            &longest,
        ] {
            assert_eq!(media_type(text.as_bytes()), Ok(Some(text)));
        }
        let too_long = format!("{longest}x");
        for text in [
            "text",
            "text/",
            "/plain",
            "/",
            "text /plain",
            "text/ plain",
            " text/plain",
            "text/plain ",
            "text/plain/x",
            "text/plain, a/b",
            "text/plain; a",
            "text/plain; a=",
            "text/plain; a =b",
            "text/plain; a= b",
            "text/plain; a=\"",
            "text/plain; a=\"b",
            "text/plain; a=\"b\"c",
            "text/plain; a=\"\\",
            "text/plain; =b",
            "text/plain\r\nx: y",
            "text/plain; a=\"\r\n\"",
            "text/plain; a=\"\\\n\"",
            "text/plain; a=\"\0\"",
            "text/plain; a=\"é\"",
            "tëxt/plain",
            "text/plain\u{7f}",
            &too_long,
        ] {
            assert_eq!(code(media_type(text.as_bytes())), Code::BadType, "{text:?}");
        }
        assert_eq!(code(media_type(b"text/plain; a=\"\xff\"")), Code::BadType);
    }

    #[test]
    fn idempotency_keys() {
        let most = "k".repeat(128);
        for key in ["k", "!~\"\\", &most] {
            assert_eq!(idempotency_key(key.as_bytes()).ok(), Some(key));
        }
        let over = "k".repeat(129);
        for key in ["", " ", "a b", "a\t", "a\x7f", "\u{e9}", &over] {
            assert_eq!(idempotency_key(key.as_bytes()).map_err(|refusal| refusal.code), Err(Code::BadKey), "{key:?}");
        }
    }

    #[test]
    fn essences() {
        for (text, want) in [
            ("text/plain", "text/plain"),
            ("text/plain;charset=utf-8", "text/plain"),
            ("Text/Plain \t; a=\";\"", "Text/Plain"),
            ("text/plain;", "text/plain"),
        ] {
            assert_eq!(essence(text), want);
        }
        assert!(counts_as_none("application/x-www-form-urlencoded"));
        assert!(counts_as_none("Application/X-WWW-Form-Urlencoded; charset=utf-8"));
        assert!(!counts_as_none("text/plain"));
    }

    #[test]
    fn text_or_binary() {
        for (payload, media_type, want) in [
            (&b""[..], None, true),
            (b"hello", None, true),
            ("日本\0".as_bytes(), Some("text/plain"), true),
            (b"{}", Some("application/json"), true),
            (b"<svg/>", Some("application/xml"), true),
            (b"x", Some("imagery/png"), true),
            (b"\xff", None, false),
            (b"\xed\xa0\x80", Some("text/plain; charset=utf-8"), false),
            (b"", Some("application/octet-stream"), false),
            (b"x", Some("Application/Octet-Stream; a=b"), false),
            (b"<svg/>", Some("image/svg+xml"), false),
            (b"x", Some("AUDIO/ogg"), false),
            (b"x", Some("video/mp4; codecs=\"x\""), false),
        ] {
            assert_eq!(is_text(payload, media_type), want, "{payload:?} {media_type:?}");
        }
    }
}
