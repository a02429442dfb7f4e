//! Output: one line, `": "` and `", "` between tokens, ASCII only, as hosts have always seen it.
//!
//! A serde serializer that appends to a buffer. Everything the contract's types hold can be encoded, so writing cannot
//! fail. A number that JSON cannot express (infinite, or not a number) becomes `null`.
//! It is not serde_json with a formatter, which would be shorter by 300 lines: that looks at every byte of a string
//! once more on its own, so that the reply to a large read takes two to three times as long, and a list of interfaces
//! half as long again.

use std::fmt;

use serde::ser::{self, Impossible, Serialize};

use super::scan;

/// Encodes a value.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}

/// Appends the encoded value to `out`.
///
/// # Panics
/// When the type maps something other than strings, which no type of the contract does.
pub fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    value.serialize(Writer::new(out)).expect("the contract's types can be encoded");
}

/// The name of a newtype whose text needs no escapes, and so is copied as it is. It may be long.
pub(super) const PLAIN_TEXT: &str = "PlainText";

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    is_plain: bool,
}

/// The type cannot be encoded.
#[derive(Debug)]
struct Unencodable(String);

impl fmt::Display for Unencodable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Unencodable {}

impl ser::Error for Unencodable {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Written = Result<(), Unencodable>;

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, is_plain: false }
    }

    #[expect(clippy::unnecessary_wraps, reason = "every caller returns it")]
    fn raw(self, text: impl AsRef<[u8]>) -> Written {
        self.out.extend_from_slice(text.as_ref());
        Ok(())
    }
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unencodable;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Impossible<(), Unencodable>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Impossible<(), Unencodable>;

    fn serialize_bool(self, value: bool) -> Written {
        self.raw(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Written {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Written {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Written {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Written {
        self.raw(value.to_string())
    }

    fn serialize_u8(self, value: u8) -> Written {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Written {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Written {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Written {
        self.raw(value.to_string())
    }

    fn serialize_f32(self, value: f32) -> Written {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Written {
        self.raw(format_double(value))
    }

    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Written {
        write_string(self.out, value);
        Ok(())
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Written {
        self.out.push(b'"');
        fmt::Write::write_fmt(&mut Pieces { out: self.out, are_plain: self.is_plain }, format_args!("{value}"))
            .map_err(ser::Error::custom)?;
        self.raw(b"\"")
    }

    fn serialize_bytes(self, _: &[u8]) -> Written {
        Err(ser::Error::custom("bytes have no JSON form"))
    }

    fn serialize_none(self) -> Written {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        self.raw("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Written {
        value.serialize(Self { is_plain: name == PLAIN_TEXT, ..self })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        let mut object = self.serialize_map(Some(1))?;
        ser::SerializeMap::serialize_entry(&mut object, variant, value)?;
        ser::SerializeMap::end(object)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a>, Unencodable> {
        Ok(Compound::begin(self.out, b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'a>, Unencodable> {
        Ok(Compound::begin(self.out, b'[', b']'))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, Unencodable> {
        Ok(Compound::begin(self.out, b'[', b']'))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unencodable> {
        Err(ser::Error::custom(format!("{name} has a variant with several values")))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a>, Unencodable> {
        Ok(Compound::begin(self.out, b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, Unencodable> {
        Ok(Compound::begin(self.out, b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unencodable> {
        Err(ser::Error::custom(format!("{name} has a variant with members")))
    }
}

/// An array or object whose elements are being written.
struct Compound<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
    close: u8,
}

impl<'a> Compound<'a> {
    fn begin(out: &'a mut Vec<u8>, open: u8, close: u8) -> Self {
        out.push(open);
        Self { out, is_empty: true, close }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.separate();
        value.serialize(Writer::new(self.out))
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        self.separate();
        write_string(self.out, name);
        self.out.extend_from_slice(b": ");
        value.serialize(Writer::new(self.out))
    }

    fn separate(&mut self) {
        if !self.is_empty {
            self.out.extend_from_slice(b", ");
        }
        self.is_empty = false;
    }

    #[expect(clippy::unnecessary_wraps, reason = "serde's signature")]
    fn finish(self) -> Written {
        self.out.push(self.close);
        Ok(())
    }
}

impl ser::SerializeSeq for Compound<'_> {
    type Ok = ();
    type Error = Unencodable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.element(value)
    }

    fn end(self) -> Written {
        self.finish()
    }
}

impl ser::SerializeTuple for Compound<'_> {
    type Ok = ();
    type Error = Unencodable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.element(value)
    }

    fn end(self) -> Written {
        self.finish()
    }
}

impl ser::SerializeTupleStruct for Compound<'_> {
    type Ok = ();
    type Error = Unencodable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.element(value)
    }

    fn end(self) -> Written {
        self.finish()
    }
}

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Unencodable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Written {
        self.element(name)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.out.extend_from_slice(b": ");
        value.serialize(Writer::new(self.out))
    }

    fn end(self) -> Written {
        self.finish()
    }
}

impl ser::SerializeStruct for Compound<'_> {
    type Ok = ();
    type Error = Unencodable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        self.member(name, value)
    }

    fn end(self) -> Written {
        self.finish()
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped_text(out, text);
    out.push(b'"');
}

/// The inside of a string that is written piece by piece.
struct Pieces<'a> {
    out: &'a mut Vec<u8>,
    are_plain: bool,
}

impl fmt::Write for Pieces<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if self.are_plain {
            self.out.extend_from_slice(piece.as_bytes());
        } else {
            write_escaped_text(self.out, piece);
        }
        Ok(())
    }
}

fn write_escaped_text(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some(special) = first_special(rest.as_bytes()) {
        out.extend_from_slice(&rest.as_bytes()[..special]);
        let mut characters = rest[special..].chars();
        if let Some(character) = characters.next() {
            write_escaped(out, character);
        }
        rest = characters.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Where the first byte that needs an escape stands.
fn first_special(bytes: &[u8]) -> Option<usize> {
    let suspect = |word| {
        word | scan::below(word, b' ') | scan::equal(word, b'"') | scan::equal(word, b'\\') | scan::equal(word, 0x7F)
    };
    scan::position(bytes, suspect, |&byte| needs_escape(byte))
}

fn needs_escape(byte: u8) -> bool {
    !(0x20..0x7F).contains(&byte) || byte == b'"' || byte == b'\\'
}

fn write_escaped(out: &mut Vec<u8>, character: char) {
    let short: &[u8] = match character {
        '"' => br#"\""#,
        '\\' => br"\\",
        '\u{8}' => br"\b",
        '\u{C}' => br"\f",
        '\n' => br"\n",
        '\r' => br"\r",
        '\t' => br"\t",
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04X}").as_bytes());
            }
            return;
        }
    };
    out.extend_from_slice(short);
}

/// As C's `%.17g`: the shortest of fixed and scientific notation at 17 significant digits, no trailing zeros.
fn format_double(value: f64) -> String {
    const DIGITS: i32 = 17;
    if !value.is_finite() {
        return "null".into();
    }
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let without_trailing_zeros = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if (-4..DIGITS).contains(&exponent) {
        let decimals = usize::try_from(DIGITS - 1 - exponent).unwrap_or(0);
        return without_trailing_zeros(&format!("{value:.decimals$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_trailing_zeros(mantissa), exponent.abs())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;

    fn check<T: Serialize + ?Sized>(value: &T, expected: &str) {
        assert_eq!(String::from_utf8(to_vec(value)).unwrap(), expected);
    }

    #[test]
    fn one_blank_follows_each_comma_and_each_colon_and_nothing_else() {
        check(&[[1, 2].as_slice(), &[]], "[[1, 2], []]");
        check(&BTreeMap::from([("a", 1), ("b", 2)]), r#"{"a": 1, "b": 2}"#);
        check(&BTreeMap::<String, i64>::new(), "{}");
        check(&(1, "x", true, ()), r#"[1, "x", true, null]"#);
    }

    #[test]
    fn types_are_encoded_as_serde_derives_them() {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        enum Word {
            TwoWords,
            Value(u8),
        }
        #[derive(Serialize)]
        struct Wrapped(Option<Word>);
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct Members {
            first_one: Wrapped,
            second: Word,
            none: Option<i8>,
            #[serde(skip_serializing_if = "Option::is_none")]
            absent: Option<i8>,
        }
        let value =
            Members { first_one: Wrapped(Some(Word::TwoWords)), second: Word::Value(1), none: None, absent: None };
        check(&value, r#"{"first-one": "two-words", "second": {"value": 1}, "none": null}"#);
    }

    #[test]
    fn strings_are_ascii_with_short_escapes_where_json_has_them() {
        check("\"\\\u{8}\u{C}\n\r\t/'", r#""\"\\\b\f\n\r\t/'""#);
        check("\0\u{1F}\u{7F}\u{80}é", r#""\u0000\u001F\u007F\u0080\u00E9""#);
        check("₂\u{FFFD}😀", r#""\u2082\uFFFD\uD83D\uDE00""#);
        check("é between ASCII é", r#""\u00E9 between ASCII \u00E9""#);
        check(&'é', r#""\u00E9""#);
        check(&BTreeMap::from([("\n", 1)]), r#"{"\n": 1}"#);
    }

    #[test]
    fn integers_are_exact() {
        check(&[i64::MIN, i64::MAX], "[-9223372036854775808, 9223372036854775807]");
        check(&u64::MAX, "18446744073709551615");
        check(&(-1i8, -1i16, -1i32, 1u8, 1u16, 1u32), "[-1, -1, -1, 1, 1, 1]");
    }

    #[test]
    fn doubles_have_17_significant_digits_and_no_trailing_zeros() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (100.0, "100"),
            (0.1, "0.10000000000000001"),
            (0.5, "0.5"),
            (-1.25, "-1.25"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (1.5e300, "1.5000000000000001e+300"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (99_999_999_999_999_984.0, "99999999999999984"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (1_733_000_000.123_456, "1733000000.123456"),
        ] {
            check(&value, expected);
        }
        check(&0.5f32, "0.5");
    }

    #[test]
    fn a_number_that_json_cannot_express_becomes_null() {
        check(&[f64::INFINITY, f64::NEG_INFINITY, f64::NAN], "[null, null, null]");
    }
}
