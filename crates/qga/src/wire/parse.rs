//! A message's text to a [`Value`], with the protocol's words for what is wrong with it.
//!
//! The text comes from the framer, so its tokens are sound and its nesting is bounded; this is about grammar, and
//! about what strings and numbers mean. Beyond RFC 8259 strings may stand in single quotes and hold `\'`; short of it,
//! names may not repeat within an object and strings hold no noncharacters.

use std::{borrow::Cow, collections::btree_map::Entry};

use memchr::memchr2;

use super::{
    frame::{Number, Step},
    message::Error,
    value::{Object, Value},
};

type Result<T> = std::result::Result<T, Error>;

/// Reads one message.
///
/// # Errors
/// With the protocol's text, when the message is not one JSON value.
pub fn parse(message: &[u8]) -> Result<Value<'_>> {
    Parser { text: message, position: 0 }.value()
}

struct Parser<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Result<Value<'a>> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(quote @ (b'"' | b'\'')) => Ok(Value::String(self.string(quote)?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z') => self.keyword(),
            _ => Err(Error::parse(b"expecting value")),
        }
    }

    fn object(&mut self) -> Result<Value<'a>> {
        self.position += 1;
        let mut members = Object::new();
        if self.accept(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            let Value::String(name) = self.value()? else {
                return Err(Error::parse(b"key is not a string in object"));
            };
            if !self.accept(b':') {
                return Err(Error::parse(b"missing : in object pair"));
            }
            let value = self.value()?;
            match members.entry(name) {
                Entry::Vacant(member) => member.insert(value),
                Entry::Occupied(_) => return Err(Error::parse(b"duplicate key")),
            };
            if self.accept(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.accept(b',') {
                return Err(Error::parse(b"expected separator in dict"));
            }
        }
    }

    fn array(&mut self) -> Result<Value<'a>> {
        self.position += 1;
        let mut values = Vec::new();
        if self.accept(b']') {
            return Ok(Value::Array(values));
        }
        loop {
            values.push(self.value()?);
            if self.accept(b']') {
                return Ok(Value::Array(values));
            }
            if !self.accept(b',') {
                return Err(Error::parse(b"expected separator in list"));
            }
        }
    }

    fn string(&mut self, quote: u8) -> Result<Cow<'a, str>> {
        let start = self.position + 1;
        let mut end = start;
        let mut has_escapes = false;
        loop {
            let rest = &self.text[end..];
            let Some(found) = memchr2(quote, b'\\', rest) else { return Err(Error::parse(b"unterminated string")) };
            end += found;
            if rest[found] == quote {
                break;
            }
            has_escapes = true;
            end += 2;
        }
        self.position = end + 1;
        let body = &self.text[start..end];
        match std::str::from_utf8(body) {
            Ok(text) if !has_escapes && (body.is_ascii() || text.chars().all(is_character)) => Ok(Cow::Borrowed(text)),
            _ => unescape(body, quote).map(Cow::Owned),
        }
    }

    fn number(&mut self) -> Result<Value<'a>> {
        let mut number = None;
        let text = self.run(|byte| {
            number = match number {
                None => Number::begin(byte),
                Some(begun) => match Number::step(begun, byte) {
                    Step::Continues(further) => Some(further),
                    Step::Ends | Step::Breaks => None,
                },
            };
            number.is_some()
        });
        let text = String::from_utf8_lossy(text);
        if let Ok(value) = text.parse() {
            return Ok(Value::Int(value));
        }
        if let Ok(value) = text.parse() {
            return Ok(Value::UInt(value));
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Value::Double(value)),
            _ => Err(Error::parse(format!("number '{text}' is out of range").as_bytes())),
        }
    }

    fn keyword(&mut self) -> Result<Value<'a>> {
        match self.run(|byte| byte.is_ascii_lowercase()) {
            b"null" => Ok(Value::Null),
            b"true" => Ok(Value::Bool(true)),
            b"false" => Ok(Value::Bool(false)),
            other => Err(Error::parse(&[b"invalid keyword '", other, b"'"].concat())),
        }
    }

    /// Takes the bytes of a token that is made of these.
    fn run(&mut self, mut belongs: impl FnMut(u8) -> bool) -> &'a [u8] {
        let rest = &self.text[self.position..];
        let length = rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len());
        self.position += length;
        &rest[..length]
    }

    fn accept(&mut self, expected: u8) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.position += 1;
        }
        found
    }

    /// The next token's first byte.
    fn peek(&mut self) -> Option<u8> {
        if self.text.get(self.position) == Some(&b' ') {
            self.position += 1;
        }
        self.text.get(self.position).copied()
    }
}

/// Whether Unicode assigns the code point to a character, now or ever.
fn is_character(character: char) -> bool {
    let code = u32::from(character);
    !(0xFDD0..=0xFDEF).contains(&code) && code & 0xFFFE != 0xFFFE
}

/// Resolves escapes, and the two bytes C0 80 that stand for U+0000 in modified UTF-8.
fn unescape(body: &[u8], quote: u8) -> Result<String> {
    let mut text = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(&byte) = rest.first() {
        if byte == b'\\' {
            rest = unescape_one(rest, quote, &mut text)?;
        } else if let Some(behind) = rest.strip_prefix(b"\xC0\x80") {
            text.push('\0');
            rest = behind;
        } else {
            let end = rest.iter().position(|&byte| byte == b'\\' || byte == 0xC0).unwrap_or(rest.len());
            let plain =
                std::str::from_utf8(&rest[..end]).ok().filter(|plain| end > 0 && plain.chars().all(is_character));
            text.push_str(plain.ok_or_else(|| Error::parse(b"invalid UTF-8 sequence in string"))?);
            rest = &rest[end..];
        }
    }
    Ok(text)
}

/// Resolves the escape that `rest` begins with, and returns what follows it.
fn unescape_one<'a>(rest: &'a [u8], quote: u8, text: &mut String) -> Result<&'a [u8]> {
    let character = match rest.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{C}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(&quoted @ (b'"' | b'\'' | b'\\' | b'/')) => char::from(quoted),
        Some(b'u') => {
            let (character, behind) = unescape_unicode(rest, quote)?;
            text.push(character);
            return Ok(behind);
        }
        _ => return Err(Error::parse(b"invalid escape sequence in string")),
    };
    text.push(character);
    Ok(&rest[2..])
}

/// Resolves `\uXXXX`, or two of them that make a surrogate pair.
fn unescape_unicode(rest: &[u8], quote: u8) -> Result<(char, &[u8])> {
    const UNIT: usize = r"\uXXXX".len();
    let refuse = |length: usize| {
        // An escape cut short by the end of the string is quoted with it.
        let escape: Vec<u8> = rest.iter().copied().chain([quote]).take(length).collect();
        Error::parse(&[&escape, b" is not a valid Unicode character".as_slice()].concat())
    };
    let first = utf16_unit(rest).ok_or_else(|| refuse(UNIT))?;
    if let Some(character) = char::from_u32(first.into()) {
        return if is_character(character) { Ok((character, &rest[UNIT..])) } else { Err(refuse(UNIT)) };
    }
    let second = utf16_unit(&rest[UNIT..]).ok_or_else(|| refuse(UNIT))?;
    match char::decode_utf16([first, second]).next() {
        Some(Ok(character)) if is_character(character) => Ok((character, &rest[2 * UNIT..])),
        Some(Ok(_)) => Err(refuse(2 * UNIT)),
        _ => Err(refuse(UNIT)),
    }
}

fn utf16_unit(rest: &[u8]) -> Option<u16> {
    let digits = rest.strip_prefix(br"\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
