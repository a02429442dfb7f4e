//! Locks on files, as fcntl(2) takes them.

use nix::libc;

/// An exclusive lock of a whole file.
#[expect(clippy::cast_possible_truncation, reason = "the fields are narrower than the constants' type")]
pub(crate) fn exclusive() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
