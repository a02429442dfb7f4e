//! The envelope: requests in, replies and refusals out.
//!
//! A request's members are checked here in the protocol's order; its arguments are the command's business.
//! Replies are complete lines. A success puts `return` before `id`, an error `id` before `error`.

use std::{borrow::Cow, fmt};

use serde::Serialize;

use super::{
    json,
    parse::parse,
    value::{Object, Value},
};

/// The byte that resets a peer's reader; never part of JSON text.
pub const SENTINEL: u8 = 0xFF;
/// Most bytes of a reason quoted in a parse error.
pub const MAX_PARSE_DETAIL: usize = 1023;

/// Why a request failed, as the peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What hosts key on.
    pub class: ErrorClass,
    /// What an administrator reads.
    pub desc: String,
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
        Self { class: ErrorClass::GenericError, desc: desc.into() }
    }

    /// The command does not exist, or is refused now.
    pub fn command_not_found(desc: impl Into<String>) -> Self {
        Self { class: ErrorClass::CommandNotFound, desc: desc.into() }
    }

    /// The text is no message. The detail may quote bytes of the peer's that are no text.
    pub fn parse(detail: &[u8]) -> Self {
        let detail = &detail[..detail.len().min(MAX_PARSE_DETAIL)];
        Self::generic(format!("JSON parse error, {}", String::from_utf8_lossy(detail)))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.desc)
    }
}

impl std::error::Error for Error {}

/// The value of a request's `id`, spelled as it will be echoed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(Vec<u8>);

/// What a message says, and what its reply must carry.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// To be echoed, whether or not the request is sound.
    pub id: Option<Id>,
    /// The request, or why it is none.
    pub request: Result<Request<'a>, Error>,
}

/// A command's name and arguments.
#[derive(Debug, PartialEq)]
pub struct Request<'a> {
    /// The command's name.
    pub execute: Cow<'a, str>,
    /// Its arguments; empty when the request has none.
    pub arguments: Object<'a>,
}

impl<'a> Envelope<'a> {
    /// Reads a message that the framer found.
    pub fn open(message: &'a [u8]) -> Self {
        let mut members = match parse(message) {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Self { id: None, request: Err(Error::generic("QMP input must be a JSON object")) },
            Err(error) => return Self { id: None, request: Err(error) },
        };
        let id = members.remove("id").map(|id| Id(json::to_vec(&id)));
        Self { id, request: Request::from_members(members) }
    }
}

impl<'a> Request<'a> {
    fn from_members(mut members: Object<'a>) -> Result<Self, Error> {
        let execute = match members.remove("execute") {
            Some(Value::String(execute)) => Some(execute),
            Some(_) => return Err(Error::generic("QMP input member 'execute' must be a string")),
            None => None,
        };
        let arguments = match members.remove("arguments") {
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(Error::generic("QMP input member 'arguments' must be an object")),
            None => Object::new(),
        };
        if let Some(name) = members.keys().next() {
            return Err(Error::generic(format!("QMP input member '{name}' is unexpected")));
        }
        let execute = execute.ok_or_else(|| Error::generic("QMP input lacks member 'execute'"))?;
        Ok(Self { execute, arguments })
    }
}

/// Spells the reply to a request that succeeded.
pub fn reply<T: Serialize + ?Sized>(value: &T, id: Option<&Id>, delimited: bool) -> Vec<u8> {
    let mut line = Vec::with_capacity(64);
    if delimited {
        line.push(SENTINEL);
    }
    line.extend_from_slice(b"{\"return\": ");
    json::write(&mut line, value);
    if let Some(Id(id)) = id {
        line.extend_from_slice(b", \"id\": ");
        line.extend_from_slice(id);
    }
    line.extend_from_slice(b"}\n");
    line
}

/// Spells the reply to a request that failed.
pub fn refusal(error: &Error, id: Option<&Id>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        class: ErrorClass,
        desc: &'a str,
    }
    let mut line = vec![b'{'];
    if let Some(Id(id)) = id {
        line.extend_from_slice(b"\"id\": ");
        line.extend_from_slice(id);
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(b"\"error\": ");
    json::write(&mut line, &Body { class: error.class, desc: &error.desc });
    line.extend_from_slice(b"}\n");
    line
}
