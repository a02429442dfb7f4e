//! Shutdown and suspend of the machine that the agent runs on.

use std::{io, path::Path, time::Duration};

use nix::{
    sys::reboot::{RebootMode, reboot},
    unistd::sync,
};

use super::{InitSystem, Platform, Result, SLEEP_STATES, ShutdownMode};
use crate::{
    process::{helper::Outcome, helpers::Helpers},
    root::Root,
    sys,
};

/// Init, whatever its name is.
const INIT_PROCESS: i32 = 1;

/// The machine that the agent runs on.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    root: &'a Root,
    helpers: Helpers<'a>,
    timeout: Duration,
}

impl<'a> Machine<'a> {
    /// The machine below this root, if it is a real one. Programs may run for as long as the timeout.
    pub(crate) fn of(root: &'a Root, helpers: Helpers<'a>, timeout: Duration) -> Option<Self> {
        root.is_machine().then_some(Self { root, helpers, timeout })
    }
}

impl Platform for Machine<'_> {
    fn has(&self, path: &str) -> bool {
        self.helpers.has(path)
    }

    fn try_program(&self, program: &str, arguments: &[&str]) -> io::Result<Outcome> {
        self.helpers.outcome(program, arguments, "suspend", self.timeout)
    }

    fn run(&self, program: &str, arguments: &[&str], action: &str) -> Result<()> {
        self.helpers.run(program, arguments, b"", action, self.timeout).map(drop)
    }

    fn init_system(&self) -> Option<InitSystem> {
        let root = self.root;
        if root.read("/proc/1/comm").is_ok_and(|name| name.trim_ascii() == b"systemd") {
            return Some(InitSystem::Systemd);
        }
        let program = root.read_link("/proc/1/exe").ok()?;
        let is_busybox = |name: &std::ffi::OsStr| name == "busybox" || name == "toybox";
        Path::new(&program).file_name().is_some_and(is_busybox).then_some(InitSystem::Busybox)
    }

    fn init_handles(&self, signal: i32) -> bool {
        self.root.read("/proc/1/status").is_ok_and(|status| handles(&String::from_utf8_lossy(&status), signal))
    }

    fn signal_init(&self, signal: i32) -> io::Result<()> {
        Ok(sys::process::send_signal(INIT_PROCESS, signal)?)
    }

    fn shut_down_by_kernel(&self, mode: ShutdownMode) -> io::Result<()> {
        sync();
        let mode = match mode {
            ShutdownMode::PowerOff => RebootMode::RB_POWER_OFF,
            ShutdownMode::Halt => RebootMode::RB_HALT_SYSTEM,
            ShutdownMode::Reboot => RebootMode::RB_AUTOBOOT,
        };
        match reboot(mode) {
            Ok(never) => match never {},
            Err(error) => Err(error.into()),
        }
    }

    fn sleep_states(&self) -> String {
        self.root.read(SLEEP_STATES).map(|states| String::from_utf8_lossy(&states).into_owned()).unwrap_or_default()
    }

    fn enter_sleep_state(&self, state: &str) -> io::Result<()> {
        self.root.write(SLEEP_STATES, state.as_bytes())
    }
}

/// Whether a process, by its `/proc/PID/status`, catches a signal, or blocks it and reads it from a descriptor.
///
/// The kernel drops any other signal to process 1.
fn handles(status: &str, signal: i32) -> bool {
    ["SigCgt:", "SigBlk:"].iter().any(|name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|mask| mask & 1 == 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_handles_what_it_catches_or_blocks() {
        let status = "Name:\tinit\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\nSigCgt:\t8000000000000800\n";
        for (signal, expected) in [(1, true), (2, false), (12, true), (13, false), (64, true), (65, false), (0, false)]
        {
            assert_eq!(handles(status, signal), expected, "{signal}");
        }
        assert!(!handles("", 1));
    }
}
