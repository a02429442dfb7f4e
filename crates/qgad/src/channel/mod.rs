//! Where peers come from: anything that gives a byte stream.
//!
//! A serial port has one peer for ever and can be opened again when it comes back; a listening socket has several at
//! once. Method names are checked here and nowhere earlier: a configuration is printed whatever it says.

mod listener;
mod port;
mod retry;

use std::os::fd::OwnedFd;

pub(crate) use self::{listener::Listener, port::Port, retry::Retry};

/// A source of peers.
#[derive(Debug)]
pub(crate) enum Channel {
    /// A serial port, and its stream unless it could not be opened yet.
    Port(Port, Option<OwnedFd>),
    /// A listening socket.
    Listener(Listener),
}
