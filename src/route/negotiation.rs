//! Which transport a subscriber asks for: by `transport=`, by `Upgrade`, by `Accept`.
//!
//! It knows the words of a request, not whether a handshake or a cursor in it is good.
//! Invariant: every `Accept` has a choice; what is malformed in it counts as not there.
//! RFC 9110 7.8 (Upgrade), 12.4.2 (weights), 12.5.1 (Accept).

use std::iter;

use super::{Query, Resource, SUBSCRIBE_PARAMETERS, asks_to_upgrade};
use crate::error::{Code, Refusal};
use crate::protocol::http::{Method, RequestHead};

/// The four answers that one URL has.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    WebSocket,
    Sse,
    View,
    Poll,
}

/// Chooses; `asked` is the parameter `transport`, which wins over all headers.
pub(super) fn choose(head: &RequestHead<'_>, asked: Option<&[u8]>) -> Result<Choice, Refusal> {
    match asked {
        None => Ok(by_headers(head)),
        Some(b"websocket") => Ok(Choice::WebSocket),
        Some(b"sse") => Ok(Choice::Sse),
        Some(b"view") => Ok(Choice::View),
        Some(b"poll") => Ok(Choice::Poll),
        Some(_) => Err(Refusal::new(Code::BadTransport, "transport must be websocket, sse, poll or view")),
    }
}

/// True for a request that is answered as SSE. A refusal that will pass is told it as `200` with
/// `retry:`, because any other status stops a native EventSource for good.
pub fn wants_sse(head: &RequestHead<'_>) -> bool {
    wants(head, Choice::Sse)
}

/// True for a person in a browser who is to see the viewer page. Who asks for it by
/// `transport=view` alone may be a program.
pub fn wants_page(head: &RequestHead<'_>) -> bool {
    by_headers(head) == Choice::View && wants(head, Choice::View)
}

fn wants(head: &RequestHead<'_>, choice: Choice) -> bool {
    head.method == Method::Get
        && matches!(Resource::at(head.path), Some(Resource::Channels(_)))
        && Query::read(head, SUBSCRIBE_PARAMETERS).and_then(|query| choose(head, query.value("transport")))
            == Ok(choice)
}

/// The first match wins.
fn by_headers(head: &RequestHead<'_>) -> Choice {
    // RFC 9110 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0
    // request."
    if asks_to_upgrade(head) {
        return Choice::WebSocket;
    }
    let accept = Accept::read(head);
    if accept.event_stream > 0 {
        Choice::Sse
    } else if accept.html > accept.json() && accept.html > accept.anything {
        Choice::View
    } else {
        Choice::Poll
    }
}

/// The weights that matter, in thousandths; 0 is "not acceptable" and "not named" alike. A range
/// that is there several times counts with its highest weight.
#[derive(Default)]
struct Accept {
    event_stream: u16,
    html: u16,
    /// `None` if not named, for then `application/*` speaks for it.
    json: Option<u16>,
    application: u16,
    anything: u16,
}

impl Accept {
    /// Reads all `Accept` lines. RFC 9110 5.3: several lines are one list.
    fn read(head: &RequestHead<'_>) -> Accept {
        let mut accept = Accept::default();
        for range in head.headers("accept").flat_map(|line| split_unquoted(line, b',')) {
            let Some((name, weight)) = media_range(range) else { continue };
            let place = match name.to_ascii_lowercase().as_slice() {
                b"text/event-stream" => &mut accept.event_stream,
                b"text/html" => &mut accept.html,
                b"application/json" => accept.json.get_or_insert(0),
                b"application/*" => &mut accept.application,
                b"*/*" => &mut accept.anything,
                _ => continue,
            };
            *place = weight.max(*place);
        }
        accept
    }

    /// RFC 9110 12.5.1: "the most specific reference has precedence".
    fn json(&self) -> u16 {
        self.json.unwrap_or(self.application)
    }
}

/// `media-range [ weight ]` (RFC 9110 12.5.1): the range without parameters, and its weight.
/// `None` if the weight is malformed.
fn media_range(range: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = split_unquoted(range, b';').map(<[u8]>::trim_ascii);
    let name = parts.next()?;
    let weight = parts.find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")));
    Some((name, weight.map_or(Some(1000), qvalue)?))
}

/// RFC 9110 12.4.2: `qvalue = ( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`, in thousandths.
fn qvalue(text: &[u8]) -> Option<u16> {
    let (whole, rest) = text.split_first()?;
    let decimals = if rest.is_empty() { rest } else { rest.strip_prefix(b".")? };
    if !matches!(whole, b'0' | b'1') || decimals.len() > 3 || !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let thousandths = iter::once(whole).chain(decimals).chain(b"000").take(4);
    let weight = thousandths.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    (weight <= 1000).then_some(weight)
}

