//! The behaviour: the same topics, in files of the same names, as the contract in `qga::commands`.

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

use qga::wire::message::Error;

/// What every command returns.
type Result<T> = std::result::Result<T, Error>;
