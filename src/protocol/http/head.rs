//! Request heads: where one ends, and what it says.
//!
//! [`head_end`] finds the blank line and refuses what cannot become a head; [`decode_head`] reads
//! what it found, without allocation. Knows nothing of routes or of the body's bytes.
//! Invariant: a decoded head has one method, one well-formed target, one host (HTTP/1.1), and one
//! length of body that every strict reader agrees on. RFC 9112 2 to 6, 9.3; RFC 9110 5, 7.2, 10.1.1.

// `httparse` splits the lines. It is laxer than we are; it accepts, and we refuse:
//
//   - lines that end in a bare LF, and any number of empty lines before the request line
//   - targets of no form, with `#`, `"`, `<`, `>` or bytes above ASCII
//   - no Host, several Hosts, malformed hosts
//   - any Content-Length and Transfer-Encoding, however many, both at once, in any version, and
//     tabs around their values
//   - any Expect
//
// Each is a row of the test `laxer_than_we_are`, which also proves that httparse accepts it.

use std::fmt;
use std::mem::MaybeUninit;

use httparse::Status;

use super::{Authority, Error, decode_authority, is_token_byte, is_value_byte};
use crate::text::clean_blocks;

/// Header lines in one head. Browsers send about 20; more than this is 431.
pub const HEADERS_MAX: usize = 64;

/// Room for the header lines of one head, made by the caller so that nothing is allocated.
pub type Headers<'a> = [MaybeUninit<httparse::Header<'a>>; HEADERS_MAX];

/// What [`Headers`] is before a head is decoded: nothing, which takes no time to make.
pub const NO_HEADERS: Headers<'static> = [const { MaybeUninit::uninit() }; HEADERS_MAX];

/// Looks for the end of a head: the index just after its blank line, or `None` for "need more".
///
/// `scanned` is the caller's memory of how far the last look went, 0 for a new head: no byte is
/// looked at twice, so a head that trickles in costs no more than one that comes whole. What
/// cannot become a head is refused at the byte that shows it, without waiting for the blank line.
pub fn head_end(bytes: &[u8], scanned: &mut usize, head_bytes_max: usize) -> Result<Option<usize>, Error> {
    let window = &bytes[..bytes.len().min(head_bytes_max)];

    // RFC 9112 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore
    // at least one empty line (CRLF) received prior to the request-line". One it is.
    let start = if window.starts_with(b"\r\n") { 2 } else { 0 };
    if *scanned <= start {
        check_first_byte(&window[start..])?;
    }

    let mut at = *scanned;
    loop {
        at += text_length(&window[at..]);
        match window[at..] {
            [] | [b'\r'] => break,
            [b'\r', b'\n', ..] if at == 0 => at = 2,
            [b'\r', b'\n', ..] if at == start => return Err(Error::EmptyLines),
            [b'\r', b'\n', ..] if window[at - 1] == b'\n' => return Ok(Some(at + 2)),
            [b'\r', b'\n', ..] => at += 2,
            // RFC 9112 2.2 allows a bare LF as a line's end and a bare CR as a space. Readers
            // differ in it, and requests were smuggled through the difference (CVE-2023-30589).
            [b'\r', ..] => return Err(Error::BareCr),
            [b'\n', ..] => return Err(Error::BareLf),
            [_, ..] => return Err(Error::ControlByte),
        }
    }
    *scanned = at;
    if bytes.len() >= head_bytes_max { Err(Error::HeadTooLarge) } else { Ok(None) }
}

/// Refuses what begins like no request line.
fn check_first_byte(bytes: &[u8]) -> Result<(), Error> {
    const TLS_HANDSHAKE: u8 = 0x16; // RFC 8446 5.1, ContentType
    match bytes {
        [TLS_HANDSHAKE, ..] => Err(Error::Tls),
        // Line ends and control bytes have errors of their own.
        [first, ..] if !is_token_byte(*first) && !first.is_ascii_control() => Err(Error::NotHttp),
        _ => Ok(()),
    }
}

/// How many bytes there are before the first control byte other than tab.
fn text_length(bytes: &[u8]) -> usize {
    let mut at = clean_blocks(bytes, |byte| !is_value_byte(byte));
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        match first_control_byte(word) {
            None => at += 8,
            Some(tab) if word[tab] == b'\t' => at += tab + 1,
            Some(control) => return at + control,
        }
    }
    at + bytes[at..].iter().take_while(|&&byte| is_value_byte(byte)).count()
}

