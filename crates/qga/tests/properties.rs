//! What holds for every input: of the framer, of the arguments' reader, of the encoder, and of the client.

use std::{
    io::{self, Cursor, Read, Write},
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};
use qga::{
    Client, Command,
    client::Transport,
    commands::session::{Nothing, Ping},
    for_each_command,
    wire::{
        args,
        frame::{Frame, Framer},
        json,
        message::{self, Envelope},
        parse::parse,
        value::{Object, Value},
    },
};

/// Bytes that look like the protocol's, so that they get far, and bytes that do not.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"'",
        b"\\",
        b"\\u00",
        b"\\ud83d\\ude00",
        b" ",
        b"\n",
        b"\xFF",
        b"\xFE",
        b"\0",
        b"1",
        b"-0.5e3",
        b"1e999",
        b"007",
        b"true",
        b"nul",
        b"%",
        b"\"a\"",
        b"'b'",
        b"\"\xC0\x80\"",
        b"\xC3\xA9",
        b"{\"execute\":\"guest-ping\"}",
        b"{\"execute\":\"guest-sync\",\"arguments\":{\"id\":1},\"id\":[1,{}]}",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// A stream, and where to cut it.
fn stream_in_pieces() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    stream().prop_flat_map(|bytes| {
        let cuts = vec(0..=bytes.len(), 0..8);
        (Just(bytes), cuts)
    })
}

/// Any text that the protocol's strings can hold.
fn text() -> impl Strategy<Value = String> {
    let is_character = |one: &char| u32::from(*one) & 0xFFFE != 0xFFFE && !('\u{FDD0}'..='\u{FDEF}').contains(one);
    any::<String>().prop_map(move |text| text.chars().filter(is_character).collect())
}

