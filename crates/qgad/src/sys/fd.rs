//! Descriptors that this process was started with.
//!
//! Their numbers are all that is known of them: something else in this process may own the same number. So none is
//! taken over. It is duplicated, and the duplicate is ours whatever the number was.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::{errno::Errno, libc};

/// The first number that is not one of the standard streams.
const FIRST: RawFd = 3;

/// Duplicates an inherited descriptor. Programs that are started later get neither the duplicate nor the original.
///
/// # Errors
/// `EBADF` when the number is not open.
pub(crate) fn duplicate_inherited(number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: takes numbers and returns one; no memory is involved, and nothing is closed.
    let duplicate = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FIRST) })?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows its number.
    let duplicate = unsafe { OwnedFd::from_raw_fd(duplicate) };
    // SAFETY: as the first call.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(duplicate)
}

/// Has the kernel close every descriptor beyond standard error when this process starts a program.
///
/// The agent's own have that mark already. Linux 5.11 has the call; on an older one, programs get the descriptors that
/// the agent was started with.
pub(crate) fn close_all_on_exec() {
    let last = u32::MAX;
    // SAFETY: takes numbers only, and marks descriptors without closing any.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, last, libc::CLOSE_RANGE_CLOEXEC) };
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::fd::AsRawFd};

    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    #[test]
    fn a_duplicate_outlives_the_original() {
        let original = File::open("/dev/zero").unwrap();
        let duplicate = duplicate_inherited(original.as_raw_fd()).unwrap();
        assert_ne!(duplicate.as_raw_fd(), original.as_raw_fd());
        drop(original);
        File::from(duplicate).read_exact(&mut [1]).unwrap();
    }

    #[test]
    fn neither_the_original_nor_the_duplicate_reaches_programs() {
        let original = File::open("/dev/zero").unwrap();
        fcntl(&original, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let duplicate = duplicate_inherited(original.as_raw_fd()).unwrap();
        assert_eq!(fcntl(&original, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
        assert_eq!(fcntl(&duplicate, FcntlArg::F_GETFD), Ok(libc::FD_CLOEXEC));
    }

    #[test]
    fn a_number_that_is_not_open_is_refused() {
        for number in [-1, i32::MAX] {
            assert_eq!(duplicate_inherited(number).unwrap_err(), Errno::EBADF);
        }
    }
}
