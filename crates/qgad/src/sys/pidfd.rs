//! Processes by descriptor, and how they ended.

use std::{
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::process::ExitStatusExt,
    },
    process,
};

use nix::{errno::Errno, libc, unistd::Pid};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// A descriptor that becomes readable when the process ends. Linux 5.3 has it.
pub(crate) fn open(pid: Pid) -> nix::Result<OwnedFd> {
    let no_flags = 0;
    // SAFETY: takes two numbers and returns one; no memory is involved.
    let returned = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), no_flags) };
    let number = RawFd::try_from(Errno::result(returned)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// How a child ended, if it has; it is reaped then. `nix` has no such call that knows real-time signals.
pub(crate) fn try_wait(child: Pid) -> nix::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: the kernel writes one number, which outlives the call.
    let returned = unsafe { libc::waitpid(child.as_raw(), &raw mut status, libc::WNOHANG) };
    if Errno::result(returned)? == 0 {
        return Ok(None);
    }
    let status = process::ExitStatus::from_raw(status);
    Ok(status.code().map(ExitStatus::Code).or_else(|| status.signal().map(ExitStatus::Signal)))
}
