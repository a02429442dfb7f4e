//! Listening sockets: unix, vsock, or one that the service manager opened.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Instant,
};

use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, UnixAddr, VsockAddr, bind, getpeername, listen,
        socket,
    },
    sys::stat::{FchmodatFlags, Mode, fchmodat},
};

use super::vsock::{Refused, VsockPeers};
use crate::{sys, util::errno};

/// Peers that wait to be accepted, beyond those that are served.
const BACKLOG: i32 = 16;
/// A peer that can connect is root in the guest, so only root can connect.
const SOCKET_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// A socket that peers connect to.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    /// Who is served, on vsock.
    vsock_peers: Option<VsockPeers>,
    refused: Refused,
}

/// What a socket had for its owner.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A peer to serve.
    Peer(OwnedFd),
    /// A peer that is not served.
    Refused,
    /// Nobody, for now.
    Nobody,
}

impl Listener {
    /// A socket that listens already and does not block.
    pub(crate) fn inherited(socket: OwnedFd, vsock_peers: Option<VsockPeers>) -> Self {
        Self { socket, vsock_peers, refused: Refused::default() }
    }

    /// Listens at a path of the file system, for root only whatever the agent's umask is. What stands there is removed.
    pub(crate) fn unix(path: &Path) -> Result<Self, String> {
        let address = UnixAddr::new(path).map_err(|_| format!("UNIX socket path '{}' is too long", path.display()))?;
        let failed = |error: Errno| format!("Failed to bind socket to {}: {}", path.display(), errno::describe(error));
        if !path.as_os_str().as_bytes().is_empty() {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::warn!("failed to remove {}: {error}", path.display());
                }
                _ => {}
            }
        }
        // Nobody can connect before it listens.
        let permit = || fchmodat(AT_FDCWD, path, SOCKET_MODE, FchmodatFlags::FollowSymlink);
        Self::bind(AddressFamily::Unix, &address, permit).map_err(failed)
    }

    /// Listens on a vsock address, `CID:PORT`, both decimal.
    pub(crate) fn vsock(address: &str, peers: &VsockPeers) -> Result<Self, String> {
        let (cid, port) = parse_vsock_address(address)?;
        Self::bind(AddressFamily::Vsock, &VsockAddr::new(cid, port), || Ok(()))
            .map(|listener| Self { vsock_peers: Some(peers.clone()), ..listener })
            .map_err(|error| format!("Failed to bind socket: {}", errno::describe(error)))
    }

    fn bind(
        family: AddressFamily,
        address: &dyn SockaddrLike,
        permit: impl FnOnce() -> nix::Result<()>,
    ) -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        bind(socket.as_raw_fd(), address)?;
        permit()?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Self::inherited(socket, None))
    }

    /// The next peer that waits.
    pub(crate) fn accept(&mut self) -> nix::Result<Accepted> {
        loop {
            match sys::socket::accept(&self.socket, SockFlag::SOCK_NONBLOCK) {
                Ok(peer) => {
                    return Ok(if self.serves(&peer) { Accepted::Peer(peer) } else { Accepted::Refused });
                }
                Err(Errno::EAGAIN) => return Ok(Accepted::Nobody),
                // The peer left while it waited.
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn serves(&mut self, peer: &OwnedFd) -> bool {
        let Some(peers) = &self.vsock_peers else { return true };
        // One that is gone again is served nothing.
        let Ok(address) = getpeername::<VsockAddr>(peer.as_raw_fd()) else { return false };
        let is_served = peers.allow(address.cid());
        if !is_served && let Some(complaint) = self.refused.note(address.cid(), Instant::now()) {
            log::warn!("{complaint}");
        }
        is_served
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) fn parse_vsock_address(address: &str) -> Result<(u32, u32), String> {
    let (cid, port) = address.split_once(':').ok_or_else(|| format!("error parsing address '{address}'"))?;
    let number = |what: &str, text: &str| {
        let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_decimal).ok_or_else(|| format!("Failed to parse {what} '{text}'"))
    };
    Ok((number("cid", cid)?, number("port", port)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vsock_address_is_two_decimal_numbers() {
        assert_eq!(parse_vsock_address("3:1234"), Ok((3, 1234)));
        assert_eq!(parse_vsock_address("4294967295:1"), Ok((u32::MAX, 1)));
    }

    #[test]
    fn what_is_wrong_with_a_vsock_address_is_said() {
        let check = |address, message: &str| assert_eq!(parse_vsock_address(address), Err(message.into()));
        check("abc", "error parsing address 'abc'");
        check("abc:1", "Failed to parse cid 'abc'");
        check("1:", "Failed to parse port ''");
        check("1:+2", "Failed to parse port '+2'");
        check("4294967296:1", "Failed to parse cid '4294967296'");
        check("1:2:3", "Failed to parse port '2:3'");
    }
}
