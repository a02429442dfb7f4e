//! The sockets on which guards wait for a new agent.
//!
//! They lie in the state directory and are for those who run as the agent does. There are several where a file system
//! is stuck since an earlier freeze, because its guard waits, too.

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockname, getsockopt, listen,
            socket, sockopt,
        },
        stat::Mode,
    },
    unistd::geteuid,
};
use qga::wire::message::Error;

use crate::{
    freeze::{BoundedCall, Marker, TakeoverSocket, marker},
    util::errno,
};

/// How many guards can wait for a new agent: one that holds a freeze, and those of file systems that are stuck. A
/// further one ends with its agent.
const MAX_GUARDS: usize = 16;
/// How long making a socket may take: as long as a busy disk, not as a frozen one.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Makes a socket. There is none where the state directory is frozen, as it may be when an agent finds a freeze whose
/// guard was killed, or cannot hold one.
pub(super) fn make(bounded_call: &BoundedCall, marker: &Marker) -> Option<TakeoverSocket> {
    let doing = format!("listen at {}", marker.socket(0).display());
    let cloned = marker.clone();
    let made =
        bounded_call.run(&doing, Instant::now() + TIMEOUT, move |_| listen_at_first_free(&cloned)).and_then(|made| {
            made.map_err(|error| Error::generic(format!("failed to {doing}: {}", errno::describe(error))))
        });
    match made {
        Ok(takeover_socket) => Some(Arc::new(takeover_socket)),
        Err(error) => {
            log::warn!("the freeze will not outlive the agent: {}", error.desc);
            None
        }
    }
}

/// Connects to each guard that waits. What a killed one left stays, because its directory may be frozen; a next guard
/// replaces it.
pub(super) fn connect_to_all(marker: &Marker) -> Vec<(PathBuf, io::Result<OwnedFd>)> {
    let paths = (0..MAX_GUARDS).map(|index| marker.socket(index));
    let connect = |path: PathBuf| match connect_to(&path) {
        Ok(socket) => Some((path, Ok(socket))),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ECONNREFUSED) => None,
        Err(error) => Some((path, Err(error.into()))),
    };
    paths.filter_map(connect).collect()
}

/// Removes the name of a socket, so that nobody waits for who has left.
pub(super) fn remove(marker: &Marker, takeover_socket: &OwnedFd) {
    let address: nix::Result<UnixAddr> = getsockname(takeover_socket.as_raw_fd());
    let name = address.ok().and_then(|address| address.path()?.file_name().map(ToOwned::to_owned));
    if let Some(name) = name {
        marker::remove(&marker.directory().join(name));
    }
}

/// Whether the other side of a socket runs as we do.
pub(super) fn is_ours(socket: &OwnedFd) -> nix::Result<bool> {
    Ok(getsockopt(socket, sockopt::PeerCredentials)?.uid() == geteuid().as_raw())
}

fn listen_at_first_free(marker: &Marker) -> io::Result<OwnedFd> {
    for path in (0..MAX_GUARDS).map(|index| marker.socket(index)) {
        match connect_to(&path) {
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => return listen_at(&path),
            // Somebody is there. It sees that we are gone at once.
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other(format!("{MAX_GUARDS} guards wait there already")))
}

/// A socket for those who run as we do.
fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    marker::remove(path);
    let socket = new_socket()?;
    let (_directory, address) = address(path)?;
    bind(socket.as_raw_fd(), &address)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listen(&socket, Backlog::new(1)?)?;
    Ok(socket)
}

fn connect_to(path: &Path) -> nix::Result<OwnedFd> {
    let socket = new_socket()?;
    let (_directory, address) = address(path)?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// A socket that does not wait for a guard that does not accept.
fn new_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// The socket's address, by way of its directory's descriptor: addresses are short, paths may be long.
fn address(path: &Path) -> nix::Result<(OwnedFd, UnixAddr)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(path.parent().unwrap_or(Path::new("/")), flags, Mode::empty())?;
    let name = path.file_name().unwrap_or_default();
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name.as_bytes()].concat();
    let address = UnixAddr::new(path.as_slice())?;
    Ok((directory, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Root;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_agent_of_the_same_user_only_finds_each_guard() {
        let directory = tempfile::tempdir().unwrap();
        let marker = Marker::new(&Root::machine(), directory.path());
        let make = || make(&BoundedCall::default(), &marker).unwrap();
        let (first, second) = (make(), make());
        assert_eq!(names(directory.path()), ["qga.state.guard", "qga.state.guard.1"]);
        for name in names(directory.path()) {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let found = connect_to_all(&marker);
        assert!(found.len() == 2 && found.iter().all(|(_, socket)| is_ours(socket.as_ref().unwrap()).unwrap()));
        remove(&marker, &first);
        assert_eq!(names(directory.path()), ["qga.state.guard.1"]);
        drop(second);
        assert!(connect_to_all(&marker).is_empty());
    }

    #[test]
    fn what_a_killed_guard_left_is_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let marker = Marker::new(&Root::machine(), directory.path());
        drop(make(&BoundedCall::default(), &marker).unwrap());
        drop(make(&BoundedCall::default(), &marker).unwrap());
        assert_eq!(names(directory.path()), ["qga.state.guard"]);
    }

    #[test]
    fn no_more_guards_wait_than_a_new_agent_looks_for() {
        let directory = tempfile::tempdir().unwrap();
        let marker = Marker::new(&Root::machine(), directory.path());
        let guards: Vec<_> = (0..MAX_GUARDS).map(|_| make(&BoundedCall::default(), &marker).unwrap()).collect();
        assert!(make(&BoundedCall::default(), &marker).is_none());
        assert_eq!(connect_to_all(&marker).len(), guards.len());
    }

    #[test]
    fn where_no_socket_can_be_made_there_is_none() {
        let marker = Marker::new(&Root::machine(), Path::new("/nonexistent"));
        assert!(make(&BoundedCall::default(), &marker).is_none());
        assert!(connect_to_all(&marker).is_empty());
    }
}
