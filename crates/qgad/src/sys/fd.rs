//! Descriptors by number.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};

/// Takes ownership of a descriptor that was just created and that nothing else owns.
pub(crate) fn take(number: RawFd) -> OwnedFd {
    // SAFETY: callers pass a number that the kernel just returned to them, and keep no other owner of it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Takes ownership of a descriptor that this process was started with, if it was.
pub(crate) fn take_inherited(number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: the borrow ends with the call, which reports a number that is not open as an error.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(inherited, FcntlArg::F_GETFD)?;
    Ok(take(number))
}
