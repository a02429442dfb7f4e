//! Waiting for a port that cannot be opened yet.
//!
//! If the path does not exist, the nearest directory that does is watched, so that waiting costs nothing and the port
//! is opened as soon as it appears. If the path exists but cannot be opened, there is nothing to watch, and opening is
//! retried every [`RETRY_INTERVAL`]. So it is if the kernel has no inotify instance left for this user.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// How often a path that exists and cannot be opened is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// One wait for a path.
#[derive(Debug)]
pub(crate) struct Retry {
    inotify: Option<Inotify>,
    /// When to try again in any case.
    at: Option<Instant>,
}

impl Retry {
    /// Begins to wait for a path to appear, or for the time to try again.
    pub(crate) fn watch(path: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        // In this order: what appears in between is there when the path is looked at.
        let is_watched = inotify.as_ref().is_some_and(|inotify| watch_nearest_directory(inotify, path));
        let waits_for_event = is_watched && path.symlink_metadata().is_err();
        Self { inotify, at: (!waits_for_event).then(|| Instant::now() + RETRY_INTERVAL) }
    }

    /// Readable when the path may have appeared.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// When to try again even if nothing happened.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }
}

fn watch_nearest_directory(inotify: &Inotify, path: &Path) -> bool {
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    path.ancestors().skip(1).any(|directory| {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        inotify.add_watch(directory, events).is_ok()
    })
}