/// Splits at a separator, but not within a quoted string (RFC 9110 5.6.4), where it is text.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |&byte| {
        let splits = byte == separator && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        splits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::with_head;

    fn choice(lines: &str) -> Choice {
        with_head("GET /channels/a", lines, by_headers)
    }

    #[test]
    fn accept_decides() {
        for (accept, want) in [
            // Event streams must be named.
            ("text/event-stream", Choice::Sse),
            ("Text/Event-Stream", Choice::Sse),
            ("text/event-stream;q=0.001", Choice::Sse),
            ("text/event-stream; charset=utf-8; q=0.5", Choice::Sse),
            ("text/html, text/event-stream;q=0.1", Choice::Sse),
            ("*/*, application/json,text/event-stream", Choice::Sse),
            ("text/event-stream;q=0, text/event-stream;q=1", Choice::Sse),
            ("text/event-stream;q=0", Choice::Poll),
            ("text/event-stream;q=0.000", Choice::Poll),
            ("text/event-stream ; Q=0.0", Choice::Poll),
            ("text/event-streams", Choice::Poll),
            ("text/*", Choice::Poll),
            ("*/*", Choice::Poll),
            ("", Choice::Poll),
            (",, ,;q=1,", Choice::Poll),
            // A browser.
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Choice::View),
            ("text/html", Choice::View),
            ("TEXT/HTML;q=0.2", Choice::View),
            ("text/html;level=1", Choice::View),
            ("text/html, application/json;q=0.9", Choice::View),
            ("text/html;q=0.9, application/*, application/json;q=0.8", Choice::View),
            // A program that takes HTML too.
            ("text/html, */*", Choice::Poll),
            ("text/html;q=0", Choice::Poll),
            ("text/html, application/json", Choice::Poll),
            ("text/html;q=0.5, application/json;q=0.6", Choice::Poll),
            ("text/html;q=0.9, application/*", Choice::Poll),
            ("text/html;q=0.8, */*;q=0.9", Choice::Poll),
            // What is malformed is not there.
            ("text/event-stream;q=2", Choice::Poll),
            ("text/event-stream;q=1.001", Choice::Poll),
            ("text/event-stream;q=0.5555", Choice::Poll),
            ("text/event-stream;q=", Choice::Poll),
            ("text/event-stream;q=.5", Choice::Poll),
            ("text/event-stream;q=-1", Choice::Poll),
            // A separator within quotes is text.
            ("text/plain;x=\", text/event-stream ,\"", Choice::Poll),
            ("text/plain;x=\"\\\", text/event-stream\"", Choice::Poll),
            ("text/event-stream;x=\";q=0\"", Choice::Sse),
            ("text/plain;x=\"a\", text/event-stream", Choice::Sse),
        ] {
            assert_eq!(choice(&format!("Accept: {accept}\r\n")), want, "{accept}");
        }
    }

    #[test]
    fn no_accept_is_a_poll() {
        assert_eq!(choice(""), Choice::Poll);
    }

    #[test]
    fn several_accept_lines_are_one_list() {
        assert_eq!(choice("Accept: */*\r\nAccept: text/event-stream\r\n"), Choice::Sse);
        assert_eq!(choice("Accept: text/html\r\nAccept: application/json\r\n"), Choice::Poll);
        assert_eq!(choice("Accept: text/html\r\nAccept: application/json;q=0.5\r\n"), Choice::View);
    }

    #[test]
    fn upgrade_wins_over_accept() {
        assert_eq!(choice("Upgrade: websocket\r\nAccept: text/event-stream\r\n"), Choice::WebSocket);
        assert_eq!(choice("Upgrade: h2c, WebSocket\r\n"), Choice::WebSocket);
        assert_eq!(choice("Upgrade: h2c\r\n"), Choice::Poll);
    }

    #[test]
    fn the_parameter_wins_over_all_headers() {
        for (asked, want) in
            [("websocket", Choice::WebSocket), ("sse", Choice::Sse), ("poll", Choice::Poll), ("view", Choice::View)]
        {
            for lines in ["", "Accept: text/html\r\n", "Accept: text/event-stream\r\n", "Upgrade: websocket\r\n"] {
                let got = with_head("GET /channels/a", lines, |head| choose(head, Some(asked.as_bytes())));
                assert_eq!(got, Ok(want), "{asked} {lines}");
            }
        }
        for asked in ["", "SSE", "ws", "sse "] {
            let got = with_head("GET /channels/a", "", |head| choose(head, Some(asked.as_bytes())));
            assert_eq!(got.map_err(|refusal| refusal.code), Err(Code::BadTransport), "{asked:?}");
        }
    }

    #[test]
    fn who_wants_the_page() {
        let html = "Accept: text/html,*/*;q=0.8\r\n";
        for (line, lines, want) in [
            ("GET /channels/a", html, true),
            ("GET /channels/a,b?after=earliest", html, true),
            ("GET /channels/a?transport=view", html, true),
            ("GET /channels/a?transport=view", "", false),
            ("GET /channels/a?transport=view", "Accept: */*\r\n", false),
            ("GET /channels/a?transport=poll", html, false),
            ("GET /channels/a?transport=bogus", html, false),
            ("GET /channels/a", "", false),
            ("HEAD /channels/a", html, false),
            ("POST /channels/a", html, false),
            ("GET /channels", html, false),
            ("GET /", html, false),
        ] {
            assert_eq!(with_head(line, lines, wants_page), want, "{line} {lines}");
        }
    }

    #[test]
    fn who_wants_sse() {
        let sse = "Accept: text/event-stream\r\n";
        for (line, lines, want) in [
            ("GET /channels/a", sse, true),
            ("GET /channels/a,b?after=1-1", sse, true),
            ("GET /channels/a?transport=sse", "", true),
            ("GET /channels/a?transport=poll", sse, false),
            ("GET /channels/a?transport=bogus", sse, false),
            ("GET /channels/a?transport=sse&transport=sse", sse, false),
            ("GET /channels/a", "", false),
            ("HEAD /channels/a", sse, false),
            ("POST /channels/a", sse, false),
            ("GET /channels", sse, false),
            ("GET /elsewhere", sse, false),
        ] {
            assert_eq!(with_head(line, lines, wants_sse), want, "{line} {lines}");
        }
    }
}
