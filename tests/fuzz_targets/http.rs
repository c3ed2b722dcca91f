//! HTTP in: heads, bodies, chunks, queries, routes.

use std::borrow::Cow;
use std::time::Duration;

use tidings::internals::form::{CHUNKS_END, write_chunk};
use tidings::internals::http::{
    BodyLength, ChunkedDecoder, Error, Headers, NO_HEADERS, RequestHead, Version, decode_authority, decode_head,
    head_end, percent_decode, percent_encode_header,
};
use tidings::internals::reader::{self, Inbound, Reader};
use tidings::internals::route::{Action, Policy, Transport, route};
use tidings::internals::{After, Config, names};

use super::clients::{Part, Responses};
use super::{Input, cut, in_every_way};

const HEAD_BYTES_MAX: usize = 1024;

/// A head ends at the same place however it comes. What is decoded is what stands there, by a
/// reading of its lines in the simplest way, and written again it decodes to the same.
pub fn head(input: &[u8]) {
    let end = in_every_way(input, |pieces| {
        let (mut bytes, mut scanned) = (Vec::new(), 0);
        for piece in pieces {
            bytes.extend_from_slice(piece);
            match head_end(&bytes, &mut scanned, HEAD_BYTES_MAX) {
                Ok(None) => assert!(scanned <= bytes.len() && bytes.len() < HEAD_BYTES_MAX),
                decided => return decided,
            }
        }
        Ok(None)
    });
    let (_, stream) = cut(input);
    let Ok(Some(end)) = end else { return };
    assert!(end <= stream.len().min(HEAD_BYTES_MAX));
    let bytes = &stream[..end];
    let mut scratch = NO_HEADERS;
    let Ok(head) = decode_head(bytes, &mut scratch) else { return };

    check_lines(bytes, &head);
    let again = written(&head);
    let mut scratch = NO_HEADERS;
    let second = decode_head(&again, &mut scratch).expect("what was decoded can be written");
    let facts = |head: &RequestHead<'_>| {
        let names = [head.method_name, head.path, head.query.unwrap_or("-")].map(str::to_owned);
        (names, head.host.map(|host| host.to_string()), head.version, head.body, head.keep_alive, head.expect_continue)
    };
    assert_eq!(facts(&second), facts(&head));
}

/// Each line is a name, a colon and a value, and found by its name in the order sent.
fn check_lines(bytes: &[u8], head: &RequestHead<'_>) {
    let text = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let text = text.strip_suffix(b"\r\n\r\n").expect("a head ends in a blank line");
    let text: String = text.iter().map(|&byte| char::from(byte)).collect();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "a bare line end is no line end");
    let fields: Vec<(String, &str)> = text
        .split("\r\n")
        .skip(1)
        .map(|line| line.split_once(':').expect("a line has a colon"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])))
        .collect();
    for (name, _) in &fields {
        let values: Vec<&str> = fields.iter().filter(|(this, _)| this == name).map(|&(_, value)| value).collect();
        let decoded: Vec<String> =
            head.headers(name).map(|value| value.iter().map(|&byte| char::from(byte)).collect()).collect();
        assert_eq!(decoded, values, "{name}");
        assert_eq!(head.headers(name).count(), values.len());
    }

    let count = |name: &str| fields.iter().filter(|(this, _)| this == name).count();
    assert_eq!(head.host.is_none(), head.version == Version::Http10 && count("host") == 0 && !has_authority(&text));
    assert!(count("host") <= 1);
    // Where two readers could disagree on the length of the body, there is no head.
    match head.body {
        BodyLength::None => assert_eq!((count("content-length"), count("transfer-encoding")), (0, 0)),
        BodyLength::Length(_) => assert_eq!((count("content-length"), count("transfer-encoding")), (1, 0)),
        BodyLength::Chunked => assert_eq!((count("content-length"), count("transfer-encoding")), (0, 1)),
    }
    assert!(head.path.starts_with('/') || head.path == "*");
    assert!(!head.path.contains(['?', '#']));
}

fn has_authority(text: &str) -> bool {
    text.split(' ').nth(1).is_some_and(|target| !target.starts_with(['/', '*']))
}

