//! Sockets in the state directory, by which an agent finds the processes that an earlier one left.
//!
//! They preserve message boundaries. They have no abstract names, because root in a container that shares the network
//! namespace could connect to one and send requests.

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect as connect_to, getsockopt,
            listen as start_listening, socket, sockopt,
        },
        stat::Mode,
    },
    unistd::geteuid,
};

/// Makes a non-blocking listening socket for processes of the agent's user. Replaces a file at its path.
pub(crate) fn listen(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    let (_directory, address) = address(path)?;
    bind(socket.as_raw_fd(), &address)?;
    // No process can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    start_listening(&socket, Backlog::new(backlog)?)?;
    Ok(socket)
}

/// Connects to such a socket, without waiting. The connection is non-blocking. `None` when no process listens.
///
/// # Errors
/// `WouldBlock` when the listener does not accept. Also when the listener runs as another user.
pub(crate) fn connect(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let (_directory, address) = match address(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        address => address?,
    };
    match connect_to(socket.as_raw_fd(), &address) {
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Ok(None),
        other => other?,
    }
    if is_ours(&socket)? { Ok(Some(socket)) } else { Err(io::Error::other("it belongs to somebody else")) }
}

/// Whether the other side of a socket runs as the same user as this process.
pub(crate) fn is_ours(socket: &impl AsFd) -> nix::Result<bool> {
    Ok(getsockopt(socket, sockopt::PeerCredentials)?.uid() == geteuid().as_raw())
}

/// The socket's address, relative to its directory's descriptor: paths may be too long for an address.
fn address(path: &Path) -> io::Result<(OwnedFd, UnixAddr)> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    let name = path.file_name().unwrap_or_default().as_bytes();
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
    let address = UnixAddr::new(path.as_slice())?;
    Ok((directory, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_the_same_user_is_listened_to_and_an_earlier_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        for _ in 0..2 {
            let listener = listen(&path, 1).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(connect(&path).unwrap().is_some());
            drop(listener);
        }
    }

    #[test]
    fn where_nobody_listens_there_is_no_connection() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert!(connect(&path).unwrap().is_none());
        drop(listen(&path, 1).unwrap());
        assert!(connect(&path).unwrap().is_none());
    }
}
