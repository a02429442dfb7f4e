//! Supplementary groups of one thread.

use nix::{errno::Errno, libc, unistd::Gid};

/// The call that takes group numbers of 32 bits.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
const SET_GROUPS: libc::c_long = libc::SYS_setgroups32;
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
const SET_GROUPS: libc::c_long = libc::SYS_setgroups;

/// Gives these groups to the calling thread only. The C library's own function changes all threads of a process.
pub(crate) fn set_of_thread(groups: &[Gid]) -> nix::Result<()> {
    let groups: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    // SAFETY: the kernel reads as many numbers as the vector has, and the vector outlives the call.
    let returned = unsafe { libc::syscall(SET_GROUPS, groups.len(), groups.as_ptr()) };
    Errno::result(returned).map(drop)
}
