//! Freezing and thawing of one file system.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{errno::Errno, libc, request_code_readwrite};

/// `FIFREEZE` of linux/fs.h: writes what is dirty back, then keeps writers waiting. Returns once that is done.
pub(crate) fn freeze(file: BorrowedFd<'_>) -> nix::Result<()> {
    let request = request_code_readwrite!(b'X', 119, size_of::<libc::c_int>());
    // SAFETY: the request has no argument, whatever its number says.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
    Errno::result(status).map(drop)
}

/// `FITHAW`: lets writers go on; `EINVAL` where nothing is frozen.
pub(crate) fn thaw(file: BorrowedFd<'_>) -> nix::Result<()> {
    let request = request_code_readwrite!(b'X', 120, size_of::<libc::c_int>());
    // SAFETY: as above.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
    Errno::result(status).map(drop)
}
