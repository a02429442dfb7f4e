//! Terminals: the requests that nix does not have.

use std::os::fd::{AsFd, AsRawFd};

use nix::{errno::Errno, libc, pty::Winsize};

/// Makes a terminal the controlling terminal of the session that the calling process leads.
pub(crate) fn make_controlling(terminal: &impl AsFd) -> nix::Result<()> {
    let take_from_nobody = 0;
    // SAFETY: takes two numbers; no memory is involved. Files that are no terminals refuse the request.
    let status = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, take_from_nobody) };
    Errno::result(status).map(drop)
}

/// Changes the size of a terminal. Its foreground process group gets SIGWINCH.
pub(crate) fn set_size(terminal: &impl AsFd, size: &Winsize) -> nix::Result<()> {
    let size = std::ptr::from_ref(size);
    // SAFETY: the kernel reads the structure, which outlives the call. Files that are no terminals refuse the request.
    let status = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, size) };
    Errno::result(status).map(drop)
}
