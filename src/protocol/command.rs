//! Commands of the subprotocol `tidings.v1`: one line of words, and for `publish` a payload.
//!
//! ```text
//! subscribe SET [ref=R]
//! unsubscribe SET [ref=R]
//! publish NAME [event=E] [type=T] [key=K] [ref=R] LF payload
//! ```
//!
//! One space between words, each percent-encoded where needed; options once, `ref` last. Knows
//! the grammar only: what a name or a type may be is for `names`, what a command does for the
//! engine.

use std::borrow::Cow;

use super::http::percent_decode;

/// The longest `ref`, in bytes.
const REFERENCE_BYTES_MAX: usize = 64;

/// One command, its words decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Read these channels too.
    Subscribe(Cow<'a, [u8]>),
    /// Read these no more.
    Unsubscribe(Cow<'a, [u8]>),
    /// Publish this message.
    Publish {
        /// The channel.
        channel: Cow<'a, [u8]>,
        /// `event=`.
        event: Option<Cow<'a, [u8]>>,
        /// `type=`.
        media_type: Option<Cow<'a, [u8]>>,
        /// `key=`.
        key: Option<Cow<'a, [u8]>>,
        /// What follows the line.
        payload: &'a [u8],
    },
}

/// Which rule a command breaks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Display says it")]
pub enum Error {
    Word,
    Operand,
    Spaces,
    Percent,
    Option,
    Twice,
    Order,
    Reference,
    Line,
    Text,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Error::Word => "the first word must be subscribe, unsubscribe or publish",
            Error::Operand => "the second word must be a channel, or for subscribe and unsubscribe a channel set",
            Error::Spaces => "words are separated by one space; a space inside a word is %20",
            Error::Percent => "a % must be followed by two hex digits; a % itself is %25",
            Error::Option => "publish takes event=, type=, key= and ref=; the other commands take ref=",
            Error::Twice => "an option may be given once",
            Error::Order => "ref= must be the last word",
            Error::Reference => "ref must be 1 to 64 visible ASCII bytes",
            Error::Line => "publish needs a newline after its line, then the payload, which may be empty",
            Error::Text => "only publish takes text after its line",
        })
    }
}

/// A command, and the `ref` that its answer repeats. The `ref` is found also where the rest is wrong.
pub type Decoded<'a> = (Result<Command<'a>, Error>, Option<&'a str>);

/// Decodes one inbound frame.
pub fn decode(frame: &[u8]) -> Decoded<'_> {
    let (line, payload) = match frame.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&frame[..end], Some(&frame[end + 1..])),
        None => (frame, None),
    };
    match find_reference(line) {
        Ok((words, reference)) => (decode_words(words, payload), reference),
        Err(error) => (Err(error), None),
    }
}

/// Splits a `ref=R` off the end of the line.
fn find_reference(line: &[u8]) -> Result<(&[u8], Option<&str>), Error> {
    let start = line.iter().rposition(|&byte| byte == b' ').map_or(0, |space| space + 1);
    let Some(value) = line[start..].strip_prefix(b"ref=") else { return Ok((line, None)) };
    let is_visible = !value.is_empty() && value.len() <= REFERENCE_BYTES_MAX && value.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(value) {
        Ok(reference) if is_visible => Ok((&line[..start.saturating_sub(1)], Some(reference))),
        _ => Err(Error::Reference),
    }
}

fn decode_words<'a>(line: &'a [u8], payload: Option<&'a [u8]>) -> Result<Command<'a>, Error> {
    let mut words = line.split(|&byte| byte == b' ');
    let verb = words.next().unwrap_or_default();
    if !matches!(verb, b"subscribe" | b"unsubscribe" | b"publish") {
        return Err(Error::Word);
    }
    let operand = decode_word(words.next().ok_or(Error::Operand)?)?;
    let [mut event, mut media_type, mut key] = [None, None, None];
    for word in words {
        if word.is_empty() {
            return Err(Error::Spaces);
        }
        let split = word.iter().position(|&byte| byte == b'=').ok_or(Error::Option)?;
        let option = match &word[..split] {
            b"ref" => return Err(Error::Order),
            b"event" => &mut event,
            b"type" => &mut media_type,
            b"key" => &mut key,
            _ => return Err(Error::Option),
        };
        if verb != b"publish" {
            return Err(Error::Option);
        }
        let value = percent_decode(&word[split + 1..], false).ok_or(Error::Percent)?;
        if option.replace(value).is_some() {
            return Err(Error::Twice);
        }
    }
    match (verb, payload) {
        (b"publish", Some(payload)) => Ok(Command::Publish { channel: operand, event, media_type, key, payload }),
        (b"publish", None) => Err(Error::Line),
        // A line may end in its newline; text behind it is something else.
        (_, Some(text)) if !text.is_empty() => Err(Error::Text),
        (b"subscribe", _) => Ok(Command::Subscribe(operand)),
        _ => Ok(Command::Unsubscribe(operand)),
    }
}

