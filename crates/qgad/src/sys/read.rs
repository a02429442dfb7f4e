//! Reading into memory that was never written.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::{errno::Errno, libc};

/// Appends what one read gives, at most as much as there is room for without growing. Zero is the end.
pub(crate) fn append(file: &impl AsFd, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let room = bytes.spare_capacity_mut();
    // SAFETY: the kernel writes at most the length of `room`, which is ours alone while the call lasts.
    let returned = unsafe { libc::read(file.as_fd().as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
    extend(bytes, returned)
}

/// As [`append`], of what is in memory already; fails where that cannot be told without waiting.
pub(crate) fn append_cached(file: &impl AsFd, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let (at_position, length) = (-1, 1);
    let room = bytes.spare_capacity_mut();
    let room = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let file = file.as_fd().as_raw_fd();
    // SAFETY: as above; the one element of the array outlives the call.
    let returned = unsafe { libc::preadv2(file, &raw const room, length, at_position, libc::RWF_NOWAIT) };
    extend(bytes, returned)
}

fn extend(bytes: &mut Vec<u8>, returned: isize) -> io::Result<usize> {
    let count = usize::try_from(Errno::result(returned)?).unwrap_or(0);
    // SAFETY: the kernel has just written so many bytes behind the old length, and no more than there was room for.
    unsafe { bytes.set_len(bytes.len() + count) };
    Ok(count)
}