/// Looks at eight bytes in one word: `x - 0x20` borrows into a byte's top bit exactly if the byte
/// is below 0x20, and `x ^ 0x7f` is below 1 exactly for DEL. A borrow may also mark bytes above the
/// first marked one, never below it (Mycroft, "hasless").
fn first_control_byte(bytes: &[u8; 8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, limit: u64| word.wrapping_sub(EACH * limit) & !word & (EACH * 0x80);
    let word = u64::from_le_bytes(*bytes);
    let marks = below(word, 0x20) | below(word ^ (EACH * 0x7f), 1);
    (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
}

/// The methods this server knows. RFC 9110 9.1: method names are case-sensitive.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's own")]
pub enum Method {
    Get,
    Head,
    Post,
    Delete,
    Options,
    /// Any other token.
    Other,
}

/// The versions this server speaks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's own")]
pub enum Version {
    Http10,
    Http11,
}

/// How the end of the body is known (RFC 9112 6.3).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body, and nothing was said of one.
    None,
    /// Exactly so many bytes, perhaps 0.
    Length(u64),
    /// As many as [`super::ChunkedDecoder`] finds.
    Chunked,
}

/// What a request says before its body. Borrows the bytes it was decoded from.
#[derive(Copy, Clone)]
pub struct RequestHead<'a> {
    /// What to do.
    pub method: Method,
    /// The same as sent, for methods of others.
    pub method_name: &'a str,
    /// The path as sent, still percent-encoded: ASCII, begins with `/`, or is `*` for OPTIONS.
    pub path: &'a str,
    /// What follows the first `?`, still percent-encoded.
    pub query: Option<&'a str>,
    /// The client's version.
    pub version: Version,
    /// The target's authority if it has one, else that of the Host header. Always there in HTTP/1.1.
    pub host: Option<Authority<'a>>,
    /// How the end of the body is known.
    pub body: BodyLength,
    /// The client would send another request on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    fields: Fields<'a>,
}

impl<'a> RequestHead<'a> {
    /// The value of the first line with this name, whatever its case, without white space around.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.values(name).next()
    }

    /// The values of all lines with this name, in the order sent.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields.values(name)
    }

    /// True if the comma list over all lines with this name has this token, whatever its case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.fields.has_token(name, token)
    }
}

/// Method and path alone: the query and the headers may carry tokens, which are never logged.
impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestHead({:?} {})", self.method, self.path)
    }
}

