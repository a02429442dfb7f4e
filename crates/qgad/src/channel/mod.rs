//! Channels: where the streams come from on which peers are served.
//!
//! A serial port has one peer, and can be opened again after it broke. A listening socket has several peers at once.
//! Method names are checked here and not earlier, because `--dump-conf` prints any.

mod activation;
mod listener;
mod port;
mod retry;
mod source;
mod vsock;

use std::{os::fd::OwnedFd, path::Path};

pub(crate) use self::{
    activation::Activation,
    listener::Listener,
    port::Port,
    source::{Next, Source},
    vsock::VsockPeers,
};
use self::{
    listener::{Accepted, parse_vsock_address},
    retry::Retry,
};

/// What the end of a stream's input means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndOfInput {
    /// The peer is done: what it asked for is answered, then the connection closes. A socket.
    Closes,
    /// The peer is gone, and the next one will use the same stream. A virtio port whose host side is closed.
    PeerLeft,
    /// The stream is of no more use. A terminal that hung up.
    Breaks,
}

/// A source of peers.
#[derive(Debug)]
pub(crate) enum Channel {
    /// A serial port, and its stream unless it could not be opened yet.
    Port(Port, Option<OwnedFd>),
    /// A listening socket.
    Listener(Listener),
}

impl Channel {
    /// Opens a channel. A port that is to be waited for may be missing; everything else must be there.
    pub(crate) fn open(
        method: &str,
        path: &Path,
        waits_for_port: bool,
        vsock_peers: &VsockPeers,
    ) -> Result<Self, String> {
        match method {
            "virtio-serial" => Self::open_port(Port::virtio(path.into()), waits_for_port),
            "isa-serial" => Self::open_port(Port::isa(path.into()), waits_for_port),
            "unix-listen" => Listener::unix(path).map(Self::Listener),
            "vsock-listen" => Listener::vsock(&path.to_string_lossy(), vsock_peers).map(Self::Listener),
            _ => Err(unsupported(method)),
        }
    }

    /// Why a channel can never be opened, as far as that can be told without opening it.
    pub(crate) fn check(method: &str, path: &Path) -> Result<(), String> {
        match method {
            "virtio-serial" | "isa-serial" => Ok(()),
            "unix-listen" => match path.parent() {
                Some(directory) if directory.is_dir() || directory.as_os_str().is_empty() => Ok(()),
                _ => Err(format!("there is no directory for the socket {}", path.display())),
            },
            "vsock-listen" => parse_vsock_address(&path.to_string_lossy()).map(|_| ()),
            _ => Err(unsupported(method)),
        }
    }

    fn open_port(port: Port, waits_for_it: bool) -> Result<Self, String> {
        if waits_for_it {
            // The loop opens it, now or later.
            return Ok(Self::Port(port, None));
        }
        let stream = port.open()?;
        Ok(Self::Port(port, Some(stream)))
    }
}

fn unsupported(method: &str) -> String {
    format!("unsupported channel method/type: {method}")
}
