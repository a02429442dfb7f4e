//! The behaviour of the commands, in the same topics and files as the contract in `qga::commands`.
//!
//! A command takes values and returns a value. It sees no socket, frame or JSON value. A check that applies to all
//! commands belongs to the dispatcher.

mod clock;
mod cpu;
mod exec;
mod file;
mod freeze;
mod memory;
mod metrics;
mod network;
mod power;
mod session;
mod ssh;
mod storage;
mod system;
mod users;

use qga::{Command, wire::message::Error};

use crate::guest::Guest;

/// The result of every command.
type Result<T> = std::result::Result<T, Error>;

/// A command's behaviour.
pub(crate) trait Run: Command {
    /// Runs the command.
    fn run(self, guest: &Guest) -> Result<Self::Reply>;

    /// The part of the arguments that the audit may record: a path, a name, a number; never contents or secrets.
    fn audit_subject(&self) -> Option<String> {
        None
    }

    /// Runs the command on the I/O thread, if it cannot wait for anything. `None` means that it has had no effect.
    fn run_inline(&self, _: &Guest) -> Option<Result<Self::Reply>> {
        None
    }
}
