//! Tokens: who may publish, who may read, and in which channels.
//!
//! Plain values; knows no request, no connection and no file. A token is kept as its SHA-1 alone,
//! so nothing here can show one.
//! Invariants: what a token is good for is the sum of all that was allowed to it; a kind of right
//! that was ever guarded stays guarded, so that replacing tokens closes doors and never opens one.
//! RFC 6750 2.1 (what a bearer token may look like: ours are a part of it).

use std::collections::BTreeMap;
use std::fmt;
use std::hint;

use sha1_smol::Sha1;

/// Tokens at once, each prefix of one counted. What a request shows is compared with all of them: at
/// most some 11 microseconds in a release build.
const TOKENS_MAX: usize = 10_000;
/// The longest token, and the longest prefix: that of a channel's name.
const BYTES_MAX: usize = 128;

/// U+FEFF. RFC 3629 6: at the beginning it is a signature, and not part of the text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The tokens a server knows. None: everybody may do everything.
///
/// ```
/// let mut tokens = tidings::Tokens::default();
/// tokens.allow_publish("s3cret", "")?; // to every channel; it may read them too
/// tokens.allow_subscribe("r3ader", "news.")?; // may read the channels whose names begin so
/// let mut config = tidings::Config::default();
/// config.tokens = tokens;
/// # Ok::<(), tidings::TokenError>(())
/// ```
#[derive(Clone, Default)]
pub struct Tokens {
    digests: Vec<Digest>,
    /// What each may do, in the order of `digests`.
    grants: Vec<Grant>,
    /// Where each digest stands.
    places: BTreeMap<Digest, u16>,
    /// How many times each right was allowed, by `Right`.
    counts: [usize; 2],
    /// The rights that need a token, by `Right`.
    guarded: [bool; 2],
}

/// A SHA-1. It need not withstand collisions: both sides of one would be the operator's own. To
/// find another text for the digest of a secret is beyond anybody, and so is the way back.
type Digest = [u8; 20];

/// What a token is good for: beginnings of channel names, of which the empty one is all.
#[derive(Clone, Default)]
struct Grant {
    publish: Vec<Box<str>>,
    subscribe: Vec<Box<str>>,
}

/// What a client wants to do to channels.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Right {
    /// Publish to them, or forget what they keep.
    Publish,
    /// Read them, or about them.
    Subscribe,
}

/// A known token: its place among all, good until they are replaced.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TokenKey(pub u16);

impl Tokens {
    /// This token may publish to the channels whose names begin with `prefix`, and read them. The
    /// empty prefix is all channels.
    ///
    /// # Errors
    /// `Token`, `Prefix` or `TooMany`; then nothing was added.
    pub fn allow_publish(&mut self, token: &str, prefix: &str) -> Result<(), TokenError> {
        self.allow(Right::Publish, token.as_bytes(), prefix.as_bytes())
    }

    /// This token may read the channels whose names begin with `prefix`.
    ///
    /// # Errors
    /// As `allow_publish`.
    pub fn allow_subscribe(&mut self, token: &str, prefix: &str) -> Result<(), TokenError> {
        self.allow(Right::Subscribe, token.as_bytes(), prefix.as_bytes())
    }

    /// Adds what the lines of a token file allow: `publish TOKEN [PREFIX]` and
    /// `subscribe TOKEN [PREFIX]`, words separated by blanks. A word that begins with `#` and all
    /// behind it is a comment. A byte order mark at the beginning, which some editors write, is
    /// passed over.
    ///
    /// # Errors
    /// The first line that is wrong; or that there is no token at all. Then some may have been
    /// added: use a fresh value for each attempt.
    pub fn allow_lines(&mut self, text: &[u8]) -> Result<(), TokenFileError> {
        let before = self.counts;
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        for (nth, line) in text.split(|&byte| byte == b'\n').enumerate() {
            self.allow_line(line).map_err(|error| TokenFileError { line: Some(nth + 1), error })?;
        }
        // An emptied file must not be taken for "no token is needed".
        if self.counts == before {
            return Err(TokenFileError { line: None, error: TokenError::Empty });
        }
        Ok(())
    }

