//! Extensions: what a client offers, which offer is accepted, and how that is answered.
//!
//! RFC 6455 9.1 (the header), RFC 7692 5 and 7.1 (permessage-deflate). Knows nothing of
//! compression itself, nor whether anybody wants it. Both sides forget the window after each
//! message, always (`server_no_context_takeover`, `client_no_context_takeover`): so a connection
//! has no state of its own, and one compressed message serves many connections.
//!
//! Invariant: one pass over the bytes; a header that breaks the grammar is an error, an offer
//! that cannot be met is passed over for the next one.

use std::borrow::Cow;

use crate::protocol::http::is_token_byte;

/// How far back a compressed message may refer: 2^9 to 2^15 bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Window {
    /// 512 bytes.
    Bits9 = 9,
    /// 1 KiB.
    Bits10 = 10,
    /// 2 KiB.
    Bits11 = 11,
    /// 4 KiB.
    Bits12 = 12,
    /// 8 KiB.
    Bits13 = 13,
    /// 16 KiB.
    Bits14 = 14,
    /// 32 KiB, which is all that DEFLATE has.
    Bits15 = 15,
}

impl Window {
    /// The windows, smallest first.
    pub const ALL: [Window; 7] =
        [Window::Bits9, Window::Bits10, Window::Bits11, Window::Bits12, Window::Bits13, Window::Bits14, Window::Bits15];

    /// Its number among all.
    pub fn number(self) -> usize {
        self as usize - Window::Bits9 as usize
    }

    /// True if a message of so many bytes, compressed with any window, never refers back farther
    /// than this one: because it may refer so far, or because it is no longer.
    pub fn holds(self, len: usize) -> bool {
        self == Window::Bits15 || len <= 1 << self as u8
    }

    /// RFC 7692 7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15,
    /// inclusive". 8 is declined: zlib, which most peers have, makes no raw DEFLATE stream of that
    /// window, and what fits into its 256 bytes is not worth compressing.
    fn parse(value: &[u8]) -> Option<Window> {
        Some(match value {
            b"9" => Window::Bits9,
            b"10" => Window::Bits10,
            b"11" => Window::Bits11,
            b"12" => Window::Bits12,
            b"13" => Window::Bits13,
            b"14" => Window::Bits14,
            b"15" => Window::Bits15,
            _ => return None,
        })
    }
}

/// An offer of permessage-deflate that is accepted.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Deflate {
    /// The `server_max_window_bits` of the offer.
    asked: Option<Window>,
}

impl Deflate {
    /// The window that our messages must keep to.
    pub fn window(self) -> Window {
        self.asked.unwrap_or(Window::Bits15)
    }

    /// Appends the value of the answer's `Sec-WebSocket-Extensions`. RFC 7692 7.1.1.1 and 7.1.1.2
    /// let a server add both `no_context_takeover` unasked; 7.1.2.1: it accepts
    /// `server_max_window_bits` "by including" it. `client_max_window_bits` is never sent: our
    /// inflater has the whole window whatever the client uses of it.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if let Some(window) = self.asked {
            out.extend_from_slice(format!("; server_max_window_bits={}", window as u8).as_bytes());
        }
    }
}

/// The header is not what RFC 6455 9.1 allows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Finds the first offer of permessage-deflate that can be met. The lines are one list (9.1), in
/// the order of the client's preference (RFC 7692 5).
///
/// All of it is read even so: "If a value is received by either the client or the server during
/// negotiation that does not conform to the ABNF below, the recipient of such malformed data MUST
/// immediately _Fail the WebSocket Connection_" (9.1).
pub fn choose_deflate<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<Deflate>, Malformed> {
    let mut chosen = None;
    for line in lines {
        let mut rest = Tokens(line);
        loop {
            // RFC 9110 5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty
            // list elements". A header of nothing else offers nothing, and harms nobody.
            if rest.at_end() {
                break;
            }
            if rest.take(b',') {
                continue;
            }
            let offer = read_offer(&mut rest)?;
            chosen = chosen.or(offer);
            if !rest.at_end() && !rest.take(b',') {
                return Err(Malformed);
            }
        }
    }
    Ok(chosen)
}

/// `extension = extension-token *( ";" extension-param )`. `None`: another extension, or an offer
/// that is declined. RFC 7692 7: "A server MUST decline an extension negotiation offer for this
/// extension if" it "contains an extension parameter not defined for use in an offer", one "with
/// an invalid value", or "multiple extension parameters with the same name".
fn read_offer(rest: &mut Tokens<'_>) -> Result<Option<Deflate>, Malformed> {
    let mut is_met = rest.token()? == b"permessage-deflate";
    let mut deflate = Deflate::default();
    let mut seen = [false; PARAMETERS.len()];
    while rest.take(b';') {
        let name = rest.token()?;
        let value = if rest.take(b'=') { Some(rest.value()?) } else { None };
        let Some(nth) = PARAMETERS.iter().position(|known| *known == name) else {
            is_met = false;
            continue;
        };
        is_met &= !std::mem::replace(&mut seen[nth], true);
        is_met &= match (nth, value.as_deref()) {
            (NO_SERVER_TAKEOVER | NO_CLIENT_TAKEOVER, value) => value.is_none(),
            (SERVER_WINDOW, value) => {
                deflate.asked = value.and_then(Window::parse);
                deflate.asked.is_some()
            }
            // A hint of what the client can do, and we ask nothing of it: 8 is as good as any.
            (_, value) => value.is_none_or(|value| value == b"8" || Window::parse(value).is_some()),
        };
    }
    Ok(is_met.then_some(deflate))
}

