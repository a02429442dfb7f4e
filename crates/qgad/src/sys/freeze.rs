//! Freezing and thawing one file system.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{errno::Errno, libc, request_code_readwrite};

/// `FIFREEZE` of linux/fs.h: writes all changed data to the disk, then blocks writers. Returns when that is done.
pub(crate) fn freeze(file: BorrowedFd<'_>) -> nix::Result<()> {
    let request = request_code_readwrite!(b'X', 119, size_of::<libc::c_int>());
    // SAFETY: the kernel ignores the argument of this request, although the request's number says that it has one.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
    Errno::result(status).map(drop)
}

/// `FITHAW`: lets writers continue. `EINVAL` when nothing is frozen.
pub(crate) fn thaw(file: BorrowedFd<'_>) -> nix::Result<()> {
    let request = request_code_readwrite!(b'X', 120, size_of::<libc::c_int>());
    // SAFETY: the kernel ignores the argument of this request, too.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
    Errno::result(status).map(drop)
}
