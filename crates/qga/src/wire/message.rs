//! The envelope: requests in, replies and refusals out.
//!
//! A request's members are checked here in the protocol's order; its arguments are checked by [`super::args`].
//! Replies are complete lines. A success puts `return` before `id`, an error `id` before `error`.

use std::borrow::Cow;

use serde::Serialize;

use super::{
    json,
    parse::parse,
    value::{Object, Value},
};

pub use super::error::{Error, ErrorClass, Refused};

/// The byte that resets a peer's reader; never part of JSON text.
pub const SENTINEL: u8 = 0xFF;

/// The value of a request's `id`, encoded as it will be echoed.
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

/// Encodes the reply to a request that succeeded.
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

/// Encodes the reply to a request that failed.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The message's request is refused with this text, and its id echoed like this.
    fn check_refused(message: &str, id: Option<&str>, desc: &str) {
        let envelope = Envelope::open(message.as_bytes());
        assert_eq!(envelope.request, Err(Error::generic(desc)), "{message}");
        assert_eq!(envelope.id, id.map(|id| Id(id.into())), "{message}");
    }

    fn check_request(message: &str, id: Option<&str>, execute: &str, arguments: &[(&str, i64)]) {
        let envelope = Envelope::open(message.as_bytes());
        let arguments = arguments.iter().map(|&(name, value)| (name.into(), Value::Int(value))).collect();
        assert_eq!(envelope.request, Ok(Request { execute: execute.into(), arguments }), "{message}");
        assert_eq!(envelope.id, id.map(|id| Id(id.into())), "{message}");
    }

    #[test]
    fn arguments_and_id_may_be_absent_and_members_stand_in_any_order() {
        check_request(r#"{"execute":"a"}"#, None, "a", &[]);
        check_request(r#"{"arguments":{},"execute":"a"}"#, None, "a", &[]);
        check_request(r#"{"id":1,"arguments":{"x":5},"execute":"a"}"#, Some("1"), "a", &[("x", 5)]);
    }

    #[test]
    fn an_id_is_any_value_and_is_echoed_in_the_protocols_format() {
        for (id, echoed) in [
            ("null", "null"),
            ("-0", "0"),
            ("0.1", "0.10000000000000001"),
            ("18446744073709551615", "18446744073709551615"),
            ("'it\\'s'", "\"it's\""),
            ("[1,{'a':[]}]", "[1, {\"a\": []}]"),
            ("'é'", "\"\\u00E9\""),
        ] {
            check_request(&format!("{{'execute':'a','id':{id}}}"), Some(echoed), "a", &[]);
        }
    }

    #[test]
    fn a_message_must_be_an_object() {
        for message in ["[]", "123", "\"x\"", "null", "true", "1.5"] {
            check_refused(message, None, "QMP input must be a JSON object");
        }
    }

    #[test]
    fn members_of_the_envelope_are_checked_in_the_protocols_order() {
        check_refused("{}", None, "QMP input lacks member 'execute'");
        check_refused(r#"{"arguments":{}}"#, None, "QMP input lacks member 'execute'");
        check_refused(r#"{"execute":1}"#, None, "QMP input member 'execute' must be a string");
        check_refused(r#"{"execute":null,"arguments":1,"foo":1}"#, None, "QMP input member 'execute' must be a string");
        for arguments in ["null", "[]", "1", "\"\""] {
            let message = format!("{{\"execute\":\"a\",\"arguments\":{arguments},\"foo\":1}}");
            check_refused(&message, None, "QMP input member 'arguments' must be an object");
        }
        for name in ["foo", "control", "exec-oob", "Execute"] {
            let message = format!("{{\"{name}\":1}}");
            check_refused(&message, None, &format!("QMP input member '{name}' is unexpected"));
        }
    }

    #[test]
    fn an_unsound_request_has_its_id_echoed_and_an_unreadable_one_has_none() {
        check_refused(r#"{"id":7}"#, Some("7"), "QMP input lacks member 'execute'");
        check_refused(r#"{"id":7,"execute":"a","foo":1}"#, Some("7"), "QMP input member 'foo' is unexpected");
        check_refused(r#"{"id":7,"execute"}"#, None, "JSON parse error, missing : in object pair");
    }

    #[test]
    fn a_success_puts_return_before_id_and_a_delimited_one_a_sentinel_before_all() {
        let id = Id(b"[1, 2]".to_vec());
        assert_eq!(reply(&5, None, false), b"{\"return\": 5}\n");
        assert_eq!(reply("x", Some(&id), false), b"{\"return\": \"x\", \"id\": [1, 2]}\n");
        assert_eq!(reply(&5, None, true), b"\xFF{\"return\": 5}\n");
    }

    #[test]
    fn a_refusal_puts_id_before_error() {
        let id = Id(b"7".to_vec());
        let encode = |error: &Error, id| String::from_utf8(refusal(error, id)).unwrap();
        assert_eq!(
            encode(&Error::generic("it's é"), None),
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"it's \\u00E9\"}}\n"
        );
        assert_eq!(
            encode(&Error::command_not_found("no"), Some(&id)),
            "{\"id\": 7, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n"
        );
    }
}
