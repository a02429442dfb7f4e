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

/// How a child ended, if it has. It is not reaped: its process id stays its own.
pub(crate) fn peek(child: Pid) -> nix::Result<Option<ExitStatus>> {
    let id = libc::id_t::try_from(child.as_raw()).map_err(|_| Errno::ESRCH)?;
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes the structure, which outlives the call.
    Errno::result(unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), flags) })?;
    // SAFETY: all zeros are a valid value of this structure of numbers, and the kernel has overwritten it or not.
    let info = unsafe { info.assume_init() };
    // SAFETY: for a child, or nothing, these fields are numbers.
    let (pid, status) = (unsafe { info.si_pid() }, unsafe { info.si_status() });
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(if info.si_code == libc::CLD_EXITED { ExitStatus::Code(status) } else { ExitStatus::Signal(status) }))
}
