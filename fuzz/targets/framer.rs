//! Any bytes, cut anywhere, give the same frames, and each frame is answered by one line of ASCII that is a JSON
//! object.
//!
//! The first byte of the input says how long the pieces are.

#![no_main]

use qga::wire::{
    frame::{Frame, Framer},
    message::{self, Envelope},
};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&size, stream)) = input.split_first() else { return };
    let whole = frames(&mut Framer::default(), stream);
    let mut framer = Framer::default();
    let pieces: Vec<_> = stream.chunks(usize::from(size).max(1)).flat_map(|piece| frames(&mut framer, piece)).collect();
    assert_eq!(whole, pieces);
    for frame in whole {
        check_reply(&reply(frame));
    }
});

fn frames(framer: &mut Framer, mut input: &[u8]) -> Vec<Frame> {
    std::iter::from_fn(|| framer.next(&mut input)).collect()
}

fn reply(frame: Frame) -> Vec<u8> {
    let text = match frame {
        Frame::Invalid(error) => return message::refusal(&error, None),
        Frame::Message(text) => text,
    };
    let envelope = Envelope::open(&text);
    match envelope.request {
        Ok(request) => message::reply(&*request.execute, envelope.id.as_ref(), false),
        Err(error) => message::refusal(&error, envelope.id.as_ref()),
    }
}

fn check_reply(line: &[u8]) {
    let text = line.strip_suffix(b"\n").expect("a line ends");
    assert!(text.iter().all(|byte| (0x20..0x7F).contains(byte)));
    // Another reader has a limit of depth of its own.
    let depth = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    assert!(depth > 100 || serde_json::from_slice::<serde_json::Map<_, _>>(text).is_ok());
}
