//! The process itself.

use nix::unistd::ForkResult;

/// Forks. For a process that has started no thread yet; a child of any other may only call what is async-signal-safe.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the only caller leaves the foreground during start-up, before the agent has a second thread.
    unsafe { nix::unistd::fork() }
}