/// The same head, in our own words.
fn written(head: &RequestHead<'_>) -> Vec<u8> {
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let minor = u8::from(head.version == Version::Http11);
    let mut text = format!("{} {}{query} HTTP/1.{minor}\r\n", head.method_name, head.path);
    if let Some(host) = head.host {
        text += &format!("Host: {host}\r\n");
    }
    match head.body {
        BodyLength::None => {}
        BodyLength::Length(length) => text += &format!("Content-Length: {length}\r\n"),
        BodyLength::Chunked => text += "Transfer-Encoding: chunked\r\n",
    }
    text += if head.keep_alive { "Connection: keep-alive\r\n" } else { "Connection: close\r\n" };
    if head.expect_continue {
        text += "Expect: 100-continue\r\n";
    }
    (text + "\r\n").into_bytes()
}

const LIMITS: reader::Limits = reader::Limits { head_bytes_max: 512, body_bytes_max: 200 };

/// The requests of a connection, and why there are no more.
type Requests = (Vec<(String, Vec<u8>)>, Option<End>);

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum End {
    Broken(reader::Error),
    /// The caller refuses a body that announces more than the limit.
    Announced,
}

/// The same requests with the same bodies come of a connection however its bytes come, and what is
/// held for it never exceeds a head and a body.
pub fn body(input: &[u8]) {
    let (requests, _) = in_every_way(input, requests);
    for (_, body) in requests {
        assert!(body.len() <= LIMITS.body_bytes_max);
    }
}

fn requests(pieces: &[&[u8]]) -> Requests {
    let mut reader = Reader::default();
    let mut requests = Vec::new();
    for piece in pieces {
        let mut bytes = std::mem::take(&mut reader.input);
        bytes.extend_from_slice(piece);
        loop {
            let mut scratch: Headers<'_> = NO_HEADERS;
            let consumed = match reader.next_request(&mut bytes, &mut scratch, &LIMITS) {
                Ok(None) => break,
                Ok(Some((Inbound::Head(head), consumed))) => {
                    assert_eq!(consumed, 0, "of a request that is not whole, nothing is consumed");
                    if let BodyLength::Length(length) = head.body
                        && length > LIMITS.body_bytes_max as u64
                    {
                        return (requests, Some(End::Announced));
                    }
                    continue;
                }
                Ok(Some((Inbound::Request(head, body), consumed))) => {
                    match head.body {
                        BodyLength::None => assert_eq!(body, b""),
                        BodyLength::Length(length) => assert_eq!(body.len() as u64, length),
                        BodyLength::Chunked => {}
                    }
                    requests.push((format!("{} {}", head.method_name, head.path), body.to_vec()));
                    consumed
                }
                Err(error) => return (requests, Some(End::Broken(error))),
            };
            assert!(0 < consumed && consumed <= bytes.len());
            bytes.drain(..consumed);
        }
        reader.input = bytes;
        reader.compact();
        assert!(reader.input.len() <= LIMITS.head_bytes_max + LIMITS.body_bytes_max);
    }
    (requests, None)
}

/// A chunked body is the same however it comes, never longer than its framing, and what we write
/// in chunks reads back.
pub fn chunked(input: &[u8]) {
    let decoded = in_every_way(input, dechunk);
    let (pieces, stream) = cut(input);
    if let Ok(Some((body, consumed))) = decoded {
        assert!(consumed <= stream.len() && body.len() < consumed);
    }

    let mut wire = Vec::new();
    for piece in &pieces {
        write_chunk(&mut wire, |out| out.extend_from_slice(piece));
    }
    wire.extend_from_slice(CHUNKS_END);
    let body = pieces.concat();
    assert_eq!(dechunk(&[&wire]), Ok(Some((body.clone(), wire.len()))));

    let mut responses = Responses::default();
    responses.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    responses.receive(&wire);
    let mut read = Vec::new();
    loop {
        match responses.next_part() {
            Ok(Some(Part::Head(_))) => {}
            Ok(Some(Part::Body(bytes))) => read.extend(bytes),
            Ok(Some(Part::End)) => break,
            end => panic!("{end:?}"),
        }
    }
    assert_eq!(read, body);
    assert!(responses.is_between());
}

/// The body and how much of the stream it took; `None`: more bytes are needed.
fn dechunk(pieces: &[&[u8]]) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let mut decoder = ChunkedDecoder::default();
    let (mut buffer, mut fed) = (Vec::new(), 0);
    for piece in pieces {
        let (mut read, mut written) = (buffer.len(), buffer.len());
        buffer.extend_from_slice(piece);
        fed += piece.len();
        let ended = decoder.decode(&mut buffer, &mut read, &mut written)?;
        assert!(written <= read && read <= buffer.len());
        let unread = buffer.len() - read;
        buffer.truncate(written);
        if ended {
            return Ok(Some((buffer, fed - unread)));
        }
        assert_eq!(unread, 0, "without an end everything is read");
    }
    Ok(None)
}

