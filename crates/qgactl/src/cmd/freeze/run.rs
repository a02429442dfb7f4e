//! A program on this host, run while one guest is frozen, or several.
//!
//! Several guests are frozen at the same time, so that a program finds a common state of them all. If one cannot be
//! frozen in time, the others are thawed and nothing is run. Afterwards all are thawed, whatever happened to any.
//! Once the freeze was requested, only the death of qgactl itself leaves the guest frozen. qgactl thaws the guest when
//! the program has ended or could not be started, when the timeout expires, and on SIGINT, SIGTERM or SIGHUP, unless
//! the signal was ignored from the beginning. The program then gets SIGTERM, and SIGKILL after [`STOP_GRACE`]. Its
//! child processes do not: they stay in the process group of qgactl, so that the terminal's job control covers them. A
//! thaw that fails because the connection broke is repeated on a new one. The exit status is the program's, unless the
//! freeze did not last until its end.
//! Ctrl-Z stops neither qgactl nor the program, because nobody would see that the guest is still frozen. A program that
//! is stopped otherwise, for instance because it reads from the terminal in the background, is reported.
//! SIGQUIT keeps its default action, so that a user can leave a guest that does not answer.

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

use super::check;
use crate::{
    cmd::exec::TIMED_OUT,
    connect::{Agent, Target},
    failure::{self, Failure, say, status_of_signal},
    interrupt,
    render::printable,
};

/// How long a program has to end after SIGTERM, and again after SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long the thaw is retried on new connections, and how long each attempt may take. Shorter than the command's own
/// timeout, because a script waits for the program's exit status: a live agent thaws at once, apart from its hooks,
/// which have a minute each.
const THAW_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// Between two attempts to reach the agent.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How long each of several guests may take to freeze. The writers of the others wait meanwhile.
const COMMON_FREEZE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most guests that are frozen together: each takes a thread.
const MAX_GUESTS: usize = 128;

/// Freezes all guests, runs the program for as long as `limit` allows, and thaws them all. If one cannot be frozen,
/// nothing is run.
pub(super) fn while_frozen(
    mut guests: Vec<Guest<'_>>,
    freeze: impl Fn(&mut Agent) -> Result<i64, Failure> + Sync,
    program: &[OsString],
    limit: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let path = program.first().context("no program is given")?.display();
    if guests.len() > MAX_GUESTS {
        bail!("{} guests, of which at most {MAX_GUESTS} can be frozen together", guests.len());
    }
    let timeout = (guests.len() > 1).then_some(COMMON_FREEZE_TIMEOUT);
    let signals = Signals::block()?;
    let frozen = at_once(&mut guests, |guest| guest.agent(timeout).and_then(&freeze));
    if !frozen.iter().all(|frozen| matches!(frozen, Ok(1..))) {
        return Err(undo(&mut guests, frozen));
    }
    let ended = run(program, limit, &signals);
    let thawed = at_once(&mut guests, |guest| match guest.thaw() {
        Ok(..=0) => Err(guest.named(anyhow::Error::msg("the guest was not frozen any more"))),
        Ok(_) => Ok(()),
        Err(failure) => Err(guest.named(failure.into())),
    });
    if let Some(error) = last(thawed.into_iter().filter_map(Result::err)) {
        if let Err(error) = ended {
            failure::print(&error);
        }
        return Err(error.context(format!("the freeze around {path} failed")));
    }
    Ok(ended?.into())
}

/// Thaws the guests that are frozen or may be, after at least one could not be frozen, and returns why.
fn undo(guests: &mut [Guest<'_>], frozen: Vec<Result<i64, Failure>>) -> anyhow::Error {
    for (guest, frozen) in guests.iter_mut().zip(&frozen) {
        let is_doubtful = frozen.as_ref().is_err_and(Failure::is_of_the_connection);
        guest.is_frozen = is_doubtful || matches!(frozen, Ok(1..));
        if is_doubtful {
            say(&format!("qgactl: {} may be frozen, and is thawed as soon as it answers", guest.label()));
        }
    }
    let thawed = at_once(guests, |guest| match guest.is_frozen {
        true => guest.thaw().map(|_| ()),
        false => Ok(()),
    });
    let errors = guests.iter().zip(frozen).zip(thawed).filter_map(|((guest, frozen), thawed)| {
        let error = match (frozen, thawed) {
            (_, Err(failure)) => anyhow::Error::from(failure).context(format!("failed to thaw {}", guest.label())),
            (Err(failure), Ok(())) => failure.into(),
            (Ok(count), Ok(())) => check(count).err()?,
        };
        Some(guest.named(error))
    });
    last(errors).unwrap_or_else(|| anyhow::Error::msg("the freeze failed"))
}

/// Does this with all guests at the same time.
fn at_once<R: Send>(guests: &mut [Guest<'_>], work: impl Fn(&mut Guest<'_>) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let started: Vec<_> = guests.iter_mut().map(|guest| scope.spawn(|| work(guest))).collect();
        started.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

/// The last error, after the others were printed.
fn last(errors: impl Iterator<Item = anyhow::Error>) -> Option<anyhow::Error> {
    errors.reduce(|earlier, error| {
        failure::print(&earlier);
        error
    })
}

/// The exit status of a program, or that for what ended it.
fn run(program: &[OsString], limit: Option<Duration>, signals: &Signals) -> anyhow::Result<u8> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    // A signal may have arrived during the freeze.
    if let Event::Asked(signal) = signals.next(Some(Instant::now()))? {
        return Ok(status_of_signal(signal.number));
    }
    let path = program[0].display();
    let pid = start(program).with_context(|| format!("failed to run {path}"))?;
    let status = loop {
        match next_change(pid)? {
            Some(Change::Ended(status)) => return Ok(status),
            Some(Change::Stopped(Signal::SIGTSTP)) => {
                say(&format!("qgactl: the guest is frozen: {path} goes on"));
                // Its own child processes were stopped with it.
                kill(Pid::from_raw(0), Signal::SIGCONT)?;
                continue;
            }
            Some(Change::Stopped(signal)) => {
                say(&format!("qgactl: {path} is stopped by {signal}, and the guest stays frozen"));
                continue;
            }
            None => {}
        }
        match signals.next(deadline)? {
            Event::Asked(signal) => {
                if !signal.is_known_to_all {
                    kill(pid, Signal::try_from(signal.number)?).ok();
                }
                break status_of_signal(signal.number);
            }
            Event::TimedOut => {
                say(&format!("qgactl: {path} has not ended in time"));
                kill(pid, Signal::SIGTERM).ok();
                break TIMED_OUT;
            }
            Event::ChildChanged => {}
        }
    };
    // A stopped program gets its signal only then.
    kill(pid, Signal::SIGCONT).ok();
    if !ends(pid, signals)? {
        kill(pid, Signal::SIGKILL)?;
        if !ends(pid, signals)? {
            bail!("{path} cannot be killed, and goes on as process {pid}");
        }
    }
    Ok(status)
}

/// Starts a program with the default signal mask, although signals are blocked here.
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
    loop {
        match next_change(pid)? {
            Some(Change::Ended(_)) => return Ok(true),
            Some(Change::Stopped(_)) => {}
            // A second signal changes nothing.
            None if matches!(signals.next(Some(end))?, Event::TimedOut) => {
                return Ok(matches!(next_change(pid)?, Some(Change::Ended(_))));
            }
            None => {}
        }
    }
}

