//! The page that a person sees in a browser, at `/` and at `/channels/{set}`, and the client it is
//! made with, at `/tidings.js`.
//!
//! Two files, compiled in: know no request, no channel, no token; the page's script reads them off
//! its own address and then is a client like any other.
//! Invariant: the policy names the page's one style and one script by their hashes, and the client
//! by its origin, so a browser runs what was compiled in and nothing else; a test computes them.
//! CSP Level 3, 2.3.1 (hash-source).

/// A page and what a browser may do with it.
pub struct Page {
    /// Its `Content-Type`.
    pub media_type: &'static str,
    /// The whole of it.
    pub body: &'static [u8],
    /// Its `Content-Security-Policy`.
    pub content_security_policy: &'static str,
}

/// A script, and what its answer must say for a cache to keep it.
pub struct Script {
    /// Its `Content-Type`.
    pub media_type: &'static str,
    /// The whole of it.
    pub body: &'static [u8],
    /// Its `ETag`, quotes and all: another body has another one.
    pub etag: &'static str,
}

/// The browser client: `client/tidings.js`, but for its comments and spare space, which explain it
/// to readers and would be half of what browsers load.
pub const CLIENT: Script = Script {
    media_type: "text/javascript; charset=utf-8",
    body: &CLIENT_BODY,
    etag: match str::from_utf8(&CLIENT_ETAG) {
        Ok(etag) => etag,
        Err(_) => "",
    },
};

const CLIENT_SOURCE: &[u8] = include_bytes!("../client/tidings.js");
const CLIENT_BODY: [u8; spare(CLIENT_SOURCE, &mut [])] = {
    let mut body = [0; spare(CLIENT_SOURCE, &mut [])];
    spare(CLIENT_SOURCE, &mut body);
    body
};
const CLIENT_ETAG: [u8; 18] = etag(&CLIENT_BODY);

/// Copies a script, as far as `out` reaches, but for what only readers need: lines that are comments,
/// newlines behind `,` `;` `{` and another, and outside of strings the spaces that do not part two
/// words. How many bytes that are.
const fn spare(source: &[u8], out: &mut [u8]) -> usize {
    let (mut from, mut to) = (0, 0);
    // What ends the string.
    let mut quote = None;
    while from < source.len() {
        while source[from] == b' ' {
            from += 1;
        }
        let is_comment = source[from] == b'/' && source[from + 1] == b'/';
        loop {
            let byte = source[from];
            let before = if from > 0 { source[from - 1] } else { b'\n' };
            let is_spare = match (byte, quote) {
                _ if is_comment => true,
                (b'\n', _) => matches!(before, b',' | b';' | b'{' | b'\n'),
                (b' ', None) => !(is_word(before) && is_word(source[from + 1])),
                _ => false,
            };
            if !is_spare {
                if to < out.len() {
                    out[to] = byte;
                }
                to += 1;
            }
            quote = match (byte, quote) {
                _ if is_comment => None,
                (b'\'' | b'`', None) => Some(byte),
                (_, Some(end)) if byte == end => None,
                _ => quote,
            };
            from += 1;
            if byte == b'\n' {
                break;
            }
        }
    }
    to
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'#')
}

/// A strong `ETag` (RFC 9110 8.8.3) from the bytes: 64 bits of FNV-1a, which tell versions apart.
const fn etag(body: &[u8]) -> [u8; 18] {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut nth = 0;
    while nth < body.len() {
        hash = (hash ^ body[nth] as u64).wrapping_mul(0x0100_0000_01b3);
        nth += 1;
    }
    let mut etag = [b'"'; 18];
    let mut nth = 0;
    while nth < 16 {
        etag[nth + 1] = b"0123456789abcdef"[(hash >> (60 - 4 * nth)) as usize & 15];
        nth += 1;
    }
    etag
}

