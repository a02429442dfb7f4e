//! The programs that hosts started.
//!
//! One thread, begun with the first program, feeds their input, drains their output and reaps them; it sleeps unless
//! one of them has something for it. No program is ever held up by output that nobody asked about: of each stream
//! [`MAX_OUTPUT_BYTES`] are kept, of all together [`MAX_KEPT_BYTES`], and the rest is read and dropped.
//! A program is over when it has ended and its captured pipes have, too; a pipe that something it left behind holds
//! open delays that by [`GRACE`] only, and is drained for as long as it is open, so that nothing is killed by it.
//! A program is not protected from the kernel's search for memory, whatever the agent is.
//! What became of a program is told once, and forgotten when nobody asks for [`MAX_AGE`] or much else is waiting.
//! Programs outlive an agent that leaves: an heir (`heir`) keeps their pipes open.

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
use self::table::{Table, Watched};
use crate::{
    environment::Environment,
    process::spawn::{Program, Stdio, pipe_from_child, pipe_to_child},
    util::{errno, threads},
};

/// Most programs running at once: each may take four of the usual 1024 descriptors.
pub(crate) const MAX_RUNNING: usize = 128;
/// Most output kept of all programs together: a quarter of the memory of a small guest.
pub(crate) const MAX_KEPT_BYTES: usize = 128 * 1024 * 1024;
/// Most input waiting for all programs together, for the same reason.
pub(crate) const MAX_WAITING_BYTES: usize = 128 * 1024 * 1024;
/// How long a program that has ended is not over because something else holds its pipes: a last line still gets out.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// How long it is remembered what became of a program.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The programs, and the thread that looks after them.
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
        self.shared.table().check_room(input.as_ref().map_or(0, Vec::len))?;
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
        self.shared.table().insert(&self.shared.epoll, Watched { child, input, output, error })?;
        Ok(pid)
    }

    /// How a program is doing. Says so for the last time when it is over.
    pub(crate) fn status(&self, pid: i64) -> Result<ProgramStatus, Error> {
        self.shared.table().collect(pid, Instant::now())
    }

    /// Gives the pipes that are still open to a process that outlives this one, which is about to leave.
    pub(crate) fn hand_over(&self, environment: &Environment) {
        let pipes = self.shared.table().take_pipes();
        if !pipes.are_none()
            && let Err(error) = pipe_holder::start(&pipes, environment)
        {
            log::warn!("programs lose their input and output: {}", errno::words(error));
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
