//! Programs: started by one command, watched by another.
//!
//! Starting returns at once. The program's end, and what it wrote if that was asked for, is reported by the status
//! command, once: the report that says `exited` is the last about that program.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use crate::{
    command::{Class, Command, Spec},
    wire::base64::Base64,
};

/// Most output kept of each stream of a program; the rest is read and dropped, so that the program does not block.
pub const MAX_OUTPUT_BYTES: usize = 16 * 1024 * 1024;

/// Reports on a program that guest-exec started.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExecStatus {
    /// What guest-exec returned.
    pub pid: i64,
}

impl Command for ExecStatus {
    const SPEC: Spec = Spec::new("guest-exec-status", Class::Exec).unaudited().inline();
    type Reply = ProgramStatus;
}

/// How a program is doing. Everything but `exited` is there only once it has exited.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct ProgramStatus {
    /// Whether it has ended and its captured output is complete. This report is then the last.
    pub exited: bool,
    /// Its exit code, unless a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exitcode: Option<i64>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i64>,
    /// What it wrote to standard output; absent when that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_data: Option<Base64>,
    /// What it wrote to standard error; absent when that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err_data: Option<Base64>,
    /// Whether it wrote more to standard output than is kept; there with `out-data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_truncated: Option<bool>,
    /// Whether it wrote more to standard error than is kept; there with `err-data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err_truncated: Option<bool>,
}

/// Starts a program and returns its process id at once.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Exec {
    /// The program: a path, or a name that is looked up in `PATH`. Also its first argument.
    pub path: String,
    /// Its further arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arg: Option<Vec<String>>,
    /// Its whole environment, as `NAME=value`; the agent's own unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// What it reads from standard input; nothing unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_data: Option<Base64>,
    /// Which of its output is kept for the status report; none unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture_output: Option<CaptureOutput>,
}

impl Command for Exec {
    const SPEC: Spec = Spec::new("guest-exec", Class::Exec);
    type Reply = StartedProgram;
}

/// A program that was started.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StartedProgram {
    /// Its process id.
    pub pid: i64,
}

/// Which output of a program is kept. On the wire a boolean, or since QEMU 8.1 a word; written as the boolean where
/// that says it, which every agent understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureOutput {
    /// false or `none`: nothing.
    None,
    /// `stdout`: standard output only.
    Stdout,
    /// `stderr`: standard error only.
    Stderr,
    /// true or `separated`: both, each for itself.
    Separated,
    /// `merged`: both, in the order they were written, as standard output.
    Merged,
}

impl Serialize for CaptureOutput {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_bool(false),
            Self::Separated => serializer.serialize_bool(true),
            Self::Stdout => serializer.serialize_str("stdout"),
            Self::Stderr => serializer.serialize_str("stderr"),
            Self::Merged => serializer.serialize_str("merged"),
        }
    }
}

impl<'de> Deserialize<'de> for CaptureOutput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CaptureOutputVisitor)
    }
}

struct CaptureOutputVisitor;

impl Visitor<'_> for CaptureOutputVisitor {
    type Value = CaptureOutput;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GuestExecCaptureOutput")
    }

    fn visit_bool<E: de::Error>(self, all: bool) -> Result<CaptureOutput, E> {
        Ok(if all { CaptureOutput::Separated } else { CaptureOutput::None })
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<CaptureOutput, E> {
        match word {
            "none" => Ok(CaptureOutput::None),
            "stdout" => Ok(CaptureOutput::Stdout),
            "stderr" => Ok(CaptureOutput::Stderr),
            "separated" => Ok(CaptureOutput::Separated),
            "merged" => Ok(CaptureOutput::Merged),
            _ => Err(E::unknown_variant(word, &["none", "stdout", "stderr", "separated", "merged"])),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for CaptureOutput {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CaptureOutput".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Which output of a program is kept: false is none, true is separated.",
            "enum": [false, true, "none", "stdout", "stderr", "separated", "merged"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{args, message::Error, parse::parse, value::Value};

    fn check(capture: &str, expected: Result<CaptureOutput, &str>) {
        let text = format!(r#"{{"path": "true", "capture-output": {capture}}}"#);
        let Ok(Value::Object(arguments)) = parse(text.as_bytes()) else { panic!("{text} is no object") };
        let read = args::read::<Exec>(&arguments).map(|exec| exec.capture_output);
        assert_eq!(read, expected.map(Some).map_err(Error::generic), "{capture}");
    }

    #[test]
    fn what_to_capture_is_a_boolean_or_a_word() {
        check("false", Ok(CaptureOutput::None));
        check("true", Ok(CaptureOutput::Separated));
        check("'none'", Ok(CaptureOutput::None));
        check("'stdout'", Ok(CaptureOutput::Stdout));
        check("'stderr'", Ok(CaptureOutput::Stderr));
        check("'separated'", Ok(CaptureOutput::Separated));
        check("'merged'", Ok(CaptureOutput::Merged));
    }

    #[test]
    fn what_else_it_may_not_be_is_said() {
        check("'x'", Err("Parameter 'capture-output' does not accept value 'x'"));
        for value in ["1", "1.5", "null", "[]", "{}", "18446744073709551615"] {
            check(value, Err("Invalid parameter type for 'capture-output', expected: GuestExecCaptureOutput"));
        }
    }

    #[test]
    fn what_old_agents_know_is_written_as_a_boolean() {
        let all = [
            CaptureOutput::None,
            CaptureOutput::Stdout,
            CaptureOutput::Stderr,
            CaptureOutput::Separated,
            CaptureOutput::Merged,
        ];
        assert_eq!(serde_json::to_string(&all).unwrap(), r#"[false,"stdout","stderr",true,"merged"]"#);
    }
}
