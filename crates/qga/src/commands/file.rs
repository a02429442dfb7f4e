//! Files, by handles.
//!
//! A handle is a number that is given out once and never again, not even after the agent was restarted; what it names
//! lasts until it is closed or the agent ends, and survives a host that reconnects. Nothing waits for data: a pipe or a
//! terminal that has none, or no room, says so.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

use super::session::Nothing;
use crate::{
    command::{Class, Command, Spec},
    wire::base64::Base64,
};

/// Most bytes of one read: its base64 is as large as the largest message.
pub const MAX_READ_BYTES: usize = 48 * 1024 * 1024;
/// Bytes of a read that does not say how many.
pub const DEFAULT_READ_BYTES: usize = 4096;

/// Longest that one command on a file may take: 48 MiB on a slow disk or a network file system.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Opens a file and returns a handle for it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileOpen {
    /// Where it is; a relative path begins at the agent's working directory.
    pub path: String,
    /// As fopen(3) has it: `r` (default), `w`, `a`, each with `+` and `b` in any order behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

impl Command for FileOpen {
    const SPEC: Spec = Spec::new("guest-file-open", Class::File).timeout(TIMEOUT);
    type Reply = i64;
}

/// Closes a handle, which is gone afterwards even if closing failed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileClose {
    /// What guest-file-open returned.
    pub handle: i64,
}

impl Command for FileClose {
    const SPEC: Spec = Spec::new("guest-file-close", Class::File).unaudited().timeout(TIMEOUT);
    type Reply = Nothing;
}

/// Reads from a file at its position, which moves on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileRead {
    /// What guest-file-open returned.
    pub handle: i64,
    /// Most bytes to read: 4096 unless given, at most 48 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

impl Command for FileRead {
    const SPEC: Spec = Spec::new("guest-file-read", Class::File).unaudited().timeout(TIMEOUT);
    type Reply = ReadBytes;
}

/// What was read.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct ReadBytes {
    /// How many bytes.
    pub count: i64,
    /// The bytes.
    pub buf_b64: Base64,
    /// Whether the end was met: the read came up short. One that ends exactly at the end says false.
    pub eof: bool,
}

/// Writes to a file at its position, which moves on; in mode `a`, at its end.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct FileWrite {
    /// What guest-file-open returned.
    pub handle: i64,
    /// The bytes.
    pub buf_b64: Base64,
    /// How many of them; all unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

impl Command for FileWrite {
    const SPEC: Spec = Spec::new("guest-file-write", Class::File).unaudited().timeout(TIMEOUT);
    type Reply = WrittenBytes;
}

/// What was written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WrittenBytes {
    /// How many bytes: fewer than asked for when a pipe has no more room.
    pub count: i64,
    /// Always false.
    pub eof: bool,
}

/// Moves a file's position.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileSeek {
    /// What guest-file-open returned.
    pub handle: i64,
    /// Bytes from `whence`.
    pub offset: i64,
    /// Where `offset` counts from.
    pub whence: Whence,
}

impl Command for FileSeek {
    const SPEC: Spec = Spec::new("guest-file-seek", Class::File).unaudited().timeout(TIMEOUT);
    type Reply = FilePosition;
}

/// Where a file's position is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FilePosition {
    /// Bytes from the file's beginning.
    pub position: i64,
    /// Always false.
    pub eof: bool,
}

/// Makes sure that what was written is with the kernel, where other programs see it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileFlush {
    /// What guest-file-open returned.
    pub handle: i64,
}

impl Command for FileFlush {
    const SPEC: Spec = Spec::new("guest-file-flush", Class::File).unaudited().inline();
    type Reply = Nothing;
}

/// Where an offset counts from. On the wire a number that is the protocol's own, or since QEMU 2.6 a word; written as
/// the number, which every agent understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// 0 or `set`: the beginning.
    Set,
    /// 1 or `cur`: the position.
    Current,
    /// 2 or `end`: the end.
    End,
    /// Another number, which agents refuse.
    Unknown(i64),
}

impl Serialize for Whence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(match *self {
            Self::Set => 0,
            Self::Current => 1,
            Self::End => 2,
            Self::Unknown(code) => code,
        })
    }
}

impl<'de> Deserialize<'de> for Whence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WhenceVisitor)
    }
}

struct WhenceVisitor;

impl WhenceVisitor {
    fn no_integer<E: de::Error>(value: f64) -> Result<Whence, E> {
        Err(E::invalid_type(Unexpected::Float(value), &"integer"))
    }
}

impl Visitor<'_> for WhenceVisitor {
    type Value = Whence;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GuestFileWhence")
    }

    fn visit_i64<E: de::Error>(self, code: i64) -> Result<Whence, E> {
        Ok(match code {
            0 => Whence::Set,
            1 => Whence::Current,
            2 => Whence::End,
            _ => Whence::Unknown(code),
        })
    }

    fn visit_u64<E: de::Error>(self, code: u64) -> Result<Whence, E> {
        i64::try_from(code).map_or_else(|_| Self::no_integer(f64::INFINITY), |code| self.visit_i64(code))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Whence, E> {
        Self::no_integer(value)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Whence, E> {
        match word {
            "set" => Ok(Whence::Set),
            "cur" => Ok(Whence::Current),
            "end" => Ok(Whence::End),
            _ => Err(E::unknown_variant(word, &["set", "cur", "end"])),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Whence {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Whence".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Where an offset counts from: the beginning, the position or the end.",
            "enum": [0, 1, 2, "set", "cur", "end"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{args, message::Error, parse::parse, value::Value};

    fn check(whence: &str, expected: Result<Whence, &str>) {
        let text = format!(r#"{{"handle": 1000, "offset": 0, "whence": {whence}}}"#);
        let Ok(Value::Object(arguments)) = parse(text.as_bytes()) else { panic!("{text} is no object") };
        let read = args::read::<FileSeek>(&arguments).map(|seek| seek.whence);
        assert_eq!(read, expected.map_err(Error::generic), "{whence}");
    }

    #[test]
    fn whence_is_a_number_or_a_word() {
        check("0", Ok(Whence::Set));
        check("1", Ok(Whence::Current));
        check("2", Ok(Whence::End));
        check("'set'", Ok(Whence::Set));
        check("'cur'", Ok(Whence::Current));
        check("'end'", Ok(Whence::End));
    }

    #[test]
    fn a_number_of_no_meaning_is_left_to_the_agent() {
        check("3", Ok(Whence::Unknown(3)));
        check("-1", Ok(Whence::Unknown(-1)));
    }

    #[test]
    fn what_else_whence_may_not_be_is_said() {
        check("'foo'", Err("Parameter 'whence' does not accept value 'foo'"));
        check("''", Err("Parameter 'whence' does not accept value ''"));
        check("1.0", Err("Invalid parameter type for 'whence', expected: integer"));
        check("18446744073709551615", Err("Invalid parameter type for 'whence', expected: integer"));
        for value in ["true", "null", "[]", "{}", "[0]"] {
            check(value, Err("Invalid parameter type for 'whence', expected: GuestFileWhence"));
        }
    }

    #[test]
    fn whence_is_written_as_a_number_that_old_agents_know() {
        let all = [Whence::Set, Whence::Current, Whence::End, Whence::Unknown(7)];
        assert_eq!(serde_json::to_string(&all).unwrap(), "[0,1,2,7]");
    }
}
