//! A message's text to a [`Value`], with the protocol's error texts.
//!
//! The text comes from the framer, so its tokens are sound and its nesting is bounded. Left are the grammar and the
//! values of strings and numbers. More than RFC 8259 allows: strings in single quotes, and the escape `\'`. Less: a
//! name may not repeat within an object, and strings hold no noncharacters.

use std::{borrow::Cow, collections::btree_map::Entry};

use memchr::memchr2;

use super::{
    error::Error,
    number::{Number, Step},
    text::is_character,
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
            let found = self.text.get(end..).and_then(|rest| memchr2(quote, b'\\', rest));
            let Some(found) = found else { return Err(Error::parse(b"unterminated string")) };
            end += found;
            if self.text[end] == quote {
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

    /// Consumes the bytes at the front that belong to the token.
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
            let plain = std::str::from_utf8(&rest[..end])
                .ok()
                .filter(|plain| end > 0 && (plain.is_ascii() || plain.chars().all(is_character)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: impl AsRef<[u8]>, expected: &Value<'_>) {
        let message = message.as_ref();
        assert_eq!(parse(message).as_ref(), Ok(expected), "{}", String::from_utf8_lossy(message));
    }

    fn check_string(message: impl AsRef<[u8]>, expected: &str) {
        check(message, &Value::String(expected.into()));
    }

    fn check_refused(message: impl AsRef<[u8]>, detail: &str) {
        let message = message.as_ref();
        let expected = Error::generic(format!("JSON parse error, {detail}"));
        assert_eq!(parse(message), Err(expected), "{}", String::from_utf8_lossy(message));
    }

    #[test]
    fn every_kind_of_value_is_read() {
        check("null", &Value::Null);
        check("true", &Value::Bool(true));
        check("false", &Value::Bool(false));
        check("[]", &Value::Array(vec![]));
        check("{}", &Value::Object(Object::new()));
        check("[ 1 , [ ] ]", &Value::Array(vec![Value::Int(1), Value::Array(vec![])]));
        let members = [("a".into(), Value::Int(1)), ("b".into(), Value::Null)];
        check(r#"{ "b" : null , 'a' : 1 }"#, &Value::Object(members.into()));
    }

    #[test]
    fn an_integer_has_64_bits_with_a_sign_or_else_without_or_else_is_a_double() {
        check("-0", &Value::Int(0));
        check("9223372036854775807", &Value::Int(i64::MAX));
        check("-9223372036854775808", &Value::Int(i64::MIN));
        check("9223372036854775808", &Value::UInt(1 << 63));
        check("18446744073709551615", &Value::UInt(u64::MAX));
        check("18446744073709551616", &Value::Double(18_446_744_073_709_551_616.0));
        check("-9223372036854775809", &Value::Double(-9_223_372_036_854_775_808.0));
    }

    #[test]
    fn a_fraction_or_an_exponent_makes_a_double() {
        check("1.0", &Value::Double(1.0));
        check("1e3", &Value::Double(1000.0));
        check("1E-2", &Value::Double(0.01));
        check("-0.0", &Value::Double(-0.0));
        check("1e-400", &Value::Double(0.0));
    }

    #[test]
    fn a_number_that_no_double_holds_is_refused() {
        check_refused("1e400", "number '1e400' is out of range");
        check_refused("[-1e400]", "number '-1e400' is out of range");
    }

    #[test]
    fn a_string_stands_in_quotes_of_either_kind() {
        check_string(r#""it's""#, "it's");
        check_string(r#"'say "yes"'"#, r#"say "yes""#);
        check_string(r"'it\'s'", "it's");
        check_string(r#""it\'s""#, "it's");
    }

    #[test]
    fn escapes_mean_what_rfc_8259_says() {
        check_string(r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{C}\n\r\t");
        check_string(r#""\u0041\u00e9\u00E9""#, "Aéé");
        check_string(r#""\u0000""#, "\0");
        check_string(r#""x\ud83d\ude00y""#, "x😀y");
    }

    #[test]
    fn what_is_no_character_is_refused_with_its_escape_as_it_stands() {
        for escape in [r"\ud800", r"\udc00", r"\uffff", r"\uFDD0", r"\u12x4", r"\ud83fx", r"\ud83f\n"] {
            let quoted = &escape[..6];
            check_refused(format!("\"{escape}\""), &format!("{quoted} is not a valid Unicode character"));
        }
        check_refused(r#""\u12""#, r#"\u12" is not a valid Unicode character"#);
        check_refused(r#""\ud83f\udfff""#, r"\ud83f\udfff is not a valid Unicode character");
        check_refused(r#""\ud800\u0041""#, r"\ud800 is not a valid Unicode character");
    }

    #[test]
    fn an_unknown_escape_is_refused() {
        check_refused(r#""\x41""#, "invalid escape sequence in string");
        check_refused(r#""\U0041""#, "invalid escape sequence in string");
        check_refused(r#""\é""#, "invalid escape sequence in string");
    }

    #[test]
    fn a_string_is_modified_utf_8_without_noncharacters() {
        check_string("\"é₂😀\x7F\"", "é₂😀\x7F");
        check_string(b"\"a\xC0\x80b\"", "a\0b");
        check_string(b"\"\\n\xC0\x80\\n\"", "\n\0\n");
        for bad in [
            b"\xC0\x81".as_slice(),
            b"\x80",
            b"\xC3",
            b"\xE2\x82",
            b"\xE0\x80\x80",
            b"\xED\xA0\x80",
            b"\xF4\x90\x80\x80",
            b"\xEF\xBF\xBE",
            b"\xEF\xB7\x90",
            b"\xFD",
        ] {
            check_refused([b"\"", bad, b"\""].concat(), "invalid UTF-8 sequence in string");
            check_refused([b"\"\\n", bad, b"\""].concat(), "invalid UTF-8 sequence in string");
        }
    }

    #[test]
    fn what_stands_where_a_value_belongs_is_named() {
        for message in ["}", "]", ",", ":", "[1,]", "{\"a\":1,}", "{\"a\":}", "[,1]", "{,}"] {
            check_refused(message, "expecting value");
        }
        for word in ["hello", "tru", "truee", "nul", "a"] {
            check_refused(word, &format!("invalid keyword '{word}'"));
        }
    }

    #[test]
    fn text_that_no_framer_has_seen_is_refused_as_well() {
        for message in ["\"a", "'", "\"a\\", "\"a\\\"", "{\"a"] {
            check_refused(message, "unterminated string");
        }
        for message in ["", "[", "[1,", "{"] {
            check_refused(message, "expecting value");
        }
        check_refused("{'a':1", "expected separator in dict");
        check_refused("-", "number '-' is out of range");
    }

    #[test]
    fn objects_and_arrays_are_punctuated() {
        check_refused(r#"{"a" 1}"#, "missing : in object pair");
        check_refused(r#"{"a"}"#, "missing : in object pair");
        check_refused("{1:2}", "key is not a string in object");
        check_refused("{null:2}", "key is not a string in object");
        check_refused(r#"{"a":1]"#, "expected separator in dict");
        check_refused(r#"{"a":1 "b":2}"#, "expected separator in dict");
        check_refused("[1 2]", "expected separator in list");
        check_refused("[1}", "expected separator in list");
    }

    #[test]
    fn a_name_stands_once_in_an_object() {
        check_refused(r#"{"a":1,"a":1}"#, "duplicate key");
        check_refused(r#"{"a":1,'\u0061':2}"#, "duplicate key");
        check_refused(r#"[{"a":{"b":1,"b":2}}]"#, "duplicate key");
    }

    #[test]
    fn the_detail_of_a_parse_error_is_bounded() {
        let word = "z".repeat(2000);
        check_refused(&word, &format!("invalid keyword '{}", "z".repeat(1023 - "invalid keyword '".len())));
    }

    #[test]
    fn a_string_without_escapes_is_not_copied() {
        let Ok(Value::String(text)) = parse(b"'plain'") else { panic!("no string") };
        assert!(matches!(text, Cow::Borrowed("plain")));
    }
}
