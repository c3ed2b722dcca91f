//! Which pages may talk to this server: the rules for `Host`, `Origin` and `Sec-Fetch-Site`.
//!
//! A browser sends these fields truthfully whatever page it shows; other clients may lie, and are
//! held off by tokens alone. It knows nothing of tokens, nor of `X-Forwarded-*`, which anyone may
//! send and which is never believed.
//! Invariant: an origin is allowed only by an exact match of a whole name, never by a part of it.
//! RFC 9110 7.2 (Host), RFC 6454 6.2 and 7 (Origin), Fetch 3.2 (CORS), Fetch Metadata (Sec-Fetch).

use std::fmt;

use super::at_most_once;
use crate::config::Config;
use crate::error::{Code, Refusal};
use crate::protocol::http::{self, Authority, RequestHead};

/// Which names this server has, and which origins may use it from elsewhere.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Listening on loopback, where a foreign name in `Host` is the mark of DNS rebinding.
    loopback: bool,
    /// In lower case, without ports.
    hosts: Vec<String>,
    /// As a browser writes them: in lower case, without the scheme's own port.
    origins: Vec<String>,
}

impl Policy {
    /// The policy of this configuration, for a server that listens on loopback or not.
    pub fn new(config: &Config, loopback: bool) -> Result<Policy, PolicyError> {
        let host = |text: &String| normal_host(text).ok_or_else(|| PolicyError::Host(text.clone()));
        let origin = |text: &String| normal_origin(text).ok_or_else(|| PolicyError::Origin(text.clone()));
        Ok(Policy {
            loopback,
            hosts: config.hosts.iter().map(host).collect::<Result<_, _>>()?,
            origins: config.origins.iter().map(origin).collect::<Result<_, _>>()?,
        })
    }

    /// True if any origin is listed: every answer then depends on it and owes `Vary: Origin`.
    pub fn lists_origins(&self) -> bool {
        !self.origins.is_empty()
    }

    fn lists(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin))
    }

    fn has_host(&self, name: &[u8]) -> bool {
        self.hosts.iter().any(|host| host.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// A name in the configuration that no request could ever match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// In `Config::hosts`, something else than a name.
    Host(String),
    /// In `Config::origins`, something else than an origin.
    Origin(String),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::Host(text) => {
                write!(
                    f,
                    "{text:?} is no host name for Config::hosts (--host); \
                     right is one like example.org or [2001:db8::1], without a port"
                )
            }
            PolicyError::Origin(text) => {
                write!(
                    f,
                    "{text:?} is no origin for Config::origins (--origin); \
                     right is one like https://example.org, without a path"
                )
            }
        }
    }
}

impl std::error::Error for PolicyError {}

/// On loopback only this machine's names may be in `Host`. A page whose own name was made to
/// resolve to 127.0.0.1 (DNS rebinding) is of one origin with us to its browser, but cannot
/// change the name that the browser sends.
pub(super) fn check_host(head: &RequestHead<'_>, policy: &Policy) -> Result<(), Refusal> {
    if !policy.loopback {
        return Ok(());
    }
    let name = head.host.map(|authority| authority.host);
    if name.is_some_and(|name| is_loopback_name(name) || policy.has_host(name)) {
        return Ok(());
    }
    let what = match name {
        Some(name) => format!(
            "this server does not answer to the Host {0}; \
             use localhost, 127.0.0.1 or [::1], or start it with --host {0} (Config::hosts)",
            shown(name)
        ),
        None => "the request names no Host; send localhost, 127.0.0.1 or [::1], or a name of --host (Config::hosts)"
            .to_owned(),
    };
    Err(Refusal::new(Code::WrongHost, what))
}

fn is_loopback_name(name: &[u8]) -> bool {
    matches!(name, b"localhost" | b"127.0.0.1" | b"[::1]") || name.eq_ignore_ascii_case(b"localhost")
}

/// For WebSocket, POST, DELETE: a browser sends `Origin` with each of them, so its absence means
/// that no page is behind the request.
pub(super) fn check_write(head: &RequestHead<'_>, policy: &Policy) -> Result<(), Refusal> {
    match at_most_once(head, "origin", Code::OriginNotAllowed)? {
        None => Ok(()),
        Some(origin) if policy.lists(origin) || is_own(origin, head, policy) => Ok(()),
        Some(origin) => Err(not_listed(origin)),
    }
}

