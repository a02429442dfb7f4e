//! When the memory allocator gives memory back to the kernel.
//!
//! A message or a reply may take tens of mebibytes, and often another one follows. Fresh pages cost more than all other
//! work on those bytes. So freed memory is kept for the next message, until the agent sees that none has followed.
//! Only glibc can be told so; other C libraries decide for themselves.

use std::io;

#[cfg(target_env = "gnu")]
use nix::libc;

/// Keeps freed memory in the process until [`trim`].
///
/// # Errors
/// `EBUSY` when the process has other threads: the settings may not change while another thread allocates.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_freed_single_threaded() -> io::Result<()> {
    super::process::require_single_thread()?;
    let settings = [
        // All threads share one heap: what one thread has freed, another one needs next.
        (libc::M_ARENA_MAX, 1),
        // No buffer has a mapping of its own, which would go back at once.
        (libc::M_MMAP_MAX, 0),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
    ];
    for (setting, value) in settings {
        // SAFETY: takes two numbers, and no other thread allocates, because there is none.
        unsafe { libc::mallopt(setting, value) };
    }
    Ok(())
}

/// Gives free memory back to the kernel.
#[cfg(target_env = "gnu")]
pub(crate) fn trim() {
    let bytes_to_keep = 0;
    // SAFETY: locks the heap, and touches no memory that is in use.
    unsafe { libc::malloc_trim(bytes_to_keep) };
}

/// The C library decides.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_freed_single_threaded() -> io::Result<()> {
    Ok(())
}

/// The C library decides.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn trim() {}
