//! Bytes as base64.
//!
//! Decoding is as lenient as hosts expect: letters, digits, `+`, `/`, `=` and newlines are legal, every four characters
//! other than newlines make a group, an incomplete last group is dropped, and padding may occur in the middle. Anything
//! else is an error, which is kept until the bytes are asked for, because a request's other faults are reported first.
//! Encoding is canonical: padded, without newlines.
//! Both go straight between the message's text and the bytes, at the speed of the machine's vector instructions.

use std::{fmt, sync::LazyLock};

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurposeConfig},
};
use memchr::{memchr, memchr_iter};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use super::{error::Error, json::PLAIN_TEXT};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
type Codec = base64::engine::Simd;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Codec = base64::engine::GeneralPurpose;

static CODEC: LazyLock<Codec> = LazyLock::new(|| {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return Codec::standard(config);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Codec::new(&base64::alphabet::STANDARD, config);
});

/// Characters that make three bytes.
const GROUP: usize = 4;

/// Bytes that travel as base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(Option<Vec<u8>>);

impl Base64 {
    /// The bytes.
    ///
    /// # Errors
    /// When the text was no base64.
    pub fn into_bytes(self) -> Result<Vec<u8>, Error> {
        self.0.ok_or_else(|| Error::generic("Base64 data contains invalid characters"))
    }

    /// Decodes text. If it is no base64, [`Self::into_bytes`] says so.
    pub fn decode(text: &[u8]) -> Self {
        Self(decode_joined(text).or_else(|| decode_lenient(text)))
    }
}

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Some(bytes))
    }
}

/// Without the bytes, which may be secret.
impl fmt::Debug for Base64 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(bytes) => write!(formatter, "{} bytes", bytes.len()),
            None => formatter.write_str("no base64"),
        }
    }
}

/// The base64 text.
impl fmt::Display for Base64 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Bytes of text encoded at a time: they stay in the processor's first-level cache.
        const PIECE: usize = 8 * 1024;
        let mut piece = [0; PIECE];
        for bytes in self.0.as_deref().unwrap_or_default().chunks(PIECE / GROUP * 3) {
            let length = CODEC.encode_slice(bytes, &mut piece).map_err(|_| fmt::Error)?;
            formatter.write_str(std::str::from_utf8(&piece[..length]).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(PLAIN_TEXT, &Text(self))
    }
}

struct Text<'a>(&'a Base64);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Base64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string of base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64, E> {
        Ok(Base64::decode(text.as_bytes()))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Base64 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Base64".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "contentEncoding": "base64" })
    }
}

/// The usual form: padding at the end only. `None` for anything else, legal or not.
fn decode_joined(text: &[u8]) -> Option<Vec<u8>> {
    let joined;
    let text = match memchr(b'\n', text) {
        None => text,
        Some(_) => {
            joined = without_newlines(text);
            &joined
        }
    };
    let (groups, incomplete) = text.split_at(text.len() / GROUP * GROUP);
    if !incomplete.iter().all(|&byte| sextet(byte).is_some()) {
        return None;
    }
    CODEC.decode(groups).ok()
}

fn without_newlines(text: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(text.len());
    let mut start = 0;
    for newline in memchr_iter(b'\n', text) {
        joined.extend_from_slice(&text[start..newline]);
        start = newline + 1;
    }
    joined.extend_from_slice(&text[start..]);
    joined
}

/// Everything that is legal. Padding counts as a zero; the last two characters of a group say which bytes it is for.
fn decode_lenient(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / GROUP * 3);
    let (mut group, mut length) = (0_u32, 0);
    let mut previous = 0;
    for &character in text.iter().filter(|&&character| character != b'\n') {
        group = group << 6 | u32::from(sextet(character)?);
        length += 1;
        if length == GROUP {
            let [_, first, second, third] = group.to_be_bytes();
            bytes.push(first);
            if previous != b'=' {
                bytes.push(second);
            }
            if character != b'=' {
                bytes.push(third);
            }
            (group, length) = (0, 0);
        }
        previous = character;
    }
    Some(bytes)
}

fn sextet(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<&[u8]>) {
        assert_eq!(Base64::decode(text.as_bytes()).0.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn canonical_text_is_read() {
        check("", Some(b""));
        check("YQ==", Some(b"a"));
        check("YWI=", Some(b"ab"));
        check("YWJj", Some(b"abc"));
        check("+/+/", Some(b"\xFB\xFF\xBF"));
    }

    #[test]
    fn an_incomplete_last_group_is_dropped() {
        check("ab", Some(b""));
        check("YWJjZ", Some(b"abc"));
        check("YQ=", Some(b""));
    }

    #[test]
    fn padding_may_stand_in_the_middle() {
        check("YQ==YQ==", Some(b"aa"));
        check("YQ==\nYWI=YWJj", Some(b"aababc"));
        check("====", Some(b"\0"));
        check("AB=C", Some(b"\0\x02"));
        check("=ABC", Some(b"\0\0B"));
        check("==YQ", Some(b"\0\x06\x10"));
    }

    #[test]
    fn newlines_are_legal_and_other_white_space_is_not() {
        check("YW\nJj\n", Some(b"abc"));
        check("\n", Some(b""));
        for text in ["YWJj\r\n", "YW Jj", "YWJj\t", "YW-_", "YWJj!", "YWJ\u{e9}", "YWJjZ.", "\0"] {
            check(text, None);
        }
    }

    #[test]
    fn bits_that_no_byte_needs_are_ignored() {
        check("YR==", Some(b"a"));
        check("YWL=", Some(b"ab"));
    }

    #[test]
    fn wrong_text_surfaces_when_the_bytes_are_asked_for() {
        let kept: Base64 = serde_json::from_str(r#""not base64""#).unwrap();
        assert_eq!(kept.into_bytes(), Err(Error::generic("Base64 data contains invalid characters")));
    }

    #[test]
    fn debug_output_keeps_the_bytes_to_itself() {
        assert_eq!(format!("{:?}", Base64::from(b"secret".to_vec())), "6 bytes");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: Vec<u8>, repetitions in 1..200_usize) {
            let bytes = bytes.repeat(repetitions);
            let text = serde_json::to_string(&Base64::from(bytes.clone())).unwrap();
            prop_assert_eq!(super::super::json::to_vec(&Base64::from(bytes.clone())), text.as_bytes());
            prop_assert_eq!(serde_json::from_str::<Base64>(&text).unwrap().into_bytes().unwrap(), bytes);
        }

        #[test]
        fn the_fast_way_agrees_with_the_lenient_one(text in "[A-Za-z0-9+/=\n !]{0,100}") {
            if let Some(bytes) = decode_joined(text.as_bytes()) {
                prop_assert_eq!(Some(bytes), decode_lenient(text.as_bytes()));
            }
        }

        #[test]
        fn the_fast_way_knows_ordinary_text(text in "([A-Za-z0-9+/]{4}\n?){0,100}") {
            prop_assert_eq!(decode_joined(text.as_bytes()), decode_lenient(text.as_bytes()));
        }
    }
}
