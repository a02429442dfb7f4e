//! The programs that hosts started.
//!
//! One thread, started with the first program, writes their input, reads their output and reaps them. It sleeps while
//! there is nothing to do. Output never blocks a program: the agent keeps [`MAX_OUTPUT_BYTES`] of each stream and
//! [`MAX_KEPT_BYTES`] of all, and discards the rest.
//! A program has exited, for the host, when its process has ended and its captured pipes are closed. A process that
//! it left behind may hold a pipe open. That delays the exit by [`GRACE`] only, and the pipe is read until it is
//! closed, so that SIGPIPE kills nothing.
//! The out-of-memory killer may choose a program, even if the agent is protected from it.
//! A host gets the exit status once. It is forgotten when no host asks for [`MAX_AGE`], or when there are too many.
//! Programs outlive the agent: a pipe holder (`pipe_holder`) keeps their pipes open.

mod kept_output;
mod pipe_holder;
mod pump;
mod table;

use std::{
    fs::OpenOptions,
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use qga::{
    commands::exec::{CaptureOutput, ProgramStatus},
    wire::message::Error,
};

pub(crate) use self::pipe_holder::{OPTION as PIPE_HOLDER_OPTION, run as run_pipe_holder};
use self::table::{Started, Table};
use crate::{
    environment::Environment,
    process::spawn::{Program, Stdio, pipe_from_child, pipe_to_child},
    util::{errno, threads},
};

/// Most programs running at once: each may take four of the usual 1024 descriptors.
pub(crate) const MAX_RUNNING: usize = 128;
/// Most memory that the output kept of all programs together takes: a quarter of that of a small guest.
pub(crate) const MAX_KEPT_BYTES: usize = 128 * 1024 * 1024;
/// Most input waiting for all programs together, for the same reason.
pub(crate) const MAX_WAITING_BYTES: usize = 128 * 1024 * 1024;
/// How long the exit of a program is delayed while another process holds its pipes: enough for its last lines.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// How long an exit status is kept for a host that does not ask.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The programs, and the thread that serves them.
#[derive(Debug)]
pub(crate) struct Programs {
    shared: Arc<Shared>,
    has_pump: Mutex<bool>,
}

/// What commands and the thread share. The lock is never held across anything that can block.
#[derive(Debug)]
struct Shared {
    epoll: Epoll,
    table: Mutex<Table>,
}

impl Programs {
    /// No programs, and no thread yet.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let shared = Arc::new(Shared { epoll, table: Mutex::default() });
        Ok(Self { shared, has_pump: Mutex::new(false) })
    }

    /// Starts a program and returns its process id.
    pub(crate) fn start(&self, program: &Program, input: Option<Vec<u8>>, capture: CaptureOutput) -> io::Result<i64> {
        self.start_pump()?;
        self.shared.table().check_room(input.as_ref().map_or(0, Vec::capacity))?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let input = input.filter(|bytes| !bytes.is_empty());
        let (child_input, input) = match input {
            Some(bytes) => {
                let (child, ours) = pipe_to_child()?;
                (Some(child), Some((ours, bytes)))
            }
            None => (None, None),
        };
        let captures_output = !matches!(capture, CaptureOutput::None | CaptureOutput::Stderr);
        let captures_error = matches!(capture, CaptureOutput::Stderr | CaptureOutput::Separated);
        let (output, child_output) = captures_output.then(pipe_from_child).transpose()?.unzip();
        let (error, child_error) = captures_error.then(pipe_from_child).transpose()?.unzip();
        let null = null.as_fd();
        let child_output = child_output.as_ref().map_or(null, AsFd::as_fd);
        let child = program.start(Stdio {
            input: child_input.as_ref().map_or(null, AsFd::as_fd),
            output: child_output,
            error: match capture {
                CaptureOutput::Merged => child_output,
                _ => child_error.as_ref().map_or(null, AsFd::as_fd),
            },
        })?;
        child.unprotect();
        let pid = i64::from(child.pid().as_raw());
        self.shared.table().insert(&self.shared.epoll, Started { child, input, output, error })?;
        Ok(pid)
    }

    /// Whether a program has exited, and how. It is forgotten once its exit was returned.
    pub(crate) fn status(&self, pid: i64) -> Result<ProgramStatus, Error> {
        self.shared.table().collect(pid, Instant::now())
    }

    /// Passes the open pipes to a pipe holder. For an agent that is about to end.
    pub(crate) fn hand_over(&self, environment: &Environment) {
        let pipes = self.shared.table().take_pipes();
        if !pipes.is_empty()
            && let Err(error) = pipe_holder::start(&pipes, environment)
        {
            log::warn!("programs lose their input and output: {}", errno::describe(error));
        }
    }

    fn start_pump(&self) -> io::Result<()> {
        let mut has_pump = self.has_pump.lock().unwrap_or_else(PoisonError::into_inner);
        if !*has_pump {
            let shared = Arc::clone(&self.shared);
            threads::start("programs", pump::STACK_BYTES, move || pump::run(&shared))?;
            *has_pump = true;
        }
        Ok(())
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