/// Shows a channel set live by any transport, and publishes to it.
pub const VIEWER: Page = Page {
    media_type: "text/html; charset=utf-8",
    body: include_bytes!("pages/viewer.html"),
    content_security_policy: "default-src 'none'; \
        script-src 'self' 'sha256-5Atepfm3+Mfm2pK6Tgw+TSqPxdGFpHkTO22/PhX+y0M='; \
        style-src 'sha256-xoIb+Z1YxWp0H7x4caE2ozACbF/eiPpfECtLuGQPzmI='; \
        connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::write_base64;

    fn viewer() -> &'static str {
        std::str::from_utf8(VIEWER.body).unwrap()
    }

    fn between(open: &str, close: &str) -> &'static str {
        let (_, rest) = viewer().split_once(open).unwrap();
        let (inside, rest) = rest.split_once(close).unwrap();
        assert!(!rest.contains(open), "the page has more than one {open}, the policy allows one");
        inside
    }

    #[test]
    fn the_policy_allows_the_style_and_the_script_of_the_page_alone() {
        let style = source("style-src", between("<style>", "</style>"));
        let script = source("script-src 'self'", between("<script type=\"module\">", "</script>"));
        let want = format!(
            "default-src 'none'; {script}; {style}; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert_eq!(VIEWER.content_security_policy, want);
    }

    fn spared(source: &str) -> String {
        let mut out = vec![0; spare(source.as_bytes(), &mut [])];
        spare(source.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_only_readers_need_is_spared() {
        for (source, want) in [
            ("", ""),
            ("// Why.\n", ""),
            ("// It's so.\n\n  // More.\n\na = 'b';\n", "a='b';"),
            ("if (a) {\n  b(c, d);\n}\n\ne();\n", "if(a){b(c,d);}\ne();"),
            ("async *[a]() { }\n", "async*[a](){}\n"),
            ("const a = typeof b in #c;\nreturn [d];\n", "const a=typeof b in #c;return[d];"),
            ("a(' b, ', ` c ${ d } `) // e f\n", "a(' b, ',` c ${ d } `)//e f\n"),
            ("a('` ') + ` ' `;\nb\n", "a('` ')+` ' `;b\n"),
            ("a\n  + b\n", "a\n+b\n"),
        ] {
            assert_eq!(spared(source), want, "{source:?}");
        }
    }

    #[test]
    fn the_client_is_its_source_without_comments_and_spare_space() {
        let source = include_str!("../client/tidings.js");
        assert_eq!(str::from_utf8(CLIENT.body), Ok(&*spared(source)));
        let lines: Vec<&str> = source.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).collect();
        // What would break the rule by which space is spare.
        for line in &lines {
            let ends = |quote| line.matches(quote).count().is_multiple_of(2);
            assert!(ends('\'') && ends('`'), "a string goes over the end of the line, or has a quote: {line}");
            assert!(!line.contains('"') && !line.contains("// "), "another quote, or a comment behind code: {line}");
        }
        // Nothing but space is gone, and none out of strings.
        let tight = |text: &str| text.replace([' ', '\n'], "");
        assert_eq!(tight(&spared(source)), tight(&lines.concat()));
        let strings = |text: &str| text.split('\'').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(strings(&spared(source)), strings(&lines.concat()));
    }

    #[test]
    fn an_etag_is_that_of_the_bytes() {
        // draft-eastlake-fnv: FNV-1a of these, 64 bits.
        for (bytes, want) in
            [(&b""[..], "\"cbf29ce484222325\""), (b"a", "\"af63dc4c8601ec8c\""), (b"foobar", "\"85944171f73967e8\"")]
        {
            assert_eq!(str::from_utf8(&etag(bytes)), Ok(want));
        }
        assert_eq!(CLIENT.etag.as_bytes(), etag(CLIENT.body));
    }

    #[test]
    fn the_page_needs_nothing_that_the_policy_forbids() {
        for forbidden in
            ["http://", "https://", "//cdn", " src=", " href=", " style=", " onclick=", "innerHTML", "eval("]
        {
            assert!(!viewer().contains(forbidden), "{forbidden}");
        }
        assert!(viewer().len() <= 14 * 1024, "the page has {} bytes; it is to be read in one sitting", viewer().len());
    }

    fn source(directive: &str, text: &str) -> String {
        let mut base64 = Vec::new();
        write_base64(&mut base64, &sha256(text.as_bytes()));
        format!("{directive} 'sha256-{}'", String::from_utf8(base64).unwrap())
    }

    /// FIPS 180-4. Here alone, for the program itself needs none.
    fn sha256(bytes: &[u8]) -> [u8; 32] {
        let mut padded = bytes.to_vec();
        padded.push(0x80);
        padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
        padded.extend((bytes.len() as u64 * 8).to_be_bytes());

        let (k, mut hash) = (roots(64, 3.0), roots(8, 2.0));
        for block in padded.chunks_exact(64) {
            let mut w: Vec<u32> =
                block.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
            for t in 16..64 {
                let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
                let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
                w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
            }
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = <[u32; 8]>::try_from(&hash[..]).unwrap();
            for t in 0..64 {
                let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
                let t1 = h.wrapping_add(s1).wrapping_add((e & f) ^ (!e & g)).wrapping_add(k[t]).wrapping_add(w[t]);
                let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
                let t2 = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
                (a, b, c, d, e, f, g, h) = (t1.wrapping_add(t2), a, b, c, d.wrapping_add(t1), e, f, g);
            }
            for (word, add) in hash.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                *word = word.wrapping_add(add);
            }
        }
        let bytes: Vec<u8> = hash.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.try_into().unwrap()
    }

    /// FIPS 180-4, 4.2.2 and 5.3.3: "the first thirty-two bits of the fractional parts" of the
    /// square or cube roots of the first primes. The 53 bits of an f64 hold them.
    fn roots(count: usize, degree: f64) -> Vec<u32> {
        let primes = (2u32..).filter(|n| (2..*n).all(|divisor| n % divisor != 0));
        let root = |prime: u32| if degree == 2.0 { f64::from(prime).sqrt() } else { f64::from(prime).cbrt() };
        primes.take(count).map(|prime| (root(prime).fract() * 4_294_967_296.0) as u32).collect()
    }

    #[test]
    fn sha256_is_that_of_the_standard() {
        let cases: [(&[u8], &str); 3] = [
            (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ];
        for (bytes, want) in cases {
            let hex: String = sha256(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, want);
        }
    }
}
