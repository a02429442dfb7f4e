//! Telling a disk which blocks of its file system are free: the request behind fstrim(8).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::{errno::Errno, libc, request_code_readwrite};

/// `struct fstrim_range` of linux/fs.h.
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
    minimum: u64,
}

/// The result of a trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// How many bytes the disk was told are free.
    pub(crate) bytes: u64,
    /// The smallest free extent that was considered, in bytes.
    pub(crate) minimum: u64,
}

/// Trims the whole file system that a file is on. Free extents of less than `minimum` bytes are skipped.
pub(crate) fn trim(file: BorrowedFd<'_>, minimum: u64) -> nix::Result<Trimmed> {
    let mut range = Range { start: 0, length: u64::MAX, minimum };
    let request = request_code_readwrite!(b'X', 121, size_of::<Range>());
    // SAFETY: the kernel reads and writes the structure, which outlives the call. File systems that cannot be
    // trimmed refuse the request.
    let status = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut range) };
    Errno::result(status)?;
    Ok(Trimmed { bytes: range.length, minimum: range.minimum })
}
