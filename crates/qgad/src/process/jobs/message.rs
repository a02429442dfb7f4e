//! The protocol between an agent and the supervisor of jobs.
//!
//! An agent's link to the supervisor carries only sockets, each for one request and its answer. So an agent waits for
//! an answer by watching a descriptor, and many answers can be pending. Shutting a socket down for writing asks for the
//! answer at once; closing it means that no answer is needed.
//!
//! A message is a kind, numbers and bytes. A small one is sent as it is, and a large one in a memory file, so that
//! sending and receiving never block. An upgraded agent talks to the supervisor of an earlier version: numbers that a
//! message lacks count as [`ABSENT`], and surplus ones are ignored. Kinds and positions never change their meaning.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, Write},
    os::fd::AsFd,
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::process::descriptor_passing;

/// A number that was not given.
pub(super) const ABSENT: i64 = -1;
/// Largest message that is sent without a memory file: a socket has room for several.
const MAX_DIRECT_BYTES: usize = 32 * 1024;
/// Bytes of a number.
const NUMBER_BYTES: usize = size_of::<i64>();

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// On a link: the supervisor is ready.
    Ready,
    /// Start a job.
    Start,
    /// Read output.
    Read,
    /// Write input.
    Write,
    /// Send a signal.
    Signal,
    /// Change the size of a terminal.
    Resize,
    /// List the jobs.
    List,
    /// Forget a job.
    Forget,
    /// An answer: it was done.
    Done,
    /// An answer: it was not, for the reason in the bytes.
    Failed,
    /// An answer: the supervisor ends, and has not done it.
    Ending,
}

const KINDS: [(Kind, u8); 11] = [
    (Kind::Ready, b'y'),
    (Kind::Start, b's'),
    (Kind::Read, b'r'),
    (Kind::Write, b'w'),
    (Kind::Signal, b'k'),
    (Kind::Resize, b'z'),
    (Kind::List, b'l'),
    (Kind::Forget, b'f'),
    (Kind::Done, b'D'),
    (Kind::Failed, b'F'),
    (Kind::Ending, b'L'),
];

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    /// What it is.
    pub(super) kind: Kind,
    /// Its numbers, by position.
    pub(super) numbers: Vec<i64>,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

impl Message {
    /// A message.
    pub(super) fn new(kind: Kind, numbers: impl Into<Vec<i64>>, bytes: Vec<u8>) -> Self {
        Self { kind, numbers: numbers.into(), bytes }
    }

    /// The number at a position.
    pub(super) fn number(&self, position: usize) -> i64 {
        self.numbers.get(position).copied().unwrap_or(ABSENT)
    }

    /// The number at a position, if it was given.
    pub(super) fn given(&self, position: usize) -> Option<i64> {
        Some(self.number(position)).filter(|&number| number != ABSENT)
    }

    /// Sends it.
    pub(super) fn send(&self, socket: &impl AsFd) -> io::Result<()> {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, byte)| *byte);
        let count = u32::try_from(self.numbers.len()).map_err(io::Error::other)?;
        let mut body = Vec::with_capacity(size_of::<u32>() + self.numbers.len() * NUMBER_BYTES + self.bytes.len());
        body.extend(count.to_le_bytes());
        body.extend(self.numbers.iter().flat_map(|number| number.to_le_bytes()));
        body.extend(&self.bytes);
        if body.len() <= MAX_DIRECT_BYTES {
            return Ok(descriptor_passing::send(socket, kind, &body, None::<&File>)?);
        }
        let mut file = File::from(memfd_create(c"message", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&body)?;
        file.rewind()?;
        Ok(descriptor_passing::send(socket, kind, &[], Some(&file))?)
    }

    /// The next message on a socket; `None` at its end.
    pub(super) fn receive(socket: &impl AsFd) -> io::Result<Option<Self>> {
        let mut buffer = [0; 1 + MAX_DIRECT_BYTES];
        let Some((length, file)) = descriptor_passing::receive(socket, &mut buffer)? else { return Ok(None) };
        let invalid = || io::Error::from(ErrorKind::InvalidData);
        let kind = KINDS.iter().find(|(_, byte)| *byte == buffer[0]).map(|(kind, _)| *kind).ok_or_else(invalid)?;
        let mut bytes = Vec::new();
        match file {
            Some(file) => drop(File::from(file).read_to_end(&mut bytes)?),
            None => bytes.extend(&buffer[1..length]),
        }
        let (count, rest) = bytes.split_first_chunk().ok_or_else(invalid)?;
        let length = usize::try_from(u32::from_le_bytes(*count)).map_err(io::Error::other)? * NUMBER_BYTES;
        let numbers = rest.get(..length).ok_or_else(invalid)?.chunks_exact(NUMBER_BYTES);
        let numbers = numbers.filter_map(|chunk| chunk.first_chunk()).map(|chunk| i64::from_le_bytes(*chunk)).collect();
        bytes.drain(..size_of::<u32>() + length);
        Ok(Some(Self { kind, numbers, bytes }))
    }

    /// An answer.
    pub(super) fn done(numbers: impl Into<Vec<i64>>, bytes: Vec<u8>) -> Self {
        Self::new(Kind::Done, numbers, bytes)
    }

    /// An answer that refuses, with the reason.
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self::new(Kind::Failed, [], reason.into().into_bytes())
    }
}

/// Whether a failure to send or receive means that the other side is gone.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::EPIPE, Errno::ECONNRESET, Errno::ENOTCONN];
    error.raw_os_error().is_some_and(|number| gone.contains(&Errno::from_raw(number)))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn messages_of_any_size_arrive_as_they_were_sent() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).unwrap();
        for length in [0, 1, MAX_DIRECT_BYTES, 3_000_000] {
            let sent = Message::new(Kind::Write, [7, i64::MIN], vec![b'x'; length]);
            sent.send(&ours).unwrap();
            let received = Message::receive(&theirs).unwrap().unwrap();
            assert_eq!((received.kind, &received.numbers, &received.bytes), (sent.kind, &sent.numbers, &sent.bytes));
            assert_eq!((received.number(1), received.given(2)), (i64::MIN, None));
        }
        drop(ours);
        assert!(Message::receive(&theirs).unwrap().is_none());
    }
}