/// For GET and HEAD of channels and their list. A cross-site read is refused unless CORS lets the
/// page see the answer anyway, or the person goes there: a navigation shows it to nobody else.
/// Any other page could not see the answer, but it could time it and hold a connection by it.
pub(super) fn check_read(head: &RequestHead<'_>, policy: &Policy) -> Result<(), Refusal> {
    let says = |name, word: &[u8]| head.headers(name).any(|value| value.eq_ignore_ascii_case(word));
    let cross_site = says("sec-fetch-site", b"cross-site");
    if !cross_site || says("sec-fetch-mode", b"navigate") || cors_origin(head, policy).is_some() {
        return Ok(());
    }
    Err(match head.header("origin") {
        Some(origin) => not_listed(origin),
        None => Refusal::new(
            Code::OriginNotAllowed,
            "a page of another site must read with CORS, which sends Origin, and be listed with --origin (Config::origins)",
        ),
    })
}

/// The listed origin of a request, to echo in `Access-Control-Allow-Origin`: exactly, never `*`.
pub fn cors_origin<'h>(head: &'h RequestHead<'_>, policy: &Policy) -> Option<&'h [u8]> {
    if !policy.lists_origins() {
        return None;
    }
    let origin = at_most_once(head, "origin", Code::OriginNotAllowed).ok().flatten()?;
    policy.lists(origin).then_some(origin)
}

/// What a listed origin may send: the preflight's `Access-Control-Allow-Headers`.
pub const CORS_ALLOW_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, Last-Event-ID";
/// What a listed origin may see of an answer: `Access-Control-Expose-Headers`.
pub const CORS_EXPOSE_HEADERS: &str = "Tidings-Cursor, Tidings-Id, Tidings-Channel, Tidings-Event, Tidings-Gap, \
                                       Idempotent-Replayed, Retry-After";
/// How long a browser may keep a preflight's answer: `Access-Control-Max-Age`. Short enough for a
/// changed list to take hold soon.
pub const CORS_MAX_AGE_SECONDS: u64 = 600;

/// True if the page is from here: its host is the request's `Host`, or one of our names. The
/// scheme is aside, for TLS may end at a proxy; so the schemes' own ports are one port.
fn is_own(origin: &[u8], head: &RequestHead<'_>, policy: &Policy) -> bool {
    let Some((_, page)) = str::from_utf8(origin).ok().and_then(split_origin) else { return false };
    let is_host = |own: Authority<'_>| {
        own.host.eq_ignore_ascii_case(page.host) && beside_own_ports(own.port) == beside_own_ports(page.port)
    };
    policy.has_host(page.host) || head.host.is_some_and(is_host)
}

fn beside_own_ports(port: Option<u16>) -> Option<u16> {
    port.filter(|port| !matches!(port, 80 | 443))
}

fn not_listed(origin: &[u8]) -> Refusal {
    // RFC 6454 6.2: `null` is every origin that has no name: any sandboxed frame, any local file.
    let what = if origin == b"null" {
        "the Origin null is never allowed; open the page from a server and allow that one with --origin (Config::origins)".to_owned()
    } else {
        format!(
            "the Origin {0} is not allowed here; to allow it start the server with --origin {0} (Config::origins)",
            shown(origin)
        )
    };
    Refusal::new(Code::OriginNotAllowed, what)
}

/// A peer's text as an error may show it.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.chars().count() <= SHOWN_MAX {
        text.into_owned()
    } else {
        text.chars().take(SHOWN_MAX).chain("...".chars()).collect()
    }
}

/// Longer than any honest origin, short enough for a line of a terminal.
const SHOWN_MAX: usize = 100;

/// `scheme://host[:port]` in its two parts. `null`, paths and user names are `None`.
fn split_origin(origin: &str) -> Option<(&str, Authority<'_>)> {
    let (scheme, authority) = origin.split_once("://")?;
    let authority = http::decode_authority(authority.as_bytes())?;
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_origin = !scheme.is_empty() && scheme.bytes().all(is_scheme) && is_host(authority.host);
    is_origin.then_some((scheme, authority))
}

/// A name or address as browsers send it: no `*` among it, which somebody might take for a pattern.
fn is_host(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~[:]".contains(byte))
}

fn normal_host(text: &str) -> Option<String> {
    let name = http::decode_authority(text.as_bytes())?.host;
    (name == text.as_bytes() && is_host(name)).then(|| text.to_ascii_lowercase())
}

