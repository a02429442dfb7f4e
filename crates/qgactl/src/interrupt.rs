//! Ctrl-C and the like, while a transfer is under way.
//!
//! A transfer looks between two pieces whether it was interrupted, and then ends as after a failure: the file in the
//! guest closed, the half file on the host removed. When it does not get to look, because the agent is silent, the half
//! file is removed here and the process ends.

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

/// How long the transfer has to end by itself: a piece that takes longer comes from a peer that is as good as gone.
const GRACE: Duration = Duration::from_secs(2);

/// The signals by which somebody wants an end. One that was ignored when qgactl was started stays so, as nohup(1) and shells
/// that start something in the background mean it.
pub(crate) fn wishes_to_end() -> SigSet {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored_signals(&status);
    let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
    signals.into_iter().filter(|signal| ignored >> (*signal as i32 - 1) & 1 == 0).collect()
}

/// A bit for each signal that is ignored, the lowest one for signal 1, by what the kernel says of a process.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Knows whether the user has had enough.
pub(crate) struct Interrupt(Arc<AtomicI32>);

impl Interrupt {
    /// Watches for signals from now on. A half file, if there is one, is removed by all means.
    pub(crate) fn watch(half_file: Option<PathBuf>) -> nix::Result<Self> {
        let signals = wishes_to_end();
        // Before any other thread starts, so that none of them takes the signals.
        signals.thread_block()?;
        let received = Arc::new(AtomicI32::new(0));
        let told = Arc::clone(&received);
        thread::spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            told.store(signal as i32, Ordering::Relaxed);
            thread::sleep(GRACE);
            if let Some(path) = half_file {
                fs::remove_file(path).ok();
            }
            std::process::exit(status_of_signal(signal as i32).into());
        });
        Ok(Self(received))
    }

    /// Fails once a signal has come.
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