/// Decodes a whole head: exactly the bytes up to where [`head_end`] found its end.
pub fn decode_head<'h, 'b>(bytes: &'b [u8], scratch: &'h mut Headers<'b>) -> Result<RequestHead<'h>, Error> {
    debug_assert_eq!(head_end(bytes, &mut 0, usize::MAX), Ok(Some(bytes.len())), "head_end found another end");

    let mut request = httparse::Request::new(&mut []);
    let status = request.parse_with_uninit_headers(bytes, scratch).map_err(|error| match error {
        httparse::Error::Version => version_error(bytes),
        httparse::Error::HeaderName => Error::FieldName,
        httparse::Error::HeaderValue => Error::FieldValue,
        httparse::Error::TooManyHeaders => Error::TooManyHeaders,
        httparse::Error::Token | httparse::Error::NewLine | httparse::Error::Status => Error::RequestLine,
    })?;
    let (Status::Complete(_), Some(method), Some(target), Some(minor_version)) =
        (status, request.method, request.path, request.version)
    else {
        return Err(Error::RequestLine);
    };

    let fields = Fields(request.headers);
    let method_name = method;
    let method = decode_method(method_name);
    let version = if minor_version == 0 { Version::Http10 } else { Version::Http11 };
    let target = decode_target(target, method_name)?;
    let host = decode_host(fields, version)?;
    let body = decode_body_length(fields, version)?;
    if body != BodyLength::None {
        check_framing_lines(bytes)?;
    }
    Ok(RequestHead {
        method,
        method_name,
        path: target.path,
        query: target.query,
        version,
        // RFC 9112 3.2.2: with an absolute-form target "the origin server MUST ignore the received
        // Host header field (if any)".
        host: target.authority.or(host),
        body,
        keep_alive: decode_keep_alive(fields, version),
        expect_continue: decode_expect_continue(fields, version, body)?,
        fields,
    })
}

/// Tells a version that is not spoken here, HTTP/2's preface among them, from a malformed line.
fn version_error(bytes: &[u8]) -> Error {
    let line = bytes.trim_ascii_start().split(|&byte| byte == b'\r').next().unwrap_or_default();
    match line.splitn(3, |&byte| byte == b' ').nth(2) {
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => Error::VersionNotSupported,
        _ => Error::RequestLine,
    }
}

fn decode_method(method: &str) -> Method {
    match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

struct Target<'a> {
    authority: Option<Authority<'a>>,
    path: &'a str,
    query: Option<&'a str>,
}

/// RFC 9112 3.2: origin-form, absolute-form, and asterisk-form for OPTIONS. Authority-form is
/// CONNECT's alone, which asks for a proxy and has no other form: it has none here.
fn decode_target<'a>(target: &'a str, method_name: &str) -> Result<Target<'a>, Error> {
    if !target.bytes().all(|byte| TARGET[usize::from(byte)]) {
        return Err(Error::TargetByte);
    }
    if method_name == "CONNECT" {
        return Err(Error::TargetForm);
    }
    if target == "*" && method_name == "OPTIONS" {
        return Ok(Target { authority: None, path: target, query: None });
    }
    let (authority, resource) = match target.as_bytes() {
        [b'/', ..] => (None, target),
        _ => {
            let rest = strip_scheme(target).ok_or(Error::TargetForm)?;
            let (authority, resource) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            // RFC 9110 4.2.4: userinfo in a target is an error; it is no host either.
            (Some(decode_authority(authority.as_bytes()).ok_or(Error::HostInvalid)?), resource)
        }
    };
    let (path, query) = match resource.bytes().position(|byte| byte == b'?') {
        Some(mark) => (&resource[..mark], Some(&resource[mark + 1..])),
        None => (resource, None),
    };
    // RFC 9110 4.2.3: an empty path in an http URL is the same as `/`.
    Ok(Target { authority, path: if path.is_empty() { "/" } else { path }, query })
}

/// What follows `http://` or `https://`: a scheme has no case.
fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Visible ASCII without those that neither RFC 3986 allows nor any browser sends unencoded.
/// `\ ^ { | }` and the backquote, which browsers do send in queries, mean nothing here.
const TARGET: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_graphic() && !matches!(byte as u8, b'#' | b'"' | b'<' | b'>');
        byte += 1;
    }
    table
};

/// RFC 9112 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1
/// request message that lacks a Host header field and to any request message that contains more
/// than one Host header field line or a Host header field with an invalid field value."
fn decode_host(fields: Fields<'_>, version: Version) -> Result<Option<Authority<'_>>, Error> {
    let mut hosts = fields.values("Host");
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::Http11 => Err(Error::HostMissing),
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Error::HostRepeated),
        (Some(value), None) => decode_authority(value).map(Some).ok_or(Error::HostInvalid),
    }
}

/// RFC 9112 6.3, with every permission to repair or to prefer turned down: this is where requests
/// are smuggled.
fn decode_body_length(fields: Fields<'_>, version: Version) -> Result<BodyLength, Error> {
    let mut lengths = fields.values("Content-Length");
    let mut codings = fields.values("Transfer-Encoding");
    match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
        (None, _, None, _) => Ok(BodyLength::None),
        (Some(_), _, Some(_), _) => Err(Error::LengthAndCoding),
        (Some(length), None, None, _) => decode_length(length).map(BodyLength::Length).ok_or(Error::LengthInvalid),
        (Some(_), Some(_), None, _) => Err(Error::LengthRepeated),
        // RFC 9112 6.1: "A server [...] that receives an HTTP/1.0 message containing a
        // Transfer-Encoding header field MUST treat the message as if the framing is faulty".
        (None, _, Some(_), _) if version == Version::Http10 => Err(Error::CodingInHttp10),
        (None, _, Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyLength::Chunked),
        (None, _, Some(_), _) => Err(Error::CodingNotChunked),
    }
}

/// RFC 9110 5.6.3 allows tabs around any value. But some readers take `chunked` and a tab for
/// another coding, and do not look for chunks where others do (sozu #726): here it is refused.
fn check_framing_lines(bytes: &[u8]) -> Result<(), Error> {
    // Hardly any head has a tab, and looking for one is quicker than for the lines.
    if !bytes.contains(&b'\t') {
        return Ok(());
    }
    let is_named = |line: &[u8], name: &str| {
        line.split_at_checked(name.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(name.as_bytes()))
    };
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| line.contains(&b'\t')) {
        if is_named(line, "Content-Length:") {
            return Err(Error::LengthInvalid);
        }
        if is_named(line, "Transfer-Encoding:") {
            return Err(Error::CodingNotChunked);
        }
    }
    Ok(())
}

