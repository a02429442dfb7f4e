//! A program of the host's, run while the guest is frozen.
//!
//! Once the freeze was asked for, nothing but the death of qgactl itself leaves the guest frozen: it is thawed when the
//! program has ended or could not be started, when its time is up, and when SIGINT, SIGTERM or SIGHUP comes, unless it was
//! ignored from the beginning. The program is then asked to end, and after [`STOP_GRACE`] killed; what it has started is
//! not: it stays in the process group of qgactl, so that a terminal serves it as ever. A thaw that cannot be said because
//! the connection broke is said again on a new one. The exit status is the program's, unless the freeze did not hold until
//! its end.
//! SIGQUIT is left alone, for whoever does not want to wait for a guest that does not answer.

use std::{
    ffi::{CString, OsString},
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use qga::commands::freeze::Thaw;

use super::{REPLY_TIMEOUT, check};
use crate::{
    cmd::{exec::TIMED_OUT, thaw},
    connect::{Agent, Target},
    failure::{self, Failure, say, status_of_signal},
    interrupt,
};

/// How long a program has to end that is asked to, and then again when it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Between two attempts to reach the agent.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Freezes, runs the program for as long as `limit` allows, and thaws.
pub(super) fn while_frozen(
    target: &Target,
    freeze: impl FnOnce(&mut Agent) -> Result<i64, Failure>,
    program: &[OsString],
    limit: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let path = program.first().context("no program is given")?.display();
    let signals = Signals::hold()?;
    let mut guest = Guest { target, agent: None };
    match freeze(guest.agent()?) {
        Ok(count) => check(count)?,
        Err(failure) => {
            if failure.is_of_the_connection() {
                say("qgactl: the guest may be frozen, and is thawed as soon as it answers");
                guest.thaw().context("failed to thaw the guest")?;
            }
            return Err(failure.into());
        }
    }
    let ended = run(program, limit, &signals);
    let held = match guest.thaw() {
        Ok(..=0) => Err(anyhow::Error::msg("the guest was not frozen any more")),
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.into()),
    };
    if let Err(error) = held {
        if let Err(error) = ended {
            failure::print(&error);
        }
        return Err(error.context(format!("the freeze around {path} failed")));
    }
    Ok(ended?.into())
}

/// The exit status of a program, or that for what ended it.
fn run(program: &[OsString], limit: Option<Duration>, signals: &Signals) -> anyhow::Result<u8> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    // One may have come during the freeze.
    if let Event::Told(signal) = signals.next(Some(Instant::now()))? {
        return Ok(status_of_signal(signal.number));
    }
    let path = program[0].display();
    let pid = start(program).with_context(|| format!("failed to run {path}"))?;
    let status = loop {
        if let Some(status) = status_if_ended(pid)? {
            return Ok(status);
        }
        match signals.next(deadline)? {
            Event::Told(signal) => {
                if !signal.is_known_to_all {
                    kill(pid, Signal::try_from(signal.number)?).ok();
                }
                break status_of_signal(signal.number);
            }
            Event::TooLate => {
                say(&format!("qgactl: {path} has not ended in time"));
                kill(pid, Signal::SIGTERM).ok();
                break TIMED_OUT;
            }
            Event::ChildChanged => {}
        }
    };
    if !ends(pid, signals)? {
        kill(pid, Signal::SIGKILL)?;
        if !ends(pid, signals)? {
            bail!("{path} cannot be killed, and goes on as process {pid}");
        }
    }
    Ok(status)
}

/// Starts a program that finds its signals as they usually are, although they are held here.
fn start(program: &[OsString]) -> anyhow::Result<Pid> {
    let variable =
        |(name, value): (OsString, OsString)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat());
    let environment = std::env::vars_os().map(variable).collect::<Result<Vec<_>, _>>()?;
    let arguments = program.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    let actions = PosixSpawnFileActions::init()?;
    let started = posix_spawnp(&arguments[0], &actions, &attributes, &arguments, &environment);
    Ok(started.map_err(io::Error::from)?)
}

/// Whether a program ends in time.
fn ends(pid: Pid, signals: &Signals) -> anyhow::Result<bool> {
    let end = Instant::now() + STOP_GRACE;
    while status_if_ended(pid)?.is_none() {
        // Told again, it does no more than that.
        if matches!(signals.next(Some(end))?, Event::TooLate) {
            return Ok(status_if_ended(pid)?.is_some());
        }
    }
    Ok(true)
}

/// The exit status of a program that has ended.
fn status_if_ended(pid: Pid) -> anyhow::Result<Option<u8>> {
    Ok(match waitpid(pid, Some(WaitPidFlag::WNOHANG)).context("failed to learn how the program ended")? {
        WaitStatus::Exited(_, code) => Some(u8::try_from(code)?),
        WaitStatus::Signaled(_, signal, _) => Some(status_of_signal(signal as i32)),
        _ => None,
    })
}

/// The agent, on as many connections as it takes.
struct Guest<'a> {
    target: &'a Target,
    agent: Option<Agent>,
}

impl Guest<'_> {
    fn agent(&mut self) -> Result<&mut Agent, Failure> {
        let agent = match self.agent.take() {
            Some(agent) => agent,
            None => self.target.connect(Some(REPLY_TIMEOUT))?,
        };
        Ok(self.agent.insert(agent))
    }

    fn thaw(&mut self) -> Result<i64, Failure> {
        let end = Instant::now() + thaw::REPLY_TIMEOUT;
        loop {
            let thawed = self.agent().and_then(|agent| {
                agent.reply_timeout = thaw::REPLY_TIMEOUT;
                agent.call(&Thaw {})
            });
            match thawed {
                Err(failure) if failure.is_of_the_connection() && Instant::now() < end => {
                    // First this, because QEMU serves one connection at a time.
                    self.agent = None;
                    thread::sleep(RETRY_PAUSE);
                }
                thawed => return thawed,
            }
        }
    }
}

/// Signals that are told of instead of ending the process.
struct Signals(SignalFd);

enum Event {
    /// Somebody wants an end.
    Told(Received),
    ChildChanged,
    TooLate,
}

struct Received {
    number: i32,
    /// Whether a terminal has sent it, to the program as well.
    is_known_to_all: bool,
}

impl Signals {
    /// Holds them from now on. Programs that are started get all of them as usual.
    fn hold() -> io::Result<Self> {
        // With a handler the kernel tells of the program's end, and keeps how it was, also where SIGCHLD was ignored.
        signal_hook::flag::register(Signal::SIGCHLD as i32, Arc::default())?;
        let mut signals = interrupt::wishes_to_end();
        signals.add(Signal::SIGCHLD);
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// What comes next, until it is too late.
    fn next(&self, deadline: Option<Instant>) -> nix::Result<Event> {
        loop {
            if let Some(signal) = self.0.read_signal()? {
                let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
                return Ok(match number == Signal::SIGCHLD as i32 {
                    true => Event::ChildChanged,
                    false => Event::Told(Received { number, is_known_to_all: signal.ssi_code == libc::SI_KERNEL }),
                });
            }
            let sleep = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if sleep.is_some_and(|sleep| sleep.is_zero()) {
                return Ok(Event::TooLate);
            }
            // Rounded up, so that the deadline has passed then.
            let sleep = sleep.map_or(PollTimeout::NONE, |sleep| {
                PollTimeout::try_from(sleep + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], sleep) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