    fn allow_line(&mut self, line: &[u8]) -> Result<(), TokenError> {
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let words: Vec<&[u8]> = words.take_while(|word| !word.starts_with(b"#")).take(4).collect();
        let (right, token, prefix) = match words[..] {
            [] => return Ok(()),
            [b"publish", token] => (Right::Publish, token, &b""[..]),
            [b"publish", token, prefix] => (Right::Publish, token, prefix),
            [b"subscribe", token] => (Right::Subscribe, token, &b""[..]),
            [b"subscribe", token, prefix] => (Right::Subscribe, token, prefix),
            [b"publish" | b"subscribe", ..] => return Err(TokenError::Words),
            _ => return Err(TokenError::Right),
        };
        self.allow(right, token, prefix)
    }

    fn allow(&mut self, right: Right, token: &[u8], prefix: &[u8]) -> Result<(), TokenError> {
        let digest = digest(token).ok_or(TokenError::Token)?;
        let prefix = str::from_utf8(prefix).ok().filter(|text| is_prefix(text)).ok_or(TokenError::Prefix)?;
        if self.counts.iter().sum::<usize>() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let place = *self.places.entry(digest).or_insert_with(|| {
            self.digests.push(digest);
            self.grants.push(Grant::default());
            self.digests.len() as u16 - 1
        });
        let grant = &mut self.grants[usize::from(place)];
        match right {
            Right::Publish => grant.publish.push(prefix.into()),
            Right::Subscribe => grant.subscribe.push(prefix.into()),
        }
        self.counts[right as usize] += 1;
        self.guarded[right as usize] = true;
        Ok(())
    }

    /// How often publishing was allowed, each prefix of a token counted.
    pub fn publish_count(&self) -> usize {
        self.counts[Right::Publish as usize]
    }

    /// How often only reading was allowed.
    pub fn subscribe_count(&self) -> usize {
        self.counts[Right::Subscribe as usize]
    }

    /// True if this needs a token.
    pub(crate) fn guards(&self, right: Right) -> bool {
        self.guarded[right as usize]
    }

    /// True if anything needs a token.
    pub(crate) fn guards_anything(&self) -> bool {
        self.guarded != [false; 2]
    }

    /// What needed a token before needs one still, if there is one or not.
    pub(crate) fn keep_guarded(&mut self, before: &Tokens) {
        for (guarded, was) in self.guarded.iter_mut().zip(before.guarded) {
            *guarded |= was;
        }
    }

    /// Looks for a token that a client shows. How long that takes depends on the guess alone: it is
    /// hashed, and the digest is compared with every one, whole, whatever was found before.
    pub(crate) fn find(&self, shown: &[u8]) -> Option<TokenKey> {
        let wanted = digest(shown)?;
        let mut found = usize::MAX;
        for (nth, digest) in self.digests.iter().enumerate() {
            let difference = digest.iter().zip(&wanted).fold(0, |sum, (a, b)| sum | (a ^ b));
            // All bits if they are the same, none otherwise; the compiler must not make a branch of it.
            let same = usize::from(hint::black_box(difference) == 0).wrapping_neg();
            found = (found & !same) | (nth & same);
        }
        u16::try_from(found).ok().map(TokenKey)
    }

    /// Where a token of `before` stands among these.
    pub(crate) fn find_again(&self, before: &Tokens, key: TokenKey) -> Option<TokenKey> {
        let digest = before.digests.get(usize::from(key.0))?;
        self.places.get(digest).copied().map(TokenKey)
    }

    /// May who holds this token, or none, do this to all these channels?
    pub(crate) fn check<'a>(
        &self,
        held: Option<TokenKey>,
        right: Right,
        channels: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Denied> {
        if !self.guards(right) {
            return Ok(());
        }
        self.check_held(held.ok_or(Denied::Required(right))?, right, channels)
    }

