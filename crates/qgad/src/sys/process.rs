//! The process itself, and signals to others.

use std::{fs, io};

use nix::{
    errno::Errno,
    libc,
    sys::signal::{SigHandler, SigSet, Signal, signal},
    unistd::ForkResult,
};

/// The kernel's list of the threads of the calling process.
const THREADS: &str = "/proc/self/task";

/// Forks a process of one thread; the child may then do whatever this process could.
///
/// # Errors
/// `EBUSY` when the process has other threads: locks that they hold would never be released in the child.
pub(crate) fn fork_single_threaded() -> io::Result<ForkResult> {
    require_single_thread()?;
    // SAFETY: this is the only thread, as was just checked, and it starts no other one in between.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Checks that the calling thread is the only one of its process. That stays so until this thread starts another one.
pub(super) fn require_single_thread() -> io::Result<()> {
    match fs::read_dir(THREADS)?.count() {
        1 => Ok(()),
        _ => Err(Errno::EBUSY.into()),
    }
}

/// Sends a signal to a process. Real-time signals are allowed, too.
pub(crate) fn send_signal(pid: libc::pid_t, number: i32) -> nix::Result<()> {
    // SAFETY: takes two numbers; no memory of ours is involved.
    Errno::result(unsafe { libc::kill(pid, number) }).map(drop)
}

/// Restores the default action of `SIGCHLD`, so that ended children can be waited for.
///
/// Whatever started the agent may have ignored the signal, and that is inherited.
pub(crate) fn reset_sigchld() {
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Restores the default actions of all signals and blocks none of them, as a program expects it. For a process of one
/// thread that is about to become that program.
pub(crate) fn reset_signals() {
    for signal_to_reset in Signal::iterator() {
        // SAFETY: the default action runs no code of ours.
        let _ = unsafe { signal(signal_to_reset, SigHandler::SigDfl) };
    }
    for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: as above. The C library has these without names.
        let _ = unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_does_not_fork() {
        // Tests run on threads beside the main one.
        std::thread::scope(|scope| {
            let refused = scope.spawn(|| fork_single_threaded().unwrap_err());
            assert_eq!(refused.join().unwrap().raw_os_error(), Some(libc::EBUSY));
        });
    }
}
