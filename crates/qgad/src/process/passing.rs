//! What processes of this program pass to each other: messages of a kind, some bytes and perhaps a descriptor, on a socket
//! that keeps them apart.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

use crate::sys;

/// Sends a message, and a descriptor without taking it over.
pub(crate) fn send(socket: &impl AsFd, kind: u8, bytes: &[u8], descriptor: Option<&impl AsFd>) -> nix::Result<()> {
    let kind = [kind];
    let pieces = [IoSlice::new(&kind), IoSlice::new(bytes)];
    let descriptors: Vec<RawFd> = descriptor.iter().map(|descriptor| descriptor.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &pieces, control, flags, None).map(drop)
}

/// Waits for the next message: its length in the buffer, its kind included, and its descriptor. Nothing at the end.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> nix::Result<Option<(usize, Option<OwnedFd>)>> {
    let mut space = cmsg_space!(RawFd);
    let mut pieces = [IoSliceMut::new(buffer)];
    let socket = socket.as_fd().as_raw_fd();
    let received = loop {
        match recvmsg::<()>(socket, &mut pieces, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            descriptors.extend(numbers.into_iter().map(sys::fd::take));
        }
    }
    Ok((received.bytes > 0).then(|| (received.bytes, descriptors.pop())))
}
