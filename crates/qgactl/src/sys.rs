//! System calls that `nix` has no safe face for. The only place with `unsafe` in this program, one call a block.
#![allow(unsafe_code, reason = "the one place for it")]

use nix::sys::signal::{SigHandler, Signal, signal};

/// Has children tell of their end and wait to be asked how it was, also when qgactl inherited that SIGCHLD is ignored: the
/// kernel would do neither then.
pub(crate) fn keep_ended_children() -> nix::Result<()> {
    // SAFETY: the default action runs no code of ours, and no handler is replaced.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
}
