//! The sockets on which guards wait for a new agent.
//!
//! They are in the state directory. There are several while guards of earlier freezes wait for stuck file systems.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{UnixAddr, getsockname};
use qga::wire::message::Error;

use crate::{
    freeze::{BoundedCall, Marker, TakeoverSocket, marker},
    process::local_socket,
    util::errno,
};

/// Most guards that can wait for a new agent: one that holds a freeze, and those of stuck file systems. A further one
/// ends with its agent.
const MAX_GUARDS: usize = 16;
/// How long making a socket may take: enough for a busy disk. A frozen one never answers.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Agents that wait for a guard at a time.
const BACKLOG: i32 = 1;

/// Makes a socket. Not possible while the state directory is frozen, which it may be when the guard of an existing
/// freeze was killed, or on a file system without sockets.
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

/// Connects to each guard that waits. The socket of a killed one stays, because the directory may be frozen; the next
/// guard replaces it.
pub(super) fn connect_to_all(marker: &Marker) -> Vec<(PathBuf, io::Result<OwnedFd>)> {
    let paths = (0..MAX_GUARDS).map(|number| marker.socket(number));
    paths
        .filter_map(|path| Some((local_socket::connect(&path).transpose()?, path)))
        .map(|(one, at)| (at, one))
        .collect()
}

/// Removes the name of a socket, so that no agent waits for a guard that has exited.
pub(super) fn remove(marker: &Marker, takeover_socket: &OwnedFd) {
    let address: nix::Result<UnixAddr> = getsockname(takeover_socket.as_raw_fd());
    let name = address.ok().and_then(|address| address.path()?.file_name().map(ToOwned::to_owned));
    if let Some(name) = name {
        marker::remove(&marker.directory().join(name));
    }
}

fn listen_at_first_free(marker: &Marker) -> io::Result<OwnedFd> {
    for path in (0..MAX_GUARDS).map(|number| marker.socket(number)) {
        match local_socket::connect(&path) {
            Ok(None) => return local_socket::listen(&path, BACKLOG),
            // Another guard listens there, and sees this connection close at once.
            Ok(Some(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{MAX_GUARDS} guards wait there already")))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::root::Root;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_agent_finds_each_guard() {
        let directory = tempfile::tempdir().unwrap();
        let marker = Marker::new(&Root::machine(), directory.path());
        let make = || make(&BoundedCall::default(), &marker).unwrap();
        let (first, second) = (make(), make());
        assert_eq!(names(directory.path()), ["qga.state.guard", "qga.state.guard.1"]);
        let found = connect_to_all(&marker);
        assert!(found.len() == 2 && found.iter().all(|(_, socket)| socket.is_ok()));
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
