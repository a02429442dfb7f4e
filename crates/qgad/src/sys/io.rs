//! Reading into the spare capacity of a buffer, which has never been written.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::{errno::Errno, libc};

/// Reads once, behind what is in the buffer. The buffer does not grow. Zero is the end of the file.
pub(crate) fn read_to_spare(file: &impl AsFd, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let spare = bytes.spare_capacity_mut();
    // SAFETY: the kernel writes at most the length of `spare`, which is borrowed while the call lasts.
    let returned = unsafe { libc::read(file.as_fd().as_raw_fd(), spare.as_mut_ptr().cast(), spare.len()) };
    let count = usize::try_from(Errno::result(returned)?).unwrap_or(0);
    // SAFETY: the kernel has just written this many bytes behind the old length, within the capacity.
    unsafe { bytes.set_len(bytes.len() + count) };
    Ok(count)
}

/// As [`read_to_spare`], but only what is in the page cache. An error where that would have to wait.
pub(crate) fn read_cached_to_spare(file: &impl AsFd, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let (at_position, length) = (-1, 1);
    let spare = bytes.spare_capacity_mut();
    let spare = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
    let file = file.as_fd().as_raw_fd();
    // SAFETY: the array has one element, which outlives the call and describes the spare capacity, borrowed as above.
    let returned = unsafe { libc::preadv2(file, &raw const spare, length, at_position, libc::RWF_NOWAIT) };
    let count = usize::try_from(Errno::result(returned)?).unwrap_or(0);
    // SAFETY: the kernel has just written this many bytes behind the old length, within the capacity.
    unsafe { bytes.set_len(bytes.len() + count) };
    Ok(count)
}