    /// The same, for what is guarded by any token.
    pub(crate) fn check_held<'a>(
        &self,
        held: TokenKey,
        right: Right,
        channels: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Denied> {
        let grant = self.grants.get(usize::from(held.0)).ok_or(Denied::Unknown)?;
        // Who may publish may read.
        let also: &[Box<str>] = if right == Right::Subscribe { &grant.subscribe } else { &[] };
        let prefixes = || grant.publish.iter().chain(also).map(|prefix| &**prefix);
        if prefixes().next().is_none() {
            return Err(Denied::ReadOnly);
        }
        if channels.into_iter().all(|channel| prefixes().any(|prefix| channel.starts_with(prefix))) {
            return Ok(());
        }
        let mut shown: Vec<&str> = prefixes().take(PREFIXES_SHOWN_MAX + 1).collect();
        if shown.len() > PREFIXES_SHOWN_MAX {
            shown[PREFIXES_SHOWN_MAX] = "others";
        }
        Err(Denied::Prefix(shown.join(" or ")))
    }
}

/// In a refusal.
const PREFIXES_SHOWN_MAX: usize = 3;

/// Says how many there are; which, it does not know.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("publish", &self.publish_count())
            .field("subscribe", &self.subscribe_count())
            .finish_non_exhaustive()
    }
}

/// `None`: it is no token. 1 to 128 bytes of RFC 3986's unreserved, so that one may stand as it is
/// in a header, a query, and the name of a subprotocol.
fn digest(token: &[u8]) -> Option<Digest> {
    let is_token = (1..=BYTES_MAX).contains(&token.len())
        && token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
    is_token.then(|| Sha1::from(token).digest().bytes())
}

fn is_prefix(text: &str) -> bool {
    text.len() <= BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:~@-".contains(&byte))
}

/// Which rule a token that was to be allowed breaks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// It has a byte that a token must not have, or too many, or none.
    Token,
    /// No channel's name begins so.
    Prefix,
    /// There would be more than 10,000.
    TooMany,
    /// A line of a file has too few words or too many.
    Words,
    /// A line of a file begins with something else than `publish` or `subscribe`.
    Right,
    /// A file has no token.
    Empty,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenError::Token => "the token must have 1 to 128 bytes of A-Z a-z 0-9 - . _ ~",
            TokenError::Prefix => {
                "the prefix must be the beginning of channel names: up to 128 bytes of A-Z a-z 0-9 . _ : ~ @ -"
            }
            TokenError::TooMany => "there are more than 10000 tokens",
            TokenError::Words => "the line must be publish TOKEN, subscribe TOKEN, or one of these and a prefix",
            TokenError::Right => "the line must begin with publish or subscribe, or with # if it is a comment",
            TokenError::Empty => "there is no token in it",
        })
    }
}

impl std::error::Error for TokenError {}

/// What is wrong with a token file, and where.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TokenFileError {
    /// The line, counted from 1; `None` if it is the whole.
    pub line: Option<usize>,
    /// The rule it breaks.
    pub error: TokenError,
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for TokenFileError {}

