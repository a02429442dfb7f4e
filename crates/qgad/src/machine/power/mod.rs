//! Shutting a guest down and suspending it, by the first method that the guest has.
//!
//! Shutdown: the program for the mode (`/sbin/poweroff` and the like), else `/sbin/shutdown`, else the signal on
//! which a known init system shuts down, if it handles that signal. Without any of these, the kernel does it after a
//! sync. If a program exists and fails, its failure is the answer: it may refuse for a good reason.
//! Suspend: systemd, pm-utils, the kernel. If a method is supported and fails, the next one is tried. If none succeeds,
//! the answer is the last failure.

mod machine;

use std::{fmt, io};

use nix::errno::Errno;
use qga::wire::message::Error;

pub(crate) use self::machine::Machine;
use crate::{process::helper::Outcome, util::errno};

type Result<T> = std::result::Result<T, Error>;

/// What a guest does at its shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShutdownMode {
    /// It is switched off.
    PowerOff,
    /// It stops, and stays on.
    Halt,
    /// It starts again.
    Reboot,
}

/// Where a guest keeps its memory while it is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuspendMode {
    /// On its disk. It is switched off.
    Disk,
    /// In its memory.
    Ram,
    /// In both.
    Hybrid,
}

/// What a guest has for its shutdown and for suspending it.
pub(crate) trait Platform {
    /// Whether there is a program at this path.
    fn has(&self, path: &str) -> bool;
    /// Runs a program to its end, whatever its exit status is. `ENOENT` when there is no such program.
    fn try_program(&self, program: &str, arguments: &[&str]) -> io::Result<Outcome>;
    /// Runs a program that must succeed.
    fn run(&self, program: &str, arguments: &[&str], action: &str) -> Result<()>;
    /// The init system, if it is one that shuts down on signals.
    fn init_system(&self) -> Option<InitSystem>;
    /// Whether process 1 handles this signal.
    fn init_handles(&self, signal: i32) -> bool;
    /// Sends a signal to process 1.
    fn signal_init(&self, signal: i32) -> io::Result<()>;
    /// Writes all data to the disks, and has the kernel shut down at once.
    fn shut_down_by_kernel(&self, mode: ShutdownMode) -> io::Result<()>;
    /// The states that the kernel can put the guest into.
    fn sleep_states(&self) -> String;
    /// Puts the guest into such a state.
    fn enter_sleep_state(&self, state: &str) -> io::Result<()>;
}

/// The init systems that shut down on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitSystem {
    /// systemd(1).
    Systemd,
    /// Busybox's, and others that follow it.
    Busybox,
}

/// Lists the sleep states that the kernel supports, and enters the one that is written to it.
pub(crate) const SLEEP_STATES: &str = "/sys/power/state";
/// What programs are run for, in error texts.
const SHUTDOWN_ACTION: &str = "shutdown";

/// Shuts the guest down, or starts to.
pub(crate) fn shut_down(mode: ShutdownMode, platform: &impl Platform) -> Result<()> {
    let (program, option) = match mode {
        ShutdownMode::PowerOff => ("/sbin/poweroff", "-P"),
        ShutdownMode::Halt => ("/sbin/halt", "-H"),
        ShutdownMode::Reboot => ("/sbin/reboot", "-r"),
    };
    if platform.has(program) {
        return platform.run(program, &[], SHUTDOWN_ACTION);
    }
    let shutdown = "/sbin/shutdown";
    if platform.has(shutdown) {
        return platform.run(shutdown, &["-h", option, "+0", "hypervisor initiated shutdown"], SHUTDOWN_ACTION);
    }
    if let Some(signal) = shutdown_signal(platform, mode) {
        log::info!("sending signal {signal} to init: there is no {program} and no {shutdown}");
        return platform.signal_init(signal).map_err(|error| {
            Error::generic(format!("failed to send init signal {signal}: {}", errno::describe(error)))
        });
    }
    log::warn!("leaving the shutdown to the kernel: there is no {program}, no {shutdown}, and no known init system");
    platform
        .shut_down_by_kernel(mode)
        .map_err(|error| Error::generic(format!("failed to shutdown: {}", errno::describe(error))))
}

/// The signal on which process 1 shuts the guest down, if it does so on any.
fn shutdown_signal(platform: &impl Platform, mode: ShutdownMode) -> Option<i32> {
    let signal = signal_for(platform.init_system()?, mode);
    platform.init_handles(signal).then_some(signal)
}

