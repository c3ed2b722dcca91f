//! A JSON reader for tests: small and strict (RFC 8259). Numbers stay text until asked for.

use super::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one value and nothing else.
    pub fn parse(text: &str) -> Result<Json> {
        let mut parser = Parser { text, at: 0 };
        let json = parser.value(0)?;
        parser.spaces();
        if parser.at == text.len() { Ok(json) } else { Err(parser.wrong("something after the value")) }
    }

    /// A member of an object; RFC 8259 4: "names within an object SHOULD be unique", here a must.
    pub fn member(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        let mut found = members.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value);
        assert!(found.next().is_none(), "the member {name} comes twice");
        value
    }

    pub fn text(&self, name: &str) -> Result<&str> {
        self.member(name).ok_or_else(|| format!("no member {name}"))?.as_text()
    }

    pub fn number(&self, name: &str) -> Result<u64> {
        match self.member(name) {
            Some(Json::Number(digits)) => digits.parse().map_err(|_| format!("{name} is {digits}")),
            other => Err(format!("the number {name} is {other:?}")),
        }
    }

    pub fn as_text(&self) -> Result<&str> {
        if let Json::Text(text) = self { Ok(text) } else { Err(format!("{self:?} is no string")) }
    }

    pub fn list(&self) -> Result<&[Json]> {
        if let Json::List(list) = self { Ok(list) } else { Err(format!("{self:?} is no list")) }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self, depth: u32) -> Result<Json> {
        if depth > 16 {
            return Err(self.wrong("too deep"));
        }
        self.spaces();
        match self.peek() {
            Some(b'{') => {
                let mut members = Vec::new();
                self.sequence(b'}', |parser| {
                    parser.spaces();
                    let name = parser.string()?;
                    parser.spaces();
                    parser.expect(b':')?;
                    members.push((name, parser.value(depth + 1)?));
                    Ok(())
                })?;
                Ok(Json::Object(members))
            }
            Some(b'[') => {
                let mut list = Vec::new();
                self.sequence(b']', |parser| {
                    list.push(parser.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Json::List(list))
            }
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => {
                let rest = &self.text[self.at..];
                let end = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
                let digits = &rest[..end.unwrap_or(rest.len())];
                // RFC 8259 6: `int = zero / ( digit1-9 *DIGIT )`.
                let leading_zero = matches!(digits.trim_start_matches('-').as_bytes(), [b'0', b'0'..=b'9', ..]);
                if digits.parse::<f64>().is_err() || leading_zero {
                    return Err(self.wrong("a number"));
                }
                self.at += digits.len();
                Ok(Json::Number(digits.to_string()))
            }
            _ => {
                for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.wrong("a value"))
            }
        }
    }

    fn sequence(&mut self, end: u8, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.at += 1;
        self.spaces();
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(());
        }
        loop {
            element(self)?;
            self.spaces();
            if self.peek() == Some(end) {
                self.at += 1;
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Result<String> {
        self.expect(b'"')?;
        let mut out = String::new();
        loop {
            // What stands for itself is taken at once: thousands of clients read messages all the time.
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '));
            let plain = plain.ok_or_else(|| self.wrong("the end of a string"))?;
            out.push_str(&rest[..plain]);
            self.at += plain + 1;
            match rest.as_bytes()[plain] {
                b'"' => return Ok(out),
                b'\\' => {
                    let escape = self.peek().ok_or_else(|| self.wrong("an escape"))?;
                    self.at += 1;
                    out.push(match escape {
                        b'"' | b'\\' | b'/' => char::from(escape),
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'u' => self.escaped()?,
                        _ => return Err(self.wrong("an escape")),
                    });
                }
                // RFC 8259 7: "the control characters (U+0000 through U+001F)" must be escaped.
                _ => return Err(self.wrong("a control character escaped")),
            }
        }
    }

    fn escaped(&mut self) -> Result<char> {
        let unit = self.four_digits()?;
        let code = match unit {
            0xd800..=0xdbff => {
                self.expect(b'\\')?;
                self.expect(b'u')?;
                let low = self.four_digits()?;
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(self.wrong("the second half of a surrogate pair"));
                }
                0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
            }
            unit => unit,
        };
        char::from_u32(code).ok_or_else(|| self.wrong("a code point"))
    }

    fn four_digits(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(|| self.wrong("four hex digits"))?;
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|error| error.to_string())
    }

    fn spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek() != Some(byte) {
            return Err(self.wrong(&format!("{:?}", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    fn wrong(&self, expected: &str) -> String {
        format!("JSON: expected {expected} at byte {} of {:?}", self.at, self.text)
    }
}
