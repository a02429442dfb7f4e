//! The behaviour of the commands, in the same topics and files as the contract in `qga::commands`.
//!
//! A command takes values and returns a value. It sees no socket, frame or JSON value. A check that applies to all
//! commands belongs to the dispatcher.

mod clock;
mod cpu;
mod exec;
mod file;
mod freeze;
mod job;
mod memory;
mod metrics;
mod network;
mod power;
mod session;
mod ssh;
mod storage;
mod system;
mod users;

use std::{fmt, os::fd::BorrowedFd, sync::Arc};

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

    /// Begins the command on the I/O thread, if another process carries it out and no thread has to wait. `None` means
    /// that it has had no effect.
    fn begin(&self, _: &Guest) -> Option<Result<Begun<Self::Reply>>> {
        None
    }
}

/// A command that has begun.
pub(crate) struct Begun<T> {
    /// What it waits for.
    pub(crate) wait: Arc<dyn Wait>,
    /// The rest of the command, which does not block.
    pub(crate) finish: Box<dyn FnOnce() -> Result<T> + Send>,
}

/// A wait for another process.
pub(crate) trait Wait: fmt::Debug + Send + Sync {
    /// Readable when the wait is over.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Ends the wait soon.
    fn hurry(&self);
}
