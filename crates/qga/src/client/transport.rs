//! A byte stream with timeouts, and the lines it carries.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use memchr::memchr;

use super::{Error, MAX_REPLY_BYTES, Result};

/// How much is read at a time: large enough for bulk replies to cost few calls.
const CHUNK: usize = 256 * 1024;

/// How long a read of what should be there already may take; system calls take no timeout of zero.
const MOMENT: Duration = Duration::from_millis(1);

/// A byte stream to an agent.
pub trait Transport: Read + Write {
    /// Bounds each following read and write; `None` removes the bound.
    ///
    /// # Errors
    /// When the stream cannot do so.
    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The largest messages that it carries: a [`GuestFile`](super::GuestFile) moves pieces that fit.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// The largest messages that a channel carries, in bytes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request.
    pub request: usize,
    /// Longest reply.
    pub reply: usize,
}

impl Default for Limits {
    /// What every byte stream carries.
    fn default() -> Self {
        Self { request: MAX_REPLY_BYTES, reply: MAX_REPLY_BYTES }
    }
}

impl Limits {
    /// What a message needs beside base64: names, numbers and whatever an agent or a host adds.
    const ENVELOPE: usize = 1024;

    /// How many bytes of a file or of a program's output fit into a request, as base64.
    pub fn bytes_in_request(self) -> usize {
        Self::in_base64(self.request)
    }

    /// How many bytes of a file or of a program's output fit into a reply, as base64.
    pub fn bytes_in_reply(self) -> usize {
        Self::in_base64(self.reply)
    }

    fn in_base64(line: usize) -> usize {
        (line.saturating_sub(Self::ENVELOPE) / 4 * 3).max(1)
    }
}

impl Transport for UnixStream {
    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)?;
        self.set_write_timeout(timeout)
    }
}

impl Transport for TcpStream {
    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)?;
        self.set_write_timeout(timeout)
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        (**self).set_timeout(timeout)
    }

    fn limits(&self) -> Limits {
        (**self).limits()
    }
}

/// Lines in, bytes out, each by a deadline.
#[derive(Debug)]
pub(super) struct Lines<T> {
    transport: T,
    /// Received and not yet consumed.
    buffer: Vec<u8>,
    /// How many bytes of the buffer are known to hold no end of a line.
    searched: usize,
    /// Where each read puts its bytes.
    chunk: Box<[u8]>,
}

impl<T: Transport> Lines<T> {
    pub(super) fn new(transport: T) -> Self {
        Self { transport, buffer: Vec::new(), searched: 0, chunk: vec![0; CHUNK].into() }
    }

    pub(super) fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    pub(super) fn limits(&self) -> Limits {
        self.transport.limits()
    }

    pub(super) fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<()> {
        while !bytes.is_empty() {
            self.bound_by(deadline)?;
            match self.transport.write(bytes) {
                Ok(0) => return Err(Error::Closed),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next line, without its end. One that is longer than so many bytes is an error.
    pub(super) fn receive(&mut self, longest: usize, deadline: Instant) -> Result<Vec<u8>> {
        loop {
            if let Some(line) = self.take_line(longest)? {
                return Ok(line);
            }
            self.fill(deadline)?;
        }
    }

    /// As [`Self::receive`], but `None` if the line is not there as a whole. Reads once from the stream, at most.
    pub(super) fn try_receive(&mut self, longest: usize) -> Result<Option<Vec<u8>>> {
        if let Some(line) = self.take_line(longest)? {
            return Ok(Some(line));
        }
        match self.fill(Instant::now() + MOMENT) {
            Ok(()) => self.take_line(longest),
            Err(Error::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a whole line has been received.
    pub(super) fn has_line(&self) -> bool {
        memchr(b'\n', &self.buffer[self.searched..]).is_some()
    }

    /// Drops everything up to the next such byte, and that byte.
    pub(super) fn skip_past(&mut self, byte: u8, deadline: Instant) -> Result<()> {
        self.searched = 0;
        loop {
            if let Some(end) = memchr(byte, &self.buffer) {
                self.buffer.drain(..=end);
                return Ok(());
            }
            self.buffer.clear();
            self.fill(deadline)?;
        }
    }

    /// The next line, if its end is in the buffer.
    fn take_line(&mut self, longest: usize) -> Result<Option<Vec<u8>>> {
        let Some(found) = memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return match self.searched > longest {
                true => Err(Error::Garbled(format!("a line of more than {longest} bytes"))),
                false => Ok(None),
            };
        };
        let rest = self.buffer.split_off(self.searched + found + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.pop();
        self.searched = 0;
        Ok(Some(line))
    }

    fn fill(&mut self, deadline: Instant) -> Result<()> {
        loop {
            self.bound_by(deadline)?;
            match self.transport.read(&mut self.chunk) {
                Ok(0) => return Err(Error::Closed),
                Ok(read) => {
                    self.buffer.extend_from_slice(&self.chunk[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn bound_by(&mut self, deadline: Instant) -> Result<()> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(Error::TimedOut);
        }
        Ok(self.transport.set_timeout(Some(remaining))?)
    }
}
