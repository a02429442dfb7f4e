//! Processes by descriptor, and how they ended.

use std::{
    mem::MaybeUninit,
    os::fd::{OwnedFd, RawFd},
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
    // SAFETY: the call takes two numbers and returns one; it touches no memory of ours.
    let returned = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), no_flags) };
    let number = Errno::result(returned)?;
    Ok(super::fd::take(RawFd::try_from(number).map_err(|_| Errno::EBADF)?))
}

/// How a child ended, if it has; it is reaped then. Knows real-time signals, too.
pub(crate) fn try_wait(child: Pid) -> nix::Result<Option<ExitStatus>> {
    let id = libc::id_t::try_from(child.as_raw()).map_err(|_| Errno::ESRCH)?;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG;
    // SAFETY: `info` is large enough for what the call writes, and outlives it.
    let returned = unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), flags) };
    Errno::result(returned)?;
    // SAFETY: plain numbers, of which zero is a value of each; the call has filled them in or left them so.
    let info = unsafe { info.assume_init() };
    // SAFETY: zeroed, or filled in for a child: both have the member.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(ExitStatus::Code(status)),
        _ => Some(ExitStatus::Signal(status)),
    })
}
