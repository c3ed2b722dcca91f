//! The parts of a request target: authorities, percent-encoding, queries.
//!
//! Knows nothing of what a path or a parameter means. Invariant: what is decoded is never decoded
//! again; what is malformed is refused and never repaired. RFC 3986 2.1, 3.2; WHATWG URL 5.1 for
//! the query form.

use core::net::Ipv6Addr;
use std::borrow::Cow;
use std::fmt::{self, Write};

use crate::text::position;

/// A host and perhaps a port, as in `Host` and in `http://` targets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The name or address as sent, IPv6 with its brackets; never empty, ASCII.
    pub host: &'a [u8],
    /// The port, if a number was given.
    pub port: Option<u16>,
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.iter().try_for_each(|&byte| f.write_char(char::from(byte)))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Reads `uri-host [ ":" port ]` (RFC 9110 7.2). `None` if it is not exactly that; an empty host
/// neither (RFC 9110 4.2.1: "a recipient that processes such a URI reference MUST reject it").
pub fn decode_authority(text: &[u8]) -> Option<Authority<'_>> {
    let host_end = match text {
        [b'[', literal @ ..] => literal.iter().position(|&byte| byte == b']')? + 2,
        _ => reg_name_length(text),
    };
    let (host, rest) = text.split_at(host_end);
    let host_is_valid = match host {
        [b'[', literal @ .., b']'] => str::from_utf8(literal).ok()?.parse::<Ipv6Addr>().is_ok(),
        _ => !host.is_empty(),
    };
    let port = match rest {
        [] => None,
        // RFC 3986 3.2.3: `port = *DIGIT`, so it may be empty, and then it is as if it were absent.
        [b':'] => None,
        [b':', digits @ ..] => Some(decode_port(digits)?),
        _ => return None,
    };
    host_is_valid.then_some(Authority { host, port })
}

/// How much of a text is `reg-name = *( unreserved / pct-encoded / sub-delims )` (RFC 3986 3.2.2). An
/// IPv4 address is one.
fn reg_name_length(text: &[u8]) -> usize {
    let mut length = 0;
    loop {
        length += text[length..].iter().take_while(|&&byte| REG_NAME[usize::from(byte)]).count();
        match text[length..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => length += 3,
            _ => return length,
        }
    }
}

fn decode_port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |port, &digit| {
        let value = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        port.checked_mul(10)?.checked_add(value)
    })
}

/// The bytes of a `reg-name` but for `%`. Each request has one to be looked at: a table is the quickest.
const REG_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_unreserved(byte as u8)
            || matches!(byte as u8, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        byte += 1;
    }
    table
};

const fn is_unreserved(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
}

/// Replaces each `%` and two hex digits by their byte and, in a query, each `+` by a space.
/// `None`: a `%` without two hex digits.
pub fn percent_decode(text: &[u8], plus_is_space: bool) -> Option<Cow<'_, [u8]>> {
    if position(text, |byte| (byte == b'%') | (plus_is_space & (byte == b'+'))).is_none() {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        decoded.push(match byte {
            b'%' => hex_digit(*rest.next()?)? << 4 | hex_digit(*rest.next()?)?,
            b'+' if plus_is_space => b' ',
            _ => byte,
        });
    }
    Some(Cow::Owned(decoded))
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Appends `bytes` so that any header can carry them and `decodeURIComponent` restores them:
/// all but RFC 3986's unreserved bytes as `%` and two upper-case hex digits.
pub fn percent_encode_header(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if is_unreserved(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        for (text, length) in [("", 0), ("a%2fb", 5), ("a%2", 1), ("a%2g", 1), ("a%g2", 1), ("%41%42", 6), ("a:b", 1)] {
            assert_eq!(reg_name_length(text.as_bytes()), length, "{text}");
        }
    }

    #[test]
    fn authorities() {
        for (text, host, port) in [
            ("localhost", "localhost", None),
            ("localhost:8080", "localhost", Some(8080)),
            ("localhost:", "localhost", None),
            ("127.0.0.1:0", "127.0.0.1", Some(0)),
            ("example.org:65535", "example.org", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[::1]:80", "[::1]", Some(80)),
            ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]", Some(80)),
            ("a%2Db_c~!$&'()*+,;=", "a%2Db_c~!$&'()*+,;=", None),
        ] {
            let host = host.as_bytes();
            assert_eq!(decode_authority(text.as_bytes()), Some(Authority { host, port }), "{text}");
            assert!(text.starts_with(&Authority { host, port }.to_string()), "{text}");
        }
        for text in [
            "",
            ":80",
            "a:b",
            "a:80:80",
            "a:+80",
            "a:-1",
            "a: 80",
            "a:99999",
            "a:65536",
            "a b",
            "a/b",
            "user@a",
            "user:secret@a",
            "a?b",
            "a#b",
            "a\\b",
            "a%2",
            "a%zz",
            "a<b>",
            "a\"",
            "é",
            "[::1",
            "::1",
            "[::1]80",
            "[]",
            "[localhost]",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "[[::1]]",
            "a[::1]",
            "]",
            "[::1]]",
            "a,b:80:",
            "a\t",
            "http://a",
        ] {
            assert_eq!(decode_authority(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn percent_decoding() {
        for (text, plain, form) in [
            (&b""[..], Some(&b""[..]), Some(&b""[..])),
            (b"news", Some(b"news"), Some(b"news")),
            (b"a+b", Some(b"a+b"), Some(b"a b")),
            (b"a%2Bb%2b", Some(b"a+b+"), Some(b"a+b+")),
            (b"%00%fF%Ff", Some(b"\x00\xff\xff"), Some(b"\x00\xff\xff")),
            (b"a+%41", Some(b"a+A"), Some(b"a A")),
            (b"%2525", Some(b"%25"), Some(b"%25")),
            (b"%", None, None),
            (b"a%2", None, None),
            (b"%zz", None, None),
            (b"%+1", None, None),
            (b"%1%41", None, None),
        ] {
            let show = text.escape_ascii().to_string();
            assert_eq!(percent_decode(text, false).as_deref(), plain, "{show}");
            assert_eq!(percent_decode(text, true).as_deref(), form, "{show}");
        }
    }

    #[test]
    fn what_is_plain_is_lent() {
        for (text, plain, form) in [("a-b", true, true), ("a+b", true, false), ("a%62", false, false)] {
            let lent =
                [false, true].map(|plus| matches!(percent_decode(text.as_bytes(), plus), Some(Cow::Borrowed(_))));
            assert_eq!(lent, [plain, form], "{text}");
        }
    }

    #[test]
    fn percent_encoding_restores_every_byte() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut encoded = Vec::new();
        percent_encode_header(&mut encoded, &bytes);
        assert!(encoded.iter().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(percent_decode(&encoded, true).as_deref(), Some(&bytes[..]));
        let mut encoded = Vec::new();
        percent_encode_header(&mut encoded, "a-Z_0.9~ é%\r\n".as_bytes());
        assert_eq!(encoded.escape_ascii().to_string(), "a-Z_0.9~%20%C3%A9%25%0D%0A");
    }
}
