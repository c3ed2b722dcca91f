//! What an option's value may be: text to value and back.
//!
//! Knows nothing of options. Invariant: what is shown reads back to the same value.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tidings::Tokens;

/// A whole number: digits and nothing else.
pub(crate) fn parse_count(text: &str) -> Option<usize> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A whole number of seconds, or one with a unit.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit_ms) = split_unit(text, &TIME_UNITS)?;
    Some(Duration::from_millis(number.checked_mul(unit_ms.unwrap_or(1000))?))
}

/// The time in its largest unit that divides it.
pub(crate) fn show_time(time: Duration) -> String {
    show_in_units(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS, "0s")
}

/// A whole number of bytes, or one with a unit.
pub(crate) fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text, &SIZE_UNITS)?;
    usize::try_from(number.checked_mul(unit.unwrap_or(1))?).ok()
}

/// The size in its largest unit that divides it.
pub(crate) fn show_size(size: usize) -> String {
    show_in_units(size as u64, &SIZE_UNITS, "0")
}

/// Milliseconds in each unit, largest first.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Bytes in each unit, largest first. `KB` is not among them: to some it is 1000, to others 1024.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

fn split_unit(text: &str, units: &[(&str, u64)]) -> Option<(u64, Option<u64>)> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => None,
        unit => Some(units.iter().find(|(name, _)| *name == unit)?.1),
    };
    Some((digits.parse().ok()?, factor))
}

fn show_in_units(number: u64, units: &[(&str, u64)], zero: &str) -> String {
    let largest = units.iter().find(|(_, factor)| number.is_multiple_of(*factor));
    match largest {
        Some((unit, factor)) if number > 0 => format!("{}{unit}", number / factor),
        _ => zero.into(),
    }
}

/// `yes` or `no`, as people write it into environments.
pub(crate) fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A place to listen: a host and a port; an IPv6 address stands in brackets.
pub(crate) fn is_listen_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_is_right = parse_count(port).is_some_and(|port| port <= usize::from(u16::MAX));
    let host_is_right = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    port_is_right && host_is_right
}

/// The name of a host, without scheme, port or path.
pub(crate) fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// The same, or an IPv6 address in brackets.
pub(crate) fn is_host(text: &str) -> bool {
    is_host_name(text) || is_bracketed(text)
}

/// A host that is nobody but this one. RFC 6761 6.3: `localhost` and all names below it are loopback.
pub(crate) fn is_local_host(text: &str) -> bool {
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => text.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost")),
    }
}

/// An origin as browsers send it: RFC 6454 6.2, scheme, host and perhaps a port, nothing behind.
pub(crate) fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let scheme_is_right = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    scheme_is_right && (is_host_name(authority) || is_listen_address(authority) || is_bracketed(authority))
}

fn is_bracketed(text: &str) -> bool {
    is_listen_address(&format!("{text}:0")) && text.ends_with(']')
}

/// The contract's rule for the name of a channel.
pub(crate) fn is_channel_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:~@-".contains(&byte))
        && text != "."
        && text != ".."
}

/// A token, and the beginning of the channel names it is good for. Whoever prints it sees the
/// beginning alone.
#[derive(Clone)]
pub(crate) struct Secret {
    token: String,
    prefix: String,
}

impl Secret {
    /// `TOKEN` or `TOKEN:PREFIX`; a token has no colon.
    pub(crate) fn parse(text: &str) -> Option<Secret> {
        let (token, prefix) = match text.split_once(':') {
            // Somebody's variable was empty: it must not open every channel.
            Some((_, "")) => return None,
            Some(both) => both,
            None => (text, ""),
        };
        // A subscribe token has the same form.
        Tokens::default().allow_publish(token, prefix).ok()?;
        Some(Secret { token: token.into(), prefix: prefix.into() })
    }

