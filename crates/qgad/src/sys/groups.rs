//! Supplementary groups of one thread.

use nix::{errno::Errno, libc, unistd::Gid};

/// The call whose groups are 32 bits wide.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
const SET_GROUPS: libc::c_long = libc::SYS_setgroups32;
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
const SET_GROUPS: libc::c_long = libc::SYS_setgroups;

/// Gives the calling thread these groups, and no other thread: the C library's own call is for a whole process.
pub(crate) fn set_of_thread(groups: &[Gid]) -> nix::Result<()> {
    // SAFETY: the kernel reads as many numbers as it is told; `Gid` is a number and nothing else.
    let returned = unsafe { libc::syscall(SET_GROUPS, groups.len(), groups.as_ptr()) };
    Errno::result(returned).map(drop)
}