fn signal_for(init: InitSystem, mode: ShutdownMode) -> i32 {
    use nix::libc::{SIGTERM, SIGUSR1, SIGUSR2};
    /// The first real-time signal that glibc leaves to programs. systemd counts from it.
    const SIGRTMIN: i32 = 34;
    match (init, mode) {
        (InitSystem::Systemd, ShutdownMode::Halt) => SIGRTMIN + 3,
        (InitSystem::Systemd, ShutdownMode::PowerOff) => SIGRTMIN + 4,
        (InitSystem::Systemd, ShutdownMode::Reboot) => SIGRTMIN + 5,
        (InitSystem::Busybox, ShutdownMode::Halt) => SIGUSR1,
        (InitSystem::Busybox, ShutdownMode::PowerOff) => SIGUSR2,
        (InitSystem::Busybox, ShutdownMode::Reboot) => SIGTERM,
    }
}

/// Suspends the guest, or starts to.
pub(crate) fn suspend(mode: SuspendMode, platform: &impl Platform) -> Result<()> {
    let methods: [fn(SuspendMode, &_) -> Attempt; 3] = [by_systemd, by_pm_utils, by_kernel];
    let mut failure = None;
    for method in methods {
        match method(mode, platform) {
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

/// The result of one method.
enum Attempt {
    Succeeded,
    Failed(String),
    NotSupported,
}

fn by_systemd(mode: SuspendMode, platform: &impl Platform) -> Attempt {
    let (unit, verb) = match mode {
        SuspendMode::Disk => ("systemd-hibernate", "hibernate"),
        SuspendMode::Ram => ("systemd-suspend", "suspend"),
        SuspendMode::Hybrid => ("systemd-hybrid-sleep", "hybrid-sleep"),
    };
    // The exit codes for a unit that exists and does not run.
    if !matches!(exit_code(platform.try_program("systemctl", &["status", unit])), Some(1..=3)) {
        return Attempt::NotSupported;
    }
    attempt(platform, "systemctl", &[verb])
}

fn by_pm_utils(mode: SuspendMode, platform: &impl Platform) -> Attempt {
    let (question, program) = match mode {
        SuspendMode::Disk => ("--hibernate", "pm-hibernate"),
        SuspendMode::Ram => ("--suspend", "pm-suspend"),
        SuspendMode::Hybrid => ("--suspend-hybrid", "pm-suspend-hybrid"),
    };
    if exit_code(platform.try_program("pm-is-supported", &[question])) != Some(0) {
        return Attempt::NotSupported;
    }
    attempt(platform, program, &[])
}

fn by_kernel(mode: SuspendMode, platform: &impl Platform) -> Attempt {
    let state = match mode {
        SuspendMode::Disk => "disk",
        SuspendMode::Ram => "mem",
        SuspendMode::Hybrid => return Attempt::NotSupported,
    };
    if !platform.sleep_states().split_whitespace().any(|known| known == state) {
        return Attempt::NotSupported;
    }
    match platform.enter_sleep_state(state) {
        Ok(()) => Attempt::Succeeded,
        Err(error) => Attempt::Failed(format!("suspend: cannot write to '{SLEEP_STATES}': {}", errno::describe(error))),
    }
}

/// Runs a program that suspends the guest.
fn attempt(platform: &impl Platform, program: &str, arguments: &[&str]) -> Attempt {
    let command = CommandLine(program, arguments);
    let outcome = match platform.try_program(program, arguments) {
        Ok(outcome) => outcome,
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
            return Attempt::Failed(format!("the helper program '{command}' was not found"));
        }
        Err(error) => return Attempt::Failed(format!("failed to create child process: {}", errno::describe(error))),
    };
    let output = match outcome.output.trim_end() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    use crate::process::spawn::ExitStatus::{Code, Signal};
    Attempt::Failed(match outcome.status {
        Some(Code(0)) => return Attempt::Succeeded,
        Some(Code(code)) => {
            format!("the helper program '{command}' returned an unexpected exit status code ({code}){output}")
        }
        Some(Signal(signal)) => format!("the helper program '{command}' was ended by signal {signal}{output}"),
        None => format!("the helper program '{command}' did not end in time{output}"),
    })
}

fn exit_code(outcome: io::Result<Outcome>) -> Option<i32> {
    match outcome.ok()?.status {
        Some(crate::process::spawn::ExitStatus::Code(code)) => Some(code),
        _ => None,
    }
}

/// A program and its arguments, as error texts show them.
struct CommandLine<'a>(&'a str, &'a [&'a str]);

impl fmt::Display for CommandLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)?;
        self.1.iter().try_for_each(|argument| write!(formatter, " {argument}"))
    }
}

#[cfg(test)]
mod tests;
