//! The ways to end a guest and to put it to sleep, in the order in which they are tried.
//!
//! To end it: the program for it (`/sbin/poweroff` and its like), else `/sbin/shutdown`, else the signal by which an init
//! that is known, and that listens, ends the guest in its own manner; and only where there is none of that the kernel,
//! after the disks were written. A program that is there and fails is the answer: it may have a reason of its own, which
//! nobody should get round.
//! To put it to sleep: systemd, pm-utils, the kernel. One that can and fails is followed by the next one; the last
//! failure is the answer when none succeeds, and never a success.

mod machine;

use std::{fmt, io};

use nix::errno::Errno;
use qga::wire::message::Error;

pub(crate) use self::machine::Machine;
use crate::{process::helper::Outcome, util::errno};

type Result<T> = std::result::Result<T, Error>;

/// How a guest ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Switched off.
    PowerOff,
    /// Stopped, and still on.
    Halt,
    /// Started again.
    Reboot,
}

/// Where a guest keeps its memory while it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// On its disk; it is switched off.
    Disk,
    /// In its memory.
    Ram,
    /// In both.
    Hybrid,
}

/// What there is to end a guest with, and to put it to sleep.
pub(crate) trait Means {
    /// Whether there is a program at this path.
    fn has(&self, path: &str) -> bool;
    /// Runs a program to its end, whatever that is; `ENOENT` when there is none of this name.
    fn try_program(&self, program: &str, arguments: &[&str]) -> io::Result<Outcome>;
    /// Runs a program that has to succeed.
    fn run(&self, program: &str, arguments: &[&str], action: &str) -> Result<()>;
    /// Which init this is, if it is one that is known to listen to signals.
    fn init(&self) -> Option<Init>;
    /// Whether init does something of its own about this signal.
    fn init_heeds(&self, signal: i32) -> bool;
    /// Sends init a signal.
    fn signal_init(&self, signal: i32) -> io::Result<()>;
    /// Writes the disks, and makes the kernel end the guest.
    fn end_at_once(&self, end: End) -> io::Result<()>;
    /// The states that the kernel can put the guest into.
    fn sleep_states(&self) -> String;
    /// Puts the guest into such a state.
    fn enter_state(&self, state: &str) -> io::Result<()>;
}

/// The inits that end a guest on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// systemd(1).
    Systemd,
    /// Busybox's, and others that follow it.
    Busybox,
}

/// Where the kernel tells which states it knows, and is put into them.
pub(crate) const SLEEP_STATES: &str = "/sys/power/state";
/// What errors say that programs were run for.
const SHUTDOWN_ACTION: &str = "shutdown";

/// Ends the guest, or begins to.
pub(crate) fn end(end: End, means: &impl Means) -> Result<()> {
    let (program, option) = match end {
        End::PowerOff => ("/sbin/poweroff", "-P"),
        End::Halt => ("/sbin/halt", "-H"),
        End::Reboot => ("/sbin/reboot", "-r"),
    };
    if means.has(program) {
        return means.run(program, &[], SHUTDOWN_ACTION);
    }
    let shutdown = "/sbin/shutdown";
    if means.has(shutdown) {
        return means.run(shutdown, &["-h", option, "+0", "hypervisor initiated shutdown"], SHUTDOWN_ACTION);
    }
    if let Some(signal) = means.init().map(|init| signal_for(init, end)).filter(|signal| means.init_heeds(*signal)) {
        log::info!("sending init signal {signal}: there is no {program} and no {shutdown}");
        return means
            .signal_init(signal)
            .map_err(|error| Error::generic(format!("failed to send init signal {signal}: {}", errno::words(error))));
    }
    log::warn!("leaving the end to the kernel: there is no {program}, no {shutdown}, and no init that is known");
    means.end_at_once(end).map_err(|error| Error::generic(format!("failed to shutdown: {}", errno::words(error))))
}

/// The signal on which an init ends the guest.
fn signal_for(init: Init, end: End) -> i32 {
    use nix::libc::{SIGTERM, SIGUSR1, SIGUSR2};
    /// The first real-time signal that GNU's C library leaves to programs.
    const SIGRTMIN: i32 = 34;
    match (init, end) {
        (Init::Systemd, End::Halt) => SIGRTMIN + 3,
        (Init::Systemd, End::PowerOff) => SIGRTMIN + 4,
        (Init::Systemd, End::Reboot) => SIGRTMIN + 5,
        (Init::Busybox, End::Halt) => SIGUSR1,
        (Init::Busybox, End::PowerOff) => SIGUSR2,
        (Init::Busybox, End::Reboot) => SIGTERM,
    }
}

