//! The host's terminal while it belongs to a job.
//!
//! In raw mode, every key goes to the guest, and output is shown as it comes: the terminal in the guest does the rest.
//! The mode that the user had is restored when this is dropped, so also when qgactl fails or panics. Signals are events
//! then ([`super::signals`]), and end qgactl in the ordinary way; only SIGKILL leaves the terminal as it is.

use std::io::{self, IsTerminal};

use anyhow::ensure;
use console::Term;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The size of a terminal that tells none.
const DEFAULT_SIZE: (u16, u16) = (24, 80);

/// A terminal in raw mode.
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Puts the terminal that is standard input into raw mode.
    pub(crate) fn enter() -> io::Result<Self> {
        let terminal = Self { before: tcgetattr(io::stdin())? };
        terminal.make_raw()?;
        Ok(terminal)
    }

    /// Back to raw mode.
    pub(super) fn make_raw(&self) -> nix::Result<()> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)
    }

    /// The mode from before.
    pub(super) fn restore(&self) {
        // A terminal that is gone needs it no more.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Fails unless standard input is a terminal.
pub(crate) fn check() -> anyhow::Result<()> {
    ensure!(io::stdin().is_terminal(), "standard input is no terminal");
    Ok(())
}

/// Its rows and columns.
pub(crate) fn size() -> (u16, u16) {
    Term::stdout().size_checked().unwrap_or(DEFAULT_SIZE)
}
