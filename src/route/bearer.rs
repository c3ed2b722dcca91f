//! The token that a request shows, from the one place of three where it stands.
//!
//! It does not know which tokens are good. Invariant: the first place that holds one decides; a
//! token is never looked for behind a wrong one.
//! RFC 6750 2.1 (Authorization), 2.3 (the query), RFC 9110 11.4 and 11.6.2.

use std::borrow::Cow;

use super::{Query, at_most_once};
use crate::error::{Code, Refusal};
use crate::protocol::http::RequestHead;

/// The token of the `Authorization` header, else of the query, else the one `offered` as a
/// subprotocol. An empty one is none: it is what a script sends whose variable is not set.
pub fn token<'h>(head: &RequestHead<'h>, offered: Option<&'h str>) -> Result<Option<Cow<'h, [u8]>>, Refusal> {
    // RFC 9110 11.6.2: `Authorization = credentials`, one and not a list. Of two a proxy may have
    // checked the other.
    let authorization = at_most_once(head, "authorization", Code::BadRequest)?;
    if let Some(token) = authorization.and_then(bearer) {
        return Ok(Some(Cow::Owned(token.to_vec())));
    }
    let query = Query::read_only(head, &["token"])?;
    if let Some(token) = query.into_value("token").filter(|token| !token.is_empty()) {
        return Ok(Some(token));
    }
    Ok(offered.filter(|token| !token.is_empty()).map(|token| Cow::Borrowed(token.as_bytes())))
}

/// RFC 9110 11.4: `credentials = auth-scheme [ 1*SP ( token68 / #auth-param ) ]`, the scheme
/// without regard to case. Another scheme is somebody else's, of a proxy in front perhaps.
fn bearer(credentials: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = credentials.split_at(credentials.iter().position(|&byte| byte == b' ')?);
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::with_head;

    fn shown(target: &str, lines: &str, offered: Option<&str>) -> Result<Option<String>, Code> {
        let text = |token: Cow<'_, [u8]>| token.escape_ascii().to_string();
        with_head(&format!("GET {target}"), lines, |head| {
            token(head, offered).map(|token| token.map(text)).map_err(|refusal| refusal.code)
        })
    }

    #[test]
    fn authorization() {
        for (value, want) in [
            ("Bearer a", Some("a")),
            ("bearer a", Some("a")),
            ("BEARER   a-._~Z", Some("a-._~Z")),
            ("Bearer a b", Some("a b")),
            ("Bearer a=", Some("a=")),
            ("Bearer \"a\"", Some("\\\"a\\\"")),
            ("Bearer a, Bearer b", Some("a, Bearer b")),
            ("Bearer \u{e9}", Some("\\xc3\\xa9")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearera", None),
            ("Bearer\ta", None),
            ("Bearer:a", None),
            ("Basic YTpi", None),
            ("a", None),
            ("", None),
        ] {
            let got = shown("/channels/a", &format!("Authorization: {value}\r\n"), None);
            assert_eq!(got, Ok(want.map(str::to_owned)), "{value:?}");
        }
        let twice = shown("/channels/a", "Authorization: Bearer a\r\nauthorization: Bearer a\r\n", None);
        assert_eq!(twice, Err(Code::BadRequest));
    }

    #[test]
    fn the_first_place_that_has_one_decides() {
        const HEADER: &str = "Authorization: Bearer h\r\n";
        for (target, lines, offered, want) in [
            ("/channels/a?token=q", HEADER, Some("s"), Some("h")),
            ("/channels/a?token=q", "", Some("s"), Some("q")),
            ("/channels/a?token=q", "Authorization: Basic YTpi\r\n", Some("s"), Some("q")),
            ("/channels/a?token=q", "Authorization: Bearer\r\n", Some("s"), Some("q")),
            ("/channels/a", "", Some("s"), Some("s")),
            ("/channels/a?token=", "", Some("s"), Some("s")),
            ("/channels/a?token", "", Some(""), None),
            ("/channels/a?%74oken=%71", "", None, Some("q")),
            ("/channels/a?token=a+b", "", None, Some("a b")),
            ("/channels/a?Token=q", "", None, None),
            ("/channels/a", "Cookie: token=c\r\n", None, None),
            ("/channels/a", "", None, None),
        ] {
            assert_eq!(shown(target, lines, offered), Ok(want.map(str::to_owned)), "{target} {lines} {offered:?}");
        }
    }
}
