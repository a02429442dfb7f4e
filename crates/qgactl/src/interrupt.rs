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

use crate::failure::Failure;

/// How long the transfer has to end by itself: a piece that takes longer comes from a peer that is as good as gone.
const GRACE: Duration = Duration::from_secs(2);

/// Knows whether the user has had enough.
pub(crate) struct Interrupt(Arc<AtomicI32>);

impl Interrupt {
    /// Watches for signals from now on. A half file, if there is one, is removed by all means.
    pub(crate) fn watch(half_file: Option<PathBuf>) -> nix::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
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
            std::process::exit(128 + signal as i32);
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
