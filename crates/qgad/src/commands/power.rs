//! Shutting the guest down, and suspending it.
//!
//! The order of the methods is in `machine::power`. A fake machine has none.

use std::time::Duration;

use qga::{
    Command,
    commands::{
        power::{Shutdown, SuspendDisk, SuspendHybrid, SuspendRam},
        session::Nothing,
    },
    wire::message::Error,
};

use super::{Result, Run};
use crate::{
    guest::Guest,
    machine::power::{self, Machine, ShutdownMode, SuspendMode},
};

impl Run for Shutdown {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        let mode = match self.mode.as_deref() {
            None | Some("powerdown") => ShutdownMode::PowerOff,
            Some("halt") => ShutdownMode::Halt,
            Some("reboot") => ShutdownMode::Reboot,
            // Without the closing parenthesis, as in qemu-ga: hosts match this text.
            Some(_) => return Err(Error::generic("mode is invalid (valid values are: halt|powerdown|reboot")),
        };
        log::info!("guest-shutdown called, mode: {}", self.mode.as_deref().unwrap_or("powerdown"));
        power::shut_down(mode, &platform(guest, guest.timeout(&Self::SPEC))?).map(|()| Nothing {})
    }

    fn audit_subject(&self) -> Option<String> {
        self.mode.clone()
    }
}

impl Run for SuspendDisk {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        suspend(guest, SuspendMode::Disk, guest.timeout(&Self::SPEC))
    }
}

impl Run for SuspendRam {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        suspend(guest, SuspendMode::Ram, guest.timeout(&Self::SPEC))
    }
}

impl Run for SuspendHybrid {
    fn run(self, guest: &Guest) -> Result<Nothing> {
        suspend(guest, SuspendMode::Hybrid, guest.timeout(&Self::SPEC))
    }
}

fn suspend(guest: &Guest, mode: SuspendMode, timeout: Duration) -> Result<Nothing> {
    power::suspend(mode, &platform(guest, timeout)?).map(|()| Nothing {})
}

fn platform(guest: &Guest, timeout: Duration) -> Result<Machine<'_>> {
    Machine::of(&guest.root, guest.helpers(), timeout)
        .ok_or_else(|| Error::generic("this machine cannot be switched off"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::tests::guest_without_a_machine;

    #[test]
    fn an_unknown_mode_is_refused_with_the_text_that_hosts_know() {
        for mode in ["", "Halt", "powerdown ", "off"] {
            let refusal = Shutdown { mode: Some(mode.into()) }.run(&guest_without_a_machine()).unwrap_err();
            assert_eq!(refusal, Error::generic("mode is invalid (valid values are: halt|powerdown|reboot"));
        }
    }

    #[test]
    fn a_command_on_a_fake_machine_does_not_shut_down_the_real_one() {
        let guest = guest_without_a_machine();
        for mode in [None, Some("powerdown"), Some("halt"), Some("reboot")] {
            let refusal = Shutdown { mode: mode.map(Into::into) }.run(&guest).unwrap_err();
            assert_eq!(refusal.desc, "this machine cannot be switched off");
        }
        assert!(SuspendRam {}.run(&guest).is_err());
    }
}