/// RFC 9110 8.6: `Content-Length = 1*DIGIT`. No sign, no list, no wrapping around; and no more
/// digits than the largest length has, for zeros in front serve nobody.
fn decode_length(digits: &[u8]) -> Option<u64> {
    if !(1..=LENGTH_DIGITS_MAX).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0u64, |length, &digit| {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        length.checked_mul(10)?.checked_add(value)
    })
}

/// Of 2^64 - 1.
const LENGTH_DIGITS_MAX: usize = 20;

/// RFC 9112 9.3: `close` wins; without a word HTTP/1.1 persists and HTTP/1.0 does not.
fn decode_keep_alive(fields: Fields<'_>, version: Version) -> bool {
    !fields.has_token("Connection", "close")
        && (version == Version::Http11 || fields.has_token("Connection", "keep-alive"))
}

/// RFC 9110 10.1.1: any other expectation may be refused; a `100-continue` "in an HTTP/1.0 request
/// MUST" be ignored. Without content there is nothing to wait for.
fn decode_expect_continue(fields: Fields<'_>, version: Version, body: BodyLength) -> Result<bool, Error> {
    let mut expected = false;
    for expectation in fields.values("Expect") {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(Error::Expectation);
        }
        expected = true;
    }
    Ok(expected && version == Version::Http11 && !matches!(body, BodyLength::None | BodyLength::Length(0)))
}

/// The header lines of one head. At most 64, so looking them through beats any map.
#[derive(Copy, Clone)]
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn values<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    fn has_token(self, name: &str, token: &str) -> bool {
        let is_token = |item| trim_white_space(item).eq_ignore_ascii_case(token.as_bytes());
        // Most lists have one item, and looking for a comma is quicker than splitting.
        self.values(name).any(|list| match list.contains(&b',') {
            true => list.split(|&byte| byte == b',').any(is_token),
            false => is_token(list),
        })
    }
}