fn value() -> impl Strategy<Value = Value<'static>> {
    let name = || prop_oneof![Just("id".to_owned()), "[a-z-]{1,12}", text()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (1 + i64::MAX.cast_unsigned()..).prop_map(Value::UInt),
        any::<f64>().prop_filter("not finite", |number| number.is_finite()).prop_map(|number| {
            // Negative zero is written -0, which is the integer 0.
            Value::Double(number + 0.0)
        }),
        text().prop_map(|text| Value::String(text.into())),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        let member = (name().prop_map(Into::into), inner.clone());
        prop_oneof![
            vec(inner, 0..6).prop_map(Value::Array),
            vec(member, 0..6).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Object<'static>> {
    let member = (prop_oneof!["id", "[a-z-]{1,12}"].prop_map(Into::into), value());
    vec(member, 0..6).prop_map(|members| members.into_iter().collect())
}

fn frames(framer: &mut Framer, mut input: &[u8]) -> Vec<Frame> {
    std::iter::from_fn(|| framer.next(&mut input)).collect()
}

/// Reads the arguments as every command's, in turn.
fn read_as_every_command(arguments: &Object<'_>) -> Vec<Result<(), message::Error>> {
    macro_rules! read {
        ($($command:path),* $(,)?) => { vec![$(args::read::<$command>(arguments).map(drop)),*] };
    }
    for_each_command!(read)
}

/// Whether another reader understood a value. A double may have lost its last digit, and its type to an integer.
fn is_same(value: &Value<'_>, read: &serde_json::Value) -> bool {
    match value {
        Value::Null => read.is_null(),
        Value::Bool(value) => read == value,
        Value::Int(value) => read == value,
        Value::UInt(value) => read == value,
        Value::Double(value) => read.as_f64().is_some_and(|read| (read - value).abs() <= value.abs() * 1e-15),
        Value::String(value) => read == &**value,
        Value::Array(values) => read.as_array().is_some_and(|read| {
            read.len() == values.len() && values.iter().zip(read).all(|(value, read)| is_same(value, read))
        }),
        Value::Object(members) => read.as_object().is_some_and(|read| {
            read.len() == members.len()
                && members.iter().all(|(name, value)| read.get(&**name).is_some_and(|read| is_same(value, read)))
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_a_stream_is_cut_into_pieces_changes_nothing((bytes, mut cuts) in stream_in_pieces()) {
        cuts.sort_unstable();
        let mut framer = Framer::default();
        let mut found = Vec::new();
        let mut start = 0;
        for end in cuts.into_iter().chain([bytes.len()]) {
            found.extend(frames(&mut framer, &bytes[start..end]));
            start = end;
        }
        prop_assert_eq!(found, frames(&mut Framer::default(), &bytes));
    }

    #[test]
    fn whatever_came_before_a_sentinel_brings_the_stream_in_step(bytes in stream()) {
        let mut framer = Framer::default();
        frames(&mut framer, &bytes);
        let found = frames(&mut framer, b"\xFF{\"execute\":\"guest-ping\"}");
        prop_assert_eq!(found.last(), Some(&Frame::Message(b"{\"execute\":\"guest-ping\"}".to_vec())));
        prop_assert!(!framer.is_within_message());
    }

    #[test]
    fn every_frame_is_answered_by_one_line_of_ascii_that_is_an_object(bytes in stream()) {
        for frame in frames(&mut Framer::default(), &bytes) {
            let line = match frame {
                Frame::Invalid(error) => message::refusal(&error, None),
                Frame::Message(text) => {
                    let envelope = Envelope::open(&text);
                    match envelope.request {
                        Ok(request) => message::reply(&*request.execute, envelope.id.as_ref(), false),
                        Err(error) => message::refusal(&error, envelope.id.as_ref()),
                    }
                }
            };
            let (end, text) = line.split_last().expect("a line has an end");
            prop_assert_eq!(*end, b'\n');
            prop_assert!(text.iter().all(|byte| (0x20..0x7F).contains(byte)));
            prop_assert!(serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(text).is_ok());
        }
    }

    #[test]
    fn any_arguments_are_read_or_refused_with_a_text(arguments in object()) {
        for result in read_as_every_command(&arguments) {
            if let Err(error) = result {
                prop_assert!(!error.desc.is_empty());
            }
        }
    }

    #[test]
    fn what_is_encoded_is_read_back_by_others_and_by_us(value in value()) {
        let text = json::to_vec(&value);
        let read = serde_json::from_slice(&text).expect("our output is JSON");
        prop_assert!(is_same(&value, &read), "{} was read as {read}", String::from_utf8_lossy(&text));
        let message = [b"[", text.as_slice(), b"]"].concat();
        let found = frames(&mut Framer::default(), &message);
        prop_assert!(matches!(found.as_slice(), [Frame::Message(found)] if *found == message));
        prop_assert_eq!(json::to_vec(&parse(&message).expect("our output is a message")), message);
    }

    #[test]
    fn a_client_survives_any_stale_lines_before_its_sync_reply(stale in stale_output()) {
        let mut client = Client::new(Agent { stale, replies: Cursor::default() });
        let reply = client.call(&Ping {}, Instant::now() + Duration::from_secs(60));
        prop_assert_eq!(reply.map_err(|error| error.to_string()), Ok(Nothing {}));
    }
}

/// What earlier peers may have left in the channel: lines of anything, other syncs' replies among them, and half a
/// line.
fn stale_output() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        stream(),
        any::<i64>().prop_map(|id| format!("{{\"return\": {id}}}").into_bytes()),
        any::<i64>().prop_map(|id| [b"\xFF", format!("{{\"return\": {id}}}").as_bytes()].concat()),
        Just(b"\xFF{\"retu".to_vec()),
        Just(b"{\"return\": {}}".to_vec()),
        Just(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"x\"}}".to_vec()),
    ];
    (vec(line.clone(), 0..6), line).prop_map(|(lines, half)| {
        lines.into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).chain(half).collect()
    })
}

/// An agent in memory, whose channel holds something already.
struct Agent {
    stale: Vec<u8>,
    replies: Cursor<Vec<u8>>,
}

impl Write for Agent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let replies = self.replies.get_mut();
        replies.append(&mut self.stale);
        for frame in frames(&mut Framer::default(), bytes) {
            let line = match frame {
                Frame::Invalid(error) => message::refusal(&error, None),
                Frame::Message(text) => {
                    let request = Envelope::open(&text).request.expect("a client's request is sound");
                    match request.arguments.get("id") {
                        Some(id) => message::reply(id, None, true),
                        None => message::reply(&Nothing {}, None, false),
                    }
                }
            };
            replies.extend(line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Agent {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.replies.read(bytes)
    }
}

impl Transport for Agent {
    fn set_timeout(&mut self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_command_refuses_an_argument_it_does_not_have() {
    let arguments = Object::from([("no-such-argument".into(), Value::Null)]);
    macro_rules! names {
        ($($command:path),* $(,)?) => { [$(<$command as Command>::SPEC.name),*] };
    }
    for (name, result) in for_each_command!(names).iter().zip(read_as_every_command(&arguments)) {
        assert!(result.is_err(), "{name} takes anything");
    }
}
