//! A strict reader of JSON (RFC 8259), for assertions.

use std::ops::Index;

/// A value. Objects keep the order of their members.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The text of a string; anything else fails the test.
    pub fn str(&self) -> &str {
        let Value::Text(text) = self else { panic!("{self:?} is no string") };
        text
    }

    /// The number; anything else fails the test.
    pub fn number(&self) -> f64 {
        let Value::Number(number) = self else { panic!("{self:?} is no number") };
        *number
    }

    /// The elements of an array; anything else fails the test.
    pub fn array(&self) -> &[Value] {
        let Value::Array(elements) = self else { panic!("{self:?} is no array") };
        elements
    }

    /// The names of an object's members, in the order written.
    pub fn keys(&self) -> Vec<&str> {
        let Value::Object(members) = self else { panic!("{self:?} is no object") };
        members.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// True if an object has this member.
    pub fn has(&self, name: &str) -> bool {
        self.keys().contains(&name)
    }

    /// One member of each element of an array, as text: `messages.each("data")`.
    pub fn each(&self, name: &str) -> Vec<&str> {
        self.array().iter().map(|element| element[name].str()).collect()
    }
}

/// A missing member is `Null`.
impl Index<&str> for Value {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        let Value::Object(members) = self else { panic!("{self:?} is no object") };
        members.iter().find(|(this, _)| this == name).map_or(&Value::Null, |(_, value)| value)
    }
}

impl Index<usize> for Value {
    type Output = Value;

    fn index(&self, nth: usize) -> &Value {
        &self.array()[nth]
    }
}

impl PartialEq<str> for Value {
    fn eq(&self, other: &str) -> bool {
        matches!(self, Value::Text(text) if text == other)
    }
}

impl PartialEq<&str> for Value {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl PartialEq<String> for Value {
    fn eq(&self, other: &String) -> bool {
        *self == **other
    }
}

impl PartialEq<f64> for Value {
    fn eq(&self, other: &f64) -> bool {
        matches!(self, Value::Number(number) if number == other)
    }
}

/// Reads one value; anything that is not strictly JSON fails the test.
pub fn parse(text: &str) -> Value {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value();
    parser.space();
    assert_eq!(parser.at, text.len(), "more after the value: {text}");
    value
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Value {
        self.space();
        match self.peek() {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => Value::Text(self.string()),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self) -> Value {
        let mut members: Vec<(String, Value)> = Vec::new();
        self.expect(b'{');
        self.space();
        if self.peek() == b'}' {
            self.at += 1;
            return Value::Object(members);
        }
        loop {
            self.space();
            let name = self.string();
            self.space();
            self.expect(b':');
            let value = self.value();
            assert!(members.iter().all(|(this, _)| *this != name), "{name:?} twice: {}", self.text);
            members.push((name, value));
            self.space();
            if self.peek() == b'}' {
                self.at += 1;
                return Value::Object(members);
            }
            self.expect(b',');
        }
    }

    fn array(&mut self) -> Value {
        let mut elements = Vec::new();
        self.expect(b'[');
        self.space();
        if self.peek() == b']' {
            self.at += 1;
            return Value::Array(elements);
        }
        loop {
            elements.push(self.value());
            self.space();
            if self.peek() == b']' {
                self.at += 1;
                return Value::Array(elements);
            }
            self.expect(b',');
        }
    }

    fn string(&mut self) -> String {
        self.expect(b'"');
        let mut out = String::new();
        loop {
            let next = self.text[self.at..].chars().next().unwrap_or_else(|| panic!("an open string: {}", self.text));
            self.at += next.len_utf8();
            match next {
                '"' => return out,
                '\\' => out.push(self.escape()),
                next => {
                    assert!(next >= ' ', "a control character in a string: {:?}", self.text);
                    out.push(next);
                }
            }
        }
    }

    fn escape(&mut self) -> char {
        let letter = self.peek();
        self.at += 1;
        match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4();
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first).expect("no lone low surrogate");
                }
                self.expect(b'\\');
                self.expect(b'u');
                let second = self.hex4();
                assert!((0xdc00..0xe000).contains(&second), "a lone high surrogate: {}", self.text);
                char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).expect("a pair")
            }
            _ => panic!("no such escape: {}", self.text),
        }
    }

    fn hex4(&mut self) -> u32 {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        assert!(digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", self.text);
        self.at += 4;
        u32::from_str_radix(digits, 16).expect("four hex digits")
    }

    fn number(&mut self) -> Value {
        let rest = &self.text[self.at..];
        let length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte)).count();
        let digits = rest[..length].trim_start_matches('-');
        let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
        assert!(digits.starts_with(|first: char| first.is_ascii_digit()) && !leading_zero, "no value: {rest}");
        self.at += length;
        Value::Number(rest[..length].parse().unwrap_or_else(|_| panic!("no number: {rest}")))
    }

    fn word(&mut self, word: &str, value: Value) -> Value {
        assert!(self.text[self.at..].starts_with(word), "no value: {}", &self.text[self.at..]);
        self.at += word.len();
        value
    }

    fn space(&mut self) {
        while self.text[self.at..].starts_with([' ', '\t', '\r', '\n']) {
            self.at += 1;
        }
    }

    fn peek(&self) -> u8 {
        *self.text.as_bytes().get(self.at).unwrap_or_else(|| panic!("ends too early: {}", self.text))
    }

    fn expect(&mut self, byte: u8) {
        assert_eq!(char::from(self.peek()), char::from(byte), "at {} of {}", self.at, self.text);
        self.at += 1;
    }
}