    /// The token and the prefix.
    pub(crate) fn token(&self) -> (&str, &str) {
        (&self.token, &self.prefix)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.prefix.is_empty() { "" } else { ":" };
        write!(f, "***{colon}{}", self.prefix)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, ms, shown) in [
            ("0", 0, "0s"),
            ("0ms", 0, "0s"),
            ("15", 15_000, "15s"),
            ("15s", 15_000, "15s"),
            ("250ms", 250, "250ms"),
            ("1500ms", 1500, "1500ms"),
            ("60", 60_000, "1m"),
            ("90s", 90_000, "90s"),
            ("5m", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
            ("007", 7_000, "7s"),
        ] {
            let time = parse_time(text);
            assert_eq!(time, Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(show_time(time.unwrap()), shown, "{text}");
            assert_eq!(parse_time(shown), time, "{shown}");
        }
        for wrong in ["", "s", "1 s", " 1", "1.5", "-1", "+1", "1S", "1d", "1hm", "1m30s", "18446744073709551615h", "٣"]
        {
            assert_eq!(parse_time(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size, shown) in [
            ("0", 0, "0"),
            ("1", 1, "1"),
            ("1000", 1000, "1000"),
            ("1024", 1024, "1KiB"),
            ("64KiB", 65_536, "64KiB"),
            ("1536KiB", 1_572_864, "1536KiB"),
            ("16MiB", 16_777_216, "16MiB"),
            ("1GiB", 1_073_741_824, "1GiB"),
        ] {
            assert_eq!(parse_size(text), Some(size), "{text}");
            assert_eq!(show_size(size), shown, "{text}");
            assert_eq!(parse_size(shown), Some(size), "{shown}");
        }
        for wrong in ["", "KiB", "1k", "1K", "1KB", "1kib", "1 KiB", "1.5MiB", "-1", "0x10", "18446744073709551615GiB"]
        {
            assert_eq!(parse_size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn counts_and_flags() {
        assert_eq!(parse_count("100000"), Some(100_000));
        for wrong in ["", "-1", "+1", "1e3", "1_000", "99999999999999999999999"] {
            assert_eq!(parse_count(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse_flag("yes"), Some(true));
        assert_eq!(parse_flag("0"), Some(false));
        assert_eq!(parse_flag("maybe"), None);
    }

    #[test]
    fn names() {
        type Rule = fn(&str) -> bool;
        for (rule, right, wrong) in [
            (
                is_listen_address as Rule,
                &["127.0.0.1:8080", "[::1]:0", "localhost:65535", "[::]:80"][..],
                &["", "8080", ":8080", "127.0.0.1", "::1:8080", "[::1]", "a:65536", "a:-1", "a:b", "[a]:1", "a b:1"][..],
            ),
            (is_host_name, &["push.example.org", "localhost", "10.0.0.1"], &["", "a:80", "http://a", "a/", "a b", "é"]),
            (is_host, &["localhost", "[2001:db8::1]", "[::1]"], &["", "[::1]:80", "::1", "[::1", "[a]", "[]", "a:80"]),
            (
                is_local_host,
                &["localhost", "a.LocalHost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"],
                &["push.example.org", "localhost.example.org", "10.0.0.1", "[2001:db8::1]", "notlocalhost"],
            ),
            (
                is_origin,
                &["https://example.org", "http://localhost:3000", "http://[::1]:3000", "http://[::1]", "app://a"],
                &["", "*", "null", "example.org", "https://", "https://a/", "https://a/b", "https://a b", "1s://a"],
            ),
            (is_channel_name, &["news", "a.b:c~d@e-f_g", "..."], &["", ".", "..", "a b", "a/b", "a,b", "é", "a\n"]),
        ] {
            for text in right {
                assert!(rule(text), "{text:?}");
            }
            for text in wrong {
                assert!(!rule(text), "{text:?}");
            }
        }
        for (text, shown) in [("s3cret", "***"), ("s3cret:news.", "***:news."), ("a:b:c@~", "***:b:c@~")] {
            assert_eq!(Secret::parse(text).unwrap().to_string(), shown);
        }
        for wrong in ["", ":a", "a:", "a:*", "a b", "a@b", "a:b c", "é"] {
            assert!(Secret::parse(wrong).is_none(), "{wrong:?}");
        }
        assert!(is_channel_name(&"x".repeat(128)) && !is_channel_name(&"x".repeat(129)));
    }
}
