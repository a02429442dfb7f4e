//! Socket activation: the service manager has opened the socket and listens on it.
//!
//! `LISTEN_PID` names the process and `LISTEN_FDS` the number of descriptors, from descriptor 3 on, see
//! sd_listen_fds(3). Exactly one is accepted, of the unix or the vsock family. It replaces the method and the path of
//! the configuration.

use std::{
    ffi::OsStr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname},
};

use super::{Listener, VsockPeers};
use crate::{sys, util::errno};

/// The method of a socket of that family.
const VSOCK: &str = "vsock-listen";
/// The first inherited descriptor.
const FIRST_DESCRIPTOR: i32 = 3;

/// A socket that the service manager opened.
#[derive(Debug)]
pub(crate) struct Activation {
    socket: OwnedFd,
    method: &'static str,
}

impl Activation {
    /// Takes the socket that is meant for this process, if there is one.
    pub(crate) fn take(listen_pid: Option<&OsStr>, listen_fds: Option<&OsStr>) -> Result<Option<Self>, String> {
        let number = |text: Option<&OsStr>| text.and_then(OsStr::to_str).and_then(|text| text.parse::<u32>().ok());
        if number(listen_pid) != Some(std::process::id()) {
            return Ok(None);
        }
        match number(listen_fds) {
            None | Some(0) => return Ok(None),
            Some(1) => {}
            Some(_) => return Err("qemu-ga only supports listening on one socket".into()),
        }
        let invalid =
            |error: nix::Error| format!("the inherited listening socket cannot be used: {}", errno::describe(error));
        let socket = sys::fd::duplicate_inherited(FIRST_DESCRIPTOR).map_err(invalid)?;
        let flags = fcntl(&socket, FcntlArg::F_GETFL).map(OFlag::from_bits_retain).map_err(invalid)?;
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(invalid)?;
        let address: SockaddrStorage = getsockname(socket.as_raw_fd()).map_err(invalid)?;
        let method = match address.family() {
            Some(AddressFamily::Unix) => "unix-listen",
            Some(AddressFamily::Vsock) => VSOCK,
            _ => return Err("unsupported listen fd type".into()),
        };
        Ok(Some(Self { socket, method }))
    }

    /// The method it amounts to.
    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    /// The socket, ready to accept peers.
    pub(crate) fn into_listener(self, vsock_peers: &VsockPeers) -> Listener {
        let is_vsock = self.method == VSOCK;
        Listener::inherited(self.socket, is_vsock.then(|| vsock_peers.clone()))
    }
}
