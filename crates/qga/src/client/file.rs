//! A file in the guest, read and written in pieces that suit the peer.
//!
//! Pieces begin small and grow while the peer is quick, up to what the channel carries. A piece that is refused is
//! retried in smaller pieces from the same position, if the file can seek. The agent's replies are checked: more bytes
//! than requested, or a reply without progress, end the transfer with an error.
//! A handle is closed when its file is dropped; [`GuestFile::close`] also says whether that worked.

use std::{
    mem,
    time::{Duration, Instant},
};

use super::{Client, Error, Result, Transport};
use crate::{
    command::Command,
    commands::file::{FileClose, FileOpen, FilePosition, FileRead, FileSeek, FileWrite, Whence},
    wire::base64::Base64,
};

/// Longest that dropping a file may wait for the agent to close it.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// A file that an agent holds open.
#[derive(Debug)]
pub struct GuestFile<'client, T: Transport> {
    client: &'client mut Client<T>,
    /// The agent's name for it; none once it was closed.
    handle: Option<i64>,
    /// Where the next piece belongs, counted from where the file was opened.
    position: i64,
    /// Whether the end was met.
    is_at_end: bool,
    /// Whether writes go to the end, wherever the position is.
    appends: bool,
    pace: Pace,
    reply_timeout: Duration,
}

impl<'client, T: Transport> GuestFile<'client, T> {
    /// Opens a file, with a mode as fopen(3) has it. Each reply about it may take `reply_timeout`.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn open(client: &'client mut Client<T>, path: &str, mode: &str, reply_timeout: Duration) -> Result<Self> {
        let open = FileOpen { path: path.into(), mode: Some(mode.into()) };
        let handle = Some(client.call(&open, Instant::now() + reply_timeout)?);
        let appends = mode.starts_with('a');
        Ok(Self { client, handle, position: 0, is_at_end: false, appends, pace: Pace::new(), reply_timeout })
    }

    /// The file's size in bytes, found by seeking, or `None` for what cannot seek. Files in /proc have size 0.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn size(&mut self) -> Result<Option<u64>> {
        let end = match self.seek(0, Whence::End) {
            Ok(end) => end.position,
            Err(Error::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.seek(self.position, Whence::Set)?;
        Ok(u64::try_from(end).ok())
    }

    /// Reads the next piece; `None` at the end.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(&mut self) -> Result<Option<Vec<u8>>> {
        if self.is_at_end {
            return Ok(None);
        }
        loop {
            let asked = self.pace.piece.min(self.client.limits().bytes_in_reply());
            let begin = Instant::now();
            let reply = match self.call(&FileRead { handle: self.handle(), count: i64::try_from(asked).ok() }) {
                Err(refusal @ Error::Refused { .. }) => {
                    self.retry_smaller(asked, refusal)?;
                    continue;
                }
                reply => reply?,
            };
            self.pace.went_in(begin.elapsed());
            let bytes = reply.buf_b64.into_bytes().map_err(|error| Error::Garbled(error.desc))?;
            if bytes.len() > asked {
                return Err(Error::Garbled(format!("{} bytes where {asked} were asked for", bytes.len())));
            }
            self.is_at_end = reply.eof;
            if bytes.is_empty() {
                let nothing = || Error::Garbled("no bytes, and yet not the end of the file".into());
                return if reply.eof { Ok(None) } else { Err(nothing()) };
            }
            self.moved_by(bytes.len());
            return Ok(Some(bytes));
        }
    }

    /// How many bytes the next write should carry.
    pub fn piece(&self) -> usize {
        self.pace.piece.min(self.client.limits().bytes_in_request())
    }

    /// Writes bytes, all of them.
    ///
    /// # Errors
    /// As [`Self::open`]. Some of the bytes may have been written.
    pub fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let piece = &bytes[..bytes.len().min(self.piece())];
            let begin = Instant::now();
            let write = FileWrite { handle: self.handle(), buf_b64: Base64::from(piece.to_vec()), count: None };
            let reply = match self.call(&write) {
                Err(refusal @ Error::Refused { .. }) if !self.appends => {
                    self.retry_smaller(piece.len(), refusal)?;
                    continue;
                }
                reply => reply?,
            };
            self.pace.went_in(begin.elapsed());
            match usize::try_from(reply.count) {
                Ok(written @ 1..) if written <= piece.len() => {
                    self.moved_by(written);
                    bytes = &bytes[written..];
                }
                _ => return Err(Error::Garbled(format!("{} of {} bytes written", reply.count, piece.len()))),
            }
        }
        Ok(())
    }

    /// Closes the file, and says whether what was written has arrived.
    ///
    /// # Errors
    /// As [`Self::open`]. The handle is gone even then.
    pub fn close(mut self) -> Result<()> {
        let close = FileClose { handle: self.handle() };
        self.handle = None;
        self.call(&close).map(|_| ())
    }

    /// Seeks back to where a piece was refused, to retry a smaller one, or returns the refusal if that is impossible.
    fn retry_smaller(&mut self, refused: usize, refusal: Error) -> Result<()> {
        if !self.pace.shrink_below(refused) {
            return Err(refusal);
        }
        // A message that the peer could not read may be answered by several lines.
        self.client.sync(Instant::now() + self.reply_timeout)?;
        match self.seek(self.position, Whence::Set) {
            Ok(_) => Ok(()),
            Err(Error::Refused { .. }) => Err(refusal),
            Err(error) => Err(error),
        }
    }

    fn seek(&mut self, offset: i64, whence: Whence) -> Result<FilePosition> {
        self.call(&FileSeek { handle: self.handle(), offset, whence })
    }

    fn call<C: Command>(&mut self, command: &C) -> Result<C::Reply> {
        self.client.call(command, Instant::now() + self.reply_timeout)
    }

    fn moved_by(&mut self, bytes: usize) {
        self.position = self.position.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn handle(&self) -> i64 {
        self.handle.unwrap_or(-1)
    }
}

