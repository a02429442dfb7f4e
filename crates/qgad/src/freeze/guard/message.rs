//! The protocol between an agent and a guard: each message has a kind, some bytes and perhaps a descriptor.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
    time::Duration,
};

use super::super::Lease;
use crate::process::descriptor_passing::{receive, send};

/// Largest message: a kind and a path, which Linux limits to 4096 bytes.
const MAX_MESSAGE_BYTES: usize = 1 + 4096;

/// One message.
#[derive(Debug)]
pub(super) enum Message {
    /// A file system, and the place it is known by. They come in the order of freezing.
    Target(PathBuf, OwnedFd),
    /// How long the freeze may last, or what is left of that.
    Lease(Lease),
    /// The state directory, and the socket on which a new agent is waited for, if one is. A guard gets the latter last.
    Home(PathBuf, Option<OwnedFd>),
    /// The hook, and how long it may run.
    Hook(PathBuf, Duration),
    /// That was all: to a guard, to get ready; from one, that it is.
    Ready,
    /// Everything is frozen.
    Complete,
    /// Everything is thawed, and no freeze of the agent's is under way; the guard is to leave.
    Leave,
    /// Not everything could be thawed; the guard is to do it, and to stay.
    Thaw,
    /// The guard has thawed everything, by itself.
    Thawed,
}

impl Message {
    /// Sends it. For how long it may wait for room, the socket says.
    pub(super) fn send(&self, socket: &impl AsFd) -> nix::Result<()> {
        let (kind, bytes, descriptor) = match self {
            Self::Target(mount_point, descriptor) => return send_target(socket, mount_point, descriptor),
            Self::Lease(lease) => (b'L', lease.map(to_bytes).unwrap_or_default(), None),
            Self::Home(directory, takeover_socket) => {
                (b'S', directory.as_os_str().as_bytes().to_vec(), takeover_socket.as_ref())
            }
            Self::Hook(path, limit) => (b'H', [&to_bytes(*limit), path.as_os_str().as_bytes()].concat(), None),
            Self::Ready => (b'R', Vec::new(), None),
            Self::Complete => (b'C', Vec::new(), None),
            Self::Leave => (b'Q', Vec::new(), None),
            Self::Thaw => (b'U', Vec::new(), None),
            Self::Thawed => (b'E', Vec::new(), None),
        };
        send(socket, kind, &bytes, descriptor)
    }

    /// Waits for the next one; nothing at the end.
    ///
    /// # Errors
    /// When the socket breaks, or what comes is no message.
    pub(super) fn receive(socket: &impl AsFd) -> io::Result<Option<Self>> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let Some((length, descriptor)) = receive(socket, &mut buffer)? else { return Ok(None) };
        let (kind, bytes) = (buffer[0], &buffer[1..length]);
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        let message = match (kind, descriptor) {
            (b'T', Some(descriptor)) => Self::Target(path(bytes), descriptor),
            (b'L', None) if bytes.is_empty() => Self::Lease(None),
            (b'L', None) => Self::Lease(Some(from_bytes(bytes).ok_or(io::ErrorKind::InvalidData)?.0)),
            (b'S', takeover_socket) => Self::Home(path(bytes), takeover_socket),
            (b'H', None) => {
                let (limit, rest) = from_bytes(bytes).ok_or(io::ErrorKind::InvalidData)?;
                Self::Hook(path(rest), limit)
            }
            (b'R', None) => Self::Ready,
            (b'C', None) => Self::Complete,
            (b'Q', None) => Self::Leave,
            (b'U', None) => Self::Thaw,
            (b'E', None) => Self::Thawed,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Some(message))
    }
}

/// Sends a file system without taking it over.
pub(super) fn send_target(socket: &impl AsFd, mount_point: &std::path::Path, descriptor: &OwnedFd) -> nix::Result<()> {
    send(socket, b'T', mount_point.as_os_str().as_bytes(), Some(descriptor))
}

fn to_bytes(duration: Duration) -> Vec<u8> {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_le_bytes().into()
}

fn from_bytes(bytes: &[u8]) -> Option<(Duration, &[u8])> {
    let (millis, rest) = bytes.split_first_chunk()?;
    Some((Duration::from_millis(u64::from_le_bytes(*millis)), rest))
}