/// RFC 9110 5.6.3: `OWS = *( SP / HTAB )`.
fn trim_white_space(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    const HEAD_MAX: usize = 4096;

    /// Decodes what the bytes begin with: whole, byte by byte and cut at every place, which must
    /// all come to the same. Calls `check` with the head and the number of its bytes.
    fn decode(bytes: &[u8], check: impl FnOnce(Result<(RequestHead<'_>, usize), Error>)) {
        let show = || bytes.escape_ascii().to_string();
        let whole = head_end(bytes, &mut 0, HEAD_MAX);

        let mut scanned = 0;
        let single = (0..=bytes.len())
            .map(|length| head_end(&bytes[..length], &mut scanned, HEAD_MAX))
            .find(|found| *found != Ok(None))
            .unwrap_or(Ok(None));
        assert_eq!(single, whole, "byte by byte: {}", show());
        for split in (0..=bytes.len()).step_by(crate::stride(31)) {
            let mut scanned = 0;
            let found = match head_end(&bytes[..split], &mut scanned, HEAD_MAX) {
                Ok(None) => head_end(bytes, &mut scanned, HEAD_MAX),
                found => found,
            };
            assert_eq!(found, whole, "split at {split}: {}", show());
        }

        let mut scratch = NO_HEADERS;
        check(whole.and_then(|end| {
            let end = end.unwrap_or_else(|| panic!("no end of a head in {}", show()));
            Ok((decode_head(&bytes[..end], &mut scratch)?, end))
        }));
    }

    fn refuses(bytes: &[u8], want: Error) {
        decode(bytes, |found| {
            assert_eq!(found.map(|(head, _)| head.path.to_owned()), Err(want), "{}", bytes.escape_ascii());
        });
    }

    /// `GET / HTTP/1.1` with a Host and these lines.
    fn get(lines: &str) -> Vec<u8> {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
    }

    #[test]
    fn a_get() {
        let bytes = b"GET /channels/a%2Cb?after=1-2&x HTTP/1.1\r\nHost: localhost:8080\r\nAccept: a\r\nX-Empty:\r\n\
                      accept:\t b \t\r\n\r\nGET /next";
        decode(bytes, |found| {
            let (head, end) = found.unwrap();
            assert_eq!(&bytes[end..], b"GET /next");
            assert_eq!((head.method, head.version), (Method::Get, Version::Http11));
            assert_eq!((head.path, head.query), ("/channels/a%2Cb", Some("after=1-2&x")));
            let host = Authority { host: b"localhost", port: Some(8080) };
            assert_eq!((head.host, head.body), (Some(host), BodyLength::None));
            assert_eq!((head.keep_alive, head.expect_continue), (true, false));
            assert_eq!(head.header("ACCEPT"), Some(&b"a"[..]));
            assert_eq!(head.headers("accept").collect::<Vec<_>>(), [b"a", b"b"]);
            assert_eq!((head.headers("Accept").count(), head.headers("Accep").count()), (2, 0));
            assert_eq!((head.header("X-Empty"), head.header("X")), (Some(&b""[..]), None));
        });
    }

    #[test]
    fn debug_shows_no_token() {
        let bytes = b"GET /a?token=secret HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\n\r\n";
        decode(bytes, |found| assert_eq!(format!("{:?}", found.unwrap().0), "RequestHead(Get /a)"));
    }

    /// The list at the top of this file.
    #[test]
    fn laxer_than_we_are() {
        for (bytes, error) in [
            // Line ends.
            (&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], Error::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Error::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Error::BareLf),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: \n\r\n", Error::BareLf),
            (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Error::BareLf),
            (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Error::BareLf),
            (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Error::EmptyLines),
            // Targets.
            (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetForm),
            (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetForm),
            (b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetForm),
            (b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetForm),
            (b"OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetForm),
            (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Error::TargetForm),
            (b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetForm),
            (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetForm),
            (b"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetForm),
            (b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", Error::HostInvalid),
            (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Error::HostInvalid),
            (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Error::HostInvalid),
            (b"GET http://a:x/ HTTP/1.1\r\nHost: a\r\n\r\n", Error::HostInvalid),
            (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetByte),
            (b"GET /\" HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetByte),
            (b"GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n", Error::TargetByte),
            ("GET /é HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(), Error::TargetByte),
            // Hosts.
            (b"GET / HTTP/1.1\r\n\r\n", Error::HostMissing),
            (b"GET http://a/ HTTP/1.1\r\n\r\n", Error::HostMissing),
            (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Error::HostRepeated),
            (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Error::HostRepeated),
            (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Error::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Error::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: a, b:80\r\n\r\n", Error::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Error::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", Error::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Error::HostInvalid),
            (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", Error::HostInvalid),
            (b"GET http://a/ HTTP/1.1\r\nHost: b/\r\n\r\n", Error::HostInvalid),
            (b"GET / HTTP/1.0\r\nHost: b/\r\n\r\n", Error::HostInvalid),
            // Lengths.
            (&get("Content-Length:\r\n"), Error::LengthInvalid),
            (&get("Content-Length: +3\r\n"), Error::LengthInvalid),
            (&get("Content-Length: -1\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 0x3\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 3 3\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 3,3\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 3;a\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 1_0\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 3.0\r\n"), Error::LengthInvalid),
            (&get("Content-Length: \u{663}\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 18446744073709551616\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 18446744073709551619\r\n"), Error::LengthInvalid),
            (&get(&format!("Content-Length: {}\r\n", "9".repeat(400))), Error::LengthInvalid),
            (&get("Content-Length: 000000000000000000003\r\n"), Error::LengthInvalid),
            (&get("Content-Length: 3\r\ncontent-length: 3\r\n"), Error::LengthRepeated),
            (&get("Content-Length: 3\r\nContent-Length: 4\r\n"), Error::LengthRepeated),
            (&get("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), Error::LengthAndCoding),
            (&get("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), Error::LengthAndCoding),
            (&get("Transfer-Encoding: identity\r\nContent-Length: 3\r\n"), Error::LengthAndCoding),
            (&get("Content-Length:\t3\r\n"), Error::LengthInvalid),
            (&get("content-length: 3\t\r\n"), Error::LengthInvalid),
            // Codings.
            (&get("Transfer-Encoding:\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: \tchunked\r\n"), Error::CodingNotChunked),
            (&get("transfer-encoding: chunked\t\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: identity\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: chunked,\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: ,chunked\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: gzip, chunked\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: chunked, gzip\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: chunked, chunked\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: xchunked\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: \"chunked\"\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: chunked;q=1\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Error::CodingNotChunked),
            (&get("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), Error::CodingNotChunked),
            (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Error::CodingInHttp10),
            // Expectations.
            (&get("Expect: 200-ok\r\n"), Error::Expectation),
            (&get("Expect:\r\n"), Error::Expectation),
            (&get("Expect: 100-continue, 100-continue\r\n"), Error::Expectation),
            (&get("Expect: 100-continue\r\nExpect: x\r\n"), Error::Expectation),
            (b"GET / HTTP/1.0\r\nExpect: x\r\n\r\n", Error::Expectation),
        ] {
            let mut headers = NO_HEADERS;
            let accepted = httparse::Request::new(&mut []).parse_with_uninit_headers(bytes, &mut headers);
            assert_eq!(accepted, Ok(Status::Complete(bytes.len())), "httparse: {}", bytes.escape_ascii());
            refuses(bytes, error);
        }
    }

    #[test]
    fn broken_rules() {
        for (bytes, error) in [
            // No HTTP.
            (&b"\x16\x03\x01\x02\x00\x01\x00"[..], Error::Tls),
            (b"\r\n\x16\x03\x01", Error::Tls),
            (b"\x80\x2e\x01", Error::NotHttp),
            (b"{\"a\":1}", Error::NotHttp),
            (b" GET / HTTP/1.1\r\n", Error::NotHttp),
            (b"\r\n GET", Error::NotHttp),
            (b"\0", Error::ControlByte),
            // Lines.
            (b"\r\r\n", Error::BareCr),
            (b"GET / HTTP/1.1\r\r\n", Error::BareCr),
            (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Error::BareCr),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", Error::BareCr),
            (b"GET / HTTP/1.1\r\nHost: a\0", Error::ControlByte),
            (b"GET / HTTP/1.1\r\nHost: a\x7f", Error::ControlByte),
            (b"GET / HTTP/1.1\r\nHost: a\x0b", Error::ControlByte),
            // Request lines.
            (b"GET\r\n\r\n", Error::RequestLine),
            (b"GET /\r\n\r\n", Error::RequestLine),
            (b"GET / \r\n\r\n", Error::RequestLine),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / b HTTP/1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / http/1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / HTTP/1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / HTTP/11\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / ICE/1.0\r\nHost: a\r\n\r\n", Error::RequestLine),
            (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Error::VersionNotSupported),
            (b"GET / HTTP/0.9\r\n\r\n", Error::VersionNotSupported),
            (b"\r\nGET / HTTP/3.0\r\n\r\n", Error::VersionNotSupported),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Error::VersionNotSupported),
            (b"HTTP/1.1 200 OK\r\n\r\n", Error::RequestLine),
            // Header lines.
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\tb: c\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length 10\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX\x80: b\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n", Error::FieldName),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n", Error::FieldName),
        ] {
            refuses(bytes, error);
        }
    }

    #[test]
    fn refused_before_the_blank_line() {
        for (bytes, error) in [
            (&b"\x16"[..], Error::Tls),
            (b"{", Error::NotHttp),
            (b"\n", Error::BareLf),
            (b"\r\n\r\n", Error::EmptyLines),
            (b"GET /\n", Error::BareLf),
            (b"GET / HTTP/1.1\rx", Error::BareCr),
        ] {
            assert_eq!(head_end(bytes, &mut 0, HEAD_MAX), Err(error), "{}", bytes.escape_ascii());
            let before = &bytes[..bytes.len() - 1];
            assert_eq!(head_end(before, &mut 0, HEAD_MAX), Ok(None), "{}", before.escape_ascii());
        }
    }

    #[test]
    fn targets() {
        for (line, host, path, query) in [
            ("GET / HTTP/1.1", "a", "/", None),
            ("GET // HTTP/1.1", "a", "//", None),
            ("GET /? HTTP/1.1", "a", "/", Some("")),
            ("GET /a?b?c HTTP/1.1", "a", "/a", Some("b?c")),
            ("GET /%zz?% HTTP/1.1", "a", "/%zz", Some("%")),
            ("GET /?{a}|^`\\ HTTP/1.1", "a", "/", Some("{a}|^`\\")),
            ("OPTIONS * HTTP/1.1", "a", "*", None),
            ("GET http://b HTTP/1.1", "b", "/", None),
            ("GET http://b?q HTTP/1.1", "b", "/", Some("q")),
            ("GET http://b:80/c?q HTTP/1.1", "b:80", "/c", Some("q")),
            ("GET HTTPS://[::1]:80/c HTTP/1.1", "[::1]:80", "/c", None),
            ("GET http://b/http://c HTTP/1.1", "b", "/http://c", None),
        ] {
            decode(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), |found| {
                let (head, _) = found.unwrap();
                let found = (head.host.unwrap().to_string(), head.path, head.query);
                assert_eq!(found, (host.to_owned(), path, query), "{line}");
            });
        }
        decode(b"GET http://b/ HTTP/1.0\r\n\r\n", |found| {
            assert_eq!(found.unwrap().0.host, Some(Authority { host: b"b", port: None }));
        });
        decode(b"GET / HTTP/1.0\r\n\r\n", |found| assert_eq!(found.unwrap().0.host, None));
    }

    #[test]
    fn methods() {
        for (text, method) in [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("POST", Method::Post),
            ("DELETE", Method::Delete),
            ("OPTIONS", Method::Options),
            ("get", Method::Other),
            ("PATCH", Method::Other),
            ("GETT", Method::Other),
            ("TRACE", Method::Other),
            ("M-SEARCH", Method::Other),
        ] {
            decode(format!("{text} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), |found| {
                assert_eq!(found.unwrap().0.method, method, "{text}");
            });
        }
    }

    #[test]
    fn body_lengths() {
        for (lines, want) in [
            ("", BodyLength::None),
            ("Content-Length: 0\r\n", BodyLength::Length(0)),
            ("Content-Length:  3 \r\nX: \t\r\n", BodyLength::Length(3)),
            ("Content-Length: 0003\r\n", BodyLength::Length(3)),
            ("Content-Length: 18446744073709551615\r\n", BodyLength::Length(u64::MAX)),
            ("Content_Length: 3\r\n", BodyLength::None),
            ("Transfer-Encoding: chunked\r\n", BodyLength::Chunked),
            ("transfer-encoding:  ChunKED \r\n", BodyLength::Chunked),
        ] {
            decode(&get(lines), |found| assert_eq!(found.unwrap().0.body, want, "{lines}"));
        }
        decode(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n", |found| {
            assert_eq!(found.unwrap().0.body, BodyLength::Length(3));
        });
    }

    #[test]
    fn keep_alive() {
        for (version, lines, want) in [
            ("1.1", "", true),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: a ,\tCLOSE , b\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.1", "Connection: closed\r\n", true),
            ("1.1", "Connection: clo se\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
            ("1.0", "Keep-Alive: timeout=5\r\n", false),
        ] {
            decode(format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n").as_bytes(), |found| {
                assert_eq!(found.unwrap().0.keep_alive, want, "{version} {lines}");
            });
        }
    }

    #[test]
    fn tokens() {
        decode(&get("Upgrade: h2c\r\nUpgrade: ,, \t WebSocket\t,x/1\r\n"), |found| {
            let (head, _) = found.unwrap();
            for (token, want) in [("websocket", true), ("H2C", true), ("x/1", true), ("web", false), ("x", false)] {
                assert_eq!(head.has_token("upgrade", token), want, "{token}");
            }
            assert!(!head.has_token("Connection", "upgrade"));
        });
    }

    #[test]
    fn expectations() {
        for (version, lines, want) in [
            ("1.1", "Content-Length: 3\r\nExpect: 100-continue\r\n", true),
            ("1.1", "Expect: 100-CONTINUE\r\nTransfer-Encoding: chunked\r\n", true),
            ("1.1", "Content-Length: 3\r\n", false),
            ("1.1", "Content-Length: 0\r\nExpect: 100-continue\r\n", false),
            ("1.1", "Expect: 100-continue\r\n", false),
            ("1.0", "Content-Length: 3\r\nExpect: 100-continue\r\n", false),
        ] {
            decode(format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n").as_bytes(), |found| {
                assert_eq!(found.unwrap().0.expect_continue, want, "{version} {lines}");
            });
        }
    }

    #[test]
    fn one_empty_line_before_is_skipped() {
        let bytes = b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\nrest";
        decode(bytes, |found| {
            let (head, end) = found.unwrap();
            assert_eq!((head.path, &bytes[end..]), ("/a", &b"rest"[..]));
        });
    }

    #[test]
    fn the_limits_are_exact() {
        let bytes = get(&format!("X: {}\r\n", "x".repeat(100)));
        let end = bytes.len();
        assert_eq!(head_end(&bytes, &mut 0, end), Ok(Some(end)));
        assert_eq!(head_end(&bytes, &mut 0, end - 1), Err(Error::HeadTooLarge));
        assert_eq!(head_end(&bytes[..end - 1], &mut 0, end), Ok(None));
        assert_eq!(head_end(&bytes[..end - 1], &mut 0, end - 1), Err(Error::HeadTooLarge));
        assert_eq!(head_end(b"", &mut 0, end), Ok(None));

        let lines = |count: usize| get(&"X:\r\n".repeat(count - 1));
        decode(&lines(HEADERS_MAX), |found| assert_eq!(found.unwrap().0.headers("x").count(), HEADERS_MAX - 1));
        refuses(&lines(HEADERS_MAX + 1), Error::TooManyHeaders);
        assert_eq!(Error::TooManyHeaders.code(), Code::HeadTooLarge);
    }

    /// What was scanned is not looked at again: a byte changed there after the look goes unseen.
    #[test]
    fn no_byte_is_scanned_twice() {
        let mut bytes = get("");
        let mut scanned = 0;
        assert_eq!(head_end(&bytes[..20], &mut scanned, HEAD_MAX), Ok(None));
        assert_eq!(scanned, 20);
        bytes[19] = 0;
        assert_eq!(head_end(&bytes, &mut scanned, HEAD_MAX), Ok(Some(bytes.len())));
    }

    /// Each byte, in each place, at lengths below, at and above the width of any vector.
    #[test]
    fn every_byte_in_every_place() {
        let accepts = |bytes: &[u8]| {
            let mut scratch = NO_HEADERS;
            match head_end(bytes, &mut 0, HEAD_MAX) {
                Ok(Some(end)) if end == bytes.len() => decode_head(bytes, &mut scratch).is_ok(),
                _ => false,
            }
        };
        for byte in (0..=255u8).step_by(crate::stride(50)) {
            for padding in [0, 1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65].into_iter().step_by(crate::stride(5)) {
                let pad = vec![b'a'; padding];
                for tail in [&b"a"[..], &[b'a'; 40]] {
                    let place = |before: &[u8], after: &[u8]| [before, &pad, &[byte], tail, after].concat();
                    let method = place(b"a", b" / HTTP/1.1\r\nHost: a\r\n\r\n");
                    assert_eq!(accepts(&method), is_token_byte(byte), "method {byte:#x}");
                    let target = place(b"GET /", b" HTTP/1.1\r\nHost: a\r\n\r\n");
                    assert_eq!(
                        accepts(&target),
                        byte.is_ascii_graphic() && !b"#\"<>".contains(&byte),
                        "target {byte:#x}"
                    );
                    let name = place(b"GET / HTTP/1.1\r\nHost: a\r\na", b": b\r\n\r\n");
                    assert_eq!(accepts(&name), is_token_byte(byte) || byte == b':', "name {byte:#x}");
                    let value = place(b"GET / HTTP/1.1\r\nHost: a\r\nX: a", b"\r\n\r\n");
                    assert_eq!(accepts(&value), is_value_byte(byte), "value {byte:#x}");
                }
            }
        }
    }

    #[test]
    fn words_find_what_single_bytes_find() {
        const BYTES: [u8; 12] = [0, 1, b'\t', b'\n', b'\r', 0x1f, b' ', b'!', 0x7e, 0x7f, 0x80, 0xff];
        let mut lines = Vec::new();
        for length in (0..26).step_by(crate::stride(6)) {
            for at in 0..length {
                for byte in BYTES {
                    // Its neighbours are such bytes too: a borrow must not hide or invent one.
                    lines.extend(BYTES.map(|next| (length, at, byte, next)));
                }
            }
        }
        for (length, at, byte, next) in lines.into_iter().step_by(crate::stride(97)) {
            let mut bytes = vec![b'x'; length];
            bytes[at] = byte;
            if at + 1 < length {
                bytes[at + 1] = next;
            }
            let naive = bytes.iter().position(|&byte| !is_value_byte(byte)).unwrap_or(length);
            assert_eq!(text_length(&bytes), naive, "{}", bytes.escape_ascii());
        }
        assert_eq!(text_length(&[1; 100]), 0, "not one block of them");
    }
}
