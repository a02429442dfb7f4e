//! When memory goes back to the kernel.
//!
//! A message or a reply may take tens of mebibytes, and often another one follows. Fresh pages cost more than all else
//! that is done with the bytes, so freed memory is kept for the next one, until the agent says that none has followed.
//! Only the C library of GNU can be told so; others decide for themselves.

#[cfg(target_env = "gnu")]
use nix::libc;

/// Keeps what is freed until [`give_back`]. To be called before there are threads.
#[cfg(target_env = "gnu")]
pub(crate) fn keep() {
    let settings = [
        // All threads share one heap: what one has freed another one needs next.
        (libc::M_ARENA_MAX, 1),
        // No buffer has a mapping of its own, which would go back at once.
        (libc::M_MMAP_MAX, 0),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
    ];
    for (setting, value) in settings {
        // SAFETY: takes two numbers, while no other thread allocates.
        unsafe { libc::mallopt(setting, value) };
    }
}

/// Gives back what is free.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    let keep_at_the_end = 0;
    // SAFETY: touches nothing that is in use, and locks the heap meanwhile.
    unsafe { libc::malloc_trim(keep_at_the_end) };
}

/// Decided by the C library.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep() {}

/// Decided by the C library.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
