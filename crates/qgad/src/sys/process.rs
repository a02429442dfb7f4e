//! The process itself.

use nix::{errno::Errno, libc, unistd::ForkResult};

/// Forks. For a process that has started no thread yet; a child of any other may only call what is async-signal-safe.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the only caller leaves the foreground during start-up, before the agent has a second thread.
    unsafe { nix::unistd::fork() }
}

/// Sends a process a signal, which may be a real-time one.
pub(crate) fn signal(pid: libc::pid_t, number: i32) -> nix::Result<()> {
    // SAFETY: takes two numbers, and concerns no memory of ours.
    Errno::result(unsafe { libc::kill(pid, number) }).map(drop)
}
