//! Signals as events, while a job is attended.
//!
//! A job without a terminal gets those that ask for an end. With one, they end qgactl, which must restore the terminal
//! first; so there SIGQUIT is one of them, and SIGTSTP and a new size are events, too. Elsewhere SIGQUIT keeps its
//! default action, so that a user can leave a guest that does not answer.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::{
    signal::Signal,
    signalfd::{SfdFlags, SignalFd},
};

use crate::interrupt;

/// The signals that are events from now on.
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Blocks their default actions.
    pub(super) fn block(has_terminal: bool) -> nix::Result<Self> {
        let mut signals = interrupt::termination_signals();
        if has_terminal {
            for signal in [Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH] {
                signals.add(signal);
            }
            // Without it, a process in the background may restore the terminal.
            let mut blocked = signals;
            blocked.add(Signal::SIGTTOU);
            blocked.thread_block()?;
        } else {
            signals.thread_block()?;
        }
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next one that has arrived.
    pub(super) fn next(&self) -> nix::Result<Option<Signal>> {
        let received = self.0.read_signal()?;
        received.map(|signal| Signal::try_from(i32::try_from(signal.ssi_signo).unwrap_or(0))).transpose()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