/// RFC 7692 7.1: what an offer may have.
const PARAMETERS: [&[u8]; 4] = [
    b"server_no_context_takeover",
    b"client_no_context_takeover",
    b"server_max_window_bits",
    b"client_max_window_bits",
];
const NO_SERVER_TAKEOVER: usize = 0;
const NO_CLIENT_TAKEOVER: usize = 1;
const SERVER_WINDOW: usize = 2;

/// What of a line is not read yet. Space and tabs may stand between any two of its parts: RFC 6455
/// 9.1 uses "the "implied *LWS rule"" of RFC 2616.
struct Tokens<'a>(&'a [u8]);

impl<'a> Tokens<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn at_end(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }

    /// Takes this separator, if it is next.
    fn take(&mut self, separator: u8) -> bool {
        self.skip_space();
        match self.0.strip_prefix(&[separator]) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        self.skip_space();
        let len = self.0.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(len);
        self.0 = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// `token | quoted-string`: "When using the quoted-string syntax variant, the value after
    /// quoted-string unescaping MUST conform to the 'token' ABNF" (9.1).
    fn value(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        if !self.take(b'"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = Vec::new();
        loop {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            let byte = match byte {
                b'"' => break,
                b'\\' => {
                    let (&escaped, rest) = self.0.split_first().ok_or(Malformed)?;
                    self.0 = rest;
                    escaped
                }
                byte => byte,
            };
            if !is_token_byte(byte) {
                return Err(Malformed);
            }
            value.push(byte);
        }
        if value.is_empty() { Err(Malformed) } else { Ok(Cow::Owned(value)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What these header lines are answered with; an empty text is no answer.
    fn answer(lines: &[&str]) -> Result<String, Malformed> {
        let chosen = choose_deflate(lines.iter().map(|line| line.as_bytes()))?;
        let mut out = Vec::new();
        if let Some(deflate) = chosen {
            deflate.write(&mut out);
        }
        Ok(String::from_utf8(out).unwrap())
    }

    const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    /// The answer, with this behind what is always agreed.
    fn agreed(more: &str) -> Result<String, Malformed> {
        Ok(format!("{AGREED}{more}"))
    }

    #[test]
    fn offers_that_are_met() {
        for (lines, more) in [
            (&["permessage-deflate"][..], ""),
            // What browsers, Python's websockets and Node's ws offer.
            (&["permessage-deflate; client_max_window_bits"], ""),
            (&["permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"], ""),
            (&["x-webkit-deflate-frame, permessage-deflate"], ""),
            // Each parameter, and all.
            (&["permessage-deflate; server_no_context_takeover"], ""),
            (&["permessage-deflate; client_no_context_takeover"], ""),
            (&["permessage-deflate; client_no_context_takeover; server_no_context_takeover"], ""),
            (&["permessage-deflate; client_max_window_bits=8"], ""),
            (&["permessage-deflate; client_max_window_bits=9"], ""),
            (&["permessage-deflate; client_max_window_bits=15"], ""),
            (&["permessage-deflate; server_max_window_bits=9"], "; server_max_window_bits=9"),
            (&["permessage-deflate; server_max_window_bits=10"], "; server_max_window_bits=10"),
            (&["permessage-deflate; server_max_window_bits=11"], "; server_max_window_bits=11"),
            (&["permessage-deflate; server_max_window_bits=12"], "; server_max_window_bits=12"),
            (&["permessage-deflate; server_max_window_bits=13"], "; server_max_window_bits=13"),
            (&["permessage-deflate; server_max_window_bits=14"], "; server_max_window_bits=14"),
            (&["permessage-deflate; server_max_window_bits=15"], "; server_max_window_bits=15"),
            (
                &["permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                   server_max_window_bits=12; client_max_window_bits=10"],
                "; server_max_window_bits=12",
            ),
            // Values in quotes, with escapes.
            (&["permessage-deflate; server_max_window_bits=\"15\""], "; server_max_window_bits=15"),
            (&["permessage-deflate; server_max_window_bits=\"1\\0\""], "; server_max_window_bits=10"),
            (&["permessage-deflate; client_max_window_bits=\"9\""], ""),
            // Space, and none of it.
            (&["permessage-deflate;server_max_window_bits=10;client_max_window_bits"], "; server_max_window_bits=10"),
            (&["\t permessage-deflate \t;  server_max_window_bits = 10 \t"], "; server_max_window_bits=10"),
            // Empty elements of the list.
            (&[", ,permessage-deflate,"], ""),
            (&["", "permessage-deflate"], ""),
            // The first that can be met wins, of one line and of several.
            (
                &["permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=12"],
                "; server_max_window_bits=9",
            ),
            (&["permessage-deflate; server_max_window_bits=8, permessage-deflate"], ""),
            (
                &["permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=9"],
                "; server_max_window_bits=9",
            ),
            (
                &["permessage-deflate; mystery, permessage-deflate; server_max_window_bits=13"],
                "; server_max_window_bits=13",
            ),
            (&["permessage-deflate, permessage-deflate; mystery"], ""),
            (&["bbf-usp-protocol; size=\"3\"; a", "permessage-deflate"], ""),
            (&["foo; server_max_window_bits=99, permessage-deflate"], ""),
        ] {
            assert_eq!(answer(lines), agreed(more), "{lines:?}");
        }
    }

    #[test]
    fn offers_that_are_declined() {
        for lines in [
            &[][..],
            &[""],
            &[" , ,\t"],
            &["x-webkit-deflate-frame"],
            &["permessage-bzip2; client_max_window_bits"],
            &["deflate-frame, perframe-deflate; a=b"],
            // Names are compared as they are, case and all.
            &["Permessage-Deflate"],
            &["permessage-deflate; Server_Max_Window_Bits=10"],
            // A parameter that is not defined.
            &["permessage-deflate; mystery"],
            &["permessage-deflate; server_max_window_bits=10; mystery=1"],
            &["permessage-deflate; permessage-deflate"],
            // A value where none belongs.
            &["permessage-deflate; server_no_context_takeover=true"],
            &["permessage-deflate; client_no_context_takeover=\"1\""],
            // None, or a wrong one, where one belongs.
            &["permessage-deflate; server_max_window_bits"],
            &["permessage-deflate; server_max_window_bits=0"],
            &["permessage-deflate; server_max_window_bits=7"],
            &["permessage-deflate; server_max_window_bits=8"],
            &["permessage-deflate; server_max_window_bits=16"],
            &["permessage-deflate; server_max_window_bits=010"],
            &["permessage-deflate; server_max_window_bits=+10"],
            &["permessage-deflate; server_max_window_bits=-10"],
            &["permessage-deflate; server_max_window_bits=10.0"],
            &["permessage-deflate; server_max_window_bits=0xa"],
            &["permessage-deflate; server_max_window_bits=99999999999999999999"],
            &["permessage-deflate; server_max_window_bits=ten"],
            &["permessage-deflate; client_max_window_bits=0"],
            &["permessage-deflate; client_max_window_bits=7"],
            &["permessage-deflate; client_max_window_bits=16"],
            &["permessage-deflate; client_max_window_bits=08"],
            &["permessage-deflate; client_max_window_bits=\"16\""],
            // The same parameter twice, however it agrees with itself.
            &["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
            &["permessage-deflate; server_max_window_bits=10; server_max_window_bits=10"],
            &["permessage-deflate; client_max_window_bits; client_max_window_bits=15"],
        ] {
            assert_eq!(answer(lines), Ok(String::new()), "{lines:?}");
        }
    }

    #[test]
    fn headers_that_break_the_grammar() {
        for line in [
            ";",
            "=",
            "permessage-deflate;",
            "permessage-deflate; ;",
            "permessage-deflate; ; mystery",
            "permessage-deflate; =10",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=, other",
            "permessage-deflate; server_max_window_bits==10",
            "permessage-deflate; server_max_window_bits=10=10",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=10\"",
            "permessage-deflate; server_max_window_bits=\"10\\",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=\"1 0\"",
            "permessage-deflate; server_max_window_bits=\"10\"\"10\"",
            "permessage-deflate; server_max_window_bits=1 0",
            "permessage-deflate client_max_window_bits",
            "permessage-deflate=1",
            "permessage/deflate",
            "\"permessage-deflate\"",
            "permessage-deflate; \"client_max_window_bits\"",
            "permessage-deflate: client_max_window_bits",
            "perméssage-deflate",
            // What stands before it does not excuse it.
            "permessage-deflate, ;",
        ] {
            assert_eq!(answer(&[line]), Err(Malformed), "{line}");
            assert_eq!(answer(&["permessage-deflate", line]), Err(Malformed), "{line}");
        }
    }

    #[test]
    fn a_window_holds_what_it_is_as_long_as() {
        for (nth, window) in Window::ALL.into_iter().enumerate() {
            assert_eq!(window.number(), nth);
            let bytes = 512 << nth;
            assert!(window.holds(bytes));
            assert_eq!(window.holds(bytes + 1), window == Window::Bits15);
        }
    }

    /// Every line of these bytes up to a length is read to its end, one way or the other.
    #[test]
    fn no_line_panics() {
        let alphabet = b"a;=,\"\\ \xff";
        for number in (0..alphabet.len().pow(6)).step_by(crate::stride(9001)) {
            let mut rest = number;
            let line: Vec<u8> = std::iter::from_fn(|| {
                let byte = alphabet[rest % alphabet.len()];
                rest /= alphabet.len();
                Some(byte)
            })
            .take(6)
            .collect();
            let _ = choose_deflate([&line[..]].into_iter());
        }
    }
}
