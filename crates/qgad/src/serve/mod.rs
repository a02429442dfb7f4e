//! Serving peers: from bytes to a command, and from its result to bytes.
//!
//! A [`server`] watches the streams, a [`connection`] moves the bytes of one, a [`session`] makes requests of them, the
//! [`dispatch`]er finds and prepares the command, and the [`executor`] runs it where it may block.

pub(crate) mod connection;
pub(crate) mod dispatch;
pub(crate) mod executor;
pub(crate) mod output;
pub(crate) mod server;
pub(crate) mod session;
mod spare_memory;
mod waiting;
