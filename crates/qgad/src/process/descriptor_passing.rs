//! Messages between processes of this program: a kind, some bytes, and at most one descriptor each.
//!
//! They are sent on a socket that preserves message boundaries. A started process gets its end as standard input.

use std::{
    fs::OpenOptions,
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
    unistd::dup2_stdin,
};

use crate::sys;

/// Sends a message, with a copy of a descriptor.
pub(crate) fn send(socket: &impl AsFd, kind: u8, bytes: &[u8], descriptor: Option<&impl AsFd>) -> nix::Result<()> {
    let kind = [kind];
    let pieces = [IoSlice::new(&kind), IoSlice::new(bytes)];
    let descriptors: Vec<RawFd> = descriptor.iter().map(|descriptor| descriptor.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &pieces, control, flags, None).map(drop)
}

/// Waits for the next message: its length in the buffer, including its kind, and its descriptor. `None` at the end.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> nix::Result<Option<(usize, Option<OwnedFd>)>> {
    loop {
        match sys::socket::receive(socket, buffer) {
            Err(Errno::EINTR) => {}
            Ok((0, _)) => return Ok(None),
            received => return received.map(Some),
        }
    }
}

/// Takes the socket that this process was started with out of standard input, and leaves `/dev/null` in its place: once
/// the returned descriptor is closed, the other process sees the end.
pub(crate) fn take_standard_input() -> io::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(OpenOptions::new().read(true).open("/dev/null")?)?;
    Ok(socket)
}
