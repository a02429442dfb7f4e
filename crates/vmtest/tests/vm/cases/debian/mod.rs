//! The agent on Debian, installed as a package would install it.
//!
//! A boot takes long there, so each case checks several things one after another.

mod accounts;
mod apparmor;
mod openrc;
mod package;
mod power;
mod rpm;
mod service;
mod terminal;
mod tool;
mod vsock;
mod watchdog;

use anyhow::Result;
use vmtest::vm::Vm;

use crate::Case;

/// Mounts a file system in an image, and hides it below another one, so that one more is to be frozen.
fn mount_hidden(vm: &mut Vm) -> Result<()> {
    vm.sh("set -e; truncate -s 16M /root/image; mke2fs -q /root/image; mkdir -p /srv/hidden; \
         mount -o loop /root/image /srv/hidden; mount -t tmpfs none /srv/hidden")?;
    Ok(())
}

/// Undoes that. Nothing keeps what was hidden from being given up.
fn unmount_hidden(vm: &mut Vm) -> Result<()> {
    vm.sh("umount /srv/hidden; umount /srv/hidden")?;
    vm.wait_until("! losetup --list | grep /root/image")?;
    Ok(())
}

/// Every case on Debian by its name.
pub(crate) const ALL: &[(&str, Case)] = &[
    ("debian_runs_the_agent_as_its_unit_says", service::runs_as_its_unit_says),
    ("debian_sleeps_and_wakes_and_restarts", power::sleeps_and_wakes),
    ("debian_confines_the_agent_and_no_command_fails", apparmor::confines_the_agent),
    ("debian_accounts_and_the_clock_are_looked_after_until_it_halts", accounts::are_looked_after),
];

/// Every case on Debian in which the agent is there as packages only.
pub(crate) const WITH_PACKAGES: &[(&str, Case)] = &[
    ("debian_packages_replace_each_other_and_keep_a_freeze", package::replaces_the_reference),
    ("debian_takes_the_rpm_and_serves_vsock_beside_the_port", rpm::takes_the_place_of_another),
];

/// Every case in which Debian is on a second disk of the small guest.
pub(crate) const ON_A_SECOND_DISK: &[(&str, Case)] = &[("debian_runs_the_agent_under_openrc", openrc::runs_the_agent)];
