//! Input on its way to a job.
//!
//! Bytes are kept until the job has accepted them, so that a write whose reply was lost can be repeated. When the job
//! takes no more for now, the rest is offered again after a pause, and at once after output of the job, which may have
//! made room. Until then nothing more is read than one write carries: who feeds us waits, too.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use qga::client::Accepted;

use super::escape::Escape;

/// Most bytes kept: one large write.
pub(super) const MAX_PENDING: usize = 1024 * 1024;
/// How much is read at a time: what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// First and longest pause until refused bytes are offered again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Where a job's input comes from.
pub(crate) enum Source {
    /// Nowhere.
    None,
    /// Standard input.
    Stdin,
    /// A file.
    File(File),
}

/// The bytes that a job has not accepted yet, and where more come from.
pub(super) struct Input {
    /// None when it has been read to its end.
    source: Option<File>,
    /// What is typed on a terminal is looked at.
    escape: Option<Escape>,
    pending: Vec<u8>,
    /// The end must still be passed on, behind the bytes.
    owes_end: bool,
    pause: Duration,
    refused_until: Option<Instant>,
}

impl Input {
    pub(super) fn new(source: Source, is_terminal: bool) -> io::Result<Self> {
        let source = match source {
            Source::None => None,
            // Not as std's own, which reads ahead.
            Source::Stdin => Some(File::from(io::stdin().as_fd().try_clone_to_owned()?)),
            Source::File(file) => Some(file),
        };
        let escape = is_terminal.then(Escape::new);
        Ok(Self { source, escape, pending: Vec::new(), owes_end: false, pause: PAUSES.0, refused_until: None })
    }

    /// What to watch for more bytes.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().filter(|_| self.pending.len() < MAX_PENDING).map(AsFd::as_fd)
    }

    /// Reads what is there, and returns whether the user leaves: the way out was typed, or the terminal is gone.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        while let Some(source) = &mut self.source
            && self.pending.len() < MAX_PENDING
            && poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)? > 0
        {
            let count = match source.read(&mut chunk) {
                // A terminal that is gone.
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                count => count?,
            };
            if count == 0 {
                self.source = None;
                self.owes_end = self.escape.is_none();
                return Ok(self.escape.is_some());
            }
            match &mut self.escape {
                Some(escape) => {
                    if escape.filter(&chunk[..count], &mut self.pending) {
                        return Ok(true);
                    }
                }
                None => self.pending.extend_from_slice(&chunk[..count]),
            }
        }
        Ok(false)
    }

    /// What to write next: so many bytes at most, and whether the input ends behind them.
    pub(super) fn next(&self, most: usize) -> (&[u8], bool) {
        let piece = &self.pending[..self.pending.len().min(most)];
        (piece, self.owes_end && piece.len() == self.pending.len())
    }

    /// Whether there is something to write now.
    pub(super) fn is_due(&self) -> bool {
        let is_refused = self.refused_until.is_some_and(|end| Instant::now() < end);
        (!self.pending.is_empty() || self.owes_end) && !is_refused
    }

    /// When something is to be offered again, if that is not yet.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.refused_until.filter(|end| Instant::now() < *end)
    }

    /// A write of so many bytes, with or without the end, was answered.
    pub(super) fn settle(&mut self, accepted: Accepted, sent: usize, ended: bool) {
        self.pending.drain(..accepted.count);
        if accepted.count == sent {
            self.retry();
            self.owes_end &= !ended;
        } else {
            self.refused_until = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(PAUSES.1);
        }
        if accepted.closed {
            self.close();
        }
    }

    /// There may be room again.
    pub(super) fn retry(&mut self) {
        self.refused_until = None;
        self.pause = PAUSES.0;
    }

    /// No input is taken any more. What is typed on a terminal is still read, for the way out.
    fn close(&mut self) {
        if self.escape.is_none() {
            self.source = None;
        }
        self.pending.clear();
        self.owes_end = false;
        self.retry();
    }
}
