//! A helper program: one that is run to its end while a command waits for it.
//!
//! Standard output and standard error are one pipe. The last [`MAX_OUTPUT_BYTES`] are kept, because the reason for a
//! failure comes last; the rest is discarded. A helper that does not read its input blocks nothing, and only its exit
//! status counts. After its timeout it is killed with all of its session, which delays the result by [`GRACE`] at most.
//!
//! Leftovers are a daemon that holds the pipe, or the helper itself when it cannot be killed. They do not delay the end
//! of a helper. Their output is read and discarded until they end, so that SIGPIPE kills nothing.
//!
//! The out-of-memory killer may choose a helper, even if the agent or a guard is protected from it: a helper may start
//! a database. Error texts are those of the protocol, and contain the output unchanged, including its last newline.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use qga::wire::message::Error;

use super::spawn::{Child, ExitStatus, Program, Stdio, pipe_from_child, pipe_to_child};
use crate::{
    process::programs::GRACE,
    util::{errno, threads, timeout},
};

/// Most output that is kept: several screens, and still one line of the journal.
pub(crate) const MAX_OUTPUT_BYTES: usize = 16 * 1024;
/// Most helpers whose leftovers are drained, by a thread each. The pipes of further ones are closed.
const MAX_DRAINS: usize = 16;
/// Stack of a draining thread: several times its buffer of one piece.
const DRAIN_STACK_BYTES: usize = 64 * 1024;
/// Bytes read at a time: the buffer is on the stack.
const PIECE_BYTES: usize = 8 * 1024;

/// Most that is in a pipe, in bytes, unless root has changed the kernel's setting.
const MAX_PIPE_BYTES: usize = 1024 * 1024;

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

/// How a helper ended that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How it ended. `None` if it was killed after its timeout.
    pub(crate) status: Option<ExitStatus>,
    /// The end of its output.
    pub(crate) output: String,
}

impl Helper<'_> {
    /// Runs it, and returns its output.
    ///
    /// # Errors
    /// When it cannot be started, when its exit status is not 0, or when it does not end in time.
    pub(crate) fn run(&self) -> Result<String, Error> {
        let outcome = self.outcome().map_err(|error| Error::generic(self.start_error(error)))?;
        match self.failure(&outcome) {
            Some(desc) => Err(Error::generic(desc)),
            None => Ok(outcome.output),
        }
    }

    /// Runs it, however it ends.
    ///
    /// # Errors
    /// When it cannot be started; as `ENOENT` when there is no such program.
    pub(crate) fn outcome(&self) -> io::Result<Outcome> {
        let mut running = self.start()?;
        running.run_until(Some(Instant::now() + self.timeout), Running::has_exited);
        let status = running.status;
        match status {
            Some(_) => running.read_what_is_there(),
            None => {
                running.child.kill_session();
                running.run_until(Some(Instant::now() + GRACE), Running::is_finished);
            }
        }
        let output = running.output();
        if !running.is_finished() {
            drain_in_background(running);
        }
        Ok(Outcome { status, output })
    }

    fn start(&self) -> io::Result<Running> {
        let null = OpenOptions::new()
            .read(true)
            .open("/dev/null")
            .map_err(|error| io::Error::other(format!("failed to open /dev/null: {}", errno::describe(error))))?;
        let (output, child_output) = pipe_from_child()?;
        let (child_input, input) = match self.input {
            [] => (null.into(), None),
            _ => pipe_to_child().map(|(child, ours)| (child, Some(ours)))?,
        };
        let (input_end, output_end) = (child_input.as_fd(), child_output.as_fd());
        let child = self.program.start(Stdio { input: input_end, output: output_end, error: output_end })?;
        child.unprotect();
        let input = input.map(|pipe| Input { pipe, bytes: self.input.into(), written: 0 });
        Ok(Running { child, input, output: Some(output), kept: Vec::new(), status: None })
    }

    fn start_error(&self, error: io::Error) -> String {
        // The protocol has one text for a file that cannot be executed, and one for a process that cannot be created.
        let is_of_the_file = error.raw_os_error().map(Errno::from_raw).is_some_and(|number| {
            !matches!(number, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::ENOSYS)
        });
        let (path, text) = (self.program.path().display(), errno::describe(error));
        match is_of_the_file {
            true => format!("child process has failed to {}: failed to exec '{path}': {text}\n", self.action),
            false => format!("failed to create child process: {text}"),
        }
    }

    fn failure(&self, outcome: &Outcome) -> Option<String> {
        let Outcome { status, output } = outcome;
        let failed = format!("child process has failed to {}", self.action);
        let with_output = |desc: &str| if output.is_empty() { desc.to_owned() } else { format!("{desc}: {output}") };
        match status {
            Some(ExitStatus::Code(0)) => None,
            Some(ExitStatus::Code(code)) if output.is_empty() => Some(format!("{failed}: exit status {code}")),
            Some(ExitStatus::Code(_)) => Some(with_output(&failed)),
            Some(ExitStatus::Signal(_)) => Some(with_output("child process has terminated abnormally")),
            None => Some(with_output(&format!("{failed}: timed out after {} s", self.timeout.as_secs_f64()))),
        }
    }
}

