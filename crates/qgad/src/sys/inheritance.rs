//! What the agent got from whoever started it, and must not pass on or be misled by.

use nix::{
    libc,
    sys::signal::{SigHandler, Signal, signal},
};

/// Keeps every descriptor beyond standard error from programs that are started later.
///
/// Ours are so anyway. Linux 5.11 has it; on an older one, descriptors that the agent was started with are passed on.
pub(crate) fn keep_descriptors() {
    let (first, last) = (3, u32::MAX);
    // SAFETY: the call takes numbers only and marks descriptors, of which it closes none.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Makes children that ended wait to be looked at, also when the agent was started by one that ignores its own.
pub(crate) fn keep_ended_children() {
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}
