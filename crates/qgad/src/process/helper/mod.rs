//! A helper program: one that is run to its end while a command waits for it.
//!
//! Its two outputs come in one pipe. The last [`MAX_OUTPUT_BYTES`] are kept, because what a program dies of it says last;
//! the rest is read and dropped. It gets its input without anybody being held up by it, and otherwise none: one that
//! does not read its input is judged by how it ends. Past its time limit it is killed with all of its session.
//! What it leaves behind, a daemon that holds its pipe or itself when it cannot be killed, delays the result by
//! [`GRACE`] only, and is looked after until it ends: its output is read and dropped, so that nothing is killed by it.
//! It is not protected from the kernel's search for memory, whatever the agent or a guard is: it may start a database.
//! The words are those of the protocol: the output is told as it is, its last newline included.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
};
use qga::wire::message::Error;

use super::spawn::{Child, ExitStatus, Program, Stdio, pipe_from_child, pipe_to_child};
use crate::{
    process::programs::GRACE,
    util::{errno, threads, timeout},
};

/// Most output that is kept: screens of it, and still a single line of the journal.
pub(crate) const MAX_OUTPUT_BYTES: usize = 16 * 1024;
/// Most programs whose remains are looked after, a thread each. Those of further ones lose their pipe.
const MAX_REMAINS: usize = 16;
/// Stack of a thread that looks after remains: two pieces of output.
const REMAINS_STACK_BYTES: usize = 64 * 1024;
/// Bytes read at a time.
const PIECE_BYTES: usize = 8 * 1024;

/// A program to be run to its end.
#[derive(Debug)]
pub(crate) struct Helper<'a> {
    /// The program, with its arguments and environment.
    pub(crate) program: Program,
    /// What it is run for, as errors say it: `execute fsfreeze hook`.
    pub(crate) action: &'a str,
    /// What it reads from its standard input.
    pub(crate) input: &'a [u8],
    /// How long it may run.
    pub(crate) timeout: Duration,
}

/// What became of a helper that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How it ended; nothing if it was killed at its time limit.
    pub(crate) end: Option<ExitStatus>,
    /// The end of its output.
    pub(crate) output: String,
}

impl Helper<'_> {
    /// Runs it, and returns its output.
    ///
    /// # Errors
    /// When it cannot be started, ends otherwise than with 0, or does not end in time.
    pub(crate) fn run(&self) -> Result<String, Error> {
        let outcome = self.outcome().map_err(|error| Error::generic(self.words_of_no_start(error)))?;
        match self.words_of_failure(&outcome) {
            Some(words) => Err(Error::generic(words)),
            None => Ok(outcome.output),
        }
    }

    /// Runs it, however it ends.
    ///
    /// # Errors
    /// When it cannot be started; as `ENOENT` when there is no such program.
    pub(crate) fn outcome(&self) -> io::Result<Outcome> {
        let mut conversation = self.start()?;
        conversation.go_on(Some(Instant::now() + self.timeout), Conversation::has_ended);
        let end = conversation.end;
        if end.is_none() {
            conversation.child.kill_session();
        }
        conversation.go_on(Some(Instant::now() + GRACE), Conversation::is_over);
        let output = conversation.output();
        if !conversation.is_over() {
            look_after(conversation);
        }
        Ok(Outcome { end, output })
    }

    fn start(&self) -> io::Result<Conversation> {
        let null = OpenOptions::new()
            .read(true)
            .open("/dev/null")
            .map_err(|error| io::Error::other(format!("failed to open /dev/null: {}", errno::words(error))))?;
        let (output, child_output) = pipe_from_child()?;
        let (child_input, input) = match self.input {
            [] => (null.into(), None),
            _ => pipe_to_child().map(|(child, ours)| (child, Some(ours)))?,
        };
        let (input_end, output_end) = (child_input.as_fd(), child_output.as_fd());
        let child = self.program.start(Stdio { input: input_end, output: output_end, error: output_end })?;
        child.unprotect();
        let input = input.map(|pipe| Input { pipe, bytes: self.input.into(), written: 0 });
        Ok(Conversation { child, input, output: Some(output), kept: Vec::new(), end: None })
    }

    fn words_of_no_start(&self, error: io::Error) -> String {
        // Also said when there is a file that cannot be run; what is told apart is that nothing could be.
        let is_of_the_file = error.raw_os_error().map(Errno::from_raw).is_some_and(|number| {
            !matches!(number, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::ENOSYS)
        });
        let (path, words) = (self.program.path().display(), errno::words(error));
        match is_of_the_file {
            true => format!("child process has failed to {}: failed to exec '{path}': {words}\n", self.action),
            false => format!("failed to create child process: {words}"),
        }
    }

    fn words_of_failure(&self, outcome: &Outcome) -> Option<String> {
        let Outcome { end, output } = outcome;
        let failed = format!("child process has failed to {}", self.action);
        let behind = |words: &str| if output.is_empty() { words.to_owned() } else { format!("{words}: {output}") };
        match end {
            Some(ExitStatus::Code(0)) => None,
            Some(ExitStatus::Code(code)) if output.is_empty() => Some(format!("{failed}: exit status {code}")),
            Some(ExitStatus::Code(_)) => Some(behind(&failed)),
            Some(ExitStatus::Signal(_)) => Some(behind("child process has terminated abnormally")),
            None => Some(behind(&format!("{failed}: timed out after {} s", self.timeout.as_secs_f64()))),
        }
    }
}