/// Why a client may not do something, in words for it. A token is never among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It shows no token.
    Required(Right),
    /// Its token is nobody's.
    Unknown,
    /// Its token may read, and it would publish.
    ReadOnly,
    /// Its token is for channels with these prefixes.
    Prefix(String),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, options) = match self {
            Denied::Required(Right::Publish) => ("publishing", "--publish-token"),
            Denied::Required(Right::Subscribe) => ("reading", "--subscribe-token or --publish-token"),
            Denied::Unknown => {
                return f
                    .write_str("the token is none of those that --publish-token, --subscribe-token, --token-file set");
            }
            Denied::ReadOnly => {
                return f.write_str("the token is for reading; publishing needs one of --publish-token");
            }
            Denied::Prefix(prefixes) => {
                return write!(f, "by its option or file the token is only for channels that begin with {prefixes}");
            }
        };
        write!(f, "{what} needs a token of {options}: Authorization: Bearer TOKEN, or ?token=TOKEN")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Result<Tokens, String> {
        let mut tokens = Tokens::default();
        tokens.allow_lines(text).map(|()| tokens).map_err(|error| error.to_string())
    }

    /// May who shows this token publish to, and read, this channel?
    fn rights(tokens: &Tokens, token: &str, channel: &str) -> (bool, bool) {
        let held = tokens.find(token.as_bytes());
        let may = |right| tokens.check(held, right, [channel]).is_ok();
        (may(Right::Publish), may(Right::Subscribe))
    }

    #[test]
    fn what_a_token_is() {
        let longest = "x".repeat(128);
        for token in ["a", "AZaz09-._~", &longest] {
            assert_eq!(Tokens::default().allow_publish(token, ""), Ok(()), "{token}");
        }
        let too_long = "x".repeat(129);
        for token in ["", " ", "a b", "a,b", "a:b", "a/b", "a+b", "a=", "ä", "a\n", "\0", &too_long] {
            let mut tokens = Tokens::default();
            assert_eq!(tokens.allow_subscribe(token, ""), Err(TokenError::Token), "{token:?}");
            assert!(!tokens.guards_anything() && tokens.find(token.as_bytes()).is_none());
        }
        for byte in 0..=255u8 {
            let allowed = byte.is_ascii_alphanumeric() || [b'-', b'.', b'_', b'~'].contains(&byte);
            assert_eq!(digest(&[byte]).is_some(), allowed, "{byte:#04x}");
        }
    }

    #[test]
    fn what_a_prefix_is() {
        let longest = "x".repeat(128);
        for prefix in ["", "n", "news.", "a:b@c~d_e-", ".", "..", &longest] {
            assert_eq!(Tokens::default().allow_publish("t", prefix), Ok(()), "{prefix}");
        }
        let too_long = "x".repeat(129);
        for prefix in ["*", "news.*", "a b", "a,b", "a/b", "é", "\n", &too_long] {
            assert_eq!(Tokens::default().allow_publish("t", prefix), Err(TokenError::Prefix), "{prefix:?}");
        }
    }

    #[test]
    fn what_each_token_may() {
        let tokens = lines(
            b"publish all\npublish some news.\nsubscribe reader\nsubscribe part a.\nsubscribe part b.\n\
              publish both p.\nsubscribe both s.\n",
        );
        let tokens = tokens.unwrap();
        for (token, channel, publish, subscribe) in [
            ("all", "x", true, true),
            ("some", "news.today", true, true),
            ("some", "news.", true, true),
            ("some", "news", false, false),
            ("some", "News.today", false, false),
            ("reader", "x", false, true),
            ("part", "a.1", false, true),
            ("part", "b.1", false, true),
            ("part", "c.1", false, false),
            ("both", "p.1", true, true),
            ("both", "s.1", false, true),
            ("both", "x", false, false),
            ("nobody", "x", false, false),
            ("al", "x", false, false),
            ("alll", "x", false, false),
            ("ALL", "x", false, false),
            ("", "x", false, false),
        ] {
            assert_eq!(rights(&tokens, token, channel), (publish, subscribe), "{token} {channel}");
        }
        assert_eq!((tokens.publish_count(), tokens.subscribe_count()), (3, 4));
    }

    #[test]
    fn every_channel_must_be_covered() {
        let tokens = lines(b"subscribe t a.\nsubscribe t b.").unwrap();
        let check = |channels: &[&str]| tokens.check(tokens.find(b"t"), Right::Subscribe, channels.iter().copied());
        assert_eq!(check(&["a.1", "b.1"]), Ok(()));
        assert_eq!(check(&["a.1", "c.1"]), Err(Denied::Prefix("a. or b.".to_owned())));
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn only_what_has_a_token_is_guarded() {
        assert_eq!(rights(&Tokens::default(), "", "x"), (true, true));
        assert_eq!(rights(&lines(b"publish t").unwrap(), "", "x"), (false, true));
        assert_eq!(rights(&lines(b"subscribe t").unwrap(), "", "x"), (true, false));
        let mut fewer = lines(b"publish t").unwrap();
        fewer.keep_guarded(&lines(b"subscribe t").unwrap());
        assert_eq!(rights(&fewer, "", "x"), (false, false), "what was guarded stays so");
    }

    #[test]
    fn lines_of_a_file() {
        for (text, count) in [
            (&b"publish a"[..], 1),
            (b"publish a\nsubscribe b\n", 2),
            (b"\r\n  publish\ta  news.  # who\r\n\r\n# subscribe c\n#\n\t#x\nsubscribe b\r\n", 2),
            (b"publish a#b", 0),
            (b"publish a\npublish a", 2),
            (b"\xef\xbb\xbfpublish a", 1),
            (b"\xef\xbb\xbf# tokens\r\npublish a\r\n", 1),
        ] {
            let counted = lines(text).map(|tokens| tokens.publish_count() + tokens.subscribe_count());
            assert_eq!(counted.unwrap_or(0), count, "{}", text.escape_ascii());
        }
        for (text, line, error) in [
            (&b""[..], None, TokenError::Empty),
            (b"\n\r\n# publish a\n", None, TokenError::Empty),
            (b"publish", Some(1), TokenError::Words),
            (b"publish a\npublish a b c", Some(2), TokenError::Words),
            (b"publish a\rpublish b", Some(1), TokenError::Words),
            (b"publish # a", Some(1), TokenError::Words),
            (b"Publish a", Some(1), TokenError::Right),
            (b"s3cret", Some(1), TokenError::Right),
            (b"\xef\xbb\xbf", None, TokenError::Empty),
            (b"\xef\xbb\xbf\xef\xbb\xbfpublish a", Some(1), TokenError::Right),
            (b"publish a\n\xef\xbb\xbfpublish b", Some(2), TokenError::Right),
            (b"\xef\xbbpublish a", Some(1), TokenError::Right),
            (b"publish=a", Some(1), TokenError::Right),
            (b"\n\npublish a:b", Some(3), TokenError::Token),
            (b"publish \xff", Some(1), TokenError::Token),
            (b"publish a\0", Some(1), TokenError::Token),
            (b"publish a *", Some(1), TokenError::Prefix),
            (b"publish a \xff", Some(1), TokenError::Prefix),
        ] {
            let got = Tokens::default().allow_lines(text);
            assert_eq!(got, Err(TokenFileError { line, error }), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn their_number_is_bounded() {
        let text: String = (0..TOKENS_MAX).map(|nth| format!("subscribe t{nth}\n")).collect();
        let tokens = lines(text.as_bytes()).unwrap();
        assert_eq!(tokens.find(b"t9999"), Some(TokenKey(9999)));
        assert_eq!(
            lines(format!("{text}subscribe t0").as_bytes()).unwrap_err(),
            "line 10001: there are more than 10000 tokens"
        );
    }

    #[test]
    fn a_token_is_found_again_among_others() {
        let before = lines(b"publish a\npublish b\n").unwrap();
        let after = lines(b"publish c\nsubscribe b").unwrap();
        assert_eq!(before.find(b"b").and_then(|key| after.find_again(&before, key)), after.find(b"b"));
        assert_eq!(before.find(b"a").and_then(|key| after.find_again(&before, key)), None);
    }

    #[test]
    fn nothing_shows_a_token() {
        let tokens = lines(b"publish s3cret news.\nsubscribe s3cret-too").unwrap();
        let digest = Sha1::from(b"s3cret").digest().to_string();
        let shown = format!("{tokens:?} {tokens:#?}");
        assert!(shown.starts_with("Tokens { publish: 1, subscribe: 1, .. }"), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains(&digest[..8]));
        let error = lines(b"publish s3cret bad*prefix").unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