/// Percent-decoding agrees with a naive one, undoes our encoding, and never makes more of less.
pub fn query(input: &[u8]) {
    for plus_is_space in [false, true] {
        let decoded = percent_decode(input, plus_is_space).map(Cow::into_owned);
        assert_eq!(decoded, percent_decoded(input, plus_is_space));
        assert!(decoded.is_none_or(|decoded| decoded.len() <= input.len()));
    }
    let mut encoded = Vec::new();
    percent_encode_header(&mut encoded, input);
    assert!(encoded.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
    for plus_is_space in [false, true] {
        assert_eq!(percent_decode(&encoded, plus_is_space).as_deref(), Some(input));
    }
    if let Some(authority) = decode_authority(input) {
        let text = std::str::from_utf8(input).expect("an authority is ASCII");
        assert!(!authority.host.is_empty() && input.starts_with(authority.host) && text.is_ascii());
        let port = text[authority.host.len()..].strip_prefix(':').unwrap_or_default();
        assert_eq!(port.parse().ok(), authority.port);
        assert!(!authority.host.iter().any(|byte| b"@/?# \\".contains(byte)));
    }
}

fn percent_decoded(text: &[u8], plus_is_space: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'%' => {
                let digits = text.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                let digits = std::str::from_utf8(digits).ok()?;
                decoded.push(u8::from_str_radix(digits, 16).ok()?);
                at += 3;
                continue;
            }
            b'+' if plus_is_space => decoded.push(b' '),
            byte => decoded.push(byte),
        }
        at += 1;
    }
    Some(decoded)
}

/// Whatever the head, what is to be done keeps to the contract's forms, twice the same, and no
/// refusal shows the value of a parameter: it may be a token. (Seeds write such as `secret-…`.)
pub fn route_any(input: &[u8]) {
    let mut input = Input(input);
    let wishes = input.byte();
    let bytes = input.0;
    let Ok(Some(end)) = head_end(bytes, &mut 0, 16 * 1024) else { return };
    let mut scratch = NO_HEADERS;
    let Ok(head) = decode_head(&bytes[..end], &mut scratch) else { return };

    let mut config = Config::default();
    if wishes & 1 != 0 {
        config.hosts = vec!["push.example".to_owned()];
    }
    if wishes & 2 != 0 {
        config.origins = vec!["https://app.example".to_owned()];
    }
    let policy = Policy::new(&config, wishes & 4 == 0).expect("these are names");
    let routed = route(&head, &policy);
    assert_eq!(routed, route(&head, &policy));
    match routed {
        Ok(action) => check_action(&action),
        Err(refusal) => {
            assert!((400..600).contains(&refusal.code.status()));
            assert!(!refusal.message.is_empty() && !refusal.message.contains(['\r', '\n']));
            let host = head.host.map(|host| host.to_string()).unwrap_or_default();
            let names_of_places = host.contains("secret-") || head.header("origin").is_some();
            assert!(names_of_places || !refusal.message.contains("secret-"), "{}", refusal.message);
        }
    }
}

fn check_action(action: &Action) {
    match action {
        Action::Publish(publish) => {
            check_channels(std::slice::from_ref(&publish.channel));
            let event = publish.event.as_deref().map(|event| names::event_name(event.as_bytes()));
            assert!(event.is_none_or(|event| event.is_ok_and(|event| event == publish.event.as_deref())));
            if let Some(media_type) = &publish.media_type {
                assert!(media_type.is_ascii() && (1..=128).contains(&media_type.len()));
            }
            if let Some(key) = &publish.key {
                assert!((1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
        Action::Subscribe(subscribe) => {
            check_channels(&subscribe.channels);
            if let After::Unknown(text) = &subscribe.after {
                assert!(text.len() <= 32 && After::parse(text.as_bytes()).is_none());
            }
            if let Transport::Poll { wait } = subscribe.transport {
                assert!(wait <= Duration::from_secs(120));
            }
        }
        Action::View { channels } | Action::Tip { channels } => check_channels(channels),
        Action::Delete { channel } => check_channels(std::slice::from_ref(channel)),
        _ => {}
    }
}

fn check_channels(channels: &[String]) {
    assert!((1..=64).contains(&channels.len()));
    assert!(channels.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
    for name in channels {
        assert!((1..=128).contains(&name.len()) && name != "." && name != "..");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:~@-".contains(&byte)));
    }
}
