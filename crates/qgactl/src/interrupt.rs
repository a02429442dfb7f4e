//! Ctrl-C and the like, while a transfer is under way.
//!
//! A transfer checks between two pieces whether it was interrupted, and then ends as after a failure: the file in the
//! guest is closed, the partial file on the host removed. When the agent is silent, so that no check happens, the
//! partial file is removed here and the process exits.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};

use crate::failure::{Failure, status_of_signal};

/// How long the transfer has to end by itself: a peer that takes longer for a piece is as good as gone.
const GRACE: Duration = Duration::from_secs(2);

/// The signals that ask for an end. One that was ignored when qgactl was started stays ignored, as nohup(1) and shells
/// that start background jobs rely on.
pub(crate) fn termination_signals() -> SigSet {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored_signals(&status);
    let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
    signals.into_iter().filter(|signal| ignored >> (*signal as i32 - 1) & 1 == 0).collect()
}

/// A bit for each ignored signal, the lowest one for signal 1, from the text of `/proc/<pid>/status`.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether a signal has asked for an end.
pub(crate) struct Interrupt(Arc<AtomicI32>);

impl Interrupt {
    /// Watches for signals from now on. A partial file, if there is one, is removed in any case.
    pub(crate) fn watch(half_file: Option<PathBuf>) -> nix::Result<Self> {
        let signals = termination_signals();
        // Before any other thread starts, so that none of them takes the signals.
        signals.thread_block()?;
        let received = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&received);
        thread::spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            seen.store(signal as i32, Ordering::Relaxed);
            thread::sleep(GRACE);
            if let Some(path) = half_file {
                fs::remove_file(path).ok();
            }
            std::process::exit(status_of_signal(signal as i32).into());
        });
        Ok(Self(received))
    }

    /// Fails once a signal has arrived.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Failure::Interrupted { signal }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ignored_signals;

    #[test]
    fn ignored_signals_are_bits_of_a_mask() {
        assert_eq!(ignored_signals("SigBlk:\tffff\nSigIgn:\t0000000000001001\nSigCgt:\tffff\n"), 0x1001);
        assert_eq!(ignored_signals("Name:\tqgactl\n"), 0);
    }
}