/// What has become of a program since it was last asked for.
fn next_change(pid: Pid) -> anyhow::Result<Option<Change>> {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
    Ok(match waitpid(pid, Some(flags)).context("failed to learn how the program ended")? {
        WaitStatus::Exited(_, code) => Some(Change::Ended(u8::try_from(code)?)),
        WaitStatus::Signaled(_, signal, _) => Some(Change::Ended(status_of_signal(signal as i32))),
        WaitStatus::Stopped(_, signal) => Some(Change::Stopped(signal)),
        _ => None,
    })
}

/// A guest's agent, on as many connections as it takes.
pub(super) struct Guest<'a> {
    /// The machine's name, if there are several.
    name: Option<&'a str>,
    target: &'a Target,
    agent: Option<Agent>,
    /// Whether it must be thawed again.
    is_frozen: bool,
}

impl<'a> Guest<'a> {
    pub(super) fn new(name: Option<&'a str>, target: &'a Target) -> Self {
        Self { name, target, agent: None, is_frozen: false }
    }

    fn label(&self) -> String {
        self.name.map_or_else(|| "the guest".into(), printable)
    }

    fn named(&self, error: anyhow::Error) -> anyhow::Error {
        match self.name {
            Some(name) => error.context(name.to_owned()),
            None => error,
        }
    }

    fn agent(&mut self, timeout: Option<Duration>) -> Result<&mut Agent, Failure> {
        let agent = match self.agent.take() {
            Some(agent) => agent,
            None => self.target.connect(timeout)?,
        };
        Ok(self.agent.insert(agent))
    }

    fn thaw(&mut self) -> Result<i64, Failure> {
        let end = Instant::now() + THAW_TIMEOUT;
        loop {
            let thawed = self.agent(None).and_then(|agent| agent.call_until(&Thaw {}, Instant::now() + THAW_TIMEOUT));
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

/// A change of a program's state.
enum Change {
    /// It has ended, with this exit status.
    Ended(u8),
    Stopped(Signal),
}

/// What a terminal stops its jobs with.
const STOP_SIGNALS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// Signals that are received as events instead of ending the process.
struct Signals(SignalFd);

enum Event {
    /// A signal asks qgactl to end.
    Asked(Received),
    ChildChanged,
    TimedOut,
}

struct Received {
    number: i32,
    /// Whether a terminal has sent it, to the program as well.
    is_known_to_all: bool,
}

impl Signals {
    /// Blocks them from now on, and those that would stop the process. Programs that are started get all as usual.
    fn block() -> io::Result<Self> {
        // With a handler, the kernel reports the program's end and keeps its status even where SIGCHLD was ignored.
        signal_hook::flag::register(Signal::SIGCHLD as i32, Arc::default())?;
        SigSet::from_iter(STOP_SIGNALS).thread_block()?;
        let mut signals = interrupt::termination_signals();
        signals.add(Signal::SIGCHLD);
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next event, or [`Event::TimedOut`] at the deadline.
    fn next(&self, deadline: Option<Instant>) -> nix::Result<Event> {
        loop {
            if let Some(signal) = self.0.read_signal()? {
                let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
                return Ok(match number == Signal::SIGCHLD as i32 {
                    true => Event::ChildChanged,
                    false => Event::Asked(Received { number, is_known_to_all: signal.ssi_code == libc::SI_KERNEL }),
                });
            }
            let sleep = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if sleep.is_some_and(|sleep| sleep.is_zero()) {
                return Ok(Event::TimedOut);
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