impl<T: Transport> Drop for GuestFile<'_, T> {
    fn drop(&mut self) {
        // A conversation out of step has failed already: the agent would not answer in time.
        if let Some(handle) = mem::take(&mut self.handle).filter(|_| self.client.in_step) {
            let _ = self.client.call(&FileClose { handle }, Instant::now() + DROP_TIMEOUT);
        }
    }
}

/// How large the pieces are.
#[derive(Debug, PartialEq, Eq)]
struct Pace {
    piece: usize,
    largest: usize,
}

impl Pace {
    /// What every agent takes at once, however slow its channel.
    const FIRST: usize = 64 * 1024;
    /// The protocol's own default: where this is refused, size is not the cause.
    const SMALLEST: usize = 4 * 1024;
    /// In base64 5.6 MB: some channels carry lines of up to 10 MiB, and larger pieces are no faster.
    const LARGEST: usize = 4 * 1024 * 1024;
    /// A round trip below this leaves a progress bar smooth at twice the size.
    const QUICK: Duration = Duration::from_millis(100);
    /// A round trip above this makes a transfer look stuck.
    const SLOW: Duration = Duration::from_millis(500);

    fn new() -> Self {
        Self { piece: Self::FIRST, largest: Self::LARGEST }
    }

    /// Learns how long a piece took.
    fn went_in(&mut self, elapsed: Duration) {
        if elapsed < Self::QUICK {
            self.piece = (self.piece * 2).min(self.largest);
        } else if elapsed > Self::SLOW {
            self.piece = (self.piece / 2).max(Self::SMALLEST);
        }
    }

    /// Learns that a piece of this size was refused, and says whether a smaller one is worth a try.
    fn shrink_below(&mut self, refused: usize) -> bool {
        let smaller = refused / 4;
        if smaller < Self::SMALLEST {
            return false;
        }
        *self = Self { piece: smaller, largest: smaller };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(piece: usize, milliseconds: u64, next: usize) {
        let mut pace = Pace { piece, ..Pace::new() };
        pace.went_in(Duration::from_millis(milliseconds));
        assert_eq!(pace.piece, next, "{piece} bytes in {milliseconds} ms");
    }

    #[test]
    fn pieces_grow_while_the_peer_is_quick_and_shrink_when_it_is_slow() {
        check(65536, 1, 131_072);
        check(65536, 300, 65536);
        check(65536, 501, 32768);
    }

    #[test]
    fn pieces_stay_within_what_channels_carry() {
        check(Pace::LARGEST, 0, Pace::LARGEST);
        check(Pace::SMALLEST, 10_000, Pace::SMALLEST);
    }

    #[test]
    fn pieces_never_grow_back_to_a_size_that_was_refused() {
        let mut pace = Pace { piece: 65536, ..Pace::new() };
        assert!(pace.shrink_below(65536));
        pace.went_in(Duration::ZERO);
        assert_eq!(pace.piece, 16384);
        assert!(pace.shrink_below(16384));
        assert!(!pace.shrink_below(4096));
    }
}