/// A program that was started, and our ends of its pipes.
#[derive(Debug)]
struct Conversation {
    child: Child,
    input: Option<Input>,
    output: Option<File>,
    kept: Vec<u8>,
    end: Option<ExitStatus>,
}

/// What is still to be read by the program.
#[derive(Debug)]
struct Input {
    pipe: File,
    bytes: Vec<u8>,
    written: usize,
}

impl Conversation {
    /// Moves bytes until something has come to be, or it is too late.
    fn go_on(&mut self, deadline: Option<Instant>, until: fn(&Self) -> bool) {
        while !until(self) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            let child = self.end.is_none().then(|| PollFd::new(self.child.as_fd(), PollFlags::POLLIN));
            let output = self.output.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            let input = self.input.as_ref().map(|input| PollFd::new(input.pipe.as_fd(), PollFlags::POLLOUT));
            let mut wanted: Vec<_> = [child, output, input].into_iter().flatten().collect();
            if poll(&mut wanted, timeout::until(deadline)).is_err_and(|error| error != Errno::EINTR) {
                return;
            }
            self.write();
            self.read();
            if self.end.is_none() {
                self.end = self.child.try_wait().ok().flatten();
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether nothing is left of it.
    fn is_over(&self) -> bool {
        self.end.is_some() && self.output.is_none()
    }

    fn write(&mut self) {
        let Some(Input { pipe, bytes, written }) = &mut self.input else { return };
        match pipe.write(&bytes[*written..]) {
            Ok(count) if *written + count < bytes.len() => *written += count,
            Err(error) if is_temporary(&error) => {}
            // All is written, or nobody reads it.
            Ok(_) | Err(_) => self.input = None,
        }
    }

    fn read(&mut self) {
        let Some(pipe) = &mut self.output else { return };
        let mut piece = [0; PIECE_BYTES];
        match pipe.read(&mut piece) {
            Ok(count @ 1..) => {
                self.kept.extend(&piece[..count]);
                self.forget_beginning(2 * MAX_OUTPUT_BYTES);
            }
            Err(error) if is_temporary(&error) => {}
            Ok(0) | Err(_) => self.output = None,
        }
    }

    /// Keeps the end of the output if there is more than so much.
    fn forget_beginning(&mut self, limit: usize) {
        if self.kept.len() > limit {
            self.kept.drain(..self.kept.len() - MAX_OUTPUT_BYTES);
        }
    }

    fn output(&mut self) -> String {
        self.forget_beginning(MAX_OUTPUT_BYTES);
        String::from_utf8_lossy(&std::mem::take(&mut self.kept)).into_owned()
    }
}

/// Looks after what a program has left behind, until nothing of it is left.
fn look_after(mut conversation: Conversation) {
    static REMAINS: AtomicUsize = AtomicUsize::new(0);
    conversation.input = None;
    let others = REMAINS.fetch_add(1, Ordering::Relaxed);
    let has_begun = others < MAX_REMAINS && {
        let look_after = move || {
            conversation.go_on(None, Conversation::is_over);
            REMAINS.fetch_sub(1, Ordering::Relaxed);
        };
        threads::start("remains", REMAINS_STACK_BYTES, look_after).is_ok()
    };
    if !has_begun {
        REMAINS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