/// Puts the guest to sleep, or begins to.
pub(crate) fn suspend(sleep: Sleep, means: &impl Means) -> Result<()> {
    let ways: [fn(Sleep, &_) -> Attempt; 3] = [by_systemd, by_pm_utils, by_kernel];
    let mut failure = None;
    for way in ways {
        match way(sleep, means) {
            Attempt::Succeeded => return Ok(()),
            Attempt::Failed(desc) => {
                log::warn!("{}", desc.trim_end());
                failure = Some(desc);
            }
            Attempt::NotSupported => {}
        }
    }
    let unsupported = || "the requested suspend mode is not supported by the guest".into();
    Err(Error::generic(failure.unwrap_or_else(unsupported)))
}

/// How one way went.
enum Attempt {
    Succeeded,
    Failed(String),
    NotSupported,
}

fn by_systemd(sleep: Sleep, means: &impl Means) -> Attempt {
    let (unit, verb) = match sleep {
        Sleep::Disk => ("systemd-hibernate", "hibernate"),
        Sleep::Ram => ("systemd-suspend", "suspend"),
        Sleep::Hybrid => ("systemd-hybrid-sleep", "hybrid-sleep"),
    };
    // A unit that exists and does not run has one of these.
    if !matches!(exit_code(means.try_program("systemctl", &["status", unit])), Some(1..=3)) {
        return Attempt::NotSupported;
    }
    attempt(means, "systemctl", &[verb])
}

fn by_pm_utils(sleep: Sleep, means: &impl Means) -> Attempt {
    let (question, program) = match sleep {
        Sleep::Disk => ("--hibernate", "pm-hibernate"),
        Sleep::Ram => ("--suspend", "pm-suspend"),
        Sleep::Hybrid => ("--suspend-hybrid", "pm-suspend-hybrid"),
    };
    if exit_code(means.try_program("pm-is-supported", &[question])) != Some(0) {
        return Attempt::NotSupported;
    }
    attempt(means, program, &[])
}

fn by_kernel(sleep: Sleep, means: &impl Means) -> Attempt {
    let state = match sleep {
        Sleep::Disk => "disk",
        Sleep::Ram => "mem",
        Sleep::Hybrid => return Attempt::NotSupported,
    };
    if !means.sleep_states().split_whitespace().any(|known| known == state) {
        return Attempt::NotSupported;
    }
    match means.enter_state(state) {
        Ok(()) => Attempt::Succeeded,
        Err(error) => Attempt::Failed(format!("suspend: cannot write to '{SLEEP_STATES}': {}", errno::words(error))),
    }
}

/// Runs a program that puts the guest to sleep.
fn attempt(means: &impl Means, program: &str, arguments: &[&str]) -> Attempt {
    let command = Words(program, arguments);
    let outcome = match means.try_program(program, arguments) {
        Ok(outcome) => outcome,
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
            return Attempt::Failed(format!("the helper program '{command}' was not found"));
        }
        Err(error) => return Attempt::Failed(format!("failed to create child process: {}", errno::words(error))),
    };
    let said = match outcome.output.trim_end() {
        "" => String::new(),
        output => format!(": {output}"),
    };
    use crate::process::spawn::ExitStatus::{Code, Signal};
    Attempt::Failed(match outcome.end {
        Some(Code(0)) => return Attempt::Succeeded,
        Some(Code(code)) => {
            format!("the helper program '{command}' returned an unexpected exit status code ({code}){said}")
        }
        Some(Signal(signal)) => format!("the helper program '{command}' was ended by signal {signal}{said}"),
        None => format!("the helper program '{command}' did not end in time{said}"),
    })
}

fn exit_code(outcome: io::Result<Outcome>) -> Option<i32> {
    match outcome.ok()?.end {
        Some(crate::process::spawn::ExitStatus::Code(code)) => Some(code),
        _ => None,
    }
}

/// A program and its arguments, as errors say it.
struct Words<'a>(&'a str, &'a [&'a str]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)?;
        self.1.iter().try_for_each(|argument| write!(formatter, " {argument}"))
    }
}

#[cfg(test)]
mod tests;