fn normal_origin(text: &str) -> Option<String> {
    let (scheme, authority) = split_origin(text)?;
    let scheme = scheme.to_ascii_lowercase();
    let own_port = match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let authority = Authority { port: authority.port.filter(|&port| own_port != Some(port)), ..authority };
    Some(format!("{scheme}://{}", authority.to_string().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::with_head;

    fn policy(loopback: bool, hosts: &[&str], origins: &[&str]) -> Policy {
        let strings = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        let config = Config { hosts: strings(hosts), origins: strings(origins), ..Config::default() };
        Policy::new(&config, loopback).unwrap()
    }

    #[test]
    fn hosts_on_loopback() {
        let policy = policy(true, &["Push.Example"], &[]);
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost:8080",
            "localhost:1",
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "push.example",
            "PUSH.example:99",
        ] {
            let lines = format!("Host: {host}\r\n");
            assert_eq!(with_head("GET /", &lines, |head| check_host(head, &policy)), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "evil-localhost",
            "localhost.",
            "127.0.0.2",
            "127.0.0.1.evil.example",
            "[::2]",
            "push.example.org",
            "a.push.example",
        ] {
            let lines = format!("Host: {host}\r\n");
            let refusal = with_head("GET /", &lines, |head| check_host(head, &policy)).unwrap_err();
            assert_eq!(refusal.code, Code::WrongHost, "{host}");
            assert!(refusal.message.contains("--host"), "{refusal}");
        }
    }

    #[test]
    fn a_request_without_host_names_none_of_ours() {
        let refusal = with_head("GET / HTTP/1.0", "", |head| check_host(head, &policy(true, &[], &[]))).unwrap_err();
        assert_eq!(refusal.code, Code::WrongHost);
        assert!(refusal.message.contains("--host"), "{refusal}");
    }

    #[test]
    fn any_host_beside_loopback() {
        let policy = policy(false, &[], &[]);
        assert_eq!(with_head("GET /", "Host: evil.example\r\n", |head| check_host(head, &policy)), Ok(()));
        assert_eq!(with_head("GET / HTTP/1.0", "", |head| check_host(head, &policy)), Ok(()));
    }

    #[test]
    fn origins_that_may_write() {
        let policy =
            policy(true, &["push.example"], &["https://listed.example", "app://tool", "http://l.example:8080"]);
        for (host, origin) in [
            // The Host itself: scheme aside, case aside, own ports aside.
            ("localhost:8080", "http://localhost:8080"),
            ("localhost:8080", "https://LOCALHOST:8080"),
            ("localhost", "http://localhost"),
            ("localhost", "http://localhost:80"),
            ("localhost:80", "https://localhost"),
            ("localhost:443", "http://localhost:80"),
            ("[::1]:8080", "http://[::1]:8080"),
            // A name of ours, at any port.
            ("localhost:8080", "https://push.example"),
            ("localhost:8080", "http://PUSH.example:3000"),
            // Listed.
            ("localhost:8080", "https://listed.example"),
            ("localhost:8080", "HTTPS://Listed.Example"),
            ("localhost:8080", "app://tool"),
            ("localhost:8080", "http://l.example:8080"),
        ] {
            let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n");
            assert_eq!(with_head("POST /channels/a", &lines, |head| check_write(head, &policy)), Ok(()), "{lines}");
        }
        assert_eq!(with_head("POST /channels/a", "", |head| check_write(head, &policy)), Ok(()));
    }

    #[test]
    fn origins_that_may_not_write() {
        let policy = policy(true, &["push.example"], &["https://listed.example"]);
        for (host, origin) in [
            ("localhost:8080", "null"),
            ("localhost:8080", ""),
            ("null", "null"),
            ("localhost:8080", "http://evil.example"),
            ("localhost:8080", "http://localhost"),
            ("localhost:8080", "http://localhost:8081"),
            ("localhost:8080", "http://127.0.0.1:8080"),
            ("localhost", "http://localhost:8080"),
            ("localhost", "localhost"),
            ("localhost", "://localhost"),
            ("localhost", "http://localhost/"),
            ("localhost", "http://evil@localhost"),
            ("localhost", "http://localhost@evil.example"),
            ("localhost:8080", "http://localhost:8080@evil.example"),
            ("localhost", "http://localhost:+80"),
            ("localhost", "http://localhost:65536"),
            ("localhost", "http://localhost http://evil.example"),
            ("localhost", "http://push.example.evil.example"),
            ("localhost", "http://apush.example"),
            ("localhost", "http://listed.example"),
            ("localhost", "https://listed.example:8443"),
            ("localhost", "https://listed.example.evil.example"),
            ("localhost", "https://a.listed.example"),
            ("localhost", "https://listed.example/"),
        ] {
            let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n");
            let refusal = with_head("POST /channels/a", &lines, |head| check_write(head, &policy)).unwrap_err();
            assert_eq!(refusal.code, Code::OriginNotAllowed, "{lines}");
            assert!(refusal.message.contains("--origin"), "{refusal}");
        }
    }

    #[test]
    fn an_origin_must_not_be_there_twice() {
        let policy = policy(true, &[], &["https://listed.example"]);
        let lines = "Origin: https://listed.example\r\nOrigin: https://listed.example\r\n";
        let refused = with_head("POST /channels/a", lines, |head| check_write(head, &policy)).unwrap_err();
        assert_eq!(refused.code, Code::OriginNotAllowed);
        assert_eq!(with_head("GET /channels/a", lines, |head| cors_origin(head, &policy).map(<[u8]>::to_vec)), None);
    }

    #[test]
    fn forwarded_names_are_never_believed() {
        let lines = "Host: localhost\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n\
                     Origin: http://evil.example\r\n";
        let refused = with_head("POST /channels/a", lines, |head| check_write(head, &policy(false, &[], &[])));
        assert_eq!(refused.unwrap_err().code, Code::OriginNotAllowed);
    }

    #[test]
    fn cross_site_reads() {
        let policy = policy(true, &["push.example"], &["https://listed.example"]);
        for (lines, allowed) in [
            ("", true),
            ("Sec-Fetch-Site: same-origin\r\n", true),
            ("Sec-Fetch-Site: same-site\r\n", true),
            ("Sec-Fetch-Site: none\r\n", true),
            ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", true),
            ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nOrigin: https://listed.example\r\n", true),
            ("Sec-Fetch-Site: cross-site\r\n", false),
            ("Sec-Fetch-Site: Cross-Site\r\n", false),
            ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", false),
            ("Sec-Fetch-Site: cross-site\r\nOrigin: https://evil.example\r\n", false),
            ("Sec-Fetch-Site: cross-site\r\nOrigin: null\r\n", false),
            // Ours, but not listed: a page of ours is not on another site.
            ("Sec-Fetch-Site: cross-site\r\nOrigin: http://push.example\r\n", false),
            // Older browsers send no Sec-Fetch-Site; without CORS their pages see nothing.
            ("Origin: https://evil.example\r\n", true),
        ] {
            let got = with_head("GET /channels/a", lines, |head| check_read(head, &policy));
            assert_eq!(got.is_ok(), allowed, "{lines}");
            if let Err(refusal) = got {
                assert_eq!(refusal.code, Code::OriginNotAllowed);
                assert!(refusal.message.contains("--origin"), "{refusal}");
            }
        }
    }

    #[test]
    fn only_listed_origins_are_echoed_and_exactly() {
        let policy = policy(true, &["push.example"], &["HTTPS://Listed.Example:443"]);
        for (origin, want) in [
            ("https://listed.example", true),
            ("http://push.example", false),
            ("http://localhost", false),
            ("null", false),
            ("*", false),
            ("https://listed.example.evil", false),
        ] {
            let lines = format!("Origin: {origin}\r\n");
            let got = with_head("GET /channels/a", &lines, |head| cors_origin(head, &policy).map(<[u8]>::to_vec));
            assert_eq!(got, want.then(|| origin.as_bytes().to_vec()), "{origin}");
        }
        assert!(policy.lists_origins());
        assert!(!super::tests::policy(true, &["push.example"], &[]).lists_origins());
    }

    #[test]
    fn long_names_are_cut_in_messages() {
        let lines = format!("Origin: http://{}.example\r\n", "é".repeat(2000));
        let refusal = with_head("POST /channels/a", &lines, |head| check_write(head, &policy(true, &[], &[])));
        assert!(refusal.unwrap_err().message.len() < 600);
    }

    #[test]
    fn configured_names() {
        for (text, want) in [
            ("https://example.org", Some("https://example.org")),
            ("HTTPS://Example.ORG:443", Some("https://example.org")),
            ("http://example.org:80", Some("http://example.org")),
            ("http://example.org:443", Some("http://example.org:443")),
            ("https://[::1]:8443", Some("https://[::1]:8443")),
            ("app://tool:80", Some("app://tool:80")),
            ("example.org", None),
            ("https://example.org/", None),
            ("https://exämple.org", None),
            ("https://*.example.org", None),
            ("https://", None),
            ("null", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(normal_origin(text).as_deref(), want, "{text}");
        }
        for (text, want) in [
            ("Example.org", Some("example.org")),
            ("[2001:DB8::1]", Some("[2001:db8::1]")),
            ("192.168.1.2", Some("192.168.1.2")),
            ("example.org:8080", None),
            ("example.org:", None),
            ("::1", None),
            ("https://example.org", None),
            ("example.org/", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(normal_host(text).as_deref(), want, "{text}");
        }
        let config = Config { origins: vec!["null".into()], ..Config::default() };
        let error = Policy::new(&config, true).unwrap_err();
        assert_eq!(error, PolicyError::Origin("null".into()));
        assert!(error.to_string().contains("https://example.org"));
    }
}
