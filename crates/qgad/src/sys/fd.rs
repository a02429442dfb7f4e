//! Descriptors by number.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes ownership of a descriptor that was just created, or inherited, and that nothing else owns.
pub(crate) fn take(number: RawFd) -> OwnedFd {
    // SAFETY: callers pass a number that the kernel just returned to them, or one inherited at start, and keep no
    // other owner of it.
    unsafe { OwnedFd::from_raw_fd(number) }
}
