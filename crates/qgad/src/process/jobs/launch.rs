//! Starting the program of a job.
//!
//! The supervisor forks, because posix_spawn cannot set a terminal or a user. It has one thread, so the child may do
//! anything. The child prepares itself and executes the program. It reports a failure through a pipe, which is closed
//! without a report when the program runs. So a program on a dead disk delays only its own start, not the supervisor.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    process,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    pty::{OpenptyResult, openpty},
    unistd::{
        ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fchown, geteuid, setgid, setgroups, setsid,
        setuid,
    },
};

use super::{
    members::ControlGroup,
    start::{Owner, Start},
};
use crate::{
    process::spawn::{pipe_from_child, pipe_to_child},
    sys,
    util::errno,
};

/// Longest report of a failure.
const MAX_REPORT_BYTES: u64 = 4096;
/// Capacity of a pipe: enough for a program to go on while the supervisor serves others. Only what is used takes
/// memory.
const PIPE_BYTES: i32 = 512 * 1024;
/// The exit code of a failed start, as in a shell.
const NOT_STARTED: i32 = 127;

/// A process that is about to become a job's program, with our ends of its streams. None of them blocks.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: Pid,
    pub(super) input: Option<File>,
    pub(super) outputs: [Option<File>; 2],
    pub(super) group: Option<ControlGroup>,
    pub(super) report: Report,
}

/// The pipe for the result of a start: bytes are a failure, its end is a success.
#[derive(Debug)]
pub(super) struct Report(File);

/// Our ends of a job's streams, and those of its program.
struct Streams {
    input: Option<File>,
    outputs: [Option<File>; 2],
    theirs: [OwnedFd; 3],
}

/// Starts a job. The child first closes the descriptors of other jobs: it may wait for a dead disk forever, and the
/// input of another job must end meanwhile.
pub(super) fn launch(start: &Start, let_go: impl FnOnce()) -> io::Result<Launched> {
    let Streams { input, outputs, theirs } = match &start.terminal {
        Some(_) => open_terminal(start)?,
        None => open_pipes(start.has_input)?,
    };
    let (report, their_report) = pipe_from_child()?;
    let group = ControlGroup::create(start.id);
    match sys::process::fork_single_threaded()? {
        ForkResult::Parent { child } => Ok(Launched { pid: child, input, outputs, group, report: Report(report) }),
        ForkResult::Child => {
            let_go();
            let failure = become_program(start, &theirs, group.as_ref());
            // Fails if the supervisor has ended.
            let _ = File::from(their_report).write_all(failure.as_bytes());
            process::exit(NOT_STARTED);
        }
    }
}

impl Report {
    /// The report of a program that runs.
    #[cfg(test)]
    pub(super) fn of_a_program_that_runs() -> Self {
        Self(File::open("/dev/null").unwrap())
    }

    /// Why the program could not be started; `None` if it runs. To be called once there is something to read.
    pub(super) fn failure(&self) -> Option<String> {
        let mut text = Vec::new();
        match (&self.0).take(MAX_REPORT_BYTES).read_to_end(&mut text) {
            Ok(0) => None,
            // It is written in one piece, so one read returns all of it.
            Ok(_) | Err(_) => {
                Some(text).filter(|text| !text.is_empty()).map(|text| String::from_utf8_lossy(&text).into())
            }
        }
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_pipes(has_input: bool) -> io::Result<Streams> {
    let (their_input, input) = match has_input {
        true => pipe_to_child().map(|(theirs, ours)| (theirs, Some(ours)))?,
        false => (OpenOptions::new().read(true).open("/dev/null")?.into(), None),
    };
    let (output, their_output) = pipe_from_child()?;
    let (error, their_error) = pipe_from_child()?;
    for pipe in [Some(&output), input.as_ref()].into_iter().flatten() {
        // Smaller pipes work, too; unprivileged users have a limit.
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    }
    Ok(Streams { input, outputs: [Some(output), Some(error)], theirs: [their_input, their_output, their_error] })
}

fn open_terminal(start: &Start) -> io::Result<Streams> {
    let OpenptyResult { master, slave } = openpty(start.terminal.as_ref(), None).map_err(|error| {
        io::Error::other(format!("no terminal can be opened, is devpts mounted? {}", errno::describe(error)))
    })?;
    fcntl(&master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&slave, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    if let Some(owner) = start.owner.as_ref().filter(|owner| owner.uid != geteuid()) {
        fchown(&slave, Some(owner.uid), None)?;
    }
    let theirs = [slave.try_clone()?, slave.try_clone()?, slave];
    let master = File::from(master);
    Ok(Streams { input: Some(master.try_clone()?), outputs: [Some(master), None], theirs })
}

/// Runs in the child. Returns only on a failure, with the reason.
fn become_program(start: &Start, [input, output, error]: &[OwnedFd; 3], group: Option<&ControlGroup>) -> String {
    let prepare = || -> Result<(), String> {
        let failed = |what: &str, error: Errno| format!("failed to {what}: {}", errno::describe(error));
        setsid().map_err(|error| failed("begin a session", error))?;
        if start.terminal.is_some() {
            sys::terminal::make_controlling(input).map_err(|error| failed("control the terminal", error))?;
        }
        dup2_stdin(input)
            .and_then(|()| dup2_stdout(output))
            .and_then(|()| dup2_stderr(error))
            .map_err(|error| failed("take the streams", error))?;
        unprotect();
        if let Some(group) = group {
            // A job without a control group is signalled by its session.
            let _ = group.enter();
        }
        if let Some(owner) = &start.owner {
            assume(owner).map_err(|error| failed(&format!("become user {}", owner.uid), error))?;
        }
        if let Some(directory) = &start.directory {
            let entered = chdir(directory.path.as_c_str());
            match entered {
                Err(_) if directory.is_optional => chdir("/"),
                other => other,
            }
            .map_err(|error| failed(&format!("enter {}", directory.path.to_string_lossy()), error))?;
        }
        sys::process::reset_signals();
        Ok(())
    };
    match prepare() {
        Ok(()) => errno::describe(start.program.exec()),
        Err(reason) => reason,
    }
}

/// Takes a user's rights, finally. An unprivileged agent may name its own user.
fn assume(owner: &Owner) -> nix::Result<()> {
    if owner.uid == geteuid() && !owner.uid.is_root() {
        return Ok(());
    }
    setgroups(&owner.groups)?;
    setgid(owner.gid)?;
    setuid(owner.uid)
}

/// The out-of-memory killer may choose a job, even if the agent is protected from it.
fn unprotect() {
    const SCORE: &str = "/proc/self/oom_score_adj";
    if fs::read_to_string(SCORE).is_ok_and(|score| score.starts_with('-')) {
        // The job can run without this.
        let _ = fs::write(SCORE, "0");
    }
}
