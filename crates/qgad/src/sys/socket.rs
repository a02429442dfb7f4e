//! Descriptors that come out of sockets: of peers, and those that a message carries.

use std::{
    io::IoSliceMut,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, SockFlag, accept4, recvmsg},
};

/// Accepts a peer. Programs that are started later do not get its descriptor.
pub(crate) fn accept(listener: &impl AsFd, flags: SockFlag) -> nix::Result<OwnedFd> {
    let peer = accept4(listener.as_fd().as_raw_fd(), flags | SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(peer) })
}

/// Receives one message: its length in the buffer, and the descriptor that it carries. The length is 0 at the end.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut space = cmsg_space!(RawFd);
    let mut pieces = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            for number in numbers {
                // SAFETY: the kernel has just made this descriptor, and the message is read once.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((received.bytes, descriptors.pop()))
}