/// A helper that was started, and our ends of its pipes.
#[derive(Debug)]
struct Running {
    child: Child,
    input: Option<Input>,
    output: Option<File>,
    kept: Vec<u8>,
    status: Option<ExitStatus>,
}

/// What the program has not read yet.
#[derive(Debug)]
struct Input {
    pipe: File,
    bytes: Vec<u8>,
    written: usize,
}

impl Running {
    /// Moves input and output until a condition holds or the deadline has passed.
    fn run_until(&mut self, deadline: Option<Instant>, until: fn(&Self) -> bool) {
        while !until(self) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            let child = self.status.is_none().then(|| PollFd::new(self.child.as_fd(), PollFlags::POLLIN));
            let output = self.output.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            let input = self.input.as_ref().map(|input| PollFd::new(input.pipe.as_fd(), PollFlags::POLLOUT));
            let mut wanted: Vec<_> = [child, output, input].into_iter().flatten().collect();
            if poll(&mut wanted, timeout::until(deadline)).is_err_and(|error| error != Errno::EINTR) {
                return;
            }
            self.write();
            self.read();
            if self.status.is_none() {
                self.status = self.child.try_wait().ok().flatten();
            }
        }
    }

    fn has_exited(&self) -> bool {
        self.status.is_some()
    }

    /// Whether it has exited and nothing holds its pipe.
    fn is_finished(&self) -> bool {
        self.status.is_some() && self.output.is_none()
    }

    fn write(&mut self) {
        let Some(Input { pipe, bytes, written }) = &mut self.input else { return };
        match pipe.write(&bytes[*written..]) {
            Ok(count) if *written + count < bytes.len() => *written += count,
            Err(error) if is_temporary(&error) => {}
            // All is written, or the pipe has no reader.
            Ok(_) | Err(_) => self.input = None,
        }
    }

    fn read(&mut self) {
        let Some(pipe) = &mut self.output else { return };
        let mut piece = [0; PIECE_BYTES];
        match pipe.read(&mut piece) {
            Ok(count @ 1..) => {
                self.kept.extend(&piece[..count]);
                self.discard_beginning(2 * MAX_OUTPUT_BYTES);
            }
            Err(error) if is_temporary(&error) => {}
            Ok(0) | Err(_) => self.output = None,
        }
    }

    /// Reads what is in the pipe when the program has ended. Its leftovers may write without end.
    fn read_what_is_there(&mut self) {
        let mut waiting = true;
        for _ in 0..MAX_PIPE_BYTES / PIECE_BYTES {
            let Some(output) = self.output.as_ref().filter(|_| waiting) else { return };
            let mut wanted = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            waiting = poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|count| count > 0);
            self.read();
        }
    }

    /// Keeps only the end of the output if it is longer than the limit.
    fn discard_beginning(&mut self, limit: usize) {
        if self.kept.len() > limit {
            self.kept.drain(..self.kept.len() - MAX_OUTPUT_BYTES);
        }
    }

    fn output(&mut self) -> String {
        self.discard_beginning(MAX_OUTPUT_BYTES);
        String::from_utf8_lossy(&std::mem::take(&mut self.kept)).into_owned()
    }
}

/// Reads and discards output until the leftovers of a helper end.
fn drain_in_background(mut running: Running) {
    static DRAINS: AtomicUsize = AtomicUsize::new(0);
    running.input = None;
    let others = DRAINS.fetch_add(1, Ordering::Relaxed);
    let is_started = others < MAX_DRAINS && {
        let drain = move || {
            running.run_until(None, Running::is_finished);
            DRAINS.fetch_sub(1, Ordering::Relaxed);
        };
        threads::start("drain", DRAIN_STACK_BYTES, drain).is_ok()
    };
    if !is_started {
        DRAINS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