fn decode_word(word: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    if word.is_empty() {
        return Err(Error::Spaces);
    }
    percent_decode(word, false).ok_or(Error::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish<'a>(channel: &'a str, options: [Option<&'a str>; 3], payload: &'a [u8]) -> Command<'a> {
        let [event, media_type, key] = options.map(|option| option.map(|text| Cow::Borrowed(text.as_bytes())));
        Command::Publish { channel: Cow::Borrowed(channel.as_bytes()), event, media_type, key, payload }
    }

    #[test]
    fn commands_are_read() {
        let cases: &[(&[u8], Command<'_>, Option<&str>)] = &[
            (b"subscribe a,b", Command::Subscribe(Cow::Borrowed(b"a,b")), None),
            (b"subscribe a%2Cb ref=7", Command::Subscribe(Cow::Borrowed(b"a,b")), Some("7")),
            (b"subscribe a\n", Command::Subscribe(Cow::Borrowed(b"a")), None),
            (b"unsubscribe a ref=x=y", Command::Unsubscribe(Cow::Borrowed(b"a")), Some("x=y")),
            (b"publish a\n", publish("a", [None; 3], b""), None),
            (b"publish a\nhello\nworld ref=1", publish("a", [None; 3], b"hello\nworld ref=1"), None),
            (
                b"publish a key=k event=a%20b type=text/plain ref=r\n\xff\0",
                publish("a", [Some("a b"), Some("text/plain"), Some("k")], b"\xff\0"),
                Some("r"),
            ),
            (b"publish a event=\nx", publish("a", [Some(""), None, None], b"x"), None),
        ];
        for (frame, command, reference) in cases {
            assert_eq!(decode(frame), (Ok(command.clone()), *reference), "{:?}", String::from_utf8_lossy(frame));
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reference() {
        let long = format!("subscribe a ref={}", "x".repeat(65));
        let cases: &[(&[u8], Error, Option<&str>)] = &[
            (b"", Error::Word, None),
            (b"\n", Error::Word, None),
            (b"ref=1", Error::Word, Some("1")),
            (b"Subscribe a", Error::Word, None),
            (b" subscribe a", Error::Word, None),
            (b"publication a ref=1\nx", Error::Word, Some("1")),
            (b"subscribe", Error::Operand, None),
            (b"subscribe ref=1", Error::Operand, Some("1")),
            (b"subscribe  a", Error::Spaces, None),
            (b"subscribe a ", Error::Spaces, None),
            (b"subscribe a  ref=1", Error::Spaces, Some("1")),
            (b"subscribe a%2 ref=1", Error::Percent, Some("1")),
            (b"publish a event=%zz ref=1\n", Error::Percent, Some("1")),
            (b"subscribe a b", Error::Option, None),
            (b"subscribe a event=x", Error::Option, None),
            (b"publish a colour=x\n", Error::Option, None),
            (b"publish a event=x event=x\n", Error::Twice, None),
            (b"publish a ref=1 event=x\n", Error::Order, None),
            (b"publish a ref=1 ref=2\n", Error::Order, Some("2")),
            (b"subscribe a ref=", Error::Reference, None),
            (b"subscribe a ref=\xc3\xa9", Error::Reference, None),
            (b"subscribe a ref=1\r", Error::Reference, None),
            (long.as_bytes(), Error::Reference, None),
            (b"publish a", Error::Line, None),
            (b"subscribe a ref=1\ntext", Error::Text, Some("1")),
        ];
        for (frame, error, reference) in cases {
            assert_eq!(decode(frame), (Err(*error), *reference), "{:?}", String::from_utf8_lossy(frame));
        }
        let mut sentences: Vec<String> = cases.iter().map(|(_, error, _)| error.to_string()).collect();
        sentences.sort_unstable();
        sentences.dedup();
        assert_eq!(sentences.len(), 10, "each says what would be right: {sentences:?}");
        assert!(sentences.iter().all(|sentence| sentence.len() > 20), "{sentences:?}");
    }

    #[test]
    fn options_come_in_any_order_and_some_are_left_out() {
        const OPTIONS: [&str; 3] = ["event=e%20e", "type=text/plain", "key=k%25"];
        let decoded = [Some("e e"), Some("text/plain"), Some("k%")];
        let orders = (0..64).map(|n| [n % 4, n / 4 % 4, n / 16]);
        let mut read = 0;
        for order in orders {
            // 3 leaves a place empty.
            let given: Vec<usize> = order.into_iter().filter(|&option| option < 3).collect();
            let words: String = given.iter().map(|&option| format!(" {}", OPTIONS[option])).collect();
            let twice = (1..given.len()).any(|place| given[..place].contains(&given[place]));
            for reference in [None, Some("r")] {
                let tail = reference.map_or(String::new(), |reference| format!(" ref={reference}"));
                let frame = format!("publish a%2Db{words}{tail}\nref=x\n");
                let mut options = [None; 3];
                given.iter().for_each(|&option| options[option] = decoded[option]);
                let want = if twice { Err(Error::Twice) } else { Ok(publish("a-b", options, b"ref=x\n")) };
                assert_eq!(decode(frame.as_bytes()), (want, reference), "{frame:?}");
                // The same words mean nothing to the others.
                let frame = format!("subscribe a{words}{tail}");
                let want =
                    if given.is_empty() { Ok(Command::Subscribe(Cow::Borrowed(b"a"))) } else { Err(Error::Option) };
                assert_eq!(decode(frame.as_bytes()), (want, reference), "{frame:?}");
                read += 1;
            }
        }
        assert_eq!(read, 128);
    }

    /// Every byte in a channel's place, as it is and percent-encoded.
    #[test]
    fn every_byte_may_be_encoded() {
        for byte in (0..=u8::MAX).step_by(crate::stride(32)) {
            for encoded in [format!("%{byte:02x}"), format!("%{byte:02X}")] {
                let frame = format!("subscribe x{encoded} ref=1");
                let want = Command::Subscribe(Cow::Owned(vec![b'x', byte]));
                assert_eq!(decode(frame.as_bytes()), (Ok(want), Some("1")), "{frame}");
            }
            let frame = [b"unsubscribe x", &[byte][..], b"y"].concat();
            let want = match byte {
                b' ' => Err(Error::Option),
                b'\n' => Err(Error::Text),
                b'%' => Err(Error::Percent),
                // A `+` is no space here, and what is no name is for others to judge.
                _ => Ok(Command::Unsubscribe(Cow::Borrowed(&frame[12..]))),
            };
            assert_eq!(decode(&frame), (want, None), "{byte:#04x}");
        }
    }

    /// 1 to 64 visible ASCII bytes, taken as they are: a `%` in it is a `%`.
    #[test]
    fn references() {
        for byte in (0..=u8::MAX).step_by(crate::stride(32)) {
            let frame = [b"subscribe a ref=", &[byte][..]].concat();
            let (result, reference) = decode(&frame);
            match byte {
                0x21..=0x7e => assert_eq!(reference.map(str::as_bytes), Some(&[byte][..]), "{byte:#04x}"),
                // The word ends before it, and another begins.
                b' ' => assert_eq!((result, reference), (Err(Error::Order), None)),
                _ => assert_eq!((result, reference), (Err(Error::Reference), None), "{byte:#04x}"),
            }
        }
        for length in [1, 63, 64, 65, 1000] {
            let frame = format!("publish a ref={}\n", "%".repeat(length));
            let (result, reference) = decode(frame.as_bytes());
            assert_eq!((result.is_ok(), reference.map(str::len)), (length <= 64, (length <= 64).then_some(length)));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Every short string over the bytes that matter.
        let alphabet = b" \n%=refa";
        for n in (0..alphabet.len().pow(5)).step_by(crate::stride(601)) {
            let tail: Vec<u8> = (0..5).map(|place| alphabet[n / alphabet.len().pow(place) % alphabet.len()]).collect();
            for verb in ["", "subscribe a", "publish a"] {
                let frame = [verb.as_bytes(), &tail].concat();
                let (result, _) = decode(&frame);
                assert!(result.is_err() || frame.starts_with(b"subscribe ") || frame.starts_with(b"publish "));
            }
        }
    }
}
