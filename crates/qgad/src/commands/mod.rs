//! The behaviour: the same topics, under the same names, as the contract in `qga::commands`.
//!
//! A command takes values and returns a value. It sees neither socket, frame nor JSON value, and makes no check that
//! applies to all commands: the dispatcher has made it.

mod clock;
mod cpu;
mod exec;
mod file;
mod freeze;
mod memory;
mod network;
mod power;
mod session;
mod ssh;
mod storage;
mod system;
mod users;

use qga::{Command, wire::message::Error};

use crate::guest::Guest;

/// What every command returns.
type Result<T> = std::result::Result<T, Error>;

/// A command's behaviour.
pub(crate) trait Run: Command {
    /// Carries the command out.
    fn run(self, guest: &Guest) -> Result<Self::Reply>;

    /// What the audit may say of its arguments: a path, a name, a number; never contents or secrets.
    fn audit_subject(&self) -> Option<String> {
        None
    }

    /// Carries it out on the I/O thread, if it is sure not to wait for anything. Otherwise nothing has happened.
    fn run_inline(&self, _: &Guest) -> Option<Result<Self::Reply>> {
        None
    }
}
