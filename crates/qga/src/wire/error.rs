//! Refusals, in the protocol's classes and texts: why a message cannot be read, or a request fails.

use std::fmt;

use serde::Serialize;

use super::text;

/// Most bytes of a reason quoted in a parse error.
pub const MAX_PARSE_DETAIL: usize = 1023;

/// Why a request failed, as the peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What hosts key on.
    pub class: ErrorClass,
    /// What an administrator reads.
    pub desc: String,
    /// Set if the request was not carried out because somebody forbids it. For the agent's own records: it is not sent.
    pub refused: Option<Refused>,
}

/// Who forbids a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is forbidden, or the state in which the request is.
    pub reason: &'static str,
    /// The rule of the configuration that forbids it, and where it was set. `None` if it is no rule but a state.
    pub rule: Option<String>,
}

/// The protocol's classes of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ErrorClass {
    /// Any failure.
    GenericError,
    /// The command does not exist, or is refused now.
    CommandNotFound,
}

impl Error {
    /// An error of the class nearly all are of.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self { class: ErrorClass::GenericError, desc: desc.into(), refused: None }
    }

    /// The command does not exist, or is refused now.
    pub fn command_not_found(desc: impl Into<String>) -> Self {
        Self { class: ErrorClass::CommandNotFound, desc: desc.into(), refused: None }
    }

    /// The command exists, but is refused. Hosts match the text up to the reason.
    pub fn disabled(command: &str, reason: impl fmt::Display) -> Self {
        Self::command_not_found(format!("Command {command} has been disabled: {reason}"))
    }

    /// The text is no message. The detail may quote bytes of the peer's that are no text.
    pub fn parse(detail: &[u8]) -> Self {
        let detail = &detail[..detail.len().min(MAX_PARSE_DETAIL)];
        Self::generic(format!("JSON parse error, {}", text::decode_lossy(detail)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.desc)
    }
}

impl std::error::Error for Error {}
